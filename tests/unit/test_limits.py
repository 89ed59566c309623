from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from scheduler.core.limits import Cause, Hold, is_failure, is_too_often, starts_again
from scheduler.core.models import Task, from_json
from scheduler.core.record import Reason, Status
from tests.rig import shell_task

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def task(task_id: str = "t", **fields: Any) -> Task:
    made = from_json(Task, json.dumps(shell_task(task_id, "true", **fields)))
    assert isinstance(made, Task), made
    return made


def hold(project: str = "/p", name: str = "", cause: Cause = Cause.USER, until: datetime | None = None) -> Hold:
    return Hold(project, name, cause, NOW - HOUR, until, "sam")


@pytest.mark.parametrize(
    ("held", "covered"),
    [
        (hold(), True),
        (hold(name="t"), True),
        (hold(name="u"), False),
        (hold("/q"), False),
        (hold("/q", "t"), False),
        (hold(""), True),
    ],
)
def test_a_hold_covers_a_task_a_project_or_all(held: Hold, covered: bool) -> None:
    assert held.covers("/p", task()) is covered


def test_a_hold_is_over_at_its_end_and_not_before() -> None:
    assert not hold().is_over(NOW)
    assert not hold(until=NOW + HOUR).is_over(NOW)
    assert hold(until=NOW).is_over(NOW)


def test_a_task_starts_again_when_the_last_hold_ends_by_itself() -> None:
    until = [hold(until=NOW + HOUR), hold(name="t", until=NOW + 2 * HOUR), hold(name="t", until=NOW - HOUR)]
    assert starts_again(until, "/p", task(), NOW) == NOW + 2 * HOUR
    assert starts_again(until, "/p", task("u"), NOW) == NOW + HOUR
    assert starts_again(until, "/q", task(), NOW) == NOW
    assert starts_again([*until, hold()], "/p", task(), NOW) is None


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (Status.SUCCESS, None, False),
        (Status.SUCCESS, Reason.NO_CHANGES, False),
        (Status.FAILURE, Reason.VERIFY_FAILED, True),
        (Status.FAILURE, Reason.CRASHED, True),
        (Status.TIMEOUT, None, True),
        (Status.FAILURE, Reason.CANCELLED, None),
        (Status.SKIPPED, Reason.OVERLAP, None),
        (Status.RUNNING, None, None),
    ],
)
def test_which_ends_count_as_failures_in_a_row(status: Status, reason: Reason | None, expected: bool | None) -> None:
    assert is_failure(status, reason) is expected


def test_how_often_is_too_often() -> None:
    assert [is_too_often(task(), failures) for failures in (4, 5, 6)] == [False, True, True]
    assert is_too_often(task(policy={"pauseAfterFailures": 1}), 1)
    assert not is_too_often(task(policy={"pauseAfterFailures": 0}), 1000)
