"""Numbers over many runs. Pure: the runs and the time are arguments.

What is counted: each run once, as its last record says. `runs` is all of them, by status in `statuses` (each that there
is, 0 too). A run has an outcome if it is a success, a failure or a timeout; skipped and running ones have none.
`successRate` is the share of successes among those with an outcome; `duration` (milliseconds) is over those of them
that tell one: average, median, and `p95`, the smallest duration that 95 % of them do not pass. `costUsd` and `turns`
are sums over all runs that tell them. `failures24h` are failures and timeouts that began in the 24 hours before now.
`streak` is how many of the latest runs with an outcome, by their start, were all successes, or all not. `longestGap` is
the longest time between the starts of two runs that follow one another; what was skipped did not start. The same in jq
is in docs/history.md.
"""

from __future__ import annotations

from array import array
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import takewhile
from math import fsum
from operator import sub
from typing import Any, NamedTuple

from scheduler.core.models import iso
from scheduler.core.query import Kind, Run, began, number
from scheduler.core.record import Status

GOOD = "success"
BAD = ("failure", "timeout")
OUTCOMES = (GOOD, *BAD)
RECENT = timedelta(hours=24)
_NONE = dict.fromkeys(map(str, Status), 0)


class Fact(NamedTuple):
    """What counts of a run. `began`: milliseconds since 1970."""

    began: int
    status: str
    duration: float | None
    cost: float | None
    turns: float | None


def fact(run: Run) -> Fact:
    """What counts of a record."""
    return Fact(
        began(run["startedAt"]), run["status"], number(run, "duration"), number(run, "costUsd"), number(run, "turns")
    )


class Counted(NamedTuple):
    """A run that was chosen. `day`: as `core.query.day` reads it."""

    kind: Kind
    day: int
    fact: Fact


class Gap(NamedTuple):
    """The time between two starts, in milliseconds since 1970."""

    begin: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Totals:
    """What is known of many runs without them. `durations` are sorted; `first` and `last` are starts."""

    statuses: dict[str, int]
    cost: float
    turns: float
    durations: array[float]
    first: int | None
    last: int | None
    gap: Gap | None

    @classmethod
    def of(cls, facts: Iterable[Fact]) -> Totals:
        """The totals of runs in any order."""
        found = list(facts)
        starts = sorted(_starts(found))
        gaps = list(map(sub, starts[1:], starts))
        longest = gaps.index(max(gaps)) if gaps else 0
        return cls(
            dict(Counter(one.status for one in found)),
            fsum(_known(one.cost for one in found)),
            fsum(_known(one.turns for one in found)),
            array("d", sorted(_durations(found))),
            starts[0] if starts else None,
            starts[-1] if starts else None,
            Gap(starts[longest], starts[longest + 1]) if gaps and gaps[longest] else None,
        )

    def plus(self, facts: Sequence[Fact]) -> Totals | None:
        """These and a few more runs. None where one lies in the longest gap: then only all the runs tell the next."""
        durations = self.durations[:]
        for value in _durations(facts):
            insort(durations, value)
        first, last, gap = self.first, self.last, self.gap
        for start in sorted(_starts(facts)):
            if first is None or last is None:
                first = last = start
            elif start > last:
                gap, last = max(gap or Gap(last, start), Gap(last, start), key=lambda one: one.length), start
            elif start < first:
                gap, first = max(Gap(start, first), gap or Gap(start, first), key=lambda one: one.length), start
            elif gap is not None and gap.begin < start < gap.end:
                return None
        return Totals(
            dict(Counter(self.statuses) + Counter(one.status for one in facts)),
            fsum([self.cost, *_known(one.cost for one in facts)]),
            fsum([self.turns, *_known(one.turns for one in facts)]),
            durations,
            first,
            last,
            gap,
        )


def _starts(facts: Iterable[Fact]) -> Iterator[int]:
    return (one.began for one in facts if one.status != "skipped" and one.began)


def _durations(facts: Iterable[Fact]) -> Iterator[float]:
    return _known(one.duration for one in facts if one.status in OUTCOMES)


def _known(values: Iterable[float | None]) -> Iterator[float]:
    return (value for value in values if value is not None)


class Streak(NamedTuple):
    """The latest runs that ended alike."""

    good: bool
    runs: int


def streak(facts: Iterable[Fact]) -> Streak | None:
    """The streak of runs in the order of their last records; None where none has an outcome."""
    ended = [(one.began, place, one.status == GOOD) for place, one in enumerate(facts) if one.status in OUTCOMES]
    ended.sort(reverse=True)
    alike = list(takewhile(lambda one: one[2] == ended[0][2], ended))
    return Streak(alike[0][2], len(alike)) if alike else None


def failures(facts: Iterable[Fact], now: datetime) -> int:
    """How many failures and timeouts began in the 24 hours before now."""
    since = int((now - RECENT).timestamp() * 1000)
    return sum(one.status in BAD and one.began >= since for one in facts)


def summary(totals: Totals, streak: Streak | None, failures24h: int) -> dict[str, Any]:
    """The numbers as JSON."""
    ended = sum(totals.statuses.get(status, 0) for status in OUTCOMES)
    gap = totals.gap
    return {
        "runs": sum(totals.statuses.values()),
        "statuses": {**_NONE, **dict(sorted(totals.statuses.items()))},
        "successRate": round(totals.statuses.get(GOOD, 0) / ended, 4) if ended else None,
        "duration": _spread(totals.durations),
        "costUsd": round(totals.cost, 6),
        "turns": _plain(totals.turns),
        "failures24h": failures24h,
        "streak": None if streak is None else {"success": streak.good, "runs": streak.runs},
        "longestGap": gap and {"from": _moment(gap.begin), "to": _moment(gap.end), "milliseconds": gap.length},
    }


def of(facts: Iterable[Fact], now: datetime) -> dict[str, Any]:
    """The numbers over runs that are at hand, in the order of their last records."""
    found = list(facts)
    return summary(Totals.of(found), streak(found), failures(found, now))


BY = ("task", "project", "day", "reason")


def divided(runs: Iterable[Counted], by: str, now: datetime) -> list[dict[str, Any]]:
    """The numbers of each task, project, day or reason, in its order; what has none comes first, as null."""
    groups: dict[str, list[Fact]] = {}
    for kind, day, one in runs:
        key = _date(day) if by == "day" else getattr(kind, by)
        groups.setdefault(key or "", []).append(one)
    return [{by: key or None, **of(groups[key], now)} for key in sorted(groups)]


def _date(day: int) -> str:
    return f"{day // 10000:04}-{day // 100 % 100:02}-{day % 100:02}" if day else ""


def _spread(ordered: Sequence[float]) -> dict[str, float] | None:
    count = len(ordered)
    if not count:
        return None
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return {
        "average": _plain(round(fsum(ordered) / count, 1)),
        "median": _plain(median),
        "p95": _plain(ordered[-(-count * 95 // 100) - 1]),
    }


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value


def _moment(milliseconds: int) -> str:
    return iso(datetime.fromtimestamp(milliseconds / 1000, timezone.utc))
