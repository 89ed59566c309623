"""What the PostToolUse hook notes: that a tool changed a file, which one and by how much. Never what is in it.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os
import stat

from scheduler.disk import files, paths, tinyjson
from scheduler.hooks import place, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from scheduler.hooks.place import Place

TOOLS = ("Write", "Edit", "MultiEdit", "NotebookEdit")
LIMIT = 10_000_000
_PATH_LIMIT = 4096


def note(event: dict[str, Any], env: Mapping[str, str], now: float) -> None:
    """Append the event's line to the changes of its project; in a scheduled run of the project that the run is of."""
    run = env.get("SCHEDULER_RUN_ID", "")
    run = run if paths.is_run_id(run) else ""
    where = _place(event, env, run)
    if where is None or event.get("tool_name") not in TOOLS:
        return
    line = record(event, where, run, env.get("SCHEDULER_TASK_ID", ""), now)
    _prepare_logs(where.project)
    data = tinyjson.dumps(line).encode() + b"\n"
    files.append(paths.file_changes(where.project), data, limit=LIMIT, wait=False)


def _prepare_logs(project: str) -> None:
    folder = paths.logs_folder(project)
    for path in (os.path.dirname(os.path.dirname(folder)), os.path.dirname(folder), folder):
        if os.path.islink(path):
            raise ValueError("the logs folder is, or lies below, a symbolic link")
    if not os.path.isdir(folder):
        files.make_folder(folder)
        files.write_atomic(os.path.join(folder, ".gitignore"), b"*\n")


def _place(event: Mapping[str, Any], env: Mapping[str, str], run: str) -> Place | None:
    if not run:
        return place.of_event(event, env)
    named = env.get("SCHEDULER_PROJECT", "")
    project = os.path.realpath(named)
    if not os.path.isabs(named) or not os.path.isdir(os.path.join(project, paths.CONFIG_FOLDER)):
        return None
    # The agent may have gone elsewhere; its worktree is the one of the project that it is in, or began in.
    for found in place.around(event, env):
        if found.project == project != found.top:
            return found
    return place.Place(project, project)


def record(event: Mapping[str, Any], where: Place, run: str, task: str, now: float) -> dict[str, Any]:
    """The line for the event. Numbers that are not known are left out. ValueError when it names no file."""
    asked = _members(event, "tool_input")
    given = wire.text(asked, "file_path", _PATH_LIMIT) or wire.text(asked, "notebook_path", _PATH_LIMIT)
    if not given:
        raise ValueError("the event names no file")
    path = os.path.realpath(os.path.join(wire.text(event, "cwd", _PATH_LIMIT) or where.top, given))
    line: dict[str, Any] = {"time": wire.iso(now), "session": wire.text(event, "session_id")}
    if run:
        line["run"] = run
        if paths.is_task_id(task):
            line["task"] = task
    line["tool"] = event["tool_name"]
    use = wire.text(event, "tool_use_id")
    if use:
        line["toolUseId"] = use
    line.update(_where(path, where, bool(run)))
    line.update(_sizes(event, path))
    return line


def _where(path: str, where: Place, in_run: bool) -> dict[str, Any]:
    """The path seen from the working tree it is in: the session's worktree, or the project's main checkout."""
    if where.top != where.project and path.startswith(where.top + os.sep):
        return {"path": path[len(where.top) + 1 :], "in": "worktree"}
    if not path.startswith(where.project + os.sep):
        return {"path": path, "outside": True}
    inner = {"path": path[len(where.project) + 1 :]}
    return {**inner, "in": "main"} if in_run or where.top != where.project else inner


def _sizes(event: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Kind, bytes and lines, as far as the client and the disk tell them."""
    told = _members(event, "tool_response")
    original = told.get("original_file") if "notebook_path" in told else told.get("originalFile")
    before = original if isinstance(original, str) else ""
    kind = told.get("type", ("update" if before else "create") if told else None)
    counts = _counts(told, before, told.get("updated_file", _members(event, "tool_input").get("content")))
    on_disk = _size_on_disk(path)
    sizes: dict[str, Any] = {}
    if kind in ("create", "update"):
        sizes["kind"] = kind
    if kind == "create":
        sizes["bytesBefore"] = 0
    elif isinstance(original, str) and counts:
        sizes.update(_bytes_before(before, on_disk, counts))
    if on_disk is not None:
        sizes["bytesAfter"] = on_disk
    if counts and (kind == "create" or isinstance(original, str)):
        sizes["linesAdded"], sizes["linesRemoved"] = counts["added"], counts["removed"]
    return sizes


def _counts(told: Mapping[str, Any], before: str, after: object) -> dict[str, int]:
    patch = told.get("structuredPatch")
    if isinstance(patch, list) and patch:
        return _count_patch(patch)
    return _count_region(before, after) if isinstance(after, str) and told else {}


def _bytes_before(before: str, on_disk: int | None, counts: Mapping[str, int]) -> dict[str, int]:
    """The client gives text with bare line feeds; what is on the disk now tells whether the file has CRLF instead."""
    size, feeds = _size(before), before.count("\n")
    if on_disk is None or on_disk == size + counts["bytes"]:
        return {"bytesBefore": size}
    if on_disk == size + counts["bytes"] + feeds + counts["feeds"]:
        return {"bytesBefore": size + feeds}
    return {}  # another encoding, or somebody changed the file since


def _count_patch(patch: list[Any]) -> dict[str, int]:
    """What a structured patch adds and removes: lines; and bytes and line feeds, in balance."""
    counts = {"added": 0, "removed": 0, "bytes": 0, "feeds": 0}
    for hunk in patch:
        sign = 0
        for line in hunk["lines"]:
            if line[:1] == "\\":  # "\ No newline at end of file", of the line before
                counts["bytes"] -= sign
                counts["feeds"] -= sign
                continue
            sign = {"+": 1, "-": -1}.get(line[:1], 0)
            if sign:
                counts["added" if sign > 0 else "removed"] += 1
                counts["bytes"] += sign * _size(line)  # its sign stands for the line feed
                counts["feeds"] += sign
    return counts


def _count_region(before: str, after: str) -> dict[str, int]:
    """The same for two whole texts: the lines from the first that differs to the last."""
    old, new = _lines(before), _lines(after)
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and old[start] == new[start]:
        start += 1
    end = 0
    while end < shorter - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return {
        "added": len(new) - start - end,
        "removed": len(old) - start - end,
        "bytes": _size(after) - _size(before),
        "feeds": after.count("\n") - before.count("\n"),
    }


def _lines(text: str) -> list[str]:
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _size_on_disk(path: str) -> int | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _members(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = event.get(name)
    return value if isinstance(value, dict) else {}
