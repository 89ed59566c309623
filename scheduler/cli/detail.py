"""All that is known of one run: its record, the agent's answer, the last it said, and what it changed."""

from __future__ import annotations

from itertools import islice

from scheduler.cli import output, record
from scheduler.cli.context import Context
from scheduler.cli.logs import last_lines
from scheduler.cli.runs import RESULT_LIMIT, ends
from scheduler.core import format as fmt
from scheduler.core.query import Run
from scheduler.disk import files, paths
from scheduler.errors import SchedulerError
from scheduler.execution import branches, git

SHOWN = 200  # lines of the difference, and of the answer
SAID = 20  # last lines of each log


def show_run(context: Context, root: str, run: Run, as_json: bool) -> None:
    """Print it."""
    answer = _answer(root, run)
    said = {name: _said(root, run, error=name == "errorLog") for name in ("log", "errorLog")}
    patch, why = _patch(context, root, run)
    if as_json:
        output.say_json({**run, "answer": answer, **said, "patch": patch, "whyNoPatch": why})
        return
    output.facts(record.lines(run, context.now))
    short = run["id"][:8]
    for title, text, verb in (
        ("answer", answer or "", f"result {short}"),
        ("log", "\n".join(said["log"]), f"logs {run['taskId']} --run {short}"),
        ("error log", "\n".join(said["errorLog"]), f"logs {run['taskId']} --error --run {short}"),
        ("changes", patch or "", f"diff {short}"),
    ):
        if text:
            _section(title, text, verb)
    if why:
        output.say(f"\nchanges: {why}")


def _section(title: str, text: str, verb: str) -> None:
    lines = text.rstrip("\n").split("\n")
    output.say(f"\n{title} ('{verb}')")
    for line in islice(lines, SHOWN):
        output.say(f"  {line}")
    if len(lines) > SHOWN:
        output.say(f"  … {fmt.count(len(lines) - SHOWN, 'more line')}")


def _answer(root: str, run: Run) -> str | None:
    try:
        return files.read_bounded(paths.result_file(root, run["id"]), RESULT_LIMIT).decode("utf-8", "replace")
    except (OSError, SchedulerError):  # none was kept, or another scheduler's run had an id of another kind
        return None


def _said(root: str, run: Run, *, error: bool) -> list[str]:
    try:
        return last_lines(paths.task_log(root, run["taskId"], error=error), SAID, run["id"][:8])
    except SchedulerError:
        return []


def _patch(context: Context, root: str, run: Run) -> tuple[str | None, str | None]:
    """What it changed, or why that cannot be shown."""
    if run["status"] == "running":
        return None, "the run is still under way"
    if run["status"] == "skipped" or run.get("reason") == "no-changes":
        return None, None
    try:
        project = git.find_project(root, context.env)
        return branches.patch(project, *ends(project, run)).decode("utf-8", "replace"), None
    except SchedulerError as error:
        return None, error.message
