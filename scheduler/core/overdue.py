"""The dead-man's switch: how much came due and did not run, since when, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from scheduler.core.record import Reason


class Absence(str, Enum):
    """Why nobody looked at what was due; what the record of a missed occurrence says of it."""

    NO_RUNNER = "no-runner"
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
