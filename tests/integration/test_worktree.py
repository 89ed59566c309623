from __future__ import annotations

import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scheduler.errors import SchedulerError
from scheduler.execution import folders, git, links, work, worktree
from tests import repos


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return repos.make(tmp_path / "repo")


def nothing_is_left(root: Path, tree: worktree.Worktree) -> bool:
    return not os.path.lexists(tree.path) and not repos.registered(root) and repos.branches(root) == ["main"]


def test_a_worktree_is_made_on_a_new_branch_and_taken_away_again(root: Path, tmp_path: Path) -> None:
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        assert repos.contents(tree.path) == repos.committed(root, "HEAD")
        assert repos.git("symbolic-ref", "HEAD", cwd=tree.path) == tree.ref
        assert worktree.ours(tree.project, tmp_path / "worktrees") == [tree.path]
        assert tree.path.parent.stat().st_mode & 0o777 == 0o700
        worktree.remove(tree)
        assert worktree.drop_branch(tree, tree.base)
        assert nothing_is_left(root, tree)
        assert worktree.empty_trash(tmp_path / "worktrees") == []
        assert [path.name for path in (tmp_path / "worktrees").rglob("*") if path.name != ".trash"] == ["repo"]


def test_a_submodules_checkout_has_worktrees_of_its_own(root: Path, tmp_path: Path) -> None:
    inner = repos.make(tmp_path / "inner")
    repos.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "lib", cwd=root)
    repos.commit(root)
    with repos.untouched(root), repos.untouched(root / "lib"):
        tree = repos.create(root / "lib", tmp_path)
        assert repos.contents(tree.path) == repos.contents(root / "lib")
        repos.write(tree.path, {"new": "x"})
        assert repos.git("status", "--porcelain", cwd=tree.path) == "?? new"
        kept = work.keep(tree, "Work")
        assert kept is not None and "new" in repos.committed(root / "lib", kept.commit)
        worktree.remove(tree)
        assert worktree.drop_branch(tree, kept.commit)
    assert tree.branch not in repos.branches(root)


def test_worktrees_may_lie_behind_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    planned = repos.plan(root, tmp_path)
    path = tmp_path / "link" / planned.path.name
    tree = worktree.Worktree(planned.project, path, planned.branch, planned.base, planned.lock)
    with repos.untouched(root):
        worktree.create(tree)
        repos.write(tree.path, {"new": "x"})
        assert work.keep(tree, "Work") is not None
        assert worktree.ours(tree.project, tmp_path / "link") == [tmp_path / "real" / path.name]
        worktree.remove(tree)
        assert repos.registered(root) == []


def test_a_place_that_cannot_be_written_is_told_in_one_line(root: Path, tmp_path: Path) -> None:
    tree = repos.plan(root, tmp_path)
    tree.path.parents[1].write_text("a file")
    with repos.untouched(root), pytest.raises(SchedulerError, match="the worktree could not be made: ") as raised:
        worktree.create(tree)
    assert "\n" not in raised.value.message
    assert repos.branches(root) == ["main"]


@pytest.mark.parametrize("layout", ["worktree settings", "sha256", "shared", "sparse"])
def test_a_layout_that_only_git_knows_is_left_to_git(root: Path, tmp_path: Path, layout: str) -> None:
    if layout == "sha256":
        root = tmp_path / "other"
        repos.git("init", "-q", "-b", "main", "--object-format=sha256", root, cwd=tmp_path)
        repos.commit(root, files=repos.FILES)
    elif layout == "sparse":
        repos.git("sparse-checkout", "set", "src", cwd=root)
    else:
        setting = "extensions.worktreeConfig" if layout == "worktree settings" else "core.sharedRepository"
        repos.git("config", setting, "true", cwd=root)
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        assert not git.is_plain(tree.project)
        assert repos.contents(tree.path) == repos.contents(root)
        assert work.keep(tree, "Work") is None
        repos.write(tree.path, {"src/new": "x"})
        kept = work.keep(tree, "Work")
        assert kept is not None
        assert set(repos.committed(root, kept.commit)) == {*repos.FILES, "src/new"}
        worktree.remove(tree)
        assert worktree.drop_branch(tree, kept.commit)
        assert nothing_is_left(root, tree)


@pytest.mark.parametrize("name", ["with space", "ünïcode-日本", "-dash", "quote'\"$x"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    root = repos.make(tmp_path / name)
    with repos.untouched(root):
        tree = repos.create(root, tmp_path / f"{name} too")
        assert repos.contents(tree.path) == repos.contents(root)
        worktree.remove(tree)
        worktree.drop_branch(tree, tree.base)
        assert nothing_is_left(root, tree)


def test_bytes_that_are_no_text_in_a_file_name_survive(root: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n\ttab")
    repos.commit(root, files={name: "x"})
    tree = repos.create(root, tmp_path)
    (tree.path / os.fsdecode(b"new\xff")).write_text("y")
    with repos.untouched(root):
        kept = work.keep(tree, "Work")
    assert kept is not None and kept.files_changed == 1
    assert repos.committed(root, kept.commit).keys() == repos.contents(tree.path).keys()


def test_a_dirty_checkout_gives_a_clean_worktree(root: Path, tmp_path: Path) -> None:
    """F1: and a stale lock of the user's index (F7) is neither in the way nor removed."""
    repos.write(root, {"README.md": "changed\n", "untracked": "x"})
    (root / ".git" / "index.lock").touch()
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        assert repos.contents(tree.path) == repos.committed(root, "HEAD")
        worktree.remove(tree)


def test_a_detached_head_is_a_base_like_any_other(root: Path, tmp_path: Path) -> None:
    """F2."""
    repos.commit(root, files={"second": "x"})
    repos.git("checkout", "-q", "--detach", "HEAD~1", cwd=root)
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        assert tree.base == repos.git("rev-parse", "HEAD", cwd=root)
        worktree.remove(tree)


def test_submodules_are_empty_and_said_to_be(root: Path, tmp_path: Path) -> None:
    """F5."""
    inner = repos.make(tmp_path / "inner")
    repos.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", inner, "lib", cwd=root)
    repos.commit(root)
    with repos.untouched(root):
        tree = repos.plan(root, tmp_path)
        assert worktree.create(tree) == ["submodules are empty in the worktree; fill them in with `setup`"]
        assert work.keep(tree, "Work") is None
        repos.git("submodule", "update", "-q", "--init", cwd=tree.path)
        assert work.keep(tree, "Work") is None
        worktree.remove(tree)
        assert repos.registered(root) == []


def test_a_filter_that_is_missing_leaves_nothing_behind(root: Path, tmp_path: Path) -> None:
    """F6: as git-lfs does where it is configured and not installed."""
    repos.commit(root, files={"big.bin": "x"})
    repos.commit(root, files={".gitattributes": "*.bin filter=lfs\n"})
    for setting in ("process", "smudge", "clean"):
        repos.git("config", f"filter.lfs.{setting}", "no-such-git-lfs", cwd=root)
    repos.git("config", "filter.lfs.required", "true", cwd=root)
    tree = repos.plan(root, tmp_path)
    with (
        repos.untouched(root),
        pytest.raises(git.GitFailed, match=r"git checkout of the worktree failed: .*lfs") as raised,
    ):
        worktree.create(tree)
    assert "\n" not in raised.value.message
    assert nothing_is_left(root, tree)


def test_a_branch_of_the_same_name_is_refused_and_kept(root: Path, tmp_path: Path) -> None:
    """F11: also where it is checked out, and where a branch is in the way of the folder that the name needs."""
    tree = repos.plan(root, tmp_path)
    repos.git("branch", tree.branch, cwd=root)
    with repos.untouched(root), pytest.raises(SchedulerError, match="exists"):
        worktree.create(tree)
    assert repos.branches(root) == [tree.branch, "main"]
    repos.git("worktree", "add", "-q", tmp_path / "users", tree.branch, cwd=root)
    with repos.untouched(root), pytest.raises(SchedulerError, match="exists"):
        worktree.create(tree)
    assert repos.registered(root) == ["users"]
    repos.git("worktree", "remove", tmp_path / "users", cwd=root)
    repos.git("branch", "-D", tree.branch, cwd=root)
    repos.git("branch", "claude-task", cwd=root)
    with repos.untouched(root), pytest.raises(SchedulerError, match="claude-task' exists"):
        worktree.create(tree)
    assert repos.branches(root) == ["claude-task", "main"]


def test_what_is_in_the_way_is_left_alone(root: Path, tmp_path: Path) -> None:
    tree = repos.plan(root, tmp_path)
    repos.write(tree.path, {"precious": "x"})
    with repos.untouched(root), pytest.raises(SchedulerError, match="in the way"):
        worktree.create(tree)
    assert repos.contents(tree.path) == {"precious": ("100644", b"x")} and repos.branches(root) == ["main"]


def test_a_name_that_recovery_would_not_know_is_refused(root: Path, tmp_path: Path) -> None:
    tree = repos.plan(root, tmp_path)
    odd = worktree.Worktree(tree.project, tmp_path / "elsewhere", tree.branch, tree.base, tree.lock)
    with repos.untouched(root), pytest.raises(SchedulerError, match="no name for a worktree"):
        worktree.create(odd)


def test_hooks_of_the_user_do_not_run_for_our_bookkeeping(root: Path, tmp_path: Path) -> None:
    """F13, F15."""
    proof = tmp_path / "ran"
    for name in ("post-checkout", "reference-transaction"):
        repos.hook(root, name, f"touch {proof}; exit 1")
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        worktree.remove(tree)
        assert worktree.drop_branch(tree, tree.base)
    assert not proof.exists() and nothing_is_left(root, tree)


def test_removal_takes_whatever_an_agent_made_of_the_worktree(root: Path, tmp_path: Path) -> None:
    """F8: a lock of the worktree's own; read-only folders, links that lead out, a pipe, `git worktree lock`."""
    outside = tmp_path / "outside"
    repos.write(outside, {"precious": "x"})
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        (root / ".git" / "worktrees" / tree.path.name / "index.lock").touch()
        (tree.path / "out").symlink_to(outside)
        os.mkfifo(tree.path / "pipe")
        repos.write(tree.path, {"deep/er/file": "x"})
        (tree.path / "deep" / "er").chmod(0o500)
        (tree.path / "deep").chmod(0o000)
        repos.git("worktree", "lock", tree.path, cwd=root)
        worktree.remove(tree)
        worktree.drop_branch(tree, tree.base)
        assert nothing_is_left(root, tree)
        assert worktree.empty_trash(tmp_path / "worktrees") == []
    assert repos.contents(outside) == {"precious": ("100644", b"x")}


@pytest.mark.parametrize("harm", ["folder", "git file", "git folder", "link", "parent", "all"])
def test_removal_takes_what_is_left_of_a_worktree(root: Path, tmp_path: Path, harm: str) -> None:
    """F9."""
    outside = tmp_path / "outside"
    repos.write(outside, {"precious": "x"})
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        if harm in ("folder", "all", "link"):
            folders.delete_folder(tree.path)
        if harm in ("git folder", "all"):
            folders.delete_folder(root / ".git" / "worktrees" / tree.path.name)
        if harm == "git file":
            (tree.path / ".git").unlink()
        if harm == "link":
            tree.path.symlink_to(outside)
        if harm == "parent":
            folders.delete_folder(tree.path.parent)
        worktree.remove(tree)
        worktree.remove(tree)
        assert worktree.drop_branch(tree, tree.base)
        assert nothing_is_left(root, tree)
        worktree.empty_trash(tmp_path / "worktrees")
    assert repos.contents(outside) == {"precious": ("100644", b"x")}


def test_folders_without_rights_are_deleted_by_their_owner(tmp_path: Path) -> None:
    """Where a person without root's rights runs it."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom scheduler.execution.folders import delete_folder\n"
        "top = Path(sys.argv[1]) / 'top'\n(top / 'a' / 'b').mkdir(parents=True)\n(top / 'a' / 'b' / 'c').touch()\n"
        "(top / 'a' / 'b').chmod(0o500)\n(top / 'a').chmod(0)\ndelete_folder(top)\nprint(top.exists())\n"
    )
    place = tmp_path / "place"
    place.mkdir()
    become = []
    if os.getuid() == 0:
        place.chmod(0o777)
        for folder in place.parents:
            folder.chmod(folder.stat().st_mode | 0o011)
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    others = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    env = {**others, "PYTHONPATH": str(Path(worktree.__file__).parents[2])}  # nobody may write coverage's data
    import sys

    done = subprocess.run([*become, sys.executable, "-c", script, place], env=env, capture_output=True, check=False)
    if done.returncode and b"Permission denied" in done.stderr and b"ModuleNotFound" in done.stderr:
        pytest.skip("the interpreter cannot be used by another user here")
    assert (done.stdout, done.stderr) == (b"False\n", b"")


def test_a_branch_that_moved_is_not_dropped(root: Path, tmp_path: Path) -> None:
    tree = repos.create(root, tmp_path)
    repos.commit(tree.path, files={"x": "y"})
    worktree.remove(tree)
    with repos.untouched(root):
        assert not worktree.drop_branch(tree, tree.base)
    assert tree.branch in repos.branches(root)


def test_what_git_notes_on_a_branch_goes_with_it(root: Path, tmp_path: Path) -> None:
    """An agent's `git push -u` writes into the user's config."""
    repos.git("clone", "-q", "--bare", root, tmp_path / "origin", cwd=tmp_path)
    repos.git("remote", "add", "origin", tmp_path / "origin", cwd=root)
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        repos.git("push", "-q", "-u", "origin", tree.branch, cwd=tree.path)
        repos.git("update-ref", "-d", f"refs/remotes/origin/{tree.branch}", cwd=root)
        worktree.remove(tree)
        assert worktree.drop_branch(tree, tree.base)


def test_a_worktree_of_the_users_that_is_not_mounted_is_not_forgotten(root: Path, tmp_path: Path) -> None:
    repos.git("worktree", "add", "-q", tmp_path / "stick", "-b", "users", cwd=root)
    (tmp_path / "stick").rename(tmp_path / "unmounted")
    tree = repos.create(root, tmp_path)
    worktree.remove(tree)
    assert repos.registered(root) == ["stick"]
    assert worktree.ours(tree.project, tmp_path) == []


def test_eight_at_once_in_one_repository_never_see_each_others_files(root: Path, tmp_path: Path) -> None:
    """F20: each writes, deletes and commits the same names, while the user works in the repository.

    (A `gc` or `fsck` that had already listed a worktree complains when any git removes it; so they are not here.)
    """
    done = threading.Event()

    def user() -> int:
        count = 0
        while not done.is_set() or not count:
            for command in (["log", "--all"], ["worktree", "list"], ["fetch", "--all"], ["repack", "-adq"]):
                repos.git(*command, cwd=root)
                count += 1
        return count

    def run(number: int) -> tuple[worktree.Worktree, work.Work | None]:
        tree = repos.create(root, tmp_path)
        repos.write(tree.path, {"same": f"{number}\n", f"src/{number % 2}": "x"})
        (tree.path / "README.md").unlink()
        assert repos.contents(tree.path)["same"] == ("100644", f"{number}\n".encode())
        kept = work.keep(tree, f"Work {number}")
        worktree.remove(tree)
        return tree, kept

    repos.git("remote", "add", "origin", repos.make(tmp_path / "origin"), cwd=root)
    repos.git("fetch", "-q", "--all", cwd=root)
    before = repos.fingerprint(root)
    with ThreadPoolExecutor(9) as pool:
        working = pool.submit(user)
        runs = [pool.submit(run, number) for number in range(8)]
        results = [each.result() for each in runs]
        done.set()
        assert working.result() > 0
    for number, (tree, kept) in enumerate(results):
        assert kept is not None
        held = repos.committed(root, tree.branch)
        assert held["same"] == ("100644", f"{number}\n".encode()) and "README.md" not in held
        assert {name for name in held if name.startswith("src/")} == {"src/app.py", f"src/{number % 2}"}
    assert len({kept.commit for _, kept in results if kept}) == 8
    assert repos.registered(root) == []
    after = repos.fingerprint(root)
    assert {key for key in before if before[key] != after[key]} <= {"notes"}


def test_two_clones_are_two_projects(root: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    repos.git("clone", "-q", root, clone, cwd=tmp_path)
    with repos.untouched(root), repos.untouched(clone):
        trees = [repos.create(place, tmp_path) for place in (root, clone)]
        for number, tree in enumerate(trees):
            repos.write(tree.path, {"same": str(number)})
            kept = work.keep(tree, "Work")
            worktree.remove(tree)
            assert kept is not None
            assert repos.committed(tree.project.root, tree.branch)["same"] == ("100644", str(number).encode())
        assert trees[1].branch not in repos.branches(root) and trees[0].branch not in repos.branches(clone)


def test_ignored_folders_are_linked_and_never_committed(root: Path, tmp_path: Path) -> None:
    repos.commit(root, files={".gitignore": "node_modules/\n.env\nbuild/\n"})
    repos.write(root, {"node_modules/dep/index.js": "x", ".env": "SECRET=1"})
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        assert links.link(tree, ["node_modules", ".env", "build/", "node_modules"]) == [
            "link: build is not in the main checkout"
        ]
        assert (tree.path / "node_modules" / "dep" / "index.js").read_text() == "x"
        assert work.keep(tree, "Work") is None
        repos.write(tree.path, {"new": "x"})
        kept = work.keep(tree, "Work")
        assert kept is not None and kept.files_changed == 1
        assert "node_modules" not in repos.committed(root, kept.commit)
        worktree.remove(tree)
        worktree.empty_trash(tmp_path / "worktrees")
    assert (root / "node_modules" / "dep" / "index.js").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc", "below the project"),
        ("../x", "below the project"),
        ("a/../../x", "below the project"),
        ("", "below the project"),
        (".git/hooks", "below the project"),
        ("untracked", "not ignored"),
        ("README.md", "not ignored"),
        ("out/side", "leads out"),
        ("vendor", "tracked"),
    ],
)
def test_a_link_that_would_lead_elsewhere_is_refused(root: Path, tmp_path: Path, name: str, why: str) -> None:
    repos.write(root, {"untracked": "x", "outside/side": "x", "vendor/forced": "x"})
    (root / "out").symlink_to(tmp_path)
    repos.write(root, {".gitignore": "outside/\nvendor/\nout/side\n"})
    repos.git("add", "-f", "out", "vendor/forced", ".gitignore", cwd=root)
    repos.git("commit", "-q", "-m", "Odd", cwd=root)
    if name == "out/side":
        repos.git("rm", "-q", "--cached", "out", cwd=root)
        (root / "out").unlink()
        repos.write(root, {"out/side": "x"})
    with repos.untouched(root):
        tree = repos.create(root, tmp_path / "place")
        before = repos.contents(tree.path)
        with pytest.raises(SchedulerError, match=why):
            links.link(tree, [name])
        assert repos.contents(tree.path) == before
        assert not (tmp_path / "side").exists()


def test_files_that_are_ignored_and_included_are_copied(root: Path, tmp_path: Path) -> None:
    repos.commit(
        root, files={".gitignore": "*.env\nsecrets/\n", links.INCLUDE: "*.env\n/secrets/a\nREADME.md\nloose\n"}
    )
    repos.write(root, {"a.env": "1", "sub/b.env": "2", "secrets/a": "3", "secrets/b": "4", "loose": "5"})
    (root / "c.env").symlink_to("/etc/passwd")
    (root / "a.env").chmod(0o600)
    with repos.untouched(root):
        tree = repos.create(root, tmp_path)
        assert links.copy_included(tree) == [f"{links.INCLUDE}: c.env is no plain file, so it was not copied"]
        new = repos.contents(tree.path).keys() - repos.committed(root, "HEAD").keys()
        assert new == {"a.env", "sub/b.env", "secrets/a"}
        assert (tree.path / "a.env").stat().st_mode & 0o777 == 0o600
        assert work.keep(tree, "Work") is None
        worktree.remove(tree)


def test_nothing_is_copied_where_nothing_is_included(root: Path, tmp_path: Path) -> None:
    tree = repos.create(root, tmp_path)
    assert links.copy_included(tree) == [] and links.link(tree, []) == []
