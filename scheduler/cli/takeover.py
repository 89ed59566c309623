"""import: tasks and history of another scheduler for Claude Code."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from scheduler.cli import output
from scheduler.cli.change import change
from scheduler.cli.context import Context, json_option, project_option
from scheduler.cli.tasks import free_id
from scheduler.cli.triggers import local_zone
from scheduler.core import foreign
from scheduler.core import format as fmt
from scheduler.core.record import Record
from scheduler.core.redact import Redactor, known_values
from scheduler.disk import files, paths
from scheduler.disk.paths import is_task_id
from scheduler.errors import SchedulerError
from scheduler.runner import upkeep
from scheduler.store import config, history, segments
from scheduler.store.config import prepare_logs

NAMES = ("schedules.json", "execution-history.jsonl")
LIMIT = 1 << 30


@click.command("import")
@click.argument("names", metavar="[FILE]...", nargs=-1)
@project_option
@json_option
@click.pass_obj
def take_over(context: Context, /, names: tuple[str, ...], folder: str | None, as_json: bool) -> None:
    """Take over the tasks and the history of another scheduler: its schedules.json, its execution-history.jsonl.

    Without FILE both are looked for in the client's folder, ~/.claude. Tasks that worked in this project become tasks
    of it, switched off until you switch each on; runs of any project go into the history of all, those of this one
    into its own too. Done twice, it changes nothing more. The other scheduler keeps all that it has.
    """
    root = context.root(folder)
    found = [Path(name) for name in names] or [Path(context.paths.claude, name) for name in NAMES]
    there = [path for path in found if names or path.exists()]
    if not there:
        raise SchedulerError(f"there is no {' and no '.join(NAMES)} in {context.paths.claude}", "name the files")
    told: dict[str, Any] = {"tasks": [], "runs": 0, "notes": []}
    for path in there:
        try:
            _take(context, root, path, told)
        except SchedulerError as error:
            if path == there[0]:
                raise
            told["notes"].append(error.message)  # what came before it is taken over, and must be told
    if as_json:
        output.say_json(told)
        return
    for task_id in told["tasks"]:
        output.say(f"{task_id} is a task now, switched off")
    output.say(f"{fmt.count(len(told['tasks']), 'task')} and {fmt.count(told['runs'], 'run')} taken over")
    for note in told["notes"]:
        output.note(note)
    if told["tasks"]:
        output.note("switch each on with 'edit ID --enabled' once the other scheduler has let go of it: it runs it too")


def _take(context: Context, root: str, path: Path, told: dict[str, Any]) -> None:
    raw = files.read_bounded(path, LIMIT)
    schedules = _schedules(raw)
    if schedules is None:
        told["runs"] += _take_runs(context, root, path, raw, told["notes"])
    else:
        told["tasks"] += _take_tasks(context, root, path, schedules, told["notes"])


def _schedules(raw: bytes) -> dict[str, Any] | None:
    """The object of a schedules.json; None where the file is something else."""
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("tasks"), list) else None


def _take_tasks(context: Context, root: str, path: Path, raw: Mapping[str, Any], notes: list[str]) -> list[str]:
    settings = raw.get("settings")
    zone = settings.get("defaultTimezone") if isinstance(settings, dict) else None
    zone = zone if isinstance(zone, str) and zone != "local" else local_zone()
    there, used = _ids(root), set[str]()
    new: list[dict[str, Any]] = []
    for one in raw["tasks"]:
        name = str(one.get("name") or one.get("id")) if isinstance(one, dict) else "an entry"
        task_id = _id(one, name, used)
        used.add(task_id)
        if task_id in there:
            notes.append(f"{name:.80} is here already, as {task_id}")
            continue
        try:
            new.append(_entry(root, path, one, zone, task_id, notes))
        except SchedulerError as error:
            notes.append(f"{name:.80} ({task_id}) is not taken over: {error.message}")
    if new:
        change(context, root, lambda entries: entries.extend(new))
    return [entry["id"] for entry in new]


def _ids(root: str) -> set[str]:
    """The ids that are in use in the project's config."""
    try:
        raw = json.loads(config.read_source(root).config.decode("utf-8-sig"))
    except config.ConfigAbsent:
        return set()
    except ValueError:
        raise SchedulerError(f"{paths.config_file(root)} is no JSON", "see 'check'") from None
    entries = raw.get("tasks") if isinstance(raw, dict) else None
    found = (entry.get("id") for entry in entries or () if isinstance(entry, dict))
    return {task_id for task_id in found if isinstance(task_id, str)}


def _id(raw: Any, name: str, used: Collection[str]) -> str:
    """The id of a task, the same each time the file is read: its own, or one that is made from its name."""
    given = raw.get("id") if isinstance(raw, dict) else None
    given = given.lower() if isinstance(given, str) else ""
    return free_id(given if is_task_id(given) else name, used)


def _entry(root: str, path: Path, raw: Any, zone: str, task_id: str, notes: list[str]) -> dict[str, Any]:
    """The raw task of ours."""
    found = foreign.task(raw, zone, task_id)
    begin = path.resolve().parent.parent if path.resolve().parent.name == ".claude" else Path(root)
    folder = os.path.realpath(begin / found.folder) if found.folder != "." else root
    if folder != root and not folder.startswith(root + os.sep):
        raise SchedulerError(f"it works in {folder}: import it there")
    if folder != root:
        notes.append(f"{task_id} worked in {os.path.relpath(folder, root)}; here it begins at the top of its worktree")
    notes += [f"{task_id}: {note}" for note in found.notes]
    return found.entry


def _take_runs(context: Context, root: str, path: Path, raw: bytes, notes: list[str]) -> int:
    """Put the runs of a history that are not known yet into ours; how many they are."""
    redactor = Redactor(known_values(context.env, {}))
    read = (history.parse(line) for line in raw.split(b"\n"))
    records: list[Record] = []
    refused: dict[str, int] = {}
    for one in history.fold(run for run in read if run is not None):
        try:
            records.append(foreign.record(one, context.now, redactor.text))
        except SchedulerError as error:
            refused[error.message] = refused.get(error.message, 0) + 1
    notes += [f"{fmt.count(count, 'run')} of {path} not taken over: {why}" for why, count in refused.items()]
    if not records and not refused:
        raise SchedulerError(f"{path} is neither a schedules.json nor a history", "name another file")
    with files.locked(upkeep.lock(context.paths), timeout=60):
        own = [record for record in records if os.path.realpath(record.project) == root]
        if own:
            prepare_logs(root)
            _insert(paths.history_file(root), own)
        return _insert(context.paths.global_history, records)


def _insert(path: str, records: Iterable[Record]) -> int:
    wanted = {record.id: record for record in records}
    for known in history.read(path):
        wanted.pop(known["id"], None)
    lines: list[tuple[datetime, bytes]] = []
    for record in wanted.values():
        lines.append((record.completed_at or record.started_at, history.to_line(record.to_json())))
    segments.insert(path, lines)
    return len(lines)
