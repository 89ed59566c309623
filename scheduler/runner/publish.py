"""Keeps glance.json, which the hooks read, up to date: in a thread, at most once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from scheduler.core.lifecycle import Going
from scheduler.core.record import RunnerMark
from scheduler.disk import glance
from scheduler.disk.paths import Paths
from scheduler.execution import overview
from scheduler.runner.projects import Projects
from scheduler.runner.served import Served

log = logging.getLogger("scheduler")


class Publisher:
    """Writes the entries of projects that changed."""

    def __init__(self, paths: Paths, projects: Projects, mark: RunnerMark, started: datetime) -> None:
        self._path = paths.glance
        self._runner = {"pid": mark.pid, "version": mark.version, "startedAt": int(started.timestamp())}
        self._projects = projects
        self._task: asyncio.Task[None] | None = None
        self._said_runner = False

    def publish(self, now: datetime, going: Sequence[Going]) -> None:
        """Write what changed since the last time, unless the last writing is still under way."""
        if self._task is not None and not self._task.done():
            return
        if not self._projects.changed and self._said_runner:
            return
        changed, self._projects.changed = self._projects.changed, set()
        self._said_runner = True
        running = {root: sum(g.project == root for g in going) for root in changed}
        served = {root: self._projects.served.get(root) for root in changed}
        self._task = asyncio.create_task(self._write(served, running, now))

    async def _write(self, changed: Mapping[str, Served | None], running: Mapping[str, int], now: datetime) -> None:
        def work() -> None:
            glance.update(self._path, None, None, runner=self._runner)
            for root, served in changed.items():
                trusted = served.trusted if served else None
                states = dict(served.states) if served else {}
                glance.update(self._path, root, overview.entry(root, trusted, states, running[root], now))

        try:
            await asyncio.to_thread(work)
        except Exception:
            log.exception("the glance for the hooks was not written")

    async def close(self) -> None:
        """Wait for what is being written, then say that the runner is gone."""
        if self._task is not None:
            await self._task
        await asyncio.to_thread(glance.update, self._path, None, None, runner=None)
