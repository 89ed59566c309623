from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from itertools import takewhile
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scheduler.core.limits import Cause, Hold, starts
from scheduler.core.models import Day, QuietHours, Task, from_json
from scheduler.core.overdue import Absence, Neglected, Overdue, Silence, missed, neglected, sum_up
from scheduler.core.record import Reason
from tests.rig import shell_task

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def a_task(**fields: Any) -> Task:
    found = from_json(Task, json.dumps(shell_task("job", "true", **fields)))
    assert isinstance(found, Task), found
    return found


def hourly(**policy: Any) -> Task:
    return a_task(trigger={"type": "cron", "expression": "0 * * * *", "timezone": "UTC"}, policy=policy)


def hours(since: str, until: str, *days: str) -> QuietHours:
    told = {"from": since, "until": until, "timezone": "UTC", **({"days": days} if days else {})}
    found = from_json(QuietHours, json.dumps(told))
    assert isinstance(found, QuietHours), found
    return found


def pause(since: datetime, until: datetime | None, task: str = "") -> Hold:
    return Hold("/p", task, Cause.USER, since, until, "sam")


def count(task: Task, since: datetime, *holds: Hold, quiet: QuietHours | None = None) -> list[Neglected]:
    known = {"added_at": since, "quiet": Silence.between(quiet, since, NOW), "absence": Absence.NO_RUNNER}
    return list(neglected("/p", task, since, NOW, holds=holds, **known))  # type: ignore[arg-type]


def test_nothing_is_overdue() -> None:
    assert sum_up([], [NOW]) is None
    assert sum_up([Neglected(0, NOW, Absence.ASLEEP)], []) is None
    assert sum_up([Neglected(9, NOW, Absence.QUIET)], []) is None


def test_what_did_not_run_is_summed_up_with_its_main_cause() -> None:
    neglected = [
        Neglected(2, NOW, Absence.NO_RUNNER),
        Neglected(3, NOW - HOUR, Reason.PAUSED),
        Neglected(2, NOW + HOUR, Absence.NO_RUNNER),
        Neglected(50, NOW - 9 * HOUR, Absence.QUIET),
    ]
    ran = [NOW - 2 * HOUR, NOW - HOUR, NOW]
    assert sum_up(neglected, ran) == Overdue(7, 2, NOW - HOUR, "no-runner")
    assert sum_up(neglected, []) == Overdue(7, 0, NOW - HOUR, "no-runner")


@pytest.mark.parametrize("absence", Absence)
def test_a_missed_record_tells_why(absence: Absence) -> None:
    assert missed(["something else", absence.note()], 3, NOW) == Neglected(3, NOW, absence)


def test_one_of_an_older_version_tells_of_no_runner() -> None:
    assert missed([], 1, NOW).cause is Absence.NO_RUNNER


def test_what_came_due_and_nobody_dealt_with_is_told_cause_by_cause() -> None:
    """Twelve hours: two before the pause, four under it, six after its end, when the runner was gone as before."""
    since = NOW - 12 * HOUR
    found = count(hourly(), since, pause(NOW - 9.5 * HOUR, NOW - 5.5 * HOUR))
    assert found == [
        Neglected(2, NOW - 11 * HOUR, Absence.NO_RUNNER),
        Neglected(4, NOW - 9 * HOUR, Reason.PAUSED),
        Neglected(6, NOW - 5 * HOUR, Absence.NO_RUNNER),
    ]
    assert count(hourly(), since, pause(since - DAY, None)) == [Neglected(12, NOW - 11 * HOUR, Reason.PAUSED)]
    others = (pause(since, None, "other"), pause(NOW + HOUR, None), pause(since - DAY, since - HOUR))
    assert count(hourly(), since, *others) == [Neglected(12, NOW - 11 * HOUR, Absence.NO_RUNNER)]


def test_holds_that_overlap_count_nothing_twice() -> None:
    since = NOW - 12 * HOUR
    found = count(hourly(), since, pause(since, NOW - 6 * HOUR), pause(NOW - 8 * HOUR, NOW - 3 * HOUR))
    assert [(each.count, each.since) for each in found] == [
        (6, NOW - 11 * HOUR),
        (3, NOW - 5 * HOUR),
        (3, NOW - 2 * HOUR),
    ]


@pytest.mark.parametrize(
    ("expression", "policy", "expected"),
    [
        ("0 * * * *", {"missed": "skip"}, [(10, "28 19")]),
        ("0 * * * *", {"missed": "latest"}, [(10, "28 19")]),  # that of six stands for those before
        ("30 * * * *", {"missed": "latest"}, [(10, "28 19")]),
        ("0 * * * *", {"missed": "all"}, [(18, "28 19")]),
        ("0 * * * *", {"missed": "all", "missedWithin": "2h"}, [(12, "28 19")]),
    ],
)
def test_of_quiet_hours_only_what_is_caught_up_on_is_to_run(expression: str, policy: Any, expected: Any) -> None:
    job = a_task(trigger={"type": "cron", "expression": expression, "timezone": "UTC"}, policy=policy)
    found = count(job, NOW - 17.25 * HOUR, quiet=hours("22:00", "06:00"))
    assert [(each.count, f"{each.since:%d %H}") for each in found] == expected


def test_quiet_hours_that_are_not_over_keep_what_came_in_them() -> None:
    nightly = a_task(trigger={"type": "cron", "expression": "0 10 * * *", "timezone": "UTC"})
    assert count(nightly, NOW - 6 * HOUR, quiet=hours("09:00", "13:00")) == []
    assert count(nightly, NOW - 6 * HOUR, quiet=hours("00:00", "24:00")) == []
    assert [each.since.hour for each in count(nightly, NOW - 6 * HOUR, quiet=hours("09:00", "12:00"))] == [12]


@given(
    expression=st.sampled_from(["0 2 * * *", "30 5 * * 6", "*/20 * * * *", "0 9-17 * * 1-5", "0 0 1 3 *"]),
    policy=st.fixed_dictionaries(
        {"missed": st.sampled_from(["skip", "latest"]), "missedWithin": st.sampled_from(["1h", "1d", "3d"])}
    ),
    since=st.integers(0, 23),
    until=st.integers(0, 24),
    days=st.sets(st.sampled_from(get_args(Day)), min_size=1),
    length=st.integers(1, 200),
)
def test_as_many_are_told_as_would_have_started(
    expression: str, policy: Any, since: int, until: int, days: set[str], length: int
) -> None:
    """Counted span by span, and told one by one: the plan that a hook gets and the count that `status` makes agree."""
    job = a_task(trigger={"type": "cron", "expression": expression, "timezone": "UTC"}, policy=policy)
    assume(since != until)
    quiet = hours(f"{since:02d}:00", f"{until:02d}:00", *days)
    begin = NOW - length * HOUR - timedelta(minutes=7)
    told = starts(job, quiet, begin, handled_until=begin, added_at=begin)
    expected = list(takewhile(lambda moment: moment <= NOW, told))
    found = count(job, begin, quiet=quiet)
    assert sum(each.count for each in found) == len(expected)
    assert min((each.since for each in found), default=None) == (expected[0] if expected else None)
