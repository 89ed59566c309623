"""What is past its days: parts of a history, task logs, answers, changes. First told, then removed.

Only what is ours is ever told: by its name, a regular file, and of this user. A log of a task that runs never is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone

from scheduler.core.models import ProjectSettings
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.store import segments

LOGS_LIMIT = 256 << 20  # bytes of task logs that are kept of one project
OWN_LOG_DAYS = 30  # for the logs of runner and hooks
OWN_LOG_PARTS = 5  # as many of each are kept at most, beside the one that is written to
_LOG_ENDS = (".error.log", ".log")


@dataclass(frozen=True)
class Old:
    """A file that may go. `kind`: `history`, `log`, `result` or `changes`; `written`: its last write, nanoseconds."""

    kind: str
    path: str
    size: int
    written: int
    why: str


@dataclass(frozen=True)
class _Log:
    task: str
    old: Old


def of_project(project: str, settings: ProjectSettings, running: Collection[str], now: datetime) -> list[Old]:
    """What may go of a project; `running` are the ids of its tasks that run or wait to. Raises OSError."""
    folder = paths.logs_folder(project)
    days = settings.log_days
    logs = [log for log in _logs(folder) if log.task not in running]
    old = [log.old for log in logs if _days(log.old, now) >= days]
    answers = [file for file in _answers(folder) if _days(file, now) >= days]
    changes = [file for file in _rotated(paths.file_changes(project), "changes") if _days(file, now) >= days]
    told = [_because(file, _unwritten(file, now)) for file in (*old, *answers, *changes)]
    return [*_histories(paths.history_file(project), settings.history_days, now), *told, *_too_many(logs, told)]


def of_user(where: Paths, days: int, now: datetime) -> list[Old]:
    """What may go of the global history, and of the logs of runner and hooks. Raises OSError."""
    old: list[Old] = []
    for path in (where.runner_log, where.hooks_log):
        logs = _rotated(path, "log")
        more = logs[:-OWN_LOG_PARTS]
        old += [_because(file, f"more than {OWN_LOG_PARTS} parts") for file in more]
        old += [_because(f, _unwritten(f, now)) for f in logs[len(more) :] if _days(f, now) >= OWN_LOG_DAYS]
    return [*_histories(where.global_history, days, now), *old]


def remove(old: Old) -> None:
    """Remove it, unless it was written to since it was told. Raises OSError."""
    with _held(old):
        found = _look(old.kind, old.path)
        if found is not None and found.written == old.written:
            os.unlink(old.path)


def _held(old: Old) -> AbstractContextManager[object]:
    """Keeps those away who may still write to it: nobody, but for a log."""
    folder, name = os.path.split(old.path)
    for end in _LOG_ENDS:
        stem, found, _ = name.partition(end)
        if found and old.kind == "log":
            return files.locked(files.sidecar(os.path.join(folder, stem + end)))
    return nullcontext()


def _histories(path: str, days: int, now: datetime) -> Iterator[Old]:
    for segment in segments.expired(path, days, now):
        found = _look("history", segment.path)
        if found is not None:
            yield _because(found, f"its last record is of {segment.last:%Y-%m-%d}")


def _logs(folder: str) -> list[_Log]:
    found = []
    for name in _names(folder):
        task, end, rest = next((p for p in map(name.partition, _LOG_ENDS) if p[1]), ("", "", ""))
        if end and paths.is_task_id(task) and _is_part(rest):
            old = _look("log", os.path.join(folder, name))
            if old is not None:
                found.append(_Log(task, old))
    return found


def _too_many(logs: list[_Log], told: list[Old]) -> Iterator[Old]:
    """The oldest of the logs that stay, as far as all together pass the limit."""
    gone = {file.path for file in told}
    stay = sorted((log.old for log in logs if log.old.path not in gone), key=lambda file: file.written)
    size = sum(file.size for file in stay)
    for file in stay:
        if size <= LOGS_LIMIT:
            return
        size -= file.size
        yield _because(file, f"the logs of this project pass {LOGS_LIMIT >> 20} MB")


def _answers(folder: str) -> list[Old]:
    results = os.path.join(folder, "results")
    mine = [name for name in _names(results) if name.endswith(".md") and paths.is_run_id(name[:-3])]
    found = [_look("result", os.path.join(results, name)) for name in mine]
    return [file for file in found if file is not None]


def _rotated(path: str, kind: str) -> list[Old]:
    return [file for file in (_look(kind, part) for part in files.rotated(path)) if file is not None]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_part(rest: str) -> bool:
    return not rest or (rest[0] == "." and rest[1:].replace(".", "").isdigit())


def _look(kind: str, path: str) -> Old | None:
    """The file, if it is a regular one of this user."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        return None
    return Old(kind, path, info.st_size, info.st_mtime_ns, "")


def _because(old: Old, why: str) -> Old:
    return Old(old.kind, old.path, old.size, old.written, why)


def _unwritten(old: Old, now: datetime) -> str:
    return f"not written for {_days(old, now)} days"


def _days(old: Old, now: datetime) -> int:
    return (now - datetime.fromtimestamp(old.written / 1e9, timezone.utc)).days
