"""history, logs: what ran, and what it said."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from scheduler.cli import output, record
from scheduler.cli.context import Context, complete_task, json_option, project_option, task_argument
from scheduler.cli.triggers import past_moment
from scheduler.core.record import Reason, Status
from scheduler.disk import files, paths
from scheduler.errors import SchedulerError, UsageError
from scheduler.execution import process
from scheduler.runner import control
from scheduler.store import history as store

TAILS = (1 << 20, 1 << 24)  # bytes at the end of a history that are looked at first
JQ_SECONDS = 60.0
FOLLOW = 0.2  # seconds between two looks at a log that is followed
_WORDS = [str(status) for status in Status]


@click.command()
@click.option("--task", "task_id", metavar="ID", shell_complete=complete_task, help="Runs of this task.")
@click.option("--status", "statuses", multiple=True, type=click.Choice(_WORDS), help="Runs that stand like this.")
@click.option("--reason", "reasons", multiple=True, metavar="REASON", help="Runs with this reason.")
@click.option("--since", metavar="WHEN", help="Runs begun since then: '7d', 'monday', an ISO 8601 time.")
@click.option("--until", metavar="WHEN", help="Runs begun before then.")
@click.option("--limit", "-n", type=click.IntRange(0), default=20, show_default=True, help="At most so many; 0: all.")
@click.option("--all-projects", is_flag=True, help="Runs of every project.")
@click.option("--jq", "query", metavar="FILTER", help="Put the JSON through the system's jq.")
@project_option
@json_option
@click.pass_obj
def history(
    context: Context, /, task_id: str | None, statuses: tuple[str, ...], reasons: tuple[str, ...], since: str | None,
    until: str | None, limit: int, all_projects: bool, query: str | None, folder: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell what ran and how it ended, the latest first."""
    for reason in reasons:
        _check_reason(reason)
    first, last = (None if text is None else past_moment(text, context.now).timestamp() for text in (since, until))

    def wanted(run: dict[str, Any]) -> bool:
        if task_id not in (None, run["taskId"]) or (statuses and run["status"] not in statuses):
            return False
        if reasons and run.get("reason") not in reasons:
            return False
        began = store.started(run)
        return (first is None or began >= first) and (last is None or began < last)

    path = context.paths.global_history if all_projects else paths.history_file(context.root(folder))
    runs = _latest(path, wanted, limit)
    if query is not None:
        click.echo(_through_jq(context, query, runs), nl=False)
    elif as_json:
        output.say_json(runs)
    elif runs:
        record.table(runs, context.now, projects=all_projects)
    else:
        output.say("no runs" if os.path.exists(path) else "nothing has run yet")
    if any(run["status"] == "running" for run in runs) and control.request(context.paths, {"verb": "status"}) is None:
        output.note("no runner is at work: what stands as running has ended\n  'start' puts its end on record")


def _latest(path: str, wanted: Callable[[dict[str, Any]], bool], limit: int) -> list[dict[str, Any]]:
    """The runs that are wanted, the latest first; of a long history only the end is read where that is enough."""
    for tail in TAILS if limit else ():
        found = [run for run in store.fold(store.read_tail(path, tail)) if wanted(run)]
        if len(found) >= limit:
            break
    else:
        found = [run for run in store.fold(store.read(path)) if wanted(run)]
    found.sort(key=store.started, reverse=True)
    return found[:limit] if limit else found


def _check_reason(reason: str) -> None:
    if reason not in [str(known) for known in Reason]:
        raise UsageError(f"there is no reason {reason!r:.60}", f"the reasons are {', '.join(map(str, Reason))}")


def _through_jq(context: Context, query: str, runs: list[dict[str, Any]]) -> str:
    done = process.run(
        # The space keeps a filter such as `-1` from being an option; old versions of jq have no `--`.
        ["jq", "--raw-output", f" {query}"],
        env=context.env,
        input=json.dumps(runs).encode(),
        timeout=JQ_SECONDS,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SchedulerError(f"jq failed: {said[0] if said else done.returncode}", "mend the filter: see `man jq`")
    return done.stdout.decode("utf-8", "replace")


@click.command()
@task_argument
@click.option("--follow", "-f", is_flag=True, help="Go on, as it is written.")
@click.option("--lines", "-n", type=click.IntRange(0), default=50, show_default=True, help="So many of the last lines.")
@click.option("--error", is_flag=True, help="What it wrote to standard error.")
@click.option("--run", "run_id", metavar="RUN", help="Only what this run said.")
@project_option
@json_option
@click.pass_obj
def logs(
    context: Context, /, task_id: str, follow: bool, lines: int, error: bool, run_id: str | None, folder: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Tell what the task ID said."""
    if follow and as_json:
        raise UsageError("--json is of what was said, --follow of what will be", "give one of them")
    root = context.root(folder)
    path = paths.task_log(root, task_id, error=error)
    wanted = None if run_id is None else record.find(root, run_id)["id"][:8]
    if not follow and not os.path.exists(path) and not files.rotated(path):
        raise SchedulerError(f"there is no {'error ' if error else ''}log of {task_id!r:.80} yet", "see 'history'")
    end = os.path.getsize(path) if os.path.exists(path) else 0
    found = _tail(path, end, lines, wanted)
    if as_json:
        output.say_json([_parts(line) for line in found])
        return
    for line in found:
        output.say(line)
    if follow:
        for line in _follow(path, end):
            if wanted is None or _is_of(line, wanted):
                output.say(line)


def _tail(path: str, end: int, count: int, run: str | None) -> list[str]:
    """The last lines before byte `end` of a log, and of its rotated parts; those of one run (eight characters)."""
    found: list[str] = []
    for part in (path, *reversed(files.rotated(path))):
        if len(found) >= count:
            break
        try:
            with open(part, "rb") as file:
                data = file.read(end if part == path else -1)
        except FileNotFoundError:
            continue
        lines = map(_text, data.split(b"\n")[:-1])
        mine = [line for line in lines if run is None or _is_of(line, run)]
        found = mine[max(len(mine) - (count - len(found)), 0) :] + found
    return found


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _is_of(line: str, run: str) -> bool:
    return line.partition("] [")[2].startswith(f"{run}]")


def _parts(line: str) -> dict[str, str]:
    """A line as JSON; one that was not written by us is text alone."""
    when, bracket, rest = line.partition("] [")
    run, end, text = rest.partition("] ")
    if not (bracket and end and when.startswith("[")):
        return {"text": line}
    return {"time": when[1:], "run": run, "text": text}


def _follow(path: str, begin: int) -> Iterator[str]:
    """The lines from byte `begin` on, as they come, through rotations, for ever."""
    file = _open(path)
    if file is not None:
        file.seek(begin)
    rest = b""
    while True:
        # Looked up before the read: once a file is renamed nobody writes to it, so the read after that is its last.
        later = _later(file, path)
        data = file.read() if file is not None else b""
        *whole, rest = (rest + data).split(b"\n")
        yield from map(_text, whole)
        if later is not None:
            if file is not None:
                file.close()
            file, rest = later, b""
        elif not data:
            time.sleep(FOLLOW)


def _later(file: Any, path: str) -> Any:
    """The part of the log that comes after `file`, opened; None while there is none."""
    if file is None:
        return _open(path)
    parts = [*files.rotated(path), path]
    at = next((at for at, part in enumerate(parts) if _is_same(file, part)), None)
    if at is None:  # removed by the retention
        return _open(path)
    return _open(parts[at + 1]) if at + 1 < len(parts) else None


def _open(path: str) -> Any:
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        return None


def _is_same(file: Any, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
