"""What keeps a task from running for a time: holds, and quiet hours. Pure, but for the system's own zone.

A hold covers one task, a project, or every project. What comes due of a task while a hold covers it is passed over, and
told of in one record that counts. In quiet hours nothing is passed over: they are as though the runner were not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from enum import Enum
from typing import get_args

from scheduler.core.models import Budgets, Day, QuietHours, Task
from scheduler.core.record import Reason, Status
from scheduler.core.schedule import next_occurrence, occurrences
from scheduler.core.zones import resolve, zone_of

_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
_NEVER = datetime(9000, 1, 1, tzinfo=timezone.utc)
_LOOKS = 16  # quiet hours that follow one another, before it is said that there is no end of them


class Cause(str, Enum):
    """Why there is a hold."""

    USER = "user"  # a person paused it
    OFF = "off"  # a person threw the off switch
    FAILURES = "failures"  # the task failed too often in a row
    BUDGET = "budget"  # what a day may cost is spent
    USAGE_LIMIT = "usage-limit"  # the subscription's limit is reached
    CREDIT = "credit"  # the account has no credit left
    AUTH = "auth"  # the client is not logged in

    def __str__(self) -> str:
        return self.value


REASONS = {
    Cause.USER: Reason.PAUSED,
    Cause.OFF: Reason.PAUSED,
    Cause.FAILURES: Reason.PAUSED,
    Cause.BUDGET: Reason.BUDGET,
    Cause.USAGE_LIMIT: Reason.USAGE_LIMIT,
    Cause.CREDIT: Reason.CREDIT,
    Cause.AUTH: Reason.AUTH,
}
#: A person put these, or has to look at the task.
PAUSES = frozenset({Cause.USER, Cause.OFF, Cause.FAILURES})
#: The client's account is why; all claude tasks share it.
ACCOUNT = frozenset({Cause.USAGE_LIMIT, Cause.CREDIT, Cause.AUTH})

# A limit that did not say when it ends, or ended and refused again, is looked at after a minute, then ever more seldom.
LOOK_AGAIN = timedelta(minutes=1)
LOOK_AT_LEAST = timedelta(hours=1)
# So often the end that is told is believed, however soon it comes.
TRUSTED_ENDS = 3
# A rate limit of which nobody said when it ends is waited for so often, 5 to 6 hours in all; then the run has failed.
RATE_LIMIT_WAITS = 10
# A clock that is put right by less is no news.
CLOCK_SLACK = timedelta(minutes=1)
# No limit of a subscription is longer than a week: what says so was misread.
LONGEST_LIMIT = timedelta(days=8)


@dataclass(frozen=True)
class Hold:
    """From `since` to `until` (None: until it is lifted) nothing of `project` (empty: of any) and `task` (empty: any)
    starts. `by` names who or what said so, `run` the run that it came from."""

    project: str
    task: str
    cause: Cause
    since: datetime
    until: datetime | None
    by: str
    run: str | None = None

    @property
    def reason(self) -> Reason:
        """What the record of an occurrence that is passed over says."""
        return REASONS[self.cause]

    def is_over(self, now: datetime) -> bool:
        """Whether it has ended."""
        return self.until is not None and self.until <= now

    def names(self, project: str, task_id: str) -> bool:
        """Whether the task of that id is among those that it can be about."""
        return self.project in ("", project) and self.task in ("", task_id)

    def covers(self, project: str, task: Task) -> bool:
        """Whether it is about this task: all but pauses let shell tasks go on."""
        return self.names(project, task.id) and (self.cause in PAUSES or task.execution.type == "claude")

    def keeps_from_going_on(self, *, asked: bool, began: datetime) -> bool:
        """Whether a run that it covers, and that met a usage limit, waits for its end. What a person `asked` for was
        asked for in spite of budgets, and of the pauses that there were."""
        always = self.cause is Cause.OFF or self.cause in ACCOUNT
        return always or not asked or (self.cause in PAUSES and self.since > began)

    def passes_over(self, project: str, task: Task) -> bool:
        """Whether what comes due of a task is passed over; else it is queued, and waits there."""
        return self.covers(project, task) and not (self.cause is Cause.USAGE_LIMIT and task.policy.overlap == "queue")

    def words(self) -> str:
        """What it is, in a clause: `paused by sam`."""
        if self.cause is Cause.OFF:
            return f"switched off by {self.by}"
        if self.cause is Cause.FAILURES:
            return "paused for failing too often in a row"
        if self.cause is Cause.BUDGET:
            return f"kept back by the budget of a day ({self.by})"
        if self.cause is Cause.USAGE_LIMIT:
            return f"kept back by a usage limit ({self.by})"
        if self.cause in ACCOUNT:
            return f"kept back since the client said: {self.by}"
        return f"paused by {self.by}"


def switched_off(path: str, since: datetime) -> Hold:
    """The hold on everything that the off switch is."""
    return Hold("", "", Cause.OFF, since, None, path)


def starts_again(holds: Iterable[Hold], project: str, task: Task, now: datetime) -> datetime | None:
    """From when on no hold keeps a task from starting, `now` where none does; None where a person has to lift one."""
    ends = [hold.until for hold in holds if hold.covers(project, task) and not hold.is_over(now)]
    known = [end for end in ends if end is not None]
    return max(known, default=now) if len(known) == len(ends) else None


def over_budget(
    budgets: Budgets, spent: Iterable[tuple[str, str, float]], begin: datetime, end: datetime
) -> Iterator[Hold]:
    """The holds of a day, from `begin` to `end`, that follow from what was spent on it: (project, task, US dollars)."""
    sums: dict[tuple[str, str], float] = {("", ""): 0.0}
    for project, task, usd in spent:
        for scope in (("", ""), (project, ""), (project, task)):
            sums[scope] = sums.get(scope, 0.0) + usd
    for (project, task), usd in sums.items():
        limit = budgets.task_per_day if task else budgets.project_per_day if project else budgets.per_day
        if limit is not None and usd >= limit:
            yield Hold(project, task, Cause.BUDGET, begin, end, f"${usd:,.2f} of ${limit:,.2f}")


def quiet_until(quiet: QuietHours | None, now: datetime) -> datetime | None:
    """When the quiet hours end that `now` lies in; None where it lies in none.

    They last from one moment to another: where the clocks are put back in them, no hour of them is open, and what has
    ended does not begin again.
    """
    return None if quiet is None else next((end for _, end in quiet_spans(quiet, now, now)), None)


def quiet_spans(quiet: QuietHours, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The quiet hours that touch the time from `since` to `until`, each from its begin to before its end, ascending.
    Those that follow one another without a gap are told apart."""
    zone = None if quiet.timezone is None else zone_of(quiet.timezone)
    day, last = since.astimezone(zone).date() - _DAY, until.astimezone(zone).date()
    first, end_of_day = (_time_of_day(text) for text in (quiet.from_, quiet.until))
    while day <= last:
        if get_args(Day)[day.weekday()] in quiet.days:
            midnight = datetime.combine(day, time())
            begin = resolve(midnight + first, zone)
            end = resolve(midnight + end_of_day + (_DAY if end_of_day <= first else timedelta()), zone)
            if begin <= until and since < end:
                yield begin, end
        day += _DAY


def next_start(task: Task, quiet: QuietHours | None, since: datetime, *, added_at: datetime) -> datetime | None:
    """When a task starts next by itself: at its first moment after `since`, or at the end of the quiet hours in which
    that lies, if what came due in them is caught up on. None where it never does."""
    came = moment = next_occurrence(task.trigger, since, added_at=added_at)
    for _ in range(_LOOKS):
        end = None if moment is None else quiet_until(quiet, moment)
        if came is None or end is None:
            return moment
        came = next_occurrence(task.trigger, max(came, end - kept(task)) - _TICK, added_at=added_at)
        moment = None if came is None else max(came, end)
    return None


def starts(
    task: Task, quiet: QuietHours | None, after: datetime, *, handled_until: datetime, added_at: datetime
) -> Iterator[datetime]:
    """When a task starts by itself, after `after`. What came due until `handled_until` was dealt with; what came since,
    in quiet hours that are not over at `after`, is caught up on at their end."""
    if quiet is None:
        yield from occurrences(task.trigger, max(after, handled_until), _NEVER, added_at=added_at)
        return
    at = max(after, handled_until)
    for begin, end in quiet_spans(quiet, after, after):
        at = max(handled_until, min(begin, end - kept(task)) - _TICK)
    moment = next_start(task, quiet, at, added_at=added_at)
    while moment is not None:
        if moment > after:
            yield moment
        moment = next_start(task, quiet, moment, added_at=added_at)


def kept(task: Task) -> timedelta:
    """How long what came due and did not run is caught up on."""
    return timedelta(seconds=task.policy.missed_within if task.policy.missed != "skip" else 0)


def _time_of_day(text: str) -> timedelta:
    hours, minutes = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))


def waits_for(reason: Reason | None, waits: int) -> bool:
    """Whether a run that ended for this reason, having waited `waits` times, waits for a limit to end and goes on."""
    return reason is Reason.USAGE_LIMIT or (reason is Reason.RATE_LIMITED and waits < RATE_LIMIT_WAITS)


def resume_at(resets_at: datetime | None, now: datetime, waits: int) -> datetime:
    """When a run goes on that met a usage limit, for the `waits`-th time (from 0): at its end where that is told. Where
    that comes soon again and again it says little, and the run goes on ever more seldom, as where it is not told."""
    if resets_at is None or resets_at <= now:
        return now + _patience(waits)
    soonest = now if waits < TRUSTED_ENDS else now + _patience(waits - TRUSTED_ENDS)
    return max(min(resets_at, now + LONGEST_LIMIT), soonest)


def _patience(looks: int) -> timedelta:
    return min(LOOK_AGAIN * int(2 ** min(looks, 16)), LOOK_AT_LEAST)


def is_of_another_clock(hold: Hold, now: datetime) -> bool:
    """Whether the clock was put back since a usage limit was met, so that its end may be anywhere."""
    return hold.cause is Cause.USAGE_LIMIT and hold.since > now + CLOCK_SLACK


@dataclass(frozen=True)
class Login:
    """What is seen of the client's login. `logged_in` is its own word (None: it gave none), `stamp` tells whether the
    file with its credentials changed."""

    logged_in: bool | None
    stamp: tuple[int, ...]


def is_back(before: Login | None, after: Login) -> bool:
    """Whether claude tasks that wait for a login may go on. `before`: as it was when the client was refused; None where
    that was under an earlier runner, whose environment may have been another. A credential that is there and was
    refused is no login until it changes."""
    if not after.logged_in:
        return False
    return before is None or before.logged_in is False or before.stamp != after.stamp


def of_the_account(status: Status, reason: Reason | None) -> Cause | None:
    """The hold on all claude tasks that the end of one of them brings."""
    if status is not Status.FAILURE or reason not in (Reason.AUTH, Reason.CREDIT):
        return None
    return Cause.AUTH if reason is Reason.AUTH else Cause.CREDIT


def is_failure(status: Status, reason: Reason | None, attempt: int = 1) -> bool | None:
    """Whether an end adds to the task's failures in a row (True), ends the row (False), or says nothing (None).

    A failure that is to be tried again is not counted; where the next attempt is passed over, it has failed for good.
    """
    if status is Status.SKIPPED and attempt > 1 and reason not in (Reason.CANCELLED, Reason.PRECHECK_IDLE):
        return True
    if status in (Status.SKIPPED, Status.RUNNING) or reason in (Reason.CANCELLED, Reason.AUTH, Reason.CREDIT):
        return None
    return status is not Status.SUCCESS


def is_too_often(task: Task, failures: int) -> bool:
    """Whether so many failures in a row pause the task."""
    return 0 < task.policy.pause_after_failures <= failures
