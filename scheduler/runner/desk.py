"""Where runs are claimed, wait their turn, are started, and are put on record when they end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from scheduler import __version__
from scheduler.core import lifecycle
from scheduler.core.lifecycle import Going, Move, Waiting
from scheduler.core.limits import is_failure
from scheduler.core.models import Task, iso
from scheduler.core.record import Reason, Record, RunnerMark, Status
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import aftermath, run
from scheduler.execution.agent import SupervisorPool
from scheduler.runner.due import claim_due, new_record
from scheduler.runner.gate import Gate
from scheduler.runner.ledger import Ledger
from scheduler.runner.projects import Projects
from scheduler.runner.publish import Publisher
from scheduler.runner.served import Served
from scheduler.runner.skips import Skips
from scheduler.runner.turns import Queued, Underway, listing
from scheduler.store.state import State

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
        self._paths = paths
        self._state = state
        self._projects = projects
        self._now = now
        self._env = env
        self._shop = run.Workshop(paths, pool, dict(env), now, state.update_run)
        self.mark = RunnerMark(host=socket.gethostname(), pid=os.getpid(), version=__version__)
        self._publisher = Publisher(paths, state, projects, self.mark, now())
        self.ledger = Ledger(paths, state, projects)
        self._gate = Gate(state, projects)
        self._skips = Skips(state, self.ledger, projects, self.mark)
        self.queue: list[Queued] = []
        self.going: dict[str, Underway] = {}
        self.wake = asyncio.Event()
        self._served: dict[str, int] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._unswept = False
        self._starts = 0

    # What is due

    def fire(self, now: datetime) -> None:
        """Queue every occurrence that is due, and put on record those that are skipped."""
        self._gate.look(now)
        if self._gate.shut:
            return
        pass_over = partial(self._skips.pass_over, now=now)
        for served in self._projects.served.values():
            for claimed in claim_due(served, self._state, now, self.mark, self._gate.holds, pass_over):
                self._projects.changed.add(served.root)
                if claimed.record.status is Status.RUNNING:
                    self._enqueue(claimed.record, claimed.moment)
                else:
                    self.close_record(claimed.record)
        self._skips.settle(self._gate.holds, now)
        self._gate.settle(now)

    def nearest(self) -> datetime | None:
        """When the next occurrence comes, unless it is to wait."""
        return None if self._gate.shut else self._projects.nearest()

    def _enqueue(
        self, record: Record, since: datetime, not_before: datetime | None = None, *, asked: bool = False
    ) -> None:
        waiting = Waiting(record.id, record.project, record.task_id, since, not_before, record.isolated, asked)
        self.queue.append(Queued(record, waiting))
        self.wake.set()

    def requeue(self, record: Record, not_before: datetime | None) -> None:
        """Queue a run that an earlier runner claimed and never began."""
        since = record.scheduled_for or record.started_at
        asked = record.triggered_by == "manual"
        self._enqueue(record.evolve(runner=self.mark), since, not_before, asked=asked)

    def knows(self, run_id: str) -> bool:
        """Whether a run of this runner's is queued or under way."""
        return run_id in self.going or any(q.record.id == run_id for q in self.queue)

    # Whose turn it is

    def start_ready(self, now: datetime) -> None:
        """Start, skip or leave each queued run, in turn, as long as there is room."""
        by_id = {q.record.id: q for q in self.queue}
        waiting = [q.waiting for q in self.queue]
        while True:
            going = [u.going for u in self.going.values()]
            room = len(going) < self._projects.settings.max_concurrent
            for turn in lifecycle.in_turn(waiting, going, self._served, now):
                if self._move(by_id[turn.run_id], going, room, now):
                    waiting.remove(turn)
                    break
            else:
                return

    def _move(self, queued: Queued, going: list[Going], room: bool, now: datetime) -> bool:
        """Whether the queued run left the queue."""
        record = queued.record
        served = self._projects.current(record.project)
        if served is None and record.project in self._projects.served:
            return False  # its config changed this moment; the next look reads it first
        task = served.tasks.get(record.task_id) if served else None
        trusted = served is None or served.suspended is None  # a project that is not served was switched off
        hold = self._gate.hold(record.project, task, now) if task else None
        shut = self._gate.shut
        decision = lifecycle.decide(queued.waiting, task, going, trusted=trusted, hold=hold, quiet=shut)
        if decision.move is Move.SKIP:
            self.queue.remove(queued)
            skipped = record.evolve(status=Status.SKIPPED, reason=decision.reason, completed_at=now)
            self.close_record(skipped)
            return True
        if decision.move is Move.CANCEL_OTHER:
            for other in self.going.values():
                if (other.record.project, other.record.task_id) == (record.project, record.task_id):
                    other.cancel.set()
        if decision.move is Move.START and room and served is not None and task is not None:
            self.queue.remove(queued)
            self._start(queued, served, task, now)
            return True
        return False

    def _start(self, queued: Queued, served: Served, task: Task, now: datetime) -> None:
        record = queued.record.evolve(started_at=now, isolated=task.execution.worktree.enabled)
        underway = Underway(record, Going(record.id, record.project, task.id, record.isolated))
        order = run.Order(record, task, served.rules, served.trusted.path, served.trusted.client)
        self._starts += 1
        self._served[record.project] = self._starts
        self._projects.changed.add(record.project)
        self.going[record.id] = underway
        underway.work = asyncio.create_task(self._carry(order, underway), name=f"run {record.id[:8]}")

    async def _carry(self, order: run.Order, underway: Underway) -> None:
        record = underway.record
        try:
            shop = self._shop.with_settings(self._projects.settings)
            final = await run.carry_out(order, shop, underway.cancel)
        except Exception as error:
            log.exception("run %s ended by a bug", record.id)
            final = await self._rescue(record, error)
        del self.going[record.id]
        self.close_record(final)
        self.sweep()
        self.wake.set()

    async def _rescue(self, record: Record, error: Exception) -> Record:
        """The record of a run that a bug of ours ended; its work is saved as after a crash."""
        final = record.evolve(
            status=Status.FAILURE,
            reason=Reason.CRASHED,
            completed_at=self._now(),
            error=f"a bug of the scheduler ended this run: {error!r:.300}; see {self._paths.runner_log}",
        )
        place = next((row.place for row in self._state.runs() if row.run_id == record.id), None)
        if place is None or "worktree" not in place:
            return final
        try:
            return await asyncio.to_thread(aftermath.recover, self._paths, final, place, self._env)
        except Exception:  # a second bug must not keep the run on the list of those under way for ever
            log.exception("the work of run %s was not saved", record.id)
            return final.evolve(notes=(f"its worktree {place['worktree']} stays as it is",))

    # On record

    def close_record(self, record: Record) -> None:
        """Put a final record on file, and queue another attempt if its task is to have one."""
        served = self._projects.served.get(record.project)
        task = served.tasks.get(record.task_id) if served else None
        again = None
        if task is not None and record.completed_at is not None:
            again = lifecycle.retry_at(task, record.status, record.reason, record.attempt, record.completed_at)
        # What is tried again has not failed for good.
        failed = None if again else is_failure(record.status, record.reason)
        if task is not None and failed:
            record = self._gate.count_failure(record, task)
        if self.ledger.close(record, failed) and task is not None and again is not None:
            self._retry(record, task, again)

    def _retry(self, record: Record, task: Task, at: datetime) -> None:
        moment = record.scheduled_for or record.started_at
        new = new_record(record.project, task, at, self.mark, "retry", record.scheduled_for, record.attempt + 1)
        if self._state.claim(new.to_json(), moment, self._now()):
            self._state.update_run(new.id, place={"notBefore": iso(at)})
            self._enqueue(new, moment, at)
            asyncio.get_running_loop().call_later(max((at - self._now()).total_seconds(), 0), self.wake.set)

    # What people ask for

    def order(self, project: str, task_id: str, *, retry: bool = False) -> str:
        """Queue a run that a person asked for; its id. SchedulerError when it may not run."""
        served = self._projects.served.get(project)
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
        underway = self.going.get(run_id)
        if underway is not None:
            underway.cancel.set()
            return run_id
        for queued in self.queue:
            if queued.record.id == run_id:
                self.queue.remove(queued)
                self.close_record(
                    queued.record.evolve(status=Status.SKIPPED, reason=Reason.CANCELLED, completed_at=self._now())
                )
                return run_id
        raise SchedulerError(f"no run {run_id!r:.60} is under way", "see 'status'")

    def cancel_all(self) -> None:
        """Stop every run under way."""
        for underway in self.going.values():
            underway.cancel.set()

    def tasks(self) -> set[tuple[str, str]]:
        """(project, task) of all that runs or is queued."""
        records = [u.record for u in self.going.values()] + [q.record for q in self.queue]
        return {(record.project, record.task_id) for record in records}

    def status(self) -> dict[str, Any]:
        """Runs under way and queued, for the control socket."""
        return listing(self.going.values(), self.queue)

    def publish(self, now: datetime) -> None:
        """Bring the hooks' glance up to date, in the background."""
        self._publisher.publish(now, [u.going for u in self.going.values()])

    def sweep(self) -> None:
        """Delete the folders of removed worktrees, in the background."""
        self._unswept = True
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while self._unswept:  # by a run that ended while the last sweep was under way
            self._unswept = False
            for complaint in await asyncio.to_thread(aftermath.empty_trash, self._paths):
                log.warning(complaint)

    async def close(self) -> None:
        """Wait for what is under way in the background."""
        tasks = [u.work for u in self.going.values() if u.work is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweeping is not None:
            await self._sweeping
        await self._publisher.close()
