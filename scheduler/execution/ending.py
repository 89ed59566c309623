"""How it is told that a program did not start, or how it ended."""

from __future__ import annotations

import errno
import os
import shlex
import signal
from collections.abc import Sequence

LONGEST = 200
"""Characters of a command line in a message."""

NOT_FOUND = 127
NOT_EXECUTABLE = 126
TOO_LATE = 124
"""Return codes of commands that did not run or did not end, as the shell and timeout(1) number them."""


def command_line(argv: Sequence[str]) -> str:
    """The command as one line of bounded length."""
    line = shlex.join(argv).replace("\n", " ")
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def signal_name(number: int) -> str:
    """SIGKILL for 9; a number without a name (real-time signals) as `signal 40`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ended_by(number: int) -> str:
    """One clause on a death by signal."""
    hint = ", maybe for want of memory" if number == signal.SIGKILL else ""
    return f"ended by {signal_name(number)}{hint}"


def not_started(argv: Sequence[str], cwd: os.PathLike[str] | str | None, number: int) -> tuple[str, str]:
    """What is wrong, and what to do, when a program could not be started for the reason `number` (an errno)."""
    program = argv[0]
    if cwd is not None and not os.path.isdir(cwd):
        return f"`{command_line(argv)}` cannot start: there is no folder {cwd}", "create it, or name another"
    if number in (errno.ENOENT, errno.ENOTDIR):
        if "/" in program and os.path.exists(program):
            return f"`{program}` cannot start: the interpreter that its first line names is missing", "install it"
        return f"`{program}` was not found", "install it, or put its folder on the PATH"
    if number in (errno.EACCES, errno.ENOEXEC):
        return f"`{program}` cannot be executed: {os.strerror(number)}", f"look at `ls -l {shlex.quote(program)}`"
    if number == errno.E2BIG:
        return f"`{program}` cannot start: its arguments and environment are too long", "pass less, or pass it on stdin"
    return f"`{command_line(argv)}` cannot start: {os.strerror(number)}", f"check {program}"
