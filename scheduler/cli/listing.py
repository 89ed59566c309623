"""list, show, next, check: what a project's config says, and what became of it."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import click

from scheduler.cli import detail, output, record
from scheduler.cli.context import Context, complete_run, complete_task, json_option, project_option
from scheduler.cli.triggers import moment_of
from scheduler.cli.view import View, last_runs, look
from scheduler.core import format as fmt
from scheduler.core.limits import ACCOUNT, starts_again
from scheduler.core.models import Task, iso
from scheduler.core.parse import Problem, locate
from scheduler.core.parse import show as show_place
from scheduler.core.schedule import occurrences
from scheduler.core.zones import zone_of
from scheduler.disk import paths
from scheduler.errors import SchedulerError
from scheduler.execution import sandbox
from scheduler.execution.standing import count_suspended

_HEX = frozenset("0123456789abcdef-")
_FAR = timedelta(days=36525)


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Also tasks that are done.")
@project_option
@json_option
@click.pass_obj
def list_tasks(context: Context, /, everything: bool, folder: str | None, as_json: bool) -> None:
    """List the tasks: when each runs next, and how it ran last."""
    view = look(context, context.root(folder))
    tasks = () if view.absent else view.usable().tasks
    last = last_runs(view.root)
    shown = [task for task in tasks if everything or not view.done(task.id)]
    broken = [] if view.config is None else [p for p in view.config.problems if not p.warning]
    if as_json:
        found = [_as_json(view, task, last.get(task.id)) for task in shown]
        output.say_json({"project": view.root, "enabled": view.enabled, "approved": view.approved, "tasks": found,
                         "problems": [_problem_json(problem) for problem in broken]})  # fmt: skip
        return
    if shown:
        rows = [_row(view, task, last.get(task.id)) for task in shown]
        output.table(["ID", "NAME", "IS", "WHEN", "NEXT", "LAST"], rows, wrap=["NAME", "WHEN", "LAST"])
    elif not broken:
        output.say("no tasks")
    hidden = len(tasks) - len(shown)
    if hidden:
        output.note(f"{fmt.count(hidden, 'task')} done: see 'list --all'")
    for problem in broken:
        output.note(f"suspended: {problem.text(paths.config_file(view.root))}")
    for hold in dict.fromkeys(hold for task in shown for hold in view.holds(task) if hold.cause in ACCOUNT):
        output.note(f"claude tasks are {output.hold(hold, view.now)}")
    output.advise(view.why_idle())


def _row(view: View, task: Task, last: dict[str, Any] | None) -> list[str]:
    moment = view.next_run(task)
    ran = "never" if last is None else f"{record.standing(last)}, {record.age(last, view.now)}"
    coming = "" if moment is None else fmt.relative(moment, view.now)
    return [task.id, task.name, view.standing(task), output.trigger(task.trigger), coming, ran]


def _as_json(view: View, task: Task, last: dict[str, Any] | None) -> dict[str, Any]:
    moment = view.next_run(task)
    return {
        **task.to_json(),
        "standing": view.standing(task),
        "next": None if moment is None else iso(moment),
        "last": last,
    }


@click.command()
@click.argument("name", metavar="ID|RUN", shell_complete=lambda *at: complete_task(*at) or complete_run(*at))
@project_option
@json_option
@click.pass_obj
def show(context: Context, /, name: str, folder: str | None, as_json: bool) -> None:
    """Show all about a task, or about a run (by its id, or at least its first four characters)."""
    view = look(context, context.root(folder))
    task = next((task for task in view.config.tasks if task.id == name), None) if view.config else None
    if task is not None:
        _show_task(context, view, task, as_json)
        return
    try:
        found = record.find(context.paths, view.root, name)
    except SchedulerError:
        if len(name) < 4 or not _HEX.issuperset(name.lower()):
            view.usable().task(name)  # says which task may be meant
        raise
    detail.show_run(context, view.root, found, as_json)


def _show_task(context: Context, view: View, task: Task, as_json: bool) -> None:
    runs = record.latest(context.paths, view.root, task=task.id, limit=5)
    moments = [at for at, _ in islice(_occurrences(view, task, view.now), 3)]
    state = view.known.tasks.get(task.id)
    if as_json:
        known = {} if state is None else {"addedAt": iso(state.added_at), "failuresInRow": state.failures}
        coming = [iso(moment) for moment in moments]
        output.say_json({**_as_json(view, task, None), **known, "next": coming, "runs": runs})
        return
    raw = task.to_json()
    output.facts(
        [
            ("id", task.id),
            ("name", task.name),
            ("standing", "\n".join([view.standing(task), *(output.hold(hold, view.now) for hold in view.holds(task))])),
            ("when", output.trigger(task.trigger)),
            ("next", "\n".join(output.moment(moment, view.now) for moment in moments) or "never"),
            *output.fields({part: raw[part] for part in ("trigger", "execution", "policy")}),
            ("tags", ", ".join(task.tags)),
            ("failed in a row", str(state.failures) if state is not None else "0"),
        ]
    )
    if runs:
        output.say()
        record.table(runs, view.now)
    output.advise(view.why_idle())


@click.command("next")
@click.argument("task_id", metavar="[ID]", required=False, shell_complete=complete_task)
@click.option("--count", "-n", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many.")
@click.option("--from", "since", metavar="WHEN", help="Count from here: 'monday', an ISO 8601 time.")
@project_option
@json_option
@click.pass_obj
def next_runs(
    context: Context, /, task_id: str | None, count: int, since: str | None, folder: str | None, as_json: bool
) -> None:
    """Tell the coming occurrences of the task ID, or of all, in the task's zone and in local time."""
    view = look(context, context.root(folder))
    config = view.usable()
    tasks = config.tasks if task_id is None else (config.task(task_id),)
    start = context.now if since is None else moment_of(since, None, context.now)
    streams = [_occurrences(view, task, start) for task in tasks]
    found = list(islice(heapq.merge(*streams, key=lambda pair: pair[0]), count))
    if as_json:
        output.say_json([{"task": task.id, "at": iso(at)} for at, task in found])
        return
    rows = [[fmt.clock(at, None), fmt.relative(at, context.now), _in_zone(at, task), task.id] for at, task in found]
    if rows:
        output.table(["LOCAL TIME", "", "ITS ZONE", "TASK"], rows, wrap=["TASK"])
    else:
        output.say("nothing to come")
    output.advise(view.why_idle())


def _occurrences(view: View, task: Task, start: datetime) -> Iterator[tuple[datetime, Task]]:
    since = starts_again(view.known.holds, view.root, task, view.now)
    if view.standing(task) in ("on", "waits", "paused") and since is not None:
        begin = start if since == view.now else max(start, since)
        for at in occurrences(task.trigger, begin, begin + _FAR, added_at=view.added_at(task.id)):
            yield at, task


def _in_zone(at: datetime, task: Task) -> str:
    return fmt.clock(at, zone_of(task.trigger.timezone) if task.trigger.type == "cron" else at.tzinfo)


@click.command()
@project_option
@json_option
@click.pass_obj
def check(context: Context, /, folder: str | None, as_json: bool) -> int:
    """Validate the config: exit 1 when a task is suspended by an error, or the file cannot be used at all."""
    view = look(context, context.root(folder))
    config = view.vetted(context.env)
    file = paths.config_file(view.root)
    errors = [problem for problem in config.problems if not problem.warning]
    problems = [*config.problems, *_past(view, config.tasks), *_without_sandbox(context, view, config.tasks)]
    if as_json:
        found = [_problem_json(problem) for problem in problems]
        output.say_json({"file": file, "approved": view.approved, "tasks": len(config.tasks), "problems": found})
        return int(bool(errors))
    for problem in problems:
        output.say(f"{'warning' if problem.warning else 'error'}: {problem.text(file)}")
    said = f"{fmt.count(len(config.tasks), 'task')} in order"
    suspended = count_suspended(config)
    output.say(said + (f", {suspended} suspended" if suspended else "") + f": {file}")
    output.advise(view.why_idle())
    return int(bool(errors))


def _past(view: View, tasks: Iterable[Task]) -> Iterator[Problem]:
    """A warning for each task whose moment was over before it began to count."""
    past = [task for task in tasks if task.enabled and view.past(task)]
    return _warnings(view, past, ("trigger", "at"), "this moment is past, and the task never ran: it never will")


def _without_sandbox(context: Context, view: View, tasks: Iterable[Task]) -> Iterator[Problem]:
    """A warning for each task whose sandbox cannot be had: it would not be started without one."""
    asking = [task for task in tasks if task.execution.sandbox]
    path = (view.trusted.path if view.trusted else "") or context.env.get("PATH", "")
    trouble = sandbox.trouble(path) if asking else None
    said = f"{trouble}: no run of it is started; {sandbox.INSTALL}"
    return _warnings(view, asking if trouble else [], ("execution", "sandbox"), said)


def _warnings(view: View, tasks: Iterable[Task], field: tuple[str, ...], said: str) -> Iterator[Problem]:
    assert view.source is not None
    text = view.source.config.decode("utf-8-sig")
    entries = json.loads(text).get("tasks", [])
    places = {str(entry.get("id")): i for i, entry in enumerate(entries) if isinstance(entry, dict)}
    for task in tasks:
        place: tuple[str | int, ...] = ("tasks", places[task.id], *field)
        yield Problem(locate(text, place), show_place(*place), said, task.id, warning=True)


def _problem_json(problem: Problem) -> dict[str, Any]:
    return {
        "line": problem.line,
        "place": problem.place,
        "message": problem.message,
        "task": problem.task,
        "severity": "warning" if problem.warning else "error",
    }
