"""Records of runs: where they are found, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from scheduler.cli import output
from scheduler.core import format as fmt
from scheduler.core.query import Query, Run, number
from scheduler.core.record import Status
from scheduler.disk.paths import Paths, history_file
from scheduler.store import search

TRIGGERS = {"schedule": "on time", "catch-up": "caught up", "manual": "by hand", "retry": "retried"}


def latest(paths: Paths, root: str, **query: Any) -> list[Run]:
    """The runs of a project that a `Query` asks for, the latest first."""
    return list(search.newest(paths, history_file(root), Query(**query)))


def find(paths: Paths, root: str, prefix: str) -> Run:
    """The run of a project whose id begins with `prefix`. SchedulerError when none or several do."""
    return search.find(paths, history_file(root), prefix)


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
    took, cost, files = (number(run, name) for name in ("duration", "costUsd", "filesChanged"))
    changed = (number(run, name) or 0 for name in ("insertions", "deletions"))
    return [
        run["id"][:8],
        *([run["project"]] if projects else []),
        run["taskId"],
        standing(run),
        output.instant(run["startedAt"], now),
        "" if took is None else fmt.duration(took / 1000),
        "{} +{:.0f} -{:.0f}".format(fmt.count(int(files), "file"), *changed) if files else "",
        "" if cost is None else fmt.money(cost),
        _what(run),
    ]


def _what(run: dict[str, Any]) -> str:
    """The one thing about a run that tells most: where its work is, or why there is none."""
    said = run.get("error") or run.get("worktreeBranch") or ""
    marks = [] if run.get("isolated", True) else ["not isolated"]
    marks += ["in a sandbox"] if run.get("sandbox") else []
    count = run.get("skippedCount")
    if isinstance(count, int) and count > 1:
        marks.append(f"{count} occurrences")
    return ", ".join([*marks, str(said)] if said else marks)[:200]


def share(value: float | None) -> str:
    """A share of 1 as per cent."""
    return "" if value is None else f"{value:.1%}"


def summary(found: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    """Statistics (`core.statistics.summary`) as names and values."""
    took, streak, gap = found["duration"], found["streak"], found["longestGap"]
    pairs = [("runs", f"{found['runs']:,}")]
    pairs += [(status, f"{count:,}") for status, count in found["statuses"].items()]
    pairs.append(("success rate", share(found["successRate"]) or "no run has an outcome yet"))
    if took:
        pairs += [(name, fmt.duration(took[name] / 1000)) for name in ("average", "median", "p95")]
    pairs += [("cost", fmt.money(found["costUsd"])), ("turns", f"{found['turns']:,}")]
    pairs.append(("failures in 24 h", str(found["failures24h"])))
    if streak:
        pairs.append(("streak", fmt.count(streak["runs"], "good run" if streak["success"] else "failed run")))
    if gap:
        begun = _time(gap["from"], now)
        pairs.append(("longest gap", f"{fmt.duration(gap['milliseconds'] / 1000)}, from {begun}"))
    return pairs


def groups(by: str, found: Sequence[dict[str, Any]]) -> None:
    """Statistics of each task, project, day or reason (`core.statistics.divided`), one a line."""
    if not found:
        output.say("no runs")
        return
    words = [str(status) for status in Status]
    columns = [by.upper(), "RUNS", *(word.upper() for word in words), "RATE", "AVERAGE", "MEDIAN", "P95"]
    columns += ["COST", "TURNS", "FAILED 24H", "STREAK", "GAP"]
    output.table(columns, [_group(by, words, one) for one in found], wrap=columns)


def _group(by: str, words: Sequence[str], one: dict[str, Any]) -> list[str]:
    took, streak, gap = one["duration"] or {}, one["streak"], one["longestGap"]
    return [
        str(one[by] or "-"),
        f"{one['runs']:,}",
        *(f"{one['statuses'][word]:,}" if one["statuses"][word] else "" for word in words),
        share(one["successRate"]),
        *(fmt.duration(took[name] / 1000) if took else "" for name in ("average", "median", "p95")),
        fmt.money(one["costUsd"]) if one["costUsd"] else "",
        f"{one['turns']:,}" if one["turns"] else "",
        str(one["failures24h"] or ""),
        f"{streak['runs']:,} {'good' if streak['success'] else 'failed'}" if streak else "",
        fmt.duration(gap["milliseconds"] / 1000) if gap else "",
    ]


_TIMES = ("scheduledFor", "startedAt", "completedAt", "resetsAt")


def lines(run: dict[str, Any], now: datetime) -> list[tuple[str, str]]:
    """All that a record holds, as names and values."""
    found = []
    for name, value in run.items():
        if name in _TIMES:
            found.append((name, _time(value, now)))
        elif name == "status":
            found.append((name, standing(run)))
        elif name == "duration" and number(run, name) is not None:
            found.append((name, fmt.duration(value / 1000)))
        elif name == "costUsd" and number(run, name) is not None:
            found.append((name, fmt.money(value)))
        elif name == "notes" and isinstance(value, list):
            found.append((name, "\n".join(map(str, value))))
        elif name != "reason":
            found += output.fields({name: value})
    return found


def _time(text: Any, now: datetime) -> str:
    try:
        return output.moment(datetime.fromisoformat(text), now)
    except (ValueError, TypeError):
        return str(text)
