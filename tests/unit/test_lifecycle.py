from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from scheduler.core.lifecycle import Going, Move, Waiting, decide, in_turn, retry_at
from scheduler.core.models import Task, from_json
from scheduler.core.record import Reason, Status
from tests.rig import shell_task

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def task(**fields: Any) -> Task:
    made = from_json(Task, json.dumps(shell_task("t", "true", **fields)))
    assert isinstance(made, Task), made
    return made


def waiting(run: str = "r", project: str = "/p", name: str = "t", **fields: Any) -> Waiting:
    return Waiting(
        run, project, name, fields.pop("since", NOW), fields.pop("not_before", None), **{"isolated": True, **fields}
    )


SAME = Going("g", "/p", "t", True)
OTHER_PROJECT = Going("g", "/q", "t", True)


@pytest.mark.parametrize(
    ("overlap", "asked", "expected", "reason"),
    [
        ("skip", False, Move.SKIP, Reason.OVERLAP),
        ("queue", False, Move.WAIT, None),
        ("cancel-running", False, Move.CANCEL_OTHER, None),
        ("skip", True, Move.WAIT, None),
        ("cancel-running", True, Move.WAIT, None),
    ],
)
def test_a_second_run_of_a_task_follows_its_overlap_policy(
    overlap: str, asked: bool, expected: Move, reason: Reason | None
) -> None:
    decision = decide(waiting(asked=asked), task(policy={"overlap": overlap}), [SAME], trusted=True)
    assert (decision.move, decision.reason) == (expected, reason)


def test_the_same_task_id_in_another_project_is_another_task() -> None:
    assert decide(waiting(), task(), [OTHER_PROJECT], trusted=True).move is Move.START


def test_what_is_not_trusted_is_skipped_even_when_asked_for() -> None:
    assert decide(waiting(asked=True), task(), [], trusted=False).reason is Reason.UNTRUSTED


def test_a_disabled_task_runs_only_when_a_person_asks() -> None:
    assert decide(waiting(), task(enabled=False), [], trusted=True).reason is Reason.DISABLED
    assert decide(waiting(asked=True), task(enabled=False), [], trusted=True).move is Move.START
    assert decide(waiting(asked=True), None, [], trusted=True).reason is Reason.DISABLED


def test_only_one_run_at_a_time_works_in_the_main_checkout() -> None:
    here = waiting(name="u", isolated=False)
    assert decide(here, task(), [Going("g", "/p", "t", False)], trusted=True).move is Move.WAIT
    assert decide(here, task(), [Going("g", "/p", "t", True)], trusted=True).move is Move.START
    assert decide(here, task(), [Going("g", "/q", "t", False)], trusted=True).move is Move.START


def test_turns_are_fair_between_projects() -> None:
    queue = [waiting(f"a{i}", "/a", since=NOW + timedelta(seconds=i)) for i in range(3)]
    queue.append(waiting("b", "/b", since=NOW + timedelta(seconds=9)))
    going = [Going("g", "/a", "x", True)]
    assert [w.run_id for w in in_turn(queue, going, {}, NOW)] == ["b", "a0", "a1", "a2"]
    assert in_turn(queue, [], {"/a": 1, "/b": 2}, NOW)[0].run_id == "a0"
    assert in_turn(queue, [], {"/a": 3, "/b": 2}, NOW)[0].run_id == "b"


def test_a_retry_waits_for_its_time() -> None:
    held = waiting(not_before=NOW + timedelta(seconds=5))
    assert in_turn([held], [], {}, NOW) == []
    assert in_turn([held], [], {}, NOW + timedelta(seconds=5)) == [held]


def test_retries_double_their_delay_and_end() -> None:
    again = task(policy={"retries": 2, "retryDelay": "1m"})
    assert retry_at(again, Status.FAILURE, Reason.EXIT_CODE, 1, NOW) == NOW + timedelta(seconds=60)
    assert retry_at(again, Status.TIMEOUT, None, 2, NOW) == NOW + timedelta(seconds=120)
    assert retry_at(again, Status.FAILURE, Reason.EXIT_CODE, 3, NOW) is None


@pytest.mark.parametrize(
    "reason", [Reason.CANCELLED, Reason.AUTH, Reason.DENIED_TOOLS, Reason.CONTAINMENT, Reason.COMMIT_REJECTED]
)
def test_what_another_try_cannot_mend_is_not_tried_again(reason: Reason) -> None:
    assert retry_at(task(policy={"retries": 5}), Status.FAILURE, reason, 1, NOW) is None


def test_success_is_not_tried_again() -> None:
    assert retry_at(task(policy={"retries": 5}), Status.SUCCESS, None, 1, NOW) is None
