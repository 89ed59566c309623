"""What keeps tasks from running, with a real runner: pauses by a person, and those after too many failures."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.limits import Cause, Hold
from scheduler.disk import paths as places
from scheduler.store import history
from scheduler.store.state import State
from tests.command import Command
from tests.rig import Rig, rig, shell_task, soon, wait_until

EACH_SECOND = {"type": "interval", "every": 1}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, {**own.env, "TZ": "UTC", "USER": "sam", "LOGNAME": "sam"})


def skipped(own: Rig, task: str, reason: str) -> list[dict[str, Any]]:
    return [r for r in own.task_records(task) if (r["status"], r.get("reason")) == ("skipped", reason)]


def entry(own: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(own.paths.glance).read_text())["projects"].get(str(own.project), {})
    return found


def open_kinds(own: Rig) -> list[str]:
    return [matter["kind"] for matter in entry(own).get("open", ())]


def test_a_pause_starts_nothing_and_is_one_record_that_counts(own: Rig, cli: Command) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND), shell_task("other", "true", trigger=EACH_SECOND))
    own.start()
    wait_until(lambda: own.task_records("often"))
    said = cli("pause", "often")
    assert said.out == "paused often until 'resume often'\n"
    paused = datetime.now(timezone.utc)
    wait_until(lambda: [r for r in skipped(own, "often", "paused") if r["skippedCount"] >= 2])
    assert "paused" in open_kinds(own)
    resumed = datetime.now(timezone.utc)
    assert cli("resume", "often").out == "resumed often\n"
    after = wait_until(lambda: [r for r in own.task_records("often") if _at(r, "startedAt") > resumed])
    (record,) = skipped(own, "often", "paused")
    between = [
        r for r in own.task_records("often") if paused < _at(r, "startedAt") < resumed and r["status"] != "skipped"
    ]
    assert between == []
    due = (_at(record, "scheduledFor") - _at(record, "startedAt")).total_seconds() + 1
    assert record["skippedCount"] == due >= 2
    assert record["notes"] == ["paused by sam"] and record["completedAt"]
    assert after[0]["triggeredBy"] == "schedule"
    assert skipped(own, "other", "paused") == []
    wait_until(lambda: "paused" not in open_kinds(own))


def _at(record: dict[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(record[name])


def test_a_record_that_counts_has_few_lines(own: Rig, cli: Command) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    cli("pause")
    own.start()
    wait_until(lambda: [r for r in skipped(own, "often", "paused") if r["skippedCount"] >= 4])
    cli("resume")
    wait_until(lambda: [r for r in own.task_records("often") if r["status"] == "success"])
    lines = [r for r in history.read(places.history_file(str(own.project))) if r.get("reason") == "paused"]
    assert [r["skippedCount"] for r in lines[:3]] == [1, 2, 4]
    assert len(lines) <= 5 and len({r["id"] for r in lines}) == 1
    assert [r["startedAt"] for r in lines] == [lines[0]["startedAt"]] * len(lines)


def test_a_paused_project_runs_what_a_person_asks_for_and_ends_what_runs(own: Rig, cli: Command) -> None:
    own.enable(shell_task("slow", "sleep 1.5; echo x > made"), shell_task("job", "echo x > made"))
    own.start()
    run = own.run("slow")
    wait_until(lambda: own.ask("status")["running"])
    cli("pause")
    assert own.record(run)["status"] == "success"
    assert own.run_to_end("job")["status"] == "success"


def test_a_pause_until_a_moment_ends_by_itself(own: Rig, cli: Command) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    own.start()
    until = soon(3)
    said = cli("pause", "--until", until, "--json").json
    assert said == {"project": str(own.project), "task": None, "paused": True, "until": said["until"]}
    first = wait_until(lambda: [r for r in own.task_records("often") if r["status"] == "success"
                                and r["startedAt"] > until])[0]  # fmt: skip
    (record,) = wait_until(lambda: skipped(own, "often", "paused"))
    assert _at(record, "scheduledFor") <= datetime.fromisoformat(until) < _at(first, "scheduledFor")
    wait_until(lambda: not _holds(own))


def _holds(own: Rig) -> list[Any]:
    state = State(own.paths.state_db, datetime.now(timezone.utc))
    try:
        return state.holds.all()
    finally:
        state.close()


def test_what_came_due_in_a_pause_that_no_runner_saw_is_told_as_paused(own: Rig, cli: Command) -> None:
    """The runner was off for an hour; in the middle of it the task was paused for twenty minutes."""
    now = datetime.now(timezone.utc).replace(second=30, microsecond=0)
    often = shell_task("often", "true", trigger={"type": "cron", "expression": "* * * * *", "timezone": "UTC"})
    own.enable(often, since=now - timedelta(hours=1))
    state = State(own.paths.state_db, now)
    begin, end = now - timedelta(minutes=40), now - timedelta(minutes=20)
    state.holds.put(Hold(str(own.project), "often", Cause.USER, begin, end, "sam"))
    state.close()
    own.start()
    (paused,) = wait_until(lambda: skipped(own, "often", "paused"))
    assert paused["skippedCount"] == 20
    assert begin < _at(paused, "startedAt") < _at(paused, "scheduledFor") <= end
    wait_until(lambda: not _holds(own))
    missed = wait_until(lambda: skipped(own, "often", "missed"))
    assert 37 <= sum(r["skippedCount"] for r in missed) <= 40


def test_a_pause_and_its_count_survive_a_kill(own: Rig, cli: Command) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    cli("pause", "often")
    pid = own.start()
    wait_until(lambda: skipped(own, "often", "paused"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    time.sleep(1)
    own.start()
    wait_until(lambda: [r for r in skipped(own, "often", "paused") if r["skippedCount"] >= 4])
    cli("resume", "often")
    wait_until(lambda: [r for r in own.task_records("often") if r["status"] == "success"])
    (record,) = skipped(own, "often", "paused")
    assert record["skippedCount"] == (_at(record, "scheduledFor") - _at(record, "startedAt")).total_seconds() + 1


def test_a_once_task_whose_moment_passes_in_a_pause_is_done(own: Rig, cli: Command) -> None:
    own.enable(shell_task("once", "true", trigger={"type": "once", "at": soon(1)}))
    cli("pause", "once")
    own.start()
    (record,) = wait_until(lambda: skipped(own, "once", "paused"))
    assert record["skippedCount"] == 1
    cli("resume", "once")
    assert cli("list", "--all", "--json").json["tasks"][0]["standing"] == "done"


def test_too_many_failures_in_a_row_pause_the_task_and_say_so(own: Rig, cli: Command) -> None:
    own.enable(
        shell_task("bad", "exit 1", trigger=EACH_SECOND, policy={"pauseAfterFailures": 2}),
        shell_task("worse", "exit 1", policy={"pauseAfterFailures": 0}),
    )
    own.start()
    wait_until(lambda: skipped(own, "bad", "paused"))
    failed = [r for r in own.task_records("bad") if r["status"] == "failure"]
    assert len(failed) == 2
    assert failed[1]["notes"][-1] == "paused: 2 failures in a row; 'resume bad' lets it run again"
    assert not any("paused" in note for note in failed[0].get("notes", ()))
    matter = wait_until(lambda: [m for m in entry(own).get("open", ()) if m["kind"] == "paused"])[0]
    assert (matter["task"], matter["run"], matter["by"]) == ("bad", failed[1]["id"][:8], "scheduler")
    assert "paused for failing too often in a row" in cli("show", "bad").out
    assert "'resume bad'" in cli("status").out
    cli("resume", "bad")
    wait_until(lambda: len([r for r in own.task_records("bad") if r["status"] == "failure"]) == 4)
    for _ in range(3):
        assert own.run_to_end("worse")["status"] == "failure"
    assert skipped(own, "worse", "paused") == []


def test_failures_that_are_tried_again_do_not_count(own: Rig) -> None:
    policy = {"pauseAfterFailures": 1, "retries": 1, "retryDelay": 0}
    own.enable(shell_task("job", "test -e $SCHEDULER_PROJECT/again || { touch $SCHEDULER_PROJECT/again; exit 1; }",
                          policy=policy))  # fmt: skip
    own.start()
    own.run("job")
    ended = wait_until(lambda: [r for r in own.task_records("job") if r["status"] == "success"])
    assert ended[0]["attempt"] == 2
    assert _holds(own) == []


def test_a_failure_whose_next_attempt_is_passed_over_counts(own: Rig, cli: Command) -> None:
    """Else a task that fails each time would never be paused, where something keeps its retries from starting."""
    own.enable(shell_task("job", "exit 1", policy={"pauseAfterFailures": 2, "retries": 1, "retryDelay": 3}))
    own.start()
    for failures in (1, 2):
        first = own.run_to_end("job")
        assert first["status"] == "failure" and not any("paused" in note for note in first.get("notes", ()))
        cli("pause")
        wait_until(lambda count=failures: len(skipped(own, "job", "paused")) == count)  # type: ignore[misc]
        cli("resume")
    last = skipped(own, "job", "paused")[-1]
    assert (last["attempt"], last["notes"]) == (2, ["paused: 2 failures in a row; 'resume job' lets it run again"])
    assert [(hold.task, hold.cause) for hold in _holds(own)] == [("job", Cause.FAILURES)]


def test_the_words_of_pause_and_resume(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true", trigger={"type": "cron", "expression": "@hourly", "timezone": "UTC"}))
    assert cli("resume").out == f"not paused: {own.project}\n"
    assert "no task 'nope'" in cli("pause", "nope", code=1).err
    assert "is in the past" in cli("pause", "--until", "2020-01-01", code=2).err
    cli("pause", "--until", "in 3d")
    cli("pause", "job")
    listed = cli("list", "--json").json["tasks"][0]
    assert (listed["standing"], listed["next"]) == ("paused", None)
    assert "paused by sam" in cli("status").out
    said = cli("resume", "job")
    assert said.out == "resumed job\n" and "the project is still paused by sam" in said.err
    assert cli("list", "--json").json["tasks"][0]["next"] is not None
    coming = datetime.fromisoformat(cli("next", "--json").json[0]["at"])
    assert coming - datetime.now(timezone.utc) > timedelta(days=2)
    cli("pause", "job")
    cli("remove", "job")
    cli("add", "Job", "--every", "1h", "--shell", "true")
    assert cli("list", "--json").json["tasks"][0]["standing"] == "paused"
    cli("resume")
    assert cli("list", "--json").json["tasks"][0]["standing"] == "on"


def test_a_run_may_not_pause_or_resume(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true"))
    for verb in ("pause", "resume"):
        assert "refused inside a scheduled run" in cli(verb, code=1, SCHEDULER_RUN_ID="x").err
