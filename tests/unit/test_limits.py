from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from scheduler.core.limits import (
    RATE_LIMIT_WAITS,
    Cause,
    Hold,
    Login,
    is_back,
    is_failure,
    is_of_another_clock,
    is_too_often,
    next_start,
    of_the_account,
    over_budget,
    quiet_until,
    resume_at,
    starts_again,
    waits_for,
)
from scheduler.core.models import Budgets, QuietHours, Task, from_json
from scheduler.core.record import Reason, Status
from scheduler.core.schedule import next_occurrence
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
        (Status.FAILURE, Reason.AUTH, None),
        (Status.FAILURE, Reason.CREDIT, None),
        (Status.SKIPPED, Reason.OVERLAP, None),
        (Status.RUNNING, None, None),
    ],
)
def test_which_ends_count_as_failures_in_a_row(status: Status, reason: Reason | None, expected: bool | None) -> None:
    assert is_failure(status, reason) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [(Reason.PAUSED, True), (Reason.OVERLAP, True), (Reason.CANCELLED, None), (Reason.PRECHECK_IDLE, None)],
)
def test_an_attempt_that_is_passed_over_leaves_the_failure_before_it(reason: Reason, expected: bool | None) -> None:
    assert is_failure(Status.SKIPPED, reason, attempt=2) is expected
    assert is_failure(Status.SKIPPED, reason) is None
    assert is_failure(Status.SUCCESS, None, attempt=2) is False


def test_how_often_is_too_often() -> None:
    assert [is_too_often(task(), failures) for failures in (4, 5, 6)] == [False, True, True]
    assert is_too_often(task(policy={"pauseAfterFailures": 1}), 1)
    assert not is_too_often(task(policy={"pauseAfterFailures": 0}), 1000)


def quiet(**fields: Any) -> QuietHours:
    made = from_json(QuietHours, json.dumps({"timezone": "Europe/Berlin", **fields}))
    assert isinstance(made, QuietHours), made
    return made


WORK = {"from": "09:00", "until": "17:00", "days": ["mon", "tue", "wed", "thu", "fri"]}
NIGHT = {"from": "22:30", "until": "06:00", "days": ["fri"]}


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        (WORK, "2026-11-23T08:59:59+01:00", None),
        (WORK, "2026-11-23T09:00:00+01:00", "2026-11-23T17:00:00+01:00"),
        (WORK, "2026-11-23T15:59:59+00:00", "2026-11-23T17:00:00+01:00"),
        (WORK, "2026-11-23T17:00:00+01:00", None),
        (WORK, "2026-11-22T12:00:00+01:00", None),  # a Sunday
        (NIGHT, "2026-11-27T22:29:00+01:00", None),
        (NIGHT, "2026-11-27T22:30:00+01:00", "2026-11-28T06:00:00+01:00"),
        (NIGHT, "2026-11-28T05:59:00+01:00", "2026-11-28T06:00:00+01:00"),
        (NIGHT, "2026-11-28T22:30:00+01:00", None),  # it begins on Fridays only
        ({"from": "00:00", "until": "24:00"}, "2026-11-23T23:59:59+01:00", "2026-11-24T00:00:00+01:00"),
        ({"from": "01:00", "until": "02:30"}, "2026-03-29T01:59:00+01:00", "2026-03-29T03:00:00+02:00"),  # in a gap
        # Where the clocks go from 03:00 back to 02:00 they end once, and no hour of them is open.
        ({"from": "01:00", "until": "02:30"}, "2026-10-25T02:29:00+02:00", "2026-10-25T02:30:00+02:00"),
        ({"from": "01:00", "until": "02:30"}, "2026-10-25T02:10:00+01:00", None),
        ({"from": "02:30", "until": "05:00"}, "2026-10-25T02:10:00+01:00", "2026-10-25T05:00:00+01:00"),
    ],
)
def test_quiet_hours(hours: dict[str, Any], now: str, until: str | None) -> None:
    found = quiet_until(quiet(**hours), datetime.fromisoformat(now))
    assert found == (None if until is None else datetime.fromisoformat(until))


def test_quiet_hours_go_by_the_clocks_of_the_system_where_no_zone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        found = quiet_until(quiet(**WORK, timezone=None), datetime.fromisoformat("2026-11-23T00:30:00+00:00"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == datetime.fromisoformat("2026-11-23T17:00:00+09:00")
    assert quiet_until(None, NOW) is None


def test_the_clocks_of_the_system_change_as_those_of_a_named_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = quiet(**{"from": "01:00", "until": "02:30", "timezone": None})
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        skipped = quiet_until(hours, datetime.fromisoformat("2026-03-29T01:59:00+01:00"))
        twice = quiet_until(hours, datetime.fromisoformat("2026-10-25T02:10:00+01:00"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert skipped == datetime.fromisoformat("2026-03-29T03:00:00+02:00")
    assert twice is None


@pytest.mark.parametrize(
    ("hours", "message"),
    [
        ({"from": "09:00", "until": "09:00"}, "a whole day is from 00:00 until 24:00"),
        ({"from": "9:00", "until": "17:00"}, "match pattern"),
        ({"from": "24:00", "until": "17:00"}, "match pattern"),
        ({"from": "09:00", "until": "17:00", "days": []}, "at least 1"),
        ({"from": "09:00", "until": "17:00", "days": ["monday"]}, "did you mean mon"),
        ({"from": "09:00", "until": "17:00", "timezone": "Berlin"}, "unknown time zone"),
    ],
)
def test_quiet_hours_that_are_none(hours: dict[str, Any], message: str) -> None:
    found = from_json(QuietHours, json.dumps(hours))
    assert isinstance(found, list) and message in found[0][2], found


SPENT = [("/p", "a", 1.0), ("/p", "b", 0.5), ("/q", "a", 2.0)]


@pytest.mark.parametrize(
    ("budgets", "held"),
    [
        ({}, set()),
        ({"taskPerDay": 1}, {("/p", "a"), ("/q", "a")}),
        ({"taskPerDay": 1.01}, {("/q", "a")}),
        ({"projectPerDay": 1.5}, {("/p", ""), ("/q", "")}),
        ({"projectPerDay": 1.6}, {("/q", "")}),
        ({"perDay": 3.5}, {("", "")}),
        ({"perDay": 3.51, "projectPerDay": 3}, set()),
    ],
)
def test_budgets_of_a_day(budgets: dict[str, float], held: set[tuple[str, str]]) -> None:
    made = from_json(Budgets, json.dumps(budgets))
    assert isinstance(made, Budgets)
    holds = list(over_budget(made, SPENT, NOW, NOW + HOUR))
    assert {(hold.project, hold.task) for hold in holds} == held
    assert {(hold.cause, hold.reason, hold.since, hold.until) for hold in holds} <= {
        (Cause.BUDGET, Reason.BUDGET, NOW, NOW + HOUR)
    }


def test_a_budget_lets_shell_tasks_go_on() -> None:
    (all_of_it,) = over_budget(Budgets.model_validate({"perDay": 1.0}), SPENT, NOW, NOW + HOUR)
    assert all_of_it.words() == "kept back by the budget of a day ($3.50 of $1.00)"
    assert not all_of_it.covers("/p", task())
    assert all_of_it.covers("/p", task(execution={"type": "claude"}))


@pytest.mark.parametrize(
    ("resets_at", "waits", "expected"),
    [
        (NOW + 5 * HOUR, 0, NOW + 5 * HOUR),
        (NOW + 5 * HOUR, 9, NOW + 5 * HOUR),
        (NOW + HOUR / 3600, 2, NOW + HOUR / 3600),
        (NOW + HOUR / 3600, 3, NOW + HOUR / 60),
        (NOW + HOUR / 3600, 99, NOW + HOUR),
        (NOW + 3650 * 24 * HOUR, 0, NOW + 8 * 24 * HOUR),
        (None, 0, NOW + HOUR / 60),
        (NOW, 1, NOW + HOUR / 30),
        (NOW - HOUR, 3, NOW + 8 * HOUR / 60),
        (None, 99, NOW + HOUR),
    ],
)
def test_when_a_run_goes_on_after_a_limit(resets_at: datetime | None, waits: int, expected: datetime) -> None:
    assert resume_at(resets_at, NOW, waits) == expected


def test_which_ends_are_the_account_s() -> None:
    assert of_the_account(Status.FAILURE, Reason.AUTH) is Cause.AUTH
    assert of_the_account(Status.FAILURE, Reason.CREDIT) is Cause.CREDIT
    assert of_the_account(Status.FAILURE, Reason.EXIT_CODE) is None
    assert of_the_account(Status.SKIPPED, Reason.AUTH) is None


def test_a_usage_limit_passes_over_what_is_not_to_be_queued() -> None:
    limit = hold("", cause=Cause.USAGE_LIMIT, until=NOW + HOUR)
    claude = {"execution": {"type": "claude"}}
    assert limit.passes_over("/p", task(**claude))
    queued = task(**claude, policy={"overlap": "queue"})
    assert limit.covers("/p", queued) and not limit.passes_over("/p", queued)
    assert not limit.covers("/p", task())
    assert hold(cause=Cause.USER).passes_over("/p", queued)


@pytest.mark.parametrize(
    ("reason", "waits", "expected"),
    [
        (Reason.USAGE_LIMIT, 0, True),
        (Reason.USAGE_LIMIT, 1000, True),
        (Reason.RATE_LIMITED, 0, True),
        (Reason.RATE_LIMITED, RATE_LIMIT_WAITS - 1, True),
        (Reason.RATE_LIMITED, RATE_LIMIT_WAITS, False),
        (Reason.OVERLOADED, 0, False),
        (Reason.AUTH, 0, False),
        (None, 0, False),
    ],
)
def test_which_runs_wait_for_a_limit(reason: Reason | None, waits: int, expected: bool) -> None:
    assert waits_for(reason, waits) is expected


OUT, IN = Login(False, ()), Login(True, (1,))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (OUT, OUT, False),
        (OUT, Login(True, ()), True),
        (IN, IN, False),  # a credential that was refused
        (IN, Login(True, (2,)), True),
        (IN, Login(False, (2,)), False),
        (IN, Login(None, (2,)), False),
        (Login(None, (1,)), IN, False),
        (Login(None, ()), IN, True),
        (None, IN, True),
        (None, OUT, False),
    ],
)
def test_when_a_login_is_back(before: Login | None, after: Login, expected: bool) -> None:
    assert is_back(before, after) is expected


def test_a_limit_that_was_met_by_a_clock_which_was_ahead_says_nothing() -> None:
    limit = Hold("", "", Cause.USAGE_LIMIT, NOW, NOW + timedelta(hours=5), "limit")
    assert not is_of_another_clock(limit, NOW - timedelta(seconds=50))
    assert is_of_another_clock(limit, NOW - timedelta(minutes=2))
    pause = Hold("", "", Cause.USER, NOW, NOW + timedelta(hours=5), "sam")
    assert not is_of_another_clock(pause, NOW - timedelta(days=1))


@pytest.mark.parametrize(
    ("hour", "policy", "expected"),
    [
        ("12", {}, "05 12:00"),  # not in quiet hours
        ("2", {}, "05 06:00"),
        ("2", {"missed": "all"}, "05 06:00"),
        ("2", {"missed": "skip"}, None),  # comes in quiet hours alone, and is never caught up on
        ("2,7", {"missed": "skip"}, "05 07:00"),
        ("2", {"missedWithin": "1h"}, None),
        ("2", {"missedWithin": "4h"}, "05 06:00"),
        ("23,5", {"missedWithin": "2h"}, "05 06:00"),  # the later of the two is not too old
    ],
)
def test_when_a_task_starts_next_in_spite_of_quiet_hours(hour: str, policy: Any, expected: str | None) -> None:
    hours = quiet(**{"from": "22:00", "until": "06:00", "timezone": "UTC"})
    trigger = {"type": "cron", "expression": f"0 {hour} * * *", "timezone": "UTC"}
    now = datetime(2026, 3, 4, 20, tzinfo=timezone.utc)
    job = task(trigger=trigger, policy=policy)
    found = next_start(job, hours, now, added_at=now)
    assert (found and f"{found:%d %H:%M}") == expected
    assert next_start(job, None, now, added_at=now) == next_occurrence(job.trigger, now, added_at=now)


def test_where_quiet_hours_never_end_nothing_starts() -> None:
    always = quiet(**{"from": "00:00", "until": "24:00"})
    job = task(trigger={"type": "interval", "every": "1h"})
    assert next_start(job, always, NOW, added_at=NOW) is None
