"""status: what runs, what comes, what ran, what needs a person. Without a runner it answers from the files."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from datetime import datetime
from typing import Any

import click

from scheduler.cli import matters, output, record
from scheduler.cli.context import Context, json_option, project_option
from scheduler.cli.view import look
from scheduler.core import format as fmt
from scheduler.core.models import iso
from scheduler.core.overdue import Absence
from scheduler.disk import paths
from scheduler.errors import SchedulerError
from scheduler.execution import overview
from scheduler.runner import control
from scheduler.store import history, trust

COMING = 5
RECENT = 5


@click.command()
@project_option
@json_option
@click.pass_obj
def status(context: Context, /, folder: str | None, as_json: bool) -> None:
    """Tell what runs, what comes, what ran, and what needs you: in every project, or in one (--project)."""
    runner, problem = _runner(context)
    absence = _absence(runner, problem)
    known = trust.read(context.paths)
    roots = [context.root(folder)] if folder is not None else _roots(context, known)
    bad: dict[str, list[bytes]] = {root: [] for root in roots}
    runs = {root: overview.recent_runs(root, bad[root]) for root in roots}
    projects = {root: _project(context, root, known.get(root), runner, absence, runs[root]) for root in roots}
    answer = {
        "runner": runner and {name: runner[name] for name in ("pid", "version", "host", "startedAt", "stopping")},
        "runnerProblem": problem,
        "running": _among(roots, runner, "running"),
        "queued": _among(roots, runner, "queued"),
        "waiting": _among(roots, runner, "waiting"),
        "projects": [{"root": root, **entry, "damagedLines": len(bad[root])} for root, entry in projects.items()],
        "coming": _coming(projects),
        "recent": _recent(runs)[:RECENT],
        **matters.of_the_user(context),
    }
    if as_json:
        output.say_json(answer)
    else:
        _show(context, answer)


def _runner(context: Context) -> tuple[dict[str, Any] | None, str | None]:
    """The runner's word, and why nothing starts though there is a runner."""
    try:
        found = control.request(context.paths, {"verb": "status"})
    except SchedulerError as error:
        output.note(f"{error.message}\n  {error.hint}")
        return None, error.message
    idle = found.get("idle") if found else None
    return found, f"nothing starts: {idle['why']}" if idle else None


def _absence(runner: dict[str, Any] | None, problem: str | None) -> Absence:
    """Why what came due was not looked at."""
    if runner is None:
        return Absence.NO_RUNNER if problem is None else Absence.HUNG
    cause = (runner.get("idle") or {}).get("cause")
    return Absence(cause) if cause in list(Absence) else Absence.ASLEEP


def _roots(context: Context, known: dict[str, trust.Project]) -> list[str]:
    """The projects that the user decided about, and the one here if it has tasks."""
    try:
        here = context.root(None)
    except (SchedulerError, OSError):
        return sorted(known)
    return sorted({*known, here} if os.path.lexists(paths.config_file(here)) else known)


def _project(
    context: Context,
    root: str,
    trusted: trust.Project | None,
    runner: dict[str, Any] | None,
    absence: Absence,
    runs: list[dict[str, Any]],
) -> dict[str, Any]:
    view = look(context, root)
    view = replace(view, known=replace(view.known, absence=absence))
    running = len(_among([root], runner, "running"))
    problems = [problem for problem in view.config.problems if not problem.warning] if view.config else []
    return {
        **overview.entry(root, trusted, view.known, running, context.now, view.stand(), runs),
        "problems": [problem.text(paths.config_file(root)) for problem in problems],
    }


def _among(roots: list[str], runner: dict[str, Any] | None, what: str) -> list[dict[str, Any]]:
    return [run for run in runner.get(what, ()) if run["project"] in roots] if runner else []


def _coming(projects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    moments = sorted(
        (one["at"], root, one["task"]) for root, entry in projects.items() if entry["enabled"] for one in entry["next"]
    )
    return [{"project": root, "task": task, "at": iso(_local(at))} for at, root, task in moments[:COMING]]


def _recent(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    ended = [run for found in runs.values() for run in found if run["status"] != "running"]
    return sorted(ended, key=history.started, reverse=True)


def _show(context: Context, answer: dict[str, Any]) -> None:
    runner, now = answer["runner"], context.now
    if runner:
        began = output.instant(runner["startedAt"], now)
        doing = "is stopping" if runner["stopping"] else "is at work"
        output.say(f"the runner {doing} (pid {runner['pid']}, version {runner['version']}, started {began})")
    else:
        output.say(answer["runnerProblem"] or "no runner is at work")
    if runner and answer["runnerProblem"]:
        output.note(answer["runnerProblem"])
    matters.tell_standstill(context)
    for entry in answer["projects"]:
        output.say(f"{entry['root']}: {_standing(entry)}")
        for line in matters.approvals(entry, now):
            output.say(f"  {line}")
        overdue = matters.overdue(entry, now, off=answer["off"] is not None)
        if overdue is not None:
            output.say(f"  {overdue}")
        if entry["damagedLines"]:
            lines = fmt.count(entry["damagedLines"], "damaged line")
            output.note(f"{lines} in this history, passed over\n  'history --verify' names each")
    matters.tell_limits(answer, now)
    if (
        any(entry["enabled"] for entry in answer["projects"])
        and not runner
        and not answer["runnerProblem"]
        and answer["off"] is None
    ):
        output.note("nothing runs without a runner\n  start it: 'start'")
    if not answer["projects"]:
        output.note("there are no tasks yet\n  add one in a repository: 'add --help'; see one run: 'quickstart'")
    _show_runs("running", answer["running"], "startedAt", now)
    _show_runs("waiting", answer["queued"], "scheduledFor", now)
    if answer["coming"]:
        output.say("\ncoming")
        rows = [[_name(one), one["task"], *_when(one["at"], now)] for one in answer["coming"]]
        output.table(["PROJECT", "TASK", "AT", ""], rows, wrap=["PROJECT", "TASK"])
    if answer["recent"]:
        output.say("\nran last")
        record.table(answer["recent"], now, projects=len(answer["projects"]) > 1)
    _show_open(answer["projects"], now)


def _standing(entry: dict[str, Any]) -> str:
    if not entry["enabled"] and not os.path.isdir(entry["root"]):
        return f"not enabled, and gone: 'disable --project {shlex.quote(entry['root'])}' forgets it"
    if not entry["enabled"]:
        return f"not enabled ({fmt.count(entry['tasks'], 'task')}): 'enable' shows what would run, and lets it"
    if entry["suspended"]:
        return f"SUSPENDED: {entry['suspended']}"
    return f"{entry['active']} of {fmt.count(entry['tasks'], 'task')} active"


def _show_runs(title: str, runs: list[dict[str, Any]], moment: str, now: datetime) -> None:
    if runs:
        output.say(f"\n{title}")
        rows = [[one["runId"][:8], _name(one), one["taskId"], output.instant(one[moment], now)] for one in runs]
        output.table(["RUN", "PROJECT", "TASK", ""], rows, wrap=["PROJECT", "TASK"])


def _name(one: dict[str, Any]) -> str:
    return os.path.basename(str(one["project"]))


def _when(text: str, now: datetime) -> tuple[str, str]:
    at = datetime.fromisoformat(text)
    return fmt.clock(at, None), fmt.relative(at, now)


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()


def _show_open(projects: list[dict[str, Any]], now: datetime) -> None:
    rows = []
    for entry in projects:
        if entry["enabled"] and entry["suspended"]:
            gone = not os.path.isdir(entry["root"])
            forget = f"'disable --project {shlex.quote(entry['root'])}' forgets it"
            what = f"'enable' it where it is now; {forget}" if gone else "'enable' shows it"
            rows.append(["", os.path.basename(entry["root"]), f"{entry['suspended']}: {what}"])
        rows += [["", os.path.basename(entry["root"]), f"a task is suspended: {text}"] for text in entry["problems"]]
    rows += matters.rows(projects, now)
    if rows:
        output.say("\nneeds you")
        output.table(["RUN", "TASK", ""], rows, wrap=["TASK", ""])
