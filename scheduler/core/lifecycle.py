"""Decisions about runs: which queued one starts next, what becomes of one whose turn has come, whether to try again.

Pure: facts and time are arguments, the caller carries out what is returned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from scheduler.core.limits import Cause, Hold
from scheduler.core.models import MAX_RETRY_DELAY, Task
from scheduler.core.record import Reason, Status

#: Failures that the same work may get past another time.
PASSING = frozenset(
    {
        Reason.API_ERROR,
        Reason.OVERLOADED,
        Reason.RATE_LIMITED,
        Reason.STALLED,
        Reason.CRASHED,
        Reason.NO_RESULT,
        Reason.AGENT_ERROR,
        Reason.EXIT_CODE,
        Reason.SIGNAL,
        Reason.SETUP_FAILED,
        Reason.PRECHECK_ERROR,
        Reason.VERIFY_FAILED,
        Reason.WORKTREE_FAILED,
    }
)


@dataclass(frozen=True)
class Waiting:
    """A run in the queue. `not_before` holds a retry back; `isolated` False needs the main checkout for itself;
    `asked`: a person asked for it, so it waits where a scheduled one would be skipped, and runs though its task is
    disabled or paused; `begun`: it goes on after a usage limit, and its worktree stands."""

    run_id: str
    project: str
    task: str
    since: datetime
    not_before: datetime | None
    isolated: bool
    asked: bool = False
    begun: bool = False


@dataclass(frozen=True)
class Going:
    """A run under way."""

    run_id: str
    project: str
    task: str
    isolated: bool


class Move(Enum):
    """What to do with a queued run now."""

    START = "start"
    SKIP = "skip"  # end it as skipped
    WAIT = "wait"  # leave it in the queue
    CANCEL_OTHER = "cancel-other"  # stop the task's run that is going, then look again
    GIVE_UP = "give-up"  # end it, though it has begun; its work is rolled back


@dataclass(frozen=True)
class Decision:
    """A move, with the reason for a skip."""

    move: Move
    reason: Reason | None = None


def decide(
    waiting: Waiting,
    task: Task | None,
    going: Sequence[Going],
    *,
    trusted: bool,
    holds: Sequence[Hold] = (),
    quiet: bool = False,
    queue: Sequence[Waiting] = (),
) -> Decision:
    """What becomes of a queued run whose turn has come, given the runs under way and, of the queue, at least what
    `standing` has of its project.

    `task` is the task as the approved config has it now; None when it is gone. `holds` keep it from starting by
    itself; in `quiet` hours nothing does that no person asked for.
    """
    if not trusted:
        return Decision(Move.WAIT) if waiting.begun else Decision(Move.SKIP, Reason.UNTRUSTED)
    if task is None or not (task.enabled or waiting.asked):
        return Decision(Move.GIVE_UP) if waiting.begun else Decision(Move.SKIP, Reason.DISABLED)
    if waiting.begun and task.execution.type != "claude":
        return Decision(Move.GIVE_UP)
    kept_back = _kept_back(waiting, task, holds)
    if kept_back is not None:
        return kept_back
    if quiet and not waiting.asked:
        return Decision(Move.WAIT)
    if any(g.project == waiting.project and g.task == waiting.task for g in going):
        if waiting.asked or waiting.begun or task.policy.overlap == "queue":
            return Decision(Move.WAIT)
        if task.policy.overlap == "cancel-running":
            return Decision(Move.CANCEL_OTHER)
        return Decision(Move.SKIP, Reason.OVERLAP)
    if not waiting.isolated and any(g.project == waiting.project and not g.isolated for g in going):
        return Decision(Move.WAIT)
    return (None if waiting.isolated or waiting.begun else _kept_out(waiting, task, queue)) or Decision(Move.START)


def _kept_out(waiting: Waiting, task: Task, queue: Sequence[Waiting]) -> Decision | None:
    """Nobody else works in the main checkout while a run that began there waits for a usage limit to end: that may
    take days, so of a task one run waits with it, and the others are skipped as where one is under way."""
    there = [other for other in queue if other.project == waiting.project and not other.isolated]
    if not any(other.begun for other in there):
        return None
    earlier = any(other.task == waiting.task and other.since < waiting.since for other in there)
    if earlier and not waiting.asked and task.policy.overlap != "queue":
        return Decision(Move.SKIP, Reason.OVERLAP)
    return Decision(Move.WAIT)


def standing(queue: Iterable[Waiting]) -> dict[str, list[Waiting]]:
    """All that waits for a main checkout in which a run began that waits for a usage limit to end, by project."""
    there: dict[str, list[Waiting]] = {}
    for one in queue:
        if not one.isolated:
            there.setdefault(one.project, []).append(one)
    return {project: found for project, found in there.items() if any(one.begun for one in found)}


def _kept_back(waiting: Waiting, task: Task, holds: Sequence[Hold]) -> Decision | None:
    if waiting.begun:
        held = any(hold.keeps_from_going_on(asked=waiting.asked, began=waiting.since) for hold in holds)
        return Decision(Move.WAIT) if held else None
    for hold in holds:
        if hold.cause is not Cause.USAGE_LIMIT and not waiting.asked:
            return Decision(Move.SKIP, hold.reason)
    if any(hold.cause is Cause.OFF for hold in holds):
        return Decision(Move.WAIT)  # nobody starts anything then, not even who asked before
    if not any(hold.cause is Cause.USAGE_LIMIT for hold in holds):
        return None
    # It would be refused, and a retry spent for nothing.
    if waiting.asked or waiting.not_before is not None or task.policy.overlap == "queue":
        return Decision(Move.WAIT)
    return Decision(Move.SKIP, Reason.USAGE_LIMIT)


def in_turn(
    queue: Sequence[Waiting], going: Sequence[Going], served: Mapping[str, int], now: datetime
) -> list[Waiting]:
    """The queue in the order of its turns: projects with fewer runs under way first, then those served least recently
    (`served`: project to the number of its last start), then who waits longest. Retries not yet due are left out."""
    busy: dict[str, int] = {}
    for run in going:
        busy[run.project] = busy.get(run.project, 0) + 1
    latest = now + timedelta(seconds=MAX_RETRY_DELAY)  # what is to wait longer was put there by a clock that was ahead
    ready = [w for w in queue if w.not_before is None or not now < w.not_before <= latest]
    return sorted(ready, key=lambda w: (busy.get(w.project, 0), served.get(w.project, -1), w.since))


def retry_at(task: Task, status: Status, reason: Reason | None, attempt: int, ended: datetime) -> datetime | None:
    """When to try the occurrence again, doubling the delay each time; None when it is not to be tried again."""
    mendable: Collection[Reason] = PASSING
    if status not in (Status.FAILURE, Status.TIMEOUT) or attempt > task.policy.retries:
        return None
    if reason is not None and reason not in mendable:
        return None
    return ended + timedelta(seconds=min(task.policy.retry_delay * 2 ** (attempt - 1), MAX_RETRY_DELAY))
