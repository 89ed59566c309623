"""Keeps glance.json, which the hooks read, up to date: in a thread, and a moment after what it tells of."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from scheduler.core.lifecycle import Going
from scheduler.core.overdue import Absence
from scheduler.core.record import RunnerMark
from scheduler.disk import glance
from scheduler.disk.paths import Paths
from scheduler.execution import overview
from scheduler.runner.projects import Projects
from scheduler.runner.served import Served
from scheduler.store.state import Known, State

log = logging.getLogger("scheduler")
DELAY = 0.25  # seconds from a change to its being written: a run that starts has the processor to itself till then


class Publisher:
    """Writes the entries of projects that changed."""

    def __init__(self, paths: Paths, state: State, projects: Projects, mark: RunnerMark, started: datetime) -> None:
        self._path = paths.glance
        self._state = state
        self._runner = {"pid": mark.pid, "version": mark.version, "startedAt": int(started.timestamp())}
        self._projects = projects
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._now = started
        self._going: Sequence[Going] = ()
        self._refused: int | None = None

    def publish(self, now: datetime, going: Sequence[Going]) -> None:
        """Have what changed written in a moment. `going`: the runs that are under way now."""
        self._now, self._going = now, going
        if self._timer is None and (self._writing is None or (self._projects.changed and self._writing.done())):
            delay = DELAY if self._writing else 0
            self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        changed, self._projects.changed = self._projects.changed, set()
        running = Counter(going.project for going in self._going)
        settings, now = self._projects.settings, self._now
        absence = Absence.ASLEEP if self._projects.settings_known else Absence.SETTINGS
        found = [
            (root, self._projects.served.get(root), replace(self._state.known(root, settings, now), absence=absence))
            for root in changed
        ]
        try:
            await asyncio.to_thread(self._update, found, running, now)
            self._refused = None
        except OSError as error:  # a full disk, say: what changed is told once there is room
            self._projects.changed |= changed
            if error.errno != self._refused:
                log.error("the glance for the hooks was not written: %s", error.strerror)
            self._refused = error.errno
        except Exception:
            log.exception("the glance for the hooks was not written")

    def _update(
        self, changed: Sequence[tuple[str, Served | None, Known]], running: Mapping[str, int], now: datetime
    ) -> None:
        if not changed:
            glance.update(self._path, None, None, runner=self._runner)
        for root, served, known in changed:
            if served is None and not os.path.isdir(root):
                glance.update(self._path, root, None, runner=self._runner)
                continue
            trusted, standing = (served.trusted, served.standing(known, now)) if served else (None, None)
            stamp = served.stamp if served else None
            entry = overview.entry(root, trusted, known, running.get(root, 0), now, standing, stamp=stamp)
            glance.update(self._path, root, entry, runner=self._runner)

    async def close(self) -> None:
        """Write what has not been yet, then that the runner is gone. No run is under way any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        if self._projects.changed:
            self._going = ()
            await self._write()
        await asyncio.to_thread(glance.update, self._path, None, None, runner=None)
