"""The part of `state.db` that keeps tasks from running: holds, and how many occurrences were passed over meanwhile."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.core.limits import Cause, Hold
from scheduler.store.database import Database, stored


@dataclass(frozen=True)
class Tally:
    """Occurrences of a task that were passed over for one reason. `record` is the JSON of the record that tells of all
    `count`; the history says `told` of them so far, 0 where it has no line yet."""

    project: str
    task: str
    reason: str
    record: dict[str, Any]
    count: int
    told: int


class Holds:
    """Holds and tallies."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def all(self) -> list[Hold]:
        """Every hold, in the order in which they began; also those that are over and not settled."""
        rows = self._db.read("SELECT project, task, cause, since, until, by, run FROM holds ORDER BY since, cause")
        return [Hold(r[0], r[1], Cause(r[2]), _must(r[3]), _time(r[4]), r[5], r[6]) for r in rows]

    def put(self, hold: Hold) -> None:
        """Begin a hold, in the place of one that covers the same for the same cause."""
        until = None if hold.until is None else stored(hold.until)
        with self._db.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO holds VALUES (?,?,?,?,?,?,?)",
                (hold.project, hold.task, hold.cause.value, stored(hold.since), until, hold.by, hold.run),
            )

    def lift(self, project: str, task: str, causes: Collection[Cause], now: datetime) -> list[Hold]:
        """End those that cover exactly this, for these causes; those that were not over. Failures in a row begin anew.

        They stay until `forget`, so that the runner can tell what was passed over until now.
        """
        with self._db.writing() as db:
            found = [h for h in self.all() if (h.project, h.task) == (project, task) and h.cause in causes]
            lifted = [hold for hold in found if not hold.is_over(now)]
            for hold in lifted:
                # One that was to begin later never does.
                db.execute(
                    "UPDATE holds SET until=?, since=min(since, ?) WHERE project=? AND task=? AND cause=?",
                    (stored(now), stored(now), project, task, hold.cause.value),
                )
                if hold.cause is Cause.FAILURES:
                    db.execute("UPDATE tasks SET failures=0 WHERE project=? AND task=?", (project, task))
        return lifted

    def forget(self, hold: Hold) -> None:
        """Drop a hold that is over and settled, unless it was put again meanwhile."""
        assert hold.until is not None
        with self._db.writing() as db:
            db.execute(
                "DELETE FROM holds WHERE project=? AND task=? AND cause=? AND until=?",
                (hold.project, hold.task, hold.cause.value, stored(hold.until)),
            )

    def drop(self, project: str, task: str) -> None:
        """Drop what covers exactly a task that is no more."""
        with self._db.writing() as db:
            db.execute("DELETE FROM holds WHERE project=? AND task=?", (project, task))

    def tallies(self) -> list[Tally]:
        """Every tally."""
        rows = self._db.read("SELECT project, task, reason, record, count, told FROM skips")
        return [Tally(r[0], r[1], r[2], json.loads(r[3]), r[4], r[5]) for r in rows]

    def pass_over(self, tally: Tally, until: datetime, *, done: datetime | None) -> None:
        """Write down a tally, and in the same transaction that the task is handled until this moment."""
        with self._db.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO skips VALUES (?,?,?,?,?,?)",
                (tally.project, tally.task, tally.reason, json.dumps(tally.record), tally.count, tally.told),
            )
            db.execute(
                "UPDATE tasks SET handled_until=max(handled_until, ?), done_at=coalesce(?, done_at)"
                " WHERE project=? AND task=?",
                (stored(until), None if done is None else stored(done), tally.project, tally.task),
            )

    def told(self, tally: Tally) -> None:
        """The history has a line with the tally's count now."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE skips SET told=? WHERE project=? AND task=? AND reason=?",
                (tally.count, tally.project, tally.task, tally.reason),
            )

    def close_tally(self, tally: Tally) -> None:
        """Drop a tally: nothing more is passed over for this reason, and the history tells of all."""
        with self._db.writing() as db:
            db.execute(
                "DELETE FROM skips WHERE project=? AND task=? AND reason=?", (tally.project, tally.task, tally.reason)
            )


def _must(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
