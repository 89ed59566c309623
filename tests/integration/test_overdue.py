"""The dead-man's switch: what came due and did not run is told in `status` and to the hooks, with the cause."""

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

from scheduler.disk import paths as places
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
    own.enable(shell_task("job", "true", trigger=HOURLY), since=ago(DAY / 2 + timedelta(minutes=30)))
    found = cli("status", "--json").json["projects"][0]
    assert found["overdue"]["due"] == 12 and len(found["due"]) == 10
    assert min(found["due"]) > time.time() - 90
    soon_after = datetime.now(timezone.utc) + timedelta(minutes=45)
    quiet = {"from": f"{soon_after - timedelta(minutes=30):%H:%M}", "until": f"{soon_after:%H:%M}"}
    own.settings(quietHours=quiet)
    later = cli("status", "--json").json["projects"][0]["due"]
    assert later == found["due"][1:]
