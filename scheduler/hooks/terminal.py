"""A last line on the terminal of a client that has gone. All of this happens in a detached process.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    #: (parent, terminal or "", whether it is a zombie)
    Facts = Optional[tuple[int, str, bool]]

PATIENCE = 20.0  # s; the client itself gives up its own exit after 5
_STEP = 0.05
_ANCESTORS = 6


def say_after(pid: int, line: str) -> None:
    """Wait for the end of the nearest ancestor (from `pid` up) that sits at a terminal; then write the line there."""
    for _ in range(_ANCESTORS):
        facts = _facts(pid)
        if facts is None:
            return
        parent, terminal, _zombie = facts
        if terminal:
            if _wait(pid, parent):
                _write(terminal, line)
            return
        pid = parent


def _wait(pid: int, parent: int) -> bool:
    """Whether the process ended within PATIENCE; a number that went to another process has another parent or none."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        facts = _facts(pid)
        if facts is None or facts[0] != parent or facts[2]:
            return True
        time.sleep(_STEP)
    return False


def _write(terminal: str, line: str) -> None:
    fd = os.open(terminal, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    if os.isatty(fd):
        os.write(fd, f"\r\n{line}\r\n".encode())
    os.close(fd)


def _facts(pid: int) -> Facts:
    """What is known of a process: None when it is not there."""
    return _from_proc(pid) if os.path.isdir("/proc/self/fd") else _from_ps(pid)


def _from_proc(pid: int) -> Facts:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    try:
        terminal = os.readlink(f"/proc/{pid}/fd/0")
    except OSError:
        terminal = ""
    return int(parent), terminal if terminal.startswith(("/dev/pts/", "/dev/tty")) else "", state == "Z"


def _from_ps(pid: int) -> Facts:
    reader, writer = os.pipe()
    argv = ["ps", "-o", "ppid=,state=,tty=", "-p", str(pid)]
    child = os.posix_spawnp("ps", argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    os.close(writer)
    said = os.read(reader, 4096).decode("utf-8", "replace").split()
    os.close(reader)
    os.waitpid(child, 0)
    if len(said) < 3 or not said[0].isdigit():
        return None
    return int(said[0]), f"/dev/{said[2]}" if said[2].strip("?-") else "", said[1].startswith("Z")
