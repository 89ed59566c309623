"""Process trees that are hard to end, and small runners to end them: a script of several programs, and its readers.

`python -I -S tests/trees.py PROGRAM FILE …` is one of the trees; each of its processes that is ready writes its role
and pid to FILE. All end by themselves within `LIFETIME`, lest a failed test leave them. The programs that use the
package (`runner`, `command`, `sweeper`) are started without -I, with the checkout on PYTHONPATH.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIFETIME = 60
SCRIPT = str(Path(__file__).resolve())
ROLES = ("root", "plain", "setsid", "setpgid", "double fork", "daemon")
PATIENCE = 10.0


def tree(program: str, file: Path, *words: object) -> list[str]:
    """The command line of one of the trees."""
    return [sys.executable, "-I", "-S", SCRIPT, program, str(file), *map(str, words)]


def user(program: str, *words: object) -> list[str]:
    """The command line of a program that uses the package."""
    return [sys.executable, SCRIPT, program, *map(str, words)]


def environment() -> dict[str, str]:
    """For `user` programs."""
    return {**os.environ, "PYTHONPATH": str(Path(SCRIPT).parent.parent)}


Members = dict[str, tuple[int, float]]


def wait_for(file: Path, count: int) -> Members:
    """Role -> (pid, start time) of the tree's processes, once `count` of them are there."""
    from scheduler.execution.process import start_time

    def lines() -> list[str]:
        return file.read_text().splitlines() if file.exists() else []

    until(lambda: len(lines()) >= count, f"{count} processes in {file}")
    members: Members = {}
    for line in lines():
        role, _, pid = line.rpartition(" ")
        members[f"{role} {len(members)}" if role in members else role] = (int(pid), start_time(int(pid)) or -1.0)
    return members


def alive(members: Members) -> list[str]:
    """The roles of those that still run."""
    from scheduler.execution.process import is_alive

    return [role for role, (pid, started) in members.items() if is_alive(pid, started)]


def until(done: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until `done()` is true; fail if that takes longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline, f"waited {patience} s for {what}"
        time.sleep(0.005)


def _note(file: str, role: str, pid: int | None = None) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{role} {pid or os.getpid()}\n".encode())
    os.close(fd)


def _child(file: str, role: str, prepare: Callable[[], object] = lambda: None) -> None:
    if os.fork() == 0:
        prepare()
        _note(file, role)
        time.sleep(LIFETIME)
        os._exit(0)


def _fork_on() -> None:
    if os.fork():
        os._exit(0)


def _hard(file: str) -> None:
    """E1: six kinds of descendant, all deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _child(file, "plain")
    _child(file, "setsid", os.setsid)
    _child(file, "setpgid", lambda: os.setpgid(0, 0))
    _child(file, "double fork", _fork_on)
    if os.fork() == 0:
        os.setsid()
        _fork_on()
        _note(file, "daemon")
        os.closerange(0, 256)
        os.execve("/bin/sleep", ["sleep", str(LIFETIME)], {})
    _note(file, "root")
    time.sleep(LIFETIME)


def _bomb(file: str, limit: int) -> None:
    """E2: some hundred processes, each of which forks and ends again and again, half of them in new sessions."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deadline = time.monotonic() + LIFETIME
    _note(file, "root")
    if os.fork():
        time.sleep(LIFETIME)
    while os.path.getsize(file) < limit * 11:
        if os.fork() == 0:
            if os.getpid() % 2:
                os.setsid()
            _note(file, "bomb")
    while time.monotonic() < deadline:
        if os.fork():
            os._exit(0)
        time.sleep(0.02)


def _hopper(file: str, leaves: bool) -> None:
    """One process that is never the same: it forks and ends, again and again; `leaves`: each in a new session."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        _note(file, "root")
        time.sleep(LIFETIME)
    _note(file, "hopper")
    deadline = time.monotonic() + LIFETIME
    while time.monotonic() < deadline:
        if os.fork():
            os._exit(0)
        if leaves:
            os.setsid()


def _stopped(file: str) -> None:
    """E3: two children that have stopped themselves, one in a session of its own; the parent waits for them."""
    for role in ("stopped", "stopped apart"):
        if os.fork() == 0:
            if role == "stopped apart":
                os.setsid()
            _note(file, role)
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
    _note(file, "root")
    time.sleep(LIFETIME)


def _runner(out: str, timeout: str, *argv: str) -> None:
    """A runner with one run of `argv`: writes the supervisor's pid to the file `out`, prints the outcome."""
    import asyncio

    from scheduler.execution.agent import AgentSpec, Limits, SupervisorPool, carry_out

    async def main() -> None:
        pool = SupervisorPool()
        pool.start()
        outcome = await carry_out(
            pool,
            AgentSpec(argv, Path("/"), {"PATH": os.environ["PATH"]}, grace=0.2),
            Limits(float(timeout)),
            lambda name, chunk: None,
            asyncio.Event(),
            lambda started: _note(out, "supervisor", started.supervisor_pid),
        )
        await pool.close()
        print(outcome.stopped, outcome.unstoppable, flush=True)

    asyncio.run(main())


def _command(file: str) -> None:
    """A runner that runs the tree of E1 as a plain command; prints the return code of the failure."""
    from scheduler.errors import CommandFailed
    from scheduler.execution import process

    process.become_subreaper()
    try:
        process.run(tree("hard", Path(file)), env={}, timeout=1.0)
    except CommandFailed as failure:
        print(failure.returncode, flush=True)


def _sweeper(file: str) -> None:
    """A runner that sweeps orphans again and again while threads of it run commands, noted and not; prints `ok`."""
    import subprocess
    from concurrent.futures import ThreadPoolExecutor

    from scheduler.execution import process

    process.become_subreaper()
    env = {"PATH": os.environ["PATH"]}
    detached = process.spawn_detached(["sleep", str(LIFETIME)], env=env)
    parent = os.fork()
    if parent == 0:
        os.setsid()
        _child(file, "orphan")
        _child(file, "dead orphan", lambda: os._exit(0))
        os._exit(0)
    os.waitpid(parent, 0)
    wait_for(Path(file), 1)
    until(lambda: len(_zombies()) == 1, "the dead orphan")

    def commands(number: int) -> None:
        for _ in range(20):
            process.run(["git", "--version"], env=env, timeout=PATIENCE)
            subprocess.run(["git", "--version"], env=env, stdout=subprocess.DEVNULL, check=True)

    with ThreadPoolExecutor(3) as threads:
        work = [threads.submit(commands, number) for number in range(3)]
        ended = process.sweep_orphans().ended
        while not all(job.done() for job in work):
            ended += process.sweep_orphans().ended
    for job in work:
        job.result()
    assert ended == 1, f"{ended} processes were swept"
    assert os.path.exists(f"/proc/{detached}"), "what was detached was swept"
    os.kill(detached, signal.SIGKILL)
    until(lambda: process.start_time(detached) is None, "the end of what was detached")
    process.reap_orphans()
    assert not process.descendants(os.getpid()) and not _zombies(), "something was left"
    print("ok", flush=True)


def _zombies() -> list[int]:
    from scheduler.execution import tree as table

    return [row.pid for row in table.table().values() if row.parent == os.getpid() and not row.alive]


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if program == "bomb":
        _bomb(rest[0], int(rest[1]))
    elif program == "hopper":
        _hopper(rest[0], rest[1] == "leaves")
    else:
        {"hard": _hard, "stopped": _stopped, "runner": _runner, "command": _command, "sweeper": _sweeper}[program](
            *rest
        )
