"""The one door to other processes: run a command, start one that stays, tell who is alive, end what was orphaned.

Every child is noted here from its start to its reaping, so that a runner, which inherits what a killed supervisor
leaves, can tell such an orphan from its own children.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scheduler.disk import files
from scheduler.errors import CommandFailed
from scheduler.execution import ending, tree

STOP_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a command that takes too long."""

_MEMORY_FILES = hasattr(os, "memfd_create")

SLICE = 0.25
"""Seconds after which `run` looks whether a command that keeps its pipes open has ended."""

_reaper = False
_own: set[int] = set()
_detached: set[int] = set()
"""What `spawn_detached` started: an orphan, but by intent."""

_lock = threading.RLock()
"""Held around fork and note, and around the scan for orphans: who is noted is no orphan, who is not is no child."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended. `returncode` is negative for a signal."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Swept:
    """What `sweep_orphans` did: so many processes were ended, so many could not be."""

    ended: int
    unstoppable: int


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen` in a session of its own, noted as a child of ours; whoever has reaped it calls `forget`."""
    with _lock:
        child = subprocess.Popen(argv, start_new_session=True, **options)
        _own.add(child.pid)
    return child


def forget(child: subprocess.Popen[bytes]) -> None:
    """Strike out a child that was reaped: its number may be given to another process."""
    with _lock:
        _own.discard(child.pid)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float,
    cwd: Path | str | None = None,
    input: bytes | None = None,
    check: bool = True,
    umask: int = -1,
) -> Completed:
    """Run a command to its end, in a session of its own, with `input` (else /dev/null) on its standard input.

    Raises CommandFailed if it cannot be started, takes longer than `timeout` seconds (it is then stopped, with all it
    started), or, with `check`, ends with another code than 0. What it leaves running when it ends is stopped if it
    holds the output open. The output is kept in memory, whatever its size. Callable from any thread.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with _standard_input(input) as stdin:
            child = start(argv, cwd=cwd, env=dict(env), umask=umask, stdin=stdin, **pipes)
    except (OSError, ValueError) as error:
        raise _not_started(argv, cwd, error) from None
    try:
        with child:
            outputs = _communicate(child, timeout)
            if outputs is None:
                raise CommandFailed(
                    f"`{ending.command_line(argv)}` took longer than {timeout:g} s and was stopped",
                    "look why it hangs, then try again",
                    returncode=ending.TOO_LATE,
                )
    finally:
        forget(child)
    done = Completed(tuple(argv), child.returncode, *outputs)
    if check and done.returncode:
        raise _failed(done)
    return done


@contextlib.contextmanager
def _standard_input(data: bytes | None) -> Iterator[IO[bytes] | int]:
    """`data` as a file: of a pipe, `communicate` forgets to write the rest when it is called again after a timeout. In
    memory where the system can: it may be a secret that is looked for."""
    if data is None:
        yield subprocess.DEVNULL
        return
    with os.fdopen(os.memfd_create("input"), "w+b") if _MEMORY_FILES else tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def _communicate(child: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes] | None:
    """What the command wrote, None if it took too long. When this returns or raises, the command has ended."""
    deadline = time.monotonic() + timeout
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=min(SLICE, max(0.0, deadline - time.monotonic())))
            if child.poll() is not None:
                break  # Something that it left behind holds the pipes open.
            if time.monotonic() >= deadline:
                _stop(child)
                return None
    except BaseException:
        _stop(child)
        raise
    _stop(child)
    try:
        return child.communicate(timeout=SLICE)
    except subprocess.TimeoutExpired as error:
        return error.output or b"", error.stderr or b""


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a command with its session and all its descendants; in a runner also what left both."""

    def find() -> list[tree.Process]:
        child.poll()
        return tree.family(child.pid, session=child.pid)

    deadline = time.monotonic() + STOP_GRACE
    tree.terminate_all(find())
    while find() and time.monotonic() < deadline:
        time.sleep(0.01)
    tree.kill_all(find)
    child.poll()
    if _reaper:
        sweep_orphans()


def _not_started(argv: Sequence[str], cwd: Path | str | None, error: Exception) -> CommandFailed:
    number = getattr(error, "errno", None) or errno.EINVAL  # A NUL in a word is a ValueError.
    message, hint = ending.not_started(argv, cwd, number)
    code = ending.NOT_FOUND if number == errno.ENOENT else ending.NOT_EXECUTABLE
    return CommandFailed(message, hint, returncode=code, stderr=os.strerror(number))


def _failed(done: Completed) -> CommandFailed:
    stderr = done.stderr.decode(errors="replace")
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    how = f"ended with code {done.returncode}" if done.returncode > 0 else f"was {ending.ended_by(-done.returncode)}"
    message = f"`{ending.command_line(done.argv)}` {how}" + (f": {last}" if last else "")
    return CommandFailed(message, returncode=done.returncode, stderr=stderr)


def spawn_detached(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | str = "/", log: Path | None = None
) -> int:
    """Start a program that outlives us and whoever started us: double fork, session of its own, no terminal.

    Its standard streams are /dev/null, or its output goes to the end of `log`; no other descriptor of ours reaches it.
    Returns its pid as soon as the program runs; raises CommandFailed if it cannot.
    """
    output = files.open_own(log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    report, ours = os.pipe()

    def fork_again() -> None:
        pid = os.fork()
        if pid:
            os.write(ours, b"%d" % pid)
            os._exit(0)

    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    try:
        # One hold of the lock over both forks: in a runner the second child is an orphan until it is noted.
        with _lock:
            child = start(argv, cwd=cwd, env=dict(env), preexec_fn=fork_again, **streams)
            child.wait()
            forget(child)
            pid = int(os.read(report, 20))
            _detached.add(pid)
    except (OSError, subprocess.SubprocessError) as error:
        raise _not_started(argv, cwd, error) from None
    finally:
        for fd in (report, ours, output):
            os.close(fd)
    return pid


def descendants(pid: int) -> set[int]:
    """The pids of the living processes below `pid`."""
    return {process.pid for process in tree.family(pid)}


def start_time(pid: int) -> float | None:
    """When a living process was started, in seconds on a clock of its system's own; None if there is no such process.

    Together with the pid and `boot_id` this names a process for good. Linux: seconds from boot, which no change of the
    wall clock shifts.
    """
    found = tree.look(pid)
    if found or os.path.isdir("/proc/self"):
        return found.start / os.sysconf("SC_CLK_TCK") if found and found.alive else None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def is_alive(pid: int, started: float, boot: str | None = None) -> bool:
    """Whether the process that had this pid at `started` (of `start_time`), in the boot `boot`, still runs."""
    if boot is not None and boot != boot_id():
        return False
    now = start_time(pid)
    return now is not None and abs(now - started) < 0.005


@functools.cache
def boot_id() -> str:
    """What tells this boot of the machine from every other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return f"{psutil.boot_time():.0f}"


def become_subreaper() -> bool:
    """Make this process, a runner, inherit what a killed supervisor leaves; False where the system cannot."""
    global _reaper
    _reaper = tree.become_reaper()
    return _reaper


def sweep_orphans() -> Swept:
    """End every process that came to us from a dead child, with all below it, and reap it."""
    ended: set[int] = set()

    def find() -> list[tree.Process]:
        reap_orphans()
        orphans = _orphans()
        found = [orphan for orphan in orphans if orphan.alive]
        found += tree.family(*(orphan.pid for orphan in orphans))
        ended.update(process.pid for process in found)
        return found

    unstoppable = tree.kill_all(find)
    reap_orphans()
    return Swept(len(ended) - unstoppable, unstoppable)


def reap_orphans() -> None:
    """Take leave of the orphans that have ended: nobody else waits for them."""
    for orphan in _orphans():
        if not orphan.alive:
            _detached.discard(orphan.pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan.pid, os.WNOHANG)


def _orphans() -> list[tree.Process]:
    """Our children whom we did not start.

    One in our own session is none: a library (GitPython) started it, for what agents and `run` start is in another
    session, and no process can return from there.
    """
    me, session = os.getpid(), os.getsid(0)
    with _lock:
        rows = [row for row in tree.table().values() if row.parent == me and row.session != session]
        return [row for row in rows if row.pid not in _own and not (row.alive and row.pid in _detached)]
