"""What the tests of whole runs share: the place after a run, and the work of one that was rolled back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
