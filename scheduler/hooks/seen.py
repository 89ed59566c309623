"""What the hooks remember of a project between two sessions: a small file each, which may be lost.

    {"project": path, "shown": [id8 of runs that a start line told of],
     "woken": <epoch s of the last attempt to start a runner>, "refreshed": <… of the last background set-up>,
     "reminded": <… of the last reminder>, "waiting": <n of tasks it was about, until the next start line>}

`at`, the moment of the last start line, is the file's time: mostly nothing else changes, and to replace a file costs
more than all the rest of SessionStart.
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
    """What is remembered of a project, with `at`; empty where that is nothing."""
    path = _file(paths, project)
    try:
        found = tinyjson.loads(files.read_bounded(path, _LIMIT))
        at = os.stat(path).st_mtime
    except (OSError, ValueError):
        return {}
    return {**found, "at": at} if isinstance(found, dict) and found.get("project") == project else {}


def shown(seen: dict[str, Any]) -> list[Any]:
    """The runs that the user has been told of."""
    told = seen.get("shown")
    return told if isinstance(told, list) else []


def save(paths: Paths, project: str, seen: dict[str, Any], before: dict[str, Any]) -> None:
    """Remember `seen` of a project in place of `before`, which was loaded. What the disk does not take is not kept."""
    path = _file(paths, project)
    at = seen.get("at", 0)
    kept = {**seen, "project": project}
    kept.pop("at", None)
    try:
        if {**kept, "at": 0} != {**before, "at": 0}:
            files.write_atomic(path, tinyjson.dumps(kept).encode() + b"\n", durable=False)
        os.utime(path, (at, at))
    except OSError:  # a full disk is no reason to keep what there is to say from the user
        pass


def _file(paths: Paths, project: str) -> str:
    name = "".join(char if char in _PLAIN else "_" for char in os.path.basename(project)[:40])
    return os.path.join(paths.seen, f"{name}-{_digest(os.fsencode(project)):016x}.json")


def _digest(data: bytes) -> int:
    """FNV-1a: tells projects apart without an import; the file itself says whose it is."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
