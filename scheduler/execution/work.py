"""What a run did in its worktree: look at it, commit what was left uncommitted, say what git cannot hold."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.folders import unlock_folders
from scheduler.execution.git import Where
from scheduler.execution.links import is_link_of_ours
from scheduler.execution.process import Completed
from scheduler.execution.worktree import Worktree, admin_folder

FILE_LIMIT = 256 << 20
"""Bytes of one file: a larger one is left out of commits, and said to be."""

DURABLE = ("core.fsync=loose-object,reference",)
"""The worktree, the other copy of the work, is removed right after. Not with core.fsyncMethod=batch: beside a `git gc`
objects that `git add` had reported as written were not there (measured, git 2.39)."""

_GITLINK = "160000"
_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Claude scheduler"), ("EMAIL", "scheduler@localhost"))
}


class LeftBranch(SchedulerError):
    """The agent moved its worktree away from the branch that was made for it."""


class CommitRejected(SchedulerError):
    """What the agent left could not be committed: a hook of the repository refused, or a merge is unfinished."""


@dataclass(frozen=True)
class Entry:
    """A path that differs. `code` is XY of `git status` (index, folder), `??` for unknown, `uu` for a conflict;
    `sub` is its account of a submodule. A path that ends in a slash is a repository of its own."""

    code: str
    sub: str
    path: str


@dataclass(frozen=True)
class State:
    """How a worktree stands: the commit and the branch (None: detached) of its HEAD, what differs from it, folders that
    git cannot look into, and the links that we made."""

    head: str | None
    branch: str | None
    entries: tuple[Entry, ...]
    hidden: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diff:
    """What changed between two trees: counts of lines and files, and the paths that now are repositories."""

    files: int
    insertions: int
    deletions: int
    repositories: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """The work of a run that succeeded, as its branch now holds it. `unsaved`: what no commit holds, one line each; the
    worktree must stay then."""

    commit: str
    files_changed: int
    insertions: int
    deletions: int
    unsaved: tuple[str, ...]


def keep(tree: Worktree, message: str) -> Work | None:
    """Commit what the agent left uncommitted, with the user's hooks and identity; None where it changed nothing at all.

    Processes: one where nothing changed, two where all is committed, else five. Raises LeftBranch, CommitRejected,
    GitFailed; the worktree then is as it was but for what is staged.
    """
    admin = admin_folder(tree)
    if not tree.project.common_dir.is_dir():
        raise SchedulerError(f"the repository {tree.project.root} is not there any more", "was it moved away?")
    if admin is None or not tree.stands:
        raise LeftBranch("the task removed its own worktree", "its commits are kept; look at what its command does")
    where = tree.inside(admin)
    state = look(tree, where)
    if state.branch != tree.branch or state.head is None:
        now = "is on no branch" if state.branch is None else f"is on {state.branch}" if state.head else "has no commit"
        raise LeftBranch(f"the task left its branch: its worktree {now}", "tell the agent to stay on its branch")
    if state.head == tree.base and not state.entries and not state.hidden:
        return None
    unsaved: list[str] = []
    if state.entries or state.hidden:
        (admin / "index.lock").unlink(missing_ok=True)  # left by a git that was killed with its run
        unsaved = _commit_rest(tree, where, state, message)
    tip = git.resolve(tree.project, tree.ref) or state.head
    if tip == tree.base and not unsaved:
        return None
    diff = read_diff(git.run(where, "diff-tree", "-r", *DIFF_OPTIONS, tree.base, tip, "--"))
    unsaved += unpublished(tree, diff.repositories)
    return Work(tip, diff.files, diff.insertions, diff.deletions, tuple(unsaved))


def _commit_rest(tree: Worktree, where: Where, state: State, message: str) -> list[str]:
    conflicts = [entry.path for entry in state.entries if entry.code == "uu"]
    if conflicts:
        raise CommitRejected(
            f"the task left a merge unfinished: conflicts in {', '.join(conflicts[:5])}",
            "merge by hand, or run it again",
        )
    unsaved = stage(tree, where, state)
    if git.run(where, "diff-index", "--cached", "--quiet", "HEAD", "--", check=False).returncode == 0:
        return unsaved

    def commit(place: Where) -> Completed:
        settings = ("commit.gpgsign=false", *DURABLE)
        command = ("commit", "--quiet", "--file=-")
        words = message.encode(errors="surrogateescape")
        return git.run(place, *command, settings=settings, hooks=True, input=words, timeout=git.LONG, check=False)

    done = with_identity(where, commit)
    if done.returncode:
        said = git.words((done.stdout + done.stderr).decode(errors="replace")) or f"code {done.returncode}"
        raise CommitRejected(f"the commit was refused: {said}", "look at the repository's commit hooks")
    return unsaved


def clear_pipes(tree: Worktree) -> None:
    """Take away what is no file, also by a link, beside the run's branch and where git notes how its worktree stands:
    who reads there, as every git of the user's does, would wait for a pipe without end."""
    for folder in filter(None, ((tree.project.common_dir / tree.ref).parent, admin_folder(tree))):
        for place, _, names in os.walk(folder):
            for path in (os.path.join(place, name) for name in names):
                with contextlib.suppress(OSError):
                    if not stat.S_ISREG(os.stat(path).st_mode):
                        os.unlink(path)


def with_identity(where: Where, command: Callable[[Where], Completed]) -> Completed:
    """Run a command that makes a commit; once more under a name of our own where the user has none configured."""
    done = command(where)
    if done.returncode and git.run(where, "var", "GIT_COMMITTER_IDENT", check=False).returncode:
        done = command(replace(where, env={**where.env, **_IDENTITY}))
    return done


def look(tree: Worktree, where: Where) -> State:
    """How the worktree stands. One process as a rule."""
    command = ("status", *git.STATUS, "--ignore-submodules=none")
    done = git.run(where, *command, timeout=git.LONG)
    hidden: list[str] = []
    if done.stderr:  # as a rule a folder without the right to read it, which git passes over
        unlock_folders(tree.path)
        done = git.run(where, *command, timeout=git.LONG)
        hidden = _unreadable(tree.path) if done.stderr else []
        hidden = sorted(set(hidden) - set(git.ignored(where, hidden)))
    state = parse_status(done.stdout)
    links = {entry.path for entry in state.entries if is_link_of_ours(tree.project, tree.path, entry.path)}
    entries = (entry for entry in state.entries if entry.path not in links)
    return State(state.head, state.branch, tuple(entries), tuple(hidden), tuple(links))


def parse_status(output: bytes) -> State:
    """The output of `git status --porcelain=v2 --branch -z`."""
    head = branch = None
    entries = []
    for line in git.fields(output):
        kind, _, rest = line.partition(" ")
        if kind == "#":
            name, _, value = rest.partition(" ")
            if name == "branch.oid" and value != "(initial)":
                head = value
            elif name == "branch.head" and value != "(detached)":
                branch = value
        elif kind == "1":
            code, sub, *_, path = rest.split(" ", 7)
            entries.append(Entry(code, sub, path))
        elif kind == "u":
            entries.append(Entry("uu", rest.split(" ", 2)[1], rest.split(" ", 9)[9]))
        elif kind == "?":
            entries.append(Entry("??", "N...", rest))
    return State(head, branch, tuple(entries))


def _unreadable(root: Path) -> list[str]:
    found: list[str] = []
    for _ in os.walk(root, onerror=lambda error: found.append(os.path.relpath(str(error.filename), root))):
        pass
    return found


def stage(tree: Worktree, where: Where, state: State) -> list[str]:
    """Put all that differs into the index that `where` means, as far as git can hold it; a line for what it cannot."""
    unsaved = [f"{name}: a folder that cannot be read" for name in state.hidden]
    excluded = list(state.links)
    for entry in state.entries:
        why = _unfit(tree, entry)
        if why is not None:
            excluded.append(entry.path)
            unsaved += [f"{entry.path}: {why}"] if why else []
        elif entry.sub[0] == "S" and entry.sub[2:] != "..":
            unsaved.append(f"{entry.path}: a submodule with uncommitted changes")
    wanted = [".", *(f":(exclude,top,literal){path}" for path in excluded)]
    listed = b"".join(os.fsencode(word) + b"\0" for word in wanted)
    command = ("add", "--all", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul")
    done = git.run(where, *command, settings=DURABLE, input=listed, timeout=git.LONG, check=False)
    if done.returncode:
        _make_readable(tree.path, state.entries)
        done = git.run(where, *command, settings=DURABLE, input=listed, timeout=git.LONG, check=False)
    if done.returncode:
        locked = [entry.path for entry in state.entries if not _can_read(tree.path / entry.path)]
        said = git.words(done.stderr.decode(errors="replace"))
        unsaved += [f"{path}: a file that cannot be read" for path in locked] or [f"git add failed: {said}"]
    return unsaved


def _unfit(tree: Worktree, entry: Entry) -> str | None:
    """Why a path stays out of a commit: None where it does not, "" where nothing is lost by it."""
    if entry.path.endswith("/"):
        return "a repository of its own" if unpublished(tree, [entry.path]) else ""
    try:
        info = os.lstat(tree.path / entry.path)
    except OSError:
        return None
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        return ""  # a pipe or a socket in the place of a file
    large = stat.S_ISREG(info.st_mode) and info.st_size > FILE_LIMIT
    return f"{info.st_size >> 20} MB, too large to be kept in git" if large else None


def _make_readable(root: Path, entries: Sequence[Entry]) -> None:
    for entry in entries:
        path = root / entry.path
        with contextlib.suppress(OSError):
            if not _can_read(path):
                os.chmod(path, os.lstat(path).st_mode | stat.S_IRUSR)


def _can_read(path: Path) -> bool:
    return os.path.islink(path) or not os.path.lexists(path) or os.access(path, os.R_OK)


def unpublished(tree: Worktree, paths: Iterable[str]) -> list[str]:
    """Of the repositories at these paths of a worktree: a line for each that holds what no remote of its own has.

    Git keeps of a repository inside another only the id of a commit.
    """
    found = []
    for path in paths:
        folder = tree.path / path
        if not os.path.lexists(folder / ".git"):
            continue
        env = {**tree.project.env, "GIT_DIR": str(folder / ".git"), "GIT_WORK_TREE": str(folder)}
        where = Where(folder, env, tree.wrap)
        dirty = git.run(where, "status", "--porcelain", "-z", check=False)
        ahead = git.run(where, "rev-list", "-n1", "--all", "HEAD", "--not", "--remotes", check=False)
        if any(done.returncode or done.stdout for done in (dirty, ahead)):
            found.append(f"{path}: a repository of its own, with work that is nowhere else")
    return found


DIFF_OPTIONS = ("--raw", "--numstat", "-z", "--no-renames", "--ignore-submodules=none")


def read_diff(done: Completed) -> Diff:
    """The output of a diff command with DIFF_OPTIONS."""
    parts = iter(git.fields(done.stdout))
    files = insertions = deletions = 0
    repositories = []
    for part in parts:
        if part.startswith(":"):
            path = next(parts)
            files += 1
            if part.split(" ")[1] == _GITLINK:
                repositories.append(path)
        else:
            added, removed, _ = part.split("\t", 2)
            insertions += int(added) if added != "-" else 0
            deletions += int(removed) if removed != "-" else 0
    return Diff(files, insertions, deletions, tuple(repositories))
