"""prune: what is not needed any more, told or removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from scheduler.cli import output, view
from scheduler.cli.context import Context, json_option
from scheduler.core import format as fmt
from scheduler.core.models import ProjectSettings
from scheduler.disk import files, paths
from scheduler.errors import SchedulerError
from scheduler.execution import git, leftovers, worktree
from scheduler.execution.git import Project
from scheduler.runner import upkeep
from scheduler.store import config, retention, search, trust
from scheduler.store.state import RunRow, State


@dataclass(frozen=True)
class Item:
    """One thing that may go."""

    kind: str
    what: str
    size: int
    why: str
    remove: Callable[[], None]

    def to_json(self, error: str | None = None) -> dict[str, Any]:
        return {"kind": self.kind, "what": self.what, "bytes": self.size, "why": self.why, "error": error}


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@json_option
@click.pass_obj
def prune(context: Context, /, dry_run: bool, as_json: bool) -> int:
    """Remove what is past its days, of all projects: records, logs, answers, merged branches of runs, private refs
    of what was rolled back, worktrees that were moved aside, the client's transcripts of worktrees that are gone.

    What is not merged, not pushed or not saved elsewhere stays. The runner removes records and logs by itself.
    """
    with files.locked(upkeep.lock(context.paths), timeout=60):
        items, notes = _found(context)
        errors = [None if dry_run else _error(item) for item in items]
    if as_json:
        told = [item.to_json(error) for item, error in zip(items, errors, strict=True)]
        output.say_json({"removed": not dry_run, "items": told, "notes": notes})
        return int(any(errors))
    if items:
        rows = [[item.kind, fmt.size(item.size) if item.size else "", item.why, item.what] for item in items]
        output.table(["WHAT", "SIZE", "WHY", "WHERE"], rows, wrap=["WHY", "WHERE"])
    done = sum(error is None for error in errors)
    size = fmt.size(sum(item.size for item, error in zip(items, errors, strict=True) if error is None))
    output.say(f"{fmt.count(done, 'thing')} {'would go' if dry_run else 'removed'}, {size}")
    for note in (*filter(None, errors), *notes):
        output.note(note)
    return int(any(errors))


def _error(item: Item) -> str | None:
    try:
        item.remove()
    except OSError as error:
        return f"cannot remove {item.what}: {error.strerror}"
    except SchedulerError as error:
        return f"cannot remove {item.what}: {error.message}"
    return None


def _found(context: Context) -> tuple[list[Item], list[str]]:
    """What may go, and what stays and should be known."""
    where, now = context.paths, context.now
    items: list[Item] = []
    notes: list[str] = []
    running = _running(context)
    trees: set[Path] = set()
    user = view.user_settings(context)
    items += map(_of_file, retention.of_user(where, user.history_days, now))
    items += [_of_left(left, None) for left in leftovers.of_user(where, now)]
    for root, trusted in trust.read(where).items():
        try:
            source = config.read_source(root)
            settings = source.parse().settings if trusted.approves(source) else ProjectSettings()
            tasks = {row.task for row in running if row.project == root}
            items += map(_of_file, retention.of_project(root, settings, tasks, now))
            project = git.find_project(root, context.env)
            found = leftovers.of_repository(project, partial(search.known, where, paths.history_file(root)), now)
            items += [_of_left(left, project) for left in found]
            trees.update(worktree.ours(project, Path(where.worktrees)))
        except SchedulerError as error:
            notes.append(f"{root} is left as it is: {error.message}")
        except OSError as error:
            notes.append(f"{root} is left as it is: {error.filename}: {error.strerror}")
    at_work = {row.run_id[:8] for row in running}
    notes += map(_kept, sorted(tree for tree in trees if tree.name[-8:] not in at_work))
    strange = [tree for tree in leftovers.unknown(where, trees) if tree.name[-8:] not in at_work]
    notes += [
        f"{tree} stays: it is of no project that is known; delete it if you need nothing in it" for tree in strange
    ]
    return items, notes


def _of_file(old: retention.Old) -> Item:
    return Item(old.kind, old.path, old.size, old.why, lambda: retention.remove(old))


def _of_left(left: leftovers.Left, project: Project | None) -> Item:
    return Item(left.kind, left.what, left.size, left.why, lambda: leftovers.remove(left, project))


def _running(context: Context) -> list[RunRow]:
    if not os.path.exists(context.paths.state_db):
        return []
    state = State(context.paths.state_db, context.now)
    try:
        return state.runs()
    finally:
        state.close()


def _kept(tree: Path) -> str:
    """What is said of a worktree of a run that is over."""
    run = tree.name[-8:]
    if not tree.exists():
        return f"{tree} is gone, but git knows it still; 'discard {run}' lets git forget it"
    return f"{tree} stays: 'show {run}' says why; 'discard {run}' when you do not need what is in it"
