"""Keeps histories and logs in bounds, at the runner's start and once a day; takes away, each hour, the worktrees that
could not be removed when their runs ended. In a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone

from scheduler.core.models import ProjectSettings, UserSettings
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.runner import stranded
from scheduler.runner.projects import Projects
from scheduler.store import retention, search, segments
from scheduler.store.state import State

log = logging.getLogger("scheduler")
EVERY = timedelta(days=1)
STEP = timedelta(days=7)  # as far as the clock is believed to have gone since the last time
WORKTREES_EVERY = timedelta(hours=1)

#: (root of a project, id of a task)
Running = Collection[tuple[str, str]]


class Upkeep:
    """Does what is due, while nobody waits for it. `sweep` deletes the folders of removed worktrees."""

    def __init__(self, paths: Paths, projects: Projects, env: Mapping[str, str], sweep: Callable[[], None]) -> None:
        self._paths = paths
        self._projects = projects
        self._env = env
        self._sweep = sweep
        self._last: datetime | None = None
        self._last_worktrees: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self._said: set[str] = set()

    def look(self, now: datetime, running: Callable[[], Running]) -> None:
        """Begin with what is due. `running` tells the tasks that run or wait for their turn."""
        if self._task is not None and not self._task.done():
            return
        if _is_over(self._last, EVERY, now):
            self._last = now
            self._tidy(running, now)
        elif _is_over(self._last_worktrees, WORKTREES_EVERY, now):
            self._last_worktrees = now
            self._task = asyncio.create_task(self._take_worktrees_away(list(self._projects.served)))

    def _tidy(self, running: Callable[[], Running], now: datetime) -> None:
        served = self._projects.served.items()
        settings = {root: one.config.settings for root, one in served if one.config is not None}
        self._task = asyncio.create_task(self._work(settings, self._projects.settings, running(), now))

    async def _work(
        self, projects: Mapping[str, ProjectSettings], user: UserSettings, running: Running, now: datetime
    ) -> None:
        try:
            complaints = await asyncio.to_thread(lambda: list(tidy(self._paths, projects, user, running, now)))
        except Exception:  # an index on a full disk, say: nobody waits for it, and it comes again
            log.exception("the upkeep was not done")
            return
        for complaint in complaints:
            if complaint not in self._said:
                log.warning(complaint)
        self._said = set(complaints)

    async def _take_worktrees_away(self, roots: Collection[str]) -> None:
        for root in roots:
            try:
                if await asyncio.to_thread(stranded.take_away, self._paths, root, self._env):
                    self._projects.changed.add(root)
                    self._sweep()
            except (SchedulerError, OSError) as error:
                log.warning("the worktrees of %s that stayed were not looked at: %s", root, error)

    async def close(self) -> None:
        """Wait for what is being done."""
        if self._task is not None:
            await self._task


def _is_over(last: datetime | None, time: timedelta, now: datetime) -> bool:
    return last is None or abs(now - last) >= time


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
            yield from _trim_claims(where, now)
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


def _trim_claims(where: Paths, now: datetime) -> Iterator[str]:
    if not os.path.exists(where.state_db):
        return
    try:
        state = State(where.state_db, now)
        try:
            state.claims.trim()
        finally:
            state.close()
    except SchedulerError as error:
        yield f"old claims were not forgotten: {error.message}"


def _remove(olds: Iterable[retention.Old]) -> Iterator[str]:
    for old in olds:
        try:
            retention.remove(old)
        except OSError as error:
            yield f"cannot remove {old.path}: {error.strerror}"
