"""What the tests of whole runs share: the place after a run, its work, and what must hold once it is settled."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from scheduler.disk import paths
from scheduler.execution import process
from scheduler.store import history
from scheduler.store.state import RunRow, State
from tests import repos
from tests.rig import Rig, wait_until

LOGS = os.path.join(".omc", "scheduler", "logs")
BRANCH = re.compile(r"claude-task/(?P<task>[a-z0-9-]+)-(?P<moment>\d{8}T\d{4})-(?P<run8>[0-9a-f]{8})\Z")
Tree = Mapping[str, tuple[str, bytes]]


def fingerprint(root: Path) -> dict[str, object]:
    """The user's checkout and repository, but for our own logs in it, and for branches and refs of runs."""
    whole = repos.fingerprint(root)
    files = whole["files"]
    assert isinstance(files, dict)
    return {**whole, "files": {name: found for name, found in files.items() if not name.startswith(LOGS)}}


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """What of two fingerprints differs."""
    return {key for key in before if before[key] != after[key]}


def branches(root: Path) -> list[str]:
    """The branches of runs."""
    return [name for name in repos.branches(root) if BRANCH.match(name)]


def nothing_left(own: Rig, root: Path | None = None) -> None:
    """No worktree, no trash, no scratch and no lock of git's: of a run only records, branches and private refs stay."""
    root = root or own.project
    wait_until(lambda: not left_on_disk(own), 20, f"for the worktrees to go: {left_on_disk(own)}")
    assert repos.registered(root) == []
    runs = Path(own.paths.state, "runs")
    assert not runs.exists() or list(runs.iterdir()) == []
    assert list((root / ".git").rglob("*.lock")) == []


def left_on_disk(own: Rig) -> list[Path]:
    """What lies in the folder of worktrees but its empty folders."""
    return [path for path in Path(own.paths.worktrees).glob("*/*") if path.name != ".trash" or list(path.iterdir())]


def discarded_tree(root: Path, record: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    """What the private ref of a run that was rolled back holds."""
    ref = f"refs/claude-scheduler/discarded/{record['id']}"
    assert record["discardedRef"] == ref
    return repos.committed(root, repos.git("rev-parse", ref, cwd=root))


def branch_tree(root: Path, record: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    """What the kept branch of a run holds."""
    tip = repos.git("rev-parse", f"refs/heads/{record['worktreeBranch']}", cwd=root)
    assert tip == record["commit"]
    return repos.committed(root, tip)


def row(own: Rig, run: str) -> RunRow | None:
    """What the state knows of a run that is not over."""
    state = State(own.paths.state_db, datetime.now(timezone.utc))
    with contextlib.closing(state):
        return next((found for found in state.runs() if found.run_id == run), None)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: process.start_time(pid) is None, what="for the runner's death")  # not for whoever reaps it


def strangers(own: Rig, known: int) -> list[str]:
    """Processes that name the rig's folder, but for the living runner, its children and this test."""
    place = os.fsencode(own.home.parent)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            words, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            pid = int(entry.name)
            ours = pid in (os.getpid(), known) or parent in (known, os.getpid())
            if not ours and (place in words or b"SCHEDULER_HOME=" + place in environment):
                found.append(f"{pid} {words!r}")
    return found


def finals(file: str, run: str) -> list[dict[str, Any]]:
    return [line for line in history.read(file) if line["id"] == run and line["status"] != "running"]


def settled(own: Rig, run: str, runner: int, before: dict[str, object]) -> dict[str, Any]:
    """Check all that must hold once a new runner has recovered `run`; its record."""
    record = own.record(run)
    wait_until(lambda: row(own, run) is None, what="for the run to be forgotten")
    wait_until(lambda: not strangers(own, runner), 20, f"for processes to end: {strangers(own, runner)}")
    files_of_both = (own.paths.global_history, paths.history_file(str(own.project)))
    assert [finals(file, run) for file in files_of_both] == [[record], [record]]
    assert record["completedAt"] >= record["startedAt"]
    nothing_left(own)
    assert changed(before, fingerprint(own.project)) == set()
    repos.works_for_its_user(own.project)
    kept = branches(own.project)
    assert kept == ([record["worktreeBranch"]] if record.get("worktreeBranch") else [])
    refs = [ref for ref in repos.discarded(own.project) if "/discarded/" in ref]
    assert refs == ([record["discardedRef"]] if record.get("discardedRef") else [])
    return record
