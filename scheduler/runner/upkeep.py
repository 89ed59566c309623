"""Keeps histories and logs in bounds: at the runner's start and once a day, in a thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone

from scheduler.core.models import ProjectSettings, UserSettings
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.runner.projects import Projects
from scheduler.store import retention, search, segments

log = logging.getLogger("scheduler")
EVERY = timedelta(days=1)
STEP = timedelta(days=7)  # as far as the clock is believed to have gone since the last time

#: (root of a project, id of a task)
Running = Collection[tuple[str, str]]


class Upkeep:
    """Does what is due, while nobody waits for it."""

    def __init__(self, paths: Paths, projects: Projects) -> None:
        self._paths = paths
        self._projects = projects
        self._last: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self._said: set[str] = set()

    def look(self, now: datetime, running: Callable[[], Running]) -> None:
        """Begin, if a day is over since the last time. `running` tells the tasks that run or wait for their turn."""
        if self._last is not None and abs(now - self._last) < EVERY:
            return
        self._last = now
        served = self._projects.served.items()
        settings = {root: one.config.settings for root, one in served if one.config is not None}
        self._task = asyncio.create_task(self._work(settings, self._projects.settings, running(), now))

    async def _work(
        self, projects: Mapping[str, ProjectSettings], user: UserSettings, running: Running, now: datetime
    ) -> None:
        complaints = await asyncio.to_thread(lambda: list(tidy(self._paths, projects, user, running, now)))
        for complaint in complaints:
            if complaint not in self._said:
                log.warning(complaint)
        self._said = set(complaints)

    async def close(self) -> None:
        """Wait for what is being done."""
        if self._task is not None:
            await self._task


def tidy(
    where: Paths, projects: Mapping[str, ProjectSettings], user: UserSettings, running: Running, now: datetime
) -> Iterator[str]:
    """Rename full histories aside, compress old parts, remove what is past its days; a line for what cannot be done."""
    try:
        with files.locked(lock(where), timeout=0):
            believed = _believed(where, now)
            yield from _tidy_history(where.global_history, now)
            yield from _remove(retention.of_user(where, user.history_days, believed))
            for root, settings in projects.items():
                tasks = {task for project, task in running if project == root}
                yield from _tidy_history(paths.history_file(root), now)
                yield from _remove(retention.of_project(root, settings, tasks, believed))
            search.forget_gone(where)
    except files.LockTaken:
        return
    except OSError as error:
        yield f"upkeep ended early: {error.strerror}: {error.filename}"


def lock(where: Paths) -> str:
    """The lock that is held while parts are compressed and files removed."""
    return where.in_state("upkeep.lock")


def _believed(where: Paths, now: datetime) -> datetime:
    """The time by which things are old: it follows a clock that jumps ahead in steps, so that a wrong one, or a machine
    that was off for a year, does not take away at once what nobody has seen."""
    mark = where.in_state("upkeep.time")
    try:
        last = datetime.fromtimestamp(float(files.read_bounded(mark, 100)), timezone.utc)
    except (OSError, ValueError, OverflowError):
        last = now
    believed = min(now, last + STEP)
    files.write_atomic(mark, f"{max(believed, last).timestamp():.0f}\n".encode(), durable=False)
    return believed


def _tidy_history(path: str, now: datetime) -> Iterator[str]:
    try:
        if segments.is_full(path, now):
            files.rotate(path, segments.next_name)
        segments.compress(path)
    except OSError as error:
        yield f"{path} was not tidied: {error.strerror}: {error.filename}"


def _remove(olds: Iterable[retention.Old]) -> Iterator[str]:
    for old in olds:
        try:
            retention.remove(old)
        except OSError as error:
            yield f"cannot remove {old.path}: {error.strerror}"
