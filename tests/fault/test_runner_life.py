"""How a runner begins, stays and ends (B), and what its clock may do to it (C) and its configs (D15)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scheduler.cli.approve import enable
from scheduler.cli.context import Context
from scheduler.cli.status import status
from scheduler.core.record import RunnerMark
from scheduler.disk import files
from scheduler.errors import SchedulerError
from scheduler.execution import process
from scheduler.runner import control
from scheduler.runner.due import new_record
from scheduler.store import config, trust
from scheduler.store.state import State, TaskState
from tests.build import Clock, spawn
from tests.hooks import BASE, Bed
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import kill

MINUTELY = {"type": "cron", "expression": "* * * * *", "timezone": "UTC"}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """One that stands still at noon."""
    made = Clock(tmp_path / "clock")
    made.set(datetime.now(timezone.utc).replace(hour=12, minute=0, second=30, microsecond=0), 0)
    return made


def living(own: Rig, clock: Clock | None = None) -> int:
    """A runner of the test build that answers."""
    pid = spawn(own, clock=clock)
    wait_until(lambda: control.request(own.paths, {"verb": "status"}), what=own.log())
    return pid


@pytest.mark.parametrize(("count", "rounds"), [(8, 1), pytest.param(32, 20, marks=pytest.mark.full)])
def test_of_many_runners_that_start_at_once_one_stays(own: Rig, count: int, rounds: int) -> None:
    """B1."""
    files.make_folder(own.paths.state)
    for _ in range(rounds):
        gate, ready = os.pipe()
        wait = f"import os, sys; os.read({gate}, 1); os.execv(sys.executable, sys.argv[1:])"
        words = [sys.executable, "-I", control.package_folder(), "runner"]
        many = [
            subprocess.Popen(
                [sys.executable, "-c", wait, *words], env=own.env, pass_fds=[gate], stderr=subprocess.DEVNULL
            )
            for _ in range(count)
        ]
        os.close(gate)
        os.write(ready, bytes(count))
        os.close(ready)
        pid = own.started(int(wait_until(lambda: control.request(own.paths, {"verb": "status"}))["pid"]))
        losers = [one for one in many if one.pid != pid]
        assert len(losers) == count - 1 and [one.wait(60) for one in losers] == [0] * (count - 1)
        own.stop()
        assert next(one for one in many if one.pid == pid).wait(60) == 0


@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.full)])
def test_of_many_sessions_that_start_at_once_each_is_answered_and_one_runner_lives(tmp_path: Path, count: int) -> None:
    """B9: the real hook, through its launcher, in a project whose runner is gone."""
    bed = Bed(tmp_path)
    bed.enable()
    Path(bed.paths.runtime).write_text(f"{BASE}\n{sys.executable}\n{control.package_folder()}\n0.1.0\n")
    with ThreadPoolExecutor(count) as sessions:
        for reply in list(sessions.map(lambda _: bed.start(), range(count))):
            assert "its runner was not running and is being started" in reply["systemMessage"]
    pid = int(wait_until(lambda: control.request(bed.paths, {"verb": "status"}))["pid"])
    place = f"SCHEDULER_HOME={bed.state}".encode()
    try:
        wait_until(lambda: runners(place) == [pid], what=f"for one runner: {runners(place)}, of which {pid} answers")
        assert control.request(bed.paths, {"verb": "status"}) is not None
    finally:
        wait_until(lambda: control.request(bed.paths, {"verb": "stop", "now": True}) is None)


def runners(place: bytes) -> list[int]:
    """The living runners whose environment has these bytes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes().endswith(b"\0runner\0") and place in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("another", ["process", "boot"])
def test_a_pid_that_another_process_has_now_is_left_alone(own: Rig, another: str) -> None:
    """B2, B8: a run whose supervisor's pid was used again, or is of another boot, is settled; nobody is signalled."""
    own.enable(shell_task("job", "true"))
    task = config.read_source(str(own.project)).parse().tasks[0]
    mark, now = RunnerMark(host="h", pid=1, version="0"), datetime.now(timezone.utc)
    record = new_record(str(own.project), task, now, mark, "manual", None)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        began = process.start_time(stranger.pid) or 0.0
        started = began - 1000 if another == "process" else began + 10_000_000
        with contextlib.closing(State(own.paths.state_db, datetime.now(timezone.utc))) as state:
            state.claim(record.to_json(), record.started_at, record.started_at)
            state.update_run(record.id, phase="running", process={"pid": stranger.pid, "started": started})
        own.start()
        assert own.record(record.id)["reason"] == "crashed"
        assert stranger.poll() is None
        own.stop()
        stranger.kill()


def test_the_lock_of_a_runner_outlives_a_look_at_its_file(own: Rig) -> None:
    """B5: a lock of fcntl's would be gone once any descriptor of the file is closed."""
    path = Path(own.paths.runner_lock)
    path.parent.mkdir(parents=True)
    with files.locked(str(path)):
        path.read_bytes()
        with path.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_runner_stays_as_long_as_a_project_is_enabled(own: Rig, clock: Clock) -> None:
    """B16."""
    own.enable(shell_task("job", "true"))
    pid = living(own, clock)
    time.sleep(1.5)  # three times what the test build waits for before it ends
    assert process.start_time(pid) is not None
    with trust.lock(own.paths):
        known = trust.read(own.paths)
        trust.write(own.paths, {root: replace(project, enabled=False) for root, project in known.items()})
    wait_until(lambda: process.start_time(pid) is None, what=own.log())


def handled(own: Rig, moment: datetime) -> bool:
    with contextlib.closing(State(own.paths.state_db, moment)) as state:
        tasks = state.tasks(str(own.project)).values()
        return bool(tasks) and not state.runs() and all(task.handled_until >= moment for task in tasks)


def told(own: Rig) -> list[tuple[str, str, Any]]:
    return [(r["scheduledFor"][:16], r["status"], r.get("skippedCount")) for r in own.task_records("often")]


@pytest.mark.parametrize("jump", [timedelta(hours=8), timedelta(days=1), timedelta(days=3650)])
def test_a_clock_that_jumps_ahead_is_one_catch_up(own: Rig, clock: Clock, jump: timedelta) -> None:
    """C7, C9: under a living runner; what was passed over is one record, and no loop over five million moments."""
    own.enable(shell_task("often", "true", trigger=MINUTELY, worktree={"enabled": False}), since=clock())
    living(own, clock)
    clock.jump(jump, 0)
    wait_until(lambda: handled(own, clock()), what=own.log())
    runs = [one for one in told(own) if one[1] == "success"]
    skips = [one for one in told(own) if one[1] == "skipped"]
    assert len(runs) == 1 and len(skips) == 1
    assert runs[0][0] == clock().strftime("%Y-%m-%dT%H:%M")
    day = 24 * 60
    assert skips[0][2] == min(int(jump.total_seconds()) // 60, day) - 1


@pytest.mark.parametrize("jump", [timedelta(hours=2), timedelta(hours=23)])
def test_a_clock_that_goes_back_repeats_nothing(own: Rig, clock: Clock, jump: timedelta) -> None:
    """C8: and no run has lasted less than nothing."""
    own.enable(shell_task("often", "sleep 0.2", trigger=MINUTELY, worktree={"enabled": False}), since=clock())
    pid = living(own, clock)
    clock.jump(timedelta(minutes=1), 0)
    wait_until(lambda: [one for one in told(own) if one[1] == "running"])
    clock.jump(-jump, 0)
    wait_until(lambda: [one for one in told(own) if one[1] == "success"])
    wait_until(lambda: "the clock went back" in own.log())
    clock.jump(timedelta(minutes=30), 0)
    kill(pid)
    living(own, clock)
    time.sleep(0.5)
    (record,) = own.task_records("often")
    assert record["duration"] >= 0 and record["completedAt"] >= record["startedAt"]
    clock.jump(jump - timedelta(minutes=29), 0)
    wait_until(lambda: handled(own, clock()), what=own.log())
    assert [one[1] for one in told(own)] == ["success", "success"]


UNSET = datetime(1970, 1, 1, 0, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize("begins", [True, False])
def test_while_the_clock_is_not_set_nothing_starts_and_then_it_is_caught_up(
    own: Rig, clock: Clock, begins: bool
) -> None:
    """C14: a machine without a battery begins in 1970; or the clock falls back so far under a living runner."""
    own.enable(shell_task("often", "true", trigger=MINUTELY, worktree={"enabled": False}), since=clock())
    root, noon = str(own.project), clock()
    if begins:
        clock.set(UNSET, 0)
    pid = living(own, clock)
    clock.set(UNSET, 60)  # its minutes go by
    wait_until(lambda: "the clock shows 1970-01-01" in own.log(), what=own.log())
    with pytest.raises(SchedulerError, match="before this version was made: nothing starts"):
        own.ask("run", project=root, task="often")
    time.sleep(1.5)  # three times what the test build waits for before it ends
    assert process.start_time(pid) is not None and own.task_records("often") == []
    with contextlib.closing(State(own.paths.state_db, noon)) as state:
        assert [task.handled_until for task in state.tasks(root).values()] == [noon]
    clock.set(noon + timedelta(minutes=10), 0)
    wait_until(lambda: handled(own, clock()), what=own.log())
    assert "the clock is set" in own.log()
    missed, ran = sorted(own.task_records("often"), key=lambda record: record["scheduledFor"])
    assert ran["status"] == "success" and ran["scheduledFor"][:16] == clock().strftime("%Y-%m-%dT%H:%M")
    assert (missed["reason"], missed["skippedCount"]) == ("missed", 9)
    absent = "no runner was at work then" if begins else "the clock was not set then"
    assert missed["notes"] == [absent]


def test_a_clock_that_is_not_set_is_said_and_no_task_counts_from_it(own: Rig) -> None:
    """C14: what the command line says, and what it leaves to the runner."""
    own.enable(shell_task("often", "true", trigger=MINUTELY), since=datetime.now(timezone.utc))

    def known() -> dict[str, TaskState]:
        with contextlib.closing(State(own.paths.state_db, datetime.now(timezone.utc))) as state:
            return state.tasks(str(own.project))

    before = known()
    context = Context({**os.environ, **own.env}, UNSET)
    said = CliRunner().invoke(status, ["--project", str(own.project)], obj=context)
    assert "the clock shows 1970-01-01 00:05, which is before this version was made: nothing starts" in said.output
    enabled = CliRunner().invoke(enable, ["--yes", "--no-start", "--project", str(own.project)], obj=context)
    assert enabled.exit_code == 0, enabled.output
    assert known() == before


def test_many_tasks_that_are_due_at_once_are_all_claimed_and_the_runner_answers(own: Rig, clock: Clock) -> None:
    """D15: 500 tasks of one minute; as many at once as allowed, the others in turn."""
    own.settings(maxConcurrent=2)
    tasks = [shell_task(f"t-{number}", "sleep 30", trigger=MINUTELY) for number in range(500)]
    own.enable(*tasks, since=clock())
    living(own, clock)
    clock.jump(timedelta(minutes=1), 0)
    answer = wait_until(lambda: a if len((a := own.ask("status"))["running"]) == 2 and a["queued"] else None)
    assert len(answer["running"]) + len(answer["queued"]) == 500
    moments = {one["scheduledFor"] for one in answer["queued"]}
    assert len(moments) == 1
    with contextlib.closing(State(own.paths.state_db, clock())) as state:
        assert len({row.task for row in state.runs()}) == 500
