from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core import foreign
from scheduler.core.models import Task, from_json
from scheduler.errors import SchedulerError
from scheduler.store import history

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)
RUN = {
    "id": "00000001-0000-4000-8000-000000000000", "taskId": "a", "taskName": "A", "project": "/p", "status": "success",
    "startedAt": "2026-03-01T09:00:00.000Z", "completedAt": "2026-03-01T09:05:00.000Z",
}  # fmt: skip
TASK = {
    "id": "a", "name": "A", "trigger": {"type": "cron", "expression": "0 9 * * *", "timezone": "local"},
    "execution": {"command": "Do it.", "workingDirectory": "."},
}  # fmt: skip
WORDS = [
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2099-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "..",
    "/nul\0l", "-D", "\x1b[31m", "\u202e", "🙂" * 999, "once", "interval", "nan", 1e308, 2**70, -(2**70),
]  # fmt: skip
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON: Any = st.sampled_from(WORDS) | st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def some(*names: str) -> Any:
    return st.dictionaries(st.sampled_from(names), JSON, max_size=4)


def same(text: str) -> str:
    return text


FIELDS = (
    *RUN, "duration", "exitCode", "cronExpression", "triggeredBy", "worktreePath", "worktreeBranch", "worktreePushed",
    "costUsd", "turns", "output", "error",
)  # fmt: skip


@given(some(*FIELDS))
def test_a_run_is_taken_over_or_refused(odd: dict[str, Any]) -> None:
    raw = history.parse(json.dumps({**RUN, **odd}).encode())
    if raw is None:
        return
    try:
        record = foreign.record(raw, NOW, same)
    except SchedulerError as error:
        assert error.message
        return
    assert record.completed_at is not None
    assert datetime(1970, 1, 1, tzinfo=timezone.utc) < record.started_at <= record.completed_at <= NOW
    assert history.parse(history.to_line(record.to_json())) is not None
    assert record.project.startswith("/") and "\0" not in record.project and ".." not in record.id


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("status", "running", "never ended"),
        ("startedAt", "yesterday", "when it began"),
        ("startedAt", "2027-01-01T00:00:00Z", "when it began"),
        ("startedAt", "0001-01-01T00:00:00+14:00", "when it began"),
        ("project", "p", "no folder"),
        ("project", "/p\0", "no folder"),
        ("id", "../x", "no id"),
        ("id", "", "no id"),
    ],
)
def test_why_a_run_is_refused(field: str, value: str, says: str) -> None:
    with pytest.raises(SchedulerError, match=says):
        foreign.record({**RUN, field: value}, NOW, same)


def test_an_end_that_cannot_be_is_the_start() -> None:
    for end in (5, None, "soon", "2026-02-01T00:00:00Z", "2099-01-01T00:00:00Z"):
        record = foreign.record({**RUN, "completedAt": end}, NOW, same)
        assert record.completed_at == record.started_at


@given(some(*TASK, "tags", "description", "enabled"), some("command", "workingDirectory", "timeout", "env", "worktree"))
def test_a_task_is_taken_over_or_refused(odd: dict[str, Any], execution: dict[str, Any]) -> None:
    raw: Any = {**TASK, **odd}
    if isinstance(raw["execution"], dict):
        raw["execution"] = {**raw["execution"], **execution}
    try:
        taken = foreign.task(raw, "Europe/Berlin", "a")
    except SchedulerError as error:
        assert error.message
        return
    found = from_json(Task, json.dumps(taken.entry))
    assert isinstance(found, Task) and not found.enabled and isinstance(taken.folder, str)
