"""Worktrees that stayed when their runs ended, since a full disk, say, kept them from being saved or removed: tried
again, and on record once they are gone. What still cannot be saved stays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scheduler.core.query import Run
from scheduler.core.record import Record, Status
from scheduler.disk import paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import aftermath, git, work, worktree
from scheduler.execution.git import Project
from scheduler.runner.ledger import read_record
from scheduler.store import history, search

log = logging.getLogger("scheduler")
NOTE = "its worktree could be taken away later; nothing of it was lost"


def take_away(where: Paths, root: str, env: Mapping[str, str]) -> bool:
    """Try again for the ended runs of a project; whether anything came of it. Raises OSError and SchedulerError."""
    project = git.find_project(root, env)
    found = False
    for folder in worktree.ours(project, Path(where.worktrees)):
        record = _ended(where, root, folder)
        if record is not None and folder.is_dir():
            found = _again(where, project, record, folder, env) or found
    return found


def _ended(where: Paths, root: str, folder: Path) -> Record | None:
    """The final record of the run that a worktree belongs to; None where there is none, as that of a run under way."""
    try:
        run: Run = search.find(where, paths.history_file(root), folder.name[-8:])
        record = read_record(dict(run))
    except SchedulerError:
        return None
    at_home = record.worktree_path is not None and Path(record.worktree_path) == folder
    return record if at_home and record.status is not Status.RUNNING else None


def _again(where: Paths, project: Project, record: Record, folder: Path, env: Mapping[str, str]) -> bool:
    place: dict[str, Any] = {
        "worktree": str(folder),
        "branch": record.worktree_branch,
        "base": record.base_commit,
    }
    if not all(place.values()) or (record.status is Status.SUCCESS and not _is_as_left(project, record, folder)):
        return False
    settled = aftermath.recover(where, record, place, env)
    if folder.is_dir():
        return False
    log.warning("the worktree of run %s is gone now", record.id)
    history.append(where, settled.evolve(notes=(*(record.notes or ()), NOTE)))
    return True


def _is_as_left(project: Project, record: Record, folder: Path) -> bool:
    """Whether nobody has worked in the worktree of a success since: its branch has all that is in it."""
    tree = worktree.Worktree(project, folder, str(record.worktree_branch), str(record.base_commit), folder)
    admin = worktree.admin_folder(tree)
    if admin is None:
        return False
    state = work.look(tree, tree.inside(admin))
    return not state.entries and not state.hidden and state.head in (record.commit, record.base_commit)
