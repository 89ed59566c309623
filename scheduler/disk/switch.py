"""The off switch: a file that, as long as it is there, keeps every runner from starting anything. Anybody can make it
and take it away, with nothing of ours in working order.

What is in it does not matter, but for a first line `stop`: the runs under way are to be cancelled too. Whatever stands
at its place counts, a folder and a link that leads nowhere too.
Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os

from scheduler.disk import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from scheduler.disk.files import AnyPath

_LIMIT = 1 << 16


class Off:
    """It is thrown: `since` when (epoch seconds), and whether it says `stop`."""

    __slots__ = ("since", "stop")

    def __init__(self, since: float, stop: bool) -> None:
        self.since = since
        self.stop = stop


def look(path: AnyPath, now: float) -> Off | None:
    """Whether the switch at `path` is thrown; None where there is no such file."""
    try:
        since = min(os.lstat(path).st_mtime, now)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # nobody can tell: better nothing starts
        return Off(now, False)
    return Off(since, _says_stop(path))


def _says_stop(path: AnyPath) -> bool:
    try:
        first, _, _ = files.read_bounded(path, _LIMIT).partition(b"\n")
    except OSError:
        return False
    return first.strip().lower() == b"stop"


def mend(path: str) -> str:
    """The command that takes it away."""
    plain = path.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum()
    return f"rm {path}" if plain and path.isascii() else "rm '" + path.replace("'", "'\\''") + "'"
