"""`execution-history.jsonl`: one record a line, only ever appended to; the last line of an id is its state.

A record goes to the project's file first, then to the global one. Lines are strict JSON in ASCII escapes, at most
64 KB. Reading goes through all parts of a history (store/reading.py), skips what is no record and counts it.
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
from scheduler.core.when import from_iso
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.store import reading, segments
from scheduler.store.config import prepare_logs

LINE_LIMIT = 64 * 1024
_WHOLE = frozenset("id taskId project status startedAt completedAt".split())  # what a record is not found without
_CUT = " [cut]"


@dataclass
class Unreadable:
    """Lines that are no record, as (file, line number from 1)."""

    lines: list[tuple[str, int]] = field(default_factory=list)


def append(where: Paths, record: Record, done: set[str] | None = None) -> None:
    """Put one record into the project's and the global history; a final one waits for the disk.

    Raises OSError where it was not written to both; `done` then has those that it was written to, which the next try
    leaves out. NotDurable where it was, but the disk did not confirm it: then the record says so in a note, and there
    is nothing to try again.
    """
    done = set() if done is None else done
    final = record.completed_at is not None
    histories = [where.global_history]
    if os.path.isdir(record.project):  # one that was removed does not come back for its history
        prepare_logs(record.project)
        histories.insert(0, paths.history_file(record.project))
    files.make_folder(where.logs)
    doubt = None
    for path in histories:
        if path in done:
            continue
        try:
            append_lines(path, to_line(record.to_json()), durable=final)
        except files.NotDurable as error:
            doubt = error
        done.add(path)
    if doubt is not None:
        note = f"the disk did not confirm that this record is kept: {doubt.strerror}"
        marked = to_line(record.evolve(notes=(*(record.notes or ()), note)).to_json())
        for path in histories:
            append_lines(path, marked)
        raise doubt


def append_lines(path: str, lines: bytes, *, durable: bool = False) -> None:
    """Append whole lines to a history; one that is full becomes a part before. Raises OSError."""
    files.append(path, lines, durable=durable, limit=segments.LIMIT, part=segments.next_name)


def complete_global(where: Paths, projects: Iterable[str], now: datetime) -> int:
    """Put into the global history the lines that a crash between the two writes kept from it; how many there were.

    Raises OSError.
    """
    missing = missing_in_global(where, projects, now)
    if missing:
        append_lines(where.global_history, b"\n".join([*missing, b""]), durable=True)
    return len(missing)


def missing_in_global(where: Paths, projects: Iterable[str], now: datetime) -> list[bytes]:
    """Those lines. They are later than what the global history ends with, but for what stood still meanwhile."""
    last = list(read_tail(where.global_history, 2 * LINE_LIMIT))[-1:]
    since = min(max(map(_written, last), default=0.0), now.timestamp()) - 86400
    recent = [_recent(project, since) for project in projects]
    wanted = {line for lines in recent for line in lines}
    present: set[bytes] = set()
    for _, file in reading.read(where.global_history, newest_first=True):
        present.update(wanted.intersection(line.rstrip(b"\n") for line in reading.lines(file)))
        if all(present.intersection(lines) for lines in recent if lines):
            break
    return [line for lines in recent for line in _after(lines, present)]


def _recent(project: str, since: float) -> list[bytes]:
    read = ((line, parse(line)) for line in reading.tail(paths.history_file(project), 4 * LINE_LIMIT))
    # What a history that came with a repository says of other projects is not believed.
    ours = ((line, record) for line, record in read if record is not None and record["project"] == project)
    return [line for line, record in ours if _written(record) >= since]


def _after(lines: list[bytes], present: set[bytes]) -> list[bytes]:
    """The lines behind the last one that is present: all before it were written before it."""
    count = next((number for number, line in enumerate(reversed(lines)) if line in present), len(lines))
    return lines[len(lines) - count :]


def _written(record: dict[str, Any]) -> float:
    return _seconds(record.get("completedAt")) or started(record)


def to_line(record: dict[str, Any]) -> bytes:
    """The line of a record, its long fields cut, and marked so, until it is at most 64 KB."""
    room, short = LINE_LIMIT, record
    while True:
        line = _dump(short).encode() + b"\n"
        if len(line) <= LINE_LIMIT:
            return line
        room //= 2
        if room < 64:
            raise SchedulerError("a record is too long to be written", "shorten the path of the project")
        short = {**record, **_shortened(record, room)}


def _dump(record: dict[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    if "\\ud" in text:  # half of a pair of surrogates, as a strange file name has it, would make the line no JSON
        sound = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        text = json.dumps(json.loads(sound), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text


def _shortened(record: dict[str, Any], room: int) -> dict[str, Any]:
    """The fields that are longer than `room` characters, as much as there is room for."""
    texts = {name: text for name, text in record.items() if isinstance(text, str) and name not in _WHOLE}
    cut: dict[str, Any] = {name: text[:room] + _CUT for name, text in texts.items() if len(text) > room}
    notes, each, count = record.get("notes") or [], max(room // 16, 80), max(room // 1024, 1)
    if notes:
        kept = [note if len(note) <= each else note[:each] + _CUT for note in notes[:count]]
        left = f"{len(notes) - count} notes left out{_CUT}"
        cut["notes"] = [*kept, left] if len(notes) > count else kept
    return cut


def read(path: str, unreadable: Unreadable | None = None) -> Iterator[dict[str, Any]]:
    """Every line of a history, in all its parts, that holds a record, oldest first; nothing where there is no file."""
    for place, file in reading.read(path):
        for number, line in enumerate(reading.lines(file), 1):
            record = parse(line)
            if record is not None:
                yield record
            elif unreadable is not None and line.strip():
                unreadable.lines.append((place, number))


def parse(line: bytes) -> dict[str, Any] | None:
    """The record that a line holds, None where it holds none."""
    if len(line) > reading.LINE_LIMIT:
        return None
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if value.__class__ is not dict:
        return None
    get = value.get
    if str is get("id").__class__ is get("taskId").__class__ is get("project").__class__ is get("status").__class__:
        return value if get("startedAt").__class__ is str else None
    return None


def fold(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The state of each id, in the order in which the ids began."""
    state: dict[str, dict[str, Any]] = {}
    for record in records:
        state[record["id"]] = record
    return list(state.values())


def started(record: dict[str, Any]) -> float:
    """When a run began, for sorting: seconds since 1970, 0 where the record does not tell it rightly."""
    return _seconds(record["startedAt"])


def _seconds(text: Any) -> float:
    try:
        return from_iso(text).timestamp()
    except (ValueError, OverflowError, AttributeError):
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


def read_tail(path: str, size: int, bad: list[bytes] | None = None) -> Iterator[dict[str, Any]]:
    """The records in the last `size` bytes of a history, oldest first; a line that is cut there is left out. `bad` gets
    the lines that hold none."""
    for line in reading.tail(path, size):
        record = parse(line)
        if record is not None:
            yield record
        elif bad is not None and line.strip():
            bad.append(line)
