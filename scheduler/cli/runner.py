"""start, stop, restart, run, cancel, retry: what the runner is asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from scheduler.cli import matters, output, record
from scheduler.cli.context import Context, json_option, project_option, run_argument, task_argument
from scheduler.cli.view import look, off_hold
from scheduler.core import format as fmt
from scheduler.core.limits import Cause
from scheduler.disk.switch import mend
from scheduler.errors import SchedulerError
from scheduler.execution import overview
from scheduler.runner import control
from scheduler.store import history

LOOK = 0.1  # seconds between two looks at what is waited for
STOP_PATIENCE = 60.0  # seconds that cancelled runs get to be rolled back


@click.command()
@json_option
@click.pass_obj
def start(context: Context, /, as_json: bool) -> None:
    """Start the runner, if it is not at work."""
    _tell_started(context, control.ensure_runner(context.paths, context.env), as_json)


def _tell_started(context: Context, status: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.say_json({"pid": status["pid"], "version": status["version"], "startedAt": status["startedAt"]})
    else:
        output.say(f"the runner is at work (pid {status['pid']}, version {status['version']})")
        matters.tell_standstill(context)


@click.command()
@click.option("--now", is_flag=True, help="Cancel what runs; its work is rolled back and kept.")
@json_option
@click.pass_obj
def stop(context: Context, /, now: bool, as_json: bool) -> None:
    """Stop the runner, once the runs under way have ended. The next session in an enabled project starts it again."""
    was = end_runner(context, now=now)
    if as_json:
        output.say_json({"stopped": was})
    else:
        output.say("the runner has stopped" if was else "no runner was at work")


@click.command()
@click.option("--now", is_flag=True, help="Cancel what runs; its work is rolled back and kept.")
@json_option
@click.pass_obj
def restart(context: Context, /, now: bool, as_json: bool) -> None:
    """Stop the runner, as `stop` does, and start it again, with the environment of this terminal."""
    end_runner(context, now=now)
    _tell_started(context, control.ensure_runner(context.paths, context.env), as_json)


def end_runner(context: Context, *, now: bool) -> bool:
    """Ask the runner to stop and wait until it is gone; whether there was one."""
    status = control.request(context.paths, {"verb": "status"})
    if status is None or control.request(context.paths, {"verb": "stop", "now": now}) is None:
        return False
    running = status["running"]
    if running and not now:
        ids = ", ".join(f"{run['taskId']} ({run['runId'][:8]})" for run in running)
        output.note(f"waiting for {fmt.count(len(running), 'run')}: {ids}; 'stop --now' cancels")

    def gone() -> bool:  # who else waits for its end may have started another by now
        answer = control.request(context.paths, {"verb": "status"})
        return answer is None or answer["pid"] != status["pid"]

    if not _wait(gone, STOP_PATIENCE if now else None):
        raise SchedulerError(f"the runner (pid {status['pid']}) does not stop", f"see {context.paths.runner_log}")
    return True


def _wait(look_for: Callable[[], Any], patience: float | None) -> Any:
    """What `look_for` gives, once that is something; its last answer when `patience` seconds are over."""
    end = None if patience is None else time.monotonic() + patience
    while True:
        found = look_for()
        if found or (end is not None and time.monotonic() > end):
            return found
        time.sleep(LOOK)


@click.command()
@task_argument
@click.option("--wait", is_flag=True, help="Wait for its end; exit 1 unless it is a success.")
@project_option
@json_option
@click.pass_obj
def run(context: Context, /, task_id: str, wait: bool, folder: str | None, as_json: bool) -> int:
    """Run the task ID now. It waits its turn where the runner is busy; a disabled task runs too."""
    root = context.root(folder)
    return _order(context, root, {"task": task_id}, wait, as_json)


@click.command()
@run_argument
@click.option("--wait", is_flag=True, help="Wait for its end; exit 1 unless it is a success.")
@project_option
@json_option
@click.pass_obj
def retry(context: Context, /, run_id: str, wait: bool, folder: str | None, as_json: bool) -> int:
    """Run again what the run RUN was for, with the task as it is now."""
    root = context.root(folder)
    old = record.find(context.paths, root, run_id)
    return _order(context, root, {"task": old["taskId"], "retryOf": old["id"]}, wait, as_json)


def _order(context: Context, root: str, what: dict[str, str], wait: bool, as_json: bool) -> int:
    view = look(context, root)
    idle = view.why_idle()
    if idle is not None:
        raise SchedulerError(*idle)
    off = off_hold(context)
    if off is not None:
        raise SchedulerError(f"the scheduler is {off.words()}: nothing starts", mend(off.by))
    task = view.usable().task(what["task"])
    for hold in view.holds(task):
        if hold.cause is Cause.USAGE_LIMIT and not as_json:
            output.note(f"it will wait: {output.hold(hold, context.now)}")
    control.ensure_runner(context.paths, context.env)
    answer = control.request(context.paths, {"verb": "run", "project": root, **what})
    if answer is None:
        raise SchedulerError("the runner has stopped meanwhile", "run the command again")
    run_id: str = answer["runId"]
    if not wait:
        if as_json:
            output.say_json({"runId": run_id, "task": what["task"]})
        else:
            output.say(f"run {run_id[:8]} of {what['task']} is on its way: see 'status' and 'logs {what['task']} -f'")
        return 0
    if not as_json:
        output.note(f"run {run_id[:8]} of {what['task']} is on its way")
    return _tell_end(_await_end(context, root, run_id), as_json)


def _await_end(context: Context, root: str, run_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        alive = control.request(context.paths, {"verb": "status"}) is not None
        found = [one for one in overview.recent_runs(root) if one["id"] == run_id and one["status"] != "running"]
        if not found and not alive:
            raise SchedulerError("the runner is gone", f"see {context.paths.runner_log}; 'start' settles the run")
        return found[0] if found else None

    final: dict[str, Any] = _wait(ended, None)
    return final


def _tell_end(final: dict[str, Any], as_json: bool) -> int:
    if as_json:
        output.say_json(final)
    else:
        output.facts(record.lines(final, Context.current().now))
    return int(final["status"] != "success")


@click.command()
@run_argument
@json_option
@click.pass_obj
def cancel(context: Context, /, run_id: str, as_json: bool) -> None:
    """Stop the run RUN, or take it off the queue. What it did is rolled back, and kept: see 'adopt'."""
    status = control.request(context.paths, {"verb": "status"})
    if status is None:
        raise SchedulerError("no runner is at work, so nothing runs", "see 'history'")
    known = (*status["running"], *status["queued"], *status.get("waiting", ()))
    going = [{"id": one["runId"], "taskId": one["taskId"]} for one in known]
    found = history.find_run(going, run_id) if going else None
    if found is None:
        raise SchedulerError("nothing runs and nothing waits", "see 'history'")
    control.request(context.paths, {"verb": "cancel", "runId": found["id"]})
    if as_json:
        output.say_json({"cancelled": found["id"], "task": found["taskId"]})
    else:
        output.say(f"run {found['id'][:8]} of {found['taskId']} is being stopped")
