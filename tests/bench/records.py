"""Records for the benchmarks, as a year of many tasks would leave them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from scheduler.core.record import Reason, Record, RunnerMark, Status
from scheduler.store import history, segments

BEGIN = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))
STEP = 60  # seconds between two runs
PROJECTS, TASKS = 5, 20


def _running(number: int) -> Record:
    chance = random.Random(number)
    run = f"{chance.getrandbits(32):08x}-{number & 0xFFFF:04x}-4000-8000-{chance.getrandbits(48):012x}"
    task = f"task-{chance.randrange(TASKS):02}"
    at = BEGIN + timedelta(seconds=STEP * number, milliseconds=chance.randrange(1000))
    return Record(
        id=run, task_id=task, task_name=f"Look after part {task[5:]}", project=f"/home/person/p{number % PROJECTS}",
        scheduled_for=at, started_at=at, status=Status.RUNNING, cron_expression="* * * * *", triggered_by="schedule",
        worktree_path=f"/home/person/.local/state/claude-scheduler/worktrees/p-0a1b2c3d/{task}-{run[:8]}",
        worktree_branch=f"claude-task/{task}-{at:%Y%m%dT%H%M}-{run[:8]}", base_commit=f"{number:040x}",
        session_id=run, runner=RunnerMark(host="workstation", pid=4711, version="0.1.0"),
    )  # fmt: skip


def final(number: int) -> Record:
    """The last record of a run; one in twenty failed."""
    begun, chance = _running(number), random.Random(-number)
    duration = chance.randrange(1000, 900_000)
    failed = number % 20 == 7
    return begun.evolve(
        status=Status.FAILURE if failed else Status.SUCCESS, reason=Reason.VERIFY_FAILED if failed else None,
        completed_at=begun.started_at + timedelta(milliseconds=duration), duration=duration, exit_code=0,
        cost_usd=chance.randrange(200) / 100, turns=chance.randrange(60), model="sonnet", files_changed=3,
        insertions=40, deletions=2, commit=f"{number:040x}", output="Updated three packages; all tests pass. " * 4,
    )  # fmt: skip


def lines(count: int) -> Iterator[bytes]:
    """`count` lines: of each run that it begins, and that it ended."""
    for number in range(count // 2):
        yield history.to_line(_running(number).to_json())
        yield history.to_line(final(number).to_json())


def write(path: Path, count: int) -> None:
    """A history of `count` records in parts as ours, the last of which is the one that is written to."""
    path.parent.mkdir(parents=True)
    file = path.open("wb")
    for line in lines(count):
        if file.tell() + len(line) > segments.LIMIT:
            file.close()
            path.rename(segments.next_name(str(path)))
            file = path.open("wb")
        file.write(line)
    file.close()
