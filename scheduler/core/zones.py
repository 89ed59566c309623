"""Wall clocks and the time line: which moment a wall-clock time is, and when the offset of a zone changes.

Everything goes through UTC. Arithmetic on aware datetimes of a zone follows the wall clock: it names times that no
clock shows, and two passes of a fold compare equal. So moments leave this package in UTC or with the plain offset that
held at that moment, never with a zone attached: those compare, subtract and hash as moments. A zone of None is the
system's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from scheduler.errors import SchedulerError

UTC = timezone.utc

# No zone of the tz database goes to another offset and back within less (3.99 days, Freetown 1939), so probing in such
# steps finds every change. A test holds the data against it.
PROBE = timedelta(days=3)
# Longer than any clock was ever put back or forward, and than any offset.
REACH = timedelta(days=2)


class Stretch(NamedTuple):
    """A part of the time line, from `start` to before `end` (UTC), during which a zone keeps one offset."""

    start: datetime
    end: datetime
    offset: timedelta


def zone_of(name: str | None) -> tzinfo:
    """The zone of an IANA name; none means UTC, which needs no data. SchedulerError when there is no such zone."""
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise SchedulerError(f"unknown time zone {name!r:.80}", _zone_hint(str(name))) from None


def _zone_hint(name: str) -> str:
    known = {zone.lower(): zone for zone in available_timezones()}
    if not known:
        return "No time zone data was found: install the tzdata package, or use UTC."
    near = difflib.get_close_matches(name.lower()[:80], known, n=1)
    if near:
        return f"Did you mean {known[near[0]]}?"
    return "Use an IANA name such as Europe/Berlin, or UTC."


def utc(moment: datetime) -> datetime:
    """The same moment in UTC; ValueError for a naive datetime, which is no moment."""
    if moment.utcoffset() is None:
        raise ValueError(f"a moment needs an offset: {moment!r}")
    return moment.astimezone(UTC)


def in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    """The same moment with the offset that `zone` has then."""
    return moment.astimezone(timezone(_offset(zone, moment)))


def stretches(zone: tzinfo | None, since: datetime, until: datetime) -> Iterator[Stretch]:
    """Cut [since, until) (UTC, whole seconds) where the offset of `zone` changes, and at least every few days."""
    start, offset = since, _offset(zone, since)
    while start < until:
        end = min(start + PROBE, until)
        after = _offset(zone, end)
        if after != offset:
            end = _change(zone, start, end, offset)
            after = _offset(zone, end)
        yield Stretch(start, end, offset)
        start, offset = end, after


def resolve(wall: datetime, zone: tzinfo | None) -> datetime:
    """The moment at which the clocks of `zone` show the naive time `wall`, with the offset that holds then.

    In a fold that is the first pass; in a gap, where no clock shows it, the first moment after the gap.
    """
    around = wall.replace(microsecond=0, tzinfo=UTC)
    for start, end, offset in stretches(zone, around - REACH, around + REACH):
        first = start.replace(tzinfo=None) + offset
        if wall < first:
            return in_zone(start, zone)
        if wall < end.replace(tzinfo=None) + offset:
            return wall.replace(tzinfo=timezone(offset))
    raise ValueError(f"no clock reaches {wall} within {REACH}")


def _offset(zone: tzinfo | None, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    if offset is None:
        raise ValueError(f"a time zone without an offset: {zone!r}")
    return offset


def _change(zone: tzinfo | None, start: datetime, end: datetime, offset: timedelta) -> datetime:
    """The first second in (start, end] at which `offset`, that of `start`, no longer holds."""
    same, changed = 0, int((end - start).total_seconds())
    while changed - same > 1:
        middle = (same + changed) // 2
        if _offset(zone, start + timedelta(seconds=middle)) == offset:
            same = middle
        else:
            changed = middle
    return start + timedelta(seconds=changed)
