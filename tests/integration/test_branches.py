from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from scheduler.errors import SchedulerError
from scheduler.execution import branches, git, work, worktree
from scheduler.execution.git import Project
from scheduler.execution.refs import DISCARDED
from scheduler.execution.rollback import rollback
from scheduler.execution.worktree import Worktree
from tests import repos

RUN = str(uuid.UUID(int=7))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repos.make(tmp_path / "repo")


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Worktree:
    """A run that kept its work on its branch."""
    tree = repos.create(root, tmp_path)
    repos.write(tree.path, {"README.md": "# A project\nrun\n", "new": "x\n"})
    assert work.keep(tree, "Work of the run") is not None
    worktree.remove(tree)
    return tree


@pytest.fixture
def undone(root: Path, tmp_path: Path) -> Worktree:
    """A run that was rolled back."""
    tree = repos.create(root, tmp_path)
    repos.write(tree.path, {"new": "x\n"})
    assert rollback(tree, RUN, "Rolled back").ref is not None
    return tree


def test_the_work_is_shown_as_text(root: Path, tree: Worktree, tmp_path: Path) -> None:
    """Whatever diff programs and colours the user has configured."""
    repos.git("config", "diff.external", f"touch {tmp_path}/ran", cwd=root)
    repos.git("config", "color.ui", "always", cwd=root)
    with repos.untouched(root):
        text = branches.patch(tree.project, tree.base, tree.branch).decode()
    assert " 2 files changed, 2 insertions(+)" in text and "+run\n" in text and "\x1b" not in text
    assert not (tmp_path / "ran").exists()


def test_every_commit_on_the_way_is_shown(root: Path, tmp_path: Path) -> None:
    """A secret that was committed and removed again is in the history all the same."""
    tree = repos.create(root, tmp_path)
    repos.commit(tree.path, files={"key": "hunter2\n"})
    (tree.path / "key").unlink()
    repos.commit(tree.path)
    assert b"hunter2" not in branches.patch(tree.project, tree.base, tree.branch)
    assert b"+hunter2" in branches.patch(tree.project, tree.base, tree.branch, each_commit=True)


def test_discarded_work_is_adopted_as_a_branch(root: Path, undone: Worktree) -> None:
    with pytest.raises(SchedulerError, match="there is a branch main already"):
        branches.adopt(undone.project, RUN, "main")
    with pytest.raises(SchedulerError, match="no name for a branch"):
        branches.adopt(undone.project, RUN, "-D")
    with pytest.raises(SchedulerError, match="nothing is kept of run"):
        branches.adopt(undone.project, str(uuid.UUID(int=8)), "mine")
    before = repos.contents(root), repos.git("status", "--porcelain", cwd=root)
    commit = branches.adopt(undone.project, RUN, "mine")
    assert repos.git("rev-parse", "mine", cwd=root) == commit and repos.discarded(root) == [DISCARDED + RUN]
    assert (repos.contents(root), repos.git("status", "--porcelain", cwd=root)) == before
    assert branches.merge(undone.project, "mine") == (commit, True) and (root / "new").exists()


def test_discarding_drops_branch_and_ref_for_good(root: Path, undone: Worktree, tree: Worktree) -> None:
    with repos.untouched(root):
        assert branches.discard(undone.project, RUN, tree.branch)
        assert repos.discarded(root) == [] and repos.branches(root) == ["main"]
        assert not branches.discard(undone.project, RUN, tree.branch)


def test_a_private_ref_that_stands_for_a_branch_does_not_take_it_along(root: Path) -> None:
    repos.git("symbolic-ref", DISCARDED + RUN, "refs/heads/main", cwd=root)
    with repos.untouched(root):
        assert branches.discard(Project(root, root / ".git", git.environment(os.environ)), RUN, None)
    assert repos.discarded(root) == []


def test_a_branch_that_somebody_is_on_is_not_discarded(root: Path, tree: Worktree) -> None:
    repos.git("checkout", "-q", tree.branch, cwd=root)
    before = repos.fingerprint(root)
    with pytest.raises(SchedulerError, match="checked out"):
        branches.discard(tree.project, RUN, tree.branch)
    assert repos.fingerprint(root) == before and tree.branch in repos.branches(root)


def test_a_merge_moves_forward_where_it_can(root: Path, tree: Worktree) -> None:
    commit, _ = branches.merge(tree.project, tree.branch)
    assert repos.git("rev-parse", "main", tree.branch, cwd=root).split() == [commit, commit]
    assert (root / "README.md").read_text() == "# A project\nrun\n"
    assert repos.git("status", "--porcelain", cwd=root) == ""
    assert branches.merge(tree.project, tree.branch) == (commit, False)


def test_a_merge_joins_both_sides(root: Path, tree: Worktree) -> None:
    theirs = repos.git("rev-parse", "HEAD", cwd=repos.commit(root, "Theirs", {"theirs": "x"}))
    repos.write(root, {"untracked": "stays"})
    commit, _ = branches.merge(tree.project, tree.branch)
    assert repos.git("rev-parse", f"{commit}^1", f"{commit}^2", cwd=root).split() == [
        theirs,
        repos.git("rev-parse", tree.branch, cwd=root),
    ]
    assert {"theirs", "new"} <= repos.committed(root, "main").keys()
    assert repos.git("status", "--porcelain", cwd=root) == "?? untracked"
    assert repos.git("log", "-1", "--format=%s", cwd=root) == f"Merge branch '{tree.branch}'"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("dirty", r"uncommitted changes \(1 file\)"),
        ("staged", "uncommitted changes"),
        ("conflict", r"conflicts with main in README\.md"),
        ("in the way", "would overwrite what git does not know: new$"),
        ("detached", "on no branch"),
        ("merging", "uncommitted changes|MERGE_HEAD|not concluded"),
        ("locked", "index.lock"),
    ],
)
def test_a_merge_that_cannot_be_made_leaves_the_checkout_as_it_was(
    root: Path, tree: Worktree, state: str, why: str
) -> None:
    if state in ("dirty", "staged"):
        repos.write(root, {"src/app.py": "changed\n"})
        repos.git(*(["add", "-A"] if state == "staged" else ["status"]), cwd=root)
    elif state in ("conflict", "merging"):
        repos.commit(root, "Theirs", {"README.md": "theirs\n"})
        if state == "merging":
            repos.git("merge", tree.branch, cwd=root, code=1)
    elif state == "in the way":
        repos.write(root, {"new": "precious"})
    elif state == "detached":
        repos.git("checkout", "-q", "--detach", cwd=root)
    else:
        (root / ".git" / "index.lock").touch()
    with repos.untouched(root), pytest.raises(SchedulerError, match=why) as raised:
        branches.merge(tree.project, tree.branch)
    assert "\n" not in raised.value.message and raised.value.hint
    assert tree.branch in repos.branches(root)


def test_a_hook_of_the_users_that_hears_of_a_merge_runs(root: Path, tree: Worktree, tmp_path: Path) -> None:
    repos.hook(root, "post-merge", f"touch {tmp_path}/ran")
    branches.merge(tree.project, tree.branch)
    assert (tmp_path / "ran").exists()


def test_there_is_nothing_to_merge(root: Path, tree: Worktree) -> None:
    with repos.untouched(root), pytest.raises(SchedulerError, match="there is no branch"):
        branches.merge(tree.project, "claude-task/none")


@pytest.fixture
def pushing(root: Path, tmp_path: Path) -> Worktree:
    """A run whose worktree still stands and whose repository has a remote."""
    repos.git("clone", "-q", "--bare", root, tmp_path / "origin.git", cwd=tmp_path)
    repos.git("remote", "add", "origin", tmp_path / "origin.git", cwd=root)
    tree = repos.create(root, tmp_path)
    repos.write(tree.path, {"new": "x\n"})
    assert work.keep(tree, "Work of the run") is not None
    return tree


def test_a_push_sends_the_runs_branch_and_nothing_else(root: Path, pushing: Worktree, tmp_path: Path) -> None:
    repos.git("tag", "-a", "-m", "x", "v1", pushing.branch, cwd=root)
    repos.git("config", "push.followTags", "true", cwd=root)
    repos.git("config", "remote.origin.push", "+refs/heads/*:refs/heads/*", cwd=root)
    repos.commit(root, files={"later": "x"})
    before = repos.git("rev-parse", "main", cwd=tmp_path / "origin.git")
    (pushing.path / ".git").unlink()
    with repos.untouched_but_remotes(root):
        branches.push(pushing, "origin")
    there = repos.git("for-each-ref", "--format=%(refname) %(objectname)", cwd=tmp_path / "origin.git").splitlines()
    tip = repos.git("rev-parse", pushing.branch, cwd=root)
    assert there == [f"refs/heads/{pushing.branch} {tip}", f"refs/heads/main {before}"]
    worktree.remove(pushing)
    branches.push(pushing, "origin")


@pytest.mark.parametrize("harm", ["gone", "hook", "diverged", "refused", "unknown"])
def test_a_push_that_fails_says_why_and_keeps_the_branch(
    root: Path, pushing: Worktree, tmp_path: Path, harm: str
) -> None:
    """F25."""
    origin = tmp_path / "origin.git"
    if harm == "gone":
        origin.rename(tmp_path / "elsewhere")
    elif harm == "hook":
        repos.hook(root, "pre-push", "echo 'tests failed' >&2; exit 1")
    elif harm == "diverged":
        repos.git("branch", pushing.branch, "main", cwd=origin)
        other = repos.git("commit-tree", "-m", "x", "main^{tree}", cwd=origin)
        repos.git("update-ref", f"refs/heads/{pushing.branch}", other, cwd=origin)
    elif harm == "refused":
        (origin / "hooks").mkdir(exist_ok=True)
        (origin / "hooks" / "update").write_text("#!/bin/sh\nexit 1\n")
        (origin / "hooks" / "update").chmod(0o755)
    with repos.untouched(root), pytest.raises(SchedulerError) as raised:
        branches.push(pushing, "upstream" if harm == "unknown" else "origin")
    assert "\n" not in raised.value.message and raised.value.hint
    assert pushing.branch in repos.branches(root)


def test_nobody_is_asked_for_a_password(root: Path, pushing: Worktree) -> None:
    """F16: nothing listens there, and ssh must not wait for a terminal either."""
    repos.git("remote", "set-url", "origin", "ssh://nobody@127.0.0.1:1/x", cwd=root)
    with pytest.raises(SchedulerError, match="git push to origin failed"):
        branches.push(pushing, "origin")
    assert git.environment(os.environ)["SSH_ASKPASS_REQUIRE"] == "never"
