"""`quickstart` as a new user meets it: it tells the truth, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from scheduler.runner import control
from tests import canary
from tests.rig import wait_until


def command(*words: str) -> list[str]:
    return [sys.executable, "-I", control.package_folder(), "quickstart", *words]


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    return {
        "PATH": os.environ["PATH"],
        **canary.ENVIRONMENT,
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "LANG": "C.UTF-8",
    }


def left_behind(env: dict[str, str]) -> list[str]:
    """Processes that still have something to do with the throw-away folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if env["TMPDIR"].encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def files_below(folder: str) -> list[str]:
    return [str(path) for path in Path(folder).rglob("*") if path.is_file()]


def test_three_tasks_run_and_nothing_is_left(place: dict[str, str]) -> None:
    done = subprocess.run(command(), env=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    for part in (
        r"tidy +waiting: due at",
        r"tidy +worktree /.*/tidy-[0-9a-f]{8}",
        r"tidy +\| adding a line to NOTES.md",
        r"tidy +✓ success",
        r"break +✗ failure \(exit-code\)",
        r"break +rolled back; its work is under refs/claude-scheduler/discarded/",
        r"stuck +! timeout",
        r"stuck +process \d+, which ignored SIGTERM, is gone",
        r"\+- written by a scheduled task",
        r"draft.txt +\| +1 \+",
        r"scheduler add ",
    ):
        assert re.search(part, said), f"{part} is not in\n{said}"
    checkout = said.partition("git status --short && git log --oneline\n")[2]
    assert re.match(r"[0-9a-f]+ Schedule three tasks\n[0-9a-f]+ First commit\n", checkout), checkout
    wait_until(lambda: not left_behind(place), 5, f"for the end of {left_behind(place)}")
    assert files_below(place["TMPDIR"]) == [] and files_below(place["HOME"]) == []
    assert os.listdir(place["TMPDIR"]) == []


def test_an_interrupt_leaves_nothing_either(place: dict[str, str]) -> None:
    with subprocess.Popen(command(), env=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "ignores SIGTERM" in line:
                break
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    wait_until(lambda: not left_behind(place), 5, "for the end of all processes")
    assert os.listdir(place["TMPDIR"]) == []


def test_keep_keeps_the_repository(place: dict[str, str]) -> None:
    began = time.monotonic()
    done = subprocess.run(command("--keep"), env=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 60
    (folder,) = Path(place["TMPDIR"]).iterdir()
    assert [p.name for p in folder.iterdir()] == ["repository"]
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)"], cwd=folder / "repository", capture_output=True, text=True
    ).stdout
    assert len(re.findall("refs/claude-scheduler/discarded/", refs)) == 2
    assert len(re.findall("refs/heads/claude-task/tidy-", refs)) == 1
    assert left_behind(place) == []


def test_without_a_client_it_says_so(place: dict[str, str]) -> None:
    env = {**place, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command("--claude"), env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no claude client" in done.stderr and len(done.stderr.splitlines()) == 2


def test_on_a_terminal_it_goes_through_without_a_key(place: dict[str, str]) -> None:
    program, *words = command()
    with pexpect.spawn(program, words, env={**place, "TERM": "xterm"}, encoding="utf-8", dimensions=(50, 80)) as screen:
        screen.expect(pexpect.EOF, timeout=90)
        assert "In a repository of your own" in str(screen.before)
    assert screen.exitstatus == 0
