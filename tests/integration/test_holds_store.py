"""Holds and tallies in `state.db`, and a file of the first version that is brought up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from scheduler.core.limits import Cause, Hold
from scheduler.core.models import UserSettings
from scheduler.store.database import MIGRATIONS, SCHEMA
from scheduler.store.holds import Tally
from scheduler.store.state import State

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone(timedelta(hours=1)))
LATER = NOW + timedelta(hours=1)
PAUSES = (Cause.USER, Cause.FAILURES)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "state.db")


@pytest.fixture
def state(path: str) -> Iterator[State]:
    opened = State(path, NOW)
    yield opened
    opened.close()


def test_a_hold_is_kept_over_a_restart(state: State, path: str) -> None:
    holds = [
        Hold("/p", "", Cause.USER, NOW, None, "sam"),
        Hold("/p", "a", Cause.FAILURES, LATER, LATER + timedelta(days=1), "scheduler", "r1"),
    ]
    for hold in reversed(holds):
        state.holds.put(hold)
    other = State(path, NOW)
    assert other.holds.all() == holds
    other.close()


def test_putting_it_again_replaces_it(state: State) -> None:
    state.holds.put(Hold("/p", "", Cause.USER, NOW, None, "sam"))
    again = Hold("/p", "", Cause.USER, LATER, LATER, "kim")
    state.holds.put(again)
    assert state.holds.all() == [again]


def test_lifting_ends_exactly_what_is_named_and_the_count_of_failures(state: State) -> None:
    state.sync("/p", [("a", "t1", True)], NOW)
    for number in range(3):
        state.claim({"id": f"r{number}", "project": "/p", "taskId": "a", "attempt": number}, NOW, NOW)
        state.finish(f"r{number}", "/p", "a", failed=True)
    of_task = Hold("/p", "a", Cause.FAILURES, NOW, None, "scheduler", "r1")
    for hold in (of_task, Hold("/p", "", Cause.USER, NOW, None, "sam"), Hold("/q", "a", Cause.USER, NOW, None, "sam")):
        state.holds.put(hold)
    assert state.tasks("/p")["a"].failures == 3
    assert state.holds.lift("/p", "a", PAUSES, LATER) == [of_task]
    assert state.holds.lift("/p", "a", PAUSES, LATER) == []
    assert {(h.project, h.task, h.until) for h in state.holds.all()} == {
        ("/p", "a", LATER), ("/p", "", None), ("/q", "a", None)
    }  # fmt: skip
    assert state.tasks("/p")["a"].failures == 0


def test_a_settled_hold_is_forgotten_unless_it_was_put_again(state: State) -> None:
    over = Hold("/p", "", Cause.USER, NOW, LATER, "sam")
    state.holds.put(over)
    state.holds.put(Hold("/p", "", Cause.USER, LATER, None, "sam"))
    state.holds.forget(over)
    assert len(state.holds.all()) == 1
    state.holds.put(over)
    state.holds.forget(over)
    assert state.holds.all() == []


def test_a_tally_moves_the_mark_of_its_task(state: State) -> None:
    state.sync("/p", [("a", "t1", True)], NOW)
    tally = Tally("/p", "a", "paused", {"id": "r1"}, 3, 0)
    state.holds.pass_over(tally, LATER, done=None)
    assert state.tasks("/p")["a"].handled_until == LATER
    state.holds.told(tally)
    assert state.known("/p", UserSettings(), NOW).tallies == [Tally("/p", "a", "paused", {"id": "r1"}, 3, 3)]
    assert state.known("/q", UserSettings(), NOW).tallies == []
    state.holds.close_tally(tally)
    assert state.holds.tallies() == []


def test_a_file_of_the_first_version_keeps_what_it_holds(path: str) -> None:
    Path(path).parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript(MIGRATIONS[0] + ";")
    old.execute("INSERT INTO meta VALUES ('schema', '1')")
    old.execute(
        "INSERT INTO tasks VALUES ('/p', 'a', 't1', '2026-01-01T00:00:00.000000+00:00', NULL,"
        " '2026-01-01T00:00:00.000000+00:00', NULL, 2)"
    )
    old.commit()
    old.close()
    state = State(path, NOW)
    assert state.damage is None
    assert state.tasks("/p")["a"].failures == 2
    state.holds.put(Hold("/p", "", Cause.USER, NOW, None, "sam"))
    state.close()
    again = sqlite3.connect(path)
    assert again.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA),)]
    again.close()


def test_a_migration_that_breaks_off_leaves_the_old_file(path: str) -> None:
    Path(path).parent.mkdir()
    old = sqlite3.connect(path)
    old.executescript(MIGRATIONS[0] + "; CREATE TABLE skips (in_the_way TEXT);")
    old.execute("INSERT INTO meta VALUES ('schema', '1')")
    old.commit()
    with pytest.raises(Exception, match="skips"):
        State(path, NOW)
    assert {row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type='table'")} == {
        "meta", "claims", "tasks", "runs", "skips"
    }  # fmt: skip
    old.close()
