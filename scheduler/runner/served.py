"""The projects that the runner serves: their approved tasks, why one is suspended, and when each task fires next."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from scheduler.core.models import Task
from scheduler.core.parse import Config, trigger_digest
from scheduler.core.schedule import next_occurrence
from scheduler.errors import SchedulerError
from scheduler.store import config, trust
from scheduler.store.state import State, TaskState


@dataclass
class Served:
    """One enabled project. `tasks` and `rules` are of the approved bytes; `suspended` says why nothing may start."""

    root: str
    trusted: trust.Project
    stamp: tuple[object, ...]
    suspended: str | None = None
    source: config.Source | None = None
    config: Config | None = None
    tasks: dict[str, Task] = field(default_factory=dict)
    states: dict[str, TaskState] = field(default_factory=dict)
    coming: list[tuple[datetime, str]] = field(default_factory=list)

    @property
    def rules(self) -> str | None:
        """The text put before each prompt."""
        if self.source is None or self.source.rules is None:
            return None
        return self.source.rules.decode("utf-8", "replace")

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


def load(trusted: trust.Project, state: State, now: datetime) -> Served:
    """Read and judge a project's config as it is now. What is not exactly approved is suspended; nothing is raised."""
    served = Served(trusted.root, trusted, config.stamp(trusted.root))
    try:
        source = config.read_source(trusted.root)
        if not trusted.approves(source):
            served.suspended = "its config is not the one that was approved; look at it and approve it with 'enable'"
            return served
        served.config = source.parse()
    except SchedulerError as error:
        served.suspended = error.message
        return served
    served.source = source
    served.tasks = {task.id: task for task in served.config.tasks}
    state.sync(trusted.root, [(t.id, trigger_digest(t), t.enabled) for t in served.config.tasks], now)
    served.states = state.tasks(trusted.root)
    return served
