"""The runner: one process per user that starts what is due, and ends only when it is told to or has nothing to serve.

The wall clock decides what is due, the monotonic clock how long to sleep: a suspend or a clock that jumps is just a
later (or an earlier) look at the wall clock.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from scheduler import __version__
from scheduler.core import health
from scheduler.core.overdue import Absence
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import process
from scheduler.execution.agent import SupervisorPool
from scheduler.runner import control, journal, moved, recovery, service
from scheduler.runner.clock import ClockWatch, wall_clock
from scheduler.runner.desk import Desk
from scheduler.runner.installation import was_uninstalled
from scheduler.runner.login import LoginWatch
from scheduler.runner.projects import Projects
from scheduler.runner.upkeep import Upkeep
from scheduler.store import ownenv
from scheduler.store.database import NotWritten, unsafe
from scheduler.store.state import State

log = logging.getLogger("scheduler")
POLL = 1.0  # seconds between two looks at the configs and the wall clock
IDLE_EXIT = 60.0  # seconds with no project enabled and no run under way, after which the runner ends
INSTALLATION_CHECK = 20.0  # seconds between two looks at whether the plugin is still installed
LOCK_PATIENCE = 1.0
SHUTDOWN_PATIENCE = 20.0  # seconds that runs get to end by themselves when the service is stopped, or the machine is


class Runner:
    """The loop: look, fire what is due, start what may start, sleep."""

    def __init__(
        self,
        paths: Paths,
        env: Mapping[str, str],
        now: Callable[[], datetime] = wall_clock,
        built: datetime = health.BUILT,
    ) -> None:
        self.now = now
        self.started_at = now()
        self.state = State(paths.state_db, now())
        for warning in (self.state.damage, unsafe(paths.state)):
            if warning:
                log.warning(warning)
        self.pool = SupervisorPool()
        self.projects = Projects(paths, self.state, env)
        self.desk = Desk(paths, env, self.state, self.pool, self.projects, now)
        self.upkeep = Upkeep(paths, self.projects, env, self.desk.floor.sweep)
        self.clock = ClockWatch(self.projects, now(), time.monotonic(), built)
        self.login = LoginWatch(paths, env, self.projects, self.desk.gate)
        self.paths = paths
        self.env = env
        self.stopping = False
        self._settled: set[str] = set()  # the projects that were looked at for runs which they were moved under
        self._idle_since: float | None = None
        self._next_check = 0.0
        self._recovered = False
        self._refused: str | None = None

    async def work(self) -> None:
        """Serve until told to stop. The caller holds the lock and listens already."""
        self.pool.start()
        try:
            while not self._over():
                self.desk.wake.clear()
                self._watch()
                self.desk.obey_switch(self.now())
                try:
                    if not self.clock.unset and (self._refused is None or self.state.writable()):
                        await self._look()
                        self._refused = None
                except NotWritten as error:  # nothing is lost: it is due at the next look too
                    self.projects.explain(Absence.UNWRITTEN)
                    if error.message != self._refused:
                        log.error("nothing more is started for now: %s", error.message)
                    self._refused = error.message
                await self._sleep()
        finally:
            await self.desk.close()
            await self.upkeep.close()
            await self.login.close()
            await self.pool.close()
            self.state.close()

    async def _look(self) -> None:
        await self.projects.refresh(self.now())
        if not self._recovered:
            await recovery.recover(self.paths, self.env, self.state, self.desk, self.now)
            self._recovered = True
        await self._settle_moved()
        self.desk.fire(self.now())
        if not self.stopping:
            self.desk.start_ready(self.now())
        self.desk.publish(self.now())
        self.upkeep.look(self.now(), self.desk.tasks)
        self.login.look()

    async def _settle_moved(self) -> None:
        new = self.projects.served.keys() - self._settled
        self._settled = set(self.projects.served)
        for root in new:
            await moved.settle(self.paths, self.env, root, self.desk, self.now)

    def _watch(self) -> None:
        """See what may happen to a process that lives for months: another clock, a plugin taken away."""
        self.clock.look(self.now(), time.monotonic())
        elapsed = asyncio.get_running_loop().time()
        if elapsed >= self._next_check and not self.stopping:
            self._next_check = elapsed + INSTALLATION_CHECK
            if was_uninstalled(self.env):
                log.info("the plugin was uninstalled")
                self.stop()
            self._renew_log()

    def _renew_log(self) -> None:
        try:
            journal.renew(self.paths.runner_log)
        except OSError as error:
            log.warning("the runner's log stays as large as it is: %s", error.strerror)

    async def _sleep(self) -> None:
        nearest = self.desk.nearest()
        wait = POLL if nearest is None else min(POLL, max((nearest - self.now()).total_seconds(), 0))
        timer = asyncio.get_running_loop().call_later(wait, self.desk.wake.set)
        await self.desk.wake.wait()
        timer.cancel()

    def _over(self) -> bool:
        if self.stopping:
            return not self.desk.floor.going
        if self.clock.unset or self.projects.served or self.desk.floor.going or self.desk.queue:
            self._idle_since = None
            return False
        elapsed = asyncio.get_running_loop().time()
        self._idle_since = elapsed if self._idle_since is None else self._idle_since
        return elapsed - self._idle_since > IDLE_EXIT

    def stop(self, *, at_once: bool = False) -> None:
        """Start nothing any more; end when the runs under way have ended. `at_once` cancels them."""
        self.stopping = True
        if at_once:
            self.desk.floor.cancel()
        self.desk.wake.set()

    def reload(self) -> None:
        """Look at every config again, now."""
        self.projects.forget_stamps()
        self.desk.wake.set()

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the control socket is asked."""
        verb = asked.get("verb")
        if verb == "status":
            return self._status()
        if verb == "stop":
            self.stop(at_once=asked.get("now") is True)
            return {}
        if verb == "reload":
            self.reload()
            return {}
        if verb == "run":
            if self.stopping:
                raise SchedulerError("the runner is stopping", "start it again, then run the task")
            if self.clock.unset:
                raise SchedulerError(f"{health.unset_words(self.now())}: nothing starts", health.SET_THE_CLOCK)
            await self.projects.refresh(self.now())
            return {"runId": self._order(asked)}
        if verb == "cancel":
            return {"runId": self.desk.cancel(str(asked.get("runId")))}
        raise SchedulerError(f"the runner does not know {verb!r:.40}", "restart it: 'restart'")

    def _order(self, asked: dict[str, Any]) -> str:
        return self.desk.order(str(asked.get("project")), str(asked.get("task")), retry=bool(asked.get("retryOf")))

    def _status(self) -> dict[str, Any]:
        mark = self.desk.mark
        return {
            "pid": mark.pid,
            "version": mark.version,
            "host": mark.host,
            "startedAt": self.started_at.isoformat(timespec="seconds"),
            "stopping": self.stopping,
            "startedBy": self.env.get("SCHEDULER_STARTED_BY"),
            **self.desk.status(),
            "next": self.projects.coming(10),
            "suspended": self.projects.suspended(),
            "idle": self._idle(),
            "settings": self.projects.settings.to_json() if self.projects.settings_known else None,
        }

    def _idle(self) -> dict[str, str] | None:
        """Why nothing starts, for `status`: the cause in a word, and in a clause."""
        if self.clock.unset:
            return {"cause": Absence.CLOCK.value, "why": health.unset_words(self.now())}
        if self._refused is not None:
            return {"cause": Absence.UNWRITTEN.value, "why": self._refused}
        if self.desk.gate.shut is Absence.SETTINGS:
            return {"cause": Absence.SETTINGS.value, "why": "the settings cannot be read"}
        return self.desk.cramped()


async def _serve(runner: Runner) -> None:
    loop = asyncio.get_running_loop()
    server = await control.serve(control.listen(runner.paths.runner_sock), runner.answer)
    loop.add_signal_handler(signal.SIGTERM, _terminate, runner)
    loop.add_signal_handler(signal.SIGINT, runner.stop)
    loop.add_signal_handler(signal.SIGHUP, runner.reload)
    try:
        await runner.work()
    finally:
        server.close()
        # A client that comes now must find no runner, rather than one that does not answer.
        os.unlink(runner.paths.runner_sock)


def _terminate(runner: Runner) -> None:
    """Stop. A service is not waited for: what runs too long is cancelled in time, so that its work is saved."""
    runner.stop()
    if service.is_own(runner.env):
        asyncio.get_running_loop().call_later(SHUTDOWN_PATIENCE, lambda: runner.stop(at_once=True))


def main(env: Mapping[str, str], now: Callable[[], datetime] = wall_clock) -> int:
    """Be the runner, in the foreground. 0 also when another one is at work already, or the service starts it."""
    paths = Paths(env)
    os.chdir("/")
    os.umask(0o077)
    # A file at its size limit must be an error that is reported, not the end of the runner.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _raise_descriptor_limit()
    words = journal.set_up(env)
    if service.hand_over(paths, env):
        return 0
    try:
        with files.locked(paths.runner_lock, timeout=LOCK_PATIENCE):
            process.become_subreaper()
            log.info("runner %s starts, pid %d", __version__, os.getpid())
            runner = Runner(paths, _with_own(paths, env), now)
            words.clean = runner.projects.clean
            asyncio.run(_serve(runner))
            log.info("runner ends, pid %d", os.getpid())
    except files.LockTaken:
        if service.is_own(env):
            _take_over(paths)
        log.info("another runner is at work")
    except SchedulerError as error:
        log.error("the runner cannot start: %s; %s", error.message, error.hint)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        # Never without its lock: two runners would do everything twice.
        log.error("%s cannot be locked (%s): keep it on a local disk (SCHEDULER_HOME)", paths.state, error.strerror)
        return 1
    return 0


def _with_own(paths: Paths, env: Mapping[str, str]) -> dict[str, str]:
    try:
        return ownenv.added(env, paths)
    except SchedulerError as error:
        log.error("%s; %s", error.message, error.hint)
        return dict(env)


def _take_over(paths: Paths) -> None:
    """Wait for the end of the runner that is at work, then begin again: an update may have come meanwhile."""
    log.info("another runner is at work; that of the service waits for its end")
    with files.locked(paths.runner_lock):
        pass
    os.execv("/bin/sh", ["/bin/sh", paths.service_launcher])


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
