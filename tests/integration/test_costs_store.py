from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from scheduler.core.limits import Cause, Hold
from scheduler.core.models import Budgets, UserSettings
from scheduler.store.costs import bounds, day_of
from scheduler.store.state import State

NOON = datetime(2026, 12, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(str(tmp_path / "state.db"), NOON)
    yield opened
    opened.close()


def spend(state: State, run_id: str, usd: float, ended: datetime, task: str = "a") -> None:
    state.claim({"id": run_id, "project": "/p", "taskId": task, "attempt": 1}, ended, ended)
    state.finish(run_id, "/p", task, failed=None, cost=(usd, ended))


def test_a_day_is_one_of_the_local_calendar() -> None:
    assert day_of(datetime(2026, 12, 1, 22, 59, tzinfo=timezone.utc)) == "2026-12-01"
    assert day_of(datetime(2026, 12, 1, 23, 0, tzinfo=timezone.utc)) == "2026-12-02"
    begin, end = bounds(datetime(2026, 10, 25, 12, tzinfo=timezone.utc))  # the clocks go back
    assert (end - begin, begin.isoformat()) == (timedelta(hours=25), "2026-10-25T00:00:00+02:00")


def test_costs_add_up_by_day_and_task(state: State) -> None:
    spend(state, "r1", 0.5, NOON)
    spend(state, "r2", 0.25, NOON + timedelta(hours=1))
    spend(state, "r3", 1.0, NOON, "b")
    spend(state, "r4", 9.0, NOON + timedelta(hours=12))
    assert state.costs.on(NOON) == [("/p", "a", 0.75), ("/p", "b", 1.0)]
    assert state.costs.on(NOON + timedelta(days=1)) == [("/p", "a", 9.0)]


def test_the_end_of_a_run_is_counted_once(state: State) -> None:
    spend(state, "r1", 0.5, NOON)
    state.finish("r1", "/p", "a", failed=None, cost=(0.5, NOON))
    assert state.costs.on(NOON) == [("/p", "a", 0.5)]


def test_old_days_are_dropped(state: State) -> None:
    spend(state, "r1", 0.5, NOON)
    spend(state, "r2", 0.5, NOON + timedelta(days=93))
    assert state.costs.on(NOON) == []


def test_a_budget_is_a_hold_until_midnight(state: State) -> None:
    paused = Hold("/p", "", Cause.USER, NOON, None, "sam")
    state.holds.put(paused)
    budgets = Budgets.model_validate({"perDay": 1.0})
    spend(state, "r1", 0.5, NOON)
    assert state.all_holds(budgets, NOON) == [paused]
    spend(state, "r2", 0.5, NOON + timedelta(hours=1))
    spent = Hold("", "", Cause.BUDGET, *bounds(NOON), "$1.00 of $1.00")
    assert state.all_holds(budgets, NOON) == [spent, paused]
    assert state.known("/q", UserSettings(budgets=budgets), NOON).holds == [spent]
    assert state.all_holds(budgets, NOON + timedelta(days=1)) == [paused]
