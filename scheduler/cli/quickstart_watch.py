"""What `quickstart` tells while its tasks run: each step as it happens, read from history and logs."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from scheduler.core import format as fmt
from scheduler.core.plain import plain
from scheduler.disk import paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import process
from scheduler.runner import control
from scheduler.store import config, history

LOOK = 0.1  # seconds between two looks
_GRANDCHILD = re.compile(r"grandchild (\d+) ignores SIGTERM")
_LOG_LINE = re.compile(r"\[[^]]*\] \[[0-9a-f]{8}\] (.*)")


@dataclass
class _Seen:
    """What was told already."""

    started: set[str] = field(default_factory=set)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    grandchild: int | None = None


def follow(own: Paths, root: str, patience: float) -> dict[str, dict[str, Any]]:
    """Tell what happens until every task has ended; their final records by task. SchedulerError when that is long."""
    tasks = config.read_source(root).parse().tasks
    for task in tasks:
        if task.trigger.type == "once":
            _tell(task.id, f"waiting: due at {task.trigger.at:%H:%M:%S} — {task.name.lower()}")
    seen = _Seen()
    end = time.monotonic() + patience
    while len(seen.ended) < len(tasks):
        if time.monotonic() > end:
            raise SchedulerError("the tasks did not end in time", f"see {own.runner_log} (with --keep)")
        if control.request(own, {"verb": "status"}) is None:
            raise SchedulerError("the runner ended", f"its last words: {_last_line(own.runner_log)}")
        for record in history.read(paths.history_file(root)):  # not folded: of a quick run the start is told too
            _started(record, seen)
            _output(root, record["taskId"], seen)
            _ended(record, seen)
        time.sleep(LOOK)
    return seen.ended


def _started(record: dict[str, Any], seen: _Seen) -> None:
    task = record["taskId"]
    if task in seen.started:
        return
    seen.started.add(task)
    late = datetime.fromisoformat(record["startedAt"]) - datetime.fromisoformat(record["scheduledFor"])
    _tell(task, f"started, {int(late.total_seconds() * 1000)} ms after its moment")
    _tell(task, f"worktree {record['worktreePath']}")
    _tell(task, f"on branch {record['worktreeBranch']}")


def _output(root: str, task: str, seen: _Seen) -> None:
    file = Path(paths.task_log(root, task))
    if not file.exists():
        return
    data = file.read_bytes()[seen.read.get(task, 0) :]
    whole = data[: data.rfind(b"\n") + 1]
    seen.read[task] = seen.read.get(task, 0) + len(whole)
    for line in whole.decode("utf-8", "replace").splitlines():
        found = _LOG_LINE.fullmatch(line)
        if found and not found[1].startswith(("run: ", "end: ")):
            _tell(task, f"| {found[1]}")
            told = _GRANDCHILD.search(found[1])
            seen.grandchild = int(told[1]) if told else seen.grandchild


def _ended(record: dict[str, Any], seen: _Seen) -> None:
    task = record["taskId"]
    if task in seen.ended or record["status"] == "running":
        return
    seen.ended[task] = record
    took = fmt.duration(record["duration"] / 1000)
    colour = "green" if record["status"] == "success" else "red"
    _tell(task, click.style(f"{fmt.status(record['status'], record.get('reason'))} after {took}", fg=colour))
    if record.get("error"):
        _tell(task, record["error"])
    if record.get("commit"):
        _tell(task, f"kept: {record['filesChanged']} file changed, on its branch, as commit {record['commit'][:8]}")
    if record.get("discardedRef"):
        _tell(task, f"rolled back; its work is under {record['discardedRef']}")
    if task == "stuck" and seen.grandchild is not None and process.start_time(seen.grandchild) is None:
        _tell(task, f"process {seen.grandchild}, which ignored SIGTERM, is gone")


def _tell(task: str, text: str) -> None:
    click.echo(f"{datetime.now():%H:%M:%S}  {task:<6} {plain(text) if not text.startswith(chr(27)) else text}")


def _last_line(file: str) -> str:
    try:
        return Path(file).read_text("utf-8", "replace").strip().rpartition("\n")[2]
    except OSError:
        return "none"
