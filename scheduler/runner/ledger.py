"""Puts final records into the history; what the disk refuses is kept, and tried again until it is written."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime
from typing import Any

from scheduler.core.models import from_json
from scheduler.core.record import Record
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.runner.projects import Projects
from scheduler.store import history
from scheduler.store.state import State

log = logging.getLogger("scheduler")
AGAIN = 30.0  # seconds between tries to write a record that could not be written


class Ledger:
    """The last step of each run: on record, then out of the state."""

    def __init__(self, paths: Paths, state: State, projects: Projects) -> None:
        self._paths = paths
        self._state = state
        self._projects = projects
        self._unwritten: list[tuple[Record, bool | None, set[str]]] = []

    def close(self, record: Record, failed: bool | None, done: set[str] | None = None) -> bool:
        """Put a final record into the history and forget the run; False where that has to be tried again.

        `failed` counts its task's failures in a row, as `State.finish` does. `done`: the histories that have it.
        """
        done = set() if done is None else done
        self._state.update_run(record.id, phase="ended", record=record.to_json())
        if not self.tell(record, done):
            self._unwritten.append((record, failed, done))
            asyncio.get_running_loop().call_later(AGAIN, self._try_again)
            return False
        self._state.finish(record.id, record.project, record.task_id, failed=failed, cost=_cost(record))
        return True

    def tell(self, record: Record, done: set[str] | None = None) -> bool:
        """Put a line into the history; False, and logged, where the disk refuses. `done` as `history.append` has it."""
        try:
            history.append(self._paths, record, done)
        except files.NotDurable as error:
            log.error("the disk did not confirm a record: %s (%s)", error.strerror, error.filename)
        except OSError as error:
            log.error("history not written: %s (%s)", error.strerror, error.filename)
            return False
        self._projects.changed.add(record.project)
        return True

    def forget(self, record: Record) -> None:
        """A run whose final record is in the history already."""
        self._state.finish(record.id, record.project, record.task_id, failed=None, cost=_cost(record))

    def _try_again(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        for record, failed, done in unwritten:
            self.close(record, failed, done)


def _cost(record: Record) -> tuple[float, datetime] | None:
    return None if record.cost_usd is None else (record.cost_usd, record.completed_at or record.started_at)


def read_record(raw: dict[str, Any]) -> Record:
    """A record from its JSON. SchedulerError when it is none of ours."""
    found = from_json(Record, json.dumps(raw))
    if not isinstance(found, Record):
        raise SchedulerError(f"not a record: {found}")
    return found
