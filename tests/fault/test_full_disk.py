"""A disk that is full under a living runner (A4, A18, F28), and worktrees that had to stay for it: nothing is lost, and
all goes on by itself once there is room.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.overdue import Absence
from scheduler.execution import process
from tests import repos
from tests.build import Clock, spawn
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import discarded_tree, kill, nothing_left
from tests.soak import small_disk


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def glanced(own: Rig) -> dict[str, Any]:
    """What the hooks know of the project."""
    entry: dict[str, Any] = json.loads(Path(own.paths.glance).read_text())["projects"][str(own.project)]
    return entry


def fill(disk: Path) -> Path:
    """A file that leaves no byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(1 << 16))
            except OSError:
                return ballast


def test_a_runner_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """A4, A18: what comes due meanwhile is claimed later, once; what ends meanwhile is on record later, once."""
    with small_disk(tmp_path / "disk", "120m") as disk:
        if disk is None:
            pytest.skip("a small file system cannot be mounted here (that takes root's rights), so no disk can be full")
        with rig(disk) as own:
            clock, begin = Clock(tmp_path / "clock"), datetime.now(timezone.utc)
            clock.set(begin, 1)
            gate, ran = tmp_path / "gate", tmp_path / "ran"
            hour = {"type": "once", "at": (begin + timedelta(hours=1)).isoformat()}
            own.enable(
                shell_task("long", f"echo x > made; touch {gate}.reached; while ! test -e {gate}; do sleep 0.02; done"),
                shell_task("due", f"echo x >> {ran}", trigger=hour),
                since=begin,
            )
            pid = spawn(own, clock=clock)
            wait_until(lambda: Path(own.paths.runner_sock).exists())
            long = own.run("long")
            wait_until(Path(f"{gate}.reached").exists)
            ballast = fill(disk)
            clock.jump(timedelta(hours=1, seconds=5), 1)
            gate.touch()
            wait_until(lambda: any(word in own.log() for word in ("cannot be written", "nearly full")), what=own.log())
            ballast.unlink()
            record = own.record(long)
            assert record["status"] == "success" or record["reason"] in ("commit-rejected", "not-kept"), record
            assert record.get("commit") or record.get("discardedRef") or Path(record["worktreePath"], "made").exists()
            (due,) = wait_until(lambda: [r for r in own.task_records("due") if r["status"] == "success"])
            assert process.start_time(pid) is not None and ran.read_text() == "x\n"
            assert due.get("notes") is None or Absence.NO_RUNNER.note() not in due["notes"]
            wait_until(lambda: {one["run"] for one in glanced(own)["recent"]} == {record["id"][:8], due["id"][:8]})
            own.stop(at_once=False)
            repos.works_for_its_user(own.project)


@pytest.mark.parametrize("end", ["exit 3", "true"])
def test_a_worktree_that_could_not_be_removed_is_taken_away_later(own: Rig, end: str) -> None:
    """F28."""
    own.enable(shell_task("job", f"echo half > half.txt; {end}"), shell_task("idle", "true"))
    own.start()
    trash = Path(own.run_to_end("idle")["worktreePath"]).parent / ".trash"
    wait_until(lambda: not trash.exists() or not os.listdir(trash))
    if trash.exists():
        trash.rmdir()
    trash.write_text("in the way")
    run = own.run_to_end("job")
    folder = Path(run["worktreePath"])
    assert folder.is_dir() and any("worktree" in note for note in run["notes"])
    own.stop()
    trash.unlink()
    own.start()  # looks at its start, and each hour
    wait_until(lambda: not folder.exists())
    after = wait_until(lambda: (found := own.record(run["id"])) != run and found)
    assert (after["status"], after.get("reason")) == (run["status"], run.get("reason"))
    assert after["notes"][-1] == "its worktree could be taken away later; nothing of it was lost"
    if end == "true":
        assert own.git("show", f"{after['worktreeBranch']}:half.txt") == "half\n"
    else:
        assert discarded_tree(own.project, after)["half.txt"][1] == b"half\n" and "worktreeBranch" not in after
    nothing_left(own)
    repos.works_for_its_user(own.project)


def test_a_worktree_in_which_somebody_went_on_stays(own: Rig) -> None:
    """F29."""
    own.enable(shell_task("job", "echo half > half.txt"), shell_task("idle", "true"))
    own.start()
    trash = Path(own.run_to_end("idle")["worktreePath"]).parent / ".trash"
    wait_until(lambda: not trash.exists() or not os.listdir(trash))
    if trash.exists():
        trash.rmdir()
    trash.write_text("in the way")
    run = own.run_to_end("job")
    own.stop()
    trash.unlink()
    mine = Path(run["worktreePath"], "mine.txt")
    mine.write_text("mine\n")
    kill(own.start())
    own.start()
    own.run_to_end("idle")
    own.stop()
    assert mine.read_text() == "mine\n" and own.records(own.project)[1] == run
