"""Occurrences held against two oracles: cronsim, an independent implementation, over every zone and two years; and a
walk over every minute of the time line that does by definition what the program does by arithmetic.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, tzinfo
from functools import cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import available_timezones

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.cron import parse
from scheduler.core.models import CronTrigger
from scheduler.core.schedule import collect_due, next_occurrence, occurrences
from scheduler.core.zones import UTC, in_zone, stretches, zone_of

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SINCE, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(1950, 1, 1, tzinfo=UTC)
ZONES = sorted(available_timezones())

# Times of day: `*` and steps neither in the minute nor in the hour. Both implementations have one rule for them.
FIXED = (
    "0 0 * * *",
    "30 2 * * *",
    "59 23 * * *",
    "0,15,30,45 0-3,22-23 * * *",
    "30 0-23 * * *",
    "0 9-17 * * 1-5",
    "15 1,2,3 8,29 * *",
    "0 0 L * 5L",
    "45 1 * 3,10 SUN",
    "0 0 */3 * 0-5",
    "5-9 2 1,15 * 1#2",
)
# Rhythms: they follow the clock on the wall, also with one rule.
RHYTHMS = (
    "0 * * * *",
    "*/20 * * * *",
    "*/20 */2 * * *",
    "0 * */2 * 1",
    "*/30 0-3 8 * *",
    "15 * * * 0",
    "*/10 23 L * *",
)
# Steps that do not begin with `*`. To us a step makes a rhythm wherever it stands (`0-59/15` is `*/15`); cronsim, like
# cron, looks for a leading `*` alone and takes these for times of day. Beside each stands the list of the same times,
# which both take for such.
STEPS = (
    ("5/15 2 * * *", "5,20,35,50 2 * * *"),
    ("0 0-23/3 * * *", "0 0,3,6,9,12,15,18,21 * * *"),
    ("10-50/20 1,2 * * *", "10,30,50 1,2 * * *"),
)


class Change(NamedTuple):
    at: datetime
    before: timedelta
    after: timedelta


@cache
def changes(name: str, since: datetime = SINCE, until: datetime = UNTIL) -> tuple[Change, ...]:
    """When the clocks of a zone change."""
    parts = pairwise(stretches(zone_of(name), since, until))
    return tuple(Change(b.start, a.offset, b.offset) for a, b in parts if a.offset != b.offset)


def zones_that_differ() -> list[str]:
    """One zone for each way of keeping time in these two years; the others have the same offsets at all times."""
    ways: dict[object, str] = {}
    for name in ZONES:
        ways.setdefault((in_zone(SINCE, zone_of(name)).utcoffset(), changes(name)), name)
    return list(ways.values())


def ours(expression: str, zone: str, since: datetime, until: datetime) -> list[datetime]:
    trigger = CronTrigger(type="cron", expression=expression, timezone=zone)
    return list(occurrences(trigger, since, until, added_at=LONG_AGO))


def cronsims(expression: str, zone: str, since: datetime, until: datetime) -> list[datetime]:
    # cronsim starts from a time of the zone, and cannot be told the second pass of a fold: start elsewhere.
    found: list[datetime] = []
    for moment in CronSim(expression, since.astimezone(zone_of(zone))):
        if moment.astimezone(UTC) > until:
            return found
        found.append(moment.astimezone(UTC))
    raise AssertionError("cron ended")


def compare(zone: str, since: datetime, until: datetime) -> set[str]:
    """Hold `zone` against cronsim in a span; returns the rhythms in which the two differ, for the explained reason."""
    for expression in FIXED:
        assert ours(expression, zone, since, until) == cronsims(expression, zone, since, until), (expression, zone)
    for steps, listed in STEPS:
        assert cronsims(steps, zone, since, until) == ours(listed, zone, since, until), (steps, zone)
    differ = set()
    for expression in RHYTHMS:
        here, there = ours(expression, zone, since, until), cronsims(expression, zone, since, until)
        if here != there:
            # cronsim looks for the next hour in strides of a whole one. Where clocks go back by half of one, a stride
            # ends in the middle of an hour and passes over its first half.
            half = [change.at for change in changes(zone) if (change.before - change.after) % HOUR]
            extra = set(here) - set(there)
            assert set(there) < set(here), (expression, zone)
            assert all(any(at <= moment < at + HOUR for at in half) for moment in extra), (expression, zone, extra)
            assert here == list(Walk(zone, since, until).rhythm(READINGS[expression])), (expression, zone)
            differ.add(expression)
    return differ


def test_every_zone_agrees_with_cronsim_where_its_clocks_change() -> None:
    different: dict[str, set[str]] = {}
    for zone in zones_that_differ():
        moments = [change.at for change in changes(zone)] or [datetime(2026, 2, 28, 12, tzinfo=UTC)]
        for moment in moments[:4]:
            different.setdefault(zone, set()).update(compare(zone, moment - 1.1 * DAY, moment + 1.2 * DAY))
    assert {zone: found for zone, found in different.items() if found} == {"Australia/LHI": {"*/20 */2 * * *"}}


@pytest.mark.full
@pytest.mark.parametrize("zone", zones_that_differ())
def test_every_zone_agrees_with_cronsim_over_two_years(zone: str) -> None:
    assert compare(zone, SINCE, UNTIL) == ({"*/20 */2 * * *"} if zone == "Australia/LHI" else set())


def test_steps_follow_the_wall_where_cronsim_takes_them_for_times_of_day() -> None:
    for zone in ("America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana"):
        for change in changes(zone):
            since, until = change.at - DAY, change.at + DAY
            for steps, _ in STEPS:
                wall = Walk(zone, since, until)
                assert ours(steps, zone, since, until) == list(wall.rhythm(READINGS[steps])), (steps, zone)


def test_every_next_is_later_over_two_years_in_every_zone() -> None:
    """C6."""
    for zone in zones_that_differ():
        for expression in ("30 2 * * *", "0 0 * * *", "30 1,2,23 * * *", "0 * * * 0"):
            found = ours(expression, zone, SINCE, UNTIL)
            assert all(SINCE < a < b <= UNTIL for a, b in pairwise(found)), (expression, zone)
            if expression.endswith("* * *") and "," not in expression:
                assert len(found) == 730, (expression, zone)


def test_next_is_what_comes_first_in_every_zone_around_every_change() -> None:
    for zone in zones_that_differ():
        for change in changes(zone)[:4]:
            for expression in ("30 2 * * *", "*/30 * * * *"):
                trigger = CronTrigger(type="cron", expression=expression, timezone=zone)
                found = ours(expression, zone, change.at - 0.2 * DAY, change.at + 2 * DAY)
                for moment, after in pairwise(found[:12]):
                    assert next_occurrence(trigger, moment, added_at=LONG_AGO) == after > moment


# The second oracle: what an expression says, and every minute of the time line.


class Reading(NamedTuple):
    """What an expression means, without the program."""

    minutes: set[int]
    hours: set[int]
    day: Callable[[date], bool]

    def shows(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and self.day(wall.date())


READINGS = {
    "*/20 */2 * * *": Reading({0, 20, 40}, set(range(0, 24, 2)), lambda day: True),
    "5/15 2 * * *": Reading({5, 20, 35, 50}, {2}, lambda day: True),
    "0 0-23/3 * * *": Reading({0}, set(range(0, 24, 3)), lambda day: True),
    "10-50/20 1,2 * * *": Reading({10, 30, 50}, {1, 2}, lambda day: True),
}


class Walk:
    """A walk over every minute in (since, until], the rules for changing clocks in their own words."""

    def __init__(self, zone: str, since: datetime, until: datetime) -> None:
        self.zone: tzinfo = zone_of(zone)
        self.since, self.until = since, until

    def minutes(self, since: datetime) -> Iterator[tuple[datetime, datetime]]:
        moment = since.replace(second=0, microsecond=0)
        while moment <= self.until:
            yield moment, moment.astimezone(self.zone).replace(tzinfo=None)
            moment += MINUTE

    def rhythm(self, reading: Reading) -> Iterator[datetime]:
        """Whenever the clock on the wall shows such a time."""
        for moment, wall in self.minutes(self.since):
            if moment > self.since and reading.shows(wall):
                yield moment

    def fixed(self, reading: Reading) -> Iterator[datetime]:
        """When the clock for the first time shows such a time, or has just passed over one."""
        walk = self.minutes(self.since - 2 * DAY)
        _, shown = next(walk)
        for moment, wall in walk:
            come = False
            while shown < wall:
                shown += MINUTE
                come = come or reading.shows(shown)
            if come and moment > self.since:
                yield moment


@st.composite
def fields(
    draw: st.DrawFn, low: int, high: int, names: tuple[str, ...] = (), most: int | None = None
) -> tuple[str, set[int]]:
    """A list of items for a field of `low` to `high`, and what it says; `most` keeps numbers small."""

    def word(value: int) -> str:
        spellings = [str(value), f"{value:02}", *([names[value - low].upper()] if value - low < len(names) else [])]
        return draw(st.sampled_from(spellings))

    texts, values = [], set[int]()
    for _ in range(draw(st.integers(1, 3))):
        first, last = sorted(draw(st.tuples(*[st.integers(low, high if most is None else most)] * 2)))
        step = draw(st.integers(1, high))
        kind = draw(st.sampled_from(["value", "value", "range", "steps", "open", "star"]))
        text, said = {
            "value": (word(first), {first}),
            "range": (f"{word(first)}-{word(last)}", set(range(first, last + 1))),
            "steps": (f"{word(first)}-{word(last)}/{step}", set(range(first, last + 1, step))),
            "open": (f"{word(first)}/{step}", set(range(first, high + 1, step))),
            "star": (f"*/{step}", set(range(low, high + 1, step))),
        }[kind]
        texts.append(text)
        values |= said
    return ",".join(texts), values


def all_of(low: int, high: int) -> st.SearchStrategy[tuple[str, set[int]]]:
    return st.just(("*", set(range(low, high + 1))))


MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEK = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@st.composite
def weekday_fields(draw: st.DrawFn) -> tuple[str, Callable[[date], bool]]:
    if draw(st.booleans()):
        text, days = draw(all_of(0, 6) | fields(0, 6, WEEK))
        return text, lambda day: day.isoweekday() % 7 in days
    items = draw(
        st.lists(
            st.tuples(st.integers(0, 7), st.sampled_from(["#1", "#2", "#3", "#4", "#5", "L"])), min_size=1, max_size=2
        )
    )

    def on(day: date) -> bool:
        nth, last = f"#{(day.day + 6) // 7}", day.day + 7 > monthrange(day.year, day.month)[1]
        return any(
            day.isoweekday() % 7 == number % 7 and (which == nth or (which == "L" and last)) for number, which in items
        )

    return ",".join(f"{number}{which}" for number, which in items), on


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, bool, Reading]:
    """An expression, whether it names times of day, and what it says."""
    minute, minutes = draw(fields(0, 59) | all_of(0, 59))
    hour, hours = draw(fields(0, 23) | fields(0, 23, most=3) | all_of(0, 23))
    date_field, dates = draw(
        all_of(1, 31) | all_of(1, 31) | fields(1, 31) | st.just(("L", {-1})) | st.just(("15,L", {15, -1}))
    )
    month, months = draw(all_of(1, 12) | all_of(1, 12) | fields(1, 12, MONTHS))
    weekday, on_weekday = draw(st.just(("*", lambda day: True)) | weekday_fields())

    def on(day: date) -> bool:
        on_date = day.day in dates or (-1 in dates and (day + DAY).day == 1)
        either = date_field[0] != "*" and weekday[0] != "*"
        matches = (on_date or on_weekday(day)) if either else (on_date and on_weekday(day))
        return day.month in months and matches

    fixed = not set("*/") & set(minute + hour)
    return f"{minute} {hour} {date_field} {month} {weekday}", fixed, Reading(minutes, hours, on)


@st.composite
def spans(draw: st.DrawFn) -> tuple[str, datetime, datetime]:
    """A zone and two days or less of it, near one of its changes in sixty years."""
    zone = draw(st.sampled_from(ZONES))
    found = changes(zone, datetime(1975, 1, 1, tzinfo=UTC), datetime(2035, 1, 1, tzinfo=UTC))
    moment = draw(st.sampled_from(found)).at if found else SINCE
    since = moment + timedelta(seconds=draw(st.integers(-86400, 3600)))
    return zone, since, since + timedelta(seconds=draw(st.integers(0, 2 * 86400)))


@settings(max_examples=800)
@given(expressions(), spans())
def test_any_expression_fires_as_a_walk_over_every_minute_says(
    expression: tuple[str, bool, Reading], span: tuple[str, datetime, datetime]
) -> None:
    text, fixed, reading = expression
    walk = Walk(*span)
    assert ours(text, *span) == list((walk.fixed if fixed else walk.rhythm)(reading))


@settings(max_examples=150)
@given(expressions(), st.dates(date(1970, 1, 1), date(2100, 1, 1)))
def test_any_expression_matches_the_days_that_it_says(expression: tuple[str, bool, Reading], first: date) -> None:
    text, fixed, reading = expression
    cron = parse(text)
    assert cron.fixed == fixed
    days = [first + n * DAY for n in range(800)]
    assert [day for day in days if cron.on(day)] == [day for day in days if reading.day(day)]


@settings(max_examples=60)
@given(expressions(), spans(), st.integers(0, 172800))
def test_a_span_is_the_sum_of_its_parts(
    expression: tuple[str, bool, Reading], span: tuple[str, datetime, datetime], cut: int
) -> None:
    zone, since, until = span
    middle = min(since + timedelta(seconds=cut), until)
    whole = ours(expression[0], zone, since, until)
    assert ours(expression[0], zone, since, middle) + ours(expression[0], zone, middle, until) == whole


@settings(max_examples=60)
@given(
    st.sampled_from([*FIXED, *RHYTHMS, "* * * * *"]),
    spans(),
    st.sampled_from(["skip", "latest", "all"]),
    st.sampled_from([0, 60, 3600, 86400]),
    st.lists(st.integers(-600, 30000) | st.integers(0, 120), min_size=1, max_size=12),
)
def test_every_occurrence_is_run_or_accounted_for_once(
    expression: str, span: tuple[str, datetime, datetime], missed: str, within: int, steps: list[int]
) -> None:
    zone, since, _ = span
    trigger = CronTrigger(type="cron", expression=expression, timezone=zone)
    mark = now = since
    for step in steps:
        now += timedelta(seconds=step)
        due = collect_due(
            trigger,
            missed=missed,  # type: ignore[arg-type]
            missed_within=within,
            handled_until=mark,
            now=now,
            added_at=since,
        )
        assert due.handled_until == max(mark, now)
        left = ours(expression, zone, mark, now)
        fire = [firing.at for firing in due.fire]
        if due.older_span:
            older = [moment for moment in left if moment < due.older_span[1]]
            assert older and due.older_span[0] == mark
            left = left[len(older) :]
        skipped = [moment for moment in left if moment not in fire]
        if due.skipped:
            assert (due.skipped.first, due.skipped.last, due.skipped.count) == (skipped[0], skipped[-1], len(skipped))
            assert missed != "all"
            skipped = []
        assert skipped == []
        assert sorted(set(fire)) == fire == [moment for moment in left if moment in fire]
        assert missed == "all" or len([firing for firing in due.fire if firing.catch_up]) <= 1
        assert missed != "skip" or not any(firing.catch_up for firing in due.fire)
        mark = due.handled_until
