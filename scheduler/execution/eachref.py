"""What refs a repository has, asked of git, but for a place where git would wait without end.

Whoever can write to a repository, an agent too, can leave a pipe where git looks for a ref.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.git import Project


def each_ref(project: Project, *words: str, check: bool = True, timeout: float = git.SHORT) -> list[str]:
    """The lines of `git for-each-ref`. SchedulerError, at once, where something other than a file is in a ref's place;
    else as `git.run`."""
    strange = _strange(project.common_dir / "refs")
    if strange is not None:
        raise SchedulerError(f"{strange} is no file: git would wait for it without end", "delete it")
    done = git.run(project.checkout, "for-each-ref", *words, check=check, timeout=timeout)
    return os.fsdecode(done.stdout).splitlines()


def _strange(folder: Path | str) -> str | None:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found = _strange(entry.path)
                if found is not None:
                    return found
            elif not entry.is_file() and not entry.is_dir() and os.path.exists(entry.path):
                return entry.path
    return None


def unmerged_branches(root: Path, env: Mapping[str, str] | None = None) -> set[str]:
    """The local branches whose work is not in the main checkout's HEAD; empty where there is no commit. One process.
    Raises as `each_ref`."""
    project = Project(root, root / ".git", git.environment(os.environ if env is None else env))
    lines = each_ref(project, "--format=%(refname)", "--no-merged=HEAD", "refs/heads/", check=False)
    return {line.removeprefix("refs/heads/") for line in lines}
