"""Which project a folder belongs to, told from the file system alone: a hook starts no git.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import os

from scheduler.disk import files, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_LINE_LIMIT = 8192


class Place:
    """A working tree: its `top`, and the `project` (main working tree) it belongs to. Both are real paths."""

    __slots__ = ("project", "top")

    def __init__(self, top: str, project: str) -> None:
        self.top = top
        self.project = project


def of_event(event: Mapping[str, Any], env: Mapping[str, str]) -> Place | None:
    """The first of the event's places whose project has tasks: where the session is, then where it began."""
    for place in around(event, env):
        if os.path.isdir(os.path.join(place.project, paths.CONFIG_FOLDER)):
            return place
    return None


def around(event: Mapping[str, Any], env: Mapping[str, str]) -> Iterator[Place]:
    """The working trees that the session is in, and that it began in."""
    for folder in (event.get("cwd"), env.get("CLAUDE_PROJECT_DIR")):
        if isinstance(folder, str) and os.path.isabs(folder):
            place = find(folder)
            if place is not None:
                yield place


def find(folder: str) -> Place | None:
    """The working tree that `folder` is in. None where there is none, or it is not one that can be told."""
    try:
        top = _top(os.path.realpath(folder))
        project = _main(top) if top is not None else None
    except (OSError, ValueError):  # a name with a NUL, a link that goes nowhere, a file that is no git's
        return None
    return Place(top, project) if top is not None and project is not None else None


def _top(folder: str) -> str | None:
    while not os.path.lexists(os.path.join(folder, ".git")):
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above
    return folder


def _main(top: str) -> str | None:
    dot_git = os.path.join(top, ".git")
    if os.path.isdir(dot_git):
        return top
    said = _line(dot_git)
    if not said.startswith("gitdir: "):
        return None
    admin = os.path.realpath(os.path.join(top, said[8:]))
    if not os.path.lexists(os.path.join(admin, "commondir")):  # a submodule, or a git folder kept elsewhere
        return top if os.path.isdir(admin) else None
    common = os.path.realpath(os.path.join(admin, _line(os.path.join(admin, "commondir"))))
    back = os.path.realpath(os.path.join(admin, _line(os.path.join(admin, "gitdir"))))
    # Only a worktree that its repository knows of: a folder may not name somebody else's project as its own.
    if os.path.dirname(admin) != os.path.join(common, "worktrees") or back != os.path.realpath(dot_git):
        return None
    return os.path.dirname(common) if os.path.basename(common) == ".git" else None


def _line(path: str) -> str:
    return os.fsdecode(files.read_bounded(path, _LINE_LIMIT)).partition("\n")[0].rstrip("\r")
