"""What the hooks saw a run's tools change: lines of `file-changes.jsonl`, one for each `tool_use_id`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from scheduler.disk import files, paths
from scheduler.execution import git
from scheduler.execution.git import Project

_KINDS = {"A": "create", "D": "delete"}


def read(project: str) -> Iterator[dict[str, Any]]:
    """Every change on file, oldest first, each once; what is no change is passed over."""
    seen: set[str] = set()
    path = paths.file_changes(project)
    for part in (*files.rotated(path), path):
        try:
            file = open(part, "rb")
        except FileNotFoundError:
            continue
        with file:
            for line in file:
                change = _change(line)
                if change is None or change.get("toolUseId") in seen:
                    continue
                if isinstance(change.get("toolUseId"), str):
                    seen.add(change["toolUseId"])
                yield change


def _change(line: bytes) -> dict[str, Any] | None:
    try:
        change = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return change if isinstance(change, dict) and isinstance(change.get("path"), str) else None


def tool_paths(project: str, run_id: str) -> list[str]:
    """The paths outside its worktree that tool calls of a run changed, absolute."""
    found = [c for c in read(project) if c.get("run") == run_id and (c.get("in") != "worktree")]
    return [os.path.join(project, change["path"]) for change in found]


def seen_by_git(project: Project, base: str, tip: str) -> list[tuple[str, str]]:
    """The files that differ between two commits, by path: (path, `create`, `update` or `delete`)."""
    options = ("--name-status", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules=none")
    parts = iter(git.fields(git.run(project.checkout, "diff", *options, base, tip, "--", timeout=git.LONG).stdout))
    return [(path, _KINDS.get(letter, "update")) for letter, path in zip(parts, parts, strict=True)]
