"""`index.db`: where each run's last record stands in the files of a history, and what filters and sums need of it.

All of it is derived from the files, by byte offset, and what they say counts: before each answer it takes in what was
appended since the last one, and notices parts that were rotated, compressed or removed. Where a file was rewritten or
cut, it starts that history anew. It may be deleted at any moment.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

from scheduler.disk import files
from scheduler.store import reading, segments
from scheduler.store.reading import CURRENT, Bytes, Part
from scheduler.store.rows import Rows, table

SCHEMA = 2
RACY = 50_000_000  # nanoseconds within which two writes of a file may show the same time
PATIENCE = 5.0  # seconds to wait for another process that brings the index up to date
_CREATE = """
CREATE TABLE histories (history INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, upto INTEGER NOT NULL DEFAULT 0,
  totals TEXT, durations BLOB);
CREATE TABLE parts (part INTEGER PRIMARY KEY, history INTEGER NOT NULL, name TEXT NOT NULL, node INTEGER NOT NULL,
  size INTEGER NOT NULL, written INTEGER NOT NULL, bytes INTEGER NOT NULL, resume INTEGER NOT NULL,
  crc INTEGER NOT NULL, bad INTEGER NOT NULL DEFAULT 0);
CREATE TABLE kinds (kind INTEGER PRIMARY KEY, project TEXT NOT NULL, task TEXT NOT NULL, status TEXT NOT NULL,
  reason TEXT, tags TEXT NOT NULL, history INTEGER NOT NULL);
CREATE UNIQUE INDEX kinds_all ON kinds (history, project, task, status, reason, tags);
"""


class Known(NamedTuple):
    """A part as it was taken in: its file, how many bytes and their CRC-32, and where to go on when there are more.

    `written`: when its file changed last, in a way that nobody can set (ctime).
    """

    part: int
    name: str
    node: int
    size: int
    written: int
    bytes: int
    resume: int
    crc: int


class Match(NamedTuple):
    """What became of the parts that are known: some are gone, some are now these, some are new."""

    gone: list[Known]
    same: list[tuple[Known, Part]]
    new: list[Part]

    def is_all_the_same(self) -> bool:
        """Whether nothing became of them."""
        return not self.gone and not self.new and all(is_unchanged(*pair) for pair in self.same)


def match(known: Sequence[Known], found: Sequence[Part]) -> Match | None:
    """Compare what is known, in its order, with what is there. None where the one does not continue the other.

    Only the oldest parts may go: what stood in them alone is forgotten with them.
    """
    places = {part.name: place for place, part in enumerate(found) if part.name != CURRENT}
    nodes = {part.info.st_ino: place for place, part in enumerate(found)}
    at = [nodes.get(one.node) if one.name == CURRENT else places.get(one.name) for one in known]
    gone = next((count for count, place in enumerate(at) if place is not None), len(at))
    if at[gone:] != list(range(len(at) - gone)):
        return None
    same = list(zip(known[gone:], found, strict=False))
    return Match(list(known[:gone]), same, list(found[len(same) :]))


def is_unchanged(one: Known, part: Part) -> bool:
    """Whether neither its name nor its file tells of a change."""
    return (one.name, one.node, one.size, one.written) == (part.name, *_stamp(part))


def _stamp(part: Part) -> tuple[int, int, int]:
    return part.info.st_ino, part.info.st_size, part.info.st_ctime_ns


def continues(one: Known, part: Part) -> bool:
    """Whether a file begins with the very bytes that were taken in."""
    with part.opened() as file:
        if file is None:
            return False
        if isinstance(file, reading.Unpacked):
            return file.trailer() == struct.pack("<II", one.crc, one.bytes & 0xFFFFFFFF)
        return part.info.st_size >= one.bytes and _checksum(file, one.bytes) == one.crc


def _checksum(file: Bytes, size: int) -> int:
    crc = 0
    file.seek(0)
    while size > 0:
        block = file.read(min(size, 1 << 20))
        if not block:
            return -1
        size -= len(block)
        crc = zlib.crc32(block, crc)
    return crc


class Index:
    """An open index. Raises sqlite3.Error, from every method. Not to be shared between threads.

    `patience`: seconds to wait for another process that holds it.
    """

    def __init__(self, path: str, patience: float | None = None) -> None:
        files.make_folder(os.path.dirname(path))
        os.close(files.open_own(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
        self.db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE if patience is None else patience)
        try:
            if not self._is_ours():
                self._create()
        except BaseException:
            self.db.close()
            raise

    def __enter__(self) -> Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.db.close()

    def _is_ours(self) -> bool:
        return bool(self.db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA)

    def _create(self) -> None:
        # What is lost in a power cut is made again; the log keeps the rest of one piece.
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("BEGIN EXCLUSIVE")
        if not self._is_ours():
            for (name,) in self.db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
                self.db.execute(f'DROP TABLE "{name}"')
            for statement in _CREATE.strip().split(";\n"):
                self.db.execute(statement)
            self.db.execute(f"PRAGMA user_version={SCHEMA}")
        self.db.execute("COMMIT")

    def update(self, path: str, parts: Sequence[Part]) -> int:
        """Bring the index of the history `path` up to date with a snapshot of it; the number of its table of runs."""
        self.db.execute("PRAGMA synchronous=NORMAL")
        number, known = self._known(path)
        found = match(known, parts)
        if number and found is not None and found.is_all_the_same():
            return number
        self.db.execute("BEGIN IMMEDIATE")
        try:
            number, known = self._known(path)
            if not number:
                number = self.db.execute("INSERT INTO histories (path) VALUES (?)", (path,)).lastrowid or 0
            if not self._continue(number, match(known, parts)):
                self._start_anew(number, parts)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return number

    def forget(self, path: str) -> None:
        """Take in the history `path` anew when it is asked for next."""
        self.db.execute("DELETE FROM parts WHERE history IN (SELECT history FROM histories WHERE path=?)", (path,))

    def forget_gone(self) -> None:
        """Drop what is known of histories of which no file is left."""
        self.db.execute("BEGIN IMMEDIATE")
        for number, path in self.db.execute("SELECT history, path FROM histories").fetchall():
            if not os.path.exists(path) and not segments.listed(path):
                self.db.execute(f"DROP TABLE IF EXISTS {table(number)}")
                for name in ("kinds", "parts", "histories"):
                    self.db.execute(f"DELETE FROM {name} WHERE history=?", (number,))
        self.db.execute("COMMIT")

    def _known(self, path: str) -> tuple[int, list[Known]]:
        row = self.db.execute("SELECT history FROM histories WHERE path=?", (path,)).fetchone()
        if row is None:
            return 0, []
        columns = "part, name, node, size, written, bytes, resume, crc"
        rows = self.db.execute(f"SELECT {columns} FROM parts WHERE history=? ORDER BY part", row)
        return int(row[0]), [Known(*one) for one in rows]

    def _continue(self, number: int, found: Match | None) -> bool:
        """Take in what is new; False where what is known does not hold any more."""
        if found is None or not found.same:
            return False
        changed = [pair for pair in found.same if not is_unchanged(*pair)]
        if not all(continues(*pair) for pair in changed):
            return False
        if any(part.info.st_size > one.bytes for one, part in found.same[:-1] if not part.path.endswith(".gz")):
            return False  # lines in the middle
        rows = Rows(self.db, number)
        rows.forget([one.part for one in found.gone])
        self.db.executemany("DELETE FROM parts WHERE part=?", [(one.part,) for one in found.gone])
        for one, part in changed:
            self._take_in(rows, number, part, one)
        for part in found.new:
            self._take_in(rows, number, part, None)
        rows.finish()
        return True

    def _start_anew(self, number: int, parts: Sequence[Part]) -> None:
        self.db.execute("DELETE FROM parts WHERE history=?", (number,))
        rows = Rows(self.db, number, anew=True)
        for part in parts:
            self._take_in(rows, number, part, None)
        rows.finish()

    def _take_in(self, rows: Rows, number: int, part: Part, known: Known | None) -> None:
        """The lines of a part behind those that are known."""
        stamp = _stamp(part)
        if abs(time.time_ns() - stamp[2]) < RACY:
            stamp = (*stamp[:2], 0)  # so that a rewrite in the same tick of the clock is seen
        if known is None:
            new = "INSERT INTO parts (history, name, node, size, written, bytes, resume, crc) VALUES (?,?,?,?,?,0,0,0)"
            key = self.db.execute(new, (number, part.name, *stamp)).lastrowid or 0
            known = Known(key, part.name, *stamp, 0, 0, 0)
        seen = _Seen(known)
        last, whole, bad = known.resume, True, rows.bad
        with part.opened() as file:
            for place, lines in reading.batches(file, known.resume, seen) if file is not None else ():
                whole = rows.take(known.part, place, lines)
                last = place + sum(map(len, lines[:-1]))
        torn = not whole and not seen.ended
        resume = last if torn else seen.bytes
        self.db.execute(
            "UPDATE parts SET name=?, node=?, size=?, written=?, bytes=?, resume=?, crc=?, bad=bad+? WHERE part=?",
            (part.name, *stamp, seen.bytes, resume, seen.crc, rows.bad - bad - torn, known.part),
        )


class _Seen:
    """Counts the bytes of a part and their CRC-32, from where the known ones end."""

    def __init__(self, known: Known) -> None:
        self._again = known.bytes - known.resume
        self.bytes = known.bytes
        self.crc = known.crc
        self.ended = True

    def __call__(self, block: bytes) -> None:
        self.ended = block.endswith(b"\n")
        new = block[self._again :]
        self._again = max(self._again - len(block), 0)
        self.bytes += len(new)
        self.crc = zlib.crc32(new, self.crc)
