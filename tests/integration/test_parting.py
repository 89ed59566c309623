"""The line that SessionEnd leaves on the terminal, once the client is gone."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scheduler.hooks import terminal
from tests.hooks import ROOT, Bed

SAID = "Scheduler: 2 tasks of project not enabled, so nothing runs. In Claude Code: /scheduler:enable"

# Sits at the terminal as the client does, and starts the hook as the client does: pipes, a session of its own.
CLIENT = """\
import subprocess, sys, time
hook = subprocess.Popen(["sh", sys.argv[1], "session_end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE, start_new_session=True)
hook.communicate(sys.argv[2].encode())
print("the pipes are closed", flush=True)
time.sleep(0.3)
print("the client leaves", flush=True)
"""


def read_until(fd: int, text: str, patience: float = 15.0) -> str:
    found = ""
    end = time.monotonic() + patience
    while text not in found:
        ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"waited in vain for {text!r}; read {found!r}"
        found += os.read(fd, 4096).decode()
    return found


def leave(bed: Bed, stdin: int) -> None:
    event = json.dumps(bed.event("SessionEnd", reason="prompt_input_exit"))
    argv = [sys.executable, "-c", CLIENT, str(ROOT / "scripts" / "hook"), event]
    subprocess.run(argv, stdin=stdin, stdout=stdin, stderr=stdin, cwd=bed.project, env=bed.env, timeout=20, check=True)


def test_the_line_comes_after_the_client_has_gone(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    mine, theirs = pty.openpty()
    leave(bed, theirs)
    seen = read_until(mine, SAID)
    order = [seen.index(text) for text in ("the pipes are closed", "the client leaves", SAID)]
    assert order == sorted(order)
    os.close(theirs)
    os.close(mine)


@pytest.mark.parametrize("look", [terminal._from_proc, terminal._from_ps])
def test_what_is_known_of_a_process(look: object) -> None:
    assert callable(look)
    mine, theirs = pty.openpty()
    code = "import os; os.setsid(); os.ttyname(0); import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while (found := look(child.pid)) != (os.getpid(), os.ttyname(theirs), False):
        assert time.monotonic() < end, found
        time.sleep(0.02)
    child.kill()
    while not (found := look(child.pid))[2]:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    child.wait()
    assert look(child.pid) is None
    os.close(theirs)
    os.close(mine)


def test_a_process_without_a_terminal_has_none() -> None:
    child = subprocess.Popen(["sleep", "10"], stdin=subprocess.DEVNULL)
    for look in (terminal._from_proc, terminal._from_ps):
        found = look(child.pid)
        assert found is not None
        assert (found[0], found[2]) == (os.getpid(), False)
    assert terminal._from_proc(child.pid) == (os.getpid(), "", False)
    child.kill()
    child.wait()


def test_nothing_is_written_while_the_client_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PATIENCE", 0.3)
    mine, theirs = pty.openpty()
    child = subprocess.Popen(["sleep", "10"], stdin=theirs)
    terminal.say_after(child.pid, "no")
    assert select.select([mine], [], [], 0.1)[0] == []
    child.kill()
    child.wait()
    terminal.say_after(child.pid, "nobody is there")
    assert select.select([mine], [], [], 0.1)[0] == []
    os.close(theirs)
    os.close(mine)


def test_a_client_that_nobody_has_reaped_is_gone() -> None:
    mine, theirs = pty.openpty()
    child = subprocess.Popen(["sleep", "0.3"], stdin=theirs)
    terminal.say_after(child.pid, "a last line")
    assert "a last line" in read_until(mine, "a last line")
    child.wait()
    os.close(theirs)
    os.close(mine)
