from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from scheduler.execution import attribution, containment, git, trace
from scheduler.execution.containment import Change, Snapshot
from scheduler.execution.worktree import Worktree
from tests import repos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = repos.make(tmp_path / "repo")
    repos.git("branch", "other", cwd=root)
    return repos.commit(root, "Second", {"second": "x\n", "odd name é": "x\n"})


def kinds(changes: Sequence[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.what) for change in changes]


def changed(root: Path, before: Snapshot) -> list[tuple[str, str]]:
    project = git.find_project(root)
    quick = containment.difference(before, containment.snapshot(project, since=before))
    assert quick == containment.difference(before, containment.snapshot(project))
    return kinds(quick)


CASES = [
    (["commit", "-q", "--allow-empty", "-m", "x"], [("branch", "main")]),
    (["checkout", "-q", "-b", "new"], [("head", "HEAD"), ("branch", "new")]),
    (["checkout", "-q", "--detach"], [("head", "HEAD")]),
    (["branch", "-D", "other"], [("branch", "other")]),
    (["branch", "-m", "other", "moved"], [("branch", "moved"), ("branch", "other")]),
    (["branch", "-f", "other", "main"], [("branch", "other")]),
    (["tag", "v1"], [("tag", "v1")]),
    (["update-index", "--chmod=+x", "second"], [("index", "second"), ("file", "second")]),
    (["rm", "-q", "odd name é"], [("index", "odd name é")]),
    (["pack-refs", "--all"], []),
    (["gc", "-q"], []),
    (["status"], []),
    (["update-ref", "refs/remotes/origin/main", "HEAD"], []),
    (["update-ref", "refs/claude-scheduler/discarded/x", "HEAD"], []),
    (["branch", "claude-task/nightly-20261123T0200-0123abcd"], []),
]


@pytest.mark.parametrize(("command", "expected"), CASES, ids=[" ".join(command) for command, _ in CASES])
def test_what_a_command_changes_is_seen(root: Path, command: list[str], expected: list[tuple[str, str]]) -> None:
    before = containment.snapshot(git.find_project(root))
    repos.git(*command, cwd=root)
    assert changed(root, before) == expected


def test_files_are_seen_to_change_again_and_again(root: Path) -> None:
    repos.write(root, {"untracked": "1", "second": "dirty\n"})
    project = git.find_project(root)
    with repos.untouched(root):
        before = containment.snapshot(project)
    assert before.uncommitted == 2 and changed(root, before) == []
    repos.write(root, {"untracked": "22", "second": "dirtier\n", "new": "x", "build/ignored": "x"})
    assert changed(root, before) == [("file", "new"), ("file", "second"), ("file", "untracked")]
    (root / "untracked").unlink()
    (root / "new").unlink()
    repos.git("checkout", "-q", "second", cwd=root)
    assert changed(root, before) == [("file", "second"), ("file", "untracked")]


def test_every_entry_of_the_stash_is_seen(root: Path) -> None:
    for number in range(2):
        repos.write(root, {"second": f"{number}\n"})
        repos.git("stash", "-q", cwd=root)
    before = containment.snapshot(git.find_project(root))
    assert len(before.stash) == 2
    repos.git("stash", "drop", "-q", "stash@{1}", cwd=root)
    assert changed(root, before) == [("stash", "stash")]


def test_conflicts_and_an_empty_repository_are_states_like_others(root: Path, tmp_path: Path) -> None:
    repos.git("init", "-q", "-b", "main", tmp_path / "empty", cwd=tmp_path)
    empty = containment.snapshot(git.find_project(tmp_path / "empty"))
    assert (empty.head, empty.refs, empty.index, empty.files) == ("main", {}, b"", {})
    before = containment.snapshot(git.find_project(root))
    repos.git("checkout", "-q", "-b", "theirs", cwd=root)
    repos.commit(root, files={"second": "theirs\n"})
    repos.git("checkout", "-q", "main", cwd=root)
    repos.commit(root, files={"second": "ours\n"})
    repos.git("merge", "theirs", cwd=root, code=1)
    assert ("index", "second") in changed(root, before) and ("file", "second") in changed(root, before)


def test_a_change_can_be_told(root: Path) -> None:
    assert [
        str(Change("branch", "x", None, "1")),
        str(Change("file", "a b")),
        str(Change("head", "HEAD", "1", "2")),
    ] == [
        "branch x appeared",
        "file a b appeared",
        "HEAD changed",
    ]
    assert str(Change("index", "a", "1", None)) == "a in the index is gone"
    assert str(Change("branch", "a", "0123456789abcdef", None)) == "branch a is gone (was 0123456789ab)"


class Night:
    """A run in a worktree, and a user in the main checkout, at the same time."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root = root
        self.tree: Worktree = repos.create(root, place)
        self.folder = place / "trace"
        self.folder.mkdir(mode=0o700)
        self.before = containment.snapshot(self.tree.project)

    def agent(self, script: str) -> None:
        env = {**os.environ, **trace.environment(self.folder), "MAIN": str(self.root)}
        subprocess.run(["sh", "-c", script], cwd=self.tree.path, env=env, capture_output=True, check=False)

    def judge(self, *tools: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        changes = containment.difference(self.before, containment.snapshot(self.tree.project, since=self.before))
        mine, others = attribution.attribute(
            changes,
            tool_paths=[str(path) for path in tools],
            commands=trace.read(self.folder),
            before=self.before,
            main_root=self.root,
            worktree=self.tree.path,
            branch=self.tree.branch,
        )
        return kinds(mine), kinds(others)


@pytest.fixture
def night(root: Path, tmp_path: Path) -> Night:
    return Night(root, tmp_path)


INNOCENT = """
git status; git log --all; git branch -a; git branch -vv; git branch --list main; git branch --contains main
git diff main; git show other; git merge-base main other; git stash list; git tag -l; git rev-parse main
echo x > new; git add new; git commit -qm x; git rebase -q main; git merge -q main; git reset -q --hard HEAD~0
git checkout -q -- src; git checkout main -- src/app.py; git fetch . main; git symbolic-ref HEAD
git -C "$MAIN" status; git -C "$MAIN" log -1; git -C "$MAIN" diff; git -C "$MAIN" stash list
git --git-dir="$MAIN/.git" log -1; git push -q /nowhere main; git checkout nowhere; git branch -D nowhere
"""


def test_a_user_at_work_costs_a_run_nothing(root: Path, night: Night) -> None:
    """The run does all that a run does, and names the user's branches, while each thing that is watched changes."""
    repos.commit(root, "User's", {"second": "user\n"})
    repos.git("branch", "-f", "other", "main", cwd=root)
    repos.git("branch", "new", cwd=root)
    repos.git("tag", "v1", cwd=root)
    repos.write(root, {"second": "stashed\n"})
    repos.git("stash", "-q", cwd=root)
    repos.write(root, {"second": "dirty\n", "src/app.py": "staged\n"})
    repos.git("add", "src", cwd=root)
    repos.git("checkout", "-q", "-b", "users", cwd=root)
    night.agent(INNOCENT)
    mine, others = night.judge(night.tree.path / "second", Path("/etc/passwd"))
    assert mine == []
    assert {kind for kind, _ in others} == {"head", "branch", "tag", "stash", "index", "file"}


GUILTY = [
    ('git -C "$MAIN" commit -q --allow-empty -m x', [("branch", "main")]),
    ('cd "$MAIN" && echo run > second && git commit -qam x', [("branch", "main"), ("index", "second")]),
    ('git -C "$MAIN" checkout -q other', [("head", "HEAD"), ("index", "second"), ("index", "odd name é")]),
    ('git -C "$MAIN" checkout -q -b mine', [("head", "HEAD"), ("branch", "mine")]),
    ('git -C "$MAIN" reset -q --hard HEAD~1', [("branch", "main"), ("index", "second")]),
    ('echo run > README.md; git --git-dir="$MAIN/.git" --work-tree=. add -A', [("index", "README.md")]),
    ('GIT_DIR="$MAIN/.git" GIT_WORK_TREE=. git rm -rq --cached src', [("index", "src/app.py")]),
    ("git branch -D other", [("branch", "other")]),
    ("git branch -f other", [("branch", "other")]),
    ("git branch -m other moved", [("branch", "moved"), ("branch", "other")]),
    ("git branch new", [("branch", "new")]),
    ("git checkout -q -b new", [("branch", "new")]),
    ("git switch -q -c new && git commit -q --allow-empty -m x", [("branch", "new")]),
    ("git checkout -q other && git commit -q --allow-empty -m x", [("branch", "other")]),
    ("git checkout -q --ignore-other-worktrees main && git reset -q --hard other", [("branch", "main")]),
    ("git update-ref refs/heads/other HEAD", [("branch", "other")]),
    ("printf 'delete refs/heads/other\\n' | git update-ref --stdin", [("branch", "other")]),
    ("git push -q . HEAD:other", [("branch", "other")]),
    ('git push -q "$MAIN" +HEAD:refs/heads/other', [("branch", "other")]),
    ("git fetch -q . +main:other", [("branch", "other")]),
    ("git worktree add -q ../extra", [("branch", "extra")]),
    ("git worktree add -q -b new ../extra && cd ../extra && git commit -q --allow-empty -m x", [("branch", "new")]),
    ("git tag v1", [("tag", "v1")]),
    ("git tag -a -m words v1 HEAD", [("tag", "v1")]),
    ("echo x >> second; git stash -q", [("stash", "stash")]),
    ("git config alias.st stash; echo x >> second; git st -q", [("stash", "stash")]),
    ("git config alias.sh '!git tag v1'; git sh", [("tag", "v1")]),
    ("git rebase -q main other; git commit -q --allow-empty -m x", [("branch", "other")]),
]


@pytest.mark.parametrize(("script", "expected"), GUILTY, ids=[script for script, _ in GUILTY])
def test_a_git_command_of_the_run_is_told_from_the_users(
    root: Path, night: Night, script: str, expected: list[tuple[str, str]]
) -> None:
    night.agent(script)
    repos.write(root, {"users-own": "x"})
    mine, others = night.judge()
    assert set(expected) <= set(mine)
    assert ("file", "users-own") in [*mine, *others]
    if "MAIN" not in script:
        assert others == [("file", "users-own")]


def test_branches_of_runs_come_and_go_unless_this_run_did_it(root: Path, night: Night) -> None:
    earlier = "claude-task/nightly-20261122T0200-0123abcd"
    repos.git("branch", "claude-task/other-20261123T0200-4567abcd", cwd=root)
    night.agent("echo x > new; git add new; git commit -q -m x")
    assert night.judge() == ([], [])
    repos.git("branch", earlier, cwd=root)
    night.before = containment.snapshot(night.tree.project)
    night.agent(f"git branch -D {earlier}")
    assert night.judge() == ([("branch", earlier)], [])


def test_a_tool_call_on_the_main_checkout_is_the_runs(root: Path, night: Night) -> None:
    repos.write(root, {"second": "tool\n", "sub/new": "tool", "users": "x"})
    mine, others = night.judge(root / "second", root / "sub" / "new", night.tree.path / "users")
    assert mine == [("file", "second"), ("file", "sub/new")] and others == [("file", "users")]


def test_a_command_that_failed_changed_nothing(root: Path, night: Night) -> None:
    """The user's change at the same time is not put on it."""
    night.agent('git -C "$MAIN" checkout nowhere; git -C "$MAIN" commit -m x; git branch other; git tag')
    repos.write(root, {"second": "user\n"})
    repos.git("branch", "-f", "other", "main", cwd=root)
    assert night.judge() == ([], [("branch", "other"), ("file", "second")])


def test_the_trace_tells_who_did_what_where(root: Path, night: Night) -> None:
    night.agent('git -C "$MAIN" -c a.b=c branch x; git checkout -q -- src; GIT_DIR="$MAIN/.git" git log')
    found = [(c.verb, c.arguments, c.mode, c.code) for c in trace.read(night.folder)]
    assert found[0] == ("branch", ("x",), "", 0)
    assert found[1] == ("checkout", ("-q", "--", "src"), "path", 0)
    assert found[2] == ("log", (), "", 0)
    commands = trace.read(night.folder)
    assert commands[0].worktree == str(root) and commands[1].worktree == str(night.tree.path)
    assert commands[2].git_dir == f"{root}/.git"


@pytest.mark.parametrize("harm", ["folder", "pipe", "endless"])
def test_what_is_no_trace_hides_nothing_and_holds_nobody_up(root: Path, night: Night, harm: str) -> None:
    night.agent("git config --get x.one; true")
    strange = night.folder / "a"  # before the others
    if harm == "folder":
        strange.mkdir()
    elif harm == "pipe":
        os.mkfifo(strange)
    else:
        strange.symlink_to("/dev/zero")
    assert [command.verb for command in trace.read(night.folder)] == ["config"]


def test_a_trace_that_is_damaged_or_missing_is_read_as_far_as_it_goes(root: Path, night: Night) -> None:
    night.agent("git branch one; git branch two")
    file = next(night.folder.iterdir())
    whole = file.read_bytes()
    file.write_bytes(b'{"event":"start"\n{"event":"exit","sid":"unknown","code":0}\n[]\n\xff\n' + whole[:-40])
    assert [c.arguments for c in trace.read(night.folder)] == [("one",), ("two",)]
    assert trace.read(night.folder / "none") == []


def test_our_own_commands_are_not_in_the_trace(
    root: Path, night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in trace.environment(night.folder).items():
        monkeypatch.setenv(name, value)
    project = git.find_project(root)
    containment.snapshot(project)
    assert list(night.folder.iterdir()) == []
