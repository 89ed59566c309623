"""The supervisor, spoken to as the runner does, over its line."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.execution import process, supervise
from scheduler.execution.line import Line
from tests import trees

PATIENCE = 10.0
PATH = os.environ["PATH"].encode()


class Talk:
    """A supervisor and our end of its line and pipes. Not started with -I -S, for coverage's sake."""

    def __init__(self, parent: int | None = None) -> None:
        self.line, far = socket.socketpair()
        stdin, self.stdin = os.pipe()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        fds = (far.fileno(), stdin, stdout, stderr)
        words = [sys.executable, "-m", "scheduler", "supervise", *map(str, fds), str(parent or os.getpid())]
        root = Path(supervise.__file__).parents[2]
        self.child = subprocess.Popen(words, pass_fds=fds, cwd=root, start_new_session=True)
        far.close()
        for fd in fds[1:]:
            os.close(fd)
        self.line.settimeout(PATIENCE)
        self._messages = Line()

    def say(self, message: dict[str, Any]) -> None:
        self.line.sendall(Line.frame(message))

    def start(self, *argv: str | bytes, **options: Any) -> None:
        words = [word if isinstance(word, bytes) else word.encode() for word in argv]
        self.say({"argv": words, "cwd": b"/", "env": {b"PATH": PATH}, "umask": 0o022, "wrapped": False} | options)

    def hear(self) -> dict[str, Any] | None:
        """The next message, None at the end of the line."""
        while (message := self._messages.take()) is None:
            chunk = self.line.recv(65536)
            if not chunk:
                return None
            self._messages.feed(chunk)
        return message

    def output(self) -> bytes:
        """Standard output to its end."""
        with open(self.stdout, "rb", closefd=False) as stream:
            return stream.read()

    def close(self) -> None:
        self.line.close()
        assert self.child.wait(PATIENCE) == 0
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)


@pytest.fixture
def talk() -> Iterator[Talk]:
    talk = Talk()
    yield talk
    talk.close()


def run(talk: Talk, *argv: str, **options: Any) -> tuple[dict[str, Any], bytes]:
    """Start a program without input; the supervisor's last word and the output."""
    talk.start(*argv, **options)
    first = talk.hear()
    assert first and first.keys() == {"started", "at"}
    assert abs(first["at"] - time.time()) < PATIENCE
    last = talk.hear()
    assert last
    return last, talk.output()


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, None), ("exit 3", 3, None), ("exit 255", 255, None), ("kill -9 $$", None, 9), ("kill $$", None, 15)],
)
def test_the_last_word_tells_how_the_agent_ended(talk: Talk, script: str, code: int | None, number: int | None) -> None:
    last, _ = run(talk, "sh", "-c", script)
    assert last == {"exit": code, "signal": number, "stopped": False, "left": 0, "unstoppable": 0}
    assert talk.hear() is None


FACTS = """
import json, os
mask = os.umask(0)
fds = sorted(map(int, os.listdir("/proc/self/fd")))
leads = os.getsid(0) == os.getpid() == os.getpgrp()
print(json.dumps([os.getcwd(), mask, sorted(os.environb.items()), fds, leads], default=repr))
"""


def test_the_agent_gets_exactly_what_the_spec_says(talk: Talk, tmp_path: Path) -> None:
    env = {b"PATH": PATH, b"ODD": b"\xff\n", b"LC_ALL": b"C.UTF-8"}
    argv = (sys.executable, "-I", "-S", "-c", FACTS)
    _, output = run(talk, *argv, cwd=os.fsencode(tmp_path), umask=0o027, env=env)
    cwd, mask, names, fds, leads_a_session = json.loads(output)
    assert (cwd, mask, leads_a_session) == (str(tmp_path), 0o027, True)
    assert names == [list(map(repr, item)) for item in sorted(env.items())]
    assert fds == [0, 1, 2, 3]  # The last is the folder's own, while it is listed.


def test_no_signal_is_blocked_or_ignored_in_the_agent(talk: Talk) -> None:
    _, output = run(talk, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    assert output.split() == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_signals_that_the_runner_ignores_are_the_agents_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        talk = Talk()
    finally:
        signal.signal(signal.SIGHUP, before)
    last, _ = run(talk, "sh", "-c", "kill -HUP $$")
    assert last["signal"] == signal.SIGHUP
    talk.close()


@pytest.mark.parametrize(
    ("argv", "options", "stage", "number"),
    [
        (["no-such-program"], {}, "exec", errno.ENOENT),
        (["/no/such/program"], {}, "exec", errno.ENOENT),
        (["/etc/passwd"], {}, "exec", errno.EACCES),
        (["true"], {"cwd": b"/no/such/folder"}, "cwd", errno.ENOENT),
        (["true"], {"cwd": b"/etc/passwd"}, "cwd", errno.ENOTDIR),
        (["true", "x" * 200_000], {}, "exec", errno.E2BIG),
        (["true", "a\0b"], {}, "exec", errno.EINVAL),
        (["true"], {"env": {}}, "exec", errno.ENOENT),
    ],
)
def test_a_program_that_cannot_start_is_told_with_step_and_reason(
    talk: Talk, argv: list[str], options: dict[str, Any], stage: str, number: int
) -> None:
    talk.start(*argv, **options)
    assert talk.hear() == {"failed": stage, "errno": number}
    assert talk.hear() is None


def test_a_bare_name_is_found_in_absolute_folders_alone(talk: Talk, tmp_path: Path) -> None:
    for folder in ("worktree", "bin"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "agent").write_text(f"#!/bin/sh\necho {folder}\n")
        (tmp_path / folder / "agent").chmod(0o755)
    (tmp_path / "worktree" / "plain").write_text("")
    path = f".::worktree:{tmp_path}/nowhere:{tmp_path}/bin"
    _, output = run(talk, "agent", cwd=os.fsencode(tmp_path / "worktree"), env={b"PATH": path.encode()})
    assert output == b"bin\n"


def test_a_name_that_is_nowhere_executable_is_denied_rather_than_missing(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "agent").write_text("")
    talk.start("agent", env={b"PATH": os.fsencode(tmp_path)})
    assert talk.hear() == {"failed": "exec", "errno": errno.EACCES}


def test_a_stop_gives_the_tree_its_grace_and_its_last_output_is_read(talk: Talk) -> None:
    talk.start("sh", "-c", "trap 'echo farewell; exit 7' TERM; echo ready; while :; do sleep 0.02; done")
    assert talk.hear()
    assert os.read(talk.stdout, 100) == b"ready\n"
    talk.say({"stop": PATIENCE, "first": 0.0})
    last = talk.hear()
    assert last and (last["exit"], last["stopped"]) == (7, True)
    assert talk.output() == b"farewell\n"


def test_the_agent_may_say_its_last_word_first(talk: Talk) -> None:
    """It alone is interrupted, and what it started, in a session of its own, when it has ended."""
    script = "trap 'echo farewell; exit 7' INT; setsid sh -c 'trap \"echo wrong\" INT; sleep 60' & echo ready; wait"
    talk.start("bash", "-c", script)
    assert talk.hear()
    assert os.read(talk.stdout, 100) == b"ready\n"
    talk.say({"stop": 0.5, "first": PATIENCE})
    last = talk.hear()
    assert last and (last["exit"], last["stopped"], last["left"] > 0) == (7, True, True)
    assert talk.output() == b"farewell\n"


def test_an_agent_that_is_deaf_to_an_interrupt_is_ended_all_the_same(talk: Talk) -> None:
    talk.start("sh", "-c", "trap '' INT; trap 'exit 8' TERM; echo ready; while :; do sleep 0.02; done")
    assert talk.hear()
    assert os.read(talk.stdout, 100) == b"ready\n"
    began = time.monotonic()
    talk.say({"stop": PATIENCE, "first": 0.3})
    last = talk.hear()
    assert last and (last["exit"], last["stopped"]) == (8, True)
    assert time.monotonic() - began > 0.3


def test_of_what_is_wrapped_not_the_wrapping_is_interrupted(talk: Talk) -> None:
    """A sandbox would take along what is in it."""
    inner = "trap 'echo farewell; exit 0' INT; echo ready; while :; do sleep 0.02; done"
    talk.start("bash", "-c", f"trap 'echo wrong' INT; bash -c \"{inner}\"; exit 5", wrapped=True)
    assert talk.hear()
    assert os.read(talk.stdout, 100) == b"ready\n"
    talk.say({"stop": 0.5, "first": PATIENCE})
    last = talk.hear()
    assert last and (last["exit"], last["stopped"]) == (5, True)
    assert talk.output() == b"farewell\n"


def test_a_stop_may_come_with_the_spec_and_be_made_shorter(talk: Talk) -> None:
    argv = [b"sh", b"-c", b"trap '' TERM; sleep 60"]
    spec = {"argv": argv, "cwd": b"/", "env": {b"PATH": PATH}, "umask": 0, "wrapped": False}
    stops = [{"stop": seconds, "first": 0.0} for seconds in (60.0, 0.1, 60.0)]
    began = time.monotonic()
    talk.line.sendall(b"".join(map(Line.frame, (spec, *stops))))
    assert talk.hear()
    last = talk.hear()
    assert last and last["signal"] in (signal.SIGTERM, signal.SIGKILL)
    assert time.monotonic() - began < PATIENCE


def test_what_outlives_the_agent_is_ended_and_counted(talk: Talk) -> None:
    last, _ = run(talk, "sh", "-c", "sleep 60 & setsid sleep 60 & exit 4")
    assert (last["exit"], last["stopped"], last["left"], last["unstoppable"]) == (4, False, 2, 0)


def test_stopped_processes_are_ended(talk: Talk, tmp_path: Path) -> None:
    """E3."""
    talk.start(*trees.tree("stopped", tmp_path / "members"))
    members = trees.wait_for(tmp_path / "members", 3)
    talk.say({"stop": 0.5, "first": 0.0})
    assert talk.hear() and talk.hear()
    assert not trees.alive(members)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_supervisor_ends_the_tree(talk: Talk, tmp_path: Path, number: int) -> None:
    talk.start(*trees.tree("hard", tmp_path / "members"))
    members = trees.wait_for(tmp_path / "members", 6)
    talk.child.send_signal(number)
    assert talk.hear()
    last = talk.hear()
    assert last and last["stopped"] and last["signal"] == signal.SIGKILL
    assert not trees.alive(members)


def test_the_end_of_the_line_ends_the_tree(tmp_path: Path) -> None:
    talk = Talk()
    talk.start(*trees.tree("hard", tmp_path / "members"))
    members = trees.wait_for(tmp_path / "members", 6)
    talk.close()
    assert not trees.alive(members)


@pytest.mark.parametrize("how", ["line", "signal"])
def test_one_that_waits_ends_when_it_is_not_needed(how: str) -> None:
    talk = Talk()
    if how == "signal":
        trees.until(lambda: b"\x80" in _caught(talk.child.pid) or talk.child.poll() is not None, "its handlers")
        talk.child.terminate()
        assert talk.child.wait(PATIENCE) in (0, -signal.SIGTERM)
        talk.line.close()
    else:
        talk.close()


def _caught(pid: int) -> bytes:
    """`\\x80` when the process catches SIGTERM."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return b""
    mask = int(status.partition("SigCgt:")[2].split()[0], 16)
    return b"\x80" if mask & 1 << (signal.SIGTERM - 1) else b""


def test_one_whose_runner_died_before_it_looked_does_nothing() -> None:
    talk = Talk(parent=1)
    assert talk.child.wait(PATIENCE) == 0
    talk.close()


def test_it_imports_little_so_that_it_is_ready_soon() -> None:
    root = str(Path(supervise.__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); import scheduler.execution.supervise; print(*sys.modules)"
    done = process.run([sys.executable, "-I", "-S", "-c", code], env={}, timeout=PATIENCE)
    modules = set(done.stdout.decode().split())
    assert modules.isdisjoint({"json", "asyncio", "subprocess", "socket", "typing", "re", "threading", "logging"})
