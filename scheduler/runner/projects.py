"""All projects that are served, kept current with trust store and configs by their stamps."""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from scheduler.core.models import UserSettings, iso
from scheduler.core.overdue import Absence
from scheduler.core.redact import Redactor, known_values
from scheduler.disk import glance
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.runner.served import Served, read, take_in
from scheduler.store import settings, trust
from scheduler.store.state import State

log = logging.getLogger("scheduler")
SLICE = 100  # tasks planned before others get a turn


class Projects:
    """The enabled projects by root, and the user's settings."""

    def __init__(self, paths: Paths, state: State, env: Mapping[str, str]) -> None:
        self._paths = paths
        self._state = state
        self._env = env
        self._redactor = Redactor(known_values(env, {}))
        self._stamp: tuple[object, ...] | None = None
        self._trusted: dict[str, trust.Project] = {}
        self._busy = asyncio.Lock()
        self.settings = UserSettings()
        self.settings_known = False  # whether they were ever read; until then no limit of the user's is known
        self.served: dict[str, Served] = {}
        self.changed: set[str] = set()  # roots whose glance entry is out of date

    def forget_stamps(self) -> None:
        """Take every file for changed."""
        self._stamp = None
        for served in self.served.values():
            served.stamp = []

    async def refresh(self, now: datetime) -> None:
        """Take in what changed on disk since the last look. What cannot be read leaves things as they were."""
        async with self._busy:
            stamp = (_stat(self._paths.trust), _stat(self._paths.settings))
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_user_files()
            wanted = {root: project for root, project in self._trusted.items() if project.enabled}
            for root in self.served.keys() - wanted.keys():
                del self.served[root]
                self.changed.add(root)
            for root, project in wanted.items():
                served = self.served.get(root)
                if served is None or served.trusted != project or served.stamp != glance.stamp(root):
                    await self._load(project, now)
                elif served.branches != (branches := _branches(served)):
                    served.branches = branches
                    self.changed.add(root)

    def _read_user_files(self) -> None:
        try:
            # The texts of what was approved are for people; what is served is told by its digest.
            known = trust.read(self._paths)
            self._trusted = {root: project.without_texts() for root, project in known.items()}
        except (SchedulerError, OSError) as error:
            log.error("nothing runs until the trust store is mended: %s", error)
            self._trusted = {}
        try:
            self.settings = settings.read(self._paths)
            self.settings_known = True
        except SchedulerError as error:
            what = "the settings stay as they were" if self.settings_known else "nothing starts until they are mended"
            log.error("%s: %s", what, error)

    async def _load(self, project: trust.Project, now: datetime) -> None:
        served, told = await asyncio.to_thread(read, project, self._env, self._redactor)
        take_in(served, told, self._state, now)
        if served.suspended:
            log.warning("%s is suspended: %s", project.root, served.suspended)
        for index, task_id in enumerate(served.tasks):
            served.plan(task_id)
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        before = self.served.get(project.root)
        if before is not None:
            served.absent = Absence.UNTRUSTED if before.suspended else before.absent
        served.branches = _branches(served)
        self.served[project.root] = served
        self.changed.add(project.root)

    def explain(self, absence: Absence) -> None:
        """Note why what comes due from now on is not looked at, unless an earlier reason is still to be told."""
        for served in self.served.values():
            if served.absent is Absence.ASLEEP:
                served.absent = absence

    def redactor(self, root: str) -> Redactor:
        """Takes out what is known to be secret in a project; where it is not served, in our environment."""
        served = self.served.get(root)
        return self._redactor if served is None else served.redactor

    def clean(self, text: str) -> str:
        """A text without the secrets of all projects."""
        text = self._redactor.text(text)
        for served in list(self.served.values()):
            text = served.redactor.text(text)
        return text

    def current(self, root: str) -> Served | None:
        """The project as it is on disk at this moment, as far as two calls of stat tell; None when it has to be read
        again first, or is not served."""
        served = self.served.get(root)
        return served if served is not None and served.stamp == glance.stamp(root) else None

    def nearest(self) -> datetime | None:
        """When the next occurrence of all comes."""
        heads = [served.coming[0][0] for served in self.served.values() if served.coming]
        return min(heads, default=None)

    def coming(self, count: int) -> list[dict[str, Any]]:
        """The next occurrence of the tasks that come first, for status."""
        moments = ((at, root, task) for root, served in self.served.items() for at, task in served.coming)
        first = heapq.nsmallest(count, moments)
        return [{"project": root, "taskId": task, "at": iso(at)} for at, root, task in first]

    def suspended(self) -> dict[str, str]:
        """Why a project that is enabled is not served."""
        return {root: served.suspended for root, served in self.served.items() if served.suspended}


def _branches(served: Served) -> tuple[object, ...]:
    heads = os.path.join(served.root, ".git", "refs", "heads")
    folders = {os.path.dirname(task.execution.worktree.branch_prefix) for task in served.tasks.values()}
    places = [os.path.join(heads, folder) for folder in sorted({"", *folders})]
    git = os.path.join(served.root, ".git")
    return tuple(_stat(path) for path in (*places, os.path.join(git, "packed-refs"), os.path.join(git, "logs", "HEAD")))


def _stat(path: str) -> tuple[int, ...]:
    try:
        info = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return (info.st_mtime_ns, info.st_size, info.st_ino, info.st_mode)
