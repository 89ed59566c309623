"""Cron expressions: what is accepted, and on which days and at which times of day one fires.

croniter reads the fields. It also reads what no crontab means (`5-5` is every value to it, `1#1,1` loses the plain 1,
`21-5/2` runs on the wrong hours, `R` is random), so the shape of each field is settled here first.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import product
from typing import NamedTuple, TypeVar

from croniter import croniter

from scheduler.errors import SchedulerError

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Every field as a full list is shorter than this.
LONGEST = 1000

LAST = -1
_Set = TypeVar("_Set", frozenset[int], frozenset[tuple[int, int]])


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Field("day-of-week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_LENGTHS = {2: (28, 29), 4: (30,), 6: (30,), 9: (30,), 11: (30,)}
_DAY_OF_MONTH, _DAY_OF_WEEK = _FIELDS[2], _FIELDS[4]
# `*` alone is the whole field: in a list it would make the rest pointless, so it takes a step here.
_ITEM = re.compile(r"(?:\*(?=/)|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d{1,2}))?", re.ASCII)
_NTH = re.compile(r"(?P<day>\w+)#(?P<nth>[1-5])", re.ASCII)
_LAST_DAY = re.compile(r"(?P<before>\d|[a-z]{3})l|l(?P<after>\d|[a-z]{3})", re.ASCII)


@dataclass(frozen=True, eq=False)
class Cron:
    """A read expression.

    fixed      neither the minute nor the hour holds `*` or a step: the expression names times of day. Anything else is
               a rhythm that follows the clock on the wall. (Decides what happens where clocks change.)
    times      seconds of the day, ascending
    months     1-12
    dates      days of the month; -1 is the last
    weekdays   (0 = Sunday … 6, which one in the month: 1-5, -1 the last, 0 every one)
    both       a day must match both `dates` and `weekdays`; else one of them is enough
    """

    fixed: bool
    times: tuple[int, ...]
    months: frozenset[int]
    dates: frozenset[int]
    weekdays: frozenset[tuple[int, int]]
    both: bool

    def on(self, day: date) -> bool:
        """Does the expression fire on this calendar day?"""
        if day.month not in self.months:
            return False
        return day.day in _days(self.dates, self.weekdays, self.both, *monthrange(day.year, day.month))

    def ever(self) -> bool:
        """Is there any day on which it fires?"""
        return _ever(self.months, self.dates, self.weekdays, self.both)


@lru_cache(maxsize=1024)
def _one(values: _Set) -> _Set:
    """One object for all equal sets: thousands of expressions name the same days, and a set of days takes 2 KB."""
    return values


@lru_cache(maxsize=1024)
def _ever(months: frozenset[int], dates: frozenset[int], weekdays: frozenset[tuple[int, int]], both: bool) -> bool:
    """Within 400 years a month begins on every weekday, at each length."""
    lengths = {length for month in months for length in _LENGTHS.get(month, (31,))}
    return any(_days(dates, weekdays, both, first, length) for first, length in product(range(7), lengths))


@lru_cache(maxsize=1024)
def _days(
    dates: frozenset[int], weekdays: frozenset[tuple[int, int]], both: bool, first: int, length: int
) -> frozenset[int]:
    """The matching days of a month of `length` days that begins on the weekday `first` (0 = Monday)."""
    by_date = {length if date == LAST else date for date in dates if date <= length}
    by_weekday: set[int] = set()
    for weekday, nth in weekdays:
        of_month = range(1 + (weekday - 1 - first) % 7, length + 1, 7)
        by_weekday.update(of_month if nth == 0 else of_month[-1:] if nth == LAST else of_month[nth - 1 : nth])
    return frozenset(by_date & by_weekday if both else by_date | by_weekday)


def check_cron(expression: str) -> None:
    """SchedulerError unless `expression` is five fields or an alias, as `parse` reads them, and some day matches."""
    if not parse(expression).ever():
        raise SchedulerError(
            f"cron expression {expression!r:.80} never fires",
            "None of its months has such a day: change the day or the month.",
        )


@lru_cache(maxsize=4096)
def parse(expression: str) -> Cron:
    """Read five fields or an alias; SchedulerError says what is wrong with which. It may still never fire.

    Numbers, names, lists, ranges (also over the end: `22-2`, `FRI-MON`), steps (`*/5`, `10-40/5`, `10/5` from 10 on),
    `L` for the last day of the month, `5L` or `L5` for the last Friday, `5#2` for the second. Two restricted day
    fields mean either; a day field that begins with `*` (also `*/2`) counts as unrestricted and then both must match.
    """
    if len(expression) > LONGEST:
        raise SchedulerError(f"cron expression of {len(expression)} characters", f"Write at most {LONGEST}.")
    text = expression.strip(" \t").lower()
    if text.startswith("@") and text not in ALIASES:
        raise SchedulerError(f"cron expression: no alias {expression!r:.80}", f"There are {', '.join(ALIASES)}.")
    fields = re.split(r"[ \t]+", ALIASES.get(text, text))
    if len(fields) != len(_FIELDS):
        raise SchedulerError(
            f"cron expression {expression!r:.80} has {len(fields) if text else 0} fields instead of 5",
            "Write minute, hour, day of month, month, day of week; seconds and years are not supported.",
        )
    expanded, nth = croniter.expand(" ".join(map(_field, _FIELDS, fields)))
    minutes, hours, dates, months, weekdays = map(_values, _FIELDS, expanded)
    nths = {_number(day): {_number(n) for n in which} for day, which in nth.items()}
    return Cron(
        fixed=not re.search(r"[*/]", fields[0] + fields[1]),
        times=tuple(sorted(hour * 3600 + minute * 60 for hour, minute in product(hours, minutes))),
        months=_one(months),
        dates=_one(dates),
        weekdays=_one(frozenset((day % 7, n) for day in weekdays for n in nths.get(day, {0}))),
        both=fields[2].startswith("*") or fields[4].startswith("*"),
    )


def _values(field: _Field, expanded: Sequence[object]) -> frozenset[int]:
    return frozenset(range(field.low, field.high + 1) if "*" in expanded else map(_number, expanded))


def _number(value: object) -> int:
    return LAST if value == "l" else int(str(value))


def _field(field: _Field, text: str) -> str:
    """A field in the form that croniter reads rightly: numbers for names, no range from a value to itself."""
    if text == "*":
        return text
    items = [_item(field, item) for item in text.split(",")]
    if field is _DAY_OF_WEEK and len({"#" in item or "l" in item for item in items}) > 1:
        raise _wrong(field, text, "mixes plain days with # or L")
    return ",".join(items)


def _item(field: _Field, item: str) -> str:
    if field is _DAY_OF_MONTH and item == "l":
        return item
    if field is _DAY_OF_WEEK and (match := _NTH.fullmatch(item)):
        return f"{_value(field, item, match['day']) % 7}#{match['nth']}"
    if field is _DAY_OF_WEEK and (match := _LAST_DAY.fullmatch(item)):
        return f"l{_value(field, item, match['before'] or match['after']) % 7}"
    match = _ITEM.fullmatch(item)
    if not match:
        raise _wrong(field, item, "is not understood")
    step = int(match["step"] or 1)
    if not 1 <= step <= field.high:
        raise _wrong(field, item, f"has a step outside 1-{field.high}")
    if match["low"] is None:
        return item
    low = _value(field, item, match["low"])
    if match["high"] is None:
        # croniter would take the day of week 7/2 for 0/2.
        return f"{low}/{step}" if match["step"] and low + step <= field.high else str(low)
    return _range(field, item, low, _value(field, item, match["high"]), step)


def _range(field: _Field, item: str, low: int, high: int, step: int) -> str:
    if field is _DAY_OF_WEEK and high == 0 < low:
        high = 7
    if low == high:
        return str(low)
    if field is _DAY_OF_WEEK and low == 7:
        low = 0
    if low > high and step > 1:
        raise _wrong(field, item, "steps over the end of the field: write two ranges")
    return f"{low}-{high}/{step}"


def _value(field: _Field, item: str, text: str) -> int:
    if text in field.words:
        return field.low + field.words.index(text)
    if not re.fullmatch(r"[0-9]{1,2}", text):
        raise _wrong(field, item, "is not understood")
    if not field.low <= int(text) <= field.high:
        raise _wrong(field, item, f"is outside {field.low}-{field.high}")
    return int(text)


def _wrong(field: _Field, item: str, why: str) -> SchedulerError:
    words = f" or {field.words[0].upper()}-{field.words[-1].upper()}" if field.words else ""
    special = {_DAY_OF_MONTH: ", L for the last day", _DAY_OF_WEEK: ", 5L for the last Friday, 5#2 for the second"}
    return SchedulerError(
        f"cron expression: {field.name} {item!r:.80} {why}",
        f"Use * or {field.low}-{field.high}{words}, lists, ranges, steps such as */2{special.get(field, '')}.",
    )
