"""The part of `state.db` that knows what was spent: US dollars by day on the local calendar, project and task."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime, time, timedelta

from scheduler.store.database import Database

KEPT = timedelta(days=92)


def day_of(moment: datetime) -> str:
    """The day of a moment on the system's calendar, as it is stored."""
    return moment.astimezone().date().isoformat()


def bounds(now: datetime) -> tuple[datetime, datetime]:
    """When the day of a moment begins and ends on the system's clocks."""
    day = now.astimezone().date()
    return (
        datetime.combine(day, time()).astimezone(),
        datetime.combine(day + timedelta(days=1), time()).astimezone(),
    )


def add_cost(db: sqlite3.Connection, run_id: str, usd: float, ended: datetime) -> None:
    """Add what a run of the table `runs` has cost so far to the day of its end; once, however often it is said."""
    row = db.execute("SELECT project, task, counted FROM runs WHERE run_id=?", (run_id,)).fetchone()
    if row is None or usd <= row[2]:
        return
    db.execute(
        "INSERT INTO costs VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET usd=usd+excluded.usd",
        (day_of(ended), row[0], row[1], usd - row[2]),
    )
    db.execute("UPDATE runs SET counted=? WHERE run_id=?", (usd, run_id))
    db.execute("DELETE FROM costs WHERE day<?", (day_of(ended - KEPT),))


class Costs:
    """What was spent."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def on(self, moment: datetime) -> list[tuple[str, str, float]]:
        """What was spent on the day of a moment: (project, task, US dollars)."""
        return self._db.read("SELECT project, task, usd FROM costs WHERE day=?", day_of(moment)).fetchall()

    def restore(self, spent: Iterable[tuple[str, str, float]], now: datetime) -> None:
        """Take what was spent today, (project, task, US dollars), from elsewhere, where nothing is known of it."""
        with self._db.writing() as db:
            if db.execute("SELECT 1 FROM costs WHERE day=?", (day_of(now),)).fetchone() is None:
                db.executemany(
                    "INSERT INTO costs VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET usd=usd+excluded.usd",
                    [(day_of(now), *one) for one in spent],
                )
