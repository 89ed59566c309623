"""The rows of the index: one for each run, with the place of its last record. The index's file and schema: index.py."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from scheduler.core.query import Kind, Run, began, day, number
from scheduler.store.history import parse

BATCH = 20_000
RUNNING = "running"
_COLUMNS = "(seq, id, part, place, began, kind, day, duration, cost, turns, open)"
_VALUES = "(?,?,?,?,?,?,?,?,?,?,?)"
_Row = tuple[int | None, str, int, int, int, int, int, float | None, float | None, float | None, int | None]


def table(history: int) -> str:
    """The table of a history's runs. A run whose state changes gets a new, higher `seq`.

    `place`: the record's offset in its part; `began`: milliseconds; `day`: as in the record, 20261201; `open`: 1 while
    it runs, else NULL.
    """
    return f"runs_{history}"


class Rows:
    """Takes records in, in the order of the files. `anew` empties the table first, and is faster for many.

    `bad`: how many lines held none.
    """

    def __init__(self, db: sqlite3.Connection, history: int, *, anew: bool = False) -> None:
        self._db = db
        self._history = history
        self._table = table(history)
        self._anew = anew
        self._waiting: list[_Row] = []
        self._open: dict[str, tuple[int, int, int, Run]] = {}
        self._seq = 0
        self.bad = 0
        self._kinds: dict[Any, int] = {}
        if anew:
            db.execute(f"DROP TABLE IF EXISTS {self._table}")
            db.execute(
                f"CREATE TABLE {self._table} (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, part INTEGER NOT NULL,"
                " place INTEGER NOT NULL, began INTEGER NOT NULL, kind INTEGER NOT NULL, day INTEGER NOT NULL,"
                " duration, cost, turns, open)"
            )
            db.execute("DELETE FROM kinds WHERE history=?", (history,))
            self._forget_totals()

    def take(self, part: int, place: int, lines: Sequence[bytes]) -> bool:
        """Take in the records of lines that follow one another, the first at `place`; whether the last line is one."""
        run = None
        for line in lines:
            run = parse(line)
            if run is not None:
                self._add(part, place, run)
            elif line.strip():
                self.bad += 1
            place += len(line)
        return run is not None

    def _add(self, part: int, place: int, run: Run) -> None:
        if not self._anew:
            self._replace(self._row(None, part, place, run))
            return
        self._seq += 1
        if run["status"] == RUNNING:
            self._open[run["id"]] = (self._seq, part, place, run)
        else:
            self._open.pop(run["id"], None)
            self._waiting.append(self._row(self._seq, part, place, run))
            if len(self._waiting) >= BATCH:
                self._insert()

    def _row(self, seq: int | None, part: int, place: int, run: Run) -> _Row:
        get = run.get
        tags = get("tags")
        words = tuple(tags) if tags.__class__ is list else None
        known = (run["project"], run["taskId"], run["status"], get("reason"), words)
        try:
            kind = self._kinds[known]
        except KeyError:
            kind = self._kinds[known] = self._kind(Kind.of(run))
        except TypeError:  # something that has no hash where a word belongs
            kind = self._kind(Kind.of(run))
        text = run["startedAt"]
        duration, cost, turns = number(run, "duration"), number(run, "costUsd"), number(run, "turns")
        open_ = 1 if known[2] == RUNNING else None
        return seq, run["id"], part, place, began(text), kind, day(text), duration, cost, turns, open_

    def finish(self) -> None:
        """Write what waits, and make the table ready for questions."""
        if not self._anew:
            return
        self._waiting += [self._row(*given) for given in self._open.values()]
        self._insert()
        try:
            self._index_ids()
        except sqlite3.IntegrityError:  # several records of a run that had ended: the last one counts
            last = f"SELECT max(seq) FROM {self._table} GROUP BY id"
            self._db.execute(f"DELETE FROM {self._table} WHERE seq NOT IN ({last})")
            self._index_ids()
        self._db.execute(f"CREATE INDEX {self._table}_began ON {self._table} (began, seq, kind)")
        self._db.execute(f"CREATE INDEX {self._table}_open ON {self._table} (seq) WHERE open")

    def forget(self, parts: Sequence[int]) -> None:
        """Drop the runs whose last record was in parts that are gone."""
        for part in parts:
            if self._db.execute(f"DELETE FROM {self._table} WHERE part=?", (part,)).rowcount:
                self._forget_totals()

    def _index_ids(self) -> None:
        self._db.execute(f"CREATE UNIQUE INDEX {self._table}_id ON {self._table} (id)")

    def _insert(self) -> None:
        self._db.executemany(f"INSERT INTO {self._table} {_COLUMNS} VALUES {_VALUES}", self._waiting)
        self._waiting.clear()

    def _replace(self, row: _Row) -> None:
        was = self._db.execute(f"SELECT open FROM {self._table} WHERE id=?", row[1:2]).fetchone()
        if was is not None and was[0] is None:
            self._forget_totals()
        self._db.execute(f"INSERT OR REPLACE INTO {self._table} {_COLUMNS} VALUES {_VALUES}", row)

    def _forget_totals(self) -> None:
        self._db.execute("UPDATE histories SET upto=0, totals=NULL, durations=NULL WHERE history=?", (self._history,))

    def _kind(self, kind: Kind) -> int:
        found = self._kinds.get(kind)
        if found is None:
            values = (self._history, kind.project, kind.task, kind.status, kind.reason, json.dumps(kind.tags))
            where = "history=? AND project=? AND task=? AND status=? AND reason IS ? AND tags=?"
            row = self._db.execute(f"SELECT kind FROM kinds WHERE {where}", values).fetchone()
            if row is None:
                columns = "(history, project, task, status, reason, tags)"
                row = (self._db.execute(f"INSERT INTO kinds {columns} VALUES (?,?,?,?,?,?)", values).lastrowid,)
            found = self._kinds[kind] = int(row[0])
        return found
