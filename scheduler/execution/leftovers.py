"""What runs left outside the logs that nobody needs any more: merged branches, old private refs, worktrees moved aside,
the client's transcripts of worktrees that are gone. First told, then removed; never the only copy of work.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from scheduler.core.query import Run
from scheduler.core.when import from_iso
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import git, worktree
from scheduler.execution.eachref import each_ref
from scheduler.execution.folders import delete_folder
from scheduler.execution.git import Project
from scheduler.execution.refs import DISCARDED, is_run_branch

REF_DAYS = 30  # for what a run left that was rolled back
UNKNOWN_DAYS = 365  # the same, where the history does not know the run any more
TRANSCRIPT_DAYS = 30
_SLUG = re.compile(r"[^a-zA-Z0-9]")
_RUN_FOLDER = re.compile(r".*-[0-9a-f]{8}-[a-z0-9-]+-[0-9a-f]{8}\Z")

#: The record of the run with an id, or with its first eight characters.
Records = Callable[[str], Run | None]


@dataclass(frozen=True)
class Left:
    """`kind`: `branch`, `ref`, `worktree` (moved aside) or `transcripts`; `tip`: where a branch or ref points."""

    kind: str
    what: str
    size: int
    why: str
    tip: str = ""


def of_repository(project: Project, records: Records, now: datetime) -> list[Left]:
    """Branches and private refs of a repository that may go. Raises SchedulerError."""
    return [*_merged(project, records), *_discarded(project, records, now)]


def _merged(project: Project, records: Records) -> Iterator[Left]:
    for ref in _refs(project, "refs/heads/", "--merged=HEAD"):
        branch = ref.name.removeprefix("refs/heads/")
        run = records(branch[-8:]) if is_run_branch(branch) and not ref.checked_out else None
        if run is not None and run.get("worktreeBranch") == branch and run["status"] != "running":
            yield Left("branch", branch, 0, "its work is in the main checkout's branch", ref.tip)


def _discarded(project: Project, records: Records, now: datetime) -> Iterator[Left]:
    for ref in _refs(project, DISCARDED):
        run = records(ref.name.removeprefix(DISCARDED))
        days = UNKNOWN_DAYS if run is None else REF_DAYS
        ended = ref.written if run is None else _ended(run)
        if ended is not None and now - ended >= timedelta(days=days):
            size = _alone(project, ref.name)
            yield Left("ref", ref.name, size, f"rolled back {(now - ended).days} days ago", ref.tip)


def of_unknown_runs(project: Project, records: Records, since: datetime) -> list[str]:
    """Private refs, and branches that are not merged and follow no remote's, of runs since then that no record tells
    of. Raises SchedulerError."""
    found = [(ref, ref.name.removeprefix(DISCARDED)) for ref in _refs(project, DISCARDED)]
    for ref in _refs(project, "refs/heads/", "--no-merged=HEAD"):
        if is_run_branch(ref.name.removeprefix("refs/heads/")) and not ref.follows:
            found.append((ref, ref.name[-8:]))
    return [ref.name for ref, run in found if ref.written >= since and records(run) is None]


class _Ref(NamedTuple):
    """A branch, or another ref. `written`: when its commit was made; `checked_out`: in some worktree; `follows`: a
    remote's."""

    name: str
    tip: str
    written: datetime
    checked_out: bool
    follows: bool


def _refs(project: Project, prefix: str, *options: str) -> Iterator[_Ref]:
    form = "--format=%(refname) %(objectname) %(committerdate:unix) %(if)%(worktreepath)%(then)+%(else)-%(end)"
    form += " %(if)%(upstream)%(then)+%(else)-%(end)"
    for line in each_ref(project, form, *options, prefix, check=False, timeout=git.LONG):
        name, tip, seconds, held, follows = line.rsplit(" ", 4)
        written = datetime.fromtimestamp(int(seconds or 0), timezone.utc)
        yield _Ref(name, tip, written, held == "+", follows == "+")


def _alone(project: Project, ref: str) -> int:
    """The bytes of the objects that no other ref reaches; 0 where git does not say."""
    command = ("rev-list", "--objects", "--disk-usage", ref, "--not", f"--exclude={ref}", "--all")
    said = git.run(project.checkout, *command, check=False, timeout=git.LONG).stdout.strip()
    return int(said) if said.isdigit() else 0


def _ended(run: Run) -> datetime | None:
    try:
        return from_iso(str(run.get("completedAt")))
    except ValueError:
        return None


def of_user(where: Paths, now: datetime) -> list[Left]:
    """What may go of all projects' worktrees, and of the client's transcripts. Raises OSError."""
    return [*_trash(where), *_transcripts(where, now)]


def _trash(where: Paths) -> Iterator[Left]:
    for folder in worktree.in_trash(Path(where.worktrees)):
        yield Left("worktree", str(folder), _size(folder), "its run is over")


def _transcripts(where: Paths, now: datetime) -> Iterator[Left]:
    """Folders that the client named after worktrees of ours which are gone."""
    begin = _slug(where.worktrees + os.sep)
    there = {_slug(str(folder)) for folder in Path(where.worktrees).glob("*/*")}
    for folder in sorted(Path(where.claude, "projects").glob(f"{begin}*")):
        ours = _RUN_FOLDER.match(folder.name.removeprefix(begin)) and folder.name not in there
        if not ours or folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
            continue
        days = (now - datetime.fromtimestamp(_written(folder), timezone.utc)).days
        if days >= TRANSCRIPT_DAYS:
            yield Left("transcripts", str(folder), _size(folder), f"of a worktree that is gone, {days} days old")


def unknown(where: Paths, known: Collection[Path]) -> list[Path]:
    """Worktrees that are of no repository that is known: they may hold the only copy of work. `known`: real paths."""
    there = sorted(Path(os.path.realpath(where.worktrees)).glob("*/*"))
    ours = (folder for folder in there if _RUN_FOLDER.match(f"{folder.parent.name}-{folder.name}"))
    return [folder for folder in ours if folder not in known]


def _slug(path: str) -> str:
    """How the client names the folder of a project."""
    return _SLUG.sub("-", path)


def _files(folder: Path) -> Iterator[os.stat_result]:
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue


def _size(folder: Path) -> int:
    return sum(info.st_size for info in _files(folder))


def _written(folder: Path) -> float:
    return max((info.st_mtime for info in _files(folder)), default=folder.stat().st_mtime)


def remove(left: Left, project: Project | None) -> None:
    """Remove it, unless it is not any more what was told. Raises SchedulerError or OSError."""
    if left.kind in ("worktree", "transcripts"):
        delete_folder(Path(left.what))
    elif project is None:
        raise SchedulerError(f"{left.what} is of no repository")
    elif left.kind == "branch":
        # Git itself refuses where it is checked out, or not merged.
        if git.resolve(project, f"refs/heads/{left.what}") == left.tip:
            git.run(project.checkout, "branch", "-d", "--quiet", "--end-of-options", left.what)
    else:
        git.run(project.checkout, "update-ref", "--no-deref", "-d", "--end-of-options", left.what, left.tip)
