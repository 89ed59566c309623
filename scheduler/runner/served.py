"""The projects that the runner serves: their approved tasks, why one is suspended, and when each task fires next."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from scheduler.core.models import Task
from scheduler.core.overdue import Absence
from scheduler.core.parse import Config, trigger_digest
from scheduler.core.redact import Redactor
from scheduler.core.schedule import next_occurrence
from scheduler.disk import glance
from scheduler.errors import SchedulerError
from scheduler.execution.standing import DUE, Plan, Standing, count_suspended, count_tasks, forecast, soonest, stand
from scheduler.store import config, trust
from scheduler.store.state import Known, State, TaskState

_TICK = timedelta(microseconds=1)
Told = tuple[str, str, bool]
"""A task as the state is told of it: id, digest of its trigger, whether it is enabled."""


@dataclass
class Served:
    """One enabled project. `tasks` and `rules` are of the approved bytes; `suspended` says why nothing may start.

    `redactor` knows the secrets of the config and of the runner's environment, and names and tags are without them.
    `coming` is a heap of each task's next occurrence. `absent`: why nobody looked at it yet. `branches`: stamps of
    what git touches when somebody merges or deletes a run's branch.
    """

    root: str
    trusted: trust.Project
    stamp: list[int]
    redactor: Redactor
    suspended: str | None = None
    rules: str | None = None
    config: Config | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    states: dict[str, TaskState] = field(default_factory=dict)
    coming: list[tuple[datetime, str]] = field(default_factory=list)
    absent: Absence = Absence.NO_RUNNER
    branches: tuple[object, ...] = ()

    def active(self, task_id: str) -> TaskState | None:
        """The state of a task that may fire by the clock; None for one that is off, done or unknown."""
        state = self.states.get(task_id)
        if state is None or state.active_since is None or state.done_at is not None or task_id not in self.tasks:
            return None
        return state

    def plan(self, task_id: str) -> None:
        """Put the task's next occurrence after what is handled on the list of what comes."""
        state = self.active(task_id)
        if state is not None:
            moment = next_occurrence(self.tasks[task_id].trigger, state.handled_until, added_at=state.added_at)
            if moment is not None:
                heapq.heappush(self.coming, (moment, task_id))

    def due(self, now: datetime) -> Iterator[str]:
        """Take the tasks whose next occurrence has come off the list, earliest first."""
        while self.coming and self.coming[0][0] <= now:
            yield heapq.heappop(self.coming)[1]

    def standing(self, known: Known, now: datetime) -> Standing | None:
        """How it stands, for the glance; None where it is suspended. From any thread."""
        if self.config is None or self.suspended is not None:
            return None
        if known.holds or known.absence is not Absence.ASLEEP:
            return stand(self.root, self.config, known, now)
        states, coming, quiet = dict(self.states), list(self.coming), known.quiet_hours
        done = sum(state.done_at is not None for state in states.values())
        live = sum(task.enabled for task in self.config.tasks) - done
        mine = [one for one in heapq.nsmallest(DUE if quiet is None else len(coming), coming) if one[1] in self.tasks]
        plans = [(at, Plan(self.tasks[id], at - _TICK, at - _TICK, states[id].added_at, now)) for at, id in mine]
        first = soonest(plans, quiet)
        return Standing(
            True,
            None,
            count_tasks(self.config),
            live,
            [(moment.timestamp(), plan.task.id) for moment, plan in first],
            due=forecast((plan for _, plan in first), quiet),
            enabled={task.id for task in self.config.tasks if task.enabled},
            broken=count_suspended(self.config),
        )


def read(trusted: trust.Project, env: Mapping[str, str], default: Redactor) -> tuple[Served, list[Told]]:
    """Read and judge a project's config as it is now, for `take_in`. What is not exactly approved is suspended; nothing
    is raised. From any thread.
    """
    served = Served(trusted.root, trusted, glance.stamp(trusted.root), default)
    try:
        source = config.read_source(trusted.root)
        refusal = trusted.refusal(source)
        if refusal is not None:
            served.suspended = f"{refusal}; look at it and approve it with 'enable'"
            return served, []
        served.config, served.redactor = source.vetted(env)
    except SchedulerError as error:
        served.suspended = error.message
        return served, []
    served.rules = None if source.rules is None else source.rules.decode("utf-8", "replace")
    served.tasks = {task.id: task for task in served.config.tasks}
    return served, [(task.id, trigger_digest(task), task.enabled) for task in served.config.tasks]


def take_in(served: Served, told: list[Told], state: State, now: datetime) -> None:
    """Tell the state of the tasks of a project that was read, and learn what it knows of them."""
    if served.suspended is None:
        state.sync(served.root, told, now)
        served.states = state.tasks(served.root)
