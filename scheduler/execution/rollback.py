"""Undo a run so that nothing is lost: all its work becomes a commit under a private ref, then branch and worktree go.

Works on what an agent, a killed git or a crash left behind: a stale lock, no `.git`, no git folder, no worktree at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scheduler.disk.files import locked, make_folder, read_bounded
from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.folders import delete_folder
from scheduler.execution.git import Where
from scheduler.execution.process import Completed
from scheduler.execution.refs import DISCARDED, is_checked_out
from scheduler.execution.work import (
    DIFF_OPTIONS,
    DURABLE,
    State,
    clear_pipes,
    look,
    read_diff,
    stage,
    unpublished,
    with_identity,
)
from scheduler.execution.worktree import (
    Worktree,
    admin_folder,
    clear_locks,
    drop_branch,
    is_half_made,
    remove_held,
)

LOCK_AGE = 60.0
"""Seconds after which the lock of a ref of ours counts as left behind by a git that was killed."""

PATIENCE = 60.0
"""Seconds that a git which a dead runner left at work is waited for."""

_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_NOTED_LIMIT = 64 << 20
# Where git notes a commit that nothing else may point to any more.
_NOTED = [
    *("HEAD", "ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "MERGE_AUTOSTASH"),
    *(f"rebase-{kind}/{name}" for kind in ("merge", "apply") for name in ("autostash", "orig-head")),
]


@dataclass(frozen=True)
class Rollback:
    """What became of a run's work. `ref`: the private ref that holds it, as `commit`; None where there was none.
    `unsaved`: what could not be saved, one line each: branch and worktree are still there then."""

    ref: str | None
    commit: str | None
    unsaved: tuple[str, ...]


def rollback(tree: Worktree, run_id: str, message: str) -> Rollback:
    """Save all work of the run (commits; changed, deleted and new files; not what is ignored), then remove both.

    Nobody may be at work in the worktree any more. Calling it again after a crash goes on where it was. Never raises
    for what git or the disk refuses: that is in `unsaved`. Processes: two where there is nothing to save, five for
    commits, nine or ten for files.
    """
    ref = DISCARDED + run_id
    try:
        clear_pipes(tree)
        commit, unsaved = _save(tree, ref, message)
    except (SchedulerError, OSError) as error:
        commit = None
        with contextlib.suppress(SchedulerError, OSError):  # the repository itself may have gone
            commit = git.resolve(tree.project, ref)
        return Rollback(None, commit, (_said(error),))
    kept = ref if commit else None
    if unsaved:
        return Rollback(kept, commit, tuple(unsaved))
    try:
        with locked(tree.lock):
            tip = git.resolve(tree.project, tree.ref)
            remove_held(tree)
            if tip is not None:
                gone = drop_branch(tree, tip)
            else:  # it may stand for a branch that is not there, which git complains of
                gone = git.points_to(tree.project, tree.ref) is None or drop_branch(tree)
    except (SchedulerError, OSError) as error:
        return Rollback(kept, commit, (_said(error),))
    if gone:
        return Rollback(kept, commit, ())
    held = is_checked_out(tree.project, tree.branch)
    return Rollback(kept, commit, (f"the branch {tree.branch} {'is checked out' if held else 'could not be removed'}",))


def recover(
    tree: Worktree, run_id: str, message: str, *, lock_age: float = LOCK_AGE, patience: float = PATIENCE
) -> Rollback:
    """`rollback` of a run whose runner died, in whatever state that left the repository.

    Waits up to `patience` seconds for a git that the dead runner had started. What no git command clears is cleared, as
    far as it is plainly ours: the locks of the run's branch and of its private ref, once they are `lock_age` seconds
    old (which is waited for too) and no git is at work in the repository. Locks of the user's are never touched.
    """
    own = [tree.project.common_dir / f"{ref}.lock" for ref in (tree.ref, DISCARDED + run_id)]
    locks = [*own, tree.project.common_dir / "packed-refs.lock"]
    end = time.monotonic() + patience
    while git_at_work(tree.path) or any(0 <= _age(lock) < lock_age for lock in locks):
        if time.monotonic() >= end:
            break
        time.sleep(0.1)
    if git_at_work(tree.path):
        return Rollback(None, None, ("git is still at work in the worktree",))
    with locked(tree.lock):
        old = all(_age(lock) >= lock_age or _age(lock) < 0 for lock in locks)
        if old and not git_at_work(tree.project.root, tree.project.common_dir):
            own[1].unlink(missing_ok=True)
            clear_locks(tree)
        if is_half_made(tree):
            remove_held(tree)  # there was nothing to work in yet
    return rollback(tree, run_id, message)


def _age(lock: Path) -> float:
    """In seconds, -1 where there is none."""
    try:
        return max(0.0, time.time() - lock.stat().st_mtime)
    except OSError:
        return -1.0


def git_at_work(*places: Path) -> bool:
    """Whether a living git works in one of the folders, or names it (Linux; elsewhere nobody can tell)."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if not (process / "comm").read_bytes().startswith(b"git"):
                continue
            folder = Path(os.readlink(process / "cwd"))
            named = (process / "cmdline").read_bytes().split(b"\0")
            if any(folder.is_relative_to(place) or os.fsencode(place) in named for place in places):
                return True
    return False


def _said(error: Exception) -> str:
    return error.message if isinstance(error, SchedulerError) else str(error)


def _save(tree: Worktree, ref: str, message: str) -> tuple[str | None, list[str]]:
    """Make the private ref; the commit it names (None: there was no work), and what could not be saved."""
    saved = git.resolve(tree.project, ref)  # by a rollback that a crash cut short
    unsaved: list[str] = []
    commit = None
    with _seen(tree) as (where, state):
        heads = _new_commits(tree, state, saved)
        if saved and heads:
            heads.append(saved)
        if where and (state.entries or state.hidden):
            commit, unsaved = _commit_rest(tree, where, state, heads or ([saved] if saved else []), message)
        if commit is None and heads:
            commit = heads[0] if len(heads) == 1 else _commit_tree(tree, f"{heads[0]}^{{tree}}", heads, message)
        if where and commit:
            changed = git.run(where, "diff-tree", "-r", *DIFF_OPTIONS, tree.base, commit, "--")
            unsaved += unpublished(tree, read_diff(changed).repositories)
    if commit is not None:
        old = saved or "0" * len(commit)
        git.run(
            tree.project.checkout, "update-ref", "--no-deref", "--end-of-options", ref, commit, old, settings=DURABLE
        )
    if tree.stands and (tree.path / ".git").is_dir():
        unsaved.append("the worktree was made a repository of its own")
    return commit or saved, unsaved


@contextlib.contextmanager
def _seen(tree: Worktree) -> Iterator[tuple[Where | None, State]]:
    """The worktree through an index of our own, so that a stale lock, or the agent's staging, does not matter.

    Where its git folder is gone or damaged, through a folder made for the purpose. (None, …) where it does not stand.
    """
    admin = admin_folder(tree)
    if not tree.stands:
        yield None, State(None, None, ())
        return
    scratch = tree.path.parent / f".{tree.path.name}.rollback"
    delete_folder(scratch)
    make_folder(scratch)
    if tree.wrap:
        tree = replace(tree, wrap=(*tree.wrap[:-1], "--bind", str(scratch), str(scratch), tree.wrap[-1]))
    try:
        if admin is not None:
            inside = tree.inside(admin)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(admin / "index", scratch / "index")  # with its time, by which git knows what is fresh
            where = replace(inside, env={**inside.env, "GIT_INDEX_FILE": str(scratch / "index")})
            state = None
            with contextlib.suppress(git.GitFailed):
                state = look(tree, where)
            if state is not None:
                yield where, state
                return
        where = tree.inside(scratch)
        (scratch / "index").unlink(missing_ok=True)
        (scratch / "commondir").write_bytes(os.fsencode(tree.project.common_dir))
        (scratch / "HEAD").write_text(git.resolve(tree.project, tree.ref) or tree.base)
        git.run(where, "read-tree", "HEAD")
        yield where, look(tree, where)
    finally:
        delete_folder(scratch)


def _new_commits(tree: Worktree, state: State, saved: str | None) -> list[str]:
    """The commits that only this run may point to and that no other of them reaches; the worktree's HEAD first.

    Found by the reflogs too: an agent that resets its branch leaves its work nowhere else. Commits on a branch of the
    user's stay there, unless the worktree stands on it. One process, none where nothing was committed.
    """
    noted = {state.head, git.resolve(tree.project, tree.ref), *_noted(tree)} - {None, tree.base}
    if not noted:
        return []
    known = [f"^{commit}" for commit in (tree.base, saved) if commit]
    asked = "".join(f"{commit}\n" for commit in [*sorted(filter(None, noted)), *known])
    command = ["rev-list", "--parents", "--ignore-missing", "--stdin", "--not"]
    command += [f"--exclude={branch}" for branch in (tree.branch, state.branch) if branch]
    done = git.run(tree.project.checkout, *command, "--branches", "--tags", "--remotes", input=asked.encode())
    lines = [line.split() for line in git.text(done.stdout).splitlines()]
    parents = {parent for line in lines for parent in line[1:]}
    heads = [line[0] for line in lines if line[0] not in parents]
    return sorted(heads, key=lambda commit: commit != state.head)


def _noted(tree: Worktree) -> set[str]:
    """Every commit that the reflogs of the run's branch and worktree, and git's notes in its folder, name."""
    files = [tree.project.common_dir / "logs" / tree.ref]
    admin = admin_folder(tree)
    if admin is not None:
        files += [admin / "logs" / "HEAD", *(admin / name for name in _NOTED)]
    found: set[str] = set()
    for file in files:
        with contextlib.suppress(OSError):
            for line in read_bounded(file, _NOTED_LIMIT).decode(errors="replace").splitlines():
                found.update(word for word in line.split(" ", 2)[:2] if _ID.match(word) and word.strip("0"))
    return found


def _commit_rest(
    tree: Worktree, where: Where, state: State, heads: list[str], message: str
) -> tuple[str | None, list[str]]:
    """The folder's content as a commit on top of all `heads`, and a line for what it could not take; None for the
    commit where that is nothing. What was staged and then changed again becomes one more parent, as `git stash` does.
    """
    top = state.head or (heads or [tree.base])[0]
    staged = None
    if any(entry.code[0] not in ".?u" for entry in state.entries) and all(e.code != "uu" for e in state.entries):
        staged = git.text(git.run(where, "write-tree", settings=DURABLE).stdout)
    unsaved = stage(tree, where, state)
    content = git.text(git.run(where, "write-tree", settings=DURABLE).stdout)
    before = git.text(git.run(where, "rev-parse", f"{top}^{{tree}}").stdout)
    parents = [top, *(commit for commit in heads if commit != top)]
    if staged not in (None, before, content):
        parents.append(_commit_tree(tree, str(staged), [top], f"What was staged\n\n{message}"))
    elif content == before:
        return None, unsaved
    return _commit_tree(tree, content, parents, message), unsaved


def _commit_tree(tree: Worktree, content: str, parents: list[str], message: str) -> str:
    words = message.encode(errors="surrogateescape")
    flags = [flag for parent in parents for flag in ("-p", parent)]

    def commit(where: Where) -> Completed:
        return git.run(where, "commit-tree", content, *flags, settings=DURABLE, input=words, check=False)

    done = with_identity(tree.project.checkout, commit)
    if done.returncode:
        raise git.failed(done, "commit-tree")
    return git.text(done.stdout)
