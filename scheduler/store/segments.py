"""The parts of a history: a full one is renamed by its times, older ones are compressed, those past their days removed.

`execution-history-<from>--<to>.jsonl`, times in UTC. The names follow one another as the parts were written, also where
the clock went back. The newest three always stay, the newest one uncompressed.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import IO, NamedTuple

from scheduler.core.when import from_iso
from scheduler.disk import files

LIMIT = 10 * 1024 * 1024  # bytes after which a history is renamed aside
SPAN = timedelta(days=31)  # or the time since its first record
KEPT = 3
PLAIN = 1  # as many of the newest parts are not compressed
_ENDS = 256 * 1024  # bytes at either end in which a time is looked for
_STAMP = "%Y%m%dT%H%M%SZ"
_TAIL = re.compile(r"-(\d{8}T\d{6}Z)--(\d{8}T\d{6}Z)\.jsonl(\.gz)?\Z")
_TIME = re.compile(rb'"(?:startedAt|completedAt)":"([0-9T:.+Z-]{19,35})"')


class Segment(NamedTuple):
    """A part that is full. `name` is that of its file without `.gz`."""

    last: datetime
    first: datetime
    name: str
    path: str


def listed(path: str) -> list[Segment]:
    """The full parts of the history `path`, oldest first. One that is just being compressed comes once."""
    folder, base = os.path.split(path)
    stem = base.removesuffix(".jsonl")
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found: dict[str, Segment] = {}
    for name in sorted(names, reverse=True):  # so that what is whole for certain counts
        told = _TAIL.match(name, len(stem)) if name.startswith(stem) else None
        moments = (_moment(told[2]), _moment(told[1])) if told else (None, None)
        if moments[0] and moments[1]:
            plain = name.removesuffix(".gz")
            found[plain] = Segment(moments[0], moments[1], plain, os.path.join(folder, name))
    return sorted(found.values())


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def next_name(path: str) -> str:
    """Under which name the history `path`, whose lock the caller holds, becomes a part: later than all others."""
    first, last = _times(path)
    before = listed(path)
    if before:
        first = max(first, before[-1].last)
        last = max(last, before[-1].last + timedelta(seconds=1))
    return _name(path, first, max(first, last))


def insert(path: str, lines: list[tuple[datetime, bytes]]) -> None:
    """Put lines of an earlier time, with their ends, into parts of their own before what is written now.

    They are whole and on the disk, or not there. The caller holds the lock of the upkeep. Raises OSError.
    """
    lines = sorted(lines)
    while lines:
        size = taken = 0
        while taken < len(lines) and (not taken or size + len(lines[taken][1]) <= LIMIT):
            size += len(lines[taken][1])
            taken += 1
        part, lines = lines[:taken], lines[taken:]
        used = {segment.last for segment in listed(path)}
        last = part[-1][0].astimezone(timezone.utc).replace(microsecond=0)
        while last in used:
            last += timedelta(seconds=1)
        name = _name(path, part[0][0].astimezone(timezone.utc), last)
        files.write_atomic(name, b"".join(line for _, line in part))
        os.utime(name, (last.timestamp(),) * 2)


def _name(path: str, first: datetime, last: datetime) -> str:
    return f"{path.removesuffix('.jsonl')}-{first:{_STAMP}}--{last:{_STAMP}}.jsonl"


def _times(path: str) -> tuple[datetime, datetime]:
    """When the first and the last record that can be read were written, in UTC."""
    with open(path, "rb") as file:
        head = _TIME.search(file.read(_ENDS))
        file.seek(max(file.seek(0, os.SEEK_END) - _ENDS, 0))
        tail = _TIME.findall(file.read())
        touched = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, timezone.utc)
    first, last = (_read_time(text) or touched for text in (head and head[1], tail[-1] if tail else None))
    return first, last


def _read_time(text: bytes | None) -> datetime | None:
    try:
        return None if text is None else from_iso(text.decode()).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def is_full(path: str, now: datetime) -> bool:
    """Whether the history has grown to its limit, or its first record is a month old."""
    try:
        return os.path.getsize(path) > LIMIT or now - _times(path)[0] > SPAN
    except FileNotFoundError:
        return False


def compress(path: str) -> None:
    """Compress all but the newest part. Raises OSError. The caller holds the lock of `upkeep`."""
    for segment in listed(path)[:-PLAIN]:
        plain = os.path.join(os.path.dirname(segment.path), segment.name)
        try:
            info = os.lstat(plain)
            if not stat.S_ISREG(info.st_mode):
                continue
            with open(plain, "rb", opener=_at_once) as file:
                files.write_atomic(plain + ".gz", _packed(file))
        except FileNotFoundError:
            continue
        os.utime(plain + ".gz", ns=(info.st_atime_ns, info.st_mtime_ns))
        os.unlink(plain)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)  # whatever lies there holds nobody up


def _packed(file: IO[bytes]) -> Iterator[bytes]:
    """A file in gzip form: by pieces, since a history from before can be of any size."""
    packer = zlib.compressobj(wbits=31)
    while piece := file.read(1 << 20):
        yield packer.compress(piece)
    yield packer.flush()


def expired(path: str, days: int, now: datetime) -> list[Segment]:
    """The parts that are past their days: by their name, or by their last write where the name lies in the future."""
    old = now - timedelta(days=days)
    return [segment for segment in listed(path)[:-KEPT] if _age_mark(segment, now) < old]


def _age_mark(segment: Segment, now: datetime) -> datetime:
    if segment.last <= now:
        return segment.last
    try:
        return datetime.fromtimestamp(os.stat(segment.path).st_mtime, timezone.utc)
    except FileNotFoundError:
        return now
