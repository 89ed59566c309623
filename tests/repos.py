"""Real repositories for the tests, the worktree of a run in one, and proof that the user's checkout is as it was."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from scheduler.execution import git as door
from scheduler.execution import refs, worktree
from scheduler.execution.worktree import Worktree

FILES: Mapping[str, str] = {
    "README.md": "# A project\n",
    "src/app.py": "print('hello')\n",
    ".gitignore": "build/\n.env\n",
}


def git(*arguments: str | Path, cwd: Path, code: int | None = 0) -> str:
    """Real git in the test's environment; its output without the last line break. `code` None: however it ends."""
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *map(str, arguments)], cwd=cwd, env=env, capture_output=True, check=False)
    if code is not None and done.returncode != code:
        raise AssertionError(f"git {arguments}: {done.returncode}\n{done.stdout!r}\n{done.stderr!r}")
    return os.fsdecode(done.stdout).removesuffix("\n")


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make(folder: Path, files: Mapping[str, str | bytes] = FILES) -> Path:
    """A repository on branch main with one commit that holds `files`."""
    folder.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=folder)
    write(folder, files)
    return commit(folder, "First")


def commit(folder: Path, message: str = "Work", files: Mapping[str, str | bytes] | None = None) -> Path:
    write(folder, files or {})
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", message, cwd=folder)
    return folder


def hook(folder: Path, name: str, script: str) -> None:
    """A hook of the user's in the repository."""
    path = folder / ".git" / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def plan(root: Path, place: Path, task: str = "nightly-deps", base: str | None = None) -> Worktree:
    """The worktree of a new run in the repository at `root`, below `place`; not made yet."""
    project = door.find_project(root)
    run8 = uuid.uuid4().hex[:8]
    branch = refs.branch_name("claude-task/", task, "20261123T0200", run8)
    lock = place / "locks" / "repository.lock"
    commit_id = base or refs.resolve_base(project, "head", lock=lock)
    path = Path(os.path.realpath(place)) / "worktrees" / root.name / f"{task}-{run8}"
    return Worktree(project, path, branch, commit_id, lock)


def create(root: Path, place: Path, task: str = "nightly-deps", base: str | None = None) -> Worktree:
    """`plan`, made."""
    tree = plan(root, place, task, base)
    worktree.create(tree)
    return tree


def fingerprint(root: Path) -> dict[str, object]:
    """All of a user's checkout and repository that no run may change."""
    common = Path(git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=root))
    listed = git("for-each-ref", "--format=%(refname) %(objectname) %(symref)", cwd=root).splitlines()
    theirs = [
        line
        for line in listed
        if not line.startswith("refs/claude-scheduler/")
        and not refs.is_run_branch(line.split(" ")[0].removeprefix("refs/heads/"))
    ]
    return {
        "HEAD": (common / "HEAD").read_bytes(),
        "refs": theirs,
        "index": _bytes(common / "index"),
        "status": git("status", "--porcelain=v2", "-z", "--untracked-files=all", cwd=root, code=None),
        "stash": git("stash", "list", cwd=root, code=None),
        "config": _bytes(common / "config"),
        "hooks": {path.name: (path.read_bytes(), path.stat().st_mode) for path in (common / "hooks").glob("*")},
        "exclude": _bytes(common / "info" / "exclude"),
        "notes": [(name, _bytes(common / name)) for name in ("FETCH_HEAD", "ORIG_HEAD", "MERGE_HEAD")],
        "files": contents(root),
        "locks": sorted(str(path) for path in common.rglob("*.lock") if not path.is_relative_to(common / "worktrees")),
    }


def _bytes(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return None


@contextlib.contextmanager
def untouched(root: Path) -> Iterator[None]:
    """Assert that what happens in the block leaves the user's checkout and repository as they are."""
    before = fingerprint(root)
    yield
    after = fingerprint(root)
    assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}


@contextlib.contextmanager
def untouched_but_remotes(root: Path) -> Iterator[None]:
    """`untouched`, where a push may note what the remote has now."""
    before = fingerprint(root)
    yield
    after = fingerprint(root)
    for state in (before, after):
        state["refs"] = [line for line in str(state["refs"]).split("', '") if "refs/remotes/" not in line]
    assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}


def contents(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Every file below a folder but git's own: how git would mode it, and what is in it."""
    found: dict[str, tuple[str, bytes]] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in [*names, *links]:
            path = Path(place, name)
            mode = os.lstat(path).st_mode
            relative = str(path.relative_to(folder))
            if name == ".git":
                continue
            if stat.S_ISLNK(mode):
                found[relative] = ("120000", os.fsencode(os.readlink(path)))
            elif stat.S_ISREG(mode):
                found[relative] = ("100755" if mode & 0o100 else "100644", _start(path))
    return found


def _start(path: Path) -> bytes:
    """All of a file of a usual size."""
    with path.open("rb") as file:
        return file.read(1 << 20)


def committed(root: Path, commit_id: str) -> dict[str, tuple[str, bytes]]:
    """What a commit holds, in the form of `contents`."""
    listed = git("ls-tree", "-r", "-z", commit_id, cwd=root).split("\0")
    found = {}
    for line in filter(None, listed):
        info, _, path = line.partition("\t")
        mode, kind, blob = info.split(" ")
        done = subprocess.run(["git", "cat-file", kind, blob], cwd=root, capture_output=True, check=False)
        found[path] = (mode, done.stdout)
    return found


def branches(root: Path) -> list[str]:
    return git("for-each-ref", "--format=%(refname:short)", "refs/heads", cwd=root).splitlines()


def discarded(root: Path) -> list[str]:
    return git("for-each-ref", "--format=%(refname)", "refs/claude-scheduler", cwd=root).splitlines()


def registered(root: Path) -> list[str]:
    """The folders of git's own record of worktrees."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(root / ".git" / "worktrees"))
    return []


def works_for_its_user(root: Path) -> None:
    """The git commands that a killed `worktree add` is known to break. A fetch brings something, also where there is
    no remote: it is from a bare repository then, which goes again."""
    with tempfile.TemporaryDirectory() as folder:
        alone = not git("remote", cwd=root).strip()
        if alone:
            git("init", "--quiet", "--bare", folder, cwd=root)
            git("push", "--quiet", folder, "HEAD:refs/heads/elsewhere", cwd=root)
            git("remote", "add", "passing", folder, cwd=root)
        for command in (["status"], ["fetch", "--all"], ["gc", "--quiet"], ["fsck", "--strict"], ["worktree", "list"]):
            git(*command, cwd=root)
        if alone:
            assert "passing/elsewhere" in git("branch", "--remotes", cwd=root)
            git("remote", "remove", "passing", cwd=root)
