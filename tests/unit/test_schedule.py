from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import Literal
from zoneinfo import ZoneInfo

import pytest

from scheduler.core.models import CronTrigger, IntervalTrigger, OnceTrigger
from scheduler.core.schedule import GRACE, Due, Firing, Skipped, Trigger, collect_due, next_occurrence, occurrences
from scheduler.core.zones import UTC
from scheduler.errors import SchedulerError

LONG_AGO = datetime(1950, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """A moment; in UTC where no offset is given."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def cron(expression: str, zone: str = "UTC") -> CronTrigger:
    return CronTrigger(type="cron", expression=expression, timezone=zone)


def every(seconds: int, start: str | None = None) -> IntervalTrigger:
    return IntervalTrigger.model_validate({"every": seconds, **({"from": at(start)} if start else {})})


def once(moment: str) -> OnceTrigger:
    return OnceTrigger(type="once", at=at(moment))


@dataclass(frozen=True)
class Bare:
    """A trigger that no model has validated."""

    type: Literal["cron"] = "cron"
    expression: str = "0 0 * * *"
    timezone: str | None = None


def fired(trigger: Trigger, since: str, until: str, added: datetime = LONG_AGO) -> list[str]:
    found = list(occurrences(trigger, at(since), at(until), added_at=added))
    assert all(a < b for a, b in pairwise(found))
    return [moment.isoformat(timespec="minutes") for moment in found]


# C1 of the fault matrix: the gap. New York 2026-03-08, 02:00 to 03:00 is skipped at 07:00Z.
NEW_YORK_GAP = ("America/New_York", "2026-03-08T06:20", "2026-03-08T07:40")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 2 * * *", ["2026-03-08T03:00-04:00"]),
        ("0 2 * * *", ["2026-03-08T03:00-04:00"]),
        ("59 2 8 3 *", ["2026-03-08T03:00-04:00"]),
        ("0,15,30,45 2 * * *", ["2026-03-08T03:00-04:00"]),
        ("0 2,3 * * *", ["2026-03-08T03:00-04:00"]),
        ("30 1-3 * * *", ["2026-03-08T01:30-05:00", "2026-03-08T03:00-04:00", "2026-03-08T03:30-04:00"]),
        ("30 2 * * 1-6", []),
        # a rhythm follows the clock on the wall
        ("*/15 2 * * *", []),
        ("30/15 2 * * *", []),
        ("* 2 * * *", []),
        ("0 * * * *", ["2026-03-08T03:00-04:00"]),
        (
            "*/15 * * * *",
            [
                "2026-03-08T01:30-05:00",
                "2026-03-08T01:45-05:00",
                "2026-03-08T03:00-04:00",
                "2026-03-08T03:15-04:00",
                "2026-03-08T03:30-04:00",
            ],
        ),
    ],
)
def test_the_gap_in_new_york(expression: str, expected: list[str]) -> None:
    """C1."""
    zone, since, until = NEW_YORK_GAP
    assert fired(cron(expression, zone), since, until) == expected


# C2: the fold. New York 2026-11-01, 01:00 to 02:00 comes twice, the second time from 06:00Z.
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("30 1 * * *", ["2026-11-01T01:30-04:00"]),
        ("0 1,2 * * *", ["2026-11-01T01:00-04:00", "2026-11-01T02:00-05:00"]),
        ("0,30 1 1 11 *", ["2026-11-01T01:00-04:00", "2026-11-01T01:30-04:00"]),
        ("0 * * * *", ["2026-11-01T01:00-04:00", "2026-11-01T01:00-05:00", "2026-11-01T02:00-05:00"]),
        (
            "*/30 1 * * *",
            ["2026-11-01T01:00-04:00", "2026-11-01T01:30-04:00", "2026-11-01T01:00-05:00", "2026-11-01T01:30-05:00"],
        ),
        ("30 */1 1 11 *", ["2026-11-01T01:30-04:00", "2026-11-01T01:30-05:00"]),
    ],
)
def test_the_fold_in_new_york(expression: str, expected: list[str]) -> None:
    """C2."""
    assert fired(cron(expression, "America/New_York"), "2026-11-01T04:50", "2026-11-01T07:20") == expected


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2026-11-01T05:29:59", ["2026-11-01T01:30-04:00"]),
        ("2026-11-01T05:30:00", []),
        ("2026-11-01T05:59:59", []),
        ("2026-11-01T06:00:00", []),
        ("2026-11-01T06:29:59", []),
    ],
)
def test_the_second_pass_is_known_as_such_wherever_one_begins_to_look(since: str, expected: list[str]) -> None:
    assert fired(cron("30 1 * * *", "America/New_York"), since, "2026-11-01T07:20") == expected


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2026-03-08T06:59:59.999999", ["2026-03-08T03:00-04:00"]),
        ("2026-03-08T07:00:00", []),
        ("2026-03-08T07:00:00.500000", []),
        ("2026-03-08T07:30:00", []),
    ],
)
def test_a_gap_is_over_once_its_end_has_been_looked_at(since: str, expected: list[str]) -> None:
    assert fired(cron("30 2 * * *", "America/New_York"), since, "2026-03-08T07:40") == expected


# C3: the gap at midnight; and everything else that clocks have done.
@pytest.mark.parametrize(
    ("zone", "expression", "since", "until", "expected"),
    [
        ("America/Havana", "0 0 * * *", "2026-03-07T12:00", "2026-03-08T12:00", ["2026-03-08T01:00-04:00"]),
        ("America/Havana", "0 0 8 3 *", "2026-03-07T12:00", "2026-03-08T12:00", ["2026-03-08T01:00-04:00"]),
        ("America/Havana", "30 0 * * 0", "2026-03-07T12:00", "2026-03-08T12:00", ["2026-03-08T01:00-04:00"]),
        ("America/Havana", "*/20 0 * * *", "2026-03-07T12:00", "2026-03-08T12:00", []),
        ("Africa/Cairo", "0 0 * * *", "2026-04-23T12:00", "2026-04-24T12:00", ["2026-04-24T01:00+03:00"]),
        ("Asia/Beirut", "0 0 * * *", "2026-03-28T12:00", "2026-03-29T12:00", ["2026-03-29T01:00+03:00"]),
        ("America/Santiago", "0 0 * * *", "2026-09-05T12:00", "2026-09-06T12:00", ["2026-09-06T01:00-03:00"]),
        # the fold at midnight: in Havana 00:00-01:00 comes twice, in Santiago 23:00-24:00 of the day before
        ("America/Havana", "30 0 * * *", "2026-10-31T12:00", "2026-11-01T12:00", ["2026-11-01T00:30-04:00"]),
        ("America/Santiago", "30 23 * * *", "2026-04-04T12:00", "2026-04-05T12:00", ["2026-04-04T23:30-03:00"]),
        ("America/Santiago", "0 0 5 4 *", "2026-04-04T12:00", "2026-04-05T12:00", ["2026-04-05T00:00-04:00"]),
        (
            "America/Santiago",
            "*/30 23 4 4 *",
            "2026-04-04T12:00",
            "2026-04-05T12:00",
            ["2026-04-04T23:00-03:00", "2026-04-04T23:30-03:00", "2026-04-04T23:00-04:00", "2026-04-04T23:30-04:00"],
        ),
        # a whole day that never was
        (
            "Pacific/Apia",
            "0 9 * * *",
            "2011-12-29T12:00",
            "2011-12-31T12:00",
            ["2011-12-29T09:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T09:00+14:00"],
        ),
        ("Pacific/Apia", "0 0 * * *", "2011-12-29T12:00", "2011-12-31T00:00", ["2011-12-31T00:00+14:00"]),
        ("Pacific/Apia", "0 */3 30 12 *", "2011-12-01T00:00", "2012-02-01T00:00", []),
        ("Pacific/Kwajalein", "0 12 * * *", "1993-08-21T00:00", "1993-08-21T23:00", ["1993-08-22T00:00+12:00"]),
        # half an hour
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00", "2026-10-04T00:00", ["2026-10-04T02:30+11:00"]),
        ("Australia/Lord_Howe", "15,30 2 * * *", "2026-10-03T12:00", "2026-10-04T00:00", ["2026-10-04T02:30+11:00"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00", "2026-04-05T00:00", ["2026-04-05T01:45+11:00"]),
        (
            "Australia/Lord_Howe",
            "*/15 1 * * *",
            "2026-04-04T14:10",
            "2026-04-05T00:00",
            [
                "2026-04-05T01:15+11:00",
                "2026-04-05T01:30+11:00",
                "2026-04-05T01:45+11:00",
                "2026-04-05T01:30+10:30",
                "2026-04-05T01:45+10:30",
            ],
        ),
        # two hours
        ("Antarctica/Troll", "30 1,2 * * *", "2026-03-28T12:00", "2026-03-29T12:00", ["2026-03-29T03:00+02:00"]),
        # winter time is the one with the flag
        ("Europe/Dublin", "30 1 * * *", "2026-03-28T12:00", "2026-03-29T12:00", ["2026-03-29T02:00+01:00"]),
        ("Europe/Dublin", "30 1 * * *", "2026-10-24T12:00", "2026-10-25T12:00", ["2026-10-25T01:30+01:00"]),
        ("Africa/Casablanca", "30 2 * * *", "2026-02-14T12:00", "2026-02-15T12:00", ["2026-02-15T02:30+01:00"]),
        ("Africa/Casablanca", "30 2 * * *", "2026-03-21T12:00", "2026-03-22T12:00", ["2026-03-22T03:00+01:00"]),
        # a new offset without any daylight saving
        ("Asia/Pyongyang", "45 23 * * *", "2018-05-04T00:00", "2018-05-05T12:00", ["2018-05-05T00:00+09:00"]),
        (
            "Asia/Pyongyang",
            "45 23 * * *",
            "2015-08-14T00:00",
            "2015-08-15T16:00",
            ["2015-08-14T23:45+09:00", "2015-08-15T23:45+08:30"],
        ),
        ("America/Caracas", "45 2 * * *", "2016-04-30T12:00", "2016-05-01T12:00", ["2016-05-01T03:00-04:00"]),
        ("Europe/Volgograd", "30 1 * * *", "2020-12-26T12:00", "2020-12-27T12:00", ["2020-12-27T01:30+04:00"]),
        # an offset that is no whole minute
        ("Africa/Monrovia", "30 0 7 1 *", "1972-01-01T00:00", "1972-02-01T00:00", ["1972-01-07T00:44+00:00"]),
    ],
)
def test_clocks_that_change(zone: str, expression: str, since: str, until: str, expected: list[str]) -> None:
    """C3."""
    assert fired(cron(expression, zone), since, until) == expected


def test_a_daily_task_fires_on_every_day_of_a_year_with_both_changes() -> None:
    for zone in ("America/New_York", "America/Havana", "Australia/Lord_Howe", "Europe/Dublin", "Africa/Cairo"):
        for expression in ("30 2 * * *", "0 0 * * *", "30 1 * * *", "59 23 * * *"):
            found = fired(cron(expression, zone), "2026-01-01T12:00", "2027-01-01T12:00")
            days = {moment[:10] for moment in found}
            assert len(found) == len(days) == 365, (zone, expression)


def test_since_is_left_out_and_until_is_not() -> None:
    noon = cron("0 12 * * *")
    assert fired(noon, "2026-01-01T12:00", "2026-01-02T12:00") == ["2026-01-02T12:00+00:00"]
    assert fired(noon, "2026-01-01T11:59:59.999999", "2026-01-02T11:59:59.999999") == ["2026-01-01T12:00+00:00"]
    assert fired(noon, "2026-01-02T12:00", "2026-01-02T12:00") == []
    assert fired(noon, "2026-01-05T12:00", "2026-01-01T12:00") == []


def test_the_bounds_may_have_any_offset_and_the_answer_has_that_of_the_zone() -> None:
    zone = ZoneInfo("America/New_York")
    # In this zone both bounds read 01:30; they are an hour apart.
    first = datetime(2026, 11, 1, 1, 30, tzinfo=zone)
    found = list(occurrences(cron("*/30 * * * *", "Asia/Tokyo"), first, first.replace(fold=1), added_at=LONG_AGO))
    assert [moment.isoformat() for moment in found] == ["2026-11-01T15:00:00+09:00", "2026-11-01T15:30:00+09:00"]


def test_a_naive_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an offset"):
        occurrences(cron("* * * * *"), datetime(2026, 1, 1), at("2026-01-02"), added_at=LONG_AGO)


def test_nothing_fires_before_a_task_was_added() -> None:
    added = at("2026-01-02T12:00")
    for trigger in (cron("0 12 * * *"), every(86400), every(86400, "2026-01-01T12:00")):
        assert fired(trigger, "2025-12-01", "2026-01-04", added) == ["2026-01-03T12:00+00:00"]
    assert fired(once("2026-01-02T12:00"), "2025-12-01", "2026-01-04", added) == []
    assert fired(once("2026-01-02T12:01"), "2025-12-01", "2026-01-04", added) == ["2026-01-02T12:01+00:00"]


def test_an_interval_counts_from_its_start_in_absolute_time() -> None:
    assert fired(every(3600, "2026-11-01T00:30-04:00"), "2026-11-01T03:00", "2026-11-01T07:00") == [
        f"2026-11-01T{hour:02}:30+00:00" for hour in (4, 5, 6)
    ]
    assert fired(every(90, "2026-01-01T00:00"), "2026-01-01T00:00", "2026-01-01T00:05") == [
        "2026-01-01T00:01+00:00",
        "2026-01-01T00:03+00:00",
        "2026-01-01T00:04+00:00",
    ]
    assert fired(every(60, "2027-01-01"), "2026-01-01", "2026-12-31") == []


def test_an_interval_keeps_the_fraction_of_its_start() -> None:
    added = at("2026-01-01T00:00:00.123456")
    found = list(occurrences(every(10), added, added + timedelta(seconds=20), added_at=added))
    assert found == [added + timedelta(seconds=10), added + timedelta(seconds=20)]
    assert list(occurrences(every(10), found[0] - timedelta(microseconds=1), found[0], added_at=added)) == found[:1]


def test_an_interval_without_length_is_refused() -> None:
    endless = IntervalTrigger.model_construct(type="interval", every=0, from_=None)
    with pytest.raises(SchedulerError, match="0 seconds"):
        occurrences(endless, LONG_AGO, at("2026-01-01"), added_at=LONG_AGO)


def test_once_is_the_moment_that_was_given() -> None:
    trigger = once("2026-12-01T09:00:00.250+01:00")
    found = list(occurrences(trigger, at("2026-11-01"), at("2027-01-01"), added_at=LONG_AGO))
    assert [moment.isoformat() for moment in found] == ["2026-12-01T09:00:00.250000+01:00"]
    assert next_occurrence(trigger, at("2026-12-01T08:00:00.250"), added_at=LONG_AGO) is None


def test_no_zone_is_utc_and_an_unknown_one_is_refused_at_once() -> None:
    assert fired(Bare(), "2026-01-01", "2026-01-02") == ["2026-01-02T00:00+00:00"]
    with pytest.raises(SchedulerError, match="unknown time zone 'Mars/X'"):
        occurrences(Bare(timezone="Mars/X"), LONG_AGO, at("2026-01-01"), added_at=LONG_AGO)
    with pytest.raises(SchedulerError, match="fields instead of 5"):
        occurrences(Bare(expression="0 0"), LONG_AGO, at("2026-01-01"), added_at=LONG_AGO)


@pytest.mark.parametrize(
    ("trigger", "after", "expected"),
    [
        (cron("0 2 * * 1-5", "Europe/Berlin"), "2026-11-20T12:00", "2026-11-23T02:00+01:00"),
        (cron("0 0 29 2 *"), "2096-03-01", "2104-02-29T00:00+00:00"),
        # the rarest that there is: 29 February on a Sunday, over a century without a leap year
        (cron("0 0 29 2 */7"), "2088-03-01", "2128-02-29T00:00+00:00"),
        (every(86400 * 3000, "2026-01-01"), "2026-01-01", "2034-03-20T00:00+00:00"),
        (once("2400-01-01"), "2026-01-01", "2400-01-01T00:00+00:00"),
    ],
)
def test_next(trigger: Trigger, after: str, expected: str) -> None:
    found = next_occurrence(trigger, at(after), added_at=LONG_AGO)
    assert found is not None
    assert found.isoformat(timespec="minutes") == expected


def test_what_never_fires_has_no_next_and_costs_nothing() -> None:
    assert next_occurrence(Bare(expression="0 0 30 2 *"), LONG_AGO, added_at=LONG_AGO) is None


def test_an_endless_range_is_walked_only_as_far_as_asked() -> None:
    end = datetime.max.replace(tzinfo=UTC)
    for trigger in (cron("* * * * *", "Europe/Berlin"), every(1)):
        assert len(list(islice(occurrences(trigger, LONG_AGO, end, added_at=LONG_AGO), 1000))) == 1000
    assert next_occurrence(cron("0 0 * * *"), end, added_at=LONG_AGO) is None
    start = datetime.min.replace(tzinfo=UTC)
    assert next_occurrence(cron("0 0 * * *"), start, added_at=start) == datetime(1900, 1, 2, tzinfo=UTC)


NOW = at("2026-06-10T12:00:00")
DAY = 86400


def due(
    trigger: Trigger,
    handled: str,
    missed: Literal["skip", "latest", "all"] = "latest",
    within: int = DAY,
    now: datetime = NOW,
    added: datetime = LONG_AGO,
) -> Due:
    return collect_due(trigger, missed=missed, missed_within=within, handled_until=at(handled), now=now, added_at=added)


def test_what_has_just_come_fires_on_time_under_every_policy() -> None:
    for missed in ("skip", "latest", "all"):
        assert due(cron("0 12 * * *"), "2026-06-10T11:00", missed) == Due(
            (Firing(NOW, catch_up=False),), None, None, NOW
        )


def test_between_occurrences_only_the_mark_moves() -> None:
    assert due(cron("0 13 * * *"), "2026-06-10T11:59") == Due((), None, None, NOW)


def test_grace_separates_on_time_from_missed() -> None:
    noon = cron("0 12 * * *")
    for age, catch_up in ((GRACE, False), (GRACE + 0.001, True)):
        result = due(noon, "2026-06-10T11:00", now=NOW + timedelta(seconds=age))
        assert result.fire == (Firing(NOW, catch_up=catch_up),)
    late = due(noon, "2026-06-10T11:00", "skip", now=NOW + timedelta(seconds=GRACE + 0.001))
    assert (late.fire, late.skipped) == ((), Skipped(NOW, NOW, 1))


@pytest.mark.parametrize(
    ("missed", "fire", "skipped"),
    [
        ("skip", [], Skipped(at("2026-06-10T02:10"), at("2026-06-10T11:10"), 10)),
        ("latest", [("2026-06-10T11:10", True)], Skipped(at("2026-06-10T02:10"), at("2026-06-10T10:10"), 9)),
        ("all", [(f"2026-06-10T{hour:02}:10", True) for hour in range(2, 12)], None),
    ],
)
def test_missed_occurrences(
    missed: Literal["skip", "latest", "all"], fire: list[tuple[str, bool]], skipped: Skipped | None
) -> None:
    result = due(cron("10 * * * *"), "2026-06-10T02:00", missed)
    assert result == Due(tuple(Firing(at(t), catch_up=late) for t, late in fire), skipped, None, NOW)


@pytest.mark.parametrize("missed", ["skip", "latest", "all"])
def test_an_occurrence_on_time_stands_for_the_missed_ones(missed: Literal["skip", "latest", "all"]) -> None:
    result = due(cron("0 * * * *"), "2026-06-10T09:30", missed)
    on_time, earlier = Firing(NOW, catch_up=False), [at("2026-06-10T10:00"), at("2026-06-10T11:00")]
    if missed == "all":
        assert result == Due((*(Firing(t, catch_up=True) for t in earlier), on_time), None, None, NOW)
    else:
        assert result == Due((on_time,), Skipped(earlier[0], earlier[1], 2), None, NOW)


def test_after_an_absence_only_the_newest_is_on_time() -> None:
    result = due(cron("* * * * *"), "2026-06-10T11:50")
    assert result.fire == (Firing(NOW, catch_up=False),)
    assert result.skipped == Skipped(at("2026-06-10T11:51"), at("2026-06-10T11:59"), 9)
    assert due(every(10), "2026-06-10T11:50").fire == (Firing(NOW, catch_up=False),)


def test_what_is_older_than_the_window_is_one_span_that_is_not_counted() -> None:
    result = due(cron("0 6 * * *"), "2026-06-01T00:00")
    assert result.fire == (Firing(at("2026-06-10T06:00"), catch_up=True),)
    assert result.skipped is None
    assert result.older_span == (at("2026-06-01T00:00"), at("2026-06-09T12:00"))
    # The window holds its first moment; and nothing is said of a time in which nothing was missed.
    edge = due(cron("0 12 * * *"), "2026-06-09T11:00", "skip", now=NOW + timedelta(microseconds=1))
    assert edge == Due(
        (Firing(NOW, catch_up=False),),
        None,
        (at("2026-06-09T11:00"), at("2026-06-09T12:00:00.000001")),
        edge.handled_until,
    )
    assert due(cron("0 12 * * *"), "2026-06-09T11:00", "skip").skipped == Skipped(
        at("2026-06-09T12:00"), at("2026-06-09T12:00"), 1
    )
    assert due(cron("0 6 * * 3"), "2026-06-04T00:00").older_span is None


def test_a_window_of_nothing_still_lets_what_is_on_time_run() -> None:
    result = due(cron("0 * * * *"), "2026-06-10T09:30", "all", within=0)
    assert result.fire == (Firing(NOW, catch_up=False),)
    assert result.older_span is not None


@pytest.mark.parametrize("missed", ["skip", "latest"])
def test_ten_years_of_minutes_are_decided_without_walking_them(missed: Literal["skip", "latest"]) -> None:
    result = due(cron("* * * * *", "America/New_York"), "2016-06-10T12:00", missed)
    assert [firing.catch_up for firing in result.fire] == [False]
    assert result.skipped is not None
    assert result.skipped.count == 1440
    assert result.older_span == (at("2016-06-10T12:00"), at("2026-06-09T12:00"))
    month = due(cron("* * * * *", "America/New_York"), "2016-06-10T12:00", missed, within=30 * DAY)
    assert month.skipped is not None
    assert month.skipped.count == 43200


def test_counting_agrees_with_walking_over_gaps_and_folds() -> None:
    for expression in ("*/7 * * * *", "0,30 0-3 * * *", "30 2 * * *"):
        for zone in ("America/New_York", "Australia/Lord_Howe", "America/Havana"):
            now = at("2027-01-01T00:00")
            result = due(cron(expression, zone), "2026-01-01T00:00", "skip", within=400 * DAY, now=now)
            walked = list(occurrences(cron(expression, zone), at("2026-01-01"), now, added_at=LONG_AGO))
            assert result.skipped is not None
            missed = walked[: result.skipped.count]
            assert (result.skipped.first, result.skipped.last) == (missed[0], missed[-1])
            assert walked[result.skipped.count :] == [firing.at for firing in result.fire]


def test_a_clock_that_went_back_fires_nothing_and_keeps_the_mark() -> None:
    for back in (timedelta(hours=2), timedelta(days=1)):
        result = due(cron("* * * * *"), "2026-06-10T12:00", now=NOW - back)
        assert result == Due((), None, None, NOW)


def test_a_clock_that_was_put_back_and_came_forward_again_repeats_nothing() -> None:
    mark, seen = NOW, []
    for minutes in (0, 1, -120, -60, 0, 1, 2):
        result = collect_due(
            cron("* * * * *"),
            missed="all",
            missed_within=DAY,
            handled_until=mark,
            now=NOW + timedelta(minutes=minutes),
            added_at=LONG_AGO,
        )
        mark = result.handled_until
        seen += [firing.at for firing in result.fire]
    assert seen == [NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)]


def test_a_once_task_that_was_missed_is_caught_up_within_the_window() -> None:
    moment = Firing(at("2026-06-10T03:00"), catch_up=True)
    assert due(once("2026-06-10T03:00"), "2026-06-09T20:00").fire == (moment,)
    assert due(once("2026-06-10T03:00"), "2026-06-09T20:00", "skip").skipped == Skipped(moment.at, moment.at, 1)
    gone = due(once("2026-06-01T03:00"), "2026-05-31T20:00")
    assert gone == Due((), None, (at("2026-05-31T20:00"), at("2026-06-09T12:00")), NOW)


def test_nothing_is_missed_before_a_task_was_added() -> None:
    result = due(cron("10 * * * *"), "2026-06-01T00:00", "all", added=at("2026-06-10T10:30"))
    assert result.fire == (Firing(at("2026-06-10T11:10"), catch_up=True),)
    assert result.older_span is None
    assert due(cron("* * * * *"), "2026-06-01T00:00", added=NOW + timedelta(days=1)).fire == ()


def test_ticks_of_61_seconds_lose_no_minute_and_double_none() -> None:
    """C13."""
    mark, seen = NOW, []
    for tick in range(1, 3 * 60):
        result = due(cron("* * * * *"), mark.isoformat(), now=NOW + timedelta(seconds=61 * tick))
        assert result.skipped is None
        mark = result.handled_until
        seen += [firing.at for firing in result.fire]
    assert seen == [NOW + timedelta(minutes=n) for n in range(1, len(seen) + 1)]
    assert len(seen) == 61 * 179 // 60


@pytest.mark.parametrize("start", [None, "2026-06-10T09:00:00.250"])
def test_looks_that_come_late_by_more_or_less_lose_no_moment_of_an_interval(start: str | None) -> None:
    """C13: it counts from when it was added, not from the last look."""
    added = at("2026-06-10T09:00:00.250")
    mark, seen = added, []
    for tick, late in enumerate([5, 1, 9, 0, 3, 2, 60_000, 1, 0, 4], 1):
        now = added + timedelta(seconds=7200 * tick, milliseconds=late)
        result = collect_due(
            every(7200, start), missed="latest", missed_within=86400, handled_until=mark, now=now, added_at=added
        )
        mark = result.handled_until
        seen += [firing.at for firing in result.fire]
        assert next_occurrence(every(7200, start), mark, added_at=added) == added + timedelta(seconds=7200 * (tick + 1))
    assert seen == [added + timedelta(seconds=7200 * tick) for tick in range(1, 11)]


def test_eight_hours_asleep_is_one_catch_up() -> None:
    """C9."""
    result = due(cron("*/10 * * * *"), "2026-06-10T04:05", now=at("2026-06-10T12:05"))
    assert result.fire == (Firing(NOW, catch_up=True),)
    assert result.skipped == Skipped(at("2026-06-10T04:10"), at("2026-06-10T11:50"), 47)
