"""Quiet hours and budgets of the user's settings, with a real runner."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.store.state import State
from tests.command import Command
from tests.puppet import Puppet, act
from tests.rig import Rig, rig, shell_task, wait_until

EACH_SECOND = {"type": "interval", "every": 1}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, {"TZ": "UTC"}) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, own.env)


@pytest.fixture
def puppet(tmp_path: Path) -> Puppet:
    return Puppet(tmp_path / "client")


def claude_task(task_id: str, **fields: Any) -> dict[str, Any]:
    return shell_task(task_id, "do it", execution={"type": "claude"}, **fields)


def quiet(minutes_ago: int, minutes: int, **fields: Any) -> dict[str, Any]:
    """Quiet hours that began some minutes ago and last some minutes from now."""
    now = datetime.now(timezone.utc)
    begin, end = now - timedelta(minutes=minutes_ago), now + timedelta(minutes=minutes)
    return {"from": f"{begin:%H:%M}", "until": f"{end:%H:%M}", "timezone": "UTC", **fields}


def ended(own: Rig, task: str) -> list[dict[str, Any]]:
    return [r for r in own.task_records(task) if r["status"] in ("success", "failure")]


def skipped(own: Rig, task: str, reason: str) -> list[dict[str, Any]]:
    return [r for r in own.task_records(task) if (r["status"], r.get("reason")) == ("skipped", reason)]


def test_in_quiet_hours_only_what_is_asked_for_starts_and_the_rest_waits_for_their_end(own: Rig, cli: Command) -> None:
    own.settings(quietHours=quiet(1, 30))
    own.enable(shell_task("often", "true", trigger=EACH_SECOND), shell_task("job", "true"))
    own.start()
    assert own.run_to_end("job")["status"] == "success"
    assert cli("status", "--json").json["quietUntil"] is not None
    assert "quiet hours: nothing starts by itself until" in cli("status").out
    told = cli("status", "--json").json
    end = datetime.fromisoformat(told["quietUntil"])
    assert [datetime.fromisoformat(one["at"]) for one in told["coming"] if one["task"] == "often"] == [end]
    assert [datetime.fromisoformat(one["next"]) for one in cli("list", "--json").json["tasks"][:1]] == [end]
    time.sleep(1.5)
    assert own.task_records("often") == []
    own.settings(quietHours=quiet(5, -2))
    wait_until(lambda: ended(own, "often"))
    assert cli("status", "--json").json["quietUntil"] is None


def test_an_idle_runner_in_quiet_hours_does_not_spin(own: Rig) -> None:
    own.settings(quietHours=quiet(1, 30))
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    pid = own.start()
    time.sleep(1.5)
    before = _processor_time(pid)
    time.sleep(2)
    assert _processor_time(pid) - before < 0.5


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_settings_that_were_never_read_start_nothing(own: Rig, cli: Command) -> None:
    own.settings(budgets={"perday": 1})
    own.enable(shell_task("often", "true", trigger=EACH_SECOND))
    own.start()
    time.sleep(1.5)
    assert own.task_records("often") == []
    assert "nothing starts until they are mended" in own.log()
    assert "the settings are not used" in cli("status").err
    own.settings(budgets={"perDay": 1})
    wait_until(lambda: ended(own, "often"))


def test_while_settings_are_broken_the_runner_and_status_go_by_those_before(
    own: Rig, cli: Command, puppet: Puppet
) -> None:
    own.settings(budgets={"perDay": 1})
    puppet.plays(act(2.0))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    own.run_to_end("job")
    own.settings(budgets={"perDay": "much"})
    wait_until(lambda: "the settings stay as they were" in own.log())
    said = cli("status")
    assert "the settings cannot be used, and the runner goes by those before: " in said.err
    assert "spent today: $2.00 of $1.00" in said.out and "kept back by the budget of a day" in said.out
    assert cli("status", "--json").json["settingsKept"] is True
    own.stop()
    assert "the settings are not used: " in cli("status").err


@pytest.mark.parametrize("budget", ["taskPerDay", "projectPerDay", "perDay"])
def test_what_a_budget_does_not_let_start_is_skipped(own: Rig, cli: Command, puppet: Puppet, budget: str) -> None:
    own.settings(budgets={budget: 1.0})
    puppet.plays(act(0.6))
    own.enable(claude_task("dear", trigger=EACH_SECOND), shell_task("free", "true", trigger=EACH_SECOND),
               client=str(puppet.path))  # fmt: skip
    own.start()
    (record,) = wait_until(lambda: skipped(own, "dear", "budget"))
    assert len(ended(own, "dear")) == len(puppet.calls) == 2
    assert record["notes"] == ["kept back by the budget of a day ($1.20 of $1.00)"]
    known = len(ended(own, "free"))
    wait_until(lambda: len(ended(own, "free")) > known)
    said = cli("status")
    assert "kept back by the budget of a day ($1.20 of $1.00) until" in said.out
    assert said.out.count("kept back by the budget") == 1
    assert cli("status", "--json").json["spentToday"] == 1.2
    assert cli("list", "--json").json["tasks"][0]["standing"] == "paused"
    assert own.run_to_end("dear")["status"] == "success"  # a person may
    wait_until(lambda: "budget" in [m["kind"] for m in _entry(own)["open"]])
    own.settings(budgets={budget: 100})
    wait_until(lambda: len(puppet.calls) > 3)
    assert len(skipped(own, "dear", "budget")) == 1


def _entry(own: Rig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(own.paths.glance).read_text())["projects"][str(own.project)]
    return found


def test_the_budget_of_a_task_leaves_the_others_alone(own: Rig, puppet: Puppet) -> None:
    own.settings(budgets={"taskPerDay": 0.5})
    puppet.plays(act(0.6), task="dear")
    puppet.plays(act(0.1), task="cheap")
    own.enable(claude_task("dear"), claude_task("cheap", trigger=EACH_SECOND), client=str(puppet.path))
    own.start()
    own.run_to_end("dear")
    wait_until(lambda: len(ended(own, "cheap")) >= 2)
    assert skipped(own, "cheap", "budget") == []


def test_costs_are_counted_once_and_kept(own: Rig, puppet: Puppet) -> None:
    puppet.plays(act(0.25))
    own.enable(claude_task("dear"), client=str(puppet.path))
    own.start()
    own.run_to_end("dear")
    own.run_to_end("dear")
    own.stop()
    own.start()
    own.stop()
    now = datetime.now(timezone.utc)
    state = State(own.paths.state_db, now)
    assert state.costs.on(now) == [(str(own.project), "dear", 0.5)]
    assert state.costs.on(now - timedelta(days=1)) == []
    state.close()
