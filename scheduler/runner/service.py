"""The system's service that keeps the runner alive over reboots: a unit of `systemd --user`, or a launchd agent.

What the files say is in core/units.py. There is one service for each state folder. A runner that is started in another
way while the service is installed has the service start it (`hand_over`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scheduler.core import units
from scheduler.core.units import Installed
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import process
from scheduler.execution.aftermath import digest
from scheduler.execution.environment import lasting
from scheduler.runner import control

log = logging.getLogger("scheduler")
NAME = "claude-scheduler"
LIMIT = 1 << 20
ASK_SECONDS = 20.0
LINGER = "/var/lib/systemd/linger"  # where logind notes who lingers
ELSE = "start the runner at log-in in another way, by `scheduler start` in ~/.profile or at @reboot of cron"


@dataclass(frozen=True)
class Found:
    """How the operating system sees the service. None: it could not be asked; `problem` says why."""

    active: bool | None
    enabled: bool | None
    problem: str | None = None


class Service:
    """One kind of service, by its manager. `file` is what the manager reads."""

    manager: str
    file: str

    def __init__(self, paths: Paths, env: Mapping[str, str]) -> None:
        self.paths = paths
        self.env = env
        self.name = NAME if paths.is_usual else f"{NAME}-{digest(paths.state)[:8]}"

    @property
    def installed(self) -> bool:
        """Whether the file of the service is there."""
        return os.path.lexists(self.file)

    def text(self) -> bytes:
        """What the file has to say."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise SchedulerError, with what to do instead, where the manager does not answer."""
        raise NotImplementedError

    def switch_on(self) -> None:
        """Have it started at each log-in from now on. Raises SchedulerError."""
        raise NotImplementedError

    def start(self) -> None:
        """Have it started now, if it is not. Raises SchedulerError."""
        raise NotImplementedError

    def switch_off(self) -> None:
        """End it and forget it; its file is still there. Raises SchedulerError."""
        raise NotImplementedError

    def look(self) -> Found:
        """How it stands."""
        raise NotImplementedError

    def write(self, launcher: bytes) -> bool:
        """Write both files where they differ; whether one did."""
        wanted = ((self.paths.service_launcher, launcher, 0o700), (self.file, self.text(), 0o644))
        differing = [one for one in wanted if _read(one[0]) != one[1]]
        for path, data, mode in differing:
            files.write_atomic(path, data, mode=mode)
        return bool(differing)

    def is_current(self, launcher: bytes) -> bool:
        """Whether the files are those that this version writes, apart from the environment that they give."""
        there = _read(self.paths.service_launcher)
        return _read(self.file) == self.text() and there is not None and units.same_launcher(there, launcher)

    def remove(self) -> None:
        """Remove both files."""
        for path in (self.file, self.paths.service_launcher):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def lingers(self) -> bool | None:
        """Whether it runs also while the user is not logged in; None where that cannot be told."""
        return None

    def _ask(self, *words: str, check: bool = True) -> process.Completed:
        return process.run(words, env=self._environment(), timeout=ASK_SECONDS, check=check)

    def _environment(self) -> dict[str, str]:
        return {**self.env, "LC_ALL": "C"}


class Systemd(Service):
    """`systemd --user`."""

    manager = "systemd"

    def __init__(self, paths: Paths, env: Mapping[str, str]) -> None:
        super().__init__(paths, env)
        self.unit = f"{self.name}.service"
        self.file = os.path.join(paths.systemd_units, self.unit)

    def text(self) -> bytes:
        return units.unit(self.paths.service_launcher)

    def check(self) -> None:
        found = self.look()
        if found.problem is not None:
            raise SchedulerError(f"systemd does not answer: {found.problem}", _hint(found.problem))

    def switch_on(self) -> None:
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--quiet", self.unit)

    def start(self) -> None:
        self._systemctl("start", self.unit)

    def switch_off(self) -> None:
        self._systemctl("disable", "--now", "--quiet", self.unit)
        self._ask("systemctl", "--user", "reset-failed", self.unit, check=False)

    def remove(self) -> None:
        super().remove()
        with contextlib.suppress(FileNotFoundError):  # what `enable` made, where systemd could not be asked
            os.unlink(os.path.join(self.paths.systemd_units, "default.target.wants", self.unit))
        if self.look().problem is None:
            self._systemctl("daemon-reload")

    def look(self) -> Found:
        try:
            done = self._systemctl("show", "--property=ActiveState,UnitFileState", self.unit)
        except SchedulerError as error:
            return Found(None, None, error.message)
        said = dict(line.partition("=")[::2] for line in done.stdout.decode("utf-8", "replace").splitlines())
        active = said.get("ActiveState") in ("active", "activating", "reloading", "deactivating")
        return Found(active, said.get("UnitFileState") == "enabled")

    def lingers(self) -> bool | None:
        return os.path.exists(os.path.join(LINGER, pwd.getpwuid(os.getuid()).pw_name))

    def _systemctl(self, *words: str) -> process.Completed:
        return self._ask("systemctl", "--user", *words)

    def _environment(self) -> dict[str, str]:
        """With the way to the user's systemd, which `su` and cron leave out."""
        env = super()._environment()
        usual = f"/run/user/{os.getuid()}"
        if not env.get("XDG_RUNTIME_DIR") and os.path.isdir(usual):
            env["XDG_RUNTIME_DIR"] = usual
        return env


class Launchd(Service):
    """launchd, in the domain of the user's session."""

    manager = "launchd"

    def __init__(self, paths: Paths, env: Mapping[str, str]) -> None:
        super().__init__(paths, env)
        self.file = os.path.join(paths.launch_agents, f"{self.name}.plist")
        self._domain = f"gui/{os.getuid()}"

    def text(self) -> bytes:
        return units.agent(self.name, self.paths.service_launcher)

    def check(self) -> None:
        try:
            self._ask("launchctl", "print", self._domain)
        except SchedulerError as error:
            raise SchedulerError(
                f"launchd does not answer: {error.message}", f"log in at the screen, or {ELSE}"
            ) from None

    def switch_on(self) -> None:
        self._ask("launchctl", "bootout", f"{self._domain}/{self.name}", check=False)
        self._ask("launchctl", "enable", f"{self._domain}/{self.name}")
        self._ask("launchctl", "bootstrap", self._domain, self.file)

    def start(self) -> None:
        self._ask("launchctl", "kickstart", f"{self._domain}/{self.name}")

    def switch_off(self) -> None:
        self._ask("launchctl", "bootout", f"{self._domain}/{self.name}")

    def look(self) -> Found:
        try:
            done = self._ask("launchctl", "print", f"{self._domain}/{self.name}", check=False)
        except SchedulerError as error:
            return Found(None, None, error.message)
        running = re.search(rb"^\s*state = running", done.stdout, re.MULTILINE)
        return Found(running is not None, done.returncode == 0)


def of(paths: Paths, env: Mapping[str, str], platform: str = sys.platform) -> Service:
    """The service of this user on this system."""
    return (Launchd if platform == "darwin" else Systemd)(paths, env)


def launcher(paths: Paths, env: Mapping[str, str], env_pass: tuple[str, ...]) -> tuple[bytes, list[str]]:
    """The launcher for a runner with what may be written down of `env`, and the names of what may not."""
    kept, left_out = lasting(env, env_pass)
    program: Installed | str = paths.runtime
    if not Path(control.package_folder()).is_relative_to(paths.cache):  # not what scripts/scheduler has set up
        program = Installed(sys.executable, control.package_folder())
    return units.launcher(kept, paths.runner_log, program), left_out


def is_own(env: Mapping[str, str]) -> bool:
    """Whether a runner with this environment was started by the service."""
    return env.get("SCHEDULER_STARTED_BY") == units.STARTED_BY


def hand_over(paths: Paths, env: Mapping[str, str], patience: float = control.START_TIMEOUT) -> bool:
    """Where the service is installed, have it start the runner that would start here; whether one is at work now."""
    service = of(paths, env)
    if is_own(env) or not service.installed:
        return False
    try:
        service.start()
    except SchedulerError as error:
        log.warning("the service could not be asked to start the runner: %s", error.message)
        return False
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(SchedulerError):
            if control.request(paths, {"verb": "status"}) is not None:
                log.info("the service has started the runner")
                return True
        time.sleep(0.05)
    log.warning("the service was asked to start the runner, and none came")
    return False


def _hint(problem: str) -> str:
    if "bus" in problem or "medium" in problem.lower():
        return f"log in as this user directly (not by su or sudo), so that it has a systemd of its own; or {ELSE}"
    return ELSE


def _read(path: str) -> bytes | None:
    try:
        return files.read_bounded(path, LIMIT)
    except OSError:
        return None
