"""C: the machine is carried to another time zone while the runner lives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import TZPATH

import pytest

from tests.command import PACKAGE
from tests.rig import Rig, rig, shell_task, wait_until

BEHIND = """\
mount --bind "$1" /etc/localtime || exit 9
shift
exec "$@"
"""


def zone(name: str) -> bytes:
    return next(file for file in (Path(folder, name) for folder in TZPATH) if file.is_file()).read_bytes()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        made.env.pop("TZ", None)
        yield made


def test_the_runner_goes_by_the_zone_that_the_machine_is_in_now(own: Rig, tmp_path: Path) -> None:
    """C10."""
    localtime = tmp_path / "localtime"
    localtime.write_bytes(zone("Etc/UTC"))
    own.enable(shell_task("job", "true"))
    start = [sys.executable, "-I", str(PACKAGE), "start"]
    command = ["unshare", "-rm", "sh", "-c", BEHIND, "sh", str(localtime), *start]
    done = subprocess.run(command, env=own.env, cwd=own.project, capture_output=True, text=True, timeout=60)
    if done.returncode == 9:
        pytest.skip("nothing can be mounted over /etc/localtime here")
    assert done.returncode == 0, done.stderr
    assert own.run_to_end("job")["startedAt"].endswith("+00:00")
    localtime.write_bytes(zone("Asia/Tokyo"))
    os.utime(localtime, (1e9, 1e9))
    wait_until(lambda: own.run_to_end("job")["startedAt"].endswith("+09:00"))
