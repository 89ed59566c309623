"""The record of what a hold passes over: when it is written, and what becomes of it when the disk refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.limits import Cause, Hold
from scheduler.core.models import Task, from_json
from scheduler.core.record import RunnerMark
from scheduler.core.schedule import Skipped
from scheduler.disk import paths as places
from scheduler.disk.paths import Paths
from scheduler.runner.ledger import Ledger
from scheduler.runner.projects import Projects
from scheduler.runner.skips import Skips
from scheduler.store import history
from scheduler.store.state import State
from tests.rig import shell_task

NOON = datetime(2026, 12, 1, 12, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)
MARK = RunnerMark(host="h", pid=1, version="0")


class Bed:
    """A project's tallies, with real files."""

    def __init__(self, folder: Path) -> None:
        self.root = str(folder / "project")
        self.paths = Paths({"SCHEDULER_HOME": str(folder / "state")})
        self.state = State(self.paths.state_db, NOON)
        self.state.sync(self.root, [("t", "digest", True)], NOON)
        self.hold = Hold(self.root, "", Cause.USER, NOON, None, "sam")
        made = from_json(Task, json.dumps(shell_task("t", "true")))
        assert isinstance(made, Task)
        self.task = made
        Path(places.logs_folder(self.root)).mkdir(parents=True)
        self.file = Path(places.history_file(self.root))
        self.skips = self.open()

    def open(self) -> Skips:
        """As a runner that starts does."""
        projects = Projects(self.paths, self.state, {})
        return Skips(self.state, Ledger(self.paths, self.state, projects, lambda record, at: None), projects, MARK)

    def pass_over(self, second: int) -> None:
        at = NOON + second * SECOND
        self.skips.pass_over(self.root, self.task, self.hold, Skipped(at, at, 1), at)

    def lines(self) -> list[dict[str, Any]]:
        return list(history.read(str(self.file)))


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.state.close()


def test_the_record_is_written_each_time_the_count_has_doubled(bed: Bed) -> None:
    for second in range(1, 21):
        bed.pass_over(second)
    assert [line["skippedCount"] for line in bed.lines()] == [1, 2, 4, 8, 16]
    bed.skips.settle([bed.hold], NOON + 20 * SECOND)
    assert len(bed.lines()) == 5
    bed.skips.settle([], NOON + 21 * SECOND)
    assert [line["skippedCount"] for line in bed.lines()][5:] == [20]
    assert {line["id"] for line in bed.lines()} == {bed.lines()[0]["id"]}
    assert bed.lines()[5]["scheduledFor"] == (NOON + 20 * SECOND).isoformat(timespec="milliseconds")
    assert bed.state.holds.tallies() == []
    bed.skips.settle([], NOON + 22 * SECOND)
    assert len(bed.lines()) == 6


def test_a_runner_that_starts_counts_on(bed: Bed) -> None:
    for second in range(1, 4):
        bed.pass_over(second)
    bed.skips = bed.open()
    bed.pass_over(4)
    bed.skips = bed.open()
    bed.skips.settle([], NOON + 5 * SECOND)
    assert [line["skippedCount"] for line in bed.lines()] == [1, 2, 4]
    assert bed.state.tasks(bed.root)["t"].handled_until == NOON + 4 * SECOND


def test_what_the_disk_refuses_is_written_later(bed: Bed) -> None:
    bed.file.mkdir()  # in the way
    bed.pass_over(1)
    bed.pass_over(2)
    bed.file.rmdir()
    bed.pass_over(3)  # too soon to try again
    assert bed.lines() == []
    bed.skips.settle([], NOON + 4 * SECOND)
    assert len(bed.state.holds.tallies()) == 1
    bed.skips.settle([], NOON + 40 * SECOND)
    assert [line["skippedCount"] for line in bed.lines()] == [3]
    assert bed.state.holds.tallies() == []
