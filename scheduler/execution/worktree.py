"""Worktrees of runs: make one, find what belongs to it, take it away.

Git's record of a worktree (gitrepository-layout(5), "worktrees") appears and goes by one rename, complete at every
moment. `git worktree add` writes it piece by piece: a `fetch` or `gc` of the user's that comes between fails, and so
does each later one if git is killed there (measured, git 2.39). All of it happens under the repository's lock, for the
layouts that need git's own command. Only what is plainly ours is ever removed: a folder of our naming whose record
points back at it, and the branch made for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scheduler.disk.files import locked, make_folder
from scheduler.errors import SchedulerError
from scheduler.execution import git, refs
from scheduler.execution.folders import delete_folder, told
from scheduler.execution.git import Project, Where

_OURS = re.compile(r"[a-z0-9][a-z0-9-]{0,63}-[0-9a-f]{8}\Z")
_TRASH = ".trash"
_ATTEMPTS = 3
_PARALLEL = ("checkout.workers=4",)  # on two cores too: a third of the time on a disk under churn (measured)
_HALF_MADE = "initializing"  # git's own word, which keeps others from pruning the worktree
_MAKE_ONE = "try a `git worktree add` of your own; it should say the same"


@dataclass(frozen=True)
class Worktree:
    """One run's worktree: the folder `{task-id}-{run8}`, the branch made for it at the commit `base`.

    `lock` is the lock of the repository; it is taken here, never by the caller. `wrap` is put before each git command
    that acts in the worktree, where what an agent left there is to stay in a sandbox.
    """

    project: Project
    path: Path
    branch: str
    base: str
    lock: Path
    wrap: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def stands(self) -> bool:
        """Whether the folder is there, and is not a link to another."""
        try:
            return stat.S_ISDIR(os.lstat(self.path).st_mode)
        except OSError:
            return False

    def inside(self, admin: Path) -> Where:
        """For commands that act in the worktree: they name it, whatever an agent made of its `.git`."""
        env = {**self.project.env, "GIT_DIR": str(admin), "GIT_WORK_TREE": str(self.path)}
        return Where(self.path, env, self.wrap)


def create(tree: Worktree) -> list[str]:
    """Make the branch at its base and the worktree on it; returns notes for the record. Two processes.

    The branch is made first, by itself: it fails where one of that name is there, so that the one that is removed
    after a failed checkout (no space, a filter that is missing) is certain to be ours; and no name of a branch is ever
    read as an option, as `worktree add -b` does. Raises SchedulerError; nothing is left behind.
    """
    if not _OURS.match(tree.path.name):
        raise SchedulerError(f"{tree.path.name} is no name for a worktree", "name it {task-id}-{first 8 of the run}")
    with told("the worktree could not be made"):
        _create(tree)
    submodules = (tree.path / ".gitmodules").exists()
    return ["submodules are empty in the worktree; fill them in with `setup`"] if submodules else []


def _create(tree: Worktree) -> None:
    make_folder(tree.path.parent)
    with locked(tree.lock):
        if os.path.lexists(tree.path):
            raise SchedulerError(f"{tree.path} is in the way of the worktree", "move it away, then run the task again")
        make_branch_held(tree)
        try:
            furnish_held(tree)
        except BaseException:
            with contextlib.suppress(SchedulerError, OSError):
                remove_held(tree)
                drop_branch(tree, tree.base)
            raise


def furnish_held(tree: Worktree) -> None:
    """Make the folder, with the branch checked out; for who holds the repository's lock."""
    if git.is_plain(tree.project):
        _check_out(tree, _register(tree))
    else:
        _add(tree)


def make_branch_held(tree: Worktree) -> None:
    """Make the branch at its base; for who holds the repository's lock."""
    command = ("update-ref", "--no-deref", "--end-of-options", tree.ref, tree.base, "0" * len(tree.base))
    done = git.run(tree.project.checkout, *command, check=False)
    if done.returncode < 0:
        clear_locks(tree)
    if done.returncode:
        raise git.failed(done, "update-ref", "another branch has its name, or is in the way of its folder")


def _register(tree: Worktree) -> Path:
    """Make the empty worktree and git's record of it; the record's folder."""
    admin = tree.project.common_dir / "worktrees" / tree.path.name
    draft = _draft(tree)
    delete_folder(draft)
    draft.mkdir()
    (draft / "HEAD").write_text(f"ref: {tree.ref}\n")
    (draft / "commondir").write_text("../..\n")
    (draft / "gitdir").write_bytes(os.fsencode(_real(tree.path) / ".git") + b"\n")
    (draft / "locked").write_text(_HALF_MADE)
    tree.path.mkdir()
    (tree.path / ".git").write_bytes(b"gitdir: " + os.fsencode(admin) + b"\n")
    admin.parent.mkdir(exist_ok=True)
    draft.rename(admin)
    return admin


def _check_out(tree: Worktree, admin: Path) -> None:
    where = tree.inside(admin)
    command = ("reset", "--hard", "--quiet", "--no-recurse-submodules")
    done = git.run(where, *command, settings=_PARALLEL, check=False, timeout=git.LONG)
    if done.returncode:
        raise git.failed(done, "checkout of the worktree", _MAKE_ONE)
    (admin / "locked").unlink()


def _add(tree: Worktree) -> None:
    """For repositories with extensions that make their record another: reftable, settings of each worktree."""
    for attempt in range(_ATTEMPTS):
        command = ("worktree", "add", "--quiet", "--", str(tree.path), tree.branch)
        done = git.run(tree.project.checkout, *command, settings=_PARALLEL, check=False, timeout=git.LONG)
        if done.returncode == 0:
            return
        # Another add or prune of the user's was half done: git reads every worktree's files, and one was not there yet.
        if b"commondir" not in done.stderr or attempt == _ATTEMPTS - 1:
            raise git.failed(done, "worktree add", _MAKE_ONE)
        time.sleep(0.05 * (attempt + 1))


def _draft(tree: Worktree) -> Path:
    """Where a record is put together and taken apart, in the same file system as git's own."""
    return tree.project.common_dir / f"claude-scheduler-{tree.path.name}"


def admin_folder(tree: Worktree) -> Path | None:
    """The folder in the repository's git folder that belongs to the worktree, by what it says itself; None if it is
    gone. No process."""
    real = _real(tree.path)
    first = tree.project.common_dir / "worktrees" / tree.path.name
    if _names(first) == real or _says_nothing(first):
        return first
    return next((admin for admin, path in _registered(tree.project) if path == real), None)


def _says_nothing(admin: Path) -> bool:
    """Whether git was killed before it wrote whose folder this is; its name, with the run's id, is ours then."""
    with contextlib.suppress(FileNotFoundError):
        return admin.is_dir() and (admin / "gitdir").stat().st_size == 0
    return admin.is_dir()


def _real(path: Path) -> Path:
    """As git writes it: without links above the folder. What an agent put in the folder's own place does not count."""
    return Path(os.path.realpath(path.parent)) / path.name


def ours(project: Project, folder: Path) -> list[Path]:
    """The worktrees of this repository that are registered in git, lie below `folder` and have a name of ours."""
    below = os.path.realpath(folder)
    found = [path for _, path in _registered(project)]
    return sorted(path for path in found if path.is_relative_to(below) and _OURS.match(path.name))


def _registered(project: Project) -> Iterator[tuple[Path, Path]]:
    try:
        names = os.listdir(project.common_dir / "worktrees")
    except OSError:
        return
    for name in names:
        admin = project.common_dir / "worktrees" / name
        path = _names(admin)
        if path is not None:
            yield admin, path


def _names(admin: Path) -> Path | None:
    """The worktree that an admin folder says it belongs to."""
    try:
        told = os.fsdecode((admin / "gitdir").read_bytes()).rstrip("\n")
    except OSError:
        return None
    path = Path(os.path.normpath(admin / told))  # git may write it relative to the folder
    return path.parent if path.name == ".git" else None


def is_half_made(tree: Worktree) -> bool:
    """Whether we or git were killed while the worktree was made: no agent can have worked in it."""
    admin = admin_folder(tree)
    if admin is None:
        return _draft(tree).exists()
    try:
        locked_for = (admin / "locked").read_text()
    except OSError:
        return False
    return locked_for.rstrip() == _HALF_MADE or (not locked_for and not (admin / "HEAD").exists())


def remove(tree: Worktree) -> None:
    """Take the worktree away, whatever is in it and whether or not it is there; its branch stays. No process.

    The folder is only moved aside; `empty_trash` deletes it, whenever that suits. Raises OSError.
    """
    with locked(tree.lock):
        remove_held(tree)


def remove_held(tree: Worktree) -> None:
    """`remove` for who holds the repository's lock.

    `git worktree prune` would also forget worktrees of the user's whose disk is not mounted.
    """
    admin = admin_folder(tree)
    if os.path.lexists(tree.path):
        trash = tree.path.parent / _TRASH
        make_folder(trash)
        os.rename(tree.path, trash / f"{tree.path.name}.{time.time_ns()}")
    draft = _draft(tree)
    if os.path.lexists(draft):
        delete_folder(draft)
    if admin is not None:
        admin.rename(draft)
        delete_folder(draft)
        with contextlib.suppress(OSError):
            admin.parent.rmdir()


def drop_branch(tree: Worktree, *tip: str) -> bool:
    """Delete the run's branch if it still points to `tip`; whether it is gone now. What git noted on it goes too.

    One that is checked out, by the user, is left: without it that checkout would stand on no commit.
    """
    if refs.is_checked_out(tree.project, tree.branch):
        return False
    draft = _draft(tree)
    draft.mkdir(exist_ok=True)
    command = ("update-ref", "--no-deref", "-d", "--end-of-options", tree.ref, *tip)
    done = git.run(tree.project.checkout, *command, check=False)
    if done.returncode < 0:
        clear_locks(tree)
    delete_folder(draft)
    gone = done.returncode == 0 or git.resolve(tree.project, tree.ref) is None
    if gone:
        refs.forget_branch(tree.project, tree.branch)
    return gone


def clear_locks(tree: Worktree) -> None:
    """Remove what a git that was killed while it made or deleted the run's branch left locked.

    For who knows that no such git is alive. Git locks packed-refs for every deletion: that lock is ours if it came
    after the draft, which stands while we delete.
    """
    (tree.project.common_dir / f"{tree.ref}.lock").unlink(missing_ok=True)
    packed = tree.project.common_dir / "packed-refs.lock"
    with contextlib.suppress(FileNotFoundError):
        if packed.stat().st_mtime_ns >= _draft(tree).stat().st_mtime_ns:
            packed.unlink()


def in_trash(folder: Path) -> list[Path]:
    """The worktrees that were moved aside below `folder`, of all projects."""
    return sorted(folder.glob(f"*/{_TRASH}/*"))


def empty_trash(folder: Path) -> list[str]:
    """Delete the worktrees that were moved aside below `folder` (of all projects); a line for each that cannot be."""
    complaints = []
    for found in in_trash(folder):
        try:
            delete_folder(found)
        except OSError as error:
            complaints.append(f"cannot delete {found}: {error.strerror}")
    return complaints
