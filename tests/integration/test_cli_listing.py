from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths
from scheduler.store.state import State
from tests.command import Command, environment


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    return Command(repo, environment(home, tmp_path / "state"))


TASKS = [
    {
        "id": "daily",
        "name": "Daily",
        "trigger": {"type": "cron", "expression": "30 4 * * *", "timezone": "Asia/Tokyo"},
        "execution": {"type": "claude", "command": "p"},
        "tags": ["t"],
    },
    {
        "id": "hourly",
        "name": "Hourly",
        "enabled": False,
        "trigger": {"type": "cron", "expression": "@hourly", "timezone": "Europe/Berlin"},
        "execution": {"type": "shell", "command": "true"},
    },
    {
        "id": "far",
        "name": "Far",
        "trigger": {"type": "once", "at": "2090-01-01T00:00:00+00:00"},
        "execution": {"type": "shell", "command": "true"},
    },
]


@pytest.fixture
def three(cli: Command, repo: Path) -> Command:
    """A daily task in Tokyo, an hourly one that is off, one for a moment far away."""
    path = Path(paths.config_file(str(repo)))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": 1, "tasks": TASKS}, indent=2))
    cli("enable", "--yes", "--no-start")
    return cli


def records(repo: Path, *runs: dict[str, Any]) -> None:
    path = Path(paths.history_file(str(repo)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for run in runs:
            file.write(json.dumps(run) + "\n")


def run(number: int, task: str = "daily", status: str = "success", **more: Any) -> dict[str, Any]:
    began = datetime.now(timezone.utc) - timedelta(hours=2)
    return {
        "id": f"{number:08x}-0000-4000-8000-000000000000",
        "taskId": task,
        "taskName": task,
        "project": "/p",
        "startedAt": began.isoformat(),
        "status": status,
        "triggeredBy": "schedule",
        **more,
    }


def test_the_list_tells_when_each_runs_and_how_it_ran(three: Command, repo: Path) -> None:
    records(repo, run(1), run(2, status="failure", reason="verify-failed", error="no"))
    lines = three("list").out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "IS", "WHEN", "NEXT", "LAST"]
    assert re.search(
        r"^daily +Daily +on +At 04:30 \(Asia/Tokyo\) +in .* ✗ failure \(verify-failed\), 2h ago$", lines[1]
    )
    assert re.search(r"^hourly +Hourly +off +Every hour.* never$", lines[2])
    assert re.search(r"^far +Far +on +Once, Sun 2090-01-01 00:00 UTC +in \d+y +never$", lines[3])


def test_the_list_for_programs(three: Command, repo: Path) -> None:
    records(repo, run(1))
    said = three("list", "--json").json
    assert (said["enabled"], said["approved"], said["problems"]) == (True, True, [])
    daily, hourly, far = said["tasks"]
    assert (daily["id"], daily["standing"], daily["last"]["status"]) == ("daily", "on", "success")
    assert datetime.fromisoformat(daily["next"]).utcoffset() == timedelta(hours=9)
    assert (hourly["standing"], hourly["next"], hourly["last"]) == ("off", None, None)
    assert far["next"] == "2090-01-01T00:00:00.000+00:00"


def test_a_done_task_is_out_of_the_way(three: Command, repo: Path, tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    state = State(str(tmp_path / "state" / "state.db"), now)
    state.handled(str(repo), "far", now, done=now)
    state.close()
    said = three("list")
    assert "Far" not in said.out and "1 task done: see 'list --all'" in said.err
    assert re.search(r"^far +Far +done ", three("list", "--all").out, re.MULTILINE)
    assert {found["task"] for found in three("next", "--json").json} == {"daily"}


def test_no_tasks_yet(cli: Command, repo: Path) -> None:
    assert cli("list").out == "no tasks\n"
    assert cli("list", "--json").json["tasks"] == []
    assert "make one with 'add'" in cli("check", code=1).err
    assert not (repo / ".omc").exists()


def test_names_do_not_reach_the_terminal_as_they_are(cli: Command, repo: Path) -> None:
    cli("add", "evil\x1b[2Jname\u202e", "--id", "evil", "--every", "4h", "--shell", "echo \x1b]0;x\x07")
    for words in (["list"], ["show", "evil"], ["next"], ["enable", "--yes", "--no-start"], ["status"]):
        said = cli(*words)
        assert "\x1b" not in said.out + said.err and "\u202e" not in said.out + said.err
    assert "\x1b" not in cli("list", "--json").out


def test_a_task_in_full(three: Command, repo: Path) -> None:
    records(repo, run(1), run(2, task="far"))
    said = three("show", "daily").out
    assert re.search(r"^execution.timeout +30m$", said, re.MULTILINE)
    assert re.search(r"^when +At 04:30 \(Asia/Tokyo\)$", said, re.MULTILINE)
    assert "00000001" in said and "00000002" not in said
    found = three("show", "daily", "--json").json
    assert len(found["next"]) == 3 and [one["id"][:8] for one in found["runs"]] == ["00000001"]
    assert found["failuresInRow"] == 0


def test_a_run_in_full(three: Command, repo: Path) -> None:
    records(repo, run(0xABCD0001, duration=200500, costUsd=0.42, notes=["one", "two"], runner={"pid": 3}))
    said = three("show", "abcd").out
    assert re.search(r"^duration +3m 20s$", said, re.MULTILINE)
    assert re.search(r"^costUsd +\$0.42$", said, re.MULTILINE)
    assert re.search(r"^notes +one\n +two$", said, re.MULTILINE)
    assert re.search(r"^runner.pid +3$", said, re.MULTILINE)
    assert three("show", "ABCD0001", "--json").json["costUsd"] == 0.42


@pytest.mark.parametrize(("name", "says"), [("dayly", "did you mean daily?"), ("ffff0000", "no run 'ffff0000'")])
def test_what_is_neither_task_nor_run(three: Command, name: str, says: str) -> None:
    assert says in three("show", name, code=1).err


def test_next_merges_all_tasks_in_order(three: Command) -> None:
    found = three("next", "-n", "4", "--from", "2089-12-30T00:00:00Z", "--json").json
    assert found == [
        {"task": "daily", "at": "2089-12-31T04:30:00.000+09:00"},
        {"task": "daily", "at": "2090-01-01T04:30:00.000+09:00"},
        {"task": "far", "at": "2090-01-01T00:00:00.000+00:00"},
        {"task": "daily", "at": "2090-01-02T04:30:00.000+09:00"},
    ]
    lines = three("next", "daily", "-n", "2").out.splitlines()
    assert len(lines) == 3
    assert re.search(r"^\w+ \d{4}-\d\d-\d\d 2[01]:30 CES?T +in .* 04:30 JST +daily$", lines[1])


def test_next_of_nothing(three: Command) -> None:
    assert three("next", "hourly").out == "nothing to come\n"
    assert "did you mean daily?" in three("next", "dayly", code=1).err
    assert "is no moment" in three("next", "--from", "someday", code=2).err


def test_an_interval_counts_from_when_it_was_added(cli: Command) -> None:
    cli("add", "x", "--every", "2h", "--shell", "true")
    first, second = cli("next", "-n", "2", "--json").json
    assert datetime.fromisoformat(second["at"]) - datetime.fromisoformat(first["at"]) == timedelta(hours=2)
    assert first == cli("next", "-n", "1", "--json").json[0]


def test_check_names_file_line_place_and_the_nearest_name(three: Command, repo: Path) -> None:
    path = repo / ".omc/scheduler/config.json"
    text = (
        path.read_text()
        .replace('"name": "Hourly"', '"nane": "Hourly"')
        .replace('"version"', '"setings": {},\n"version"')
    )
    path.write_text(text)
    line = text[: text.index('"nane"')].count("\n") + 1
    said = three("check", code=1)
    assert f"error: {path}:{line}: tasks[1].nane: unknown field 'nane'; did you mean 'name'?\n" in said.out
    assert f"warning: {path}:2: setings: unknown field 'setings'; did you mean 'settings'?\n" in said.out
    assert f"2 tasks in order, 1 suspended: {path}\n" in said.out
    assert "not the one that was approved" in said.err
    found = three("check", "--json", code=1).json
    assert found["tasks"] == 2 and {problem["severity"] for problem in found["problems"]} == {"error", "warning"}
    assert f"suspended: {path}:{line}" in three("list").err
    assert "hourly is suspended" in three("show", "hourly", code=1).err


def test_check_is_content_with_what_is_right(three: Command, repo: Path) -> None:
    assert three("check").out == f"3 tasks in order: {repo}/.omc/scheduler/config.json\n"


def test_broken_tasks_are_counted_by_where_they_stand(three: Command, repo: Path) -> None:
    path = repo / ".omc/scheduler/config.json"
    config = json.loads(path.read_text())
    twin = {**config["tasks"][2]}
    broken = {"id": "Not an id", "nane": "x", "trigger": {"type": "never"}, "execution": {}, "tags": 7}
    path.write_text(json.dumps({**config, "tasks": [*config["tasks"], twin, broken, 5]}))
    assert three("check", code=1).out.splitlines()[-1].startswith("2 tasks in order, 4 suspended: ")
    assert three("status", "--json").json["projects"][0]["tasks"] == 6


def test_a_moment_that_was_past_before_its_task_counted(cli: Command, repo: Path) -> None:
    path = Path(paths.config_file(str(repo)))
    path.parent.mkdir(parents=True)
    late = {**TASKS[2], "id": "late", "trigger": {"type": "once", "at": "2020-01-01T00:00:00+00:00"}}
    path.write_text(json.dumps({"version": 1, "tasks": [TASKS[2], late]}, indent=2))
    cli("enable", "--yes", "--no-start")
    line = path.read_text()[: path.read_text().index('"2020')].count("\n") + 1
    said = cli("check").out.splitlines()
    assert said[0].startswith(f"warning: {path}:{line}: tasks[1].trigger.at: this moment is past")
    assert said[1].startswith("2 tasks in order: ")
    assert [task["standing"] for task in cli("list", "--json").json["tasks"]] == ["on", "past"]
    assert re.search(r"^late +Far +past ", cli("list").out, re.MULTILINE)
    cli("disable")
    assert [task["standing"] for task in cli("list", "--json").json["tasks"]] == ["on", "past"]


def test_a_file_that_others_can_write_is_named(three: Command, repo: Path) -> None:
    path = repo / ".omc/scheduler/config.json"
    path.chmod(0o666)
    assert f"error: {path} is writable by everybody (mode 666)\n  run: chmod go-w" in three("check", code=1).err
