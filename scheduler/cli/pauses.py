"""pause, resume: start nothing of a project, or of one task, for a time."""

from __future__ import annotations

import getpass
from datetime import datetime
from typing import Any

import click

from scheduler.cli import output
from scheduler.cli.change import tell
from scheduler.cli.context import Context, complete_task, json_option, project_option
from scheduler.cli.triggers import moment_of
from scheduler.cli.view import known_of, look
from scheduler.core.limits import ACCOUNT, PAUSES, Cause, Hold
from scheduler.core.models import iso
from scheduler.disk import switch
from scheduler.errors import UsageError
from scheduler.store.state import State

_task = click.argument("task_id", metavar="[ID]", required=False, shell_complete=complete_task)


@click.command()
@_task
@click.option("--until", metavar="WHEN", help="Go on by itself then: 'monday 09:00', 'in 2h', an ISO 8601 time.")
@project_option
@json_option
@click.pass_obj
def pause(context: Context, /, task_id: str | None, until: str | None, folder: str | None, as_json: bool) -> None:
    """Start nothing of this project, or of the task ID. What runs goes on to its end; 'run ID' runs it all the same.

    What comes due meanwhile is skipped, and counted in one record for each task.
    """
    root = _root(context, folder, task_id)
    end = None if until is None else _end(until, context.now)
    hold = Hold(root, task_id or "", Cause.USER, context.now, end, _who())
    state = State(context.paths.state_db, context.now)
    try:
        state.holds.put(hold)
    finally:
        state.close()
    tell(context, root)
    if as_json:
        output.say_json({"project": root, "task": task_id, "paused": True, "until": None if end is None else iso(end)})
        return
    output.say(f"paused {task_id or root} until {output.moment(end, context.now) if end else _verb(task_id)}")


@click.command()
@_task
@project_option
@json_option
@click.pass_obj
def resume(context: Context, /, task_id: str | None, folder: str | None, as_json: bool) -> None:
    """Let this project, or the task ID, run again. Tasks that are paused one by one are resumed so.

    Without an ID it also lifts what holds the claude tasks of all projects back: a usage limit, no login, no credit.
    """
    root = _root(context, folder, task_id)
    state = State(context.paths.state_db, context.now)
    try:
        lifted = state.holds.lift(root, task_id or "", PAUSES, context.now)
        if task_id is None:
            lifted += state.holds.lift("", "", ACCOUNT, context.now)
    finally:
        state.close()
    if lifted:
        tell(context, root)
    rest = [hold for hold in known_of(context, root).holds if not hold.is_over(context.now)]
    still = [hold for hold in rest if task_id is None or hold.task in ("", task_id)]
    if as_json:
        holds = [_as_json(hold) for hold in still]
        output.say_json({"project": root, "task": task_id, "resumed": bool(lifted), "holds": holds})
        return
    output.say(f"{'resumed' if lifted else 'not paused:'} {task_id or root}")
    for hold in still:
        who = hold.task or ("the project" if hold.project else "each claude task")
        what = f"{who} is still {output.hold(hold, context.now)}"
        mend = f"{_verb(hold.task)} lets it run"
        if hold.cause is Cause.BUDGET:
            mend = "'run ID' runs a task all the same"
        elif hold.cause is Cause.OFF:
            what = f"the scheduler is {output.hold(hold, context.now)}: nothing starts in any project"
            mend = f"let it go on: {switch.mend(hold.by)}"
        output.advise((what, mend))


def lift_account(context: Context) -> None:
    """A login was seen to be there: what waited for it goes on."""
    state = State(context.paths.state_db, context.now)
    try:
        state.holds.lift("", "", (Cause.AUTH, Cause.CREDIT), context.now)
    finally:
        state.close()


def _root(context: Context, folder: str | None, task_id: str | None) -> str:
    root = context.root(folder)
    if task_id is not None:
        view = look(context, root)
        if task_id not in view.known.tasks:  # one with an error in the config may be paused too
            view.usable().task(task_id)
    return root


def _end(text: str, now: datetime) -> datetime:
    end = moment_of(text, None, now)
    if end <= now:
        raise UsageError(f"{text!r:.60} is in the past ({iso(end)})", "give a moment that comes")
    return end


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "you"


def _verb(task_id: str | None) -> str:
    return f"'resume {task_id}'" if task_id else "'resume'"


def _as_json(hold: Hold) -> dict[str, Any]:
    return {
        "task": hold.task or None,
        "cause": hold.cause.value,
        "since": iso(hold.since.astimezone()),
        "until": None if hold.until is None else iso(hold.until.astimezone()),
        "by": hold.by,
    }
