"""Answers from the index. Each record is read from its file, where it must be what the index takes it for."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from scheduler.core import statistics
from scheduler.core.query import Kind, Query, Run
from scheduler.core.statistics import BAD, GOOD, Counted, Fact, Gap, Streak, Totals
from scheduler.store import reading
from scheduler.store.history import parse
from scheduler.store.reading import Part
from scheduler.store.rows import table

TAIL = 5000  # runs behind the totals, after which the totals take them in
_OPEN_FILES = 4


class Stale(Exception):
    """A file does not hold what the index says: it was changed in a way that does not show from outside."""


class Lookup:
    """The index of one history, up to date with a snapshot of its parts. Raises sqlite3.Error and Stale."""

    def __init__(self, db: sqlite3.Connection, history: int, parts: Sequence[Part]) -> None:
        self._db = db
        self._history = history
        self._table = table(history)
        self._parts = {part.name: part for part in parts}

    def newest(self, query: Query) -> Iterator[Run]:
        """The runs that are asked for, the latest first."""
        where, values = self._where(query)
        limit = "" if query.limit is None else f" LIMIT {query.limit}"
        order = f"SELECT id, part, place FROM {self._table}{where} ORDER BY began DESC, seq DESC{limit}"
        for run in self._fetch(self._db.execute(order, values)):
            if not query.fits(run):
                raise Stale(f"the record of {run['id']} is not what was asked for")
            yield run

    def find(self, prefix: str) -> list[Run]:
        """The runs whose id begins so; one more than a few of them is not told."""
        few = f"SELECT id, part, place FROM {self._table} WHERE id >= ? AND id < ? ORDER BY seq LIMIT 100"
        return list(self._fetch(self._db.execute(few, (prefix, prefix + "\U0010ffff"))))

    def counted(self, query: Query) -> Iterator[Counted]:
        """All that are asked for (`limit` is not looked at), in the order of their last records."""
        where, values = self._where(query)
        kinds = self._kinds()
        columns = "kind, day, began, duration, cost, turns"
        for number, day, began, *rest in self._db.execute(
            f"SELECT {columns} FROM {self._table}{where} ORDER BY seq", values
        ):
            kind = kinds.get(number) or self._kinds()[number]
            yield Counted(kind, day, Fact(began, kind.status, *rest))

    def unreadable(self) -> int:
        """How many lines hold no record, a torn last one among them."""
        query = "SELECT sum(bad + (resume < bytes)) FROM parts WHERE history=?"
        return self._db.execute(query, (self._history,)).fetchone()[0] or 0

    def everything(self, now: datetime) -> dict[str, Any]:
        """The statistics of all runs, from totals that are kept for this."""
        self._db.execute("BEGIN")
        try:
            totals = self._current_totals()
            since = int((now - statistics.RECENT).timestamp() * 1000)
            failed = f"SELECT count(*) FROM {self._table} WHERE began >= ? AND +kind IN {self._of(BAD)}"
            return statistics.summary(totals, self._streak(), self._db.execute(failed, (since,)).fetchone()[0])
        finally:
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute("COMMIT")

    def _current_totals(self) -> Totals:
        ended = "seq > ? AND open IS NULL ORDER BY seq"
        upto, totals = self._kept_totals()
        tail = self._facts(ended, upto)
        if len(tail) > TAIL:
            totals = (totals and totals.plus(tail)) or Totals.of(self._facts(ended, 0))
            self._keep(totals)
            tail = []
        tail += self._facts("open AND seq > ?", 0)
        whole = totals.plus(tail) if totals else Totals.of(tail)
        return whole or Totals.of(self._facts("seq > ?", 0))

    def _facts(self, which: str, after: int) -> list[Fact]:
        status = {kind: one.status for kind, one in self._kinds().items()}
        rows = self._db.execute(f"SELECT began, kind, duration, cost, turns FROM {self._table} WHERE {which}", (after,))
        return [Fact(began, status[kind], *rest) for began, kind, *rest in rows]

    def _kept_totals(self) -> tuple[int, Totals | None]:
        columns = "SELECT upto, totals, durations FROM histories WHERE history=?"
        upto, text, data = self._db.execute(columns, (self._history,)).fetchone()
        if text is None:
            return 0, None
        told = json.loads(text)
        durations = array("d")
        durations.frombytes(data)
        gap = told.pop("gap")
        return upto, Totals(durations=durations, gap=gap and Gap(*gap), **told)

    def _keep(self, totals: Totals) -> None:
        told = {name: value for name, value in vars(totals).items() if name != "durations"}
        upto = f"SELECT max(seq) FROM {self._table}"
        update = f"UPDATE histories SET upto=({upto}), totals=?, durations=? WHERE history=?"
        with contextlib.suppress(sqlite3.OperationalError):  # another process was faster; then it is theirs to keep
            self._db.execute(update, (json.dumps(told), totals.durations.tobytes(), self._history))

    def _streak(self) -> Streak | None:
        order = "ORDER BY began DESC, seq DESC LIMIT 1"
        good, bad = (
            self._db.execute(f"SELECT began, seq FROM {self._table} WHERE +kind IN {kinds} {order}").fetchone()
            for kinds in (self._of((GOOD,)), self._of(BAD))
        )
        if good is None and bad is None:
            return None
        is_good = bad is None or (good is not None and good > bad)
        before = (bad if is_good else good) or (-(1 << 62), 0)
        kinds = self._of((GOOD,) if is_good else BAD)
        count = f"SELECT count(*) FROM {self._table} WHERE (began, seq) > (?, ?) AND +kind IN {kinds}"
        return Streak(is_good, self._db.execute(count, before).fetchone()[0])

    def _kinds(self) -> dict[int, Kind]:
        columns = "SELECT kind, project, task, status, reason, tags FROM kinds WHERE history=?"
        rows = self._db.execute(columns, (self._history,))
        return {row[0]: Kind(row[1], row[2], row[3], row[4], tuple(json.loads(row[5]))) for row in rows}

    def _of(self, statuses: tuple[str, ...]) -> str:
        return _listed(kind for kind, one in self._kinds().items() if one.status in statuses)

    def _where(self, query: Query) -> tuple[str, list[int]]:
        kinds = self._kinds()
        wanted = [kind for kind, one in kinds.items() if query.wants(one)]
        # The plus keeps SQLite from looking for an index: the latest runs come first, and most kinds are among them.
        parts = [f"+kind IN {_listed(wanted)}"] if len(wanted) < len(kinds) else []
        parts += ["began >= ?"] if query.since is not None else []
        parts += ["began < ?"] if query.until is not None else []
        values = [value for value in (query.since, query.until) if value is not None]
        return (" WHERE " + " AND ".join(parts) if parts else ""), values

    def _fetch(self, places: Iterable[tuple[str, int, int]]) -> Iterator[Run]:
        names = dict(self._db.execute("SELECT part, name FROM parts WHERE history=?", (self._history,)))
        with _Files() as opened:
            for run_id, part, place in places:
                run = parse(opened.line(self._parts[names[part]], place))
                if run is None or run["id"] != run_id:
                    raise Stale(f"no record of {run_id} at {place} of {self._parts[names[part]].path}")
                yield run


def _listed(numbers: Iterable[int]) -> str:
    return f"({','.join(map(str, numbers))})"


class _Files:
    """The parts that were read from last, open; compressed ones as a whole in memory."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[contextlib.ExitStack, io.FileIO | io.BytesIO]] = OrderedDict()

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1][0].close()

    def line(self, part: Part, place: int) -> bytes:
        """The line at an offset of a part, without its end; empty where the part is gone."""
        if part.name not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1][0].close()
            stack = contextlib.ExitStack()
            found = stack.enter_context(part.opened())
            plain = found if isinstance(found, io.FileIO) else io.BytesIO(reading.whole(found) if found else b"")
            self._open[part.name] = (stack, plain)
        self._open.move_to_end(part.name)
        file = self._open[part.name][1]
        for size in (4096, reading.LINE_LIMIT + 1):
            file.seek(place)
            line, end, _ = file.read(size).partition(b"\n")
            if end:
                break
        return line
