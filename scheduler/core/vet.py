"""Secrets in what a config calls its tasks: names and tags go on record, ids and branches name files and refs. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from scheduler.core.models import Task
from scheduler.core.parse import Config, Problem, locate, show
from scheduler.core.redact import Redactor, known_values


def redactor_for(config: Config, environment: Mapping[str, str]) -> Redactor:
    """Takes out the secrets of an environment, and those that the tasks of a config set for themselves."""
    values = set(known_values(environment, {}))
    for task in config.tasks:
        values.update(known_values({}, task.execution.env))
    return Redactor(values)


def vetted(config: Config, data: bytes, redactor: Redactor) -> Config:
    """The config in `data` with names and tags as they may be written down. A task whose id or branch would hold a
    secret is suspended: these become names of files and refs, where no mark can stand."""
    if not redactor.find("\n".join("\n".join((task.name, *_named(task), *task.tags)) for task in config.tasks)):
        return config
    text = data.decode("utf-8-sig")
    entries = json.loads(text)["tasks"]
    numbers = {str(entry.get("id")): number for number, entry in enumerate(entries) if isinstance(entry, dict)}
    tasks, problems = [], list(config.problems)
    for task in config.tasks:
        if redactor.find("\n".join(_named(task))):
            place = ("tasks", numbers[task.id])
            said = "its id or branchPrefix holds a secret, and files and branches are named by them"
            problems.append(Problem(locate(text, place), show(*place), said, task.id))
        else:
            tags = tuple(map(redactor.text, task.tags))
            tasks.append(task.model_copy(update={"name": redactor.text(task.name), "tags": tags}))
    return replace(config, tasks=tuple(tasks), problems=tuple(problems))


def _named(task: Task) -> tuple[str, str]:
    return task.id, task.execution.worktree.branch_prefix
