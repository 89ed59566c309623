"""Questions to a history: from its files where it is short, through the index where it is long.

Whatever is wrong with the index, the answer comes from the files.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from scheduler.core import query as pure
from scheduler.core import statistics
from scheduler.core.query import Kind, Query, Run
from scheduler.core.statistics import Counted
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.store import history, reading
from scheduler.store.index import Index
from scheduler.store.lookup import Lookup, Stale

SHORT = 2 << 20  # bytes of history that are read as fast as the index is opened

BESIDE = 0.05  # seconds to wait for the index once more


class _Unindexed(Exception):
    """The index has no answer; the files have it."""


def newest(where: Paths, path: str, query: Query) -> Iterator[Run]:
    """The runs of the history `path` that are asked for, the latest first.

    Raises OSError; SchedulerError where the files change while all their runs are told.
    """
    told, last = 0, None
    try:
        with _lookup(where, path) as lookup:
            found: Iterable[Run] = lookup.newest(query)
            for run in found if query.limit is None else list(found):
                yield run
                told, last = told + 1, run["id"]
        return
    except _Unindexed:
        rest = pure.chosen(_folded(history.read(path)), query)
    if told and (len(rest) < told or rest[told - 1]["id"] != last):
        raise SchedulerError("the history changed while it was read", "run the command again")
    yield from rest[told:]


def find(where: Paths, path: str, prefix: str) -> Run:
    """The one run whose id begins with `prefix`, as `history.find_run` finds it."""
    try:
        with _lookup(where, path) as lookup:
            return history.find_run(lookup.find(prefix.lower()), prefix)
    except _Unindexed:
        return history.find_run(_folded(history.read(path)), prefix)


def known(where: Paths, path: str, prefix: str) -> Run | None:
    """The same; None where there is none, or more than one."""
    try:
        return find(where, path, prefix)
    except SchedulerError:
        return None


def counted(where: Paths, path: str, query: Query) -> list[Counted]:
    """What statistics need of the runs that are asked for, in the order of their last records."""
    try:
        with _lookup(where, path) as lookup:
            return list(lookup.counted(query))
    except _Unindexed:
        found = [(Kind.of(run), run, statistics.fact(run)) for run in _folded(history.read(path))]
        return [
            Counted(kind, pure.day(run["startedAt"]), fact)
            for kind, run, fact in found
            if query.wants(kind) and query.within(fact.began)
        ]


def everything(where: Paths, path: str, now: datetime) -> dict[str, Any]:
    """The statistics of all runs of a history."""
    try:
        with _lookup(where, path) as lookup:
            return lookup.everything(now)
    except _Unindexed:
        return statistics.of(map(statistics.fact, _folded(history.read(path))), now)


def unreadable(where: Paths, path: str) -> int:
    """How many lines of a history hold no record.

    This is asked beside another question: who holds the index had all its time then.
    """
    try:
        with _lookup(where, path, BESIDE) as lookup:
            return lookup.unreadable()
    except _Unindexed:
        bad = history.Unreadable()
        deque(history.read(path, bad), maxlen=0)
        return len(bad.lines)


def forget_gone(where: Paths) -> None:
    """Let the index forget histories that are no more, where there is an index and nobody holds it."""
    file = where.in_state("index.db")
    if os.path.exists(file):
        with contextlib.suppress(sqlite3.Error, OSError), Index(file) as index:
            index.forget_gone()


def _folded(records: Iterable[Run]) -> Iterable[Run]:
    """The state of each id, in the order in which they were told last."""
    state: dict[str, Run] = {}
    for record in records:
        state.pop(record["id"], None)
        state[record["id"]] = record
    return state.values()


@contextlib.contextmanager
def _lookup(where: Paths, path: str, patience: float | None = None) -> Iterator[Lookup]:
    file = where.in_state("index.db")
    with reading.snapshot(path) as parts:
        packed = any(part.path.endswith(".gz") for part in parts)
        if not packed and sum(part.info.st_size for part in parts) <= SHORT:
            raise _Unindexed
        try:
            with Index(file, patience) as index:
                try:
                    yield Lookup(index.db, index.update(path, parts), parts)
                except Stale:
                    index.forget(path)
                    raise _Unindexed from None
        except sqlite3.Error as error:
            if not isinstance(error, sqlite3.OperationalError):
                _delete(file)
            raise _Unindexed from None
        except OSError:
            raise _Unindexed from None


def _delete(file: str) -> None:
    for name in (file, file + "-wal", file + "-shm"):
        with contextlib.suppress(OSError):
            os.unlink(name)
