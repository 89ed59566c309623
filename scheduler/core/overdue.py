"""The dead-man's switch: how much came due and did not run, since when, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from scheduler.core.limits import Hold, kept, quiet_spans, starts
from scheduler.core.models import QuietHours, Task
from scheduler.core.record import Reason
from scheduler.core.schedule import passed

_TICK = timedelta(microseconds=1)


class Absence(str, Enum):
    """Why nobody looked at what was due; what the record of a missed occurrence says of it."""

    NO_RUNNER = "no-runner"
    HUNG = "hung"
    UNWRITTEN = "unwritten"
    ASLEEP = "asleep"
    QUIET = "quiet-hours"
    SETTINGS = "settings"
    UNTRUSTED = "untrusted"
    CLOCK = "clock"

    def note(self) -> str:
        """For people."""
        return _NOTES[self]


_NOTES = {
    Absence.NO_RUNNER: "no runner was at work then",
    Absence.HUNG: "the runner was stopped or held up then",
    Absence.UNWRITTEN: "the state could not be written then",
    Absence.ASLEEP: "the machine was asleep then, or its clock was put forward",
    Absence.QUIET: "these were quiet hours",
    Absence.SETTINGS: "the user's settings could not be read then",
    Absence.CLOCK: "the clock was not set then",
    Absence.UNTRUSTED: "its config was not approved then",
}


@dataclass(frozen=True)
class Neglected:
    """Occurrences that did not run. `cause`: an Absence, or the reason of a hold."""

    count: int
    since: datetime
    cause: Absence | Reason


@dataclass(frozen=True)
class Overdue:
    """`due` occurrences did not run since `since`, while `ran` runs began; most of them for `cause`."""

    due: int
    ran: int
    since: datetime
    cause: str


def missed(notes: Iterable[str], count: int, at: datetime) -> Neglected:
    """What the record of missed occurrences tells."""
    told = set(notes)
    cause = next((absence for absence in Absence if absence.note() in told), Absence.NO_RUNNER)
    return Neglected(count, at, cause)


@dataclass(frozen=True)
class Silence:
    """Quiet hours, and those of a time as spans: from a begin to before an end, ascending, none touching another."""

    hours: QuietHours | None
    spans: Sequence[tuple[datetime, datetime]] = ()

    @classmethod
    def between(cls, hours: QuietHours | None, since: datetime, until: datetime) -> Silence:
        """The quiet hours that touch this time."""
        found: list[tuple[datetime, datetime]] = []
        for begin, end in () if hours is None or until < since else quiet_spans(hours, since, until):
            if found and begin <= found[-1][1]:
                begin, end = found[-1][0], max(end, found.pop()[1])
            found.append((begin, end))
        return cls(hours, found)


def neglected(
    root: str,
    task: Task,
    handled_until: datetime,
    until: datetime,
    *,
    added_at: datetime,
    holds: Iterable[Hold],
    quiet: Silence,
    absence: Absence,
) -> Iterator[Neglected]:
    """What came due of a task after `handled_until`, up to `until`, and nobody dealt with: under each of `holds`, in
    the order in which they began, for its reason, else for `absence`. `quiet`: that of at least this time."""
    at = handled_until
    for hold in holds:
        if not hold.covers(root, task) or hold.since >= until:
            continue
        if hold.since > at:
            yield from _absent(task, at, hold.since, added_at, quiet, absence)
            at = hold.since
        end = until if hold.until is None else min(until, hold.until)
        span = passed(task.trigger, at, end, added_at=added_at) if end > at else None
        if span is not None:
            yield Neglected(span.count, span.first, hold.reason)
        at = max(at, end)
    yield from _absent(task, at, until, added_at, quiet, absence)


def _absent(
    task: Task, since: datetime, until: datetime, added_at: datetime, quiet: Silence, absence: Absence
) -> Iterator[Neglected]:
    """What was to start while nobody was there. In quiet hours nothing is; at their end, what is caught up on."""

    def come(after: datetime, last: datetime) -> int:
        found = passed(task.trigger, after, last, added_at=added_at) if last > after else None
        return 0 if found is None else found.count

    whole = passed(task.trigger, since, until, added_at=added_at) if until > since else None
    if whole is None:
        return
    count, first = whole.count, whole.first
    for begin, end in quiet.spans:
        inside = come(max(since, begin - _TICK), min(end - _TICK, until))
        if not inside:
            continue
        count -= inside
        late = inside if begin >= end - kept(task) else come(max(since, end - kept(task) - _TICK), end - _TICK)
        if late and end <= until and task.policy.missed == "all":
            count += late
        elif late and end <= until and not come(end - _TICK, end):  # what comes at the end stands for it
            count += 1
    if count and quiet.spans:
        first = next(starts(task, quiet.hours, since, handled_until=since, added_at=added_at))
    if count:
        yield Neglected(count, first, absence)


def sum_up(neglected: Sequence[Neglected], ran: Iterable[datetime]) -> Overdue | None:
    """All that did not run, and what ran meanwhile; None where nothing is overdue. Quiet hours are meant so."""
    counted = [each for each in neglected if each.count and each.cause is not Absence.QUIET]
    if not counted:
        return None
    since = min(each.since for each in counted)
    causes: Counter[str] = Counter()
    for each in counted:
        causes[each.cause.value] += each.count
    (cause, _), *_ = causes.most_common(1)
    return Overdue(sum(each.count for each in counted), sum(moment >= since for moment in ran), since, cause)
