"""The parts of a history: a full one is renamed by its times, older ones are compressed, those past their days removed.

`execution-history-<from>--<to>.jsonl`, times in UTC. The names follow one another as the parts were written, also where
the clock went back. The newest three always stay, and stay uncompressed.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from scheduler.core.when import from_iso
from scheduler.disk import files

LIMIT = 10 * 1024 * 1024  # bytes after which a history is renamed aside
SPAN = timedelta(days=31)  # or the time since its first record
KEPT = 3
LINE_LIMIT = 256 * 1024  # of a longer line nothing is kept in memory; ours have at most 64 KB
Bytes = io.FileIO | gzip.GzipFile
_BLOCK = 1 << 20
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
    last = max(first, last)
    return f"{path.removesuffix('.jsonl')}-{first:{_STAMP}}--{last:{_STAMP}}.jsonl"


def _times(path: str) -> tuple[datetime, datetime]:
    """When the first and the last record that can be read were written, in UTC."""
    with open(path, "rb") as file:
        head = _TIME.search(file.read(LINE_LIMIT))
        file.seek(max(file.seek(0, os.SEEK_END) - LINE_LIMIT, 0))
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


@contextmanager
def opened(path: str, *, newest_first: bool = False) -> Iterator[Iterator[tuple[str, Bytes]]]:
    """Every part of a history as it is at this moment, oldest first and the one that is written to last: (path, file).

    No line is missing or comes twice because a part is renamed, compressed or removed meanwhile.
    """
    current = _open(path)  # before the list is made: what is renamed after that is on it, as the same file
    try:
        yield _walk(path, current, newest_first)
    finally:
        if current is not None:
            current.close()


def _walk(path: str, current: Bytes | None, newest_first: bool) -> Iterator[tuple[str, Bytes]]:
    if newest_first and current is not None:
        yield path, current
    for segment in reversed(listed(path)) if newest_first else listed(path):
        file = open_part(segment)
        if file is None:
            continue
        with file:
            if current is None or not os.path.samestat(os.fstat(file.fileno()), os.fstat(current.fileno())):
                yield segment.path, file
    if current is not None and not newest_first:
        yield path, current


def open_part(segment: Segment) -> Bytes | None:
    """A full part as plain bytes, also when it was compressed since it was listed; None when it was removed."""
    plain = os.path.join(os.path.dirname(segment.path), segment.name)
    file = _open(plain)
    if file is None:
        packed = _open(plain + ".gz")
        return None if packed is None else _Unpacked(packed)
    return file


class _Unpacked(gzip.GzipFile):
    """A compressed file that closes what is below it."""

    def __init__(self, packed: io.FileIO) -> None:
        super().__init__(fileobj=packed)
        self._packed = packed

    def close(self) -> None:
        super().close()
        self._packed.close()


def _open(path: str) -> io.FileIO | None:
    """A regular file for reading; None where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return io.FileIO(fd)


def lines(file: Bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, line without its end) from byte `start` on, the last one also where it has no end.

    Of a line that is too long, and where a compressed part breaks off, the line is b"\\0".
    """
    file.seek(start)
    rest, offset, skipped = b"", start, 0
    while True:
        try:
            block = file.read(_BLOCK)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            yield offset, b"\0"
            return
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield offset, line if not skipped and len(line) <= LINE_LIMIT else b"\0"
            offset += skipped + len(line) + 1
            skipped = 0
        if len(rest) > LINE_LIMIT:
            skipped += len(rest)
            rest = b""
    if rest or skipped:
        yield offset, rest if not skipped else b"\0"


def tail(path: str, size: int) -> list[bytes]:
    """The lines in the last `size` bytes of a history, over its parts, oldest first; one that is cut is left out."""
    found: list[bytes] = []
    with opened(path, newest_first=True) as parts:
        for _, file in parts:
            data = _last(file, size)
            found[:0] = data.split(b"\n")[len(data) > size :]
            size -= len(data)
            if size <= 0:
                break
    return found


def _last(file: Bytes, size: int) -> bytes:
    """The last bytes of a file, with the one before them where there is one."""
    if isinstance(file, gzip.GzipFile):
        try:
            return file.read()[-size - 1 :]
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return b""
    file.seek(max(file.seek(0, os.SEEK_END) - size - 1, 0))
    return b"".join(iter(lambda: file.read(_BLOCK), b""))


def compress(path: str) -> None:
    """Compress all but the newest parts. Raises OSError. The caller holds the lock of `upkeep`."""
    for segment in listed(path)[:-KEPT]:
        plain = os.path.join(os.path.dirname(segment.path), segment.name)
        try:
            data, info = files.read_bounded(plain, 1 << 40), os.stat(plain)
        except FileNotFoundError:
            continue
        files.write_atomic(plain + ".gz", gzip.compress(data, mtime=0))
        os.utime(plain + ".gz", ns=(info.st_atime_ns, info.st_mtime_ns))
        os.unlink(plain)


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
