"""What becomes of occurrences at a look: claimed, told as missed and why nobody looked, or passed over under a hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.limits import Cause, Hold
from scheduler.core.models import Task, from_json
from scheduler.core.overdue import Absence
from scheduler.core.record import RunnerMark
from scheduler.core.redact import Redactor
from scheduler.core.schedule import Skipped
from scheduler.disk.paths import Paths
from scheduler.runner.clock import ClockWatch
from scheduler.runner.due import Claimed, Look, claim_due
from scheduler.runner.projects import Projects
from scheduler.runner.served import Served
from scheduler.store.state import State
from scheduler.store.trust import Project
from tests.rig import shell_task

NOON = datetime(2026, 12, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
MARK = RunnerMark(host="h", pid=1, version="0")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(str(tmp_path / "state.db"), NOON)
    yield opened
    opened.close()


def served(state: State, **fields: Any) -> Served:
    """A project with a task that fires each hour from noon on, except at noon."""
    trigger = {"type": "interval", "every": 3600, "from": NOON.isoformat()}
    task = from_json(Task, json.dumps(shell_task("t", "true", trigger=trigger, **fields)))
    assert isinstance(task, Task), task
    state.sync("/p", [("t", "digest", True)], NOON)
    project = Project("/p", True, "", None, "")
    made = Served("/p", project, (), Redactor(()), tasks={"t": task}, states=state.tasks("/p"))
    made.plan("t")
    return made


def look(made: Served, state: State, now: datetime, *holds: Hold) -> tuple[list[Claimed], list[Skipped]]:
    passed = []

    def pass_over(root: str, task: Task, hold: Hold, span: Skipped) -> None:
        passed.append(span)
        state.handled(root, task.id, span.last)

    return list(claim_due(made, state, Look(now, MARK, holds, pass_over))), passed


def test_at_the_first_look_no_runner_was_there_and_later_the_machine_slept(state: State) -> None:
    made = served(state, policy={"missed": "skip"})
    [first], _ = look(made, state, NOON + 3 * HOUR + 30 * MINUTE)
    assert (first.record.skipped_count, first.record.notes) == (3, (Absence.NO_RUNNER.note(),))
    assert look(made, state, NOON + 3 * HOUR + 31 * MINUTE) == ([], [])
    [second], _ = look(made, state, NOON + 5 * HOUR + 30 * MINUTE)
    assert (second.record.skipped_count, second.record.notes) == (2, (Absence.ASLEEP.note(),))


@pytest.mark.parametrize("absence", Absence)
def test_why_nobody_looked_is_told(state: State, absence: Absence) -> None:
    made = served(state, policy={"missed": "skip"})
    made.absent = absence
    [missed], _ = look(made, state, NOON + 90 * MINUTE)
    assert missed.record.notes == (absence.note(),)
    assert made.absent is Absence.ASLEEP


def test_a_runner_that_was_held_up_says_so_unless_an_earlier_cause_is_still_to_be_told(
    state: State, tmp_path: Path
) -> None:
    """The machine was awake all the while: the clock that stands still in sleep went on."""
    projects = Projects(Paths({"SCHEDULER_HOME": str(tmp_path), "HOME": str(tmp_path)}), state, {})
    projects.served["/p"] = made = served(state, policy={"missed": "skip"})
    watch = ClockWatch(projects, NOON, 1000.0, NOON - HOUR)
    watch.look(NOON + MINUTE, 1091.0)
    assert made.absent is Absence.NO_RUNNER  # nobody looked yet
    look(made, state, NOON + MINUTE)
    watch.look(NOON + 2 * HOUR, 1092.0)
    assert made.absent is Absence.ASLEEP
    watch.look(NOON + 3 * HOUR + MINUTE, 1092.0 + 3660)
    [missed], _ = look(made, state, NOON + 3 * HOUR + 5 * MINUTE)
    assert missed.record.notes == (Absence.HUNG.note(),)


def test_a_hold_takes_what_came_due_under_it_and_no_more(state: State) -> None:
    made = served(state, policy={"missed": "skip"})
    hold = Hold("/p", "t", Cause.USER, NOON + 2 * HOUR + MINUTE, NOON + 4 * HOUR, "sam")
    claimed, passed = look(made, state, NOON + 5 * HOUR + 30 * MINUTE, hold)
    assert passed == [Skipped(NOON + 3 * HOUR, NOON + 4 * HOUR, 2)]
    first, *rest = [(c.moment, c.record.reason, c.record.skipped_count) for c in claimed]
    assert first[0] == NOON + HOUR and first[2] == 1
    assert [(at, count) for at, _, count in rest] == [(NOON + 2 * HOUR, None), (NOON + 5 * HOUR, 1)]


def test_what_a_later_hold_covers_is_left_for_it(state: State) -> None:
    made = served(state)
    hold = Hold("/p", "", Cause.USER, NOON + 2 * HOUR, None, "sam")
    claimed, passed = look(made, state, NOON + HOUR + MINUTE / 60, hold)
    assert ([c.moment for c in claimed], passed) == ([NOON + HOUR], [])
    other = Hold("/q", "", Cause.USER, NOON, None, "sam")
    claimed, passed = look(made, state, NOON + 2 * HOUR + MINUTE / 60, other)
    assert ([c.moment for c in claimed], passed) == ([NOON + 2 * HOUR], [])
