"""Lengths of time and moments as people write them."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone, tzinfo

from scheduler.core.zones import UTC, in_zone, resolve, utc
from scheduler.errors import SchedulerError

# Ten years: whoever means longer has mistyped.
LONGEST = 3653 * 86400

_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(
    r"(?:(?P<w>\d{1,9}) ?(?:w|weeks?) ?)?(?:(?P<d>\d{1,9}) ?(?:d|days?) ?)?(?:(?P<h>\d{1,9}) ?(?:h|hrs?|hours?) ?)?"
    r"(?:(?P<m>\d{1,9}) ?(?:m|mins?|minutes?) ?)?(?:(?P<s>\d{1,9}) ?(?:s|secs?|seconds?))?",
    re.ASCII,
)
_DURATION_HINT = 'Write seconds, or text such as "90s", "30m", "2h30m", "1d", "1w"; ten years at most.'

_TIME = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6})\d*)?)?"
_DATE = r"(?P<date>\d{4}-\d{2}-\d{2})"
_ISO = re.compile(rf"{_DATE}(?:[t ]{_TIME} ?(?P<offset>z|[+-]\d{{2}}(?::?\d{{2}})?)?)?", re.ASCII)
_NAMED = re.compile(rf"(?:(?P<day>(?!at )[a-z]+)(?: |\Z))?(?:(?:at )?{_TIME})?", re.ASCII)
_NEAR = {"yesterday": -1, "today": 0, "tomorrow": 1}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_HINTS = {
    1: 'Write "2026-12-01T09:00", "in 2h", "17:30", "tomorrow 09:00", "monday 9:00", …',
    -1: 'Write "2026-12-01T09:00", "7d", "2h ago", "17:30", "yesterday 09:00", "monday", …',
}


def from_iso(text: str) -> datetime:
    """A moment as files write it: ISO 8601 with offset, or with Z. ValueError for anything else."""
    moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    if moment.tzinfo is None:
        raise ValueError("a moment without an offset")
    return moment


def parse_duration(text: str | int | float) -> int:
    """Seconds, of a number of seconds or of text such as "1800", "90s", "2h30m", "1 day", "1w".

    Units go from the longest to the shortest, each once. Zero is a duration. SchedulerError for anything else, for
    what is negative, not whole, or longer than ten years.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise _bad_duration(text, "is not a duration")
    seconds = _duration_of(text) if isinstance(text, str) else text
    if isinstance(seconds, float) and not seconds.is_integer():
        raise _bad_duration(text, "is not a whole number of seconds")
    if seconds < 0:
        raise _bad_duration(text, "is negative")
    if seconds > LONGEST:
        raise _bad_duration(text, "is longer than ten years")
    return int(seconds)


def _duration_of(text: str) -> int:
    plain = " ".join(text[:100].lower().split())
    if re.fullmatch(r"-?[0-9]{1,12}", plain):
        return int(plain)
    match = _DURATION.fullmatch(plain)
    if not match or not any(match.groups()):
        raise _bad_duration(text, "is not a duration")
    return sum(int(match[unit] or 0) * seconds for unit, seconds in _SECONDS.items())


def _bad_duration(value: object, why: str) -> SchedulerError:
    # Python refuses to print an integer of thousands of digits.
    shown = "the number" if isinstance(value, int) and abs(value) > 10**12 else f"{value!r:.80}"
    return SchedulerError(f"{shown} {why}", _DURATION_HINT)


def parse_when(text: str, now: datetime, zone: tzinfo) -> datetime:
    """The moment that a person means who says `text` at `now` in `zone`; with the offset that holds then.

    * ISO 8601: a day, or a day and a time, with an offset or else in `zone`;
    * `in` and a duration, by the clock that measures (`in 1d` is 24 hours); rounded up to a whole second;
    * a time (`17:30`): the next such; with `today`, `tomorrow` or a weekday before it: on that day, where a weekday is
      the next one at whose time it is still later than `now`. A day alone is its first moment.

    A wall-clock time that is skipped moves to the first moment after the gap; one that comes twice is the first. The
    answer may lie in the past when a day was named. SchedulerError when the text says none of this.
    """
    words = _words(text)
    if words.startswith("in "):
        moment = utc(now) + timedelta(seconds=parse_duration(words[3:]), microseconds=999_999)
        return in_zone(moment.replace(microsecond=0), zone)
    return _moment(text, now, zone, 1)


def parse_past(text: str, now: datetime, zone: tzinfo) -> datetime:
    """The moment that a person means who asks for what was since `text`, or until then; as `parse_when`, but:

    * a duration (`7d`, `2h ago`) is so long ago, by the clock that measures;
    * a time (`17:30`), and a weekday with a time or alone: the latest such; a day may be `yesterday`.
    """
    words = _words(text)
    back = words.removesuffix(" ago")
    if back != words or _DURATION.fullmatch(back) or back.isdigit():
        return in_zone(utc(now) - timedelta(seconds=parse_duration(back)), zone)
    return _moment(text, now, zone, -1)


def _words(text: str) -> str:
    return " ".join(text[:100].lower().split())


def _moment(text: str, now: datetime, zone: tzinfo, step: int) -> datetime:
    """A day, a time or both; of those that it can mean the nearest that comes (step 1), or that was (step -1)."""
    words = _words(text)
    try:
        if match := _ISO.fullmatch(words):
            return _iso(match, zone)
        if words and (match := _NAMED.fullmatch(words)):
            days = _days(match["day"], in_zone(utc(now), zone).date(), step)
            moments = [resolve(datetime.combine(day, _time(match)), zone) for day in days]
            return next((moment for moment in moments if (moment > utc(now)) == (step > 0)), moments[-1])
    except ValueError as error:
        raise SchedulerError(f"{text!r:.80} is no moment: {error}", _HINTS[step]) from None
    raise SchedulerError(f"{text!r:.80} is no moment", _HINTS[step])


def _iso(match: re.Match[str], zone: tzinfo) -> datetime:
    day = date.fromisoformat(match["date"])
    if not 1970 <= day.year < 9000:
        raise ValueError(f"the year {day.year} is out of reach")
    wall, offset = datetime.combine(day, _time(match)), match["offset"]
    if offset is None:
        return resolve(wall, zone)
    if offset == "z":
        return wall.replace(tzinfo=UTC)
    hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(f"there is no offset {offset}")
    ahead = timedelta(hours=hours, minutes=minutes)
    return wall.replace(tzinfo=timezone(-ahead if offset[0] == "-" else ahead))


def _days(name: str | None, today: date, step: int) -> list[date]:
    """The days that a name can mean, the nearest first, as `step` counts them; no name is any day."""
    if name is None:
        return [today, today + timedelta(days=step)]
    if name in _NEAR:
        return [today + timedelta(days=_NEAR[name])]
    for number, weekday in enumerate(_DAYS):
        if name in (weekday, weekday[:3]):
            nearest = today + timedelta(days=(number - today.weekday()) * step % 7 * step)
            return [nearest, nearest + timedelta(days=7 * step)]
    raise ValueError(f"there is no day {name!r:.20}")


def _time(match: re.Match[str]) -> time:
    fraction = (match["fraction"] or "").ljust(6, "0")
    return time(int(match["hour"] or 0), int(match["minute"] or 0), int(match["second"] or 0), int(fraction))
