"""`state.db`: what decides — which occurrences are claimed, how far each task is handled, which runs are under way.

SQLite, WAL, synchronous FULL: a claim that was answered survives a power cut. Every writer uses BEGIN IMMEDIATE. All
times are aware; they are stored as UTC in ISO 8601, so that text order is time order. A damaged file is moved aside and
a fresh one started, in which nothing fires for the time before (`State.damage` says so).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from scheduler.disk import files
from scheduler.errors import SchedulerError

SCHEMA = 1
AHEAD = timedelta(days=1)  # a watermark further in the future was set by a wrong clock
_CREATE = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE claims (
  project TEXT NOT NULL, task TEXT NOT NULL, scheduled_for TEXT NOT NULL, attempt INTEGER NOT NULL,
  run_id TEXT NOT NULL, claimed_at TEXT NOT NULL,
  UNIQUE (project, task, scheduled_for, attempt));
CREATE TABLE tasks (
  project TEXT NOT NULL, task TEXT NOT NULL, trigger TEXT NOT NULL, added_at TEXT NOT NULL, active_since TEXT,
  handled_until TEXT NOT NULL, done_at TEXT, failures INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project, task));
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, task TEXT NOT NULL, phase TEXT NOT NULL,
  record TEXT NOT NULL, place TEXT, process TEXT);
"""


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
    """A run under way. `phase`: `queued` (claimed, not begun) or `running`. `record` is its latest record's JSON.

    `place`: commonDir, worktree, branch, base (once known). `process`: pid, started, boot of its supervisor.
    """

    run_id: str
    project: str
    task: str
    phase: str
    record: dict[str, Any]
    place: dict[str, Any] | None
    process: dict[str, Any] | None


def utc(moment: datetime) -> str:
    """How a moment is stored: UTC, microseconds, sortable."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


class State:
    """An open `state.db`. Not to be shared between threads."""

    def __init__(self, path: str, now: datetime) -> None:
        self.damage: str | None = None
        files.make_folder(os.path.dirname(path))
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise SchedulerError(
                    f"{path} cannot be opened: {error}", "check the disk and the folder's mode"
                ) from None
            aside = files.move_aside(path, now.strftime("%Y%m%dT%H%M%S"))
            for tail in ("-wal", "-shm"):
                if os.path.exists(path + tail):
                    files.move_aside(path + tail, now.strftime("%Y%m%dT%H%M%S"))
            self.damage = f"{path} was damaged ({error}); it was moved to {aside} and a fresh one started"
            self._db = _open(path)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def sync(self, project: str, tasks: Iterable[tuple[str, str, bool]], now: datetime) -> None:
        """Take in what an approved config says: (id, digest of its trigger, enabled) each; ids not named are forgotten.

        A task that is new, was off, or has another trigger is active from `now`: nothing fires for the time before.
        """
        at = utc(now)
        with self._writing() as db:
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
                (at, project, utc(now + AHEAD)),
            )
            db.executemany("DELETE FROM tasks WHERE project=? AND task=?", [(project, task) for task in known])

    def suspend(self, project: str) -> None:
        """The project is switched off: none of its tasks is active, until the next `sync`."""
        with self._writing() as db:
            db.execute("UPDATE tasks SET active_since=NULL WHERE project=?", (project,))

    def tasks(self, project: str) -> dict[str, TaskState]:
        """What is known of a project's tasks, by id."""
        return {r[0]: _task_state(r) for r in self._db.execute(_TASKS, (project,))}

    def task(self, project: str, task: str) -> TaskState | None:
        """What is known of one task."""
        row = self._db.execute(_TASKS + " AND task=?", (project, task)).fetchone()
        return None if row is None else _task_state(row)

    def handled(self, project: str, task: str, until: datetime, *, done: datetime | None = None) -> None:
        """Every occurrence up to `until` is dealt with; `done` marks a task that never fires again."""
        with self._writing() as db:
            self._handle(db, project, task, until, done)

    def _handle(self, db: sqlite3.Connection, project: str, task: str, until: datetime, done: datetime | None) -> None:
        db.execute(
            "UPDATE tasks SET handled_until=max(handled_until, ?), done_at=coalesce(?, done_at)"
            " WHERE project=? AND task=?",
            (utc(until), None if done is None else utc(done), project, task),
        )

    def claim(
        self,
        record: dict[str, Any],
        scheduled_for: datetime,
        now: datetime,
        *,
        handled: bool = False,
        done: bool = False,
    ) -> bool:
        """Claim an occurrence for the run of `record` (its JSON) and queue the run; False when it was claimed before.

        `handled` moves the task's watermark to `scheduled_for` in the same transaction; `done` marks it done too.
        """
        project, task = record["project"], record["taskId"]
        with self._writing() as db:
            claimed = db.execute(
                "INSERT OR IGNORE INTO claims VALUES (?,?,?,?,?,?)",
                (project, task, utc(scheduled_for), record["attempt"], record["id"], utc(now)),
            ).rowcount
            if handled:
                self._handle(db, project, task, scheduled_for, now if done else None)
            if claimed:
                db.execute(
                    "INSERT INTO runs (run_id, project, task, phase, record) VALUES (?,?,?,'queued',?)",
                    (record["id"], project, task, json.dumps(record)),
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
        """Write down how far a run is, before the step that this makes possible."""
        changes = {
            "phase": phase,
            "record": None if record is None else json.dumps(record),
            "place": None if place is None else json.dumps(place),
            "process": None if process is None else json.dumps(process),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        with self._writing() as db:
            names = ", ".join(f"{name}=?" for name in given)
            db.execute(f"UPDATE runs SET {names} WHERE run_id=?", (*given.values(), run_id))

    def finish(self, run_id: str, project: str, task: str, *, failed: bool | None) -> None:
        """The run is over and on record. `failed` counts failures in a row; None leaves the count."""
        with self._writing() as db:
            db.execute("DELETE FROM runs WHERE run_id=?", (run_id,))
            if failed is not None:
                count = "failures+1" if failed else "0"
                db.execute(f"UPDATE tasks SET failures={count} WHERE project=? AND task=?", (project, task))

    def runs(self) -> list[RunRow]:
        """Runs that are queued or under way, oldest first."""
        rows = self._db.execute("SELECT run_id, project, task, phase, record, place, process FROM runs ORDER BY rowid")
        return [RunRow(r[0], r[1], r[2], r[3], json.loads(r[4]), _json(r[5]), _json(r[6])) for r in rows]

    def attempts(self, project: str, task: str, scheduled_for: datetime) -> int:
        """How many attempts of an occurrence were claimed."""
        row = self._db.execute(
            "SELECT coalesce(max(attempt), 0) FROM claims WHERE project=? AND task=? AND scheduled_for=?",
            (project, task, utc(scheduled_for)),
        ).fetchone()
        return int(row[0])


_TASKS = "SELECT task, trigger, added_at, active_since, handled_until, done_at, failures FROM tasks WHERE project=?"


def _task_state(row: tuple[Any, ...]) -> TaskState:
    return TaskState(row[0], row[1], _must(row[2]), _time(row[3]), _must(row[4]), _time(row[5]), row[6])


def _must(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)


def _open(path: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if not _version(db):
            db.execute("BEGIN EXCLUSIVE")
            if not _version(db):
                for statement in _CREATE.strip().split(";\n"):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
            db.execute("COMMIT")
        if _version(db) > SCHEMA:
            raise SchedulerError(f"{path} was written by a newer version", "update the plugin")
        return db
    except BaseException:
        db.close()
        raise


def _version(db: sqlite3.Connection) -> int:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
        return 0
    row = db.execute("SELECT value FROM meta WHERE name='schema'").fetchone()
    return int(row[0]) if row else 0
