"""The one way in which the command line changes a project's tasks.

Under the lock of the trust store: only an approved config is edited; the new bytes are approved before they are
written, so that the runner never sees a config of ours that is not approved.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scheduler.cli.approver import approver
from scheduler.cli.context import Context
from scheduler.cli.view import known_of
from scheduler.core import health
from scheduler.core.models import Task, iso
from scheduler.core.parse import Config, trigger_digest
from scheduler.disk import glance, paths
from scheduler.errors import NotTrusted, SchedulerError
from scheduler.execution import overview
from scheduler.runner import control
from scheduler.store import config, trust
from scheduler.store.config import ConfigAbsent, Source
from scheduler.store.state import State

Known = dict[str, trust.Project]


def change(context: Context, root: str, edit: Callable[[list[Any]], None]) -> Config:
    """Edit the raw tasks of a project; the new config.

    The first change makes the config; whoever types it is its author, so it is approved, but nothing runs until
    `enable`. SchedulerError, and nothing changed, when the config at hand is not approved or the new one has errors
    that the old one had not.
    """
    with trust.lock(context.paths):
        known = trust.read(context.paths)
        before, after, parsed = _edited(context, known, root, edit)
        known.setdefault(root, trust.Project(root, False, "", None, ""))
        if before is not None or _are_ours(after.rules, known[root]):
            what = changed(context, known[root].approvals, after, parsed)
            known = trust.approved(known, after, iso(context.now), approver(context), what)
        trust.write(context.paths, known)
        config.write(after, before)
        take_in(context, known[root], parsed)
    tell(context, root)
    return parsed


def changed(context: Context, approvals: Sequence[trust.Approval], after: Source, parsed: Config) -> list[str]:
    """What is other than in the last approval: ids of tasks, `rules.md`; `config.json` where it is neither.

    `parsed` is `after` without secrets in its names.
    """
    if not approvals:
        return [task.id for task in parsed.tasks]
    last, rules = approvals[-1], None if after.rules is None else after.rules.decode("utf-8", "replace")
    old: dict[str, Task] = {}
    with contextlib.suppress(SchedulerError):
        before = Source(after.project, last.config.encode("utf-8", "replace"), None)
        old = {task.id: task for task in before.vetted(context.env)[0].tasks}
    new = {task.id: task for task in parsed.tasks}
    found = [task_id for task_id in {**old, **new} if old.get(task_id) != new.get(task_id)]
    found += ["rules.md"] if rules != last.rules else []
    return found or ["config.json"]


def rehearse(context: Context, root: str, edit: Callable[[list[Any]], None]) -> Config:
    """The config that `change` would make, or the error that it would raise. Nothing is written."""
    return _edited(context, trust.read(context.paths), root, edit)[2]


def _edited(
    context: Context, known: Known, root: str, edit: Callable[[list[Any]], None]
) -> tuple[Source | None, Source, Config]:
    before = _approved_source(known, root)
    after = config.edited(before, root, edit)
    parsed, _ = after.vetted(context.env)
    _refuse_new_problems(before.vetted(context.env)[0] if before else None, parsed, paths.config_file(root))
    return before, after, parsed


def _approved_source(known: Mapping[str, trust.Project], root: str) -> Source | None:
    try:
        source = config.read_source(root)
    except ConfigAbsent:
        return None
    if root not in known or not known[root].approves(source):
        suspension = known[root].suspension if root in known else None
        why = "the config is not one that you approved" if suspension is None else suspension.words()
        raise NotTrusted(f"{why}, so it is not edited", "look at it and approve it first: 'enable'")
    return source


def _are_ours(rules: bytes | None, project: trust.Project) -> bool:
    # A clone can carry a rules.md without a config: the first `add` must not approve it unseen.
    return rules is None or rules.decode("utf-8", "replace") in [approval.rules for approval in project.approvals]


def _refuse_new_problems(before: Config | None, after: Config, file: str) -> None:
    old = {(problem.task, problem.message) for problem in before.problems} if before else set()
    for problem in after.problems:
        if not problem.warning and (problem.task, problem.message) not in old:
            raise SchedulerError(problem.text(file), "nothing was changed")


def take_in(context: Context, project: trust.Project, parsed: Config) -> None:
    """Put an approved config's tasks into the state, where new ones begin to count; off while the project is."""
    if health.is_unset(context.now):
        return  # they would count from a wrong time; the runner takes them in once the clock is set
    state = State(context.paths.state_db, context.now)
    try:
        tasks = [(task.id, trigger_digest(task), task.enabled and project.enabled) for task in parsed.tasks]
        state.sync(project.root, tasks, context.now)
    finally:
        state.close()


def tell(context: Context, root: str) -> None:
    """Make a change known: the living runner looks again and tells the hooks; without one the hooks are told here."""
    try:
        if control.request(context.paths, {"verb": "reload"}) is not None:
            return
    except SchedulerError:
        pass  # it will see for itself: it looks at every config once a second
    trusted = trust.read(context.paths).get(root)
    if trusted is None and not os.path.isdir(root):
        glance.update(context.paths.glance, root, None)
        return
    known = known_of(context, root)
    glance.update(context.paths.glance, root, overview.entry(root, trusted, known, 0, context.now))
