"""The main checkout before and after a run: what it looks like, and what is different.

Remote-tracking refs and refs of ours are left out: others than this run change them all the time. So they do branches
of runs; of those that were there before it is told, for who deletes one (attribution.py lets go of the rest).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from scheduler.execution import git
from scheduler.execution.eachref import each_ref
from scheduler.execution.git import Project
from scheduler.execution.refs import is_run_branch

Kind = Literal["head", "branch", "tag", "stash", "index", "file"]

_BRANCHES, _TAGS = "refs/heads/", "refs/tags/"


@dataclass(frozen=True)
class Snapshot:
    """The state of a main checkout.

    `head`: the branch's name, or the commit where it is on none. `refs`: branches and tags by full name. `stash`: its
    commits. `index`: the output of `git ls-files -s -z`. `files`: what in the folder differs from the index, each with
    enough of its state to see it change again. `uncommitted`: how many paths are not as in HEAD. `stamp`: what
    tells whether the index was written since.
    """

    head: str
    refs: Mapping[str, str]
    stash: tuple[str, ...]
    index: bytes
    files: Mapping[str, tuple[object, ...]]
    uncommitted: int
    stamp: tuple[int, ...] | None


@dataclass(frozen=True)
class Change:
    """One difference. `what`: a branch, a tag, a path; `before` and `after` are None where it was or is not there."""

    kind: Kind
    what: str
    before: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        noun = {"head": "HEAD", "stash": "the stash", "index": f"{self.what} in the index"}
        verb = "appeared" if self.before is None else "is gone" if self.after is None else "changed"
        was = f" (was {self.before[:12]})" if self.before and self.kind in ("branch", "tag") else ""
        return f"{noun.get(self.kind, f'{self.kind} {self.what}')} {verb}{was}"


def snapshot(project: Project, *, since: Snapshot | None = None) -> Snapshot:
    """Look at the main checkout, changing nothing in it.

    Three processes at once, two where the index was not written since the snapshot `since`.
    """
    checkout = project.checkout
    stamp = _stamp(project)
    same = since is not None and stamp is not None and stamp == since.stamp
    status = ("status", *git.STATUS, "--ignore-submodules=dirty")
    with ThreadPoolExecutor(3) as pool:
        asked_status = pool.submit(git.run, checkout, *status, timeout=git.LONG)
        asked_index = None if same else pool.submit(git.run, checkout, "ls-files", "-s", "-z")
        lines = each_ref(project, "--format=%(objectname) %(refname)", _BRANCHES, _TAGS, "refs/stash")
        index = since.index if since is not None and asked_index is None else b""
        if asked_index is not None:
            index = asked_index.result().stdout
        head, uncommitted, files = _status(project, asked_status.result().stdout)
    listed = {name: commit for commit, _, name in (line.partition(" ") for line in lines)}
    stash = listed.pop("refs/stash", None)
    return Snapshot(head, listed, _stash(project, stash), index, files, uncommitted, stamp)


def _stamp(project: Project) -> tuple[int, ...] | None:
    with contextlib.suppress(OSError):
        info = os.stat(project.common_dir / "index")
        return info.st_mtime_ns, info.st_size, info.st_ino
    return None


def _stash(project: Project, top: str | None) -> tuple[str, ...]:
    """Every entry, not the top alone: they are in its reflog."""
    if top is None:
        return ()
    with contextlib.suppress(OSError):
        lines = (project.common_dir / "logs/refs/stash").read_text(errors="replace").splitlines()
        return tuple(line.split(" ", 2)[1] for line in lines if line.count(" ") > 1)
    return (top,)


def _status(project: Project, output: bytes) -> tuple[str, int, dict[str, tuple[object, ...]]]:
    """Where HEAD is, how much is uncommitted, and what differs from the index (what is staged shows in the index)."""
    head, commit = "", ""
    files: dict[str, tuple[object, ...]] = {}
    count = 0
    for line in git.fields(output):
        if line.startswith("# branch.oid "):
            commit = line.removeprefix("# branch.oid ")
        elif line.startswith("# branch.head "):
            head = line.removeprefix("# branch.head ")
        elif line[0] in "1u?":
            count += 1
            path = line[2:] if line[0] == "?" else line.split(" ", 8 if line[0] == "1" else 10)[-1]
            if line[0] != "1" or line[3] != ".":
                files[path] = (line[0], line[3] if line[0] == "1" else "", *_look(project, path))
    return (commit if head == "(detached)" else head), count, files


def _look(project: Project, path: str) -> tuple[int, ...]:
    try:
        info = os.lstat(project.root / path)
    except OSError:
        return ()
    return info.st_mode, info.st_size, info.st_mtime_ns


def difference(before: Snapshot, after: Snapshot) -> list[Change]:
    """What is not as it was; empty as a rule. Pure."""
    changes = [Change("head", "HEAD", before.head, after.head)] if before.head != after.head else []
    for name in _unequal(before.refs, after.refs):
        kind: Kind = "branch" if name.startswith(_BRANCHES) else "tag"
        short = name.removeprefix(_BRANCHES).removeprefix(_TAGS)
        if name in before.refs or not (kind == "branch" and is_run_branch(short)):
            changes.append(Change(kind, short, before.refs.get(name), after.refs.get(name)))
    if before.stash != after.stash:
        changes.append(Change("stash", "stash", " ".join(before.stash), " ".join(after.stash)))
    if before.index != after.index:
        old, new = _entries(before.index), _entries(after.index)
        changes += [Change("index", path, old.get(path), new.get(path)) for path in _unequal(old, new)]
    for path in _unequal(before.files, after.files):
        changes.append(Change("file", path, "as it was", "otherwise"))
    return changes


def _unequal(before: Mapping[str, object], after: Mapping[str, object]) -> Iterable[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _entries(index: bytes) -> dict[str, str]:
    """Mode, id and stage by path; the stages of a conflict together."""
    found: dict[str, str] = {}
    for line in git.fields(index):
        state, _, path = line.partition("\t")
        found[path] = f"{found[path]} {state}" if path in found else state
    return found
