"""`execution-history.jsonl`: one record a line, only ever appended to; the last line of an id is its state.

A record goes to the project's file first, then to the global one. Lines are strict JSON in ASCII escapes, at most
64 KB. Reading skips what is no record and counts it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from scheduler.core.record import Record
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.store.config import prepare_logs

LINE_LIMIT = 64 * 1024
_LONG = ("output", "error")
_CUT = " [cut]"


@dataclass
class Unreadable:
    """Lines that are no record, as (file, line number from 1)."""

    lines: list[tuple[str, int]] = field(default_factory=list)


def append(where: Paths, record: Record) -> None:
    """Put one record into the project's and the global history; a final one waits for the disk. Raises OSError."""
    line = to_line(record.to_json())
    final = record.completed_at is not None
    prepare_logs(record.project)
    files.append(paths.history_file(record.project), line, durable=final)
    files.make_folder(where.logs)
    files.append(where.global_history, line, durable=final)


def to_line(record: dict[str, Any]) -> bytes:
    """The line of a record, its long fields cut until it is at most 64 KB."""
    room = LINE_LIMIT
    while True:
        line = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(line) <= LINE_LIMIT:
            return line
        room //= 2
        cut = {name: record[name][:room] + _CUT for name in _LONG if len(record.get(name) or "") > room}
        notes = record.get("notes")
        if notes:
            cut["notes"] = [note[: max(room // 16, 80)] for note in notes[: max(room // 1024, 1)]]
        record = {**record, **cut}
        if room < 64:
            raise SchedulerError("a record is too long to be written", "shorten the task's name")


def read(path: str, unreadable: Unreadable | None = None) -> Iterator[dict[str, Any]]:
    """Every line of one history file that holds a record, oldest first; nothing where there is no file."""
    try:
        file = open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        return
    with file:
        for number, line in enumerate(file, 1):
            record = _record(line)
            if record is not None:
                yield record
            elif unreadable is not None and line.strip():
                unreadable.lines.append((path, number))


def _record(line: bytes) -> dict[str, Any] | None:
    if len(line) > 4 * LINE_LIMIT:
        return None
    try:
        value = orjson.loads(line)
    except (orjson.JSONDecodeError, RecursionError):
        return None
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in _MUST):
        return None
    return value


_MUST = ("id", "taskId", "project", "startedAt", "status")


def fold(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The state of each id, in the order in which the ids began."""
    state: dict[str, dict[str, Any]] = {}
    for record in records:
        state[record["id"]] = record
    return list(state.values())


def started(record: dict[str, Any]) -> float:
    """When a run began, for sorting: seconds since 1970, 0 where the record does not tell it rightly."""
    try:
        return datetime.fromisoformat(record["startedAt"]).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def find_run(records: Iterable[dict[str, Any]], prefix: str) -> dict[str, Any]:
    """The one run whose id begins with `prefix` (at least four characters). SchedulerError when none or several do."""
    if len(prefix) < 4:
        raise SchedulerError(f"{prefix!r} is too short for a run's id", "give at least its first four characters")
    found = [record for record in records if record["id"].startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise SchedulerError(f"no run {prefix!r:.60} in the history", "see 'history'")
    raise SchedulerError(f"{len(found)} runs begin with {prefix!r:.60}", "give more characters of the id")


def read_tail(path: str, size: int) -> Iterator[dict[str, Any]]:
    """The records in the last `size` bytes of one history file, oldest first; a line that is cut there is left out."""
    try:
        file = open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        return
    with file:
        start = max(file.seek(0, os.SEEK_END) - size, 0)
        file.seek(start)
        if start:
            file.readline()
        for line in file:
            record = _record(line)
            if record is not None:
                yield record
