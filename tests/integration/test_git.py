from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scheduler.errors import SchedulerError
from scheduler.execution import git, refs
from scheduler.execution.eachref import unmerged_branches
from tests import repos

HOSTILE = [
    *("-D", "-m", "--upload-pack=touch x", "--edit-description", "@{-1}", "@", "a..b", "x.lock", "x.lock/y", "HEAD"),
    *("HEAD/x", "a/HEAD", "refs/heads/x", "", "/", "a//b", "a/", "/a", ".a", "a/.b", "a b", "a\nb", "a\0b", "a~1"),
    *("a^", "a:b", "a?", "a*", "a[", "a\\b", "ä", "a.", "a" * 300, "-rf", "\u202ea", "a\x7f"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repos.make(tmp_path / "repo")


def test_the_environment_names_no_other_repository_and_asks_nobody() -> None:
    source = {"GIT_DIR": "/x", "GIT_INDEX_FILE": "/y", "GIT_CONFIG_COUNT": "1", "PATH": "/bin", "HOME": "/h"}
    built = git.environment({**source, "LANG": "de_DE.UTF-8", "GIT_SSL_CAINFO": "/ca.pem", "LANGUAGE": "de"})
    assert built["PATH"] == "/bin" and built["HOME"] == "/h" and built["GIT_SSL_CAINFO"] == "/ca.pem"
    assert not {"GIT_DIR", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "LANGUAGE"} & built.keys()
    assert built["GIT_TERMINAL_PROMPT"] == "0" and built["GCM_INTERACTIVE"] == "never" and built["LC_ALL"] == "C"


def test_git_variables_of_a_hook_do_not_lead_to_another_repository(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F17."""
    other = repos.commit(repos.make(tmp_path / "other"), files={"x": "y"})
    with repos.untouched(other):
        monkeypatch.setenv("GIT_DIR", str(other / ".git"))
        monkeypatch.setenv("GIT_COMMON_DIR", str(other / ".git"))
        monkeypatch.setenv("GIT_WORK_TREE", str(other))
        monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
        found = git.find_project(root)
        assert found.root == root
        head = git.resolve(found, "HEAD")
        for name in ("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            monkeypatch.delenv(name)
    assert head == repos.git("rev-parse", "HEAD", cwd=root)


@pytest.mark.parametrize("name", ["plain", "with space", "ünïcode-日本", "quote'\"$x", "new\nline"])
def test_a_project_is_found_from_its_root_below_it_and_from_a_linked_worktree(tmp_path: Path, name: str) -> None:
    root = repos.make(tmp_path / name)
    linked = tmp_path / "linked tree"
    repos.git("worktree", "add", "-q", linked, "-b", "side", cwd=root)
    for place in (root, root / "src", linked, linked / "src"):
        if "\n" in name:
            with pytest.raises(SchedulerError):
                git.find_project(place)
            continue
        found = git.find_project(place)
        assert (found.root, found.common_dir) == (root, root / ".git")


def test_a_link_to_the_project_is_the_project(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert git.find_project(tmp_path / "link" / "src").root == root


def test_a_submodule_is_a_project_of_its_own(root: Path, tmp_path: Path) -> None:
    inner = repos.make(tmp_path / "inner")
    repos.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "lib", cwd=root)
    repos.commit(root)
    found = git.find_project(root / "lib" / "src")
    assert (found.root, found.common_dir) == (root / "lib", root / ".git" / "modules" / "lib")
    repos.git("worktree", "add", "-q", tmp_path / "linked", cwd=root / "lib")
    assert git.find_project(tmp_path / "linked").root == root / "lib"
    assert git.find_project(root).root == root
    assert git.resolve(found, "HEAD") == repos.git("rev-parse", "HEAD", cwd=inner)


def test_a_git_folder_elsewhere_is_found(tmp_path: Path) -> None:
    repos.git("init", "-q", "--separate-git-dir", tmp_path / "store", tmp_path / "tree", cwd=tmp_path)
    found = git.find_project(tmp_path / "tree")
    assert (found.root, found.common_dir) == (tmp_path / "tree", tmp_path / "store")


def test_a_bare_repository_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    """F4: itself, a worktree of it, and the layout with the bare folder beside its worktrees."""
    bare = tmp_path / "layout" / ".bare"
    repos.git("clone", "-q", "--bare", root, bare, cwd=tmp_path)
    repos.git("worktree", "add", "-q", tmp_path / "layout" / "main", "main", cwd=bare)
    hidden = tmp_path / "hidden" / ".git"
    repos.git("clone", "-q", "--bare", root, hidden, cwd=tmp_path)
    for place in (bare, tmp_path / "layout" / "main", hidden, hidden.parent):
        with pytest.raises(SchedulerError, match=r"a bare repository.*, which has no main working tree") as refused:
            git.find_project(place)
        assert "\n" not in refused.value.message and refused.value.hint == "schedule tasks in a clone that has one"
    for place in (bare, bare / "refs"):
        with pytest.raises(SchedulerError) as refused:
            git.find_project(place)
        assert refused.value.message == f"{bare} is a bare repository, which has no main working tree"


def test_what_is_no_repository_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SchedulerError, match="is not in a git repository"):
        git.find_project(tmp_path)
    with pytest.raises(SchedulerError, match="there is no folder"):
        git.find_project(tmp_path / "missing")
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(SchedulerError, match=r"git refuses .*nowhere"):
        git.find_project(tmp_path)


def test_a_repository_around_a_project_that_lost_its_git_folder_is_never_meant(root: Path) -> None:
    inner = repos.make(root / "inner")
    project = git.find_project(inner)
    (inner / ".git").rename(inner / "gone")
    with pytest.raises(git.GitFailed, match="not a git repository"):
        git.run(project.checkout, "status")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder of another owner")
def test_a_repository_of_another_owner_is_refused_with_gits_words(root: Path) -> None:
    """F26."""
    subprocess.run(["chown", "-R", "65534:65534", root], check=True)
    config = Path(os.environ["HOME"], ".gitconfig").read_bytes()
    with pytest.raises(SchedulerError, match="detected dubious ownership") as refused:
        git.find_project(root)
    assert "safe.directory" in refused.value.hint
    assert Path(os.environ["HOME"], ".gitconfig").read_bytes() == config


def test_a_git_that_is_too_old_is_said_to_be(root: Path, tmp_path: Path) -> None:
    """Before 2.31 rev-parse repeats an option that it does not know."""
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\nprintf -- '--path-format=absolute\\n.git\\n.git\\ntrue\\n\\n'\n")
    old.chmod(0o755)
    with pytest.raises(SchedulerError, match="too old"):
        git.find_project(root, {**os.environ, "PATH": f"{old.parent}:/usr/bin:/bin"})
    with pytest.raises(SchedulerError, match="`git` was not found"):
        git.find_project(root, {"PATH": str(tmp_path)})


def test_refs_are_read_as_git_reads_them(root: Path) -> None:
    project = git.find_project(root)
    repos.git("branch", "loose", cwd=root)
    repos.git("tag", "v1", cwd=root)
    repos.git("pack-refs", "--all", cwd=root)
    repos.commit(root, files={"more": "x"})
    for ref in ("HEAD", "refs/heads/main", "refs/heads/loose", "refs/tags/v1"):
        assert git.resolve(project, ref) == repos.git("rev-parse", ref, cwd=root)
    assert git.resolve(project, "refs/heads/none") is None
    assert git.points_to(project, "HEAD") == "refs/heads/main"
    repos.git("checkout", "-q", "--detach", cwd=root)
    assert git.points_to(project, "HEAD") is None
    assert git.resolve(project, "HEAD") == repos.git("rev-parse", "main", cwd=root)


def test_a_repository_that_gitpython_cannot_read_is_read_by_git(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    repos.git("init", "-q", "-b", "main", "--object-format=sha256", root, cwd=tmp_path)
    project = git.find_project(root)
    assert git.resolve(project, "HEAD") is None
    repos.commit(root, files={"a": "b"})
    assert git.resolve(project, "HEAD") == repos.git("rev-parse", "HEAD", cwd=root)
    assert git.points_to(project, "HEAD") == "refs/heads/main"


def test_an_error_carries_gits_own_words(root: Path) -> None:
    project = git.find_project(root)
    with pytest.raises(git.GitFailed, match=r"^git branch failed: 'x y' is not a valid branch name$") as raised:
        git.run(project.checkout, "branch", "x y")
    assert raised.value.returncode == 128
    assert git.run(project.checkout, "branch", "x y", check=False).returncode == 128


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("Preparing worktree\nfatal: no space\n", "no space"),
        ("error: one\nfatal: two\nhint: three\n", "two"),
        ("error: one\nerror: two\n  \n", "two"),
        ("lint found 3 problems\n", "lint found 3 problems"),
        ("", ""),
    ],
)
def test_the_line_that_says_what_is_wrong(stderr: str, words: str) -> None:
    assert git.words(stderr) == words


def test_a_planted_bare_repository_or_monitor_runs_nothing(root: Path, tmp_path: Path) -> None:
    """F27: f27."""
    proof = tmp_path / "ran"
    repos.git("config", "core.fsmonitor", f"touch {proof}; false", cwd=root)
    project = git.find_project(root)
    git.run(project.checkout, "status")
    nested = root / "nested"
    repos.git("init", "-q", "--bare", nested, cwd=root)
    repos.git("config", "core.fsmonitor", f"touch {proof}; false", cwd=nested)
    repos.git("config", "core.worktree", ".", cwd=nested)
    repos.git("config", "core.bare", "false", cwd=nested)
    with pytest.raises(SchedulerError):
        git.find_project(nested)
    assert not proof.exists()


def test_a_branch_name_has_the_form_that_recovery_knows() -> None:
    name = refs.branch_name("claude-task/", "nightly-deps", "20261123T0200", "0123abcd")
    assert name == "claude-task/nightly-deps-20261123T0200-0123abcd"
    assert refs.is_run_branch(name) and refs.is_run_branch("auto-x-20261123T0200-0123abcd")
    assert not refs.is_run_branch("release-20261123") and not refs.is_run_branch(name + "x")


@pytest.mark.parametrize(
    "prefix", ["-", "--upload-pack=", "@{-1}", "a..", "x.lock/", "HEAD/", "refs/", "/", "a//", " "]
)
def test_a_prefix_that_makes_no_plain_name_is_refused(prefix: str) -> None:
    with pytest.raises(SchedulerError, match="cannot begin a branch name"):
        refs.branch_name(prefix, "task", "20261123T0200", "0123abcd")


def test_a_name_that_git_could_take_for_something_else_is_refused_and_changes_nothing(root: Path) -> None:
    """D10: d10."""
    project = git.find_project(root)
    repos.git("branch", "victim", cwd=root)
    repos.git("remote", "add", "origin", root, cwd=root)
    with repos.untouched(root):
        for name in HOSTILE:
            assert not refs.is_branch(name), name
            with pytest.raises(SchedulerError):
                refs.check_branch(project, name)
            with pytest.raises(SchedulerError):
                refs.check_remote(project, name)
            with pytest.raises(SchedulerError):
                refs.resolve_base(project, name, lock=root.parent / "lock")


@pytest.mark.parametrize("name", ["x", "feature/a.b_c-1", "claude-task/nightly-20261123T0200-0123abcd"])
def test_a_plain_name_is_taken(root: Path, name: str) -> None:
    assert refs.check_branch(git.find_project(root), name) == name


@pytest.mark.parametrize("packed", [False, True])
def test_a_branch_in_the_way_is_named_in_one_line(root: Path, packed: bool) -> None:
    repos.git("branch", "team/auto", cwd=root)
    if packed:
        repos.git("pack-refs", "--all", cwd=root)
    project = git.find_project(root)
    assert refs.check_branch(project, "team/task-20261123T0200-0123abcd")
    for prefix, above in (("main/", "main"), ("team/auto/a/", "team/auto")):
        with pytest.raises(SchedulerError) as refused:
            refs.check_branch(project, refs.branch_name(prefix, "task", "20261123T0200", "0123abcd"))
        assert refused.value.message == f"the branch {above} is in the way of branches that begin with {above}/"
        assert refused.value.hint == f"choose another prefix or name, or rename the branch {above}"


def test_a_remote_must_be_there(root: Path) -> None:
    project = git.find_project(root)
    repos.git("remote", "add", "origin", root, cwd=root)
    assert refs.check_remote(project, "origin") == "origin"
    with pytest.raises(SchedulerError, match="no remote") as refused:
        refs.check_remote(project, "upstream")
    assert "origin" in refused.value.hint


def test_the_base_is_head_the_default_branch_or_the_remotes(root: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    clone = tmp_path / "clone"
    repos.git("clone", "-q", root, clone, cwd=tmp_path)
    first = repos.git("rev-parse", "HEAD", cwd=clone)
    repos.git("checkout", "-q", "-b", "feature", cwd=clone)
    repos.commit(clone, files={"feature": "x"})
    repos.commit(root, files={"newer": "x"})
    project = git.find_project(clone)
    with repos.untouched(clone):
        assert refs.resolve_base(project, "head", lock=lock) == repos.git("rev-parse", "feature", cwd=clone)
        assert refs.resolve_base(project, "default", lock=lock) == first
        assert refs.resolve_base(project, "fresh", lock=lock) == repos.git("rev-parse", "HEAD", cwd=root)
    repos.commit(root, files={"newest": "x"})
    repos.git("reset", "-q", "--hard", "HEAD~2", cwd=root)
    with repos.untouched(clone):
        assert refs.resolve_base(project, "fresh", lock=lock) == repos.git("rev-parse", "HEAD", cwd=root)


def test_a_fetch_that_fails_says_why_and_changes_nothing(root: Path, tmp_path: Path) -> None:
    repos.git("remote", "add", "origin", tmp_path / "nowhere", cwd=root)
    with repos.untouched(root), pytest.raises(SchedulerError, match=r"git fetch from origin failed: .+") as refused:
        refs.resolve_base(git.find_project(root), "fresh", lock=tmp_path / "lock")
    assert "\n" not in refused.value.message


def test_the_default_branch_without_a_remote(root: Path, tmp_path: Path) -> None:
    project = git.find_project(root)
    first = repos.git("rev-parse", "HEAD", cwd=root)
    repos.git("checkout", "-q", "-b", "feature", cwd=root)
    repos.commit(root, files={"x": "y"})
    assert refs.resolve_base(project, "default", lock=tmp_path / "lock") == first
    repos.git("branch", "-m", "main", "trunk", cwd=root)
    with pytest.raises(SchedulerError, match="no local default branch"):
        refs.resolve_base(project, "default", lock=tmp_path / "lock")
    repos.git("config", "init.defaultBranch", "trunk", cwd=root)
    assert refs.resolve_base(project, "default", lock=tmp_path / "lock") == first


@pytest.mark.parametrize("base", ["head", "default"])
def test_a_repository_without_commits_is_refused_in_one_line(tmp_path: Path, base: str) -> None:
    """F3."""
    repos.git("init", "-q", "-b", "main", tmp_path / "empty", cwd=tmp_path)
    with pytest.raises(SchedulerError, match=r"has no commits yet$"):
        refs.resolve_base(git.find_project(tmp_path / "empty"), base, lock=tmp_path / "lock")


def test_unmerged_branches(root: Path) -> None:
    repos.git("branch", "merged", cwd=root)
    repos.git("checkout", "-q", "-b", "open", cwd=root)
    repos.commit(root, files={"x": "y"})
    repos.git("checkout", "-q", "main", cwd=root)
    assert unmerged_branches(root) == {"open"}


@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_in_the_place_of_a_ref_is_told_at_once(root: Path, tmp_path: Path, link: bool) -> None:
    """Git itself would wait for it without end."""
    pipe = root / ".git/refs/heads/deep/x"
    pipe.parent.mkdir()
    made = tmp_path / "pipe" if link else pipe
    os.mkfifo(made)
    if link:
        pipe.symlink_to(made)
    with pytest.raises(SchedulerError, match=r"refs/heads/deep/x is no file: git would wait for it without end"):
        unmerged_branches(root)
    pipe.unlink()
    pipe.symlink_to("nowhere")  # git says that it ignores it
    assert unmerged_branches(root) == set()
