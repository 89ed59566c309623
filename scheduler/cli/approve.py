"""enable, disable: a person looks at what would run and approves it, or takes that back."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import sys
from collections.abc import Iterator

import click

from scheduler.cli import approver, matters, output, readiness, review
from scheduler.cli.change import changed, take_in, tell
from scheduler.cli.context import Context, json_option, project_option
from scheduler.cli.pauses import lift_account
from scheduler.cli.view import View, look
from scheduler.core import format as fmt
from scheduler.core.health import Finding
from scheduler.core.models import iso
from scheduler.core.parse import Config
from scheduler.core.plain import visible
from scheduler.disk import paths
from scheduler.errors import SchedulerError
from scheduler.execution import claude
from scheduler.runner import control, service
from scheduler.store import config, trust
from scheduler.store.config import Source
from scheduler.store.state import State
from scheduler.store.trust import Suspension

NO_SANDBOX = """\
This is not a sandbox. A task runs as you, with your files, your keys and your network; the worktree keeps its edits
apart, and nothing else does (for a sandbox: --sandbox bwrap). What you approve is this config and rules.md: not the
scripts that they call, and not the settings, hooks and servers of Claude Code that the repository carries."""


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask: you have read the tasks.")
@click.option("--word", hidden=True, help="The yes of a person, typed into a session that showed the tasks.")
@click.option("--no-start", is_flag=True, help="Do not start the runner.")
@project_option
@json_option
@click.pass_obj
def enable(context: Context, /, yes: bool, word: str | None, no_start: bool, folder: str | None, as_json: bool) -> None:
    """Show what would run in this project, check what it needs, approve it, and let the runner serve it."""
    if yes:
        approver.refuse_unread(context)
    root = context.root(folder)
    view = look(context, root)
    if view.absent:
        raise SchedulerError(f"there are no tasks in {root} yet", "add one first: see 'add --help'")
    parsed = view.vetted(context.env)
    suspension = _suspension(view)
    client = claude.find_client(context.env.get("PATH", ""))
    found = list(readiness.checks(context, root, parsed.tasks, None if client is None else str(client)))
    if not as_json and word is None:
        _show(view, parsed, found)
    if not (view.enabled and view.approved) and not yes:
        if word is None and context.typed is not None and not as_json:
            return _ask_in_session(context, view)
        _ask(context, view, len(parsed.tasks), word, shown=not as_json)
    _approve(context, view, parsed, None if client is None else str(client))
    if any(check.name == "login" and check.level != "fail" for check in found):
        lift_account(context)
    tell(context, root)
    runner = None if no_start else control.ensure_runner(context.paths, context.env)
    if as_json:
        output.say_json(
            {
                "project": root,
                "enabled": True,
                "tasks": [task.id for task in parsed.tasks],
                "checks": [check._asdict() for check in found],
                "lookedAt": None if suspension is None else dataclasses.asdict(suspension),
                "runner": None if runner is None else {"pid": runner["pid"]},
            }
        )
        return
    output.say(f"enabled: {fmt.count(len(parsed.tasks), 'task')} in {root}")
    if runner is not None:
        output.say(f"the runner is at work (pid {runner['pid']})")
    matters.tell_standstill(context)
    if not service.of(context.paths, context.env).installed:
        output.say("after a reboot a session here starts it again; 'service install' has the operating system do that")


def _ask_in_session(context: Context, view: View) -> None:
    """Leave the yes to the person who reads this. Only what the session shows as a whole can be approved there."""
    assert view.source is not None
    word = approver.ask(context, view.source, _suspension(view))
    output.say(f"\nNothing of this is approved yet. To approve exactly this, type: /scheduler:enable yes {word}")


def _ask(context: Context, view: View, count: int, word: str | None, *, shown: bool) -> None:
    if word is not None and context.typed is not None:
        assert view.source is not None
        return approver.answered(context, view.source, _suspension(view), word)
    if not shown or not sys.stdin.isatty():
        approver.refuse_unread(context)
        raise SchedulerError(
            "to enable a project somebody has to say yes", "run this in a terminal, or read the tasks and give --yes"
        )
    if not click.confirm(f"Let {'this task' if count == 1 else f'these {count} tasks'} run?", default=False):
        raise SchedulerError("not enabled", "change the tasks, then run 'enable' again")


def _suspension(view: View) -> Suspension | None:
    return None if view.trusted is None else view.trusted.suspension


def _approve(context: Context, view: View, parsed: Config, client: str | None) -> None:
    """Approve exactly what was shown."""
    shown = view.source
    assert shown is not None
    with trust.lock(context.paths):
        if config.read_source(shown.project).digest != shown.digest:
            raise SchedulerError("the config changed while you looked at it", "run 'enable' again")
        known = trust.read(context.paths)
        before = known.get(shown.project)
        if before is not None and before.suspension != _suspension(view):
            raise SchedulerError("a run changed something while you looked", "run 'enable' again")
        known[shown.project] = _approved(context, before, shown, parsed, client)
        trust.write(context.paths, known)
        take_in(context, known[shown.project], parsed)
    config.prepare_logs(shown.project)


def _approved(
    context: Context, before: trust.Project | None, shown: Source, parsed: Config, client: str | None
) -> trust.Project:
    """The project as it is served from now on. What was approved already is not approved again, and a tool call, which
    nobody said yes to, does not say which programs run."""
    by, path, now = approver.approver(context), context.env.get("PATH", ""), iso(context.now)
    if before is not None and before.enabled and before.approves(shown):
        if by.how == "claude":
            return before
        return dataclasses.replace(before, path=path, client=client, enabled_at=now)
    # After a self-edit only what is looked at now counts: the run may have approved something by itself.
    approvals = before.approvals if before and before.suspension is None else ()
    project = trust.Project(shown.project, True, path, client, now, approvals)
    what = changed(context, approvals if before and before.enabled else (), shown, parsed)
    return trust.approved({shown.project: project}, shown, now, by, what)[shown.project]


def _show(view: View, parsed: Config, found: list[Finding]) -> None:
    assert view.source is not None
    for task in parsed.tasks:
        name = visible(task.name).replace("\n", "\\n")
        output.say(f"{task.id}: {name}")
        output.facts([(f"  {name}", visible(value)) for name, value in review.facts(view, task)])
        output.say()
    for problem in parsed.problems:
        output.say(f"{'warning' if problem.warning else 'suspended'}: {problem.text(paths.config_file(view.root))}")
    if view.source.rules is not None:
        output.say("rules.md, put before every prompt:")
        output.say("".join(f"  {line}\n" for line in _text(view.source.rules)))
    for line in (*_difference(view), *_self_edit(view)):
        output.say(line)
    output.say(NO_SANDBOX)
    output.say()
    for check in found:
        output.say(check.line())


def _text(data: bytes) -> list[str]:
    return visible(data.decode("utf-8", "replace")).split("\n")


def _difference(view: View) -> Iterator[str]:
    """What changed since the last approval."""
    if view.approved or view.trusted is None or not view.trusted.approvals or view.source is None:
        return
    last = view.trusted.approvals[-1]
    yield f"Changed since it was approved {approver.words(last)}:"
    texts = [("config.json", last.config, view.source.config), ("rules.md", last.rules or "", view.source.rules or b"")]
    for name, before, now in texts:
        old = visible(before).split("\n")
        yield from difflib.unified_diff(old, _text(now), f"approved/{name}", f"now/{name}", lineterm="")
    yield ""


def _self_edit(view: View) -> Iterator[str]:
    """What a run changed that decides over runs, if the project is suspended for it."""
    suspension = _suspension(view)
    if suspension is None:
        return
    yield f"SELF-EDIT: on {suspension.at[:10]} run {suspension.run[:8]} of {visible(suspension.task)} changed"
    yield from (f"  {visible(change)}" for change in suspension.changes)
    yield from map(visible, suspension.difference)
    yield "Undo what you did not want before you say yes: nothing of this is undone by itself."
    yield ""


@click.command()
@project_option
@json_option
@click.pass_obj
def disable(context: Context, /, folder: str | None, as_json: bool) -> None:
    """Stop running this project's tasks. What was approved stays approved; a run under way goes on to its end.

    A project whose folder is gone is forgotten, with what was approved there, once no run of it waits.
    """
    root = _known_root(context, folder)
    forgotten, waiting = False, []
    with trust.lock(context.paths):
        known = trust.read(context.paths)
        project = known.get(root)
        was = project is not None and project.enabled
        if project is not None:
            with contextlib.closing(State(context.paths.state_db, context.now)) as state:
                waiting = [row.run_id for row in state.runs() if row.project == root]
                forgotten = not waiting and not os.path.isdir(root)
                others = {place: one for place, one in known.items() if place != root}
                off = {} if forgotten else {root: dataclasses.replace(project, enabled=False)}
                trust.write(context.paths, {**others, **off})
                state.suspend(root)
    if was or forgotten:
        tell(context, root)
    if as_json:
        output.say_json({"project": root, "enabled": False, "changed": was, "forgotten": forgotten})
    elif forgotten:
        output.say(f"forgotten: {root}, which is gone")
    else:
        output.say(f"disabled: {root}" if was else f"{root} was not enabled")
    if waiting and not os.path.isdir(root) and not as_json:
        output.note(f"it is gone, and not forgotten: a run of it is not over\n  'cancel {waiting[0][:8]}' gives it up")


def _known_root(context: Context, folder: str | None) -> str:
    """The project; also one whose folder is gone, by its path."""
    try:
        return context.root(folder)
    except SchedulerError:
        place = os.path.realpath(folder or os.getcwd())
        if place in trust.read(context.paths):
            return place
        raise
