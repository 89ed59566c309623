"""What a person decides on the work of a run that is over: see it, adopt, merge, discard it. And: push it."""

from __future__ import annotations

import os

from scheduler.core import format as fmt
from scheduler.errors import SchedulerError
from scheduler.execution import git, process
from scheduler.execution.git import Project
from scheduler.execution.refs import DISCARDED, check_branch, check_remote, forget_branch
from scheduler.execution.work import with_identity
from scheduler.execution.worktree import Worktree, admin_folder

SHOWN = 5  # files told by name


def patch(project: Project, base: str, tip: str, *, each_commit: bool = False) -> bytes:
    """The work between two commits as text: a summary and the difference; with `each_commit` all that any commit on the
    way added or removed (for who looks for secrets). The user's own diff programs do not run."""
    plain = ["--patch", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames"]
    whole = ["diff", "--stat", *plain, base, tip, "--"]
    single = ["log", "--format=", "--diff-merges=first-parent", "--unified=0", *plain, f"{base}..{tip}", "--"]
    return git.run(project.checkout, *(single if each_commit else whole), timeout=git.LONG).stdout


def push(tree: Worktree, remote: str) -> None:
    """Push the run's branch, to a branch of the same name and nothing else, never by force, with the user's hooks.

    Raises SchedulerError with git's words.
    """
    check_remote(tree.project, remote)
    admin = admin_folder(tree)
    # Of a sandboxed run nothing of the worktree is to run outside: a hook that lies there, say.
    inside = admin is not None and tree.stands and not tree.wrap
    where = tree.inside(admin) if inside and admin else tree.project.checkout
    command = ("push", "--quiet", "--no-follow-tags", "--recurse-submodules=no", "--", remote, f"{tree.ref}:{tree.ref}")
    done = git.run(where, *command, hooks=True, check=False, timeout=git.LONG)
    if done.returncode:
        raise git.failed(
            done, f"push to {remote}", f"the branch is kept; push it with `git push {remote} {tree.branch}`"
        )


def adopt(project: Project, run_id: str, branch: str) -> str:
    """Make a branch of what a run left that was rolled back; its commit. The private ref stays until it is old.

    Raises SchedulerError where there is nothing (any more), or a branch of that name.
    """
    check_branch(project, branch)
    commit = git.resolve(project, DISCARDED + run_id)
    if commit is None:
        raise SchedulerError(f"nothing is kept of run {run_id}", "it left no work, or was discarded")
    if git.resolve(project, f"refs/heads/{branch}") is not None:
        raise SchedulerError(f"there is a branch {branch} already", "give another name with --branch")
    git.run(
        project.checkout,
        "update-ref",
        "--no-deref",
        "--end-of-options",
        f"refs/heads/{branch}",
        commit,
        "0" * len(commit),
    )
    return commit


def discard(project: Project, run_id: str, branch: str | None) -> bool:
    """Drop a run's branch and its private ref for good; whether there was anything. (Its worktree: `remove`, before.)

    Raises SchedulerError where the branch is checked out somewhere.
    """
    found = False
    if branch is not None and git.resolve(project, f"refs/heads/{branch}") is not None:
        git.run(project.checkout, "branch", "-D", "--quiet", "--end-of-options", check_branch(project, branch))
        forget_branch(project, branch)
        found = True
    commit = git.resolve(project, DISCARDED + run_id)
    if commit is not None:
        git.run(project.checkout, "update-ref", "--no-deref", "-d", "--end-of-options", DISCARDED + run_id, commit)
        found = True
    return found


def merge(project: Project, branch: str) -> tuple[str, bool]:
    """Merge a run's branch into the branch that the main checkout is on; the commit that it is on then, and whether it
    moved: not where the branch is merged already.

    The merge is made beside the checkout first, which is only moved forward to it: refused where it is dirty, on no
    branch, or in conflict (SchedulerError), it stays exactly as it was. Needs git 2.38 where both sides have commits.
    """
    theirs = git.resolve(project, f"refs/heads/{branch}")
    if theirs is None:
        raise SchedulerError(f"there is no branch {branch}", "it was merged and deleted, or discarded")
    current = git.points_to(project, "HEAD")
    ours = git.resolve(project, "HEAD")
    if current is None or ours is None:
        raise SchedulerError(f"the main checkout {project.root} is on no branch", "switch to the branch to merge into")
    checkout = project.checkout
    if git.run(checkout, "merge-base", "--is-ancestor", theirs, ours, check=False).returncode == 0:
        return ours, False
    dirty = git.fields(git.run(checkout, "status", "--porcelain", "-z", "--untracked-files=no").stdout)
    if dirty:
        raise SchedulerError(
            f"the main checkout has uncommitted changes ({fmt.count(len(dirty), 'file')})",
            "commit or stash them, then merge again",
        )
    target = theirs
    if git.run(checkout, "merge-base", "--is-ancestor", ours, theirs, check=False).returncode:
        target = _merge_commit(project, branch, current, (ours, theirs))
    noted = git.resolve(project, "ORIG_HEAD")
    done = git.run(checkout, "merge", "--ff-only", "--quiet", target, hooks=True, check=False, timeout=git.LONG)
    if done.returncode:
        # The one thing that a merge changes before it looks whether it can be made.
        git.run(checkout, "update-ref", *(("ORIG_HEAD", noted) if noted else ("-d", "ORIG_HEAD")), check=False)
        raise _blocked(done)
    return target, True


def _blocked(done: process.Completed) -> SchedulerError:
    """Why the checkout could not move forward: git indents the files that are in the way."""
    lines = done.stderr.decode(errors="replace").splitlines()
    files = [line.strip() for line in lines if line.startswith("\t")]
    if not files:
        return git.failed(done, "merge", "the main checkout is as it was; move away what is in the way")
    more = f" and {fmt.count(len(files) - SHOWN, 'more file')}" if len(files) > SHOWN else ""
    return SchedulerError(
        f"the merge would overwrite what git does not know: {', '.join(files[:SHOWN])}{more}",
        "the main checkout is as it was; move these away, then merge again",
    )


def _merge_commit(project: Project, branch: str, current: str, sides: tuple[str, str]) -> str:
    checkout = project.checkout
    done = git.run(checkout, "merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", *sides, check=False)
    if done.returncode == 1:
        files = ", ".join(dict.fromkeys(git.fields(done.stdout)[1 : SHOWN + 1]))
        raise SchedulerError(
            f"{branch} conflicts with {current.removeprefix('refs/heads/')} in {files}",
            f"the main checkout is as it was; merge by hand with `git merge {branch}`",
        )
    if done.returncode:
        raise git.failed(done, "merge-tree", f"needs git 2.38; or merge by hand with `git merge {branch}`")
    content = git.fields(done.stdout)[0]
    flags = [flag for side in sides for flag in ("-p", side)]
    words = os.fsencode(f"Merge branch '{branch}'\n")
    made = with_identity(
        checkout, lambda where: git.run(where, "commit-tree", content, *flags, input=words, check=False)
    )
    if made.returncode:
        raise git.failed(made, "commit-tree")
    return git.text(made.stdout)
