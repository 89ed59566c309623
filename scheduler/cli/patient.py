"""What `doctor` looks at: the runner and its environment, the projects, and the form of its checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scheduler.cli.context import Context
from scheduler.core.health import Finding
from scheduler.core.parse import Config
from scheduler.disk import paths
from scheduler.errors import SchedulerError
from scheduler.execution import git
from scheduler.execution.environment import of_process
from scheduler.execution.git import Project
from scheduler.runner import control
from scheduler.store import config, ownenv, trust


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
    runner, problem = None, None
    try:
        runner = control.request(context.paths, {"verb": "status"}, timeout=3)
    except (SchedulerError, OSError, ValueError) as error:
        problem = error if isinstance(error, SchedulerError) else SchedulerError(f"the runner cannot be asked: {error}")
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


def _roots(context: Context, known: Mapping[str, trust.Project]) -> tuple[str, ...]:
    served = {root for root, project in known.items() if project.enabled}
    try:
        here = context.root(None)
    except (SchedulerError, OSError):
        return tuple(sorted(served))
    return tuple(sorted({*served, here} if os.path.lexists(paths.config_file(here)) else served))
