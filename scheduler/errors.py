"""What can go wrong in a way that the person at the keyboard can mend.

Python 3.9 syntax, standard library only: the hooks import this module.
"""

from __future__ import annotations


class SchedulerError(Exception):
    """Something the user can mend: `message` is one line that says what is wrong, `hint` one that says what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SchedulerError):
    """The words of a call are off (exit code 2)."""

    exit_code = 2


class CorruptFile(SchedulerError):
    """A file of ours holds something that it cannot hold; it was left or moved aside, never overwritten."""


class NotTrusted(SchedulerError):
    """A project's config is not what its user approved."""


class CommandFailed(SchedulerError):
    """A program that was started ended badly; the message names the command, its code and its last words."""

    def __init__(self, message: str, hint: str = "", *, returncode: int = 1, stderr: str = "") -> None:
        super().__init__(message, hint)
        self.returncode = returncode
        self.stderr = stderr
