from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.lifecycle import PASSING, Going, Move, Waiting, decide, in_turn, retry_at, standing
from scheduler.core.limits import Cause, Hold
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


def test_a_run_that_waits_for_a_limit_in_the_main_checkout_keeps_others_out() -> None:
    begun = waiting("b", name="other", isolated=False, begun=True, since=NOW - timedelta(hours=5))

    def moved(queue: list[Waiting], overlap: str = "skip", **fields: Any) -> tuple[Move, Reason | None]:
        one = waiting(**{"isolated": False, **fields})
        made = task(policy={"overlap": overlap})
        return (found := decide(one, made, [], trusted=True, queue=[*queue, one])).move, found.reason

    wait, start, skip = (Move.WAIT, None), (Move.START, None), (Move.SKIP, Reason.OVERLAP)
    assert moved([begun]) == wait and moved([]) == start
    assert moved([begun], isolated=True) == start and moved([begun], project="/q") == start
    ahead = waiting("a", isolated=False, since=NOW - timedelta(hours=1))
    assert moved([begun, ahead]) == skip and moved([ahead]) == start
    assert moved([begun, ahead], overlap="queue") == wait and moved([begun, ahead], asked=True) == wait
    assert moved([begun, waiting("a", isolated=False, since=NOW + timedelta(hours=1))]) == wait
    claude = from_json(Task, json.dumps(shell_task("t", "do it", execution={"type": "claude"})))
    assert isinstance(claude, Task)  # two that began there before do not wait for each other
    again = waiting(isolated=False, begun=True)
    assert decide(again, claude, [], trusted=True, queue=[begun, again]).move is Move.START


def test_of_a_long_queue_only_what_can_matter_is_looked_at_for_each_run() -> None:
    """D15: mostly nothing, so that a queue of thousands costs as much for each run as one of a few."""
    queue = [waiting(str(number), f"/{number % 3}", isolated=number % 2 == 0) for number in range(3_000)]
    assert standing(queue) == {}
    begun = waiting("begun", "/1", isolated=False, begun=True)
    there = standing([*queue, begun, waiting("apart", "/2", begun=True)])
    assert there == {"/1": [*(one for one in queue if one.project == "/1" and not one.isolated), begun]}


def test_only_one_run_at_a_time_works_in_the_main_checkout() -> None:
    here = waiting(name="u", isolated=False)
    assert decide(here, task(), [Going("g", "/p", "t", False)], trusted=True).move is Move.WAIT
    assert decide(here, task(), [Going("g", "/p", "t", True)], trusted=True).move is Move.START
    assert decide(here, task(), [Going("g", "/q", "t", False)], trusted=True).move is Move.START


def test_turns_are_fair_between_projects() -> None:
    """D15."""
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


def test_a_retry_that_a_clock_put_too_far_ahead_does_not_wait_for_that_clock() -> None:
    far = waiting(not_before=NOW + timedelta(days=300))
    assert in_turn([far], [], {}, NOW) == [far]


def test_retries_double_their_delay_and_end() -> None:
    again = task(policy={"retries": 2, "retryDelay": "1m"})
    assert retry_at(again, Status.FAILURE, Reason.EXIT_CODE, 1, NOW) == NOW + timedelta(seconds=60)
    assert retry_at(again, Status.TIMEOUT, None, 2, NOW) == NOW + timedelta(seconds=120)
    assert retry_at(again, Status.FAILURE, Reason.EXIT_CODE, 3, NOW) is None


@pytest.mark.parametrize(
    "reason",
    [
        Reason.CANCELLED,
        Reason.AUTH,
        Reason.CREDIT,
        Reason.BUDGET,
        Reason.MAX_TURNS,
        Reason.USAGE_LIMIT,
        Reason.DENIED_TOOLS,
        Reason.CONTAINMENT,
        Reason.COMMIT_REJECTED,
    ],
)
def test_what_another_try_cannot_mend_is_not_tried_again(reason: Reason) -> None:
    assert retry_at(task(policy={"retries": 5}), Status.FAILURE, reason, 1, NOW) is None


def test_success_is_not_tried_again() -> None:
    assert retry_at(task(policy={"retries": 5}), Status.SUCCESS, None, 1, NOW) is None


def held(cause: Cause) -> Hold:
    return Hold("", "", cause, NOW, None, "somebody")


CLAUDE = {"execution": {"type": "claude"}}


@pytest.mark.parametrize(
    ("cause", "reason", "asked"),
    [
        (Cause.USER, Reason.PAUSED, Move.START),
        (Cause.FAILURES, Reason.PAUSED, Move.START),
        (Cause.BUDGET, Reason.BUDGET, Move.START),
        (Cause.AUTH, Reason.AUTH, Move.START),
        (Cause.CREDIT, Reason.CREDIT, Move.START),
        (Cause.USAGE_LIMIT, Reason.USAGE_LIMIT, Move.WAIT),
    ],
)
def test_a_hold_skips_what_comes_by_the_clock(cause: Cause, reason: Reason, asked: Move) -> None:
    holds = [held(cause)]
    decision = decide(waiting(), task(**CLAUDE), [], trusted=True, holds=holds)
    assert (decision.move, decision.reason) == (Move.SKIP, reason)
    assert decide(waiting(asked=True), task(**CLAUDE), [], trusted=True, holds=holds).move is asked
    assert decide(waiting(begun=True), task(**CLAUDE), [], trusted=True, holds=holds).move is Move.WAIT


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("since", ["before", "meanwhile"])
def test_what_keeps_a_run_back_that_a_person_asked_for_once_its_limit_is_over(cause: Cause, since: str) -> None:
    """Not the budget, nor a pause in spite of which it was asked for."""
    began = NOW + timedelta(seconds=1 if since == "before" else -1)
    run = waiting(begun=True, asked=True, since=began)
    in_spite = cause is Cause.BUDGET or (since == "before" and cause in (Cause.USER, Cause.FAILURES))
    decision = decide(run, task(**CLAUDE), [], trusted=True, holds=[held(cause)])
    assert decision.move is (Move.START if in_spite else Move.WAIT)


def test_under_a_usage_limit_retries_and_queues_wait() -> None:
    holds = [held(Cause.USAGE_LIMIT)]
    queue = task(**CLAUDE, policy={"overlap": "queue"})
    assert decide(waiting(), queue, [], trusted=True, holds=holds).move is Move.WAIT
    assert decide(waiting(not_before=NOW), task(**CLAUDE), [], trusted=True, holds=holds).move is Move.WAIT
    both = [held(Cause.BUDGET), *holds]
    assert decide(waiting(), queue, [], trusted=True, holds=both).reason is Reason.BUDGET
    assert decide(waiting(asked=True), queue, [], trusted=True, holds=both).move is Move.WAIT


def test_in_quiet_hours_only_what_is_asked_for_starts() -> None:
    assert decide(waiting(), task(), [], trusted=True, quiet=True).move is Move.WAIT
    assert decide(waiting(begun=True), task(**CLAUDE), [], trusted=True, quiet=True).move is Move.WAIT
    assert decide(waiting(asked=True), task(), [], trusted=True, quiet=True).move is Move.START


def test_a_run_that_has_begun_is_never_skipped() -> None:
    begun = waiting(begun=True)
    assert decide(begun, task(**CLAUDE), [], trusted=True).move is Move.START
    assert decide(begun, None, [], trusted=False).move is Move.WAIT
    assert decide(begun, task(**CLAUDE), [SAME], trusted=True).move is Move.WAIT
    for gone in (None, task(**CLAUDE, enabled=False), task()):
        assert decide(begun, gone, [], trusted=True).move is Move.GIVE_UP
    asked = waiting(begun=True, asked=True)
    assert decide(asked, task(**CLAUDE, enabled=False), [], trusted=True).move is Move.START


@pytest.mark.parametrize("reason", [Reason.PRECHECK_ERROR, Reason.OVERLOADED, Reason.CRASHED, Reason.VERIFY_FAILED])
def test_what_another_try_may_mend_is_tried_again(reason: Reason) -> None:
    assert retry_at(task(policy={"retries": 5}), Status.FAILURE, reason, 1, NOW) is not None


def test_the_table_of_the_readme_is_what_is_tried_again() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    table = text.partition("| tried again | not tried again |")[2].partition("\n\n")[0]
    rows = [row.strip("|").split("|") for row in table.splitlines() if "`" in row]
    again, never = ({word for row in rows for word in re.findall(r"`([a-z-]+)`", row[at])} for at in (0, 1))
    assert again == {reason.value for reason in PASSING}
    never_failures = {
        "no-changes",
        "precheck-idle",
        "overlap",
        "missed",
        "untrusted",
        "paused",
        "open-review",
        "disabled",
    }
    assert never == {reason.value for reason in Reason} - again - never_failures
