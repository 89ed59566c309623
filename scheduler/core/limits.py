"""What keeps a task from running for a time: holds. Pure.

A hold covers one task, a project, or every project. What comes due of a task while a hold covers it is passed over, and
told of in one record that counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from scheduler.core.models import Task
from scheduler.core.record import Reason, Status


class Cause(str, Enum):
    """Why there is a hold."""

    USER = "user"  # a person paused it
    FAILURES = "failures"  # the task failed too often in a row

    def __str__(self) -> str:
        return self.value


REASONS = {Cause.USER: Reason.PAUSED, Cause.FAILURES: Reason.PAUSED}


@dataclass(frozen=True)
class Hold:
    """From `since` to `until` (None: until it is lifted) nothing of `project` (empty: of any) and `task` (empty: any)
    starts. `by` names who said so, `run` the run that it came from."""

    project: str
    task: str
    cause: Cause
    since: datetime
    until: datetime | None
    by: str
    run: str | None = None

    @property
    def reason(self) -> Reason:
        """What the record of an occurrence that is passed over says."""
        return REASONS[self.cause]

    def is_over(self, now: datetime) -> bool:
        """Whether it has ended."""
        return self.until is not None and self.until <= now

    def names(self, project: str, task_id: str) -> bool:
        """Whether the task of that id is among those that it can be about."""
        return self.project in ("", project) and self.task in ("", task_id)

    def covers(self, project: str, task: Task) -> bool:
        """Whether it is about this task."""
        return self.names(project, task.id)

    def words(self) -> str:
        """What it is, in a clause: `paused by sam`."""
        if self.cause is Cause.FAILURES:
            return "paused for failing too often in a row"
        return f"paused by {self.by}"


def starts_again(holds: Iterable[Hold], project: str, task: Task, now: datetime) -> datetime | None:
    """From when on no hold keeps a task from starting, `now` where none does; None where a person has to lift one."""
    ends = [hold.until for hold in holds if hold.covers(project, task) and not hold.is_over(now)]
    known = [end for end in ends if end is not None]
    return max(known, default=now) if len(known) == len(ends) else None


def is_failure(status: Status, reason: Reason | None) -> bool | None:
    """Whether an end adds to the task's failures in a row (True), ends the row (False), or says nothing (None)."""
    if status in (Status.SKIPPED, Status.RUNNING) or reason is Reason.CANCELLED:
        return None
    return status is not Status.SUCCESS


def is_too_often(task: Task, failures: int) -> bool:
    """Whether so many failures in a row pause the task."""
    return 0 < task.policy.pause_after_failures <= failures
