"""What every verb starts from: the environment, the user's folders, the time; and the options that many verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import click

from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Context:
    """One call of the command line. `now` has the offset of the local zone. `typed`: the id of the client's session
    into which a person typed this as a slash command; None for any other call."""

    env: Mapping[str, str]
    now: datetime
    typed: str | None = None

    @classmethod
    def current(cls) -> Context:
        """The context of this process."""
        return cls(dict(os.environ), datetime.now().astimezone())

    @cached_property
    def paths(self) -> Paths:
        """The user's folders."""
        return Paths(self.env)

    def root(self, folder: str | None) -> str:
        """The project that a folder (default: the current one) belongs to, as a real path. SchedulerError if none."""
        from scheduler.execution.git import find_project

        return str(find_project(folder or os.getcwd(), self.env).root)


def refuse_inside_run(env: Mapping[str, str], what: str) -> None:
    """Raise SchedulerError where a scheduled run asks for something that alters; its record tells of it."""
    from scheduler.execution import inside

    run_id = inside.run_around(env)
    if run_id is not None:
        inside.note_refusal(Paths(env), run_id, what)
        raise SchedulerError(
            f"{what!r} is refused inside a scheduled run",
            "a run may look, not alter: do this from a terminal of your own",
        )


def json_option(command: F) -> F:
    """`--json` as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def project_option(command: F) -> F:
    """`--project` as `folder`; `Context.root` finds its project."""
    return click.option(
        "--project", "folder", metavar="DIR", type=click.Path(), help="The project; default: the current folder's."
    )(command)


def complete_task(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the project's tasks, for shell completion."""
    from scheduler.store import config

    context = ctx.find_object(Context) or Context.current()
    found = config.read_source(context.root(ctx.params.get("folder"))).parse()
    return [task.id for task in found.tasks if task.id.startswith(incomplete)]


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the latest runs, for shell completion."""
    from scheduler.execution import overview

    context = ctx.find_object(Context) or Context.current()
    runs = overview.recent_runs(context.root(ctx.params.get("folder")))
    return [run["id"][:8] for run in reversed(runs) if run["id"].startswith(incomplete)][:50]


def task_argument(command: F) -> F:
    """`ID` of a task as `task_id`."""
    return click.argument("task_id", metavar="ID", shell_complete=complete_task)(command)


def run_argument(command: F) -> F:
    """`RUN`, the id of a run or at least its first four characters, as `run_id`."""
    return click.argument("run_id", metavar="RUN", shell_complete=complete_run)(command)
