"""The part of `state.db` that can be asked which occurrences were claimed; who claims is `State.claim`."""

from __future__ import annotations

from datetime import datetime

from scheduler.store.database import Database, stored

KEPT = 20_000  # of each task; a claim keeps its occurrence from being run again where the clock goes back over it


class Claims:
    """The claims, to be read."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def since(self, project: str, moment: datetime) -> dict[str, datetime]:
        """The runs of a project that were claimed since then, and when."""
        asked = "SELECT run_id, claimed_at FROM claims WHERE project=? AND claimed_at>=?"
        rows = self._db.read(asked, project, stored(moment))
        return {run: datetime.fromisoformat(at) for run, at in rows}

    def trim(self, keep: int = KEPT) -> int:
        """Forget the oldest claims of each task beyond so many, whatever the clock says; how many that were."""
        numbered = (
            "SELECT rowid, row_number() OVER (PARTITION BY project, task ORDER BY rowid DESC) AS place FROM claims"
        )
        old = self._db.read(f"SELECT rowid FROM ({numbered}) WHERE place > ?", keep).fetchall()
        if old:
            with self._db.writing(at_once=False) as db:
                db.executemany("DELETE FROM claims WHERE rowid=?", old)
        return len(old)
