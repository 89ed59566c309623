from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.models import Execution, Policy, ProjectSettings, Task, UserSettings, Worktree, from_json
from scheduler.core.schema import config_schema

GOLDEN = Path(__file__).parent.parent / "golden"
SHIPPED = Path(__file__).parent.parent.parent / "scheduler" / "config.schema.json"


def task(**changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "id": "a",
        "name": "A",
        "trigger": {"type": "interval", "every": 60},
        "execution": {"type": "shell", "command": "true"},
    }
    return {**raw, **changes}


def read(raw: object) -> Task:
    found = from_json(Task, json.dumps(raw))
    assert isinstance(found, Task), found
    return found


def faults(raw: object) -> list[tuple[tuple[str | int, ...], str]]:
    found = from_json(Task, json.dumps(raw))
    assert isinstance(found, list), found
    return [(place, message) for place, _, message in found]


def test_the_golden_task_has_every_field() -> None:
    raw = json.loads((GOLDEN / "config.json").read_text())["tasks"][0]
    for model, part in (
        (Task, raw),
        (Execution, raw["execution"]),
        (Policy, raw["policy"]),
        (Worktree, raw["execution"]["worktree"]),
    ):
        assert sorted(field.alias or "" for field in model.model_fields.values()) == sorted(part)


def test_the_golden_tasks_go_round() -> None:
    for raw in json.loads((GOLDEN / "config.json").read_text())["tasks"]:
        once = read(raw)
        assert read(once.to_json()) == once


def test_durations_are_seconds_or_text() -> None:
    read_task = read(task(policy={"missedWithin": "24h", "retryDelay": 90}))
    assert (read_task.policy.missed_within, read_task.policy.retry_delay) == (86400, 90)


def test_the_shipped_schema_is_that_of_the_models() -> None:
    assert json.loads(SHIPPED.read_text()) == config_schema(), (
        "run: scripts/scheduler schema > scheduler/config.schema.json"
    )


def test_what_is_unset_stays_out_of_the_json() -> None:
    assert "maxTurns" not in read(task()).to_json()["execution"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 0),
        ("timeout", -1),
        ("timeout", 10**9),
        ("timeout", 1.5),
        ("timeout", True),
        ("timeout", "soon"),
        ("timeout", None),
        ("stallTimeout", "0"),
        ("maxTurns", "3"),
        ("maxTurns", 0),
        ("maxBudgetUsd", 0),
        ("command", ""),
        ("command", "a\0b"),
        ("command", 3),
        ("skipPermissions", "false"),
        ("permissionMode", "bypassPermissions"),
        ("allowedTools", "Read"),
        ("model", "-x"),
        ("model", "sonnet\n"),
        ("env", {"A=B": "1"}),
        ("env", {"A": 1}),
        ("env", {"A": "x\0"}),
        ("env", {"PATH": "/evil"}),
        ("env", {"GIT_DIR": "/x"}),
        ("env", {"ANTHROPIC_BASE_URL": "http://x"}),
    ],
)
def test_a_wrong_value_of_execution_is_named_by_its_place(name: str, value: object) -> None:
    """E14."""
    found = faults(task(execution={"type": "claude", "command": "do", name: value}))
    assert found and all(place[:2] == ("execution", name) for place, _ in found)


@pytest.mark.parametrize(
    "task_id",
    ["../../x", "a/b", ".", "", "a" * 65, "-rf", "CON", "a b", "a\0", "a\n", "ünï", "\u2603", "a_b", "a.lock"],
)
def test_an_id_that_is_no_id_is_refused(task_id: str) -> None:
    """D9."""
    assert [place for place, _ in faults(task(id=task_id))] == [("id",)]


@pytest.mark.parametrize("task_id", ["a", "0", "con", "a" * 64, "nightly-deps-2"])
def test_an_id_is_lower_case_digits_and_dashes(task_id: str) -> None:
    assert read(task(id=task_id)).id == task_id


@pytest.mark.parametrize(
    "prefix",
    [
        "--upload-pack=touch x",
        "-D",
        "-m",
        "@{-1}",
        "a..b",
        "x.lock/",
        "a//",
        "a/.b",
        "a b",
        "a~",
        "a^",
        "a:",
        "a\\",
        "a\n",
        "/a",
        "",
    ],
)
def test_a_prefix_that_git_could_misread_is_refused(prefix: str) -> None:
    found = faults(task(execution={"type": "shell", "command": "true", "worktree": {"branchPrefix": prefix}}))
    assert {place for place, _ in found} == {("execution", "worktree", "branchPrefix")}


@pytest.mark.parametrize("link", ["/etc", "../x", "a/../b", ".git", "a//b", ".", "a\0"])
def test_a_link_out_of_the_checkout_is_refused(link: str) -> None:
    found = faults(task(execution={"type": "shell", "command": "true", "worktree": {"link": [link]}}))
    assert [place for place, _ in found] == [("execution", "worktree", "link", 0)]


@pytest.mark.parametrize(
    ("trigger", "place"),
    [
        ({"type": "cron", "expression": "61 * * * *"}, ("trigger", "expression")),
        ({"type": "cron", "expression": "0 0 30 2 *"}, ("trigger", "expression")),
        ({"type": "cron", "expression": "@daily", "timezone": "Mars/X"}, ("trigger", "timezone")),
        ({"type": "once", "at": "tomorrow"}, ("trigger", "at")),
        ({"type": "once", "at": "2026-12-01T09:00:00"}, ("trigger", "at")),
        ({"type": "once", "at": 5}, ("trigger", "at")),
        ({"type": "interval", "every": 0}, ("trigger", "every")),
        ({"type": "interval", "every": 60, "from": "x"}, ("trigger", "from")),
        ({"type": "weekly"}, ("trigger", "type")),
        ({"type": 5}, ("trigger", "type")),
        ({"expression": "@daily"}, ("trigger", "type")),
        ("@daily", ("trigger",)),
    ],
)
def test_a_wrong_trigger_is_named_by_its_place_in_the_file(trigger: object, place: tuple[str, ...]) -> None:
    assert [place for place, _ in faults(task(trigger=trigger))] == [place]


def test_a_shell_command_has_no_permissions_to_skip() -> None:
    (_, message), *more = faults(task(execution={"type": "shell", "command": "true", "skipPermissions": True}))
    assert not more and "shell command" in message


def test_unknown_fields_are_faults_everywhere() -> None:
    raw = task(
        extra=1, execution={"type": "shell", "command": "true", "worktree": {"setups": "x"}}, policy={"retry": 1}
    )
    assert {place for place, _ in faults(raw)} == {
        ("extra",),
        ("execution", "worktree", "setups"),
        ("policy", "retry"),
    }


def test_settings_have_defaults() -> None:
    assert UserSettings().max_concurrent == 2
    assert ProjectSettings().remind is True


def test_a_sandbox_needs_branches_in_a_folder_and_places_that_are_absolute() -> None:
    def execution(**fields: Any) -> dict[str, Any]:
        return {"execution": {"type": "shell", "command": "true", **fields}}

    assert read(task(**execution(sandbox="bwrap", sandboxWrite=["~/.npm", "/srv"]))).execution.sandbox == "bwrap"
    for fields, said in (
        ({"sandboxWrite": ["/srv"]}, "sandboxWrite is for tasks with a sandbox"),
        ({"sandbox": "bwrap", "worktree": {"branchPrefix": "auto-"}}, "branchPrefix needs a '/'"),
        ({"sandbox": "bwrap", "sandboxWrite": ["node_modules"]}, "not an absolute path"),
        ({"sandbox": "bwrap", "sandboxWrite": ["~/../x"]}, "not an absolute path"),
        ({"sandbox": "bwrap", "sandboxWrite": ["/"]}, "not an absolute path"),
        ({"sandbox": "docker"}, "'docker' is not one of bwrap"),
    ):
        assert any(said in message for _, message in faults(task(**execution(**fields)))), fields
