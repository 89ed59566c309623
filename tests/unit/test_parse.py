from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.parse import Config, ConfigUnreadable, locate, parse_config, show, trigger_digest
from scheduler.errors import SchedulerError

GOLDEN = Path(__file__).parent.parent / "golden" / "config.json"


def entry(task_id: str = "a", **changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "id": task_id,
        "name": "A task",
        "trigger": {"type": "interval", "every": 60},
        "execution": {"type": "shell", "command": "true"},
    }
    return {**raw, **changes}


def parse(*tasks: object, **top: Any) -> Config:
    return parse_config(json.dumps({"version": 1, "tasks": list(tasks), **top}, indent=2).encode())


def test_the_golden_config_has_no_problem() -> None:
    config = parse_config(GOLDEN.read_bytes())
    assert config.problems == ()
    assert [task.id for task in config.tasks] == ["nightly-deps", "release-notes", "triage"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"tasks":[', "line 1 column 11"),
        (b"", "line 1 column 1"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b'{"version": 1} x', "line 1 column 16"),
        (b'{"version": 2}', "this program knows 1"),
        (b'{"version": true}', "this program knows 1"),
        (b'{"version": "1"}', "this program knows 1"),
        (b"{}", "this program knows 1"),
        (b'{"version": 1, "tasks": {}}', "tasks: should be a list"),
        (b'{"version": 1, "version": 1}', "'version' stands twice"),
        (b'{"version": NaN}', "NaN"),
        (b'{"version": 1, "tasks": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"version": ' + b"1" * 5000 + b"}", "JSON"),
        ('{"version": 1}'.encode("utf-16"), "UTF-16"),
        (b'{"version": 1, "x": "\xff"}', "byte 21"),
    ],
)
def test_what_is_no_config_suspends_the_project(data: bytes, says: str) -> None:
    """D1."""
    with pytest.raises(ConfigUnreadable) as caught:
        parse_config(data)
    assert says in caught.value.message
    assert caught.value.hint


def test_a_bom_and_crlf_are_accepted() -> None:
    """D5."""
    text = json.dumps({"version": 1, "tasks": [entry()]}, indent=2).replace("\n", "\r\n")
    assert [task.id for task in parse_config(b"\xef\xbb\xbf" + text.encode()).tasks] == ["a"]


def test_one_wrong_task_does_not_stop_the_others() -> None:
    """D2."""
    config = parse(entry("a"), entry("b", enabled="false"), entry("c"))
    assert [task.id for task in config.tasks] == ["a", "c"]
    (problem,) = config.problems
    assert (problem.task, problem.place, problem.warning) == ("b", "tasks[1].enabled", False)
    assert problem.line == 27


def test_a_problem_names_file_line_place_and_the_nearest_name() -> None:
    """D2."""
    (problem,) = parse(entry(execution={"type": "shell", "command": "true", "timeOut": 5})).problems
    text = problem.text("config.json")
    assert text == "config.json:14: tasks[0].execution.timeOut: unknown field 'timeOut'; did you mean 'timeout'?"


CRON = {"type": "cron", "expression": "@daily"}
SHELL = {"type": "shell", "command": "true"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"trigger": {"type": "corn"}},
            "8: tasks[0].trigger.type: 'corn' is not one of cron, once, interval; did you mean cron?",
        ),
        ({"trigger": {"every": 60}}, "7: tasks[0].trigger.type: is missing"),
        (
            {"trigger": {**CRON, "timezone": "Europe/Berln"}},
            "10: tasks[0].trigger.timezone: unknown time zone 'Europe/Berln'; did you mean Europe/Berlin?",
        ),
        (
            {"execution": {**SHELL, "type": "shel"}},
            "12: tasks[0].execution.type: 'shel' is not one of claude, shell; did you mean shell?",
        ),
        (
            {"execution": {**SHELL, "permissionMode": "acceptEdit"}},
            "14: tasks[0].execution.permissionMode: 'acceptEdit' is not one of acceptEdits, auto, default, dontAsk, "
            "plan; did you mean acceptEdits?",
        ),
        (
            {"execution": {**SHELL, "worktree": {"base": "deflt"}}},
            "15: tasks[0].execution.worktree.base: 'deflt' is not one of head, default, fresh; did you mean default?",
        ),
        (
            {"policy": {"overlap": "skipp"}},
            "16: tasks[0].policy.overlap: 'skipp' is not one of skip, queue, cancel-running; did you mean skip?",
        ),
        (
            {"policy": {"overlap": "zzz"}},
            "16: tasks[0].policy.overlap: 'zzz' is not one of skip, queue, cancel-running",
        ),
    ],
)
def test_a_problem_names_the_wrong_value_and_the_nearest_known_one(changes: dict[str, Any], text: str) -> None:
    (problem,) = parse(entry(**changes)).problems
    assert problem.text("config.json") == f"config.json:{text}"


@pytest.mark.parametrize(
    ("task", "places"),
    [
        (entry(execution={"type": "shell"}), ["tasks[0].execution.command"]),
        (
            entry(trigger={"type": "cron", "expresion": "@daily"}),
            ["tasks[0].trigger.expression", "tasks[0].trigger.expresion"],
        ),
        (entry(policy={"overlap": "kill"}), ["tasks[0].policy.overlap"]),
        (entry(tags=["a", "b c"]), ["tasks[0].tags[1]"]),
        ({"name": "x"}, ["tasks[0].id", "tasks[0].trigger", "tasks[0].execution"]),
        (5, ["tasks[0]"]),
        (None, ["tasks[0]"]),
        ([], ["tasks[0]"]),
    ],
)
def test_places(task: object, places: list[str]) -> None:
    config = parse(task)
    assert config.tasks == ()
    assert [problem.place for problem in config.problems] == places


def test_an_id_that_stands_twice_suspends_both() -> None:
    config = parse(entry("a"), entry("b"), entry("a"))
    assert [task.id for task in config.tasks] == ["b"]
    assert [problem.place for problem in config.problems] == ["tasks[0].id", "tasks[2].id"]


def test_an_unknown_field_at_the_top_is_a_warning() -> None:
    config = parse(entry(), setings={}, **{"$schema": "./schema.json"})
    assert [task.id for task in config.tasks] == ["a"]
    (problem,) = config.problems
    assert problem.warning and problem.message == "unknown field 'setings'; did you mean 'settings'?"


def test_wrong_settings_are_warnings_and_the_rest_holds() -> None:
    config = parse(settings={"remind": False, "loud": 1})
    assert config.settings.remind is False
    assert [problem.place for problem in config.problems] == ["settings.loud"]
    assert parse(settings=[]).settings.remind is True


def test_a_task_is_found_by_its_id_or_the_nearest_is_named() -> None:
    config = parse(entry("nightly"), entry("broken", enabled=1))
    assert config.task("nightly").id == "nightly"
    with pytest.raises(SchedulerError, match="broken is suspended"):
        config.task("broken")
    with pytest.raises(SchedulerError) as caught:
        config.task("nigtly")
    assert caught.value.hint == "did you mean nightly?"


def test_a_trigger_has_another_digest_when_it_means_something_else() -> None:
    def digest(**trigger: Any) -> str:
        return trigger_digest(parse(entry(trigger=trigger)).tasks[0])

    assert digest(type="interval", every=7200) == digest(type="interval", every="2h")
    assert digest(type="interval", every=7200) != digest(type="interval", every=7201)
    assert digest(type="cron", expression="@daily") != digest(
        type="cron", expression="@daily", timezone="Europe/Berlin"
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_any_json_is_a_config_or_says_why_not(value: object) -> None:
    for data in (value, {"version": 1, "tasks": value}, {"version": 1, "tasks": [value], "settings": value}):
        try:
            config = parse_config(json.dumps(data).encode())
        except ConfigUnreadable:
            continue
        assert all(problem.line == 1 and problem.message for problem in config.problems)


@given(st.binary())
def test_any_bytes_are_a_config_or_say_why_not(data: bytes) -> None:
    """D5."""
    with pytest.raises(ConfigUnreadable):
        parse_config(data)


TEXT = """\
{
  "tasks": [
    {"id": "a",
     "x": {"y": [1,
                 {"z": 2}]}}
  ]
}
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ((), 1),
        (("tasks",), 2),
        (("tasks", 0), 3),
        (("tasks", 0, "x"), 4),
        (("tasks", 0, "x", "y", 1), 5),
        (("tasks", 0, "x", "y", 1, "z"), 5),
        (("tasks", 0, "missing"), 3),
        (("tasks", 7), 2),
        (("tasks", "id"), 2),
    ],
)
def test_a_place_has_a_line(place: tuple[str | int, ...], line: int) -> None:
    assert locate(TEXT, place) == line


def test_a_place_is_shown_as_a_json_path() -> None:
    assert show("tasks", 2, "execution", "timeout") == "tasks[2].execution.timeout"
