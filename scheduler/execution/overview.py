"""What the hooks and `status` tell of a project at a glance: its tasks, what comes, what ran, what waits for people."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from scheduler.core.limits import Cause, Hold, next_start, quiet_until, starts_again
from scheduler.core.models import Task
from scheduler.core.overdue import Absence, Neglected, missed, sum_up
from scheduler.core.parse import Config
from scheduler.core.record import Reason
from scheduler.core.schedule import GRACE, Skipped, next_occurrence, occurrences, passed
from scheduler.disk import glance, paths
from scheduler.errors import SchedulerError
from scheduler.execution.eachref import unmerged_branches
from scheduler.store import config, history
from scheduler.store.state import Known, TaskState
from scheduler.store.trust import NOT_APPROVED, Project

TAIL = 1 << 20  # bytes at the end of the history that are looked at
RECENT = timedelta(days=7)
COMING = 3  # occurrences told
APPROVALS, NAMED = 5, 10  # approvals told, and of each so many tasks
DUE = 10  # occurrences told as moments, by which a hook counts what came due while no runner was there
LATE = timedelta(seconds=GRACE)  # what is younger is under way
_FAR = timedelta(days=36525)
_TICK = timedelta(microseconds=1)
_FAILED = ("failure", "timeout")
_LOUD = ("containment", "self-edit")


@dataclass(frozen=True)
class Standing:
    """What a project's config comes to: how many tasks it names, how many of them may still fire, which start next
    (epoch seconds and id, ascending), what keeps some from starting now, how many are `broken`: suspended by an error.
    `suspended` says why none may run.

    `due`: when the next occurrences of all come (epoch seconds); `pending`: those that came and nobody dealt with.
    """

    approved: bool
    suspended: str | None
    tasks: int = 0
    active: int = 0
    coming: Sequence[tuple[float, str]] = ()
    holds: Sequence[Hold] = ()
    due: Sequence[float] = ()
    pending: Sequence[Skipped] = ()
    broken: int = 0


def count_tasks(known: Config) -> int:
    """The tasks that a config names, those that an error suspends too."""
    return len(known.tasks) + count_suspended(known)


def count_suspended(known: Config) -> int:
    """The tasks that an error suspends, told apart by where they stand: an id may be wrong, or stand twice."""
    return len({problem.place.partition("]")[0] for problem in known.problems if not problem.warning})


def forecast(tasks: Iterable[tuple[Task, datetime, datetime]]) -> list[float]:
    """When the next occurrences of tasks come, each with its next one and the time since which it counts."""
    streams = [occurrences(task.trigger, at - _TICK, at + _FAR, added_at=since) for task, at, since in tasks]
    return [moment.timestamp() for moment in islice(heapq.merge(*streams), DUE)]


def stand(root: str, parsed: Config, known: Known, now: datetime, *, refusal: str | None = None) -> Standing:
    """How a project stands by a config; `refusal`: why nothing of it may run."""
    live = [hold for hold in known.holds if not hold.is_over(now)]
    holds = [hold for hold in live if any(hold.covers(root, task) for task in parsed.tasks)]
    active = 0
    planned: list[tuple[datetime, str, Task, TaskState]] = []
    coming = []
    pending = []
    for task in parsed.tasks:
        state = known.tasks.get(task.id)
        since = starts_again(known.holds, root, task, now)
        if not task.enabled or since is None or (state is not None and state.done_at is not None):
            continue
        active += 1
        if state is None or state.active_since is None:
            continue
        late = passed(task.trigger, state.handled_until, now - LATE, added_at=state.added_at)
        pending += [late] if late else []
        handled = max(since, state.handled_until)
        moment = next_occurrence(task.trigger, handled, added_at=state.added_at)
        if moment is not None:
            planned.append((moment, task.id, task, state))
        if known.quiet_hours is not None:
            moment = next_start(task, known.quiet_hours, handled, added_at=state.added_at)
        if moment is not None:
            coming.append((moment.timestamp(), task.id))
    planned.sort(key=lambda one: one[:2])
    return Standing(
        refusal is None,
        refusal,
        count_tasks(parsed),
        active,
        sorted(coming) if refusal is None else (),
        holds,
        forecast((task, max(moment, now - LATE + _TICK), state.added_at) for moment, _, task, state in planned[:DUE]),
        pending,
        count_suspended(parsed),
    )


def read_standing(root: str, trusted: Project | None, known: Known, now: datetime) -> Standing:
    """How a project stands by its config on disk, approved or not."""
    refusal: str | None = NOT_APPROVED
    try:
        source = config.read_source(root)
        refusal = NOT_APPROVED if trusted is None else trusted.refusal(source)
        return stand(root, source.parse(), known, now, refusal=refusal)
    except SchedulerError as error:
        return Standing(refusal is None, error.message)


def entry(
    root: str,
    trusted: Project | None,
    known: Known,
    running: int,
    now: datetime,
    standing: Standing | None = None,
    runs: Sequence[dict[str, Any]] | None = None,
    *,
    alive: bool = False,
) -> dict[str, Any]:
    """A project's part of glance.json (disk/glance.py has its form). At most one git process, and a few small reads.

    `standing` and `runs` (`recent_runs`) spare who knows them already the reading. `alive`: a runner is at work.
    """
    standing = standing or read_standing(root, trusted, known, now)
    runs = recent_runs(root) if runs is None else runs
    recent = [run for run in runs if _ended(run) > (now - RECENT).timestamp()]
    enabled = trusted is not None and trusted.enabled
    broken = [{"kind": "config", "run": None, "task": None, "at": now.timestamp()}] if standing.broken else []
    overdue = sum_up(_neglected(known, standing, recent, alive), map(_began, _ran(recent))) if enabled else None
    return {
        "enabled": enabled,
        "trusted": standing.approved,
        "suspended": standing.suspended,
        "approved": [approval.digest[:16] for approval in trusted.approvals] if trusted else [],
        "approvals": _approvals(trusted, (now - RECENT).timestamp()) if trusted else [],
        "tasks": standing.tasks,
        "active": standing.active,
        "next": [{"task": task, "at": at} for at, task in standing.coming[:COMING]],
        "running": running,
        "recent": [_recent(r) for r in recent if r["status"] not in ("running", "skipped")][-glance.RECENT :],
        "open": [*_held(root, known, standing, enabled), *broken, *open_matters(root, runs, now)],
        "due": [at for at in standing.due if not _is_quiet(known, at)] if enabled else [],
        "overdue": overdue
        and {"due": overdue.due, "ran": overdue.ran, "since": overdue.since.timestamp(), "cause": overdue.cause},
    }


def _approvals(trusted: Project, since: float) -> list[dict[str, Any]]:
    """The approvals since then of which it is known who gave them, the newest last."""
    found = []
    for approval in trusted.approvals:
        at = _moment(approval.at)
        if approval.by is not None and at > since:
            found.append({"at": at, "by": approval.by.words(), "what": approval.what[:NAMED]})
    return found[-APPROVALS:]


def _is_quiet(known: Known, at: float) -> bool:
    return quiet_until(known.quiet_hours, datetime.fromtimestamp(at, timezone.utc)) is not None


def _neglected(known: Known, standing: Standing, recent: Sequence[dict[str, Any]], alive: bool) -> list[Neglected]:
    """What came due and did not run: what nobody dealt with, what holds pass over now, and what was missed since the
    last run."""
    absence = Absence.ASLEEP if alive else Absence.NO_RUNNER
    cause = known.absence or (absence if standing.approved else Absence.UNTRUSTED)
    found = [Neglected(span.count, span.first, cause) for span in standing.pending]
    for tally in known.tallies:
        found.append(Neglected(tally.count, datetime.fromisoformat(tally.record["startedAt"]), Reason(tally.reason)))
    last = max(map(_began, _ran(recent)), default=None)
    for run in recent:
        if run.get("reason") == "missed" and (last is None or _began(run) > last):
            found.append(missed(run.get("notes") or (), run.get("skippedCount") or 1, _was_due(run)))
    return found


def _ran(runs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (run for run in runs if run["status"] != "skipped")


def _was_due(run: dict[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(run["scheduledFor"])
    except (KeyError, ValueError, TypeError):
        return _began(run)


def _began(run: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(history.started(run), timezone.utc)


def _held(root: str, known: Known, standing: Standing, enabled: bool) -> list[dict[str, Any]]:
    """What keeps tasks of the project from running now, and the runs that met a usage limit and wait to go on."""
    found = []
    waits = enabled and standing.suspended is None
    for hold in standing.holds:
        if hold.cause is Cause.OFF:  # who tells of it looks at the switch itself
            continue
        matter = {
            "kind": hold.reason.value,
            "run": None if hold.run is None else hold.run[:8],
            "task": hold.task or None,
            "at": hold.since.timestamp(),
            "until": None if hold.until is None else hold.until.timestamp(),
            "by": hold.by,
            "scope": "task" if hold.task else "project" if hold.project else "all",
            "skipped": sum(t.count for t in known.tallies if hold.names(root, t.task) and t.reason == hold.reason),
        }
        waiting = known.waiting if waits and hold.cause is Cause.USAGE_LIMIT else ()
        named = [{**matter, "run": row.run_id[:8], "task": row.task, "scope": "run"} for row in waiting]
        found += named or [matter]
    told = {matter["run"] for matter in found if matter["scope"] == "run"}
    for row in known.waiting:
        if row.run_id[:8] not in told:
            why = "its project, which is suspended," if enabled else "its project to be enabled"
            why = "its turn" if waits else why
            at = history.started(row.record)
            found.append({"kind": "waiting", "run": row.run_id[:8], "task": row.task, "at": at, "by": why})
    return found


def recent_runs(root: str, bad: list[bytes] | None = None) -> list[dict[str, Any]]:
    """The records at the end of a project's history, folded, oldest first. `bad` gets the lines that hold none."""
    return history.fold(history.read_tail(paths.history_file(root), TAIL, bad))


def open_matters(root: str, runs: Sequence[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """What waits for a person, newest first: tasks whose last run failed of late; however long ago, branches to review
    and worktrees that stand though the run is over."""
    late = (now - RECENT).timestamp()
    last: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run["status"] not in ("running", "skipped"):
            last[run["taskId"]] = run
    unmerged, found = set[str](), list[dict[str, Any]]()
    try:
        unmerged = unmerged_branches(Path(root)) if any(r.get("worktreeBranch") for r in runs) else unmerged
    except SchedulerError as error:
        found.append({"kind": "git", "run": None, "task": None, "at": now.timestamp(), "by": error.message})
    for run in reversed(runs):
        about = {"run": run["id"][:8], "task": run["taskId"], "at": _ended(run)}
        if run["status"] in _FAILED and last.get(run["taskId"]) is run and about["at"] > late:
            loud = run.get("reason") if run.get("reason") in _LOUD else None
            found.append({"kind": "failed", **about, "work": bool(run.get("discardedRef")), "loud": loud})
        elif run["status"] == "success" and run.get("worktreeBranch") in unmerged:
            found.append({"kind": "review", **about})
        path = run.get("worktreePath")
        if run["status"] != "running" and path and os.path.isdir(path):
            found.append({"kind": "kept-worktree", **about, "path": path})
    return found


def _recent(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": run["id"][:8],
        "task": run["taskId"],
        "status": run["status"],
        "reason": run.get("reason"),
        "at": _ended(run),
        "costUsd": run.get("costUsd"),
    }


def _ended(run: dict[str, Any]) -> float:
    return _moment(run.get("completedAt") or run["startedAt"])


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
