"""add, edit, remove: the tasks of a project."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Collection
from datetime import timedelta
from itertools import islice
from typing import Any

import click

from scheduler.cli import output, review
from scheduler.cli.change import change, rehearse
from scheduler.cli.context import Context, F, json_option, project_option, task_argument
from scheduler.cli.fields import FIELDS, drop, field_options, put, put_all, text_of
from scheduler.cli.triggers import When, adjust_trigger, new_trigger, trigger_options
from scheduler.cli.view import View, look
from scheduler.core.models import Task, from_json, iso
from scheduler.core.parse import show
from scheduler.core.plain import visible
from scheduler.core.schedule import occurrences
from scheduler.disk.paths import ID_MAX, is_task_id
from scheduler.errors import SchedulerError, UsageError
from scheduler.store.state import State

SHOWN = 3  # occurrences told after a change
_FAR = timedelta(days=36525)
_UNSET = {field.name.replace("_", "-"): field for field in FIELDS}


def _work_options(command: F) -> F:
    shell = click.option("--shell", metavar="CMD", help="A shell command; '-' reads it from standard input.")
    prompt = click.option("--prompt", metavar="TEXT", help="A prompt for Claude Code; '-' reads it likewise.")
    return trigger_options(prompt(shell(command)))


def _work(prompt: str | None, shell: str | None) -> dict[str, str] | None:
    """Type and command of what --prompt or --shell says."""
    if prompt is not None and shell is not None:
        raise UsageError("a task has either a prompt or a shell command", "give one of --prompt and --shell")
    if prompt is not None:
        return {"type": "claude", "command": text_of(prompt)}
    return None if shell is None else {"type": "shell", "command": text_of(shell)}


@click.command()
@click.argument("name")
@click.option("--id", "task_id", help="Its id (a-z, 0-9, '-'); default: made from the name.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be added, and when it would run.")
@_work_options
@field_options
@project_option
@json_option
@click.pass_obj
def add(
    context: Context, /, name: str, task_id: str | None, dry_run: bool, folder: str | None, as_json: bool,
    prompt: str | None, shell: str | None, **given: Any,
) -> None:  # fmt: skip
    """Add a task called NAME: when (--cron, --at or --every) and what (--prompt or --shell)."""
    _check_name(name)
    root = context.root(folder)
    trigger = new_trigger(When.taken_from(given), context.now)
    if trigger is None:
        raise UsageError("a task needs to know when", "give one of --cron, --at and --every")
    work = _work(prompt, shell)
    if work is None:
        raise UsageError("a task needs something to do", "give one of --prompt and --shell")
    if task_id is not None and not is_task_id(task_id):
        raise UsageError(f"{task_id!r:.80} is no id", "ids are made of a-z, 0-9 and '-'")
    entry: dict[str, Any] = {"id": task_id or "new", "name": name, "trigger": trigger, "execution": work}
    put_all(entry, given)
    _check_entry(entry)

    def append(entries: list[Any]) -> None:
        taken = {other.get("id") for other in entries if isinstance(other, dict)}
        if task_id in taken:
            raise SchedulerError(f"there is a task {task_id} already", "change it by 'edit', or give another --id")
        entry["id"] = task_id or free_id(name, taken)
        entries.append(entry)

    parsed = (rehearse if dry_run else change)(context, root, append)
    task, view = parsed.task(entry["id"]), look(context, root)
    _tell("would add" if dry_run else "added", task, view, as_json)
    if dry_run and not as_json:
        output.facts([(f"  {name}", visible(value)) for name, value in review.facts(view, task)[2:]])
        output.say("nothing is saved yet")


@click.command()
@task_argument
@click.option("--name", help="Another name.")
@_work_options
@field_options
@click.option("--unset", multiple=True, type=click.Choice(list(_UNSET)), metavar="FIELD", help="Back to its default.")
@project_option
@json_option
@click.pass_obj
def edit(
    context: Context, /, task_id: str, name: str | None, folder: str | None, as_json: bool, prompt: str | None,
    shell: str | None, unset: tuple[str, ...], **given: Any,
) -> None:  # fmt: skip
    """Change the task ID: only what is given. Lists are replaced, variables added."""
    root = context.root(folder)
    when = When.taken_from(given)
    work = _work(prompt, shell)

    def alter(entries: list[Any]) -> None:
        entry = _entry(entries, task_id)
        before = json.dumps(entry)
        for field in unset:
            drop(entry, _UNSET[field].place)
        if name is not None:
            _check_name(name)
            entry["name"] = name
        trigger = new_trigger(when, context.now, entry.get("trigger"))
        if trigger is not None:
            entry["trigger"] = trigger
        else:
            adjust_trigger(entry, when, context.now)
        for word, value in (work or {}).items():
            put(entry, ("execution", word), value)
        put_all(entry, given)
        _check_entry(entry)
        if json.dumps(entry) == before:
            raise UsageError(f"nothing about {task_id} would change", "say what to change: see 'edit --help'")

    parsed = change(context, root, alter)
    _tell("changed", parsed.task(task_id), look(context, root), as_json)


@click.command()
@task_argument
@project_option
@json_option
@click.pass_obj
def remove(context: Context, /, task_id: str, folder: str | None, as_json: bool) -> None:
    """Remove the task ID. Its history, logs and branches stay."""
    root = context.root(folder)
    change(context, root, lambda entries: entries.remove(_entry(entries, task_id)))
    state = State(context.paths.state_db, context.now)
    try:
        state.holds.drop(root, task_id)  # a new task of that name is not a paused one
    finally:
        state.close()
    if as_json:
        output.say_json({"removed": task_id})
    else:
        output.say(f"removed {task_id}; its history, logs and branches stay")


def _entry(entries: list[Any], task_id: str) -> dict[str, Any]:
    """The raw task of an id, also one with errors."""
    found = [entry for entry in entries if isinstance(entry, dict) and entry.get("id") == task_id]
    if len(found) > 1:
        raise SchedulerError(f"{len(found)} tasks have the id {task_id}", "mend the file by hand: see 'check'")
    if not found:
        close = difflib.get_close_matches(task_id, [str(e.get("id")) for e in entries if isinstance(e, dict)], 1)
        raise SchedulerError(f"no task {task_id!r:.80}", f"did you mean {close[0]}?" if close else "see 'list'")
    return found[0]


def free_id(name: str, taken: Collection[Any]) -> str:
    """An id made from a name: `Update the docs!` is `update-the-docs`, the second such `update-the-docs-2`."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")[:ID_MAX].rstrip("-") or "task"
    found, number = base, 1
    while found in taken:
        number += 1
        tail = f"-{number}"
        found = base[: ID_MAX - len(tail)] + tail
    return found


def _check_name(name: str) -> None:
    if not any(char.isprintable() and not char.isspace() for char in name):
        raise UsageError("a task's name needs something to read", "nothing was changed")


def _check_entry(entry: dict[str, Any]) -> None:
    found = from_json(Task, json.dumps(entry))
    if not isinstance(found, Task):
        place, _, message = found[0]
        raise UsageError(f"{show(*place) or 'the task'}: {message}", "nothing was changed")


def _tell(what: str, task: Task, view: View, as_json: bool) -> None:
    idle = view.why_idle()
    moments = []
    if task.enabled and not view.done(task.id):
        coming = occurrences(task.trigger, view.now, view.now + _FAR, added_at=view.added_at(task.id))
        moments = list(islice(coming, SHOWN))
    if as_json:
        output.say_json({"task": task.to_json(), "next": [iso(moment) for moment in moments], "served": idle is None})
        return
    output.say(f"{what} {task.id}: {output.trigger(task.trigger)}")
    for moment in moments:
        output.say(f"  {output.moment(moment, view.now)}")
    output.advise(idle)
