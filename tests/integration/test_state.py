from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.errors import SchedulerError
from scheduler.store.state import Retry, State
from tests import child

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone(timedelta(hours=1)))
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "state.db")


@pytest.fixture
def state(path: str) -> Iterator[State]:
    opened = State(path, NOW)
    yield opened
    opened.close()


def record(run_id: str = "r1", attempt: int = 1, task: str = "a") -> dict[str, Any]:
    return {"id": run_id, "project": "/p", "taskId": task, "attempt": attempt}


def test_a_task_is_active_from_when_it_was_taken_in(state: State) -> None:
    state.sync("/p", [("a", "t1", True), ("b", "t1", False)], NOW)
    tasks = state.tasks("/p")
    assert (tasks["a"].added_at, tasks["a"].active_since, tasks["a"].handled_until) == (NOW, NOW, NOW)
    assert tasks["b"].active_since is None
    state.sync("/p", [("a", "t1", True), ("b", "t1", True)], LATER)
    tasks = state.tasks("/p")
    assert tasks["a"].active_since == NOW
    assert (tasks["b"].added_at, tasks["b"].active_since, tasks["b"].handled_until) == (NOW, LATER, LATER)


def test_another_trigger_starts_anew_and_a_missing_task_is_forgotten(state: State) -> None:
    state.sync("/p", [("a", "t1", True), ("b", "t1", True)], NOW)
    state.handled("/p", "a", NOW, done=NOW)
    state.sync("/p", [("a", "t2", True)], LATER)
    tasks = state.tasks("/p")
    assert set(tasks) == {"a"}
    assert (tasks["a"].added_at, tasks["a"].handled_until, tasks["a"].done_at) == (LATER, LATER, None)


def test_a_done_task_stays_done(state: State) -> None:
    state.sync("/p", [("a", "t1", True)], NOW)
    state.handled("/p", "a", LATER, done=LATER)
    state.sync("/p", [("a", "t1", True)], LATER)
    assert state.tasks("/p")["a"].done_at == LATER


def test_suspending_a_project_leaves_the_others(state: State) -> None:
    state.sync("/p", [("a", "t1", True)], NOW)
    state.sync("/q", [("a", "t1", True)], NOW)
    state.suspend("/p")
    assert state.tasks("/p")["a"].active_since is None
    assert state.tasks("/q")["a"].active_since == NOW


def test_an_occurrence_is_claimed_once(state: State, path: str) -> None:
    state.sync("/p", [("a", "t1", True)], NOW)
    other = State(path, NOW)
    berlin, utc = LATER, LATER.astimezone(timezone.utc)
    assert state.claim(record("r1"), berlin, LATER, handled=berlin)
    assert not other.claim(record("r2"), utc, LATER)
    assert other.claim(record("r3", attempt=2), utc, LATER)
    other.close()
    assert [run.run_id for run in state.runs()] == ["r1", "r3"]
    assert state.tasks("/p")["a"].handled_until == LATER


def test_the_mark_of_what_is_handled_never_goes_back(state: State) -> None:
    state.sync("/p", [("a", "t1", True)], LATER)
    state.handled("/p", "a", NOW)
    assert state.tasks("/p")["a"].handled_until == LATER


def test_a_run_is_followed_to_its_end(state: State) -> None:
    state.sync("/p", [("a", "t1", True)], NOW)
    for number, failed in enumerate([True, True, None, False]):
        run_id = f"r{number}"
        state.claim(record(run_id), NOW + timedelta(minutes=number), NOW)
        state.update_run(run_id, phase="running", place={"worktree": "/w"}, process={"pid": 1})
        (run,) = state.runs()
        assert (run.phase, run.place, run.process) == ("running", {"worktree": "/w"}, {"pid": 1})
        state.finish(run_id, "/p", "a", failed=failed)
        assert state.tasks("/p")["a"].failures == [1, 2, 2, 0][number]
    assert state.runs() == []


def test_the_end_of_a_run_and_the_claim_of_its_retry_are_one_step(state: State, path: str) -> None:
    state.sync("/p", [("a", "t1", True)], NOW)
    state.claim(record("r1"), NOW, NOW)
    again = Retry(record("r2", attempt=2), NOW, LATER, LATER)
    assert state.finish("r1", "/p", "a", failed=None, retry=again)
    (row,) = state.runs()
    assert (row.run_id, row.phase, row.place) == ("r2", "queued", {"notBefore": LATER.isoformat()})
    assert not state.finish("r1", "/p", "a", failed=None, retry=again)  # as after a crash that came before it was told
    assert [row.run_id for row in state.runs()] == ["r2"]


def test_an_empty_file_is_a_fresh_state_in_which_nothing_is_due(path: str) -> None:
    """A10."""
    os.makedirs(os.path.dirname(path))
    Path(path).write_bytes(b"")
    state = State(path, NOW)
    state.sync("/p", [("a", "t1", True)], NOW)
    assert state.tasks("/p")["a"].handled_until == NOW
    state.close()


def filled(path: str) -> bytes:
    state = State(path, NOW)
    state.sync("/p", [(f"task-{n}", "t" * 64, True) for n in range(300)], NOW)
    state.close()
    return Path(path).read_bytes()


@pytest.mark.parametrize("damage", ["garbage", "half", "header", "pages"])
def test_a_damaged_file_is_moved_aside_and_said(path: str, damage: str) -> None:
    """A11."""
    data = filled(path)
    dice = random.Random(1)
    broken = {
        "garbage": dice.randbytes(5000),
        "half": data[: len(data) // 2 // 4096 * 4096],
        "header": bytes([data[0] ^ 255]) + data[1:],
        "pages": data[:4096] + dice.randbytes(len(data) - 4096),
    }[damage]
    Path(path).write_bytes(broken)
    state = State(path, NOW)
    assert state.damage is not None and "moved to" in state.damage
    assert state.tasks("/p") == {}
    state.sync("/p", [("a", "t1", True)], NOW)
    state.close()
    (aside,) = Path(path).parent.glob("state.db.corrupt-*")
    assert aside.read_bytes() == broken


def test_a_newer_file_is_left_alone(path: str) -> None:
    """B13."""
    data = filled(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value='99' WHERE name='schema'")
    db.commit()
    db.close()
    with pytest.raises(SchedulerError, match="newer version"):
        State(path, NOW)
    assert os.path.getsize(path) == len(data)


def test_a_writer_waits_for_another(path: str, state: State) -> None:
    """A12."""
    state.sync("/p", [("a", "t1", True)], NOW)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.3, holder.execute, ["COMMIT"])
    timer.start()
    assert state.claim(record(), LATER, NOW)
    timer.join()
    holder.close()


CLAIM = """
from datetime import datetime, timedelta, timezone
from scheduler.store.state import State
now = datetime(2026, 12, 1, tzinfo=timezone.utc)
state = State(args[0], now)
for number in range(int(args[2])):
    record = {"id": f"{args[1]}-{number}", "project": "/p", "taskId": "a", "attempt": 1}
    if state.claim(record, now + timedelta(minutes=number), now, handled=now + timedelta(minutes=number)):
        print(number, flush=True)
"""


def test_processes_that_claim_at_once_share_the_occurrences(path: str) -> None:
    """A13."""
    claimed: list[str] = []
    for claimer in [child.start(CLAIM, path, name, 30) for name in "abcd"]:
        claimed += child.output(claimer).split()
    assert sorted(map(int, claimed)) == list(range(30))


def test_a_claim_that_was_answered_survives_a_kill(path: str) -> None:
    """A14."""
    for number in range(5):
        claimer = child.start(CLAIM, path, f"r{number}", 10000)
        assert claimer.stdout is not None
        said = [claimer.stdout.readline()]
        time.sleep(0.01)
        claimer.kill()
        said += claimer.communicate()[0].splitlines(keepends=True)
        answered = {int(line) for line in said if line.endswith("\n")}
        state = State(path, NOW)
        assert state.damage is None
        mine = {int(run.run_id.split("-")[1]) for run in state.runs() if run.run_id.startswith(f"r{number}-")}
        assert answered <= mine
        state.close()


def test_a_second_connection_of_a_process_takes_no_lock_from_the_first(tmp_path: Path) -> None:
    """Locks on a file are a process's: whoever closes it lets go of all. Then the next process that leaves takes the
    write-ahead log for nobody's, deletes it, and what the first connection writes from then on is lost."""
    path = str(tmp_path / "state.db")
    look = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
    look += "print(db.execute('SELECT count(*) FROM tasks').fetchone()[0]); db.close()"

    def seen() -> str:
        done = subprocess.run([sys.executable, "-c", look, path], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    first = State(path, NOW)
    first.sync("/p", [("a", "digest", True)], NOW)
    State(path, NOW).close()
    assert seen() == "1"
    first.sync("/p", [("a", "digest", True), ("b", "digest", True)], NOW)
    assert seen() == "2"
    first.close()
    assert seen() == "2"
