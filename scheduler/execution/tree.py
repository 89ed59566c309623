"""Process trees: who descends from whom, being the reaper of orphans, and ending a whole tree.

Standard library only, and little of it: the supervisor imports this module. What differs between systems is here and
nowhere else. Linux: the kernel hands every orphan of a tree to its nearest reaper, and /proc shows the links. Elsewhere
(macOS) there is no reaper: `ps` shows the links, and an orphan is found only as long as it stays in the session.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable

_word = ctypes.c_ulong
_call = getattr(ctypes.CDLL(None), "prctl", None)
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

KILL_BOUND = 5.0
"""Seconds after which `kill_all` gives up."""

FREEZE_ROUNDS = 10
CALM = 2
"""So many scans in a row must find nobody."""


class Process:
    """One line of the process table."""

    __slots__ = ("alive", "group", "parent", "pid", "session", "start")

    def __init__(self, pid: int, parent: int, group: int, session: int, alive: bool, start: int) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.session = session
        self.alive = alive
        """False for a zombie; one whose first thread has ended while others run is no zombie."""
        self.start = start
        """Clock ticks from boot to its start; 0 where there is no /proc."""


def _prctl(option: int, value: int) -> bool:
    """Set one attribute of this process; whether the system could."""
    return _call is not None and int(_call(option, _word(value), _word(0), _word(0), _word(0))) == 0


def become_reaper() -> bool:
    """Make every orphan below this process a child of this process; False where the system has no such thing."""
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signum: int) -> bool:
    """Have this process sent `signum` when the *thread* that started it ends; the caller checks for a death before."""
    return _prctl(PR_SET_PDEATHSIG, signum)


def look(pid: int) -> Process | None:
    """The table's line of one process, None if there is none (or no /proc)."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        try:
            line = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return None
    # The name, in parentheses, may hold anything, also ") R 1".
    field = line[line.rindex(b")") + 2 :].split()
    alive = field[0] not in (b"Z", b"X") or int(field[17]) > 1
    return Process(pid, int(field[1]), int(field[2]), int(field[3]), alive, int(field[19]))


def table() -> dict[int, Process]:
    """Every process that this user may see, by pid."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        pids = []
    if pids:
        return {pid: process for pid in pids if (process := look(pid))}
    return _table_without_proc()


def _table_without_proc() -> dict[int, Process]:
    import subprocess

    words = ["ps", "-axo", "pid=,ppid=,pgid=,stat="]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as ps:
        lines = ps.communicate()[0].decode().splitlines()
    found = {}
    for pid, parent, group, state in (line.split()[:4] for line in lines):
        try:
            session = os.getsid(int(pid))
        except ProcessLookupError:  # Gone, as `ps` itself is, which would pass for a child of ours.
            continue
        except PermissionError:
            session = 0
        found[int(pid)] = Process(int(pid), int(parent), int(group), session, not state.startswith("Z"), 0)
    return found


def family(*roots: int, session: int | None = None) -> list[Process]:
    """The living processes below `roots`, and those of `session` wherever they hang; a root only if it is of these."""
    everyone = table()
    children: dict[int, list[Process]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    rows = [process for root in roots for process in children.get(root, ())]
    if session is not None:
        rows += [process for process in everyone.values() if process.session == session]
    while rows:
        process = rows.pop()
        if process.pid not in found:
            found[process.pid] = process
            rows += children.get(process.pid, ())
    return [process for process in found.values() if process.alive]


def signal_all(processes: Iterable[Process], signum: int) -> None:
    """Signal these processes, each with its whole group.

    A group is signalled in one step, which a fork cannot slip through. All members of a group of a tree whose root is
    in a session of its own belong to that tree; our own group is left out and its member signalled alone.
    """
    own = os.getpgrp()
    targets = {-process.group if process.group not in (0, 1, own) else process.pid for process in processes}
    for target in targets:
        try:
            os.kill(target, signum)
        except OSError:  # Gone, or not ours to signal: the next scan tells.
            continue


def interrupt(process: Process) -> None:
    """Interrupt this process alone, as Ctrl-C does."""
    try:
        os.kill(process.pid, signal.SIGINT)
    except OSError:  # gone
        return


def terminate_all(processes: Iterable[Process]) -> None:
    """Ask these processes, also the stopped ones, to end."""
    rows = list(processes)
    signal_all(rows, signal.SIGTERM)
    signal_all(rows, signal.SIGCONT)


def kill_all(find: Callable[[], list[Process]], bound: float = KILL_BOUND) -> int:
    """Kill whomever `find` names until it names nobody; the number of those still alive after `bound` seconds.

    All are stopped before the first is killed, so that a tree that forks faster than it is killed stands still.
    """
    deadline = time.monotonic() + bound
    calm, pause, known = 0, 0.0, set[int]()
    while calm < CALM:
        frozen: dict[int, Process] = {}
        for _ in range(FREEZE_ROUNDS):
            fresh = [process for process in find() if process.pid not in frozen]
            if not fresh:
                break
            signal_all(fresh, signal.SIGSTOP)
            frozen.update((process.pid, process) for process in fresh)
        signal_all(frozen.values(), signal.SIGKILL)
        calm = 0 if frozen else calm + 1
        if time.monotonic() > deadline:
            return len(find())
        pause = 0.001 if frozen.keys() - known else min(2 * pause, 0.1)
        known |= frozen.keys()
        if frozen:
            time.sleep(pause)
    return 0
