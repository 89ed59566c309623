"""glance.json: what the hooks need to know, so that they read one small file and ask nobody.

    {"version": 1, "writtenAt": <epoch s>, "runner": {"pid": n, "version": text, "startedAt": <epoch s>} | null,
     "projects": {<real path>: {
        "enabled": bool, "trusted": bool, "suspended": null | "one line why",
        "stamp": [n], "approved": [<first 16 digits of the SHA-256 of an approved config>],
        "approvals": [{"at": <epoch s>, "by": text, "what": [<task id, "rules.md" or "config.json">]}],
        "tasks": n, "active": n, "running": n, "next": [{"task": id, "at": <epoch s>}],
        "recent": [{"run": id8, "task": id, "status": s, "reason": r | null, "at": <epoch s>, "costUsd": x | null}],
        "open": [{"kind": "failed" | "review" | "kept-worktree" | "usage-limit" | "config" | "paused"
                           | "budget" | "auth" | "credit" | "waiting" | "git",
                  "run": id8 | null, "task": id | null, "at": <epoch s>}],
        "due": [<epoch s>], "held": [[<epoch s>, cause]],
        "overdue": null | {"due": n, "ran": n, "since": <epoch s>, "cause": text}}}}

What keeps tasks from running (`paused`, `budget`, `usage-limit`, `auth`, `credit`) says its "scope": "task", "project",
"all" or "run" (that run waits for a usage limit to end), "until": <epoch s> | null, "by": text (who, how much, or what
the client said), "skipped": how many occurrences were passed over. A `kept-worktree` says its "path", a `failed` one by
"work": bool whether work of it was saved and by "loud": "containment" | "self-edit" | null whether it changed what it
must not, a `waiting` one (which met a usage limit and goes on later) "by" for what, a `git` one "by" why the branches
to review are not known.

`stamp` is that of config and rules before they were read for the entry (`stamp`): as long as it is so, they need not be
read to be told from those that were approved.

`approvals` are the last ones of the last seven days: who gave them, and how, and what was new or changed in them.

The dead-man's switch: `overdue` is what came due until the entry was written and did not run, and how many runs began
meanwhile; `cause` is the main reason ("no-runner", "hung", "unwritten", "asleep", "untrusted", "settings", "clock", or
the kind of what keeps tasks from running). `due` is when the next ten starts come (what comes in quiet hours starts at
their end), and `held` the next ten occurrences that something keeps from starting: what of them has passed by more than
90 s nobody dealt with, and `overdue` does not count it. A suspended project's are those of the config that was approved
last.

Each project is one line, so that a hook need not read the others. The runner or the CLI writes the file, whichever
changed something. It is derived: whatever is lost in it is computed again.
Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os
import time

from scheduler.disk import files, paths, tinyjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from scheduler.disk.files import AnyPath

VERSION = 1
LIMIT = 4 << 20
RECENT = OPEN = 50  # so many runs and matters an entry holds: the last ones; one that holds as many may lack others
_BEGIN, _END = b',"projects":{\n', b"\n}}\n"
_KEEP: Any = object()


def stamp(project: str) -> list[int]:
    """Changes whenever a project's config or rules may have changed; costs two calls of stat."""
    found: list[int] = []
    for path in (paths.config_file(project), paths.rules_file(project)):
        try:
            info = os.stat(path)
            found += [info.st_mtime_ns, info.st_size, info.st_ino, info.st_mode, info.st_uid]
        except OSError as error:
            found.append(error.errno or 0)
    return found


def read(path: AnyPath, only: str | None = None) -> dict[str, Any] | None:
    """The glance, its `projects` a dict of dicts; None when it is absent, damaged, too large or of another version.

    `only` leaves all projects but that one out.
    """
    try:
        data = files.read_bounded(path, LIMIT)
        found = tinyjson.loads(data if only is None else _without_others(data, only))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        return None
    projects = found.get("projects")
    if not isinstance(projects, dict) or not all(isinstance(entry, dict) for entry in projects.values()):
        return None
    return found


def _without_others(data: bytes, project: str) -> bytes:
    """The text as `_text` writes it, with one project's line at most. Any other text is given back as it is."""
    head, begin, rest = data.partition(_BEGIN)
    if not begin or not rest.endswith(_END):
        return data
    at = data.find(b"\n" + tinyjson.quote(project).encode() + b":", len(head)) + 1
    line = data[at : data.find(b"\n", at)].rstrip(b",") if at else b""
    return head + _BEGIN + line + _END


def _text(glance: dict[str, Any]) -> bytes:
    lines = [f"{tinyjson.quote(name)}:{tinyjson.dumps(entry)}" for name, entry in glance["projects"].items()]
    head = tinyjson.dumps({name: value for name, value in glance.items() if name != "projects"})
    return head[:-1].encode() + _BEGIN + ",\n".join(lines).encode() + _END


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
                opened = entry.get("open")
                few = {"open": opened[:OPEN]} if isinstance(opened, list) else {}
                glance["projects"][project] = {**entry, **few}
        if runner is not _KEEP:
            glance["runner"] = runner
        glance["writtenAt"] = now
        files.write_atomic(path, _text(glance))


def _read_or_move_aside(path: AnyPath, now: float) -> dict[str, Any]:
    glance = read(path)
    if glance is None:
        try:
            files.move_aside(path, str(int(now)))
        except FileNotFoundError:
            pass
        glance = {"version": VERSION, "writtenAt": now, "runner": None, "projects": {}}
    return glance
