"""Repositories of every shape: each runs, or is refused with one clear line in the record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.execution.git import find_project
from tests import repos
from tests.repos import git
from tests.rig import Rig, rig, shell_task
from tests.runs import branch_tree, branches, changed, discarded_tree, fingerprint, nothing_left

GOOD = shell_task("good", "echo run > file.txt; echo new > made")
BAD = shell_task("bad", "echo run > file.txt; echo new > made; exit 1")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def run_both(own: Rig, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run that succeeds and one that fails, each with all it promises; their records."""
    own.enable(GOOD, BAD, project=root)
    own.start()
    before = fingerprint(root)
    good, bad = own.run_to_end("good", root), own.run_to_end("bad", root)
    assert good["status"] == "success", good
    assert (bad["status"], bad["reason"]) == ("failure", "exit-code"), bad
    for tree in (branch_tree(root, good), discarded_tree(root, bad)):
        assert (tree["file.txt"][1], tree["made"][1]) == (b"run\n", b"new\n")
    assert branches(root) == [good["worktreeBranch"]]
    assert changed(before, fingerprint(root)) == set()
    nothing_left(own, root)
    return good, bad


def refused(own: Rig, root: Path, *words: str) -> dict[str, Any]:
    """A run that cannot begin says so in one line, and leaves the repository as it is."""
    own.enable(GOOD, project=root)
    own.start()
    before = fingerprint(root)
    record = own.run_to_end("good", root)
    assert (record["status"], record["reason"]) == ("failure", "worktree-failed"), record
    assert all(word in record["error"] for word in words) and "\n" not in record["error"], record
    assert branches(root) == repos.discarded(root) == []
    assert changed(before, fingerprint(root)) == set()
    nothing_left(own, root)
    return record


def test_a_dirty_tree(own: Rig) -> None:
    repos.write(own.project, {"file.txt": "half\n", "loose.txt": "l\n", "staged.txt": "s\n"})
    git("add", "staged.txt", cwd=own.project)
    good, _ = run_both(own, own.project)
    assert good["notes"] == ["3 uncommitted changes of the main checkout are not in the worktree"]


def test_a_detached_head(own: Rig) -> None:
    repos.commit(own.project, "second", {"second.txt": "2\n"})
    git("checkout", "-q", "--detach", "HEAD~1", cwd=own.project)
    good, _ = run_both(own, own.project)
    assert good["baseCommit"] == git("rev-parse", "HEAD", cwd=own.project)
    assert "second.txt" not in branch_tree(own.project, good)


def test_an_unfinished_merge(own: Rig) -> None:
    git("checkout", "-q", "-b", "side", cwd=own.project)
    repos.commit(own.project, "side", {"file.txt": "side\n"})
    git("checkout", "-q", "main", cwd=own.project)
    repos.commit(own.project, "main", {"file.txt": "main\n"})
    git("merge", "side", cwd=own.project, code=1)
    run_both(own, own.project)


def test_no_commit_yet(own: Rig, tmp_path: Path) -> None:
    root = tmp_path / "empty"
    git("init", "-q", "-b", "main", root, cwd=tmp_path)
    refused(own, Path(os.path.realpath(root)), "has no commits yet")


def test_submodules(own: Rig, tmp_path: Path) -> None:
    library = repos.make(tmp_path / "library")
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library, "lib", cwd=own.project)
    git("commit", "-q", "-m", "submodule", cwd=own.project)
    good, _ = run_both(own, own.project)
    assert any("submodules are empty" in note for note in good["notes"])
    assert (own.project / "lib" / "README.md").exists()


def test_a_submodule_that_setup_fills_in(own: Rig, tmp_path: Path) -> None:
    library = repos.make(tmp_path / "library")
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library, "lib", cwd=own.project)
    git("commit", "-q", "-m", "submodule", cwd=own.project)
    setup = {"setup": "git -c protocol.file.allow=always submodule --quiet update --init"}
    own.enable(shell_task("job", "cat lib/README.md > copy.md", worktree=setup))
    own.start()
    before = fingerprint(own.project)
    record = own.run_to_end("job")
    assert record["status"] == "success", record
    assert branch_tree(own.project, record)["copy.md"][1] == b"# A project\n"
    assert changed(before, fingerprint(own.project)) <= {"config"}, "git notes in the config that it is active"
    nothing_left(own)
    repos.works_for_its_user(own.project)


def test_started_from_inside_a_linked_worktree(own: Rig, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git("worktree", "add", "-q", "-b", "theirs", linked, cwd=own.project)
    repos.write(linked, {"file.txt": "half of theirs\n"})
    root = find_project(linked, own.env).root
    assert root == own.project
    before = (repos.contents(linked), git("status", "--porcelain=v2", "--branch", cwd=linked))
    own.enable(GOOD, BAD, project=root)
    own.start()
    good, bad = own.run_to_end("good", root), own.run_to_end("bad", root)
    assert (good["status"], bad["status"]) == ("success", "failure")
    assert good["baseCommit"] == git("rev-parse", "main", cwd=root)
    assert (repos.contents(linked), git("status", "--porcelain=v2", "--branch", cwd=linked)) == before
    assert repos.registered(root) == ["linked"]


@pytest.mark.parametrize("name", ["with space", "ünïcödé 日本", "-dash", "quote'and\"more", "dollar$HOME", "tab\there"])
def test_a_path_with_more_than_letters(own: Rig, tmp_path: Path, name: str) -> None:
    run_both(own, own.repository(tmp_path / name / name))


def test_file_names_with_more_than_letters(own: Rig) -> None:
    names = ["with space", "ünïcödé 日本", "-dash", "new\nline", "tab\there", "quote'\"", os.fsdecode(b"latin-\xe9")]
    repos.commit(own.project, "names", dict.fromkeys(names, "old\n"))
    command = 'for f in *; do echo more >> "$f"; done; for f in *; do cp -- "$f" "new $f"; done'
    own.enable(shell_task("good", command), shell_task("bad", command + "; exit 1"))
    own.start()
    good, bad = own.run_to_end("good"), own.run_to_end("bad")
    assert (good["status"], bad["status"]) == ("success", "failure"), (good, bad)
    assert branch_tree(own.project, good) == discarded_tree(own.project, bad)
    assert good["filesChanged"] == 2 * (len(names) + 1)


def test_failing_hooks_do_not_stand_in_our_way(own: Rig, tmp_path: Path) -> None:
    """All but those that a commit asks for."""
    for name in ("post-checkout", "post-commit", "reference-transaction", "pre-push", "post-index-change"):
        repos.hook(own.project, name, f"echo {name} >> {tmp_path}/heard; exit 1")
    own.enable(shell_task("bad", BAD["execution"]["command"]), shell_task("idle", "true"))
    own.start()
    bad, idle = own.run_to_end("bad"), own.run_to_end("idle")
    assert (bad["reason"], idle["reason"]) == ("exit-code", "no-changes"), (bad, idle)
    assert discarded_tree(own.project, bad)["made"][1] == b"new\n"
    assert not (tmp_path / "heard").exists()
    nothing_left(own)


@pytest.mark.parametrize("name", ["pre-commit", "commit-msg", "prepare-commit-msg", "reference-transaction"])
def test_a_hook_that_refuses_the_commit(own: Rig, name: str) -> None:
    repos.hook(own.project, name, "echo not like this >&2; exit 1")
    own.enable(GOOD)
    own.start()
    before = fingerprint(own.project)
    record = own.run_to_end("good")
    assert (record["status"], record["reason"]) == ("failure", "commit-rejected"), record
    assert ("not like this" if name != "reference-transaction" else "aborted by hook") in record["error"]
    assert discarded_tree(own.project, record)["made"][1] == b"new\n"
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)


def test_a_required_filter_that_is_missing(own: Rig) -> None:
    """As with LFS where git-lfs is not installed."""
    repos.commit(own.project, "lfs", {".gitattributes": "*.bin filter=lfs\n", "data.bin": "pointer\n"})
    for key, value in (("clean", "no-such-lfs clean"), ("smudge", "no-such-lfs smudge"), ("required", "true")):
        git("config", f"filter.lfs.{key}", value, cwd=own.project)
    refused(own, own.project, "data.bin", "lfs")


def test_git_variables_of_the_runner_mean_nothing(own: Rig, tmp_path: Path) -> None:
    """A runner that was started inside a git hook of another repository."""
    other = repos.make(tmp_path / "other")
    before = repos.fingerprint(other)
    own.env.update(
        GIT_DIR=str(other / ".git"),
        GIT_WORK_TREE=str(other),
        GIT_INDEX_FILE=str(other / ".git" / "index"),
        GIT_OBJECT_DIRECTORY=str(other / ".git" / "objects"),
        GIT_AUTHOR_NAME="Nobody",
    )
    good, _ = run_both(own, own.project)
    assert git("log", "-1", "--format=%an", good["commit"], cwd=own.project) == "Test Person"
    assert changed(before, repos.fingerprint(other)) == set()


def test_no_identity(own: Rig) -> None:
    git("config", "--unset", "user.name", cwd=own.project)
    git("config", "--unset", "user.email", cwd=own.project)
    git("config", "user.useConfigOnly", "true", cwd=own.project)
    good, _ = run_both(own, own.project)
    assert git("log", "-1", "--format=%an", good["commit"], cwd=own.project) == "Claude scheduler"


def test_an_identity_that_signs_without_an_agent(own: Rig) -> None:
    git("config", "commit.gpgsign", "true", cwd=own.project)
    git("config", "gpg.program", "false", cwd=own.project)
    run_both(own, own.project)


def test_a_repository_that_uses_worktree_config_and_relative_paths(own: Rig) -> None:
    git("config", "extensions.worktreeConfig", "true", cwd=own.project)
    git("config", "core.autocrlf", "input", cwd=own.project)
    git("config", "status.showUntrackedFiles", "no", cwd=own.project)
    git("config", "core.quotePath", "true", cwd=own.project)
    git("config", "checkout.defaultRemote", "nobody", cwd=own.project)
    run_both(own, own.project)


def test_a_lock_that_the_user_left(own: Rig) -> None:
    """F7: It is theirs: runs go on, and it stays."""
    lock = own.project / ".git" / "index.lock"
    lock.touch()
    own.enable(GOOD, BAD)
    own.start()
    assert own.run_to_end("good")["status"] == "success"
    assert own.run_to_end("bad")["reason"] == "exit-code"
    assert lock.exists()


@pytest.mark.parametrize("what", [".git", ".git/objects", ".git/HEAD", ".git/refs"])
def test_a_repository_that_a_run_damages(own: Rig, what: str) -> None:
    own.enable(shell_task("job", f"rm -rf {own.project}/{what}; echo x > made"))
    own.start()
    record = own.run_to_end("job")
    assert record["status"] == "failure" and "bug" not in record["error"], record
    assert any("stays" in note for note in record["notes"])
    assert Path(record["worktreePath"], "made").read_text() == "x\n"
