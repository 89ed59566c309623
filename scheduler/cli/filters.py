"""The options by which `history` and `stats` choose runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from scheduler.cli.context import Context, complete_task, project_option
from scheduler.cli.triggers import past_moment
from scheduler.core.query import Query
from scheduler.core.record import Reason, Status
from scheduler.disk import paths
from scheduler.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
_WORDS = [str(status) for status in Status]


@dataclass(frozen=True)
class Asked:
    """Which runs of which history."""

    path: str
    query: Query
    all_projects: bool

    @classmethod
    def of(
        cls, context: Context, folder: str | None, all_projects: bool, tags: tuple[str, ...] = (),
        task_id: str | None = None, since: str | None = None, until: str | None = None, **more: Any,
    ) -> Asked:  # fmt: skip
        """What the options ask for. With --all-projects a project's folder need not be there any more."""
        for reason in more.get("reasons", ()):
            if reason not in [str(known) for known in Reason]:
                raise UsageError(f"there is no reason {reason!r:.60}", f"the reasons are {', '.join(map(str, Reason))}")
        first, last = (
            None if text is None else int(past_moment(text, context.now).timestamp() * 1000) for text in (since, until)
        )
        project = os.path.realpath(folder) if folder is not None and all_projects else None
        path = context.paths.global_history if all_projects else paths.history_file(context.root(folder))
        return cls(path, Query(task_id, project=project, tags=tags, since=first, until=last, **more), all_projects)


def which_option(command: F) -> F:
    """`--task`, `--since`, `--until`, `--tag`, `--project`, `--all-projects`: what `Asked.of` takes by these names."""
    for option in (
        project_option,
        click.option("--all-projects", is_flag=True, help="Runs of every project."),
        click.option("--tag", "tags", multiple=True, metavar="TAG", help="Runs with this tag."),
        click.option("--until", metavar="WHEN", help="Runs begun before then."),
        click.option("--since", metavar="WHEN", help="Runs begun since then: '7d', 'monday', an ISO 8601 time."),
        click.option("--task", "task_id", metavar="ID", shell_complete=complete_task, help="Runs of this task."),
    ):
        command = option(command)
    return command


def outcome_option(command: F) -> F:
    """`--status` and `--reason`."""
    status = click.option(
        "--status", "statuses", multiple=True, type=click.Choice(_WORDS), help="Runs that stand like this."
    )
    reason = click.option("--reason", "reasons", multiple=True, metavar="REASON", help="Runs with this reason.")
    return status(reason(command))
