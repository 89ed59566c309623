"""Where runs are claimed, wait their turn, are started, and are put on record when they end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from scheduler import __version__
from scheduler.core import lifecycle
from scheduler.core.lifecycle import Going, Move, Waiting
from scheduler.core.limits import is_failure
from scheduler.core.models import Task
from scheduler.core.record import Reason, Record, RunnerMark, Status
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import run
from scheduler.execution.agent import SupervisorPool
from scheduler.runner.due import Look, claim_due, new_record
from scheduler.runner.floor import Floor
from scheduler.runner.gate import Gate
from scheduler.runner.ledger import Closing, Ledger, insist, read_record
from scheduler.runner.projects import Projects
from scheduler.runner.publish import Publisher
from scheduler.runner.served import Served
from scheduler.runner.skips import Skips
from scheduler.runner.space import Space
from scheduler.runner.turns import Queued, listing
from scheduler.store.state import RunRow, State

log = logging.getLogger("scheduler")


class Desk:
    """The queue and the runs under way. All of it happens in the runner's one thread."""

    def __init__(
        self,
        paths: Paths,
        env: Mapping[str, str],
        state: State,
        pool: SupervisorPool,
        projects: Projects,
        now: Callable[[], datetime],
    ) -> None:
        self._state = state
        self._projects = projects
        self._now = now
        self.mark = RunnerMark(host=socket.gethostname(), pid=os.getpid(), version=__version__)
        self._publisher = Publisher(paths, state, projects, self.mark, now())
        self.ledger = Ledger(paths, state, projects, self._retry)
        self.gate = Gate(paths.off_switch, state, projects, now)
        self._skips = Skips(state, self.ledger, projects, self.mark)
        self.queue: dict[str, Queued] = {}
        self.floor = Floor(paths, env, state, pool, now, self._ended)
        self.wake = asyncio.Event()
        self._space = Space((paths.state, paths.worktrees))
        self._served: dict[str, int] = {}
        self._starts = 0

    # What is due

    def fire(self, now: datetime) -> None:
        """Queue every occurrence that is due, and put on record those that are skipped."""
        self.gate.look(now)
        if self.gate.shut is not None:
            for served in self._projects.served.values():
                served.absent = self.gate.shut
            return
        look = Look(now, self.mark, self.gate.holds, partial(self._skips.pass_over, now=now))
        for served in self._projects.served.values():
            for claimed in claim_due(served, self._state, look):
                self._projects.changed.add(served.root)
                if claimed.record.status is Status.RUNNING:
                    self._enqueue(claimed.record, claimed.moment)
                else:
                    self.close_record(claimed.record)
        self._skips.settle(self.gate.holds, now)
        self.gate.settle(now)

    def obey_switch(self, now: datetime) -> None:
        """Cancel what runs where the off switch says so."""
        off = self.gate.off(now)
        if off is not None and off.stop:
            self.floor.cancel()

    def nearest(self) -> datetime | None:
        """When the next occurrence comes, unless it is to wait."""
        return None if self.gate.shut else self._projects.nearest()

    def _enqueue(
        self,
        record: Record,
        since: datetime,
        not_before: datetime | None = None,
        *,
        asked: bool = False,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        who = (record.id, record.project, record.task_id)
        waiting = Waiting(*who, since, not_before, record.isolated, asked, begun=place is not None)
        self.queue[record.id] = Queued(record, waiting, place)
        self.wake.set()

    def requeue(self, record: Record, not_before: datetime | None) -> None:
        """Queue a run that an earlier runner claimed and never began."""
        since = record.scheduled_for or record.started_at
        self._enqueue(record.evolve(runner=self.mark), since, not_before, asked=record.asked)

    def wait(self, row: RunRow) -> None:
        """Queue a run that goes on when a usage limit has ended."""
        record = read_record(row.record)
        if record.cost_usd is not None:
            self._state.spent(record.id, record.cost_usd, self._now())
        self._projects.changed.add(record.project)
        self._enqueue(record.evolve(runner=self.mark), record.started_at, asked=record.asked, place=row.place or {})

    def knows(self, run_id: str) -> bool:
        """Whether a run of this runner's is queued or under way."""
        return run_id in self.floor.going or run_id in self.queue

    # Whose turn it is

    def start_ready(self, now: datetime) -> None:
        """Start, skip or leave each queued run, in turn, as long as there is room."""
        while True:
            waiting = [q.waiting for q in self.queue.values()]
            going = [u.going for u in self.floor.going.values()]
            room = len(going) < self._projects.settings.max_concurrent and (not waiting or self._space.enough())
            standing = lifecycle.standing(waiting)
            current = {project: self._projects.current(project) for project in {one.project for one in waiting}}
            for turn in lifecycle.in_turn(waiting, going, self._served, now):
                there = standing.get(turn.project, [])
                move = self._move(self.queue[turn.run_id], current[turn.project], going, there, room, now)
                if move is not None and (there or move is not Move.SKIP):
                    break  # a skip alone leaves the others' turns as they were
            else:
                return

    def _move(
        self, queued: Queued, served: Served | None, going: list[Going], there: list[Waiting], room: bool, now: datetime
    ) -> Move | None:
        """What became of the queued run; None where it stays in the queue. `served`: its project, as it is now."""
        record = queued.record
        if served is None and record.project in self._projects.served:
            return None  # its config changed this moment; the next look reads it first
        task = served.tasks.get(record.task_id) if served else None
        if served is None and queued.place is not None:
            return None  # it waits for its project to be enabled again
        trusted = served is None or served.suspended is None  # a project that is not served was switched off
        holds = self.gate.over(record.project, task, now) if task else []
        shut = self.gate.shut is not None
        decision = lifecycle.decide(queued.waiting, task, going, trusted=trusted, holds=holds, quiet=shut, queue=there)
        if decision.move is Move.SKIP:
            del self.queue[record.id]
            skipped = record.evolve(status=Status.SKIPPED, reason=decision.reason, completed_at=now)
            self.close_record(skipped)
            return decision.move
        if decision.move is Move.GIVE_UP:
            del self.queue[record.id]
            why = "its task was removed, disabled or changed while it waited for a usage limit to end"
            self.floor.give_up(record, queued.place, why)
            return decision.move
        if decision.move is Move.CANCEL_OTHER:
            for other in self.floor.going.values():
                if (other.record.project, other.record.task_id) == (record.project, record.task_id):
                    other.cancel.set()
        if decision.move is not Move.START or not room or served is None or task is None:
            return None
        if self._projects.current(record.project) is not served:
            return None  # many may have had their turn since that look
        del self.queue[record.id]
        self._start(queued, served, task, now)
        return decision.move

    def _start(self, queued: Queued, served: Served, task: Task, now: datetime) -> None:
        record = queued.record
        if queued.place is None:
            execution = task.execution
            record = record.evolve(started_at=now, isolated=execution.worktree.enabled, sandbox=execution.sandbox)
        trusted = served.trusted
        order = run.Order(record, task, served.rules, trusted.path, trusted.client, served.redactor, queued.place)
        self._starts += 1
        self._served[record.project] = self._starts
        self._projects.changed.add(record.project)
        self.floor.start(order, self._projects.settings)

    def _ended(self, record: Record) -> None:
        """A run is off the floor: it has ended, or waits for a usage limit to end."""
        insist(partial(self._take, record))

    def _take(self, record: Record) -> None:
        row = self._state.run(record.id) if record.status is Status.RUNNING else None
        if row is not None:
            self.gate.limit(record)
            self.wait(row)
            return
        if record.reason is Reason.SELF_EDIT:
            self._projects.forget_stamps()  # nothing starts before what was approved is read anew
        self.gate.judge_account(record)
        self.close_record(record)
        self.wake.set()

    # On record

    def close_record(self, record: Record, done: Collection[str] = ()) -> None:
        """Put a final record on file, but into the histories that have it (`done`), and queue another attempt if its
        task is to have one."""
        insist(partial(self._close, record, done))

    def _close(self, record: Record, done: Collection[str]) -> None:
        served = self._projects.served.get(record.project)
        task = served.tasks.get(record.task_id) if served else None
        again = None
        if task is not None and record.completed_at is not None:
            again = self._next_attempt(record, task, record.completed_at)
        # What is tried again has not failed for good.
        failed = None if again else is_failure(record.status, record.reason, record.attempt)
        if task is not None and failed:
            record = self.gate.count_failure(record, task)
        self.ledger.close(Closing(record, failed, again, set(done)))

    def _next_attempt(self, record: Record, task: Task, ended: datetime) -> tuple[Record, datetime] | None:
        at = lifecycle.retry_at(task, record.status, record.reason, record.attempt, ended)
        if at is None:
            return None
        attempt = record.attempt + 1
        return new_record(record.project, task, at, self.mark, "retry", record.scheduled_for, attempt), at

    def _retry(self, record: Record, at: datetime) -> None:
        self.requeue(record, at)
        asyncio.get_running_loop().call_later(max((at - self._now()).total_seconds(), 0), self.wake.set)

    # What people ask for

    def order(self, project: str, task_id: str, *, retry: bool = False) -> str:
        """Queue a run that a person asked for; its id. SchedulerError when it may not run."""
        served = self._projects.served.get(project)
        if self.gate.off(self._now()):
            raise SchedulerError("the scheduler is switched off: nothing starts", "see 'status'")
        if served is None:
            raise SchedulerError(f"{project} is not enabled", "enable it: 'enable'")
        if served.suspended or served.config is None:
            raise SchedulerError(f"{project} is suspended: {served.suspended}", "see 'enable'")
        task = served.config.task(task_id)
        now = self._now()
        record = new_record(project, task, now, self.mark, "retry" if retry else "manual", None)
        if not self._state.claim(record.to_json(), now, now):
            raise SchedulerError("it was asked for twice in the same moment", "see 'history'")
        self._enqueue(record, now, asked=True)
        return record.id

    def cancel(self, run_id: str) -> str:
        """Stop a run under way, or take it off the queue; its id."""
        if self.floor.cancel(run_id):
            return run_id
        queued = self.queue.pop(run_id, None)
        if queued is None:
            raise SchedulerError(f"no run {run_id!r:.60} is under way", "see 'status'")
        if queued.place is not None:
            self.floor.give_up(queued.record, queued.place, "cancelled while it waited for a usage limit to end")
        else:
            skipped = queued.record.evolve(status=Status.SKIPPED, reason=Reason.CANCELLED, completed_at=self._now())
            self.close_record(skipped)
        return run_id

    def tasks(self) -> set[tuple[str, str]]:
        """(project, task) of all that runs or is queued."""
        records = [u.record for u in self.floor.going.values()] + [q.record for q in self.queue.values()]
        return {(record.project, record.task_id) for record in records}

    def status(self) -> dict[str, Any]:
        """Runs under way and queued, for the control socket."""
        return listing(self.floor.going.values(), list(self.queue.values()), self.gate.limit_ends(self._now()))

    def cramped(self) -> dict[str, str] | None:
        """Why nothing starts though there is room among the runs: a disk that is full, or nearly."""
        return None if self._space.enough() else {"cause": "disk", "why": self._space.words()}

    def publish(self, now: datetime) -> None:
        """Bring the hooks' glance up to date, in the background."""
        self._publisher.publish(now, [u.going for u in self.floor.going.values()])

    async def close(self) -> None:
        """Wait for what is under way in the background."""
        await self.floor.close()
        await self._publisher.close()
