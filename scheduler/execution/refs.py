"""Names of branches and remotes, and the commit that a run starts from.

Names are validated, never escaped: what is not plainly a name is refused before git sees it, for git takes a branch
called `-D` for an order.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from scheduler.disk.files import locked, read_bounded
from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.git import Project

DISCARDED = "refs/claude-scheduler/discarded/"
"""What a run left that was rolled back, one ref for each run, named by its id."""

_FRESH = "refs/claude-scheduler/fresh/"
_PART = r"(?!HEAD(?:/|\Z))[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
_BRANCH = re.compile(rf"(?!refs/)(?:{_PART}/)*{_PART}\Z")
_REMOTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_RUN_BRANCH = re.compile(r".*[a-z0-9-]-[0-9]{8}T[0-9]{4}-[0-9a-f]{8}\Z")
_LONGEST = 200


def branch_name(prefix: str, task_id: str, moment: str, run8: str) -> str:
    """The branch of a run: `{prefix}{task-id}-{YYYYMMDDTHHMM}-{run8}`. Raises SchedulerError for a bad prefix."""
    name = f"{prefix}{task_id}-{moment}-{run8}"
    if not is_branch(name) or not is_run_branch(name):
        raise SchedulerError(
            f"{prefix!a} cannot begin a branch name",
            "use letters, digits, '-', '_' and single dots, in parts divided by '/'",
        )
    return name


def is_branch(name: str) -> bool:
    """Whether `name` is plainly a branch's: a stricter rule than git's own."""
    return len(name) <= _LONGEST and bool(_BRANCH.match(name)) and not re.search(r"\.lock(?:/|\Z)", name)


def is_run_branch(name: str) -> bool:
    """Whether a branch (without refs/heads/) has the form of a run's."""
    return bool(_RUN_BRANCH.match(name))


def check_branch(project: Project, name: str) -> str:
    """`name`, if it can be a branch by our rule and by git's, with no branch in its way (`a` is in that of `a/b`); else
    SchedulerError. Nothing is made or changed."""
    done = git.run(project.checkout, "check-ref-format", "--branch", name, check=False) if is_branch(name) else None
    if done is None or done.returncode or git.text(done.stdout) != name:
        hint = "use letters, digits, '-', '_', '.' and '/'"
        raise SchedulerError(f"{ascii(name)[:120]} is no name for a branch", hint)
    parts = name.split("/")
    for end in range(1, len(parts)):
        above = "/".join(parts[:end])
        if git.resolve(project, f"refs/heads/{above}") is not None:
            raise SchedulerError(
                f"the branch {above} is in the way of branches that begin with {above}/",
                f"choose another prefix or name, or rename the branch {above}",
            )
    return name


def check_remote(project: Project, name: str) -> str:
    """`name`, if the repository has a remote of this name; else SchedulerError."""
    known = git.text(git.run(project.checkout, "remote").stdout).splitlines()
    if _REMOTE.match(name) and name in known:
        return name
    hint = f"it has {', '.join(known)}" if known else "add one with `git remote add`"
    raise SchedulerError(f"the repository has no remote {ascii(name)[:80]}", hint)


def reach(project: Project, remote: str, timeout: float) -> None:
    """Ask a remote for its HEAD, without a way to ask a person. Raises SchedulerError where it does not answer."""
    done = git.run(project.checkout, "ls-remote", "--quiet", "--", remote, "HEAD", check=False, timeout=timeout)
    if done.returncode:
        raise git.failed(done, f"ls-remote {remote}")


def resolve_base(project: Project, base: str, *, remote: str = "origin", lock: Path) -> str:
    """The commit that a new run starts from.

    `head`: the main checkout's HEAD; `default`: the local default branch; `fresh`: the remote's default branch, fetched
    now (one fetch of a repository at a time, under `lock`). Raises SchedulerError, in one line, where there is none.
    """
    if base == "fresh":
        return _fetch(project, check_remote(project, remote), lock)
    if base == "default":
        return _default(project, remote)
    if base != "head":
        raise SchedulerError(f"a worktree cannot be based on {ascii(base)[:40]}", "choose head, default or fresh")
    return _head(project)


def _head(project: Project) -> str:
    commit = git.resolve(project, "HEAD")
    if commit is None:
        raise SchedulerError(f"the repository {project.root} has no commits yet", "commit something first")
    return commit


def _default(project: Project, remote: str) -> str:
    """Of the branch that the remote calls its default, else of init.defaultBranch, else main, else master."""
    told = git.points_to(project, f"refs/remotes/{remote}/HEAD") if _REMOTE.match(remote) else None
    names = [told.removeprefix(f"refs/remotes/{remote}/")] if told else []
    if not names:
        configured = git.run(project.checkout, "config", "--get", "init.defaultBranch", check=False)
        names = [*git.text(configured.stdout).splitlines(), "main", "master"]
    for name in names:
        commit = git.resolve(project, f"refs/heads/{name}") if is_branch(name) else None
        if commit is not None:
            return commit
    _head(project)  # says so where there is no commit at all
    raise SchedulerError(
        f"the repository {project.root} has no local default branch ({', '.join(names)})",
        'make that branch, or use "base": "head"',
    )


def _fetch(project: Project, remote: str, lock: Path) -> str:
    """Into a ref of our own: neither FETCH_HEAD nor a remote-tracking branch of the user's moves."""
    ref = _FRESH + remote
    command = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force")
    with locked(lock.with_name(lock.name + ".fetch")):
        done = git.run(project.checkout, *command, remote, f"HEAD:{ref}", check=False, timeout=git.LONG)
        commit = git.resolve(project, ref) if done.returncode == 0 else None
    if commit is None:
        raise git.failed(done, f"fetch from {remote}", 'try again when it can be reached, or use "base": "head"')
    return commit


def is_checked_out(project: Project, branch: str) -> bool:
    """Whether the main checkout or another worktree stands on a branch."""
    ref = f"refs/heads/{branch}"
    if git.points_to(project, "HEAD") == ref:
        return True
    return any(_names(head, ref) for head in (project.common_dir / "worktrees").glob("*/HEAD"))


def _names(head: Path, ref: str) -> bool:
    with contextlib.suppress(OSError):
        return read_bounded(head, _LONGEST + 100).strip() == f"ref: {ref}".encode()
    return False


def forget_branch(project: Project, branch: str) -> None:
    """Drop the settings of a branch that is gone: an agent's `push -u` leaves a section in the user's config."""
    with contextlib.suppress(OSError):
        if f'"{branch}"'.encode() in (project.common_dir / "config").read_bytes():
            git.run(project.checkout, "config", "--local", "--remove-section", f"branch.{branch}", check=False)
