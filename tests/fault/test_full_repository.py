"""The disk of the repository is full when the work of a run is to be kept: nothing is lost; `adopt` saves it later."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import repos
from tests.command import Command
from tests.rig import Rig, rig, shell_task
from tests.runs import nothing_left


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (that takes root's rights), so no disk can be full")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def own(tmp_path: Path, small_disk: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def test_what_found_no_room_is_adopted_when_there_is_some(own: Rig, small_disk: Path) -> None:
    root = own.repository(small_disk / "repo")
    cli = Command(root, own.env)
    own.enable(shell_task("job", "head -c 6000000 /dev/urandom > big; echo small > small"), project=root)
    own.start()
    final = own.run_to_end("job", root)
    run = final["id"][:8]
    assert (final["status"], final["reason"]) == ("failure", "not-kept")
    assert Path(final["worktreePath"], "big").stat().st_size == 6_000_000
    assert f"'adopt {run}' saves it once that is mended" in cli("status").out
    refused = cli("adopt", run, code=1).err
    assert "No space left on device" in refused and "then adopt it again" in refused
    assert Path(final["worktreePath"], "small").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    cli("adopt", run)
    kept = repos.committed(root, f"adopted/job-{run}")
    assert len(kept["big"][1]) == 6_000_000 and kept["small"][1] == b"small\n"
    assert cli("show", run, "--json").json["discardedRef"].endswith(final["id"])
    assert "worktree" not in cli("status").out
    own.stop()
    own.start()  # which empties the folder of what was moved aside
    nothing_left(own, root)
    repos.works_for_its_user(root)
