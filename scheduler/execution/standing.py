"""How a project stands by its config: what may run, what starts next, what came due and nobody dealt with."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from scheduler.core.limits import Cause, Hold, starts, starts_again
from scheduler.core.models import QuietHours, Task
from scheduler.core.overdue import Absence, Neglected, neglected
from scheduler.core.parse import Config
from scheduler.core.schedule import GRACE
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
    """What a task does by itself after `since`; until `handled_until` all is dealt with."""

    task: Task
    since: datetime
    handled_until: datetime
    added_at: datetime

    def starts(self, quiet: QuietHours | None) -> Iterator[datetime]:
        """When it starts."""
        return starts(self.task, quiet, self.since, handled_until=self.handled_until, added_at=self.added_at)

    def held(self, holds: Iterable[Hold], root: str, until: datetime | None) -> Iterator[tuple[float, str]]:
        """What comes of it until then, with what keeps it from starting."""
        first = next(hold for hold in holds if hold.covers(root, self.task))
        why = "off" if first.cause is Cause.OFF else first.reason.value
        for moment in self.starts(None):
            if until is not None and moment > until:
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


def stand(root: str, parsed: Config, known: Known, now: datetime, *, refusal: str | None = None) -> Standing:
    """How a project stands by a config; `refusal`: why nothing of it may run."""
    order = sorted(known.holds, key=lambda hold: hold.since)
    live = [hold for hold in order if not hold.is_over(now)]
    enabled = [task for task in parsed.tasks if task.enabled]
    quiet, absence = known.quiet_hours, known.absence if refusal is None else Absence.UNTRUSTED
    active, planned, coming, held = 0, list[tuple[datetime, str, Plan]](), list[tuple[float, str]](), []
    pending: list[Neglected] = []
    for task in enabled:
        state = known.tasks.get(task.id)
        if state is not None and state.done_at is not None:
            continue
        again = starts_again(live, root, task, now)
        active += again is not None
        if state is None or state.active_since is None:
            continue
        mark, added = state.handled_until, state.added_at
        pending += neglected(
            root, task, mark, now - LATE, added_at=added, holds=order, quiet=quiet, absence=absence
        )  # fmt: skip
        plan = Plan(task, max(now - LATE, mark), mark, added)
        if again != now:
            held.append(plan.held(live, root, again))
        if again is None:
            continue
        plan = replace(plan, since=max(plan.since, again)) if again > now else plan
        moments = plan.starts(quiet)
        first = next(moments, None)
        if first is not None:
            planned.append((first, task.id, plan))
            later = first if first > now else next(moments, None)
            coming += [] if later is None else [(later.timestamp(), task.id)]
    planned.sort(key=lambda one: one[:2])
    return Standing(
        refusal is None,
        refusal,
        count_tasks(parsed),
        active,
        sorted(coming) if refusal is None else (),
        [hold for hold in live if any(hold.covers(root, task) for task in enabled)],
        forecast((plan for _, _, plan in planned[:DUE]), quiet),
        list(islice(heapq.merge(*held), DUE)),
        pending,
        {task.id for task in enabled},
        count_suspended(parsed),
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
