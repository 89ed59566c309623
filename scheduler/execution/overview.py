"""What the hooks and `status` tell of a project at a glance: its tasks, what comes, what ran, what waits for people."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from scheduler.core.limits import Cause, quiet_until
from scheduler.core.models import from_json
from scheduler.core.overdue import Neglected, missed, sum_up
from scheduler.core.record import Reason, Record
from scheduler.disk import glance, paths
from scheduler.errors import SchedulerError
from scheduler.execution.eachref import unmerged_branches
from scheduler.execution.standing import Standing, read_standing
from scheduler.store import history
from scheduler.store.state import Known, RunRow
from scheduler.store.trust import Project

TAIL = 1 << 20  # bytes at the end of the history that are looked at
RECENT = timedelta(days=7)
COMING = 3  # occurrences told
APPROVALS, NAMED = 5, 10  # approvals told, and of each so many tasks
_FAILED = ("failure", "timeout")
_LOUD = ("containment", "self-edit")
_AWAITED = {
    Cause.USER: "its pause to end",
    Cause.OFF: "the off switch to be taken away",
    Cause.FAILURES: "its pause to end",
    Cause.BUDGET: "the budget of another day",
    Cause.USAGE_LIMIT: "that to end",
    Cause.CREDIT: "credit",
    Cause.AUTH: "a login",
}


def entry(
    root: str,
    trusted: Project | None,
    known: Known,
    running: int,
    now: datetime,
    standing: Standing | None = None,
    runs: Sequence[dict[str, Any]] | None = None,
    stamp: Sequence[int] | None = None,
) -> dict[str, Any]:
    """A project's part of glance.json (disk/glance.py has its form). At most one git process, and a few small reads.

    `standing` and `runs` (`recent_runs`) spare who knows them already the reading; `stamp`: that of the config before
    `standing` was made of it.
    """
    stamp = glance.stamp(root) if stamp is None else stamp
    standing = standing or read_standing(root, trusted, known, now)
    runs = recent_runs(root) if runs is None else runs
    recent = [run for run in runs if _ended(run) > (now - RECENT).timestamp()]
    enabled = trusted is not None and trusted.enabled
    broken = [{"kind": "config", "run": None, "task": None, "at": now.timestamp()}] if standing.broken else []
    overdue = sum_up(_neglected(known, standing, recent), map(_began, _ran(recent))) if enabled else None
    return {
        "enabled": enabled,
        "trusted": standing.approved,
        "suspended": standing.suspended,
        "stamp": list(stamp),
        "approved": [approval.digest[:16] for approval in trusted.approvals] if trusted else [],
        "approvals": _approvals(trusted, (now - RECENT).timestamp()) if trusted else [],
        "tasks": standing.tasks,
        "active": standing.active,
        "next": [{"task": task, "at": at} for at, task in standing.coming[:COMING]],
        "running": running,
        "recent": [_recent(r) for r in recent if r["status"] not in ("running", "skipped")][-glance.RECENT :],
        "open": [*_held(root, known, standing, enabled, now), *broken, *open_matters(root, runs, now)],
        "due": list(standing.due) if enabled else [],
        "held": [list(one) for one in standing.held] if enabled else [],
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


def _neglected(known: Known, standing: Standing, recent: Sequence[dict[str, Any]]) -> list[Neglected]:
    """What came due and did not run: what nobody dealt with, what holds pass over now, and what was missed since the
    last run. What is not to run any more does not count."""
    found = [*standing.pending]
    for tally in known.tallies:
        if _is_wanted(standing, tally.task):
            found.append(
                Neglected(tally.count, datetime.fromisoformat(tally.record["startedAt"]), Reason(tally.reason))
            )
    last = max(map(_began, _ran(recent)), default=None)
    for run in recent:
        if run.get("reason") != "missed" or not _is_wanted(standing, run["taskId"]):
            continue
        if last is None or _began(run) > last:
            found.append(missed(run.get("notes") or (), run.get("skippedCount") or 1, _was_due(run)))
    return found


def _is_wanted(standing: Standing, task: str) -> bool:
    return standing.enabled is None or task in standing.enabled


def _ran(runs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (run for run in runs if run["status"] != "skipped")


def _was_due(run: dict[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(run.get("skippedSince") or run["scheduledFor"])
    except (KeyError, ValueError, TypeError):
        return _began(run)


def _began(run: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(history.started(run), timezone.utc)


def _held(root: str, known: Known, standing: Standing, enabled: bool, now: datetime) -> list[dict[str, Any]]:
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
            why = _awaited(root, row, known, now) if waits else why
            at = history.started(row.record)
            found.append({"kind": "waiting", "run": row.run_id[:8], "task": row.task, "at": at, "by": why})
    return found


def _awaited(root: str, row: RunRow, known: Known, now: datetime) -> str:
    """What a run waits for that met a usage limit, in a project that is served."""
    record = from_json(Record, json.dumps(row.record))
    asked = isinstance(record, Record) and record.asked
    for hold in known.holds:
        covers = hold.names(root, row.task) and not hold.is_over(now)
        if covers and hold.keeps_from_going_on(asked=asked, began=_began(row.record)):
            return _AWAITED[hold.cause]
    return "its turn" if asked or quiet_until(known.quiet_hours, now) is None else "the quiet hours to end"


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
