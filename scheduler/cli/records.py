"""history, stats: what ran, and what it comes to."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import click

from scheduler.cli import output, record
from scheduler.cli.context import Context, json_option
from scheduler.cli.filters import Asked, outcome_option, which_option
from scheduler.core import format as fmt
from scheduler.core import statistics
from scheduler.core.plain import plain
from scheduler.core.query import Query, Run
from scheduler.core.record import Record
from scheduler.errors import SchedulerError, UsageError
from scheduler.execution import ending, process
from scheduler.runner import control
from scheduler.store import history as store
from scheduler.store import search

JQ_SECONDS = 600.0
_COLUMNS = [field.alias or name for name, field in Record.model_fields.items() if name != "runner"]
_FORMULA = ("=", "+", "-", "@")


@click.command()
@which_option
@outcome_option
@click.option("--limit", "-n", type=click.IntRange(0), default=20, show_default=True, help="At most so many; 0: all.")
@click.option("--jsonl", "form", flag_value="jsonl", help="Print JSON, one run a line.")
@click.option("--csv", "form", flag_value="csv", help="Print a table for spreadsheets.")
@click.option("--jq", "program", metavar="FILTER", help="Put the JSON through the system's jq.")
@click.option("--verify", is_flag=True, help="Read every line, and name those that hold no record; exit 1 if some do.")
@json_option
@click.pass_obj
def history(
    context: Context, /, statuses: tuple[str, ...], reasons: tuple[str, ...], limit: int, form: str | None,
    program: str | None, verify: bool, as_json: bool, **which: Any,
) -> int:  # fmt: skip
    """Tell what ran and how it ended, the latest first.

    A run counts once, as its last record says. WHEN is of its start.
    """
    asked = Asked.of(context, statuses=statuses, reasons=reasons, limit=limit or None, **which)
    if sum((as_json, form is not None, program is not None, verify and form is not None)) > 1:
        raise UsageError("--json, --jsonl, --csv and --jq are forms of the same answer", "give one of them")
    if verify:
        return _verify(asked.path, as_json)
    runs = search.newest(context.paths, asked.path, asked.query)
    if form == "jsonl":
        for run in runs:
            click.echo(json.dumps(run, ensure_ascii=True, allow_nan=False, separators=(",", ":")))
    elif form == "csv":
        _print_csv(runs)
    elif program is not None:
        _through_jq(context, program, list(runs))
    else:
        _show(context, asked, list(runs), as_json)
    _note_unreadable(context, asked)
    return 0


def _show(context: Context, asked: Asked, runs: list[Run], as_json: bool) -> None:
    if as_json:
        output.say_json(runs)
    elif runs:
        record.table(runs, context.now, projects=asked.all_projects)
    else:
        output.say("no runs" if os.path.exists(asked.path) else "nothing has run yet")
    under_way = [run for run in runs if run["status"] == "running"]
    if under_way and control.request(context.paths, {"verb": "status"}) is None:
        _note_without_runner(under_way)


def _note_without_runner(under_way: list[Run]) -> None:
    if any(not run.get("reason") for run in under_way):
        output.note("no runner is at work: what stands as running has ended\n  'start' puts its end on record")
    if any(run.get("reason") for run in under_way):
        output.note("no runner is at work: what met a usage limit does not go on\n  'start' has it go on at its end")


def _note_unreadable(context: Context, asked: Asked) -> None:
    bad = search.unreadable(context.paths, asked.path)
    if bad:
        output.note(f"{fmt.count(bad, 'line')} of the history could not be read\n  'history --verify' names them")


def _through_jq(context: Context, program: str, runs: list[Run]) -> None:
    """Print what jq makes of them, and what it complains of, both as it said them."""
    done = process.run(
        # The space keeps a filter such as `-1` from being an option; old versions of jq have no `--`.
        ["jq", "--raw-output", f" {program}"],
        env=context.env,
        input=json.dumps(runs).encode(),
        timeout=JQ_SECONDS,
        check=False,
    )
    said = done.stdout.decode("utf-8", "replace")
    # A raw string may hold anything; a program that reads it gets it as it is, a terminal does not.
    click.echo(plain(said) if sys.stdout.isatty() else said, nl=False)
    if done.stderr:
        output.note(done.stderr.decode("utf-8", "replace").rstrip("\n"))
    if done.returncode:
        code = done.returncode
        how = ending.ended_by(-code) if code < 0 else f"ended with code {code}"
        raise SchedulerError(f"jq {how}", "mend the filter: see `man jq`")


def _print_csv(runs: Iterable[Run]) -> None:
    text = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="", write_through=False)
    try:
        table = csv.writer(text)
        table.writerow(_COLUMNS)
        for run in runs:
            table.writerow([_cell(run.get(name)) for name in _COLUMNS])
    finally:
        text.flush()
        text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "\n".join(map(str, value))
    if not isinstance(value, str):
        return json.dumps(value) if isinstance(value, (dict, bool)) else value
    # Text of programs must not be a formula where a spreadsheet opens it.
    return ("'" if value.startswith(_FORMULA) else "") + plain(value)


def _verify(path: str, as_json: bool) -> int:
    bad = store.Unreadable()
    count = sum(1 for _ in store.read(path, bad))
    if as_json:
        lines = [{"file": file, "line": line} for file, line in bad.lines]
        output.say_json({"history": path, "records": count, "unreadable": lines})
    else:
        for file, line in bad.lines:
            output.say(f"{file}:{line}: no record")
        output.say(f"{fmt.count(count, 'record')}, {fmt.count(len(bad.lines), 'unreadable line')}: {path}")
    return int(bool(bad.lines))


@click.command()
@which_option
@click.option("--by", type=click.Choice(statistics.BY), help="Divide the runs; --by project looks at all projects.")
@json_option
@click.pass_obj
def stats(context: Context, /, by: str | None, as_json: bool, **which: Any) -> None:
    """Tell what the runs come to: how many, how they ended, how long they took, what they cost.

    A run counts once, as its last record says; WHEN is of its start. The success rate is the share of successes among
    successes, failures and timeouts: what was skipped or still runs has no outcome. Durations are of those too. Cost
    and turns are sums over all runs. A streak is of the latest runs with an outcome, by their start; the longest gap
    is between two starts. --by day divides by the date in the record.
    """
    which["all_projects"] = which["all_projects"] or by == "project"
    asked = Asked.of(context, **which)
    found: Any
    if by is not None:
        found = statistics.divided(search.counted(context.paths, asked.path, asked.query), by, context.now)
    elif asked.query == Query():
        found = search.everything(context.paths, asked.path, context.now)
    else:
        runs = search.counted(context.paths, asked.path, asked.query)
        found = statistics.of((one.fact for one in runs), context.now)
    if as_json:
        output.say_json(found)
    elif by is None:
        output.facts(record.summary(found, context.now))
    else:
        record.groups(by, found)
    _note_unreadable(context, asked)
