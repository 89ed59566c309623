"""`quickstart --claude`: the first task by the real client."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from scheduler.runner import control
from tests.client import client_environment
from tests.standin import StandIn, text, tool


def test_the_first_task_is_done_by_the_real_client(client: Path, tmp_path: Path) -> None:
    tools, home = tmp_path / "bin", tmp_path / "home"
    tools.mkdir()
    home.mkdir()
    (tools / "claude").symlink_to(client)
    edit = {"file_path": "NOTES.md", "old_string": "- first line\n", "new_string": "- first line\n- by the client\n"}
    with StandIn() as api:
        api.play([tool("Read", file_path="NOTES.md"), tool("Edit", **edit), text("The line is there.")])
        env = client_environment(home, api)
        env["PATH"] = f"{tools}:{env['PATH']}"
        done = subprocess.run(
            [sys.executable, "-I", control.package_folder(), "quickstart", "--claude"],
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"tidy +✓ success", done.stdout), done.stdout
    assert "+- by the client" in done.stdout
    assert list((home / "tmp").glob("claude-scheduler-*")) == []
