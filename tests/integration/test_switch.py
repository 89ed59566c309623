"""The off switch: a file that anybody can make and take away keeps every runner from starting anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import switch
from tests.command import Command
from tests.rig import Rig, rig, shell_task, wait_until

EACH_SECOND = {"type": "interval", "every": 1}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, {**own.env, "TZ": "UTC", "USER": "sam", "LOGNAME": "sam"})


def paused(own: Rig, task: str) -> list[dict[str, Any]]:
    return [r for r in own.task_records(task) if (r["status"], r.get("reason")) == ("skipped", "paused")]


def began(own: Rig, task: str) -> list[datetime]:
    return [datetime.fromisoformat(r["startedAt"]) for r in own.task_records(task) if r["status"] != "skipped"]


def test_as_long_as_the_file_is_there_nothing_starts_and_nothing_is_caught_up(own: Rig, cli: Command) -> None:
    """B17."""
    other = own.repository(own.home / "other")
    own.enable(shell_task("often", "true", trigger=EACH_SECOND), shell_task("slow", "sleep 4; echo x > made"))
    own.enable(shell_task("there", "true", trigger=EACH_SECOND), project=other)
    own.start()
    wait_until(lambda: began(own, "often") and began(own, "there"))
    slow = own.run("slow")
    wait_until(lambda: [run for run in own.ask("status")["running"] if run["runId"] == slow])
    Path(own.paths.off_switch).touch()
    since = datetime.now(timezone.utc)
    for task in ("often", "there"):
        wait_until(lambda task=task: [r for r in paused(own, task) if r["skippedCount"] >= 2])
    refused = cli("run", "often", code=1)
    assert f"the scheduler is switched off by {own.paths.off_switch}: nothing starts" in refused.err
    assert f"rm {own.paths.off_switch}" in refused.err
    assert own.record(slow)["status"] == "success"  # it goes on to its end
    os.unlink(own.paths.off_switch)
    gone = datetime.now(timezone.utc)
    after = wait_until(lambda: [at for at in began(own, "often") if at > gone])
    assert [at for task in ("often", "there") for at in began(own, task) if since < at < gone] == []
    (record,) = paused(own, "often")
    assert record["notes"] == [f"switched off by {own.paths.off_switch}"]
    first, last = (datetime.fromisoformat(record[name]) for name in ("startedAt", "scheduledFor"))
    assert record["skippedCount"] == (last - first).total_seconds() + 1 >= 2 and last < after[0]
    assert [r for r in own.task_records("often") if r.get("reason") == "missed" or r["triggeredBy"] == "catch-up"] == []
    assert own.run_to_end("often")["status"] == "success"


def test_what_came_due_is_not_caught_up_though_the_file_went_while_no_runner_was_there(own: Rig) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    own.start()
    wait_until(lambda: began(own, "often"))
    Path(own.paths.off_switch).touch()
    wait_until(lambda: paused(own, "often"))
    own.stop()
    os.unlink(own.paths.off_switch)
    own.start()
    wait_until(lambda: len(began(own, "often")) >= 2)
    assert len(paused(own, "often")) == 1
    assert {r["triggeredBy"] for r in own.task_records("often")} == {"schedule"}


def test_the_word_stop_cancels_what_runs_and_its_work_is_saved(own: Rig) -> None:
    own.enable(shell_task("slow", "echo x > made; touch ready.ignored; sleep 60"))
    own.start()
    slow = own.run("slow")
    worktree = wait_until(lambda: [*Path(own.paths.worktrees).glob("*/slow-*/ready.ignored")])
    Path(own.paths.off_switch).write_text("Stop\nbecause I say so\n")
    record = own.record(slow)
    assert (record["status"], record["reason"]) == ("failure", "cancelled")
    assert own.git("show", f"{record['discardedRef']}:made") == "x\n"
    wait_until(lambda: not worktree[0].exists())


@pytest.mark.parametrize("alive", [True, False])
def test_it_is_said_since_when_and_how_to_take_it_away(own: Rig, cli: Command, alive: bool) -> None:
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    if alive:
        own.start()
        wait_until(lambda: began(own, "often"))
    Path(own.paths.off_switch).touch()
    if alive:
        wait_until(lambda: paused(own, "often"))
    told = cli("status").err
    assert "SWITCHED OFF: nothing starts in any project since" in told and f"rm {own.paths.off_switch}" in told
    found = cli("status", "--json").json["off"]
    at = os.stat(own.paths.off_switch).st_mtime
    assert found["file"] == own.paths.off_switch
    assert abs(datetime.fromisoformat(found["since"]).timestamp() - at) <= 1
    (finding,) = [f for f in cli("doctor", "--json", code=None).json["findings"] if f["name"] == "off switch"]
    assert finding["level"] == "warn" and finding["mend"] == f"rm {own.paths.off_switch}"
    assert f"switched off by {own.paths.off_switch}" in cli("show", "often").out
    still = cli("resume").err
    assert f"rm {own.paths.off_switch}" in still and "lets it run" not in still
    os.unlink(own.paths.off_switch)  # what a runner that is gone wrote of it does not count
    assert cli("status", "--json").json["off"] is None and "switched off" not in cli("show", "often").out


@pytest.mark.parametrize("kind", ["folder", "broken link", "no right"])
def test_whatever_stands_there_counts(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "DISABLED"
    if kind == "folder":
        place.mkdir()
    elif kind == "broken link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text("stop")
        place.chmod(0)
    found = switch.look(place, 5.0)
    assert found is not None and found.since == 5.0  # a time that has not come is that of the look
    assert switch.look(tmp_path / "other", 5.0) is None and switch.look(place / "below", 5.0) is None


@pytest.mark.parametrize(("text", "stop"), [("stop", True), (" STOP \r\nmore", True), ("", False), ("no\nstop", False)])
def test_only_a_first_line_of_stop_says_stop(tmp_path: Path, text: str, stop: bool) -> None:
    place = tmp_path / "DISABLED"
    place.write_bytes(text.encode())
    found = switch.look(place, place.stat().st_mtime + 1)
    assert found is not None and (found.stop, found.since) == (stop, place.stat().st_mtime)


def test_the_command_that_takes_it_away_is_one_word_for_the_shell() -> None:
    assert switch.mend("/home/sam/.claude/scheduler/DISABLED") == "rm /home/sam/.claude/scheduler/DISABLED"
    assert switch.mend("/a b/it's/DISABLED") == "rm '/a b/it'\\''s/DISABLED'"
