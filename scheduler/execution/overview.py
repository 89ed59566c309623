"""What the hooks and `status` tell of a project at a glance: its tasks, what comes, what ran, what waits for people."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from scheduler.core.limits import Cause, Hold, starts_again
from scheduler.core.models import Task
from scheduler.core.parse import Config
from scheduler.core.schedule import next_occurrence
from scheduler.disk import paths
from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.store import config, history
from scheduler.store.state import Known
from scheduler.store.trust import Project

TAIL = 1 << 20  # bytes at the end of the history that are looked at
RECENT = timedelta(days=7)
COMING = 3  # occurrences told
_FAILED = ("failure", "timeout")


@dataclass(frozen=True)
class Standing:
    """What a project's config comes to: how many tasks it names, how many of them may still fire, which come next
    (epoch seconds and id, ascending), what keeps some from starting now. `suspended` says why none may."""

    approved: bool
    suspended: str | None
    tasks: int
    active: int
    coming: Sequence[tuple[float, str]]
    holds: Sequence[Hold] = ()


def count_tasks(known: Config) -> int:
    """The tasks that a config names, those that an error suspends too."""
    return len(known.tasks) + count_suspended(known)


def count_suspended(known: Config) -> int:
    """The tasks that an error suspends, told apart by where they stand: an id may be wrong, or stand twice."""
    return len({problem.place.partition("]")[0] for problem in known.problems if not problem.warning})


def outlook(
    root: str, tasks: Collection[Task], known: Known, now: datetime
) -> tuple[int, list[tuple[float, str]], list[Hold]]:
    """How many of a project's tasks start by themselves, now or when a hold ends; what comes next of each; and the
    holds that cover any."""
    active = 0
    coming = []
    live = [hold for hold in known.holds if not hold.is_over(now)]
    holds = [hold for hold in live if any(hold.covers(root, task) for task in tasks)]
    for task in tasks:
        state = known.tasks.get(task.id)
        since = starts_again(known.holds, root, task, now)
        if not task.enabled or since is None or (state is not None and state.done_at is not None):
            continue
        active += 1
        if state is not None and state.active_since is not None:
            since = max(since, state.handled_until)
            moment = next_occurrence(task.trigger, since, added_at=state.added_at)
            if moment is not None:
                coming.append((moment.timestamp(), task.id))
    return active, sorted(coming), holds


def read_standing(root: str, trusted: Project | None, known: Known, now: datetime) -> Standing:
    """How a project stands by its config on disk, approved or not."""
    approved = False
    try:
        source = config.read_source(root)
        approved = trusted is not None and trusted.approves(source)
        parsed = source.parse()
    except SchedulerError as error:
        return Standing(approved, error.message, 0, 0, ())
    active, coming, holds = outlook(root, parsed.tasks, known, now)
    why = None if approved else "its config is not the one that was approved"
    return Standing(approved, why, count_tasks(parsed), active, coming if approved else (), holds)


def entry(
    root: str,
    trusted: Project | None,
    known: Known,
    running: int,
    now: datetime,
    standing: Standing | None = None,
) -> dict[str, Any]:
    """A project's part of glance.json (disk/glance.py has its form). At most one git process, and a few small reads.

    `standing` spares who knows it already the reading of the config.
    """
    standing = standing or read_standing(root, trusted, known, now)
    recent = [r for r in recent_runs(root) if _ended(r) > (now - RECENT).timestamp()]
    return {
        "enabled": trusted is not None and trusted.enabled,
        "trusted": standing.approved,
        "suspended": standing.suspended,
        "tasks": standing.tasks,
        "active": standing.active,
        "next": [{"task": task, "at": at} for at, task in standing.coming[:COMING]],
        "running": running,
        "recent": [_recent(r) for r in recent if r["status"] not in ("running", "skipped")][-50:],
        "open": [*_held(root, known, standing.holds), *open_matters(root, recent)][:20],
    }


def _held(root: str, known: Known, holds: Sequence[Hold]) -> list[dict[str, Any]]:
    """What keeps tasks of the project from running now, and the runs that wait for it to end."""
    found = []
    for hold in holds:
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
        waiting = known.waiting if hold.cause is Cause.USAGE_LIMIT else ()
        named = [{**matter, "run": row.run_id[:8], "task": row.task, "scope": "run"} for row in waiting]
        found += named or [matter]
    return found


def recent_runs(root: str) -> list[dict[str, Any]]:
    """The records at the end of a project's history, folded, oldest first."""
    return history.fold(history.read_tail(paths.history_file(root), TAIL))


def open_matters(root: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What waits for a person: tasks whose last run failed, branches to review, worktrees that stand though the run is
    over."""
    last: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run["status"] not in ("running", "skipped"):
            last[run["taskId"]] = run
    unmerged = git.unmerged_branches(Path(root)) if any(r.get("worktreeBranch") for r in runs) else set()
    found = []
    for run in reversed(runs):
        about = {"run": run["id"][:8], "task": run["taskId"], "at": _ended(run)}
        if run["status"] in _FAILED and last.get(run["taskId"]) is run:
            found.append({"kind": "failed", **about, "work": bool(run.get("discardedRef"))})
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
    try:
        return datetime.fromisoformat(run.get("completedAt") or run["startedAt"]).timestamp()
    except ValueError:
        return 0.0
