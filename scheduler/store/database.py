"""`state.db` as a file: opened, made, brought up to date by the version that it holds, moved aside when it is damaged.

SQLite, WAL, synchronous FULL: what was answered survives a power cut. Every writer uses BEGIN IMMEDIATE. Moments are
stored as UTC in ISO 8601, so that text order is time order.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from scheduler.core import health
from scheduler.disk import files
from scheduler.errors import SchedulerError

MOUNTS = "/proc/self/mountinfo"
JUST_MADE = 5.0  # seconds
PATIENCE = 5.0  # seconds that a writer waits for another

#: What each version adds to the one before; the number of the last is the file's version. Never change one that is out.
MIGRATIONS = (
    """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE claims (
  project TEXT NOT NULL, task TEXT NOT NULL, scheduled_for TEXT NOT NULL, attempt INTEGER NOT NULL,
  run_id TEXT NOT NULL, claimed_at TEXT NOT NULL,
  UNIQUE (project, task, scheduled_for, attempt));
CREATE TABLE tasks (
  project TEXT NOT NULL, task TEXT NOT NULL, trigger TEXT NOT NULL, added_at TEXT NOT NULL, active_since TEXT,
  handled_until TEXT NOT NULL, done_at TEXT, failures INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (project, task));
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, task TEXT NOT NULL, phase TEXT NOT NULL,
  record TEXT NOT NULL, place TEXT, process TEXT)
""",
    """
CREATE TABLE holds (
  project TEXT NOT NULL, task TEXT NOT NULL, cause TEXT NOT NULL, since TEXT NOT NULL, until TEXT,
  by TEXT NOT NULL, run TEXT,
  PRIMARY KEY (project, task, cause));
CREATE TABLE skips (
  project TEXT NOT NULL, task TEXT NOT NULL, reason TEXT NOT NULL, record TEXT NOT NULL,
  count INTEGER NOT NULL, told INTEGER NOT NULL,
  PRIMARY KEY (project, task, reason))
""",
    """
CREATE TABLE costs (
  day TEXT NOT NULL, project TEXT NOT NULL, task TEXT NOT NULL, usd REAL NOT NULL,
  PRIMARY KEY (day, project, task)) WITHOUT ROWID;
ALTER TABLE runs ADD COLUMN counted REAL NOT NULL DEFAULT 0
""",
)
SCHEMA = len(MIGRATIONS)


def stored(moment: datetime) -> str:
    """How a moment is stored: UTC, microseconds, sortable."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


class NotWritten(SchedulerError):
    """The state could not be written, on a full disk say. What was to be written was not, not even a part of it."""


class Database:
    """An open `state.db`. Not to be shared between threads. `damage` says what became of a damaged one, else None.

    SchedulerError when it cannot be opened, or was written by a newer version.
    """

    def __init__(self, path: str, now: datetime) -> None:
        self.damage: str | None = None
        self._path = path
        files.make_folder(os.path.dirname(path))
        if _was_emptied(path):
            self.damage = f"{path} was empty; a fresh state was started"
        with contextlib.ExitStack() as held:
            # SQLite opens a file, and looks for its log by its name: the file is not to be moved away in between.
            with contextlib.suppress(OSError):
                held.enter_context(files.locked(files.sidecar(path), timeout=PATIENCE, shared=True))
            try:
                self._db = _open(path)
            except sqlite3.DatabaseError as error:
                _raise_unless_damaged(path, error)
                held.close()
                self._db = self._begun_anew(now)

    def _begun_anew(self, now: datetime) -> sqlite3.Connection:
        """A fresh one in the place of a damaged one, or that of somebody who was faster: without the lock the second
        of two that find the damage would move the first one's fresh file away, over the damaged one."""
        try:
            with files.locked(files.sidecar(self._path), timeout=2 * PATIENCE):
                try:
                    return _open(self._path)
                except sqlite3.DatabaseError as error:
                    _raise_unless_damaged(self._path, error)
                    stamp = now.strftime("%Y%m%dT%H%M%S")
                    for tail in ("-wal", "-shm"):  # first, as long as nobody has a fresh one whose they could be
                        if os.path.exists(self._path + tail):
                            files.move_aside(self._path + tail, stamp)
                    aside = files.move_aside(self._path, stamp)
                    self.damage = f"{self._path} was damaged ({error}); it was moved to {aside} and a fresh one started"
                    return _open(self._path)
        except OSError as error:
            said = f"{self._path} is damaged, and cannot be moved aside: {error.strerror or error}"
            raise SchedulerError(said, "check the disk and the folder's mode") from None

    def close(self) -> None:
        self._db.close()

    def read(self, query: str, *values: Any) -> sqlite3.Cursor:
        """The rows of a query."""
        return self._db.execute(query, values)

    @contextlib.contextmanager
    def writing(self, at_once: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or nothing where it raises. With `at_once` it is on the disk in the end, and all
        that was written before it. NotWritten where the disk is full, or somebody holds it for too long."""
        try:
            self._db.execute("PRAGMA synchronous=" + ("FULL" if at_once else "NORMAL"))
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                said = f"{self._path} cannot be written: {error}"
                raise NotWritten(said, "make room on its disk, or end what holds it") from None
            raise

    def writable(self) -> bool:
        """Whether it could be written at this moment, without waiting."""
        self._db.execute("PRAGMA busy_timeout=0")
        try:
            with self.writing(at_once=False):
                return True
        except NotWritten:
            return False
        finally:
            self._db.execute(f"PRAGMA busy_timeout={PATIENCE * 1000:.0f}")


def _raise_unless_damaged(path: str, error: sqlite3.DatabaseError) -> None:
    if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
        raise SchedulerError(f"{path} cannot be opened: {error}", "check the disk and the folder's mode") from None


def moved_aside(path: str) -> list[str]:
    """What was moved aside because it was damaged, and is still there, oldest first."""
    folder, name = os.path.split(path)
    found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, one) for one in found if one.startswith(name + ".corrupt-")]


def _was_emptied(path: str) -> bool:
    """Whether the file is empty, and not because another process makes it at this moment."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return False
    return info.st_size == 0 and not os.path.exists(path + "-wal") and time.time() - info.st_mtime > JUST_MADE


def unsafe(path: str) -> str | None:
    """Why what is written at `path` is not safe there, as on a network file system; None where it is."""
    try:
        known = health.mounts(files.read_bounded(MOUNTS, 1 << 20).decode("utf-8", "surrogateescape"))
    except OSError:
        return None
    found = health.file_system("the state", os.path.realpath(path), known)
    return None if found.level == "ok" else f"{found.text}; {found.mend}"


def _open(path: str) -> sqlite3.Connection:
    _make(path)
    db = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)
    try:
        # The shared memory of a WAL does not reach over a network.
        db.execute("PRAGMA journal_mode=" + ("WAL" if unsafe(os.path.dirname(path)) is None else "DELETE"))
        if _version(db) < SCHEMA:
            _migrate(db)
        if _version(db) > SCHEMA:
            raise SchedulerError(f"{path} was written by a newer version", "update the plugin")
        return db
    except BaseException:
        db.close()
        raise


def _make(path: str) -> None:
    """Make the file with its mode. One that is there is not even opened: to close it would drop the locks that another
    connection of this process holds on it, and the next process would take the write-ahead log away from under that."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)  # whatever the umask
        os.close(fd)
    except FileExistsError:
        if os.path.islink(path):
            raise SchedulerError(f"{path} is a link", "move it away; a fresh state is made then") from None


def _migrate(db: sqlite3.Connection) -> None:
    """Bring an older file, or an empty one, up to date: in one transaction, so that a crash leaves the old one."""
    db.execute("BEGIN EXCLUSIVE")
    missing = MIGRATIONS[_version(db) :]  # another process may have been faster
    for migration in missing:
        for statement in migration.strip().split(";\n"):
            db.execute(statement)
    if missing:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
        return 0
    row = db.execute("SELECT value FROM meta WHERE name='schema'").fetchone()
    return int(row[0]) if row else 0
