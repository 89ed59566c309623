from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from scheduler.execution import folders, worktree
from scheduler.execution.refs import DISCARDED
from scheduler.execution.rollback import Rollback, recover, rollback
from scheduler.execution.worktree import Worktree
from tests import repos

RUN = str(uuid.UUID(int=1))
REF = DISCARDED + RUN


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repos.make(tmp_path / "repo", {**repos.FILES, "gone": "x\n", "script.sh": "echo\n"})


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Worktree:
    return repos.create(root, tmp_path)


def undo(tree: Worktree) -> Rollback:
    """Roll back; the user's checkout is as it was, and of the run only the private ref is left."""
    root = tree.project.root
    with repos.untouched(root):
        done = rollback(tree, RUN, "Rolled back\n\nRun: 1")
    assert done.unsaved == ()
    assert not os.path.lexists(tree.path) and repos.registered(root) == []
    assert tree.branch not in repos.branches(root)
    assert repos.discarded(root) == ([REF] if done.ref else [])
    assert not list(tree.path.parent.glob(".*rollback*"))
    if done.ref:
        assert done.commit == repos.git("rev-parse", REF, cwd=root)
        repos.git("-c", "core.hooksPath=/dev/null", "gc", "-q", "--prune=now", cwd=root)
        repos.git("fsck", "--strict", "--connectivity-only", cwd=root)
    worktree.empty_trash(tree.path.parents[1])
    return done


def reachable(root: Path, *commits: str) -> bool:
    known = set(repos.git("rev-list", REF, cwd=root).split())
    return set(commits) <= known


def head(folder: Path) -> str:
    return repos.git("rev-parse", "HEAD", cwd=folder)


def test_a_run_without_work_leaves_nothing(root: Path, tree: Worktree) -> None:
    repos.write(tree.path, {"build/ignored": "x", ".env": "S=1"})
    assert undo(tree) == Rollback(None, None, ())


def test_all_work_that_git_can_hold_is_in_one_commit(root: Path, tree: Worktree) -> None:
    """Commits, what is staged, modified, deleted, new; modes, links, bytes; not what is ignored."""
    first = head(repos.commit(tree.path, "One", {"one": "1\n"}))
    second = head(repos.commit(tree.path, "Two", {"two": "2\n"}))
    repos.write(tree.path, {"staged": "s\n", "README.md": "changed\n", "bytes": bytes(range(256)) * 40})
    repos.git("add", "staged", cwd=tree.path)
    repos.write(tree.path, {"new/deep/file é\n": "x", "build/ignored": "x", "empty": ""})
    (tree.path / "gone").unlink()
    (tree.path / "script.sh").chmod(0o755)
    (tree.path / "link").symlink_to("../outside")
    (tree.path / "src" / "app.py").unlink()
    (tree.path / "src").rmdir()
    (tree.path / "src").symlink_to("new")
    expected = repos.contents(tree.path)
    del expected["build/ignored"]
    done = undo(tree)
    assert done.ref == REF and done.commit is not None
    assert repos.committed(root, done.commit) == expected
    assert reachable(root, first, second)
    assert repos.git("log", "-1", "--format=%B", REF, cwd=root).strip() == "Rolled back\n\nRun: 1"


def test_commits_alone_are_kept_as_they_are(root: Path, tree: Worktree) -> None:
    tip = head(repos.commit(tree.path, "One", {"one": "1"}))
    assert undo(tree).commit == tip


def test_what_was_staged_and_then_changed_again_is_kept_beside(root: Path, tree: Worktree) -> None:
    repos.write(tree.path, {"a": "staged"})
    repos.git("add", "a", cwd=tree.path)
    repos.write(tree.path, {"a": "later"})
    done = undo(tree)
    assert repos.git("show", f"{done.commit}:a", cwd=root) == "later"
    assert repos.git("show", f"{done.commit}^2:a", cwd=root) == "staged"


def test_commits_that_the_agent_reset_or_amended_or_left_are_kept(root: Path, tree: Worktree) -> None:
    """F22, F23: they are in the reflog alone."""
    dropped = head(repos.commit(tree.path, "Dropped", {"a": "1"}))
    repos.git("reset", "-q", "--hard", tree.base, cwd=tree.path)
    amended = head(repos.commit(tree.path, "Amended", {"b": "1"}))
    repos.git("commit", "-q", "--amend", "-m", "After", cwd=tree.path)
    tip = head(tree.path)
    repos.git("checkout", "-q", "--detach", tree.base, cwd=tree.path)
    detached = head(repos.commit(tree.path, "Detached", {"c": "1"}))
    repos.write(tree.path, {"loose": "x"})
    done = undo(tree)
    assert reachable(root, dropped, amended, tip, detached)
    assert repos.git("rev-parse", f"{done.commit}^1", cwd=root) == detached
    assert set(repos.committed(root, REF)) == {*repos.committed(root, "main"), "c", "loose"}


def test_work_on_another_branch_is_kept_and_the_branch_stays(root: Path, tree: Worktree) -> None:
    repos.git("checkout", "-q", "-b", "agents-own", cwd=tree.path)
    other = head(repos.commit(tree.path, "Other", {"a": "1"}))
    assert undo_with_branch(tree, "agents-own").commit == other


def undo_with_branch(tree: Worktree, name: str) -> Rollback:
    done = rollback(tree, RUN, "Rolled back")
    assert done.unsaved == () and name in repos.branches(tree.project.root)
    assert tree.branch not in repos.branches(tree.project.root) and repos.registered(tree.project.root) == []
    return done


@pytest.mark.parametrize(
    "command",
    [
        ["branch", "-D", "BRANCH"],
        ["update-ref", "-d", "refs/heads/BRANCH"],
        ["pack-refs", "--all"],
        ["checkout", "-q", "--orphan", "fresh-start"],
        ["worktree", "lock", "."],
        ["symbolic-ref", "refs/heads/BRANCH", "refs/heads/main"],
        ["symbolic-ref", "refs/heads/BRANCH", "refs/heads/nowhere"],
        ["symbolic-ref", REF, "refs/heads/main"],
        ["symbolic-ref", REF, "refs/heads/nowhere"],
    ],
)
def test_whatever_the_agent_did_to_its_branch(root: Path, tree: Worktree, command: list[str]) -> None:
    """F22."""
    tip = head(repos.commit(tree.path, "One", {"one": "1"}))
    if command[0] == "branch":
        repos.git("checkout", "-q", "--detach", cwd=tree.path)
    repos.git(*(word.replace("BRANCH", tree.branch) for word in command), cwd=tree.path)
    repos.write(tree.path, {"loose": "x"})
    undo(tree)
    assert reachable(root, tip) and {"one", "loose"} <= repos.committed(root, REF).keys()


@pytest.mark.parametrize(
    "harm",
    ["git file", "git folder", "both", "index", "no index", "lock", "HEAD", "commondir", "logs", "stale scratch"],
)
def test_whatever_became_of_gits_own_files(root: Path, tree: Worktree, harm: str) -> None:
    tip = head(repos.commit(tree.path, "One", {"one": "1"}))
    repos.write(tree.path, {"loose": "x", "README.md": "changed\n"})
    (tree.path / "gone").unlink()
    expected = repos.contents(tree.path)
    admin = root / ".git" / "worktrees" / tree.path.name
    if harm in ("git file", "both"):
        (tree.path / ".git").unlink()
    if harm in ("git folder", "both"):
        folders.delete_folder(admin)
    if harm == "index":
        (admin / "index").write_bytes(b"DIRC garbage")
    if harm == "no index":
        (admin / "index").unlink()
    if harm == "lock":
        (admin / "index.lock").touch()
        (admin / "HEAD.lock").touch()
    if harm in ("HEAD", "commondir"):
        (admin / harm).unlink()
    if harm == "logs":
        folders.delete_folder(admin / "logs")
    if harm == "stale scratch":
        repos.write(tree.path.parent / f".{tree.path.name}.rollback", {"index": "garbage"})
    done = undo(tree)
    assert done.commit is not None and repos.committed(root, done.commit) == expected and reachable(root, tip)


@pytest.mark.parametrize("place", ["REF", "worktrees/NAME/ORIG_HEAD", "worktrees/NAME/REVERT_HEAD"])
@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_in_place_of_the_branch_is_not_waited_for(
    root: Path, tree: Worktree, tmp_path: Path, place: str, link: bool
) -> None:
    """Nor one where git notes commits; nor by the user's own git afterwards."""
    tip = head(repos.commit(tree.path, "One", {"one": "1"}))
    taken = root / ".git" / (tree.ref if place == "REF" else place.replace("NAME", tree.path.name))
    pipe = tmp_path / "pipe"
    taken.unlink(missing_ok=True)
    os.mkfifo(pipe if link else taken)
    if link:
        taken.symlink_to(pipe)
    done = rollback(tree, RUN, "Rolled back")
    assert done.unsaved == () and reachable(root, tip) and repos.branches(root) == ["main"]


def test_a_worktree_that_was_deleted_still_gives_its_commits(root: Path, tree: Worktree) -> None:
    """F9."""
    dropped = head(repos.commit(tree.path, "Dropped", {"a": "1"}))
    repos.git("reset", "-q", "--hard", tree.base, cwd=tree.path)
    tip = head(repos.commit(tree.path, "One", {"one": "1"}))
    folders.delete_folder(tree.path)
    undo(tree)
    assert reachable(root, dropped, tip)


def test_a_worktree_and_its_record_that_were_deleted_still_give_the_branch(root: Path, tree: Worktree) -> None:
    tip = head(repos.commit(tree.path, "One", {"one": "1"}))
    repos.git("worktree", "remove", "-f", tree.path, cwd=root)
    assert undo(tree).commit == tip


def test_an_emptied_worktree_is_work_like_any_other(root: Path, tree: Worktree) -> None:
    for path in list(tree.path.iterdir()):
        folders.delete_folder(path)
    done = undo(tree)
    assert done.commit is not None and repos.committed(root, done.commit) == {}


def test_a_link_in_the_worktrees_place_is_not_followed(root: Path, tree: Worktree, tmp_path: Path) -> None:
    """The folder that it leads to is the user's."""
    outside = repos.make(tmp_path / "outside")
    tip = head(repos.commit(tree.path, "One", {"one": "1"}))
    folders.delete_folder(tree.path)
    tree.path.symlink_to(outside)
    with repos.untouched(outside):
        assert undo(tree).commit == tip


def test_a_merge_or_rebase_in_the_middle_is_kept(root: Path, tree: Worktree) -> None:
    mine = head(repos.commit(tree.path, "Mine", {"README.md": "mine\n"}))
    repos.git("checkout", "-q", "--detach", tree.base, cwd=tree.path)
    theirs = head(repos.commit(tree.path, "Theirs", {"README.md": "theirs\n"}))
    repos.git("checkout", "-q", tree.branch, cwd=tree.path)
    repos.write(tree.path, {"script.sh": "stashed by rebase\n"})
    repos.git("rebase", "--autostash", theirs, cwd=tree.path, code=1)
    content = (tree.path / "README.md").read_bytes()
    assert b"<<<<<<<" in content
    done = undo(tree)
    assert reachable(root, mine, theirs)
    assert repos.committed(root, REF)["README.md"] == ("100644", content)
    stashed = [c for c in repos.git("rev-list", str(done.commit), cwd=root).split() if "stashed" in show(root, c)]
    assert stashed != []


def show(root: Path, commit: str) -> str:
    return repos.git("show", f"{commit}:script.sh", cwd=root, code=None)


def test_hooks_do_not_run_and_identity_is_not_needed(root: Path, tree: Worktree, home: Path, tmp_path: Path) -> None:
    for name in ("pre-commit", "commit-msg", "reference-transaction", "post-checkout"):
        repos.hook(root, name, f"touch {tmp_path}/ran; exit 1")
    (home / ".gitconfig").write_text("[user]\n useConfigOnly = true\n[commit]\n gpgsign = true\n")
    repos.write(tree.path, {"a": "1"})
    assert undo(tree).commit is not None
    assert not (tmp_path / "ran").exists()


def test_an_ignored_file_that_the_agent_added_by_force_is_kept(root: Path, tree: Worktree) -> None:
    repos.write(tree.path, {"build/out": "x"})
    repos.git("add", "-f", "build/out", cwd=tree.path)
    undo(tree)
    assert "build/out" in repos.committed(root, REF)


def test_a_rollback_that_a_crash_cut_short_goes_on(root: Path, tree: Worktree) -> None:
    """The ref was made, the worktree was not removed; then more came to it."""
    repos.write(tree.path, {"a": "1"})
    first = rollback(tree, RUN, "Rolled back")
    recreated = Worktree(tree.project, tree.path, tree.branch, tree.base, tree.lock)
    worktree.create(recreated)
    repos.write(tree.path, {"b": "2"})
    done = undo(recreated)
    assert first.commit is not None and reachable(root, first.commit) and "b" in repos.committed(root, REF)
    assert rollback(tree, RUN, "Again") == Rollback(REF, done.commit, ())


@pytest.mark.parametrize("shape", ["nested", "committed", "top", "huge"])
def test_what_cannot_be_saved_is_told_and_stays_where_it_is(root: Path, tree: Worktree, shape: str) -> None:
    repos.write(tree.path, {"a": "1"})
    if shape == "top":
        (tree.path / ".git").unlink()
        repos.git("init", "-q", cwd=tree.path)
    elif shape == "huge":
        with (tree.path / "huge").open("wb") as file:
            file.truncate(5 << 30)
    else:
        repos.make(tree.path / "own")
        if shape == "committed":
            repos.commit(tree.path)
    before = repos.contents(tree.path)
    staged = repos.git("ls-files", "-s", cwd=tree.path)
    with repos.untouched(root):
        done = rollback(tree, RUN, "Rolled back")
    assert len(done.unsaved) == 1
    assert {"top": "repository of its own", "huge": "huge: "}.get(shape, "own") in done.unsaved[0]
    assert repos.contents(tree.path) == before and tree.branch in repos.branches(root)
    assert repos.git("ls-files", "-s", cwd=tree.path) == staged
    assert done.ref == REF and "a" in repos.committed(root, REF)
    if shape == "top":
        folders.delete_folder(tree.path / ".git")
    folders.delete_folder(tree.path / "own")
    (tree.path / "huge").unlink(missing_ok=True)
    assert rollback(tree, RUN, "Again").unsaved == ()
    assert repos.registered(root) == [] and "a" in repos.committed(root, REF)


def test_a_ref_that_cannot_be_written_leaves_everything_in_place(root: Path, tree: Worktree) -> None:
    (root / ".git" / "refs" / "claude-scheduler").write_text("in the way")
    repos.write(tree.path, {"a": "1"})
    done = rollback(tree, RUN, "Rolled back")
    assert done.ref is None and len(done.unsaved) == 1 and "\n" not in done.unsaved[0]
    assert (tree.path / "a").read_text() == "1" and tree.branch in repos.branches(root)


def test_recovery_of_a_run_that_never_got_its_worktree(root: Path, tmp_path: Path) -> None:
    planned = repos.plan(root, tmp_path)
    with repos.untouched(root):
        assert recover(planned, RUN, "Crashed") == Rollback(None, None, ())
        repos.git("branch", planned.branch, planned.base, cwd=root)
        assert recover(planned, RUN, "Crashed") == Rollback(None, None, ())
    assert repos.branches(root) == ["main"]


def test_a_half_made_worktree_is_no_work(root: Path, tree: Worktree) -> None:
    """Killed in the middle of the checkout: the files that are missing were not deleted by anybody."""
    (root / ".git" / "worktrees" / tree.path.name / "locked").write_text("initializing")
    (tree.path / "README.md").unlink()
    with repos.untouched(root):
        assert recover(tree, RUN, "Crashed") == Rollback(None, None, ())
    assert repos.branches(root) == ["main"] and repos.registered(root) == []


def test_locks_of_ours_go_when_they_are_old_and_the_users_stay(root: Path, tree: Worktree) -> None:
    repos.write(tree.path, {"a": "1"})
    lock = root / ".git" / f"{tree.ref}.lock"
    lock.touch()
    for users in ("index.lock", "HEAD.lock", "refs/heads/main.lock", "config.lock"):
        (root / ".git" / users).touch()
        os.utime(root / ".git" / users, (0, 0))
    done = recover(tree, RUN, "Crashed", patience=0)
    assert done.ref == REF and done.unsaved == (f"the branch {tree.branch} could not be removed",)
    assert recover(tree, RUN, "Crashed", lock_age=0) == Rollback(REF, done.commit, ())
    assert tree.branch not in repos.branches(root) and not lock.exists()
    assert all((root / ".git" / name).exists() for name in ("index.lock", "refs/heads/main.lock", "config.lock"))


def test_the_lock_of_all_packed_refs_goes_only_if_we_made_it(root: Path, tree: Worktree) -> None:
    lock = root / ".git" / "packed-refs.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    with repos.untouched(root):
        assert recover(tree, RUN, "Crashed").unsaved == (f"the branch {tree.branch} could not be removed",)
    lock.unlink()
    (root / ".git" / f"claude-scheduler-{tree.path.name}").mkdir()
    lock.touch()
    assert recover(tree, RUN, "Crashed", lock_age=0).unsaved == ()
    assert repos.branches(root) == ["main"] and not lock.exists()
