from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from scheduler.disk import files, paths
from scheduler.store import tasklog
from scheduler.store.tasklog import TaskLog

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)
RUN = "0b6c1c9e-6d0f-4c3e-9a54-2f7f5d1f8a11"


@pytest.fixture
def log(tmp_path: Path) -> TaskLog:
    return TaskLog(str(tmp_path), "a", RUN)


def written(tmp_path: Path, *, error: bool = False) -> bytes:
    path = paths.task_log(str(tmp_path), "a", error=error)
    return b"".join(Path(part).read_bytes() for part in [*files.rotated(path), path])


def test_a_line_has_its_time_and_run(tmp_path: Path, log: TaskLog) -> None:
    log.write(["one", "", "naïve \udcff"], NOW)
    log.close(NOW)
    prefix = "[2026-12-01T09:00:00.000+00:00] [0b6c1c9e] "
    assert written(tmp_path).decode() == f"{prefix}one\n{prefix}\n{prefix}naïve ?\n"


def test_errors_have_a_file_of_their_own(tmp_path: Path) -> None:
    log = TaskLog(str(tmp_path), "a", RUN, error=True)
    log.write(["bad"], NOW)
    assert written(tmp_path, error=True).endswith(b"bad\n")
    assert not Path(paths.task_log(str(tmp_path), "a")).exists()


def test_nothing_is_written_where_nothing_was_said(tmp_path: Path, log: TaskLog) -> None:
    log.write([], NOW)
    log.close(NOW)
    assert list(tmp_path.iterdir()) == []


def test_of_much_output_the_head_and_the_tail_stay(tmp_path: Path, log: TaskLog) -> None:
    count = 2000
    for number in range(count):
        log.write([f"{number} " + "x" * 16000], NOW)
    log.close(NOW)
    data = written(tmp_path)
    assert len(data) < tasklog.HEAD + tasklog.TAIL + 100_000
    said = re.search(rb"(\d+) bytes dropped", data)
    assert said is not None
    numbers = [int(line.split()[2]) for line in data.splitlines() if b"dropped" not in line]
    gap = next(i for i, number in enumerate(numbers) if number != i)
    assert numbers == [*range(gap), *range(numbers[gap], count)]
    assert abs(int(said[1]) - (numbers[gap] - gap) * 16060) < 20 * (numbers[gap] - gap)


def test_a_full_log_is_renamed_and_nothing_is_lost(tmp_path: Path) -> None:
    path = paths.task_log(str(tmp_path), "a")
    files.append(path, b"y" * (tasklog.ROTATE - 100) + b"\n")
    log = TaskLog(str(tmp_path), "a", RUN)
    log.write(["z" * 200], NOW)
    (part,) = files.rotated(path)
    assert Path(part).stat().st_size == tasklog.ROTATE - 99
    assert Path(path).read_bytes().endswith(b"z\n")
