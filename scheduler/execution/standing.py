"""How a project stands by its config: what may run, what starts next, what came due and nobody dealt with."""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from scheduler.core.limits import Cause, Hold, starts, starts_again
from scheduler.core.models import QuietHours, Task
from scheduler.core.overdue import Absence, Neglected, Silence, neglected
from scheduler.core.parse import Config
from scheduler.core.schedule import GRACE, next_occurrence
from scheduler.errors import SchedulerError
from scheduler.store import config
from scheduler.store.state import Known
from scheduler.store.trust import NOT_APPROVED, Project

DUE = 10  # occurrences told as moments, by which a hook counts what came due while no runner was there
LATE = timedelta(seconds=GRACE)  # what is younger is under way


@dataclass(frozen=True)
class Standing:
    """What a project's config comes to: how many tasks it names, how many of them may still fire, which start next
    (epoch seconds and id, ascending), what keeps some from starting now, how many are `broken`: suspended by an error.
    `suspended` says why none may run.

    `due`: when the next of all start (epoch seconds); `held`: when the next occurrences come that something keeps from
    starting, each with what; `pending`: what came and nobody dealt with. `enabled`: ids of the tasks that are to run;
    None where that is not known.
    """

    approved: bool
    suspended: str | None
    tasks: int = 0
    active: int = 0
    coming: Sequence[tuple[float, str]] = ()
    holds: Sequence[Hold] = ()
    due: Sequence[float] = ()
    held: Sequence[tuple[float, str]] = ()
    pending: Sequence[Neglected] = ()
    enabled: Collection[str] | None = None
    broken: int = 0


@dataclass(frozen=True)
class Plan:
    """What a task does by itself after `since`; until `handled_until` all is dealt with. `again`: from when on nothing
    keeps it from starting; None where somebody has to lift that."""

    task: Task
    since: datetime
    handled_until: datetime
    added_at: datetime
    again: datetime | None

    def starts(self, quiet: QuietHours | None) -> Iterator[datetime]:
        """When it starts."""
        return starts(self.task, quiet, self.since, handled_until=self.handled_until, added_at=self.added_at)

    def earliest(self) -> datetime | None:
        """A moment before which it does not start; None where it never does."""
        first = next_occurrence(self.task.trigger, self.handled_until, added_at=self.added_at)
        return first and max(first, self.since)

    def held(self, root: str, holds: Iterable[Hold]) -> Iterator[tuple[float, str]]:
        """What comes of it before `again` (epoch seconds), with what keeps it from starting."""
        first = next(hold for hold in holds if hold.covers(root, self.task))
        why = "off" if first.cause is Cause.OFF else first.reason.value
        for moment in self.starts(None):
            if self.again is not None and moment > self.again:
                return
            yield moment.timestamp(), why


def count_tasks(known: Config) -> int:
    """The tasks that a config names, those that an error suspends too."""
    return len(known.tasks) + count_suspended(known)


def count_suspended(known: Config) -> int:
    """The tasks that an error suspends, told apart by where they stand: an id may be wrong, or stand twice."""
    return len({problem.place.partition("]")[0] for problem in known.problems if not problem.warning})


def forecast(plans: Iterable[Plan], quiet: QuietHours | None) -> list[float]:
    """When the next of all start (epoch seconds)."""
    return [moment.timestamp() for moment in islice(heapq.merge(*(plan.starts(quiet) for plan in plans)), DUE)]


def soonest(plans: Iterable[tuple[datetime, Plan]], quiet: QuietHours | None) -> list[tuple[datetime, Plan]]:
    """The DUE plans that start first, with when. `plans`: each with a moment before which it does not start."""
    found: list[tuple[datetime, str, Plan]] = []
    for earliest, plan in sorted(plans, key=lambda one: one[0]):
        if len(found) >= DUE and earliest >= found[DUE - 1][0]:
            break
        start = next(plan.starts(quiet), None)
        if start is not None:
            insort(found, (start, plan.task.id, plan), key=lambda one: one[:2])
    return [(start, plan) for start, _, plan in found[:DUE]]


def stand(root: str, parsed: Config, known: Known, now: datetime, *, refusal: str | None = None) -> Standing:
    """How a project stands by a config; `refusal`: why nothing of it may run."""
    holds = sorted(known.holds, key=lambda hold: hold.since)
    live = [hold for hold in holds if not hold.is_over(now)]
    enabled = [task for task in parsed.tasks if task.enabled]
    active, plans, late = 0, list[Plan](), now - LATE
    for task in enabled:
        state = known.tasks.get(task.id)
        if state is not None and state.done_at is not None:
            continue
        again = starts_again(live, root, task, now)
        active += again is not None
        if state is not None and state.active_since is not None:
            plans.append(Plan(task, max(late, state.handled_until), state.handled_until, state.added_at, again))
    free = [
        replace(plan, since=max(plan.since, plan.again)) if plan.again > now else plan for plan in plans if plan.again
    ]
    bounded = [(earliest, plan) for plan in free if (earliest := plan.earliest())]
    first = soonest(bounded, known.quiet_hours)
    return Standing(
        refusal is None,
        refusal,
        count_tasks(parsed),
        active,
        () if refusal is not None else _coming(first, known.quiet_hours, now),
        [hold for hold in live if any(hold.covers(root, task) for task in enabled)],
        forecast((plan for _, plan in first), known.quiet_hours),
        list(islice(heapq.merge(*(plan.held(root, live) for plan in plans if plan.again != now)), DUE)),
        list(_pending(root, plans, known, holds, late, known.absence if refusal is None else Absence.UNTRUSTED)),
        {task.id for task in enabled},
        count_suspended(parsed),
    )


def _coming(first: Iterable[tuple[datetime, Plan]], quiet: QuietHours | None, now: datetime) -> list[tuple[float, str]]:
    """What starts after now of plans that start first, ascending."""
    found = []
    for start, plan in first:
        later = start if start > now else next((moment for moment in plan.starts(quiet) if moment > now), None)
        found += [] if later is None else [(later.timestamp(), plan.task.id)]
    return sorted(found)


def _pending(
    root: str, plans: Sequence[Plan], known: Known, holds: Sequence[Hold], late: datetime, absence: Absence
) -> Iterator[Neglected]:
    """What of the plans came and nobody dealt with."""
    quiet = Silence.between(known.quiet_hours, min((plan.handled_until for plan in plans), default=late), late)
    for plan in plans:
        yield from neglected(
            root,
            plan.task,
            plan.handled_until,
            late,
            added_at=plan.added_at,
            holds=holds,
            quiet=quiet,
            absence=absence,
        )


def read_standing(root: str, trusted: Project | None, known: Known, now: datetime) -> Standing:
    """How a project stands by its config on disk, approved or not."""
    refusal: str | None = NOT_APPROVED
    try:
        source = config.read_source(root)
        refusal = NOT_APPROVED if trusted is None else trusted.refusal(source)
        found = stand(root, source.parse(), known, now, refusal=refusal)
    except SchedulerError as error:
        found = Standing(refusal is None, error.message)
    return stand_still(found, root, trusted, known, now)


def stand_still(found: Standing, root: str, trusted: Project | None, known: Known, now: datetime) -> Standing:
    """The same; where nothing may run, with what was to run by the config that was approved last."""
    last = trusted.last_approved() if trusted is not None and found.suspended is not None else None
    if last is None:
        return found
    meant = stand(root, last, known, now, refusal=found.suspended)
    return replace(found, due=meant.due, held=meant.held, pending=meant.pending, enabled=meant.enabled)
