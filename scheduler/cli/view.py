"""One project as the files tell it: its config and whether it is approved, what the runner knows, what ran last."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from scheduler.cli.context import Context
from scheduler.core.limits import Cause, Hold, starts, starts_again, switched_off
from scheduler.core.models import Task, UserSettings, from_json
from scheduler.core.parse import Config
from scheduler.disk import switch
from scheduler.errors import SchedulerError
from scheduler.execution import overview
from scheduler.execution.standing import Standing, stand, stand_still
from scheduler.runner import control
from scheduler.store import config, settings, trust
from scheduler.store.config import ConfigAbsent, Source
from scheduler.store.state import Known, State


@dataclass(frozen=True)
class View:
    """What is so. `config` is None, and `problem` says why, where the file cannot be used as a whole."""

    root: str
    now: datetime
    trusted: trust.Project | None = None
    source: Source | None = None
    config: Config | None = None
    problem: SchedulerError | None = None
    known: Known = field(default_factory=Known)

    @property
    def enabled(self) -> bool:
        """Whether the runner is to serve the project."""
        return self.trusted is not None and self.trusted.enabled

    @property
    def approved(self) -> bool:
        """Whether exactly this config was approved."""
        return self.refusal is None

    @property
    def refusal(self) -> str | None:
        """Why nothing of this config may run, in a clause; None where it was approved."""
        if self.trusted is None or self.source is None:
            return trust.NOT_APPROVED
        return self.trusted.refusal(self.source)

    @property
    def absent(self) -> bool:
        """Whether there is no config at all."""
        return isinstance(self.problem, ConfigAbsent)

    def stand(self) -> Standing:
        """How the project stands by this config."""
        if self.config is None:
            assert self.problem is not None
            found = Standing(self.approved, self.problem.message)
        else:
            found = stand(self.root, self.config, self.known, self.now, refusal=self.refusal)
        return stand_still(found, self.root, self.trusted, self.known, self.now)

    def usable(self) -> Config:
        """The config, or the error that says why there is none."""
        if self.config is None:
            assert self.problem is not None
            raise self.problem
        return self.config

    def vetted(self, env: Mapping[str, str]) -> Config:
        """The same as the runner takes it: what names files and branches holds no secret."""
        self.usable()
        assert self.source is not None
        return self.source.vetted(env)[0]

    def done(self, task_id: str) -> bool:
        """Whether the task has run for the last time."""
        state = self.known.tasks.get(task_id)
        return state is not None and state.done_at is not None

    def added_at(self, task_id: str) -> datetime:
        """When the task's trigger began to count."""
        state = self.known.tasks.get(task_id)
        return state.added_at if state is not None else self.now

    def next_run(self, task: Task) -> datetime | None:
        """When the task would run next; None when it never will, is off, or waits for a person."""
        since = starts_again(self.known.holds, self.root, task, self.now)
        if not task.enabled or self.done(task.id) or since is None:
            return None
        state, added = self.known.tasks.get(task.id), self.added_at(task.id)
        handled = self.now if state is None else state.handled_until
        quiet = self.known.quiet_hours
        return next(starts(task, quiet, since, handled_until=handled, added_at=added), None)

    def holds(self, task: Task) -> list[Hold]:
        """What keeps the task from starting now."""
        return [hold for hold in self.known.holds if hold.covers(self.root, task) and not hold.is_over(self.now)]

    def standing(self, task: Task) -> str:
        """`on`, `off`, `done`, `past`, `waits` (for a usage limit to end, and nothing else) or `paused`."""
        if self.done(task.id):
            return "done"
        if not task.enabled:
            return "off"
        held = {hold.cause for hold in self.holds(task)}
        kept_back = "waits" if held == {Cause.USAGE_LIMIT} else "paused"
        return "past" if self.past(task) else kept_back if held else "on"

    def past(self, task: Task) -> bool:
        """Whether the task's one moment was over before the task began to count: it never ran, and never will."""
        if task.trigger.type != "once" or self.done(task.id):
            return False
        state = self.known.tasks.get(task.id)
        counted = state.handled_until if state is not None and state.active_since is not None else self.now
        return task.trigger.at <= counted

    def why_idle(self) -> tuple[str, str] | None:
        """Why nothing runs in this project, and what to do; None where it is served."""
        if self.problem is not None:
            return self.problem.message, self.problem.hint
        if not self.enabled:
            return "this project is not enabled: nothing runs", "look at its tasks and let them run: 'enable'"
        if self.refusal is not None:
            return f"{self.refusal}: nothing runs", "look at what changed and approve it: 'enable'"
        return None


def look(context: Context, root: str) -> View:
    """The project at `root` as it is now. Raises only where the user's own files are damaged."""
    trusted = trust.read(context.paths).get(root)
    known = known_of(context, root)
    try:
        source = config.read_source(root)
    except SchedulerError as error:
        return View(root, context.now, trusted, problem=error, known=known)
    try:
        return View(root, context.now, trusted, source, source.parse(), known=known)
    except SchedulerError as error:
        return View(root, context.now, trusted, source, problem=error, known=known)


def known_of(context: Context, root: str) -> Known:
    """What the runner knows of the project; looking makes no file."""
    known = Known()
    if os.path.exists(context.paths.state_db):
        state = State(context.paths.state_db, context.now)
        try:
            known = state.known(root, user_settings(context), context.now)
        finally:
            state.close()
    off = off_hold(context)  # what the state has of it may be older than what is so
    others = [hold for hold in known.holds if hold.cause is not Cause.OFF]
    return replace(known, holds=others if off is None else [off, *others])


def off_hold(context: Context) -> Hold | None:
    """The hold on everything that the off switch is; None where it is not thrown."""
    off = switch.look(context.paths.off_switch, context.now.timestamp())
    if off is None:
        return None
    return switched_off(context.paths.off_switch, datetime.fromtimestamp(off.since, context.now.tzinfo))


def spent_today(context: Context) -> list[tuple[str, str, float]]:
    """What the runs that ended today have cost: (project, task, US dollars)."""
    if not os.path.exists(context.paths.state_db):
        return []
    state = State(context.paths.state_db, context.now)
    try:
        return state.costs.on(context.now)
    finally:
        state.close()


def user_settings(context: Context) -> UserSettings:
    """The user's settings. Where the file cannot be used, which `status` says, those that the runner goes by; the
    defaults without one."""
    try:
        return settings.read(context.paths)
    except SchedulerError:
        return kept_settings(context) or UserSettings()


def kept_settings(context: Context) -> UserSettings | None:
    """The settings that the living runner read last; None where there is none, or it could never read them."""
    try:
        told = (control.request(context.paths, {"verb": "status"}) or {}).get("settings")
    except SchedulerError:
        return None
    found = None if told is None else from_json(UserSettings, json.dumps(told))
    return found if isinstance(found, UserSettings) else None


def last_runs(root: str) -> dict[str, dict[str, Any]]:
    """The latest record of each task, by its id, as far as the end of the history tells."""
    return {run["taskId"]: run for run in overview.recent_runs(root)}
