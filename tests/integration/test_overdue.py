"""The dead-man's switch: what came due and did not run is told in `status` and to the hooks, with the cause."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.limits import Cause, Hold
from scheduler.core.overdue import Absence
from scheduler.disk import paths as places
from scheduler.store.state import State
from tests.command import Command
from tests.rig import Rig, rig, shell_task, soon, wait_until

EACH_SECOND = {"type": "interval", "every": 1}
HOURLY = {"type": "interval", "every": 3600}
DAY = timedelta(days=1)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, {"TZ": "UTC"}) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, own.env)


def entry(own: Rig) -> dict[str, Any]:
    file = Path(own.paths.glance)
    projects = json.loads(file.read_text())["projects"] if file.exists() else {}
    found: dict[str, Any] = projects.get(str(own.project), {})
    return found


def overdue(cli: Command) -> dict[str, Any] | None:
    (project,) = cli("status", "--json").json["projects"]
    found: dict[str, Any] | None = project["overdue"]
    return found


def ago(delta: timedelta) -> datetime:
    return datetime.now(timezone.utc) - delta


def test_without_a_runner(own: Rig, cli: Command) -> None:
    since = ago(DAY / 2 + timedelta(minutes=30))
    own.enable(shell_task("job", "true", trigger=HOURLY), shell_task("rare", "true"), since=since)
    found = overdue(cli)
    assert found is not None
    assert (found["due"], found["ran"], found["cause"]) == (12, 0, "no-runner")
    assert found["since"] == pytest.approx((since + timedelta(hours=1)).timestamp(), abs=1)
    assert "12 due, 0 ran since " in (said := cli("status").out)
    assert "no runner was at work" in said


def test_a_project_that_is_not_enabled_has_nothing_overdue(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY))
    cli("disable")
    assert overdue(cli) is None


def test_what_runs_is_not_overdue(own: Rig, cli: Command) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    own.start()
    wait_until(lambda: len(own.task_records("often")) >= 2)
    assert overdue(cli) is None
    assert "ran since" not in cli("status").out


def test_what_the_hooks_are_told_suffices_to_count_after_the_runner_has_died(own: Rig) -> None:
    once = shell_task("once", "true", trigger={"type": "once", "at": soon(9e3)})
    own.enable(shell_task("hourly", "true", trigger=HOURLY), once)
    pid = own.start()
    due = wait_until(lambda: entry(own).get("due"))
    os.kill(pid, signal.SIGKILL)
    assert len(due) == 10 and due == sorted(due)
    first = entry(own)["next"][0]["at"]
    assert due[:4] == pytest.approx([first, first + 3600, due[2], first + 7200], abs=1)  # the third is `once`
    assert due[2] == pytest.approx(time.time() + 9e3, abs=60)
    assert entry(own)["overdue"] is None


def test_while_it_is_paused(own: Rig, cli: Command) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    cli("pause")
    own.start()
    found = wait_until(lambda: entry(own).get("overdue"))
    assert (found["ran"], found["cause"]) == (0, "paused") and found["due"] >= 1
    assert "they are paused: 'resume'" in cli("status").out
    cli("resume")
    wait_until(lambda: [r for r in own.task_records("often") if r["status"] == "success"])
    wait_until(lambda: entry(own)["overdue"] is None)


def test_while_its_config_is_not_approved(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY + timedelta(minutes=30)))
    file = Path(places.config_file(str(own.project)))
    file.write_bytes(file.read_bytes() + b"\n")
    found = overdue(cli)
    assert found is not None
    assert (found["due"], found["ran"], found["cause"]) == (24, 0, "untrusted")
    own.start()
    assert wait_until(lambda: entry(own).get("overdue"))["cause"] == "untrusted"


def test_what_was_missed_says_why(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true", trigger=HOURLY, policy={"missed": "skip"}), since=ago(DAY))
    own.start()
    (record,) = wait_until(lambda: own.task_records("job"))
    assert record["notes"] == ["no runner was at work then"]
    found = wait_until(lambda: entry(own).get("overdue"))
    assert (found["due"], found["ran"], found["cause"]) == (record["skippedCount"], 0, "no-runner")
    own.run_to_end("job")
    wait_until(lambda: entry(own)["overdue"] is None)


def test_in_quiet_hours_nothing_is_overdue(own: Rig, cli: Command) -> None:
    own.settings(quietHours={"from": "00:00", "until": "24:00"})
    own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY))
    assert overdue(cli) is None


def test_what_is_told_to_the_hooks_leaves_out_what_is_counted_and_quiet_hours(own: Rig, cli: Command) -> None:
    """A hook counts on from there: nothing twice, and nothing that is meant not to run."""
    job = shell_task("job", "true", trigger=HOURLY, policy={"missed": "skip"})
    own.enable(job, since=ago(DAY / 2 + timedelta(minutes=30)))
    found = cli("status", "--json").json["projects"][0]
    assert found["overdue"]["due"] == 12 and len(found["due"]) == 10
    assert min(found["due"]) > time.time() - 90
    soon_after = datetime.now(timezone.utc) + timedelta(minutes=45)
    quiet = {"from": f"{soon_after - timedelta(minutes=30):%H:%M}", "until": f"{soon_after:%H:%M}"}
    own.settings(quietHours=quiet)
    later = cli("status", "--json").json["projects"][0]["due"]
    assert later[:9] == found["due"][1:]


def hold(own: Rig, task: str, since: timedelta, until: timedelta | None = None) -> None:
    """A pause that was put `since` ago, with no runner at work."""
    state = State(own.paths.state_db, datetime.now(timezone.utc))
    end = None if until is None else ago(until)
    state.holds.put(Hold(str(own.project), task, Cause.USER, ago(since), end, "sam"))
    state.close()


def edit(own: Rig, text: str | None) -> None:
    """Somebody writes, or removes, the config."""
    file = Path(places.config_file(str(own.project)))
    file.unlink() if text is None else file.write_text(text)


def test_a_pause_that_no_runner_has_seen_is_counted_and_is_the_cause(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY + timedelta(minutes=30)))
    hold(own, "", timedelta(hours=20))
    assert (overdue(cli) or {})["due"] == 24 and (overdue(cli) or {})["cause"] == "paused"
    assert "24 due, 0 ran since " in (said := cli("status").out) and "they are paused: 'resume'" in said
    hold(own, "", timedelta(hours=20), timedelta(hours=10))  # and is over
    assert (overdue(cli) or {})["due"] == 24 and (overdue(cli) or {})["cause"] == "no-runner"


def test_the_hooks_are_told_what_comes_while_it_is_paused(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true", trigger=HOURLY), shell_task("other", "true", trigger=HOURLY))
    cli("pause", "job")
    told = entry(own)
    assert len(told["held"]) == len(told["due"]) == 10
    assert [at for at, _ in told["held"]] == pytest.approx(told["due"], abs=60)
    assert {why for _, why in told["held"]} == {"paused"}
    end = datetime.now(timezone.utc) + timedelta(hours=4, minutes=5)
    cli("pause", "job", "--until", end.isoformat())
    assert len(entry(own)["held"]) == 4
    cli("resume", "job")
    assert entry(own)["held"] == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"version": 1, "tasks": []}', "its config is not the one that was approved"),
        ("{", "is not JSON"),
        (None, "no tasks in"),
    ],
)
def test_what_was_approved_last_is_what_was_to_run(own: Rig, cli: Command, text: str | None, why: str) -> None:
    """Whatever stands in the config meanwhile, or if nothing does."""
    own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY + timedelta(minutes=30)))
    edit(own, text)
    (project,) = cli("status", "--json").json["projects"]
    assert why in project["suspended"]
    assert (project["overdue"]["due"], project["overdue"]["cause"]) == (24, "untrusted")
    assert len(project["due"]) == 10
    own.start()
    assert wait_until(lambda: entry(own).get("overdue"))["due"] == 24  # the runner counts as the command does


def test_a_task_that_is_not_to_run_any_more_is_not_overdue(own: Rig, cli: Command) -> None:
    """Neither what a pause passed over of it, nor what was missed."""
    skip = {"missed": "skip"}
    own.enable(
        shell_task("gone", "true", trigger=EACH_SECOND),
        shell_task("off", "true", trigger=EACH_SECOND),
        shell_task("old", "true", trigger=HOURLY, policy=skip),
        since=ago(timedelta(hours=5)),
    )
    cli("pause", "gone")
    cli("pause", "off")
    own.start()
    counted = wait_until(lambda: (entry(own).get("overdue") or {}).get("due"))
    assert counted > 5
    for words in (["remove", "gone"], ["edit", "off", "--disabled"], ["edit", "old", "--disabled"]):
        cli(*words)
    wait_until(lambda: entry(own)["overdue"] is None and entry(own)["tasks"] == 2)
    assert overdue(cli) is None
    assert [matter["task"] for matter in entry(own)["open"] if matter["kind"] == "paused"] == []


def test_what_was_missed_counts_from_its_first_moment(own: Rig, cli: Command) -> None:
    since = ago(timedelta(hours=5, minutes=30))
    own.enable(shell_task("job", "true", trigger=HOURLY, policy={"missed": "skip"}), since=since)
    own.start()
    (record,) = wait_until(lambda: own.task_records("job"))
    assert record["skippedCount"] == 5
    first = since + timedelta(hours=1)
    assert datetime.fromisoformat(record["skippedSince"]) == pytest.approx(first, abs=timedelta(seconds=1))
    found = wait_until(lambda: entry(own).get("overdue"))
    assert found["since"] == pytest.approx(first.timestamp(), abs=1)


def test_a_runner_that_hangs_is_the_cause(own: Rig, cli: Command) -> None:
    own.enable(shell_task("rare", "true"))
    pid = own.start()
    wait_until(lambda: entry(own))  # it has looked once
    os.kill(pid, signal.SIGSTOP)
    try:
        own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY + timedelta(minutes=30)))
        said = cli("status")
        assert "the runner does not answer" in said.out and "no runner is at work" not in said.out
        assert f"kill -9 {pid}" in said.err
        assert "24 due, 0 ran since " in said.out
        assert "the runner does not answer, or did not" in said.out
        told = cli("status", "--json").json
        assert (told["runner"], told["runnerProblem"]) == (None, "the runner does not answer")
        assert told["projects"][0]["overdue"]["cause"] == "hung"
    finally:
        os.kill(pid, signal.SIGCONT)


def problem(cli: Command) -> str | None:
    """Why nothing starts though a runner is at work."""
    told = cli("status", "--json").json
    found: str | None = told["runnerProblem"] if told["runner"] else "no answer"
    return found


def test_a_state_that_cannot_be_written_is_the_cause(own: Rig, cli: Command) -> None:
    """Somebody holds it: nothing can be claimed. That is said, now and on the record of what was missed."""
    own.enable(shell_task("rare", "true"))
    pid = own.start()
    wait_until(lambda: entry(own))  # it has looked once
    os.kill(pid, signal.SIGSTOP)
    job = shell_task("job", "true", trigger=HOURLY, policy={"missed": "skip"})
    own.enable(job, since=ago(DAY + timedelta(minutes=30)))
    other = sqlite3.connect(own.paths.state_db, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    os.kill(pid, signal.SIGCONT)
    try:
        wait_until(lambda: "cannot be written" in (problem(cli) or ""))
        assert (overdue(cli) or {})["cause"] == "unwritten"
    finally:
        other.execute("ROLLBACK")
        other.close()
    wait_until(lambda: problem(cli) is None)
    (record,) = wait_until(lambda: own.task_records("job"))
    assert (record["skippedCount"], record["notes"]) == (24, [Absence.UNWRITTEN.note()])


def test_settings_that_cannot_be_read_are_the_cause(own: Rig, cli: Command) -> None:
    own.settings()
    Path(own.paths.settings).write_text("{")
    own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY + timedelta(minutes=30)))
    own.start()
    assert wait_until(lambda: entry(own).get("overdue"))["cause"] == "settings"
    found = cli("status", "--json").json
    assert found["runnerProblem"] == "nothing starts: the settings cannot be read"
    assert found["projects"][0]["overdue"]["cause"] == "settings"


def test_what_comes_in_quiet_hours_is_planned_for_their_end(own: Rig, cli: Command) -> None:
    """While no runner is there it is overdue from then on, and the next start is told as that."""
    now = datetime.now(timezone.utc)
    quiet = {"from": f"{now - timedelta(hours=6):%H:%M}", "until": f"{now - timedelta(hours=2):%H:%M}"}
    own.settings(quietHours={**quiet, "timezone": "UTC"})
    at = (now - timedelta(hours=4)).replace(second=0, microsecond=0)
    nightly = shell_task("nightly", "true", trigger={"type": "cron", "expression": f"{at:%M} {at:%H} * * *"})
    own.enable(nightly, since=ago(timedelta(hours=10)))
    end = (now - timedelta(hours=2)).replace(second=0, microsecond=0)
    found = overdue(cli)
    assert found is not None and (found["due"], found["since"]) == (1, end.timestamp())
    (project,) = cli("status", "--json").json["projects"]
    assert project["due"][0] == project["next"][0]["at"] == (end + DAY).timestamp()
    later = {"from": quiet["from"], "until": f"{now + timedelta(hours=2):%H:%M}"}
    own.settings(quietHours={**later, "timezone": "UTC"})
    (project,) = cli("status", "--json").json["projects"]
    assert project["overdue"] is None
    assert project["due"][0] == project["next"][0]["at"] == (end + timedelta(hours=4)).timestamp()
