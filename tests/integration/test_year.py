"""A year of an hourly task, with a clock of the test's own."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from scheduler.core.models import ProjectSettings, UserSettings
from scheduler.core.query import Query
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.hooks import change
from scheduler.runner import upkeep
from scheduler.store import history, search
from scheduler.store.state import State
from scheduler.store.tasklog import TaskLog

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
OUTPUT = [f"{number}: " + "the tests of this part passed, and so did those of the next " * 2 for number in range(60)]
ANSWER = b"Updated three packages and ran the tests; all of them passed.\n" * 40
LIMIT = 50 * 1000 * 1000


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a year has 17,000 calls of fsync."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    yield folder
    shutil.rmtree(folder)


def one_hour(where: Paths, project: str, state: State, at: datetime) -> None:
    """What one run writes: the state, the records, the log, the answer, what the hook saw."""
    run = str(uuid.UUID(int=int(at.timestamp()) << 90))
    begun = Record(
        id=run, task_id="hourly", task_name="Look after the dependencies", project=project, scheduled_for=at,
        started_at=at, status=Status.RUNNING, cron_expression="0 * * * *", triggered_by="schedule",
        worktree_path=f"{where.worktrees}/project-0a1b2c3d/hourly-{run[:8]}", base_commit="1" * 40,
        worktree_branch=f"claude-task/hourly-{at:%Y%m%dT%H%M}-{run[:8]}", session_id=run,
        runner=RunnerMark(host="workstation", pid=4711, version="0.1.0"),
    )  # fmt: skip
    state.claim(begun.to_json(), at, at, handled=at)
    history.append(where, begun)
    changes = b'{"at":"%s","run":"%s","path":"src/some/module.py"}\n' % (at.isoformat().encode(), run.encode())
    files.append(paths.file_changes(project), changes * 3, limit=change.LIMIT)
    log = TaskLog(project, "hourly", run)
    log.write(OUTPUT, at)
    log.close(at)
    files.write_atomic(paths.result_file(project, run), ANSWER, durable=False)
    end = at + timedelta(minutes=3)
    said = ANSWER.decode()[-2000:]
    history.append(where, begun.evolve(status=Status.SUCCESS, completed_at=end, duration=180_000, output=said,
                                       commit="2" * 40, files_changed=3, insertions=40, deletions=2, cost_usd=0.42,
                                       turns=12, model="sonnet", exit_code=0))  # fmt: skip
    state.finish(run, project, "hourly", failed=False, cost=(0.42, end))


def touched(folder: Path, seen: dict[str, int], at: datetime) -> None:
    """Give what was written since the last time the time that the clock showed."""
    for path in folder.rglob("*"):
        now = path.lstat().st_mtime_ns
        if path.is_file() and seen.get(str(path)) != now:
            os.utime(path, (at.timestamp(),) * 2)
            seen[str(path)] = path.lstat().st_mtime_ns


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("days", [35, pytest.param(366, marks=pytest.mark.full)])
def test_a_year_of_an_hourly_task_stays_small(memory: Path, days: int) -> None:
    """Below 50 MB, with all that is written: histories, logs, answers, changes, state, index."""
    project = memory / "project"
    project.mkdir()
    where = Paths({"HOME": str(memory), "SCHEDULER_HOME": str(memory / "state")})
    state = State(where.state_db, BEGIN)
    state.sync(str(project), [("hourly", "t", True)], BEGIN)
    largest = 0
    seen: dict[str, int] = {}
    for day in range(days):
        for hour in range(24):
            one_hour(where, str(project), state, BEGIN + timedelta(days=day, hours=hour))
        now = BEGIN + timedelta(days=day + 1)
        assert next(search.newest(where, where.global_history, Query(limit=1)))["status"] == "success"
        touched(memory, seen, now)
        largest = max(largest, size(memory))
        assert list(upkeep.tidy(where, {str(project): ProjectSettings()}, UserSettings(), (), now)) == []
    state.close()
    print(f"{days} days: at most {largest / 1e6:.1f} MB")
    assert largest < LIMIT, f"{largest / 1e6:.1f} MB"
    for path in (where.global_history, paths.history_file(str(project))):
        records = history.fold(history.read(path))
        assert len(records) == days * 24 and all(record["status"] == "success" for record in records)
    kept = len(os.listdir(os.path.dirname(paths.result_file(str(project), records[-1]["id"]))))
    assert 30 * 24 - 24 <= kept <= 31 * 24
