"""What `doctor` looks at: the runner and its environment, the projects, and the form of its checks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scheduler.cli.context import Context
from scheduler.core import health
from scheduler.core.health import Finding
from scheduler.core.parse import Config
from scheduler.disk import paths
from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.environment import of_process
from scheduler.execution.git import Project
from scheduler.runner import control
from scheduler.store import config, ownenv, trust

STARTING = 2.0  # seconds that a runner which holds the lock already gets to answer
ANSWER = 3.0  # seconds for the runner to answer


@dataclass(frozen=True)
class Found:
    """A finding. `fix`, where there is one that is safe, mends it and says what it did."""

    finding: Finding
    fix: Callable[[], str] | None = None


class Check(NamedTuple):
    """A part of the examination; its name stands for it where it cannot be made."""

    name: str
    look: Callable[[], Iterable[Found]]


@dataclass(frozen=True)
class Patient:
    """`runner`: its status, None where none lives; `problem`: why it could not be asked. `env`: the runner's own
    environment, or the one that it would get from here, as `whose` says. `known`: what trust.json holds. `roots`: the
    projects that are served, and the one here if it has tasks."""

    context: Context
    runner: dict[str, Any] | None = None
    problem: SchedulerError | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    whose: str = ""
    known: Mapping[str, trust.Project] = field(default_factory=dict)
    roots: tuple[str, ...] = ()

    def project(self, root: str) -> Project:
        """A project in the runner's environment. SchedulerError where there is none."""
        return git.find_project(root, self.env)

    def config(self, root: str) -> Config | None:
        """The project's config, None where it cannot be used."""
        try:
            return config.read_source(root).parse()
        except SchedulerError:
            return None


def examine(context: Context) -> Patient:
    """The patient as it is now."""
    runner, problem = _ask(context)
    end = time.monotonic() + STARTING
    while runner is None and problem is None and holders(context.paths.runner_lock) and time.monotonic() < end:
        time.sleep(0.1)  # one that is just starting
        runner, problem = _ask(context)
    seen = None if runner is None else of_process(runner["pid"])
    env = dict(context.env) if seen is None else seen
    try:
        env = ownenv.added(env, context.paths)
    except SchedulerError:
        pass  # a check of its own says so
    try:
        known = trust.read(context.paths)
    except (SchedulerError, OSError):
        known = {}
    whose = "of the runner at work" if seen is not None else "that 'start' gives it from here"
    return Patient(context, runner, problem, env, whose, known, _roots(context, known))


def _ask(context: Context) -> tuple[dict[str, Any] | None, SchedulerError | None]:
    """The runner's status, or why it could not be asked."""
    try:
        return control.request(context.paths, {"verb": "status"}, timeout=ANSWER), None
    except SchedulerError as error:
        return None, error
    except (OSError, ValueError) as error:
        return None, SchedulerError(f"the runner cannot be asked: {error}")


def holders(lock: str) -> list[int]:
    """The processes that hold a lock, where the system tells."""
    try:
        return health.lock_holders(Path("/proc/locks").read_text(), os.stat(lock).st_ino)
    except OSError:
        return []


def _roots(context: Context, known: Mapping[str, trust.Project]) -> tuple[str, ...]:
    served = {root for root, project in known.items() if project.enabled}
    try:
        here = context.root(None)
    except (SchedulerError, OSError):
        return tuple(sorted(served))
    return tuple(sorted({*served, here} if os.path.lexists(paths.config_file(here)) else served))
