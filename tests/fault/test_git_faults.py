"""Git, the disk and our own processes die at any moment; nothing is lost and the user's repository goes on working."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scheduler.execution import git, work, worktree
from scheduler.execution.refs import DISCARDED
from scheduler.execution.rollback import Rollback, recover, rollback
from scheduler.execution.worktree import Worktree
from tests import crash, repos

REF = DISCARDED + crash.RUN
SOURCE = Path(__file__).resolve().parents[2]


def can_trace() -> bool:
    probe = ["strace", "-qq", "-o", os.devnull, "-e", "trace=none", "true"]
    return shutil.which("strace") is not None and subprocess.run(probe, capture_output=True).returncode == 0


traced = pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace here, so nothing can be killed")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = repos.make(tmp_path / "repo")
    repos.git("remote", "add", "origin", repos.make(tmp_path / "origin"), cwd=root)
    repos.git("fetch", "-q", "--all", cwd=root)
    return root


def step(name: str, tree: Worktree) -> list[str]:
    """The command that does one step of a run."""
    words = (tree.project.root, tree.path, tree.branch, tree.base, tree.lock)
    return [sys.executable, str(SOURCE / "tests" / "crash.py"), name, *map(str, words)]


def killed(command: list[str], call: str, count: int, log: Path, cwd: Path) -> bool:
    """Run the command; whether it, or a child of it, was killed at its `count`-th system call of that name."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={count}"]
    strace = ["strace", "-f", "-q", "-o", str(log), *inject]
    subprocess.run([*strace, *command], cwd=cwd, capture_output=True, check=False)
    return b"killed by SIGKILL" in log.read_bytes()


def sweep(full: bool, sample: dict[str, list[int]], attempt: Callable[[str, int], bool]) -> None:
    """Kill at system calls by name: at every one until none is left to kill at, or at a sample."""
    tried = 0
    for call, some in sample.items():
        for count in itertools.count(1) if full else some:
            if not attempt(call, count):
                break
            tried += 1
    assert tried > 4


def clean(root: Path, tree: Worktree) -> None:
    """Nothing of the run is left but, perhaps, its private ref."""
    assert not os.path.lexists(tree.path) and repos.registered(root) == [] and repos.branches(root) == ["main"]
    assert not [path.name for path in tree.path.parent.glob("*") if path.name != ".trash"]
    assert not list((root / ".git").glob("claude-scheduler*")) and not list((root / ".git").rglob("*.lock"))


MODES = [pytest.param(False, id="sample"), pytest.param(True, id="all", marks=pytest.mark.full)]


@traced
@pytest.mark.parametrize("full", MODES)
def test_git_killed_while_it_adds_a_worktree(root: Path, tmp_path: Path, full: bool) -> None:
    """F18, for the layouts that are left to git: then the user's git works, and so does the next run."""

    def attempt(call: str, count: int) -> bool:
        tree = repos.plan(root, tmp_path)
        repos.git("update-ref", tree.ref, tree.base, cwd=root)
        tree.path.parent.mkdir(parents=True, exist_ok=True)
        add = ["git", "worktree", "add", "-q", str(tree.path), tree.branch]
        was_killed = killed(add, call, count, tmp_path / "log", root)
        done = recover(tree, crash.RUN, "Crashed", lock_age=0)
        assert done.unsaved == (), (call, count)
        if done.commit:  # killed once more while it tidied up: a checkout that stopped half-way looks like deletions
            assert repos.committed(root, done.commit).items() <= repos.committed(root, tree.base).items()
            repos.git("update-ref", "-d", REF, cwd=root)
        clean(root, tree)
        if full:
            repos.works_for_its_user(root)
        return was_killed

    sample = {"openat": [40, 60], "write": [1, 2, 4], "rename": [1, 2], "mkdir": [1, 3], "unlink": [1], "link": [1]}
    with repos.untouched(root):
        sweep(full, sample, attempt)
        repos.works_for_its_user(root)
        worktree.remove(repos.create(root, tmp_path))


@traced
@pytest.mark.parametrize("full", MODES)
def test_we_are_killed_while_we_make_a_worktree(root: Path, tmp_path: Path, full: bool) -> None:
    """F18: The user's git does not notice, even before recovery; only `gc` minds the lock of a branch that is left."""

    def attempt(call: str, count: int) -> bool:
        tree = repos.plan(root, tmp_path)
        was_killed = killed(step("create", tree), call, count, tmp_path / "log", root)
        for command in (["fetch", "--all"], ["log", "--all"], ["worktree", "list"], ["repack", "-adq"]):
            repos.git(*command, cwd=root)
        assert recover(tree, crash.RUN, "Crashed", lock_age=0) == Rollback(None, None, ()), (call, count)
        clean(root, tree)
        if full:
            repos.works_for_its_user(root)
        return was_killed

    sample = {"write": [1, 2, 4, 5], "rename": [1, 2], "mkdir": [1, 2, 3], "unlink": [1]}
    with repos.untouched(root):
        sweep(full, sample, attempt)
        repos.works_for_its_user(root)


@traced
@pytest.mark.parametrize("name", ["keep", "rollback"])
@pytest.mark.parametrize("full", MODES)
def test_we_are_killed_while_we_keep_or_undo_work(root: Path, tmp_path: Path, full: bool, name: str) -> None:
    """F19: whatever was in the worktree is under the private ref after recovery, or on the branch."""

    def attempt(call: str, count: int) -> bool:
        tree = repos.create(root, tmp_path)
        repos.commit(tree.path, "Agent's", {"committed": "1"})
        repos.write(tree.path, {"new": "2", "README.md": "changed"})
        expected = repos.contents(tree.path)
        was_killed = killed(step(name, tree), call, count, tmp_path / "log", root)
        done = recover(tree, crash.RUN, "Crashed", lock_age=0)
        assert done.unsaved == () and done.commit is not None, (call, count)
        if full:
            repos.works_for_its_user(root)
        assert repos.committed(root, done.commit) == expected
        clean(root, tree)
        repos.git("update-ref", "-d", REF, cwd=root)
        return was_killed

    sample = {"write": [1, 3], "rename": [1, 2], "mkdir": [1, 2], "unlink": [1, 2], "rmdir": [1], "link": [1]}
    with repos.untouched(root):
        sweep(full, sample, attempt)
        repos.works_for_its_user(root)


@pytest.mark.parametrize("name", ["create", "keep", "rollback"])
def test_a_runner_that_dies_while_its_git_lives_on(root: Path, tmp_path: Path, name: str) -> None:
    """Its git commands are in sessions of their own: recovery waits until they are over."""
    at_work = tmp_path / "at-work"
    for way in ("smudge", "clean"):
        repos.git("config", f"filter.slow.{way}", f"touch '{at_work}'; sleep 0.5; cat", cwd=root)
    repos.commit(root, files={".gitattributes": "*.slow filter=slow\n", "a.slow": "x"})
    tree = repos.plan(root, tmp_path) if name == "create" else repos.create(root, tmp_path)
    if name != "create":
        repos.write(tree.path, {"a.slow": "changed", "new": "x"})
    expected = repos.contents(tree.path)
    at_work.unlink()
    with repos.untouched(root):
        at_work.unlink(missing_ok=True)
        with subprocess.Popen(step(name, tree), stdout=subprocess.DEVNULL) as runner:
            end = time.monotonic() + 30
            while not at_work.exists() and time.monotonic() < end:
                time.sleep(0.01)
            runner.kill()
        done = recover(tree, crash.RUN, "Crashed", lock_age=0)
        assert done.unsaved == ()
        if name != "create":
            assert done.commit is not None and repos.committed(root, done.commit) == expected
        clean(root, tree)
    repos.works_for_its_user(root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 3 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (that takes root's rights), so no disk can be full")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_full_leaves_no_half_worktree(root: Path, small_disk: Path) -> None:
    """F28."""
    repos.commit(root, files={f"big{number}": os.urandom(1 << 20) for number in range(5)})
    tree = repos.plan(root, small_disk)
    with repos.untouched(root), pytest.raises(git.GitFailed, match="git checkout of the worktree failed"):
        worktree.create(tree)
    worktree.empty_trash(small_disk / "worktrees")
    clean(root, tree)
    repos.works_for_its_user(root)


def test_work_that_finds_no_room_in_the_repository_stays_where_it_is(small_disk: Path, tmp_path: Path) -> None:
    root = repos.make(small_disk / "repo")
    tree = repos.create(root, tmp_path)
    repos.write(tree.path, {"big": os.urandom(6 << 20), "small": "x"})
    with repos.untouched(root):
        done = rollback(tree, crash.RUN, "Rolled back")
        assert done.unsaved and "\n" not in done.unsaved[0]
        assert (tree.path / "big").stat().st_size == 6 << 20 and (tree.path / "small").read_text() == "x"
        assert tree.branch in repos.branches(root)
    (tree.path / "big").unlink()
    for junk in (root / ".git" / "objects").rglob("tmp_obj*"):
        junk.unlink()
    done = rollback(tree, crash.RUN, "Rolled back")
    assert done.unsaved == () and "small" in repos.committed(root, REF)
    repos.works_for_its_user(root)


def test_without_roots_rights(root: Path, tmp_path: Path) -> None:
    """Files and folders that the agent closed are saved; those of another owner are told, and stay."""
    place = tmp_path / "place"
    place.mkdir()
    packages = tmp_path / "packages"  # a copy: the other user may not reach the tests' environment
    for name in ("git", "gitdb", "smmap"):
        shutil.copytree(Path(importlib.import_module(name).__file__ or "").parent, packages / name)
    become: list[str] = []
    if os.getuid() == 0:
        for folder in itertools.takewhile(lambda folder: folder != Path("/tmp"), tmp_path.parents):
            folder.chmod(0o755)
        tmp_path.chmod(0o755)
        subprocess.run(["chown", "-R", "65534:65534", str(root), str(place)], check=True)
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    script = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests import repos
from scheduler.execution.rollback import rollback
root, place = Path(sys.argv[1]), Path(sys.argv[2])
tree = repos.create(root, place)
repos.write(tree.path, {"secret": "s", "closed/deep/file": "x", "README.md": "changed"})
for name in ("secret", "README.md", "closed/deep", "closed"):
    (tree.path / name).chmod(0)
(tree.path / "src").chmod(0o500)
print("made", flush=True)
sys.stdin.readline()
done = rollback(tree, "run", "Rolled back")
print(sorted(repos.committed(root, done.commit)), done.unsaved, tree.path.exists())
"""
    (place / ".gitconfig").write_text("[user]\n name = n\n email = e\n")
    env = {**os.environ, "HOME": str(place), "PYTHONPATH": f"{SOURCE}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [*become, sys.executable, "-c", script, str(root), str(place)]

    def run(between: Callable[[], None]) -> str:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, env=env, text=True, cwd=place, **pipes) as child:
            if child.stdout and child.stdout.readline() != "made\n":
                pytest.skip(f"another user cannot work here: {child.communicate()[1].splitlines()[-1:]}")
            between()
            out, complaints = child.communicate("\n")
            assert complaints == ""
            return out

    names = "['.gitignore', 'README.md', 'closed/deep/file', 'secret', 'src/app.py']"
    assert run(lambda: None) == f"{names} () False\n"
    subprocess.run([*become, "git", "update-ref", "-d", "refs/claude-scheduler/discarded/run"], cwd=root, check=True)
    if os.getuid() == 0:

        def take_away() -> None:
            (found,) = (place / "worktrees" / "repo").glob("nightly*")
            for name in ("secret", "README.md"):
                os.chown(found / name, 0, 0)

        told = "('README.md: a file that cannot be read', 'secret: a file that cannot be read')"
        assert run(take_away) == f"{names.replace(', ' + repr('secret'), '')} {told} True\n"


def test_eight_at_once_where_git_makes_the_worktrees(root: Path, tmp_path: Path) -> None:
    """F20: git's own race ("failed to read …/commondir") is shut out by the lock."""
    repos.git("config", "extensions.worktreeConfig", "true", cwd=root)

    def run(number: int) -> None:
        tree = repos.create(root, tmp_path)
        repos.write(tree.path, {"same": str(number)})
        kept = work.keep(tree, "Work")
        worktree.remove(tree)
        assert kept is not None and repos.committed(root, kept.commit)["same"][1] == str(number).encode()

    with repos.untouched(root), ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(run, range(24)))) == 24


def test_git_is_given_minutes_for_what_writes_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F21: a disk under churn took 15 s for a checkout; here a slow filter takes longer than other commands may."""
    assert git.LONG >= 300
    for way in ("smudge", "clean"):
        repos.git("config", f"filter.slow.{way}", "sleep 3.2; cat", cwd=root)
    repos.commit(root, files={"a.slow": "x", ".gitattributes": "*.slow filter=slow\n"})
    assert git.run.__kwdefaults__["timeout"] == git.SHORT
    monkeypatch.setitem(git.run.__kwdefaults__, "timeout", 2.5)
    tree = repos.create(root, tmp_path)
    repos.write(tree.path, {"a.slow": "changed"})
    kept = work.keep(tree, "Work")
    assert kept is not None and repos.committed(root, kept.commit)["a.slow"][1] == b"changed"
