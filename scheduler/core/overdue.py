"""The dead-man's switch: how much came due and did not run, since when, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from scheduler.core.limits import Hold, kept, quiet_spans
from scheduler.core.models import QuietHours, Task
from scheduler.core.record import Reason
from scheduler.core.schedule import Skipped, passed

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


def neglected(
    root: str,
    task: Task,
    handled_until: datetime,
    until: datetime,
    *,
    added_at: datetime,
    holds: Iterable[Hold],
    quiet: QuietHours | None,
    absence: Absence,
) -> Iterator[Neglected]:
    """What came due of a task after `handled_until`, up to `until`, and nobody dealt with: under each of `holds`, in
    the order in which they began, for its reason, else for `absence`."""
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
    task: Task, since: datetime, until: datetime, added_at: datetime, quiet: QuietHours | None, absence: Absence
) -> Iterator[Neglected]:
    """What was to start while nobody was there. In quiet hours nothing is; at their end, what is caught up on."""

    def come(after: datetime, last: datetime) -> Skipped | None:
        return passed(task.trigger, after, last, added_at=added_at) if last > after else None

    for begin, end in [] if quiet is None else _joined(quiet_spans(quiet, since, until)):
        before = come(since, begin - _TICK)
        if before is not None:
            yield Neglected(before.count, before.first, absence)
        late = come(max(since, begin - _TICK, end - kept(task) - _TICK), end - _TICK) if end <= until else None
        if late is not None and task.policy.missed == "all":
            yield Neglected(late.count, end, absence)
        elif late is not None and come(end - _TICK, end) is None:  # what comes at the end stands for it
            yield Neglected(1, end, absence)
        since = max(since, end - _TICK)
    rest = come(since, until)
    if rest is not None:
        yield Neglected(rest.count, rest.first, absence)


def _joined(spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Spans in ascending order, those that touch made one."""
    found: list[tuple[datetime, datetime]] = []
    for begin, end in spans:
        if found and begin <= found[-1][1]:
            begin, end = found[-1][0], max(end, found.pop()[1])
        found.append((begin, end))
    return found


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
