"""`state.db`: what decides — which occurrences are claimed, how far each task is handled, which runs are under way.

What was answered survives a power cut, and takes with it what was written before it without waiting for the disk
(`at_once` False). All times are aware. A damaged file is moved aside and a fresh one started, in which nothing fires
for the time before (`State.damage` says so). What keeps tasks from running is `State.holds` (store/holds.py).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from scheduler.core.limits import Hold, over_budget
from scheduler.core.models import Budgets, QuietHours, UserSettings
from scheduler.core.overdue import Absence
from scheduler.store.claims import Claims
from scheduler.store.costs import Costs, add_cost, bounds
from scheduler.store.database import Database, stored
from scheduler.store.holds import Holds, Tally

AHEAD = timedelta(days=1)  # a watermark further in the future was set by a wrong clock


@dataclass(frozen=True)
class TaskState:
    """What the runner knows of a task. `active_since` is None while the task is off."""

    task: str
    trigger: str
    added_at: datetime
    active_since: datetime | None
    handled_until: datetime
    done_at: datetime | None
    failures: int


@dataclass(frozen=True)
class RunRow:
    """A run under way. `phase`: `queued` (claimed, not begun), `running`, `waiting` (for a usage limit to end), `ended`
    (not yet on record). `record` is its latest record's JSON.

    `place`: worktree, branch, base (once known); notBefore of a retry; resumeAt and waits (how many) of one that waits.
    `process`: pid, started, boot of its supervisor.
    """

    run_id: str
    project: str
    task: str
    phase: str
    record: dict[str, Any]
    place: dict[str, Any] | None
    process: dict[str, Any] | None


@dataclass(frozen=True)
class Retry:
    """Another attempt of an occurrence: the JSON of its record, what it claims and when, and when it may begin."""

    record: dict[str, Any]
    scheduled_for: datetime
    claimed_at: datetime
    not_before: datetime


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True)
class Known:
    """What is known of a project: its tasks by id, the holds that can cover them, what was passed over so far, the runs
    that wait for a usage limit to end, and the quiet hours. `absence`: why nobody would look at what is due."""

    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    holds: Sequence[Hold] = ()
    tallies: Sequence[Tally] = ()
    waiting: Sequence[RunRow] = ()
    absence: Absence = Absence.NO_RUNNER
    quiet_hours: QuietHours | None = None


class State:
    """An open `state.db`. Not to be shared between threads."""

    def __init__(self, path: str, now: datetime) -> None:
        self._db = Database(path, now)
        self.damage, self.writable = self._db.damage, self._db.writable
        self.holds = Holds(self._db)
        self.costs = Costs(self._db)
        self.claims = Claims(self._db)

    def close(self) -> None:
        self._db.close()

    def sync(self, project: str, tasks: Iterable[tuple[str, str, bool]], now: datetime) -> None:
        """Take in what an approved config says: (id, digest of its trigger, enabled) each; ids not named are forgotten.

        A task that is new, was off, or has another trigger is active from `now`: nothing fires for the time before.
        """
        at = stored(now)
        with self._db.writing() as db:
            known = {
                r[0]: (r[1], r[2])
                for r in db.execute("SELECT task, trigger, active_since FROM tasks WHERE project=?", (project,))
            }
            for task, trigger, enabled in tasks:
                before = known.pop(task, None)
                since = at if enabled else None
                if before is None:
                    db.execute(
                        "INSERT INTO tasks (project, task, trigger, added_at, active_since, handled_until)"
                        " VALUES (?,?,?,?,?,?)",
                        (project, task, trigger, at, since, at),
                    )
                elif before[0] != trigger:
                    db.execute(
                        "UPDATE tasks SET trigger=?, added_at=?, active_since=?, handled_until=?, done_at=NULL,"
                        " failures=0 WHERE project=? AND task=?",
                        (trigger, at, since, at, project, task),
                    )
                elif enabled != (before[1] is not None):
                    db.execute(
                        "UPDATE tasks SET active_since=?, handled_until=max(handled_until, ?)"
                        " WHERE project=? AND task=?",
                        (since, at, project, task),
                    )
            # A clock that was far ahead and was put right: claims keep what ran from running again.
            db.execute(
                "UPDATE tasks SET handled_until=? WHERE project=? AND handled_until>?",
                (at, project, stored(now + AHEAD)),
            )
            db.executemany("DELETE FROM tasks WHERE project=? AND task=?", [(project, task) for task in known])

    def suspend(self, project: str) -> None:
        """The project is switched off: none of its tasks is active, until the next `sync`."""
        with self._db.writing() as db:
            db.execute("UPDATE tasks SET active_since=NULL WHERE project=?", (project,))

    def tasks(self, project: str) -> dict[str, TaskState]:
        """What is known of a project's tasks, by id."""
        return {r[0]: _task_state(r) for r in self._db.read(_TASKS, project)}

    def all_holds(self, budgets: Budgets, now: datetime) -> list[Hold]:
        """Every hold in the order in which they began, with those that follow from what was spent today."""
        holds = self.holds.all()
        if budgets == Budgets():
            return holds
        return sorted(
            [*holds, *over_budget(budgets, self.costs.on(now), *bounds(now))],
            key=lambda hold: hold.since,
        )

    def known(self, project: str, settings: UserSettings, now: datetime) -> Known:
        """What is known of a project."""
        holds = [hold for hold in self.all_holds(settings.budgets, now) if hold.project in ("", project)]
        tallies = [tally for tally in self.holds.tallies() if tally.project == project]
        waiting = [row for row in self.runs() if row.phase == "waiting" and row.project == project]
        return Known(self.tasks(project), holds, tallies, waiting, quiet_hours=settings.quiet_hours)

    def task(self, project: str, task: str) -> TaskState | None:
        """What is known of one task."""
        row = self._db.read(_TASKS + " AND task=?", project, task).fetchone()
        return None if row is None else _task_state(row)

    def handled(self, project: str, task: str, until: datetime, *, done: datetime | None = None) -> None:
        """Every occurrence up to `until` is dealt with; `done` marks a task that never fires again."""
        with self._db.writing() as db:
            self._handle(db, project, task, until, done)

    def _handle(self, db: sqlite3.Connection, project: str, task: str, until: datetime, done: datetime | None) -> None:
        db.execute(
            "UPDATE tasks SET handled_until=max(handled_until, ?), done_at=coalesce(?, done_at)"
            " WHERE project=? AND task=?",
            (stored(until), None if done is None else stored(done), project, task),
        )

    def claim(
        self,
        record: dict[str, Any],
        scheduled_for: datetime,
        now: datetime,
        *,
        handled: datetime | None = None,
        done: bool = False,
        at_once: bool = True,
    ) -> bool:
        """Claim an occurrence for the run of `record` (its JSON) and queue the run; False when it was claimed before.

        `handled` moves the task's watermark in the same transaction; `done` marks it done too.
        `at_once` False leaves it to the next write to reach the disk: before that nothing may follow from the claim.
        """
        with self._db.writing(at_once) as db:
            if handled is not None:
                self._handle(db, record["project"], record["taskId"], handled, now if done else None)
            return self._claim(db, record, scheduled_for, now, None)

    def _claim(
        self,
        db: sqlite3.Connection,
        record: dict[str, Any],
        scheduled_for: datetime,
        now: datetime,
        place: dict[str, Any] | None,
    ) -> bool:
        who = (record["project"], record["taskId"])
        claimed = db.execute(
            "INSERT OR IGNORE INTO claims VALUES (?,?,?,?,?,?)",
            (*who, stored(scheduled_for), record["attempt"], record["id"], stored(now)),
        ).rowcount
        if claimed:
            db.execute(
                "INSERT INTO runs (run_id, project, task, phase, record, place) VALUES (?,?,?,'queued',?,?)",
                (record["id"], *who, json.dumps(record), None if place is None else json.dumps(place)),
            )
        return bool(claimed)

    def update_run(
        self,
        run_id: str,
        *,
        phase: str | None = None,
        record: dict[str, Any] | None = None,
        place: dict[str, Any] | None = None,
        process: dict[str, Any] | None = None,
    ) -> None:
        """Write down how far a run is, before the step that this makes possible.

        The disk is not waited for where there is only a process to tell of: a power cut ends that too.
        """
        changes = {
            "phase": phase,
            "record": None if record is None else json.dumps(record),
            "place": None if place is None else json.dumps(place),
            "process": None if process is None else json.dumps(process),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        with self._db.writing(at_once=given.keys() != {"process"}) as db:
            names = ", ".join(f"{name}=?" for name in given)
            db.execute(f"UPDATE runs SET {names} WHERE run_id=?", (*given.values(), run_id))

    def finish(
        self,
        run_id: str,
        project: str,
        task: str,
        *,
        failed: bool | None,
        cost: tuple[float, datetime] | None = None,
        retry: Retry | None = None,
    ) -> bool:
        """The run is over and on record; in the same transaction its `retry` is claimed and queued: whether it was.

        `failed` counts failures in a row; None leaves the count. `cost`: US dollars, and when it ended.
        """
        with self._db.writing() as db:
            if cost is not None:
                add_cost(db, run_id, *cost)
            db.execute("DELETE FROM runs WHERE run_id=?", (run_id,))
            if failed is not None:
                count = "failures+1" if failed else "0"
                db.execute(f"UPDATE tasks SET failures={count} WHERE project=? AND task=?", (project, task))
            if retry is None:
                return False
            place = {"notBefore": retry.not_before.isoformat()}
            return self._claim(db, retry.record, retry.scheduled_for, retry.claimed_at, place)

    def runs(self) -> list[RunRow]:
        """Runs that are queued or under way, oldest first."""
        rows = self._db.read("SELECT run_id, project, task, phase, record, place, process FROM runs ORDER BY rowid")
        return [RunRow(r[0], r[1], r[2], r[3], json.loads(r[4]), _json(r[5]), _json(r[6])) for r in rows]

    def run(self, run_id: str) -> RunRow | None:
        """One of them."""
        return next((row for row in self.runs() if row.run_id == run_id), None)

    def spent(self, run_id: str, usd: float, now: datetime) -> None:
        """A run that waits has cost so much until now; its end adds the rest."""
        with self._db.writing() as db:
            add_cost(db, run_id, usd, now)


_TASKS = "SELECT task, trigger, added_at, active_since, handled_until, done_at, failures FROM tasks WHERE project=?"


def _task_state(row: tuple[Any, ...]) -> TaskState:
    return TaskState(row[0], row[1], _must(row[2]), _time(row[3]), _must(row[4]), _time(row[5]), row[6])


def _must(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)
