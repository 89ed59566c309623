from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from scheduler.errors import SchedulerError
from scheduler.execution import folders, git, work
from scheduler.execution.work import CommitRejected, LeftBranch
from scheduler.execution.worktree import Worktree
from tests import repos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repos.make(tmp_path / "repo")


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Worktree:
    return repos.create(root, tmp_path)


def messages(root: Path, tree: Worktree) -> list[str]:
    return repos.git("log", "--format=%s", f"{tree.base}..{tree.branch}", cwd=root).splitlines()


def test_a_run_that_changed_nothing_has_no_work(root: Path, tree: Worktree) -> None:
    with repos.untouched(root):
        repos.write(tree.path, {"build/ignored": "x", ".env": "x"})
        os.utime(tree.path / "README.md")
        repos.write(tree.path, {"src/app.py": repos.FILES["src/app.py"]})
        assert work.keep(tree, "Work") is None


def test_every_kind_of_change_is_committed(root: Path, tree: Worktree) -> None:
    """Also what the agent had staged in part."""
    repos.write(tree.path, {"README.md": "one\ntwo\n", "new/file": "x\n", "binary": bytes(range(256))})
    repos.git("add", "README.md", cwd=tree.path)
    repos.write(tree.path, {"README.md": "one\ntwo\nthree\n"})
    (tree.path / "src" / "app.py").unlink()
    (tree.path / ".gitignore").chmod(0o755)
    (tree.path / "link").symlink_to("/nowhere")
    expected = repos.contents(tree.path)
    with repos.untouched(root):
        kept = work.keep(tree, "Nightly\n\nRun: 1\n# a line\n")
    assert kept is not None and kept.unsaved == ()
    assert repos.committed(root, kept.commit) == expected
    assert kept.commit == repos.git("rev-parse", tree.branch, cwd=root)
    assert (kept.files_changed, kept.insertions, kept.deletions) == (6, 5, 2)
    assert repos.git("log", "-1", "--format=%B", kept.commit, cwd=root).strip() == "Nightly\n\nRun: 1\n# a line"
    assert repos.git("log", "-1", "--format=%an <%ae>", kept.commit, cwd=root) == "Test Person <person@example.invalid>"


def test_commits_of_the_agent_stay_and_the_rest_comes_on_top(root: Path, tree: Worktree) -> None:
    repos.commit(tree.path, "Agent's", {"a": "1\n"})
    with repos.untouched(root):
        kept = work.keep(tree, "Rest")
        assert kept is not None and messages(root, tree) == ["Agent's"] and kept.files_changed == 1
        repos.write(tree.path, {"b": "2\n"})
        kept = work.keep(tree, "Rest")
    assert kept is not None and messages(root, tree) == ["Rest", "Agent's"] and kept.insertions == 2


def test_without_an_identity_our_commit_has_one_of_ours(root: Path, tree: Worktree, home: Path) -> None:
    """F16: and gpg is not asked."""
    (home / ".gitconfig").write_text(
        "[user]\n useConfigOnly = true\n[commit]\n gpgsign = true\n[gpg]\n program = /no\n"
    )
    repos.write(tree.path, {"a": "1"})
    with repos.untouched(root):
        kept = work.keep(tree, "Work")
    assert kept is not None
    assert repos.git("log", "-1", "--format=%an %cn", kept.commit, cwd=root) == "Claude scheduler Claude scheduler"


@pytest.mark.parametrize("hook", ["pre-commit", "commit-msg", "prepare-commit-msg", "reference-transaction"])
def test_a_hook_that_refuses_is_quoted_and_nothing_is_lost(root: Path, tree: Worktree, hook: str) -> None:
    """F14, F15."""
    repos.hook(root, hook, "echo 'lint: 3 problems' >&2; exit 1")
    repos.write(tree.path, {"a": "1"})
    with repos.untouched(root), pytest.raises(CommitRejected, match="the commit was refused: ") as raised:
        work.keep(tree, "Work")
    assert "\n" not in raised.value.message
    assert hook == "reference-transaction" or "lint: 3 problems" in raised.value.message
    assert (tree.path / "a").read_text() == "1"
    assert repos.git("rev-parse", tree.branch, cwd=root) == tree.base


def test_hooks_of_the_user_run_on_the_commit_in_the_worktree(root: Path, tree: Worktree, tmp_path: Path) -> None:
    repos.hook(root, "pre-commit", f"pwd > {tmp_path}/where; git diff --cached --name-only >> {tmp_path}/where")
    repos.write(tree.path, {"a": "1"})
    with repos.untouched(root):
        assert work.keep(tree, "Work") is not None
    assert (tmp_path / "where").read_text().split() == [str(tree.path), "a"]


def test_line_endings_that_git_evens_out_are_no_change(root: Path, tree: Worktree) -> None:
    repos.git("config", "core.autocrlf", "input", cwd=root)
    repos.write(tree.path, {"README.md": "# A project\r\n"})
    assert work.keep(tree, "Work") is None


@pytest.mark.parametrize(
    ("command", "now"),
    [
        (["checkout", "-q", "-b", "other"], "is on other"),
        (["checkout", "-q", "--detach"], "is on no branch"),
        (["branch", "-m", "renamed"], "is on renamed"),
        (["update-ref", "-d", "HEAD"], "has no commit"),
        (["symbolic-ref", "HEAD", "refs/heads/main"], "is on main"),
    ],
)
def test_a_worktree_that_left_its_branch_is_not_committed(
    root: Path, tree: Worktree, command: list[str], now: str
) -> None:
    """F22: for the work of another branch would be committed, or to it."""
    repos.git(*command, cwd=tree.path)
    repos.write(tree.path, {"a": "1"})
    with repos.untouched(root), pytest.raises(LeftBranch, match=now):
        work.keep(tree, "Work")


@pytest.mark.parametrize("harm", ["folder", "git folder", "folder and link"])
def test_a_worktree_that_is_gone_is_not_committed(root: Path, tree: Worktree, harm: str) -> None:
    if harm == "git folder":
        folders.delete_folder(root / ".git" / "worktrees" / tree.path.name)
    else:
        folders.delete_folder(tree.path)
    if harm == "folder and link":
        tree.path.symlink_to(root)
    with repos.untouched(root), pytest.raises(LeftBranch, match="removed its own worktree"):
        work.keep(tree, "Work")


def test_without_its_git_file_a_worktree_still_means_its_own_repository(root: Path, tree: Worktree) -> None:
    """F22: the worktree of this test lies inside another repository, which git would take instead."""
    outer = tree.path.parent
    repos.git("init", "-q", outer, cwd=outer)
    (tree.path / ".git").unlink()
    repos.write(tree.path, {"a": "1"})
    with repos.untouched(root), repos.untouched(outer):
        kept = work.keep(tree, "Work")
    assert kept is not None and "a" in repos.committed(root, kept.commit)


def test_a_lock_that_a_killed_git_left_in_the_worktree_is_no_obstacle(root: Path, tree: Worktree) -> None:
    """F8, F19: and the user's own lock (F7) is left alone."""
    (root / ".git" / "worktrees" / tree.path.name / "index.lock").touch()
    (root / ".git" / "index.lock").touch()
    repos.write(tree.path, {"a": "1"})
    with repos.untouched(root):
        assert work.keep(tree, "Work") is not None
    assert (root / ".git" / "index.lock").exists()


def test_a_merge_in_conflict_is_not_committed(root: Path, tree: Worktree) -> None:
    repos.commit(tree.path, "Mine", {"README.md": "mine\n"})
    repos.git("checkout", "-q", "--detach", tree.base, cwd=tree.path)
    theirs = repos.git("rev-parse", "HEAD", cwd=repos.commit(tree.path, "Theirs", {"README.md": "theirs\n"}))
    repos.git("checkout", "-q", tree.branch, cwd=tree.path)
    repos.git("merge", theirs, cwd=tree.path, code=1)
    with repos.untouched(root), pytest.raises(CommitRejected, match=r"conflicts in README\.md"):
        work.keep(tree, "Work")
    repos.write(tree.path, {"README.md": "both\n"})
    repos.git("add", "README.md", cwd=tree.path)
    kept = work.keep(tree, "Merged")
    assert kept is not None and len(repos.git("rev-parse", f"{kept.commit}^@", cwd=root).split()) == 2


def test_pipes_and_sockets_are_passed_over(root: Path, tree: Worktree, monkeypatch: pytest.MonkeyPatch) -> None:
    """F24: one in the place of a tracked file too."""
    os.mkfifo(tree.path / "pipe")
    (tree.path / "README.md").unlink()
    os.mkfifo(tree.path / "README.md")
    monkeypatch.chdir(tree.path)
    with socket.socket(socket.AF_UNIX) as listener, repos.untouched(root):
        listener.bind("socket")
        assert work.keep(tree, "Work") is None
        repos.write(tree.path, {"a": "1"})
        kept = work.keep(tree, "Work")
    assert kept is not None and kept.files_changed == 1 and kept.unsaved == ()


def test_a_huge_file_stays_out_and_is_told(root: Path, tree: Worktree) -> None:
    """F24: 5 GB, sparse."""
    with (tree.path / "huge.bin").open("wb") as file:
        file.truncate(5 << 30)
    repos.write(tree.path, {"a": "1"})
    with repos.untouched(root):
        kept = work.keep(tree, "Work")
    assert kept is not None and kept.unsaved == ("huge.bin: 5120 MB, too large to be kept in git",)
    assert "huge.bin" not in repos.committed(root, kept.commit) and "a" in repos.committed(root, kept.commit)


def test_a_repository_inside_is_told_unless_it_is_a_clone_without_work(root: Path, tree: Worktree) -> None:
    repos.write(tree.path, {"a": "1"})
    repos.git("clone", "-q", root, tree.path / "clone", cwd=tree.path)
    with repos.untouched(root):
        kept = work.keep(tree, "Work")
        assert kept is not None and kept.unsaved == ()
        assert {"a"} == repos.committed(root, kept.commit).keys() - repos.FILES.keys()
        repos.write(tree.path, {"clone/new": "x"})
        repos.git("init", "-q", "empty", cwd=tree.path)
        repos.commit(repos.make(tree.path / "own"), files={"x": "y"})
        kept = work.keep(tree, "Work")
    assert kept is not None
    assert [line.partition(":")[0] for line in kept.unsaved] == ["clone/", "empty/", "own/"]


def test_a_repository_that_the_agent_committed_as_a_link_is_told(root: Path, tree: Worktree) -> None:
    repos.make(tree.path / "own")
    repos.commit(tree.path)
    with repos.untouched(root):
        kept = work.keep(tree, "Work")
    assert kept is not None and [line.partition(":")[0] for line in kept.unsaved] == ["own"]


def test_work_in_a_submodule_is_told_where_it_is_nowhere_else(root: Path, tmp_path: Path) -> None:
    inner = repos.make(tmp_path / "inner")
    repos.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "lib", cwd=root)
    repos.commit(root)
    tree = repos.create(root, tmp_path)
    repos.git("submodule", "update", "-q", "--init", cwd=tree.path)
    repos.commit(inner, files={"published": "x"})
    repos.git("-c", "protocol.file.allow=always", "submodule", "update", "-q", "--remote", cwd=tree.path)
    with repos.untouched(root):
        kept = work.keep(tree, "Newer submodule")
        assert kept is not None and kept.unsaved == () and kept.files_changed == 1
        repos.write(tree.path, {"lib/loose": "x"})
        kept = work.keep(tree, "Work")
        assert kept is not None and "lib: a submodule with uncommitted changes" in kept.unsaved
        repos.commit(tree.path / "lib")
        kept = work.keep(tree, "Work")
        assert kept is not None and [line.partition(":")[0] for line in kept.unsaved] == ["lib"]


def test_files_and_folders_without_rights_are_read_all_the_same(root: Path, tree: Worktree) -> None:
    repos.write(tree.path, {"secret": "s", "closed/deep/file": "x"})
    (tree.path / "secret").chmod(0)
    (tree.path / "closed" / "deep").chmod(0)
    (tree.path / "closed").chmod(0)
    with repos.untouched(root):
        kept = work.keep(tree, "Work")
    assert kept is not None and kept.unsaved == ()
    assert {"secret", "closed/deep/file"} <= repos.committed(root, kept.commit).keys()


def test_what_git_says_of_a_worktree_is_taken_apart() -> None:
    output = (
        b"# branch.oid 1234\0# branch.head side\x001 .M N... 100644 100644 100644 a b sp ace\0"
        b"1 AM SCMU 000000 160000 160000 a b lib\0u UU N... 100644 100644 100644 100644 a b c x\0? new/\0"
    )
    assert work.parse_status(output) == work.State(
        "1234",
        "side",
        (
            work.Entry(".M", "N...", "sp ace"),
            work.Entry("AM", "SCMU", "lib"),
            work.Entry("uu", "N...", "x"),
            work.Entry("??", "N...", "new/"),
        ),
    )


def test_git_that_fails_is_an_error_in_its_own_words(root: Path, tree: Worktree, tmp_path: Path) -> None:
    repos.write(tree.path, {"a": "1"})
    limited = {"GIT_CONFIG_GLOBAL": str(tmp_path / "broken")}
    (tmp_path / "broken").write_text("[broken\n")
    project = git.Project(root, root / ".git", {**tree.project.env, **limited})
    with pytest.raises(SchedulerError, match="bad config line"):
        work.keep(Worktree(project, tree.path, tree.branch, tree.base, tree.lock), "Work")
