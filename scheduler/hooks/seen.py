"""What the hooks remember of a project between two sessions: a small file each, which may be lost.

    {"project": path, "at": <epoch s of the last start line>, "shown": [id8 of runs it told of],
     "woken": <epoch s of the last attempt to start a runner>, "reminded": <epoch s of the last reminder>,
     "waiting": <n of tasks that the last reminder was about, until the next start line>}

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os

from scheduler.disk import files, tinyjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from scheduler.disk.paths import Paths

_LIMIT = 1 << 16
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def load(paths: Paths, project: str) -> dict[str, Any]:
    """What is remembered of a project; empty where that is nothing."""
    try:
        found = tinyjson.loads(files.read_bounded(_file(paths, project), _LIMIT))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("project") == project else {}


def shown(seen: dict[str, Any]) -> list[Any]:
    """The runs that the user has been told of."""
    told = seen.get("shown")
    return told if isinstance(told, list) else []


def save(paths: Paths, project: str, seen: dict[str, Any]) -> None:
    """Remember `seen` of a project, in place of what was."""
    data = tinyjson.dumps({**seen, "project": project}).encode() + b"\n"
    files.write_atomic(_file(paths, project), data, durable=False)


def _file(paths: Paths, project: str) -> str:
    name = "".join(char if char in _PLAIN else "_" for char in os.path.basename(project)[:40])
    return os.path.join(paths.seen, f"{name}-{_digest(os.fsencode(project)):016x}.json")


def _digest(data: bytes) -> int:
    """FNV-1a: tells projects apart without an import; the file itself says whose it is."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
