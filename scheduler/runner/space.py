"""Whether the disk has room for another run: what a full disk would break is not begun."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

log = logging.getLogger("scheduler")
FLOOR = 50 * 1000 * 1000  # bytes


class Space:
    """Looks at the disks of some folders, and says in the log when one fills up and when there is room again."""

    def __init__(self, folders: Sequence[str], floor: int = FLOOR) -> None:
        self._folders = folders
        self._floor = floor
        self._short: str | None = None

    def enough(self) -> bool:
        """Whether each disk has as much as the floor left; one that does not tell is taken to have."""
        short = next((folder for folder in self._folders if _free(folder) < self._floor), None)
        if short is not None and short != self._short:
            log.warning("nothing is started while %s", _words(short))
        elif short is None and self._short is not None:
            log.warning("there is room on the disk again")
        self._short = short
        return short is None

    def words(self) -> str:
        """What is short, in a clause; empty where nothing is."""
        return "" if self._short is None else _words(self._short)


def _words(folder: str) -> str:
    return f"the disk of {folder} is nearly full"


def existing(folder: str) -> str:
    """The folder, or where it will be made: the nearest one above it that is there."""
    while not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return folder


def _free(folder: str) -> int:
    try:
        found = os.statvfs(existing(folder))
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize if found.f_blocks else 1 << 62
