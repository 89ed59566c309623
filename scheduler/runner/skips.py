"""Occurrences that are passed over under a hold: one record for all of a task, which counts.

The record is written at the first of them, again each time the count has doubled, and at the end of the hold: the pause
of a task that fires each minute leaves a dozen lines a day, and no line says more than what is so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from scheduler.core.limits import Hold
from scheduler.core.models import Task
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.core.schedule import Skipped
from scheduler.runner.due import new_record
from scheduler.runner.ledger import Ledger, read_record
from scheduler.runner.projects import Projects
from scheduler.store.holds import Tally
from scheduler.store.state import State

AGAIN = 30.0  # seconds between two tries to write what the disk refused


class Skips:
    """The tallies that are open."""

    def __init__(self, state: State, ledger: Ledger, projects: Projects, mark: RunnerMark) -> None:
        self._projects = projects
        self._holds = state.holds
        self._ledger = ledger
        self._mark = mark
        self._open = {(t.project, t.task, t.reason): t for t in self._holds.tallies()}
        self._refused: datetime | None = None

    def pass_over(self, root: str, task: Task, hold: Hold, span: Skipped, now: datetime) -> None:
        """Count the occurrences of a span, which the hold covers; the task is handled until the span's end then."""
        key = (root, task.id, hold.reason.value)
        old = self._open.get(key)
        record = new_record(root, task, span.first, self._mark, "schedule", span.last) if old is None else _record(old)
        count = span.count + (old.count if old else 0)
        record = record.evolve(
            scheduled_for=span.last,
            completed_at=now,
            status=Status.SKIPPED,
            reason=hold.reason,
            skipped_count=count,
            notes=(hold.words(),),
        )
        tally = Tally(*key, record.to_json(), count, old.told if old else 0)
        self._holds.pass_over(tally, span.last, done=now if task.trigger.type == "once" else None)
        self._open[key] = tally
        self._projects.changed.add(root)
        if not tally.told or count >= 2 * tally.told:
            self._tell(tally, now)

    def settle(self, holds: Iterable[Hold], now: datetime) -> None:
        """Tell the whole count of what no hold covers any more."""
        live = [hold for hold in holds if not hold.is_over(now)]
        for key, tally in list(self._open.items()):
            if any(h.names(tally.project, tally.task) and h.reason.value == tally.reason for h in live):
                continue
            if tally.told == tally.count or self._tell(tally, now):
                self._holds.close_tally(tally)
                del self._open[key]

    def _tell(self, tally: Tally, now: datetime) -> bool:
        """Write the record; whether it is in the history now."""
        if self._refused is not None and 0 <= (now - self._refused).total_seconds() < AGAIN:
            return False
        self._refused = None if self._ledger.tell(_record(tally)) else now
        if self._refused is not None:
            return False
        self._open[(tally.project, tally.task, tally.reason)] = replace(tally, told=tally.count)
        self._holds.told(tally)
        return True


def _record(tally: Tally) -> Record:
    return read_record(tally.record)
