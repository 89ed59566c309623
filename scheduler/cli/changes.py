"""changes: which files the tools of sessions and runs changed, and what git saw of a run beside that."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from scheduler.cli import output, record
from scheduler.cli.context import Context, complete_run, complete_task, json_option, project_option
from scheduler.cli.runs import ends
from scheduler.cli.triggers import past_moment
from scheduler.core import format as fmt
from scheduler.core.when import from_iso
from scheduler.errors import SchedulerError
from scheduler.execution import changes as store
from scheduler.execution import git
from scheduler.execution.git import Project

Change = dict[str, Any]
_RUN = click.argument("run_id", metavar="[RUN]", required=False, shell_complete=complete_run)


@click.command()
@_RUN
@click.option("--task", "task_id", metavar="ID", shell_complete=complete_task, help="By runs of this task.")
@click.option("--session", metavar="ID", help="By the session whose id begins so.")
@click.option("--since", metavar="WHEN", help="Since then: '7d', 'monday', an ISO 8601 time.")
@click.option("--limit", "-n", type=click.IntRange(0), default=50, show_default=True, help="The last so many; 0: all.")
@project_option
@json_option
@click.pass_obj
def changes(
    context: Context, /, run_id: str | None, task_id: str | None, session: str | None, since: str | None, limit: int,
    folder: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell which files the tools of Claude Code changed, in sessions and in runs; of RUN also what git saw beside that.

    RUN is the id of a run, or at least its first four characters. What a shell command or a formatter changed has no
    line of its own; the work of a run is held against git, which sees it all.
    """
    project = git.find_project(folder or os.getcwd(), context.env)
    root = str(project.root)
    run = None if run_id is None else record.find(context.paths, root, run_id)
    first = None if since is None else past_moment(since, context.now).timestamp()

    def wanted(change: Change) -> bool:
        return (
            (run is None or change.get("run") == run["id"])
            and task_id in (None, change.get("task"))
            and str(change.get("session", "")).startswith(session or "")
            and (first is None or _seconds(change) >= first)
        )

    found = [change for change in store.read(root) if wanted(change)]
    shown = found[-limit:] if limit else found
    beside, why = ([], "") if run is None else _beside(project, run)
    if as_json and run is not None:
        output.say_json({"runId": run["id"], "changes": shown, "unexplained": None if why else beside, "why": why})
    elif as_json:
        output.say_json(shown)
    else:
        _tell(shown, len(found), context.now)
        if run is not None:
            _tell_beside(beside, why)


def _beside(project: Project, run: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    """What git saw a run change that no call of a tool names; or why that cannot be said."""
    if run["status"] == "running":
        return [], "the run is still under way"
    if not run.get("isolated", True):
        return [], "the run had no worktree, so its changes are not told from those of others"
    if run["status"] == "success" and run.get("reason") == "no-changes":
        return [], ""
    try:
        base, tip = ends(project, run)
    except SchedulerError as error:
        return [], error.message
    mine = (change for change in store.read(str(project.root)) if change.get("run") == run["id"])
    named = {change["path"] for change in mine if change.get("in") == "worktree"}
    seen = store.seen_by_git(project, base, tip)
    return [{"path": path, "kind": kind} for path, kind in seen if path not in named], ""


def _tell(shown: list[Change], total: int, now: datetime) -> None:
    if not shown:
        output.say("no tool changed a file")
        return
    columns = ["WHEN", "TOOL", "KIND", "SIZE", "LINES", "TASK", "RUN", "SESSION", "WHERE", "PATH"]
    output.table(columns, [_row(change, now) for change in shown], wrap=["TASK", "PATH"])
    if len(shown) < total:
        output.note(f"the last {len(shown)} of {total:,}; --limit 0 shows all")


def _row(change: Change, now: datetime) -> list[str]:
    run = change.get("run")
    return [
        output.instant(change.get("time"), now),
        str(change.get("tool", "")),
        str(change.get("kind", "")),
        _sizes(change.get("bytesBefore"), change.get("bytesAfter")),
        _lines(change.get("linesAdded"), change.get("linesRemoved")),
        str(change.get("task", "")),
        str(run)[:8] if run else "",
        "" if run else str(change.get("session", ""))[:8],
        "outside" if change.get("outside") else {"worktree": "worktree", "main": "main"}.get(str(change.get("in")), ""),
        change["path"],
    ]


def _sizes(before: object, after: object) -> str:
    known = [fmt.size(value) if isinstance(value, int) else "?" for value in (before, after)]
    if known == ["?", "?"]:
        return ""
    return known[1] if before == 0 else " → ".join(known)


def _lines(added: object, removed: object) -> str:
    return f"+{added} -{removed}" if isinstance(added, int) and isinstance(removed, int) else ""


def _tell_beside(beside: Iterable[dict[str, str]], why: str) -> None:
    files = list(beside)
    output.say()
    if why:
        output.say(f"what git saw beside these is not known: {why}")
    elif files:
        output.say(f"git saw {fmt.count(len(files), 'file')} more, by no tool call (a shell command, a formatter):")
        output.table(["KIND", "PATH"], [[file["kind"], file["path"]] for file in files], wrap=["PATH"])
    else:
        output.say("git saw no other file change")


def _seconds(change: Change) -> float:
    try:
        return from_iso(change["time"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError, AttributeError):
        return 0.0
