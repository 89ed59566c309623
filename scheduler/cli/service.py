"""service: the operating system keeps the runner alive, over reboots and after it was killed."""

from __future__ import annotations

import time
from typing import Any

import click

from scheduler.cli import output
from scheduler.cli.context import Context, json_option, refuse_inside_run
from scheduler.cli.runner import end_runner
from scheduler.cli.view import user_settings
from scheduler.core import format as fmt
from scheduler.core.units import STARTED_BY
from scheduler.errors import SchedulerError
from scheduler.runner import control
from scheduler.runner import service as services
from scheduler.runner.service import Service
from scheduler.store import ownenv

LOOK = 0.1  # seconds between two looks at what is waited for


@click.group()
def service() -> None:
    """Keep the runner alive over reboots, by systemd or launchd."""


@service.command()
@json_option
@click.pass_obj
def install(context: Context, /, as_json: bool) -> int:
    """Have the operating system start the runner at each log-in, and again when it was killed.

    Run it again after a change of the PATH or of another variable that the runner should see.
    """
    refuse_inside_run(context.env, "service install")
    mine = services.of(context.paths, context.env)
    mine.check()
    own = ownenv.read(context.paths)
    launcher, left_out = services.launcher(context.paths, context.env, user_settings(context).env_pass)
    left_out = [name for name in left_out if name not in own]
    changed = mine.write(launcher)
    try:
        if changed or mine.look().enabled is not True:
            mine.switch_on()
        before = control.request(context.paths, {"verb": "status"})
        ours = before is not None and before.get("startedBy") == STARTED_BY
        if ours and changed:
            end_runner(context, now=False)
        mine.start()
    except SchedulerError:
        if changed and not mine.look().active:
            mine.remove()
        raise
    waiting = None if before is None or ours else _ask_to_give_way(context, before)
    _wait_for_own(context, patience=0.5 if waiting else control.START_TIMEOUT)
    answer = {**_standing(context, mine), "changed": changed, "notGiven": left_out}
    up = answer["runner"] is not None
    if as_json:
        output.say_json(answer)
        return int(not up)
    output.say(f"the service {'is installed' if changed else 'was installed already'}: {mine.file}")
    _say_runner(answer["runner"])
    if waiting:
        output.note(waiting)
    if left_out:
        output.note(
            f"not written down for it, for they may be secret: {', '.join(left_out)}\n"
            f"  put what runs need into {context.paths.runner_env} (chmod 600), a line each: NAME=value; then 'restart'"
        )
    _advise_linger(answer)
    if not up:
        output.note(f"its runner has not come up\n  see {context.paths.runner_log}; then 'start'")
    return int(not up)


def _ask_to_give_way(context: Context, old: dict[str, Any]) -> str | None:
    """Have a runner that was started otherwise end; what is to be said where that takes a while."""
    control.request(context.paths, {"verb": "stop", "now": False})
    if not old["running"]:
        return None
    runs = fmt.count(len(old["running"]), "run")
    return f"the runner that was there (pid {old['pid']}) ends with its {runs}; that of the service takes over then"


def _wait_for_own(context: Context, patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = control.request(context.paths, {"verb": "status"})
        if found is not None and found.get("startedBy") == STARTED_BY:
            return
        time.sleep(LOOK)


@service.command()
@click.option("--now", is_flag=True, help="Cancel what runs; its work is rolled back and kept.")
@json_option
@click.pass_obj
def uninstall(context: Context, /, now: bool, as_json: bool) -> None:
    """Take the service away, and end its runner once the runs under way have ended."""
    refuse_inside_run(context.env, "service uninstall")
    mine = services.of(context.paths, context.env)
    was = mine.installed
    problem = None
    if was:
        runner = control.request(context.paths, {"verb": "status"})
        if runner is not None and runner.get("startedBy") == STARTED_BY:
            end_runner(context, now=now)
        try:
            mine.switch_off()
        except SchedulerError as error:
            problem = error.message
    mine.remove()
    if as_json:
        output.say_json({"uninstalled": was, "problem": problem})
        return
    output.say("the service is gone" if was else "no service was installed")
    if problem is not None:
        output.note(
            f"its files are removed, but the manager could not be told: {problem}\n  it forgets at the next log-in"
        )
    elif was:
        output.note(
            "tasks run while a runner is at work: the next session in an enabled project starts one, or 'start'"
        )


@service.command()
@json_option
@click.pass_obj
def status(context: Context, /, as_json: bool) -> None:
    """Tell whether the service is installed and runs, and which runner is at work."""
    mine = services.of(context.paths, context.env)
    answer = _standing(context, mine)
    if as_json:
        output.say_json(answer)
        return
    if not answer["installed"]:
        output.say(f"no service is installed ({mine.manager}); 'service install' keeps the runner alive over reboots")
    else:
        output.say(f"the service is installed ({mine.manager}): {mine.file}")
        if answer["problem"]:
            output.note(f"{mine.manager} does not answer: {answer['problem']}")
        else:
            output.say(
                f"it is {'running' if answer['active'] else 'not running: '}{'' if answer['active'] else _why(answer)}"
            )
            if not answer["enabled"]:
                output.note("it is not started at log-in\n  'service install' switches that on")
        if not answer["current"]:
            output.note("its files are not those of this version\n  'service install' writes them anew")
        _advise_linger(answer)
    _say_runner(answer["runner"])


def _why(answer: dict[str, Any]) -> str:
    return (
        "it was stopped, or failed to start; 'start' starts it"
        if answer["runner"] is None
        else "another runner is at work"
    )


def _standing(context: Context, mine: Service) -> dict[str, Any]:
    """How the service stands, and which runner is at work."""
    found = mine.look()
    launcher, _ = services.launcher(context.paths, context.env, ())
    runner = control.request(context.paths, {"verb": "status"})
    return {
        "manager": mine.manager,
        "installed": mine.installed,
        "file": mine.file,
        "launcher": context.paths.service_launcher,
        "current": mine.is_current(launcher) if mine.installed else None,
        "active": found.active,
        "enabled": found.enabled,
        "problem": found.problem,
        "lingers": mine.lingers(),
        "runner": runner
        and {
            "pid": runner["pid"],
            "version": runner["version"],
            "byService": runner.get("startedBy") == STARTED_BY,
        },
    }


def _say_runner(runner: dict[str, Any] | None) -> None:
    if runner is None:
        output.say("no runner is at work")
    else:
        by = "the service" if runner["byService"] else "hand or by a session"
        output.say(f"the runner is at work (pid {runner['pid']}, version {runner['version']}, started by {by})")


def _advise_linger(answer: dict[str, Any]) -> None:
    if answer["installed"] and answer["lingers"] is False:
        output.note("it runs while you are logged in\n  from the machine's start to its end: loginctl enable-linger")
