from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.when import parse_duration, parse_past, parse_when
from scheduler.core.zones import UTC, zone_of
from scheduler.errors import SchedulerError

BERLIN = zone_of("Europe/Berlin")
# A Monday, 12:00:00.5 in Berlin.
NOW = datetime(2026, 11, 23, 11, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (1800, 1800),
        (0, 0),
        (90.0, 90),
        ("1800", 1800),
        ("0", 0),
        ("90s", 90),
        ("30m", 1800),
        ("2h30m", 9000),
        ("2h 30m", 9000),
        ("2 h 30 min", 9000),
        ("24h", 86400),
        ("1d", 86400),
        ("1w", 604800),
        ("1w2d3h4m5s", 604800 + 2 * 86400 + 3 * 3600 + 4 * 60 + 5),
        ("1 hour", 3600),
        ("2 hours 1 minute 30 seconds", 7290),
        ("1 week 1 day", 8 * 86400),
        ("90 secs", 90),
        (" 5M ", 300),
        ("3653d", 3653 * 86400),
    ],
)
def test_a_duration_is_seconds_or_text(text: Any, seconds: int) -> None:
    result = parse_duration(text)
    assert result == seconds
    assert type(result) is int


@pytest.mark.parametrize(
    ("text", "why"),
    ids=lambda value: repr(value)[:20] if isinstance(value, str) else type(value).__name__,
    argvalues=[
        ("", "is not a duration"),
        (" ", "is not a duration"),
        ("h", "is not a duration"),
        ("ten minutes", "is not a duration"),
        ("30m2h", "is not a duration"),
        ("1h1h", "is not a duration"),
        ("5 fortnights", "is not a duration"),
        ("1.5h", "is not a duration"),
        ("1h-5m", "is not a duration"),
        ("١٢", "is not a duration"),
        ("٣m", "is not a duration"),
        ("30m\0", "is not a duration"),
        ("nan", "is not a duration"),
        ("1e3", "is not a duration"),
        ("9" * 10_000, "is not a duration"),
        ("9" * 10_000 + "m", "is not a duration"),
        ("-5", "is negative"),
        (-5, "is negative"),
        (-(10**5000), "is negative"),
        (-0.5, "is not a whole number of seconds"),
        (1.5, "is not a whole number of seconds"),
        (float("nan"), "is not a whole number of seconds"),
        (float("inf"), "is not a whole number of seconds"),
        (True, "is not a duration"),
        (False, "is not a duration"),
        (None, "is not a duration"),
        ([30], "is not a duration"),
        (3653 * 86400 + 1, "is longer than ten years"),
        (10**5000, "is longer than ten years"),
        (1e300, "is longer than ten years"),
        ("11 weeks 4000d", "is longer than ten years"),
        ("999999999w", "is longer than ten years"),
        ("999999999999", "is longer than ten years"),
    ],
)
def test_what_is_no_duration_says_why(text: Any, why: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        parse_duration(text)
    assert caught.value.message.endswith(why)
    assert len(caught.value.message) < 130
    assert '"30m"' in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # ISO 8601, with an offset or in the zone
        ("2026-12-01T09:00:00+02:00", "2026-12-01T09:00:00+02:00"),
        ("2026-12-01T09:00-0530", "2026-12-01T09:00:00-05:30"),
        ("2026-12-01T09:00+02", "2026-12-01T09:00:00+02:00"),
        ("2026-12-01T09:00:00Z", "2026-12-01T09:00:00+00:00"),
        ("2026-12-01t09:00:00z", "2026-12-01T09:00:00+00:00"),
        ("2026-12-01T09:00:00.25", "2026-12-01T09:00:00.250000+01:00"),
        ("2026-12-01T09:00:00.123456789Z", "2026-12-01T09:00:00.123456+00:00"),
        ("2026-07-01T09:00", "2026-07-01T09:00:00+02:00"),
        ("2026-07-01 09:00", "2026-07-01T09:00:00+02:00"),
        ("2026-07-01", "2026-07-01T00:00:00+02:00"),
        ("2026-07-01T09:00:00.5 +01:00", "2026-07-01T09:00:00.500000+01:00"),
        # a length, by the clock that measures, rounded up to a whole second
        ("in 2h", "2026-11-23T14:00:01+01:00"),
        ("in 30 minutes", "2026-11-23T12:30:01+01:00"),
        ("In  1H30M", "2026-11-23T13:30:01+01:00"),
        ("in 90", "2026-11-23T12:01:31+01:00"),
        ("in 0s", "2026-11-23T12:00:01+01:00"),
        ("in 200d", "2027-06-11T13:00:01+02:00"),
        # the next such time
        ("17:30", "2026-11-23T17:30:00+01:00"),
        ("at 17:30", "2026-11-23T17:30:00+01:00"),
        ("12:00", "2026-11-24T12:00:00+01:00"),
        ("12:00:01", "2026-11-23T12:00:01+01:00"),
        ("9:05", "2026-11-24T09:05:00+01:00"),
        ("00:00", "2026-11-24T00:00:00+01:00"),
        # on a day
        ("today 17:30", "2026-11-23T17:30:00+01:00"),
        ("today 08:00", "2026-11-23T08:00:00+01:00"),
        ("tomorrow 09:00", "2026-11-24T09:00:00+01:00"),
        ("Tomorrow at 09:00", "2026-11-24T09:00:00+01:00"),
        ("tomorrow", "2026-11-24T00:00:00+01:00"),
        ("monday 9:00", "2026-11-30T09:00:00+01:00"),
        ("monday 13:00", "2026-11-23T13:00:00+01:00"),
        ("MON 13:00", "2026-11-23T13:00:00+01:00"),
        ("monday", "2026-11-30T00:00:00+01:00"),
        ("tuesday 9:00", "2026-11-24T09:00:00+01:00"),
        ("sunday 23:59:59", "2026-11-29T23:59:59+01:00"),
        ("sun 9:00", "2026-11-29T09:00:00+01:00"),
    ],
)
def test_a_moment_as_people_write_it(text: str, expected: str) -> None:
    moment = parse_when(text, NOW, BERLIN)
    assert moment.isoformat() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", "2026-11-16T12:00:00.500000+01:00"),
        ("2h ago", "2026-11-23T10:00:00.500000+01:00"),
        ("1 day 2 hours ago", "2026-11-22T10:00:00.500000+01:00"),
        ("90", "2026-11-23T11:58:30.500000+01:00"),
        ("30 ago", "2026-11-23T11:59:30.500000+01:00"),
        # the latest such, today included
        ("monday", "2026-11-23T00:00:00+01:00"),
        ("tuesday", "2026-11-17T00:00:00+01:00"),
        ("sun 9:00", "2026-11-22T09:00:00+01:00"),
        ("monday 13:00", "2026-11-16T13:00:00+01:00"),
        ("monday 12:00", "2026-11-23T12:00:00+01:00"),
        ("11:59", "2026-11-23T11:59:00+01:00"),
        ("12:01", "2026-11-22T12:01:00+01:00"),
        ("yesterday 17:30", "2026-11-22T17:30:00+01:00"),
        ("today", "2026-11-23T00:00:00+01:00"),
        ("tomorrow", "2026-11-24T00:00:00+01:00"),
        ("2026-10-25", "2026-10-25T00:00:00+02:00"),
        ("2026-12-01T09:00Z", "2026-12-01T09:00:00+00:00"),
    ],
)
def test_a_moment_of_the_past_as_people_write_it(text: str, expected: str) -> None:
    assert parse_past(text, NOW, BERLIN).isoformat() == expected


@pytest.mark.parametrize("text", ["", "ago", "soon", "in 2h", "monday ago", "11y", "9" * 5000, "٣ ago", "last week"])
def test_what_is_no_moment_of_the_past_says_so(text: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        parse_past(text, NOW, BERLIN)
    assert caught.value.hint and len(caught.value.message) < 160


@pytest.mark.parametrize(
    ("text", "now", "zone", "expected"),
    [
        ("2026-03-08T02:30", "2026-03-01T00:00+00:00", "America/New_York", "2026-03-08T03:00:00-04:00"),
        ("tomorrow 02:30", "2026-03-07T12:00-05:00", "America/New_York", "2026-03-08T03:00:00-04:00"),
        ("02:30", "2026-03-07T12:00-05:00", "America/New_York", "2026-03-08T03:00:00-04:00"),
        ("2026-11-01T01:30", "2026-03-01T00:00+00:00", "America/New_York", "2026-11-01T01:30:00-04:00"),
        # The first 01:30 of this day is over, and the second is not a new one.
        ("01:30", "2026-11-01T05:45+00:00", "America/New_York", "2026-11-02T01:30:00-05:00"),
        ("01:30", "2026-11-01T05:15+00:00", "America/New_York", "2026-11-01T01:30:00-04:00"),
        ("in 24h", "2026-03-07T12:00-05:00", "America/New_York", "2026-03-08T13:00:00-04:00"),
        ("in 1d", "2026-03-07T12:00-05:00", "America/New_York", "2026-03-08T13:00:00-04:00"),
        ("in 1h", "2026-11-01T05:30+00:00", "America/New_York", "2026-11-01T01:30:00-05:00"),
        ("2026-03-08", "2026-03-01T00:00+00:00", "America/Havana", "2026-03-08T01:00:00-04:00"),
        ("tomorrow 9:00", "2011-12-29T12:00-10:00", "Pacific/Apia", "2011-12-31T00:00:00+14:00"),
        # The day is that of the zone, not that of `now`'s offset.
        ("today 12:00", "2026-06-01T23:30+00:00", "Asia/Tokyo", "2026-06-02T12:00:00+09:00"),
    ],
)
def test_a_moment_near_a_change_of_the_clocks(text: str, now: str, zone: str, expected: str) -> None:
    assert parse_when(text, datetime.fromisoformat(now), zone_of(zone)).isoformat() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "soon",
        "in",
        "in a while",
        "in -5",
        "in 11 years",
        "2h",
        "17",
        "17:5",
        "24:00",
        "17:60",
        "23:59:60",
        "noon",
        "someday 09:00",
        "tomorrow 25:00",
        "tomorrow tomorrow",
        "tomorrow 9",
        "next monday 9:00",
        "2026-02-30",
        "2026-13-01T00:00",
        "2026-02-30T10:00+01:00",
        "2026-12-01T09:00+24:00",
        "2026-12-01T09:00+01:75",
        "2026-12-01T",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59-12:00",
        "1969-12-31",
        "20261201T0900",
        "2026-W49-1",
        "٢٠٢٦-١٢-٠١",
        "17:30\0",
        "9" * 100_000,
        "in " + "9" * 100_000,
        "a" * 100_000,
    ],
)
def test_what_is_no_moment_says_so(text: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        parse_when(text, NOW, BERLIN)
    assert caught.value.hint
    assert len(caught.value.message) < 160
    assert "\0" not in caught.value.message


@given(
    st.text()
    | st.from_regex(r"(in |today |mon )?\d{1,4}[-:]?\d{0,2}[-:]?\d{0,2}( ?[a-zT]{1,2})?(\d{2}:\d{2})?[+-]?\d{0,4}")
)
def test_any_text_is_a_moment_or_a_clear_refusal(text: str) -> None:
    for parse in (parse_duration, lambda words: parse_when(words, NOW, BERLIN)):
        try:
            result = parse(text)
        except SchedulerError as error:
            assert error.message and error.hint
        else:
            assert isinstance(result, int) or result.utcoffset() is not None


@given(st.integers(0, 3653 * 86400))
def test_a_duration_reads_back(seconds: int) -> None:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    assert parse_duration(f"{hours}h{minutes}m{rest}s") == parse_duration(str(seconds)) == seconds


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)), st.integers(0, 86400), st.sampled_from(["", "mon "]))
def test_a_time_is_the_next_such(now: datetime, second: int, day: str) -> None:
    now = now.replace(tzinfo=UTC)
    at = (datetime(2026, 1, 1) + timedelta(seconds=second)).time()
    moment = parse_when(f"{day}{at.isoformat()}", now, BERLIN)
    assert now < moment <= now + timedelta(days=8 if day else 2)
