"""Records of runs: where they are found, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from scheduler.cli import output
from scheduler.core import format as fmt
from scheduler.disk import paths
from scheduler.store import history

TRIGGERS = {"schedule": "on time", "catch-up": "caught up", "manual": "by hand", "retry": "retried"}


def all_of(root: str) -> list[dict[str, Any]]:
    """Every run of a project, in the order in which they began to be told of."""
    return history.fold(history.read(paths.history_file(root)))


def of_task(root: str, task_id: str) -> list[dict[str, Any]]:
    """The runs of a task, the latest first."""
    return [run for run in reversed(all_of(root)) if run["taskId"] == task_id]


def find(root: str, prefix: str) -> dict[str, Any]:
    """The run of a project whose id begins with `prefix`. SchedulerError when none or several do."""
    return history.find_run(all_of(root), prefix)


def standing(run: dict[str, Any]) -> str:
    """How a run stands, by sign and word, with the reason."""
    return fmt.status(run["status"], run.get("reason"))


def age(run: dict[str, Any], now: datetime) -> str:
    """When it ended, or began, from now."""
    return output.instant(run.get("completedAt") or run["startedAt"], now)


def table(runs: Sequence[dict[str, Any]], now: datetime, *, projects: bool = False) -> None:
    """Runs, one a line."""
    columns = [
        "RUN",
        *(["PROJECT"] if projects else []),
        "TASK",
        "STATUS",
        "STARTED",
        "TOOK",
        "CHANGED",
        "COST",
        "WHAT",
    ]
    rows = [_row(run, now, projects) for run in runs]
    output.table(columns, rows, wrap=["PROJECT", "TASK", "STATUS", "WHAT"])


def _row(run: dict[str, Any], now: datetime, projects: bool) -> list[str]:
    took = run.get("duration")
    cost = run.get("costUsd")
    files = run.get("filesChanged")
    return [
        run["id"][:8],
        *([run["project"]] if projects else []),
        run["taskId"],
        standing(run),
        output.instant(run["startedAt"], now),
        fmt.duration(took / 1000) if isinstance(took, (int, float)) else "",
        f"{fmt.count(files, 'file')} +{run.get('insertions') or 0} -{run.get('deletions') or 0}" if files else "",
        fmt.money(cost) if isinstance(cost, (int, float)) else "",
        _what(run),
    ]


def _what(run: dict[str, Any]) -> str:
    """The one thing about a run that tells most: where its work is, or why there is none."""
    said = run.get("error") or run.get("worktreeBranch") or ""
    marks = [] if run.get("isolated", True) else ["not isolated"]
    count = run.get("skippedCount")
    if isinstance(count, int) and count > 1:
        marks.append(f"{count} occurrences")
    return ", ".join([*marks, str(said)] if said else marks)[:200]


_TIMES = ("scheduledFor", "startedAt", "completedAt", "resetsAt")


def lines(run: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    """All that a record holds, as names and values."""
    found = []
    for name, value in run.items():
        if name in _TIMES:
            found.append((name, _time(value, now)))
        elif name == "status":
            found.append((name, standing(run)))
        elif name == "duration":
            found.append((name, fmt.duration(value / 1000)))
        elif name == "costUsd":
            found.append((name, fmt.money(value)))
        elif name == "notes":
            found.append((name, "\n".join(map(str, value))))
        elif name != "reason":
            found += output.fields({name: value})
    return found


def _time(text: Any, now: datetime) -> str:
    try:
        return output.moment(datetime.fromisoformat(text), now)
    except (ValueError, TypeError):
        return str(text)
