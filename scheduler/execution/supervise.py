"""The supervisor: one small process per run, which starts the agent and ends all that the agent started.

It is started ahead of the run and waits. Standard library only, and little of it, so that it is ready in a moment.
The agent inherits the three pipes directly: no output passes through here.

On the control socket (`Line`) the runner says, once, what to start::

    {"argv": [bytes], "cwd": bytes, "env": {bytes: bytes}, "umask": int, "wrapped": bool}

and hears `{"failed": "cwd" | "exec" | "fork", "errno": int}`, which is the end, or `{"started": pid, "at": epoch
seconds}`. It may then say `{"stop": grace in seconds, "first": seconds}`: the agent, with its group, gets SIGINT and
so many seconds to say its last word (`wrapped`: not its first process, which would end the others), then the tree is
stopped. The last thing the runner hears, when nothing of the tree is left, is::

    {"exit": code or None, "signal": number or None,   how the agent itself ended
     "stopped": bool,        a stop was asked for before the agent had ended
     "left": int,            processes beside the agent that had to be ended
     "unstoppable": int}     processes that could not be ended

The tree is stopped (SIGTERM, grace, SIGKILL) when the agent has ended, on "stop", on the runner's death (the socket's
end, or the signal that the kernel then sends) and on SIGTERM.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

from scheduler.execution import tree
from scheduler.execution.line import Line

TYPE_CHECKING = False  # of `typing`, without its 4 ms
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

LEFTOVER_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for what outlives the agent."""

ORPHAN_GRACE = 0.5
"""The same for the whole tree when the runner is gone: nobody reads what a longer farewell would say."""

STOP_SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))

IGNORED = [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
"""Signals that the agent would be deaf to by inheritance: the interpreter's own (SIGPIPE, SIGXFSZ), and the runner's.

Found at the import, while there is time: between the fork and the exec every step counts double.
"""


class Supervision:
    """What one supervisor knows: its line to the runner, the agent, and how far the end has come."""

    def __init__(self, control: int, reaper: bool) -> None:
        self._control = control
        self._reaper = reaper
        self._line = Line()
        self._wakeup = _wake_on_signals()
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._wakeup, select.POLLIN)
        self._agent = 0
        self._status: int | None = None
        self._childless = False
        self._deadline: float | None = None
        self._patience: tuple[float, float] | None = None  # until when the agent may say its last word; grace after it
        self._wrapped = False
        self._stopped = False
        self._left: set[int] = set()

    def serve(self, pipes: tuple[int, int, int]) -> None:
        """Wait for what to start, start it, see it and its whole tree to the end."""
        spec = self._wait_for_spec()
        if spec is None:
            return
        self._wrapped = spec["wrapped"]
        try:
            self._agent = launch(spec, pipes)
        except LaunchFailed as failure:
            self._say({"failed": failure.stage, "errno": failure.errno})
            return
        self._say({"started": self._agent, "at": time.time()})
        for fd in pipes:
            os.close(fd)
        try:
            unstoppable = self._see_to_the_end()
        except BaseException:
            tree.kill_all(self._family)
            raise
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        self._say(
            {
                "exit": code if code is not None and code >= 0 else None,
                "signal": -code if code is not None and code < 0 else None,
                "stopped": self._stopped,
                "left": len(self._left),
                "unstoppable": unstoppable,
            }
        )

    def _see_to_the_end(self) -> int:
        """Until the tree is gone; returns how many of it could not be ended."""
        while True:
            self._reap()
            if self._status is not None:
                family = self._family()
                if not family:
                    break
                self._left.update(process.pid for process in family)
                if self._deadline is None:
                    self._stop(LEFTOVER_GRACE)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                break
            if self._patience is not None and time.monotonic() >= self._patience[0]:
                self._stop(self._patience[1])
            if message := self._line.take():
                self._interrupt(message["first"], message["stop"])
            elif not self._wait():
                self._stop(ORPHAN_GRACE)
        unstoppable = tree.kill_all(self._family)
        self._reap()
        return unstoppable

    def _interrupt(self, first: float, grace: float) -> None:
        """Let the agent come to an end of its own within `first` seconds, before the tree is asked to end."""
        if not first or self._status is not None or self._deadline is not None or self._patience is not None:
            return self._stop(grace)
        self._stopped = True
        self._patience = time.monotonic() + first, grace
        for process in self._family():
            if process.group == self._agent and not (self._wrapped and process.pid == self._agent):
                tree.interrupt(process)

    def _stop(self, grace: float) -> None:
        """Ask the tree to end within `grace` seconds; asked again, the earlier moment holds."""
        moment, self._patience = time.monotonic() + grace, None
        if self._deadline is None:
            self._stopped = self._stopped or self._status is None
            tree.terminate_all(self._family())
        self._deadline = moment if self._deadline is None else min(moment, self._deadline)

    def _wait_for_spec(self) -> dict[str, Any] | None:
        """What the runner wants started, None when it ends, or wants us to end, without a word of it."""
        while (spec := self._line.take()) is None:
            if not self._wait():
                return None
        return spec

    def _wait(self) -> bool:
        """Until a signal, some of a message, or the deadline; False if it is time to end: runner gone, or SIGTERM."""
        until = self._deadline if self._patience is None else self._patience[0]
        pause = None if until is None else max(0.0, until - time.monotonic()) * 1000 + 1
        stay = True
        for fd, _ in self._poll.poll(pause):
            if fd == self._wakeup:
                stay = stay and STOP_SIGNALS.isdisjoint(os.read(fd, 4096))
            elif chunk := self._hear():
                self._line.feed(chunk)
            else:
                self._poll.unregister(fd)
                stay = False
        return stay

    def _hear(self) -> bytes:
        try:
            return os.read(self._control, 65536)
        except ConnectionError:
            return b""

    def _say(self, message: dict[str, Any]) -> None:
        try:
            os.write(self._control, Line.frame(message))
        except OSError:  # The runner is gone; the work here stays the same.
            return

    def _reap(self) -> None:
        """Take leave of every child that has ended, the agent's status kept."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self._agent:
                self._status = status

    def _family(self) -> list[tree.Process]:
        """Who of the tree is alive. To a reaper no child means no descendant, which saves the scan."""
        self._reap()
        if self._childless and self._reaper:
            return []
        return tree.family(os.getpid(), session=self._agent)


class LaunchFailed(Exception):
    """The agent could not be started: at which step, and the system's reason."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.errno = number


def launch(spec: dict[str, Any], pipes: tuple[int, int, int]) -> int:
    """The pid of a new child that has become `spec`'s program, with `pipes` as its standard streams."""
    report, ours = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        raise LaunchFailed("fork", error.errno or errno.EAGAIN) from None
    if pid == 0:
        _become(spec, pipes, parent, ours)
    os.close(ours)
    word = os.read(report, 100).decode()  # Empty: the exec has closed it.
    os.close(report)
    if word:
        os.waitpid(pid, 0)
        stage, number = word.split()
        raise LaunchFailed(stage, int(number))
    return pid


def _become(spec: dict[str, Any], pipes: tuple[int, int, int], parent: int, report: int) -> None:
    """Turn this child into the agent. Every other descriptor closes itself at the exec."""
    stage = "exec"
    try:
        os.setsid()
        for number in IGNORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        tree.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for place, fd in enumerate(pipes):
            os.dup2(fd, place)
        os.umask(spec["umask"])
        stage = "cwd"
        os.chdir(spec["cwd"])
        stage = "exec"
        _execute(spec["argv"], spec["env"])
    except OSError as error:
        os.write(report, b"%s %d" % (stage.encode(), error.errno or errno.EINVAL))
    except BaseException:  # A NUL in a word, say.
        os.write(report, b"%s %d" % (stage.encode(), errno.EINVAL))
    finally:
        os._exit(127)


def _execute(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """Replace this process; a bare name is looked for in the absolute folders of the agent's own PATH.

    Relative ones would let the repository that the agent works in choose the program.
    """
    name = argv[0]
    if b"/" in name:
        os.execve(os.path.abspath(name), argv, env)
    failure = FileNotFoundError(errno.ENOENT, "not found")
    for folder in env.get(b"PATH", b"").split(b":"):
        if folder.startswith(b"/"):
            try:
                os.execve(os.path.join(folder, name), argv, env)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                failure = error  # type: ignore[assignment]
    raise failure


def _wake_on_signals() -> int:
    """A descriptor on which the number of every signal that concerns us can be read, one byte each."""
    wakeup, write = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *STOP_SIGNALS):
        signal.signal(number, _wake)
    return wakeup


def _wake(number: int, frame: FrameType | None) -> None:
    """Do nothing: what counts is the byte that the interpreter writes beside this call."""


def main(argv: list[str]) -> int:
    """Be the supervisor. `argv`: the descriptors CONTROL, STDIN, STDOUT and STDERR, and the runner's PID."""
    control, stdin, stdout, stderr, parent = map(int, argv)
    for fd in (control, stdin, stdout, stderr):
        os.set_inheritable(fd, False)
    supervision = Supervision(control, tree.become_reaper())
    tree.die_with_parent(signal.SIGTERM)
    if os.getppid() == parent:
        supervision.serve((stdin, stdout, stderr))
    os._exit(0)  # There is nothing to flush, and the run is not over before this process is.
