"""Sees that somebody has logged in, while claude tasks wait for that: asks the client, ever more seldom."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

from scheduler.core.limits import Login, is_back
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import claude
from scheduler.execution.environment import build_environment
from scheduler.runner.gate import Gate
from scheduler.runner.projects import Projects

log = logging.getLogger("scheduler")
FIRST, MOST = 2.0, 60.0  # seconds until the client is asked again, which double


class LoginWatch:
    """Looks each time that the runner does; asks in a thread."""

    def __init__(self, paths: Paths, env: Mapping[str, str], projects: Projects, gate: Gate) -> None:
        self._file = paths.credentials
        self._env = env
        self._projects = projects
        self._gate = gate
        self._waited = True
        self._before: Login | None = None
        self._asked_of: tuple[int, ...] = ()
        self._delay = FIRST
        self._next = 0.0
        self._asking: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Ask the client, where it is time to, and let claude tasks go on where it is logged in again."""
        waits, stamp = self._gate.waits_for_login(), self._stamp()
        elapsed = asyncio.get_running_loop().time()
        if waits and not self._waited:
            self._before, self._delay, self._next = Login(None, stamp), FIRST, elapsed
        self._waited = waits
        if not waits or (self._asking is not None and not self._asking.done()):
            return
        if elapsed >= self._next or stamp != self._asked_of:
            self._asked_of, self._next, self._delay = stamp, elapsed + self._delay, min(2 * self._delay, MOST)
            self._asking = asyncio.create_task(self._ask(stamp))

    def _stamp(self) -> tuple[int, ...]:
        try:
            info = os.stat(self._file)
        except OSError:
            return ()
        return (info.st_mtime_ns, info.st_size, info.st_ino)

    async def _ask(self, stamp: tuple[int, ...]) -> None:
        for served in list(self._projects.served.values()):
            client = claude.find_client(served.trusted.path, served.trusted.client)
            if client is None:
                continue
            passed = self._projects.settings.env_pass
            env = build_environment(self._env, path=served.trusted.path, env_pass=passed, task_env={}, run={})
            said = await asyncio.to_thread(claude.auth_status, client, env)
            after = Login(None if said.method == "unknown" else said.logged_in, stamp)
            if is_back(self._before, after):
                try:
                    self._gate.login_is_back()
                except SchedulerError as error:  # the state cannot be written now: asked again soon
                    log.error("the client is logged in again, but %s", error.message)
                else:
                    log.info("the client is logged in again")
            elif after.logged_in is not None:
                self._before = after
            return

    async def close(self) -> None:
        """Wait for an answer that is under way."""
        if self._asking is not None:
            await self._asking
