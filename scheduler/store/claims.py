"""The part of `state.db` that can be asked which occurrences were claimed; who claims is `State.claim`."""

from __future__ import annotations

from datetime import datetime

from scheduler.store.database import Database, stored


class Claims:
    """The claims, to be read."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def since(self, project: str, moment: datetime) -> dict[str, datetime]:
        """The runs of a project that were claimed since then, and when."""
        asked = "SELECT run_id, claimed_at FROM claims WHERE project=? AND claimed_at>=?"
        rows = self._db.read(asked, project, stored(moment))
        return {run: datetime.fromisoformat(at) for run, at in rows}
