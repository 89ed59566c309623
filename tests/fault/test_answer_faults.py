"""The hook that answers slash commands, under the faults of the others (G1 to G3, G5): exit code 0, no complaint."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import PACKAGE
from tests.rig import Rig, rig, shell_task

ARGV = [sys.executable, "-I", str(PACKAGE), "answer"]
SHELL = " ".join(f"'{word}'" for word in ARGV)
STATUS = json.dumps({"command_name": "scheduler:status", "command_args": ""}).encode() + b"\n"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        made.enable(shell_task("nightly", "true"))
        yield made


def ask(own: Rig, data: bytes, line: str = SHELL) -> subprocess.CompletedProcess[bytes]:
    argv = ["/bin/sh", "-c", line]
    return subprocess.run(argv, input=data, cwd=own.project, env=own.env, capture_output=True, timeout=30)


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    assert (done.returncode, done.stderr) == (0, b""), done
    return str(json.loads(done.stdout)["reason"])


def quiet(done: subprocess.CompletedProcess[bytes]) -> bool:
    return (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


NOT_EVENTS = [
    b"",
    b"[]",
    b"null",
    b'"x"',
    b"{",
    b"\xff",
    b"\x00",
    b'{"command_name": 5}',
    b"[" * 100_000,
    b"a" * 100_000_000,
]


@pytest.mark.parametrize("data", NOT_EVENTS, ids=range(len(NOT_EVENTS)))
def test_what_is_no_event_is_silence(own: Rig, data: bytes) -> None:
    assert quiet(ask(own, data))


@pytest.mark.parametrize("end", ["<&-", ">&-", ">/dev/full", "<&- >&- 2>&-", "2>&-"])
def test_a_stream_is_closed_or_full(own: Rig, end: str) -> None:
    done = ask(own, STATUS, f"{SHELL} {end}")
    assert "1 of 1 task active" in said(done) if end == "2>&-" else quiet(done)
    assert not (Path(own.paths.state) / "reports").exists()


@pytest.mark.parametrize(("begun", "answered"), [(b"", False), (STATUS[:20], False), (STATUS, True)])
def test_stdin_is_never_closed(own: Rig, begun: bytes, answered: bool) -> None:
    began = time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(ARGV, cwd=own.project, env=own.env, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(begun)
        child.stdin.flush()
        assert child.wait(20) == 0
        assert (b"1 of 1 task active" in child.stdout.read()) == answered
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("words", ["-f nightly", "--follow nightly", "-fn 5 nightly", "nightly -n5 -f"])
def test_no_answer_waits_for_a_log(own: Rig, words: str) -> None:
    asked = {"command_name": "scheduler:logs", "command_args": words}
    assert "cannot follow a log" in said(ask(own, json.dumps(asked).encode()))
