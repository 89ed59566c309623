from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from importlib import resources
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from scheduler.core.zones import PROBE, UTC, in_zone, resolve, stretches, utc, zone_of
from scheduler.errors import SchedulerError


def changes_in_data(name: str) -> list[int]:
    """The seconds at which the tz data of the package tzdata may change the offset of a zone (RFC 8536, version 2)."""
    data = resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()

    def header(at: int) -> tuple[int, ...]:
        magic, _, *counts = struct.unpack(">4sc15x6l", data[at : at + 44])
        assert magic == b"TZif"
        return tuple(counts)

    isut, isstd, leap, times, types, chars = header(0)
    second = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut
    times = header(second)[3]
    return list(struct.unpack(f">{times}q", data[second + 44 : second + 44 + 8 * times]))


def test_no_zone_leaves_its_offset_and_returns_between_two_probes() -> None:
    epoch, shortest = datetime(1970, 1, 1, tzinfo=UTC), timedelta.max
    for name in resources.files("tzdata").joinpath("zones").read_text().split():
        zone = ZoneInfo(name)
        moments = [epoch + timedelta(seconds=t) for t in changes_in_data(name) if t > -2_208_988_800]  # since 1900
        pairs = [(m, m - timedelta(seconds=1)) for m in moments]
        real = [(m, in_zone(m, zone).utcoffset(), in_zone(b, zone).utcoffset()) for m, b in pairs]
        real = [(m, after, before) for m, after, before in real if after != before]
        for (first, _, before), (second, after, _) in pairwise(real):
            if before == after:
                shortest = min(shortest, second - first)
    # A week in Recife in 2000; other builds of the data also hold four days in Freetown in 1939.
    assert PROBE < shortest <= timedelta(days=7), shortest


@pytest.mark.parametrize(
    ("name", "since", "until", "expected"),
    [
        ("America/New_York", "2026-01-01", "2027-01-01", ["2026-03-08T07:00:00", "2026-11-01T06:00:00"]),
        ("Pacific/Apia", "2011-12-01", "2012-02-01", ["2011-12-30T10:00:00"]),
        ("America/Recife", "2000-10-01", "2000-11-01", ["2000-10-08T03:00:00", "2000-10-15T02:00:00"]),
        ("Africa/Monrovia", "1972-01-01", "1972-02-01", ["1972-01-07T00:44:30"]),
        ("Asia/Tokyo", "2026-01-01", "2036-01-01", []),
        ("UTC", "2026-01-01", "2036-01-01", []),
    ],
)
def test_stretches_end_where_the_offset_changes(name: str, since: str, until: str, expected: list[str]) -> None:
    begin, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (since, until))
    found = list(stretches(zone_of(name), begin, end))
    assert [stretch.start for stretch in found] == [begin, *(stretch.end for stretch in found[:-1])]
    assert found[-1].end == end
    changed = [b.start for a, b in pairwise(found) if a.offset != b.offset]
    assert [moment.replace(tzinfo=None).isoformat() for moment in changed] == expected


@pytest.mark.parametrize(
    ("name", "wall", "expected"),
    [
        ("America/New_York", "2026-07-01T12:00:00.123456", "2026-07-01T12:00:00.123456-04:00"),
        ("America/New_York", "2026-03-08T01:59:59.999999", "2026-03-08T01:59:59.999999-05:00"),
        ("America/New_York", "2026-03-08T02:00", "2026-03-08T03:00:00-04:00"),
        ("America/New_York", "2026-03-08T02:59:59.5", "2026-03-08T03:00:00-04:00"),
        ("America/New_York", "2026-03-08T03:00", "2026-03-08T03:00:00-04:00"),
        ("America/New_York", "2026-11-01T01:30", "2026-11-01T01:30:00-04:00"),
        ("Europe/Dublin", "2026-10-25T01:30", "2026-10-25T01:30:00+01:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:10", "2026-10-04T02:30:00+11:00"),
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-31T00:00:00+14:00"),
        ("America/Havana", "2026-03-08T00:00", "2026-03-08T01:00:00-04:00"),
        ("Africa/Monrovia", "1972-01-07T00:30", "1972-01-07T00:44:30+00:00"),
        ("UTC", "2026-03-08T02:30", "2026-03-08T02:30:00+00:00"),
    ],
)
def test_a_wall_clock_time_is_its_first_moment_or_the_end_of_the_gap(name: str, wall: str, expected: str) -> None:
    naive = datetime.strptime(wall, "%Y-%m-%dT%H:%M" + (":%S.%f" if len(wall) > 16 else ""))
    assert resolve(naive, zone_of(name)).isoformat() == expected


def test_moments_leave_without_a_zone_so_that_two_passes_of_a_fold_differ() -> None:
    zone = zone_of("America/New_York")
    passes = [in_zone(datetime(2026, 11, 1, hour, 30, tzinfo=UTC), zone) for hour in (5, 6)]
    assert [moment.isoformat() for moment in passes] == ["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00"]
    assert passes[0] < passes[1]
    assert passes[1] - passes[0] == timedelta(hours=1)
    assert {type(moment.tzinfo) for moment in passes} == {timezone}


@pytest.mark.parametrize("name", [None, "UTC"])
def test_utc_needs_no_data(name: str | None) -> None:
    """C11."""
    assert zone_of(name) is timezone.utc


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berln", "Did you mean Europe/Berlin?"),
        ("europe/berlin", "Did you mean Europe/Berlin?"),
        ("Mars/X", "Use an IANA name such as Europe/Berlin, or UTC."),
        ("", "Use an IANA name such as Europe/Berlin, or UTC."),
        ("Europe", None),
        ("../../etc/passwd", None),
        ("/etc/localtime", None),
        ("Europe/Berlin\0", None),
        ("Zürich", None),
        ("x" * 100_000, None),
        ("\ud800", None),
    ],
)
def test_an_unknown_zone_is_named_with_the_nearest_known(name: str, hint: str | None) -> None:
    """C10."""
    with pytest.raises(SchedulerError) as caught:
        zone_of(name)
    assert caught.value.message.startswith("unknown time zone '")
    assert len(caught.value.message) < 120
    assert hint in (None, caught.value.hint)


def test_without_zone_data_the_hint_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """C11."""
    monkeypatch.setattr("scheduler.core.zones.available_timezones", set)
    with pytest.raises(SchedulerError) as caught:
        zone_of("Mars/X")
    assert "tzdata" in caught.value.hint


def test_a_naive_time_is_no_moment() -> None:
    with pytest.raises(ValueError, match="needs an offset"):
        utc(datetime(2026, 1, 1))
