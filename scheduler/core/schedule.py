"""When a task fires: the occurrences of its trigger, and which of them a runner has to run now.

Where clocks change, a cron expression that names times of day (`Cron.fixed`) fires once for each: in a gap at the
first moment after it, all times of one gap together; in a fold the first time. One that is a rhythm (`*` or a step in
the minute or the hour) follows the clock on the wall: nothing in a gap, both passes of a fold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone, tzinfo
from typing import Literal, NamedTuple, Protocol

from scheduler.core.cron import Cron, parse
from scheduler.core.cron import check_cron as check_cron  # for those who know triggers, not fields
from scheduler.core.zones import REACH, UTC, in_zone, stretches, utc, zone_of
from scheduler.errors import SchedulerError

# In seconds: a runner that looks once a minute, and a little late, loses no slot of an every-minute task.
GRACE = 90.0
# Times beyond these are cut off: near the ends of the calendar the arithmetic of offsets overflows.
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(9900, 1, 1, tzinfo=UTC)
_SECOND, _TICK = timedelta(seconds=1), timedelta(microseconds=1)


class CronLike(Protocol):
    @property
    def type(self) -> Literal["cron"]: ...
    @property
    def expression(self) -> str: ...
    @property
    def timezone(self) -> str | None: ...


class OnceLike(Protocol):
    @property
    def type(self) -> Literal["once"]: ...
    @property
    def at(self) -> datetime: ...


class IntervalLike(Protocol):
    @property
    def type(self) -> Literal["interval"]: ...
    @property
    def every(self) -> int: ...
    @property
    def from_(self) -> datetime | None: ...


Trigger = CronLike | OnceLike | IntervalLike


def occurrences(trigger: Trigger, since: datetime, until: datetime, *, added_at: datetime) -> Iterator[datetime]:
    """The moments t at which `trigger` fires, since < t <= until and added_at < t, ascending and each once.

    Those of a cron trigger carry the offset of its zone at that moment, those of an interval are in UTC, that of a
    once trigger is as given; none carries a zone, so they compare and subtract as moments. An interval counts from
    `from_`, itself included, or from `added_at`. Lazy: an endless `until` costs nothing. SchedulerError, at once, for
    an expression or zone that is not valid.
    """
    return _moments(_blocks(trigger, since, until, added_at))


def next_occurrence(trigger: Trigger, after: datetime, *, added_at: datetime) -> datetime | None:
    """The first occurrence after `after` (and after `added_at`), or None when there is none."""
    return next(occurrences(trigger, after, _LAST, added_at=added_at), None)


def passed(trigger: Trigger, since: datetime, until: datetime, *, added_at: datetime) -> Skipped | None:
    """All occurrences with since < t <= until and added_at < t, as a counted span; None where there are none."""
    found = list(_blocks(trigger, since, until, added_at))
    return _span(found) if found else None


@dataclass(frozen=True)
class Firing:
    """An occurrence to run now; a catch-up is one whose time was missed."""

    at: datetime
    catch_up: bool


@dataclass(frozen=True)
class Skipped:
    """Occurrences that are not run, from `first` to `last`: one record tells of all `count`."""

    first: datetime
    last: datetime
    count: int


@dataclass(frozen=True)
class Due:
    """What to do about one task now.

    fire           to run, ascending
    skipped        missed within the window, and not run
    older_span     (from, to), where to is the begin of the window: something was missed there, and is not counted
    handled_until  the new mark: everything up to it is decided
    """

    fire: tuple[Firing, ...]
    skipped: Skipped | None
    older_span: tuple[datetime, datetime] | None
    handled_until: datetime


def collect_due(
    trigger: Trigger,
    *,
    missed: Literal["skip", "latest", "all"],
    missed_within: int,
    handled_until: datetime,
    now: datetime,
    added_at: datetime,
    grace: float = GRACE,
) -> Due:
    """Decide about all occurrences after `handled_until` (and after `added_at`) up to `now`.

    What is at most `grace` seconds old is on time and fires; after an absence longer than that only the newest of it.
    What is older was missed. Of that, `missed_within` seconds back from `now` are the window: `skip` runs nothing of
    it, `all` everything, `latest` its latest occurrence unless one fires on time, which then stands for it. A clock
    that went back fires nothing and leaves the mark. For the time while a task was disabled nothing is due: move the
    mark to the moment when it was enabled again.
    """
    begin, end = max(utc(handled_until), utc(added_at)), utc(now)
    if end <= begin:
        return Due((), None, None, handled_until)
    # `before` and `late` are the last moments of the time before the window and of the window.
    before, late = (max(begin, end - timedelta(seconds=age) - _TICK) for age in (max(missed_within, grace), grace))
    on_time = list(occurrences(trigger, late, end, added_at=added_at))
    if on_time and end - begin > timedelta(seconds=grace):
        on_time = on_time[-1:]
        late = utc(on_time[0]) - _TICK

    fire = [Firing(at, catch_up=False) for at in on_time]
    window = list(_blocks(trigger, before, late, added_at))
    if missed == "all":
        fire = [Firing(at, catch_up=True) for at in _moments(window)] + fire
        window = []
    elif missed == "latest" and window and not fire:
        latest = window[-1].at(-1)
        fire = [Firing(latest, catch_up=True)]
        window = list(_blocks(trigger, before, utc(latest) - _TICK, added_at))
    older = next(occurrences(trigger, begin, before, added_at=added_at), None)
    return Due(
        fire=tuple(fire),
        skipped=_span(window) if window else None,
        older_span=(begin, before + _TICK) if older else None,
        handled_until=now,
    )


class _Block(NamedTuple):
    """Some occurrences in a row, never none: `seconds` after `start`, ascending. Counted without being walked."""

    start: datetime
    seconds: Sequence[int]

    def at(self, index: int) -> datetime:
        return self.start + timedelta(seconds=self.seconds[index])


def _span(blocks: Sequence[_Block]) -> Skipped:
    return Skipped(blocks[0].at(0), blocks[-1].at(-1), sum(len(block.seconds) for block in blocks))


def _moments(blocks: Iterable[_Block]) -> Iterator[datetime]:
    return (block.start + timedelta(seconds=second) for block in blocks for second in block.seconds)


def _blocks(trigger: Trigger, since: datetime, until: datetime, added_at: datetime) -> Iterator[_Block]:
    """The occurrences in (since, until] and after `added_at`."""
    since, until = max(utc(since), utc(added_at), _FIRST), min(utc(until), _LAST)
    if trigger.type == "cron":
        return _cron_blocks(parse(trigger.expression), zone_of(trigger.timezone), since, until)
    if trigger.type == "once":
        at = in_zone(utc(trigger.at), trigger.at.tzinfo or UTC)
        return iter([_Block(at, (0,))] if since < at <= until else [])
    start = utc(trigger.from_ or added_at)
    if trigger.every < 1:
        raise SchedulerError(f"an interval of {trigger.every} seconds never ends", "Use at least one second.")
    every = timedelta(seconds=trigger.every)
    first, last = max((since - start) // every + 1, 0), (until - start) // every
    seconds = range(first * trigger.every, last * trigger.every + 1, trigger.every)
    return iter([_Block(start, seconds)] if seconds else [])


def _cron_blocks(cron: Cron, zone: tzinfo, since: datetime, until: datetime) -> Iterator[_Block]:
    if not cron.ever() or until <= since:
        return
    begin, end = (moment.replace(microsecond=0) + _SECOND for moment in (since, until))
    # Where the stretch before ended on the clocks. A gap begins there; what is before it has been shown already.
    shown = None
    for start, stop, offset in stretches(zone, begin - REACH, end):
        low, high = start.replace(tzinfo=None) + offset, stop.replace(tzinfo=None) + offset
        if cron.fixed and shown:
            if shown < low and start >= begin and any(_wall_blocks(cron, shown, low, offset)):
                yield _Block(low.replace(tzinfo=timezone(offset)), (0,))
                low += _SECOND
            low = max(low, shown)
        shown = high
        yield from _wall_blocks(cron, max(low, begin.replace(tzinfo=None) + offset), high, offset)


def _wall_blocks(cron: Cron, low: datetime, high: datetime, offset: timedelta) -> Iterator[_Block]:
    """What fires while clocks at `offset` show `low` to before `high`."""
    zone = timezone(offset)
    for days in range((high.date() - low.date()).days + 1):
        day = low.date() + timedelta(days=days)
        if cron.on(day):
            midnight = datetime.combine(day, time())
            first, last = (bisect_left(cron.times, (wall - midnight).total_seconds()) for wall in (low, high))
            if first < last:
                yield _Block(midnight.replace(tzinfo=zone), cron.times[first:last])
