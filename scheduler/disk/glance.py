"""glance.json: what the hooks need to know, so that they read one small file and ask nobody.

    {"version": 1, "writtenAt": <epoch s>, "runner": {"pid": n, "version": text, "startedAt": <epoch s>} | null,
     "projects": {<real path>: {
        "enabled": bool, "trusted": bool, "suspended": null | "one line why",
        "tasks": n, "active": n, "running": n, "next": [{"task": id, "at": <epoch s>}],
        "recent": [{"run": id8, "task": id, "status": s, "reason": r | null, "at": <epoch s>, "costUsd": x | null}],
        "open": [{"kind": "failed" | "review" | "kept-worktree" | "usage-limit" | "config",
                  "run": id8 | null, "task": id | null, "at": <epoch s>}]}}}

The runner or the CLI writes it, whichever changed something. It is derived: whatever is lost in it is computed again.
Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import time

from scheduler.disk import files, tinyjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from scheduler.disk.files import AnyPath

VERSION = 1
LIMIT = 4 << 20
_KEEP: Any = object()


def read(path: AnyPath) -> dict[str, Any] | None:
    """The glance, its `projects` a dict of dicts; None when it is absent, damaged, too large or of another version."""
    try:
        found = tinyjson.loads(files.read_bounded(path, LIMIT))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        return None
    projects = found.get("projects")
    if not isinstance(projects, dict) or not all(isinstance(entry, dict) for entry in projects.values()):
        return None
    return found


def update(
    path: AnyPath,
    project: str | None,
    entry: Mapping[str, Any] | None,
    *,
    runner: Mapping[str, Any] | None = _KEEP,
    now: float | None = None,
) -> None:
    """Put `entry` in the place of the project's (None removes it; a `project` of None leaves all as they are).

    `runner` replaces the runner's mark, None removes it. A damaged file is moved aside first. Waits for the lock.
    """
    now = time.time() if now is None else now
    with files.locked(files.sidecar(path)):
        glance = _read_or_move_aside(path, now)
        if project is not None:
            glance["projects"].pop(project, None)
            if entry is not None:
                glance["projects"][project] = entry
        if runner is not _KEEP:
            glance["runner"] = runner
        glance["writtenAt"] = now
        files.write_atomic(path, tinyjson.dumps(glance).encode() + b"\n")


def _read_or_move_aside(path: AnyPath, now: float) -> dict[str, Any]:
    glance = read(path)
    if glance is None:
        try:
            files.move_aside(path, str(int(now)))
        except FileNotFoundError:
            pass
        glance = {"version": VERSION, "writtenAt": now, "runner": None, "projects": {}}
    return glance
