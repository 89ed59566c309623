"""What the end of a run means for its worktree and branch, at once or when a later runner finds them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scheduler.core.record import Reason, Record, Status
from scheduler.disk.paths import Paths, is_run_id, is_task_id
from scheduler.errors import SchedulerError
from scheduler.execution import git, refs, rollback, worktree
from scheduler.execution.git import Project
from scheduler.execution.rollback import Rollback
from scheduler.execution.worktree import Worktree


def digest(text: str) -> str:
    """SHA-256 of a path, for names of files and folders that belong to it."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def repository_lock(paths: Paths, project: Project) -> Path:
    """The lock under which worktrees of a repository change; a clone is another repository."""
    return Path(paths.repository_lock(digest(str(project.common_dir))[:16]))


def settle(tree: Worktree, final: Record) -> Record:
    """Remove the worktree; keep the branch of a success, save the work of everything else under its private ref.

    `final` is the record of the end; it comes back with what became of the work. Never raises for git or the disk.
    """
    try:
        if final.status is Status.SUCCESS and final.commit is not None:
            worktree.remove(tree)
            return final
        if final.status is Status.SUCCESS and final.reason is Reason.NO_CHANGES:
            worktree.remove(tree)
            worktree.drop_branch(tree, tree.base)
            return final.evolve(worktree_branch=None)
    except (SchedulerError, OSError) as error:
        said = f"the worktree {tree.path} could not be removed: {error}; take it away by `git worktree remove --force`"
        return _with_notes(final, said)
    return _rolled_back(final, rollback.rollback(tree, final.id, _message(final)))


def place_of(paths: Paths, record: Record) -> dict[str, str] | None:
    """Worktree, branch and base by what a history tells; None where it tells of none, or of one that no run of ours can
    have had: a history may have come with a repository."""
    path, branch, base = record.worktree_path, record.worktree_branch, record.base_commit
    if path is None or branch is None or base is None or not is_task_id(record.task_id) or not is_run_id(record.id):
        return None
    at_home = path == paths.worktree(os.path.basename(os.path.dirname(path)), record.task_id, record.id)
    of_a_run = refs.is_run_branch(branch) and branch.endswith(f"-{record.id[:8]}")
    if not at_home or not of_a_run or not re.fullmatch(r"[0-9a-f]{40,64}", base):
        return None
    return {"worktree": path, "branch": branch, "base": base}


def recover(paths: Paths, record: Record, place: Mapping[str, Any], env: Mapping[str, str]) -> Record:
    """`settle` for a run that an earlier runner left, in whatever state that left the repository."""
    try:
        project = git.find_project(record.project, env)
    except SchedulerError as error:
        return _with_notes(record, f"its worktree could not be looked at: {error.message}")
    tree = Worktree(project, Path(place["worktree"]), place["branch"], place["base"], repository_lock(paths, project))
    if record.status is Status.SUCCESS:
        return settle(tree, record)
    return _rolled_back(record, rollback.recover(tree, record.id, _message(record)))


def _rolled_back(final: Record, done: Rollback) -> Record:
    final = final.evolve(discarded_ref=done.ref)
    if not done.unsaved:
        return final.evolve(worktree_branch=None)
    what = "; ".join(done.unsaved[:5])
    if not os.path.lexists(final.worktree_path or ""):
        return _with_notes(final, f"not all that it left could be taken away: {what}")
    return _with_notes(final, f"the worktree {final.worktree_path} stays, for not all could be saved: {what}")


def _with_notes(record: Record, *notes: str) -> Record:
    return record.evolve(notes=(*(record.notes or ()), *notes))


def _message(record: Record) -> str:
    reason = f" ({record.reason})" if record.reason else ""
    return (
        f"Rolled back: {record.task_name}\n\nTask: {record.task_id}\nRun: {record.id}\nEnd: {record.status}{reason}\n"
    )


def clear_scratch(paths: Paths) -> None:
    """Delete the scratch of every run; for who knows that none is under way."""
    shutil.rmtree(paths.run_folders, ignore_errors=True)


def empty_trash(paths: Paths) -> list[str]:
    """Delete what was moved aside of all removed worktrees; a line for each that cannot be."""
    return worktree.empty_trash(Path(paths.worktrees)) if os.path.isdir(paths.worktrees) else []
