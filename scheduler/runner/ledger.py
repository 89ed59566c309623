"""Puts final records into the history; what the disk refuses is kept, and tried again until it is written."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from scheduler.core.models import from_json
from scheduler.core.record import Record
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.runner.projects import Projects
from scheduler.store import history
from scheduler.store.database import NotWritten
from scheduler.store.state import Retry, State

log = logging.getLogger("scheduler")
AGAIN = 30.0  # seconds between tries to write what could not be written


@dataclass
class Closing:
    """A final record that is to be put on file. `failed` counts its task's failures in a row, as `State.finish` does;
    `again`: the record of another attempt, and when that may begin. `done`: the histories that have it.
    """

    record: Record
    failed: bool | None
    again: tuple[Record, datetime] | None = None
    done: set[str] = field(default_factory=set)


def insist(act: Callable[[], bool | None]) -> None:
    """Have something done. Where it returns False, or the state cannot be written, it is tried again until it is."""
    try:
        done = act() is not False
    except NotWritten as error:
        log.error("to be tried again: %s", error.message)
        done = False
    if not done:
        asyncio.get_running_loop().call_later(AGAIN, insist, act)


class Ledger:
    """The last step of each run: on record, then out of the state. `queue` gets each retry that was claimed."""

    def __init__(
        self, paths: Paths, state: State, projects: Projects, queue: Callable[[Record, datetime], None]
    ) -> None:
        self._paths = paths
        self._state = state
        self._projects = projects
        self._queue = queue

    def close(self, closing: Closing) -> None:
        """Put a final record into the history, then forget the run; what the disk refuses is tried again."""
        record = closing.record.cleaned(self._projects.redactor(closing.record.project).text)
        insist(partial(self._close, replace(closing, record=record)))

    def _close(self, closing: Closing) -> bool:
        record = closing.record
        self._state.update_run(record.id, phase="ended", record=record.to_json())
        if not self.tell(record, closing.done):
            return False
        self._finish(closing)
        return True

    def _finish(self, closing: Closing) -> None:
        """Forget a run whose final record is in the history, and claim its retry in the same transaction: a crash
        comes before both or after both."""
        record, retry = closing.record, None
        if closing.again is not None:
            new, at = closing.again
            claimed_at = record.completed_at or record.started_at
            retry = Retry(new.to_json(), record.scheduled_for or record.started_at, claimed_at, at)
        who = (record.id, record.project, record.task_id)
        claimed = self._state.finish(*who, failed=closing.failed, cost=_cost(record), retry=retry)
        if closing.again is not None and claimed:
            self._queue(*closing.again)

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


def _cost(record: Record) -> tuple[float, datetime] | None:
    return None if record.cost_usd is None else (record.cost_usd, record.completed_at or record.started_at)


def read_record(raw: dict[str, Any]) -> Record:
    """A record from its JSON. SchedulerError when it is none of ours."""
    found = from_json(Record, json.dumps(raw))
    if not isinstance(found, Record):
        raise SchedulerError(f"not a record: {found}")
    return found
