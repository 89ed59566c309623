"""What a fresh worktree lacks because git ignores it: links to folders of the main checkout, copies of small files."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.folders import told
from scheduler.execution.git import Project
from scheduler.execution.worktree import Worktree

INCLUDE = ".worktreeinclude"


def link(tree: Worktree, names: Sequence[str]) -> list[str]:
    """Link ignored files and folders of the main checkout into the worktree; returns notes on those that are missing.

    Raises SchedulerError for a name that leads out of the checkout, that git does not ignore, or that is there already
    because it is tracked.
    """
    notes = []
    for name in _checked(tree.project, names):
        source, target = tree.project.root / name, tree.path / name
        if not os.path.lexists(source):
            notes.append(f"link: {name} is not in the main checkout")
        elif os.path.lexists(target):
            raise SchedulerError(f"link: {name} is tracked by git, so the worktree has its own", "take it from `link`")
        elif not _stays_inside(tree.path, target):
            raise SchedulerError(f"link: {name} lies behind a link that leads out of the worktree", "take it away")
        else:
            with told(f"link: {name} could not be linked"):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
    return notes


def is_link_of_ours(project: Project, tree: Path, name: str) -> bool:
    """Whether `name` in a worktree is a link that `link` makes: a pattern such as `node_modules/` does not cover it."""
    try:
        return os.readlink(tree / name) == str(project.root / name)
    except OSError:
        return False


def _checked(project: Project, names: Sequence[str]) -> list[str]:
    """The names in plain form. One process, none where there are no names."""
    plain = []
    for name in dict.fromkeys(names):
        path = PurePosixPath(name)
        if path.is_absolute() or not path.parts or ".." in path.parts or ".git" in path.parts or "\0" in name:
            raise SchedulerError(f"link: {name!a} does not lie below the project's folder", "give a relative path")
        plain.append(str(path))
    ignored = set(git.ignored(project.checkout, plain))
    for name in plain:
        if name not in ignored and os.path.lexists(project.root / name):
            raise SchedulerError(f"link: {name} is not ignored by git", "add it to .gitignore, or take it from `link`")
    return plain


def copy_included(tree: Worktree) -> list[str]:
    """Copy what `.worktreeinclude` (syntax of .gitignore) names, of files that git ignores; returns notes.

    Two processes where the file is there, else none. Links are not followed and not copied, nothing is overwritten.
    """
    root = tree.project.root
    if not (root / INCLUDE).is_file():
        return []
    command = ("ls-files", "-z", "--others", "--ignored", f"--exclude-from={INCLUDE}")
    listed = git.fields(git.run(tree.project.checkout, *command).stdout)
    notes = []
    for name in git.ignored(tree.project.checkout, listed):
        target = tree.path / name
        if not stat.S_ISREG(os.lstat(root / name).st_mode):
            notes.append(f"{INCLUDE}: {name} is no plain file, so it was not copied")
        elif not os.path.lexists(target) and _stays_inside(tree.path, target):
            with told(f"{INCLUDE}: {name} could not be copied"):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, target, follow_symlinks=False)
    return notes


def _stays_inside(tree: Path, target: Path) -> bool:
    real = os.path.realpath(tree)
    return os.path.commonpath([real, os.path.realpath(target.parent)]) == real
