"""What `state.db` survives: emptied, damaged, locked, killed, full; and a state on a network file system (A10–A18).

What is not here: damaged in other ways (tests/integration/test_state.py), the runner killed at each step of a run, A15
(test_runner_kills.py), the history against the state, A16 (also `doctor`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from scheduler.disk import files, paths
from scheduler.errors import SchedulerError
from scheduler.runner.loop import Runner
from scheduler.store import database, history
from scheduler.store.database import NotWritten
from scheduler.store.state import State
from tests import child
from tests.command import PACKAGE, Command
from tests.rig import Rig, rig, shell_task, soon, wait_until

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """A lock on a database that another program holds."""
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def test_an_emptied_state_is_begun_anew_and_said(own: Rig) -> None:
    """A10."""
    own.enable(shell_task("often", "true", trigger={"type": "cron", "expression": "* * * * *", "timezone": "UTC"}))
    for name in ("-wal", "-shm"):
        Path(own.paths.state_db + name).unlink(missing_ok=True)
    os.truncate(own.paths.state_db, 0)
    os.utime(own.paths.state_db, (time.time() - 60,) * 2)
    own.start()
    assert "state.db was empty; a fresh state was started" in own.log()
    assert own.run_to_end("often")["status"] == "success"
    assert [run["reason"] for run in own.records() if run["status"] == "skipped"] == []


def test_a_new_state_is_not_said_to_have_been_emptied(tmp_path: Path) -> None:
    for _ in range(2):
        state = State(str(tmp_path / "state.db"), NOW)
        assert state.damage is None
        state.close()
    (tmp_path / "new.db").touch()  # as another process makes it at this moment
    state = State(str(tmp_path / "new.db"), NOW)
    assert state.damage is None
    state.close()


def test_a_damaged_state_fires_nothing_twice_and_is_told_until_it_is_looked_at(own: Rig) -> None:
    """A11: also what had run a moment before; the damaged file is never deleted."""
    moment = soon(0.5)
    own.enable(shell_task("once", "true", trigger={"type": "once", "at": moment}))
    own.start()
    wait_until(lambda: [one for one in own.task_records("once") if one["status"] == "success"])
    own.stop()
    before = Path(own.paths.state_db).read_bytes()
    for name in ("-wal", "-shm"):
        Path(own.paths.state_db + name).unlink(missing_ok=True)
    Path(own.paths.state_db).write_bytes(before[: len(before) // 2] + b"\0garbage" * 3000)
    cli = Command(own.project, own.env)
    said = cli("status")
    (aside,) = Path(own.paths.state).glob("state.db.corrupt-*")
    assert str(aside) in said.err and "was damaged" in said.err
    own.start()
    time.sleep(2.5)
    assert len(own.task_records("once")) == 1
    assert cli("status", "--json").json["damaged"] == [str(aside)]
    assert str(aside) in cli("doctor", code=None).out
    aside.unlink()
    assert cli("status", "--json").json["damaged"] == []


OPENS = """
import time
from datetime import datetime, timezone
from scheduler.store.state import State
print("ready", flush=True)
start = float(sys.stdin.readline())
for number in range(int(args[1])):
    while time.time() < start + 0.1 * number:
        pass
    state = State(f"{args[0]}/{number}/state.db", datetime(2026, 12, 1, tzinfo=timezone.utc))
    state.runs()
    print(number, state.damage)
    state.close()
"""


def test_of_many_that_find_a_damaged_state_one_moves_it_aside(tmp_path: Path) -> None:
    """A11: a second one neither moves the first one's fresh state away, nor that over the damaged one."""
    damaged, count = os.urandom(20000), 20
    for number in range(count):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "state.db").write_bytes(damaged)
    many = [child.start(OPENS, tmp_path, count, stdin=subprocess.PIPE) for _ in range(6)]
    for one in many:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    start = time.time() + 0.2
    for one in many:
        assert one.stdin is not None
        one.stdin.write(f"{start}\n")
        one.stdin.flush()
    said = "".join(child.output(one) for one in many)
    assert said.count("it was moved to") == count
    for number in range(count):
        (aside,) = database.moved_aside(f"{tmp_path}/{number}/state.db")
        assert Path(aside).read_bytes() == damaged


def test_what_was_spent_today_is_known_without_the_state(own: Rig) -> None:
    """A11: a budget that is used up stays used up; what was spent before today is over."""
    own.enable(shell_task("job", "true"))
    today = datetime.now().astimezone()
    for index, (at, usd) in enumerate([(today, 2.5), (today, 0.5), (today - timedelta(days=2), 9.0), (today, "much")]):
        record = {"id": f"0b6c1c9e-0000-0000-0000-00000000000{index}", "taskId": "job", "project": str(own.project),
                  "startedAt": at.isoformat(), "completedAt": at.isoformat(), "status": "success",
                  "costUsd": usd}  # fmt: skip
        Path(own.paths.logs).mkdir(parents=True, exist_ok=True)
        history.append_lines(own.paths.global_history, history.to_line(record))
    for _ in range(2):
        own.start()
        own.run_to_end("job")
        state = State(own.paths.state_db, today)
        assert state.costs.on(today) == [(str(own.project), "job", 3.0)]
        state.close()
        own.stop()


@pytest.mark.full
def test_a_locked_state_skips_looks_and_loses_nothing(own: Rig, tmp_path: Path) -> None:
    """A12: what comes due meanwhile runs afterwards, a run that ends meanwhile is put on record, nothing falls over."""
    gate = tmp_path / "gate"
    own.enable(
        shell_task("long", f"while ! test -e {gate}; do sleep 0.05; done"),
        shell_task("due", "true", trigger={"type": "once", "at": soon(4)}),
    )
    runner = own.start()
    long = own.run("long")
    wait_until(lambda: [one for one in own.records() if one["id"] == long])
    with held(own.paths.state_db):
        gate.touch()
        wait_until(lambda: "cannot be written" in own.log(), what=own.log())
        hook = subprocess.run(
            ["sh", str(PACKAGE.parent / "scripts" / "hook"), "session_start"],
            input=b'{"hook_event_name":"SessionStart","cwd":"%s"}\n' % os.fsencode(own.project),
            env=own.env, cwd=own.project, capture_output=True, timeout=10,
        )  # fmt: skip
        assert (hook.returncode, hook.stderr) == (0, b"")
        said = Command(own.project, own.env)("pause", code=1).err
        assert "state.db cannot be written: database is locked" in said
    assert own.record(long)["status"] == "success"
    wait_until(lambda: [one for one in own.task_records("due") if one["status"] == "success"], what=own.log())
    assert own.ask("status")["pid"] == runner and "Traceback" not in own.log()
    for task in ("long", "due"):
        lines = [one for one in history.read(paths.history_file(str(own.project))) if one["taskId"] == task]
        assert [one["status"] for one in lines] == ["running", "success"]


def test_a_writer_is_refused_with_the_file_and_goes_on_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A12, A13: no reader that becomes a writer is told BUSY at once, for every writer says so from the start."""
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    path = str(tmp_path / "state.db")
    state = State(path, NOW)
    assert state.writable()
    with held(path):
        begin = time.monotonic()
        assert not state.writable() and time.monotonic() - begin < 0.1
        with pytest.raises(NotWritten, match=r"state\.db cannot be written: database is locked"):
            state.sync("/p", [("a", "t1", True)], NOW)
        assert time.monotonic() - begin > 0.2
    state.sync("/p", [("a", "t1", True)], NOW)
    state.close()


def test_a_writer_waits_for_one_who_wrote_after_it_read(tmp_path: Path) -> None:
    """A13: with a deferred transaction this would be BUSY at once."""
    path = str(tmp_path / "state.db")
    state, other = State(path, NOW), sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    state.tasks("/p")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO meta VALUES ('other', '1')")
    timer = threading.Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    state.sync("/p", [("a", "t1", True)], NOW)
    timer.join()
    other.close()
    assert set(state.tasks("/p")) == {"a"}
    state.close()


WRITES = """
from datetime import datetime, timedelta, timezone
from scheduler.store.state import State
now = datetime(2026, 12, 1, tzinfo=timezone.utc)
state = State(args[0], now)
print("ready", flush=True)
for number in range(100000):
    record = {"id": f"{args[1]}-{number}", "project": "/p", "taskId": args[1], "attempt": 1}
    assert state.claim(record, now + timedelta(minutes=number), now)
    state.finish(record["id"], "/p", args[1], failed=True)
    print(number, flush=True)
"""


@pytest.mark.parametrize("kills", [12, pytest.param(60, marks=pytest.mark.full)])
def test_a_killed_writer_leaves_a_sound_state(tmp_path: Path, kills: int) -> None:
    """A14: each claim is there or not, and the file is whole."""
    path = str(tmp_path / "state.db")
    State(path, NOW).close()
    for turn in range(0, kills, 4):  # four at a time, in one another's way
        writers = [child.start(WRITES, path, f"t{turn + index}") for index in range(4)]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(0.003 * (turn % 20))
        for index, writer in enumerate(writers):
            writer.send_signal(signal.SIGKILL)
            said = [int(line) for line in writer.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
            check = sqlite3.connect(path)
            claimed = check.execute("SELECT count(*) FROM claims WHERE task=?", (f"t{turn + index}",)).fetchone()[0]
            check.close()
            assert len(said) <= claimed <= len(said) + 1
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    check.close()
    state = State(path, NOW)
    assert state.damage is None
    state.close()


def test_the_state_decides_where_the_history_says_something_else(own: Rig, tmp_path: Path) -> None:
    """A16: a record that was edited makes nothing run again, and none that is missing."""
    own.enable(shell_task("once", f"echo ran >> {tmp_path}/ran", trigger={"type": "once", "at": soon(0.3)}))
    own.start()
    wait_until(lambda: [one for one in own.task_records("once") if one["status"] == "success"])
    own.stop()
    for path in (own.paths.global_history, paths.history_file(str(own.project))):
        Path(path).write_bytes(b"")
    own.start()
    time.sleep(2.2)
    assert (tmp_path / "ran").read_text() == "ran\n" and own.records() == []
    own.stop()
    said = Command(own.project, own.env)("doctor", code=None).out
    assert "history" in said


def test_a_runner_that_may_write_nothing_goes_on_when_it_may_again(own: Rig) -> None:
    """A4, A5: neither SIGXFSZ nor a failed write ends it, nothing is started meanwhile, and who asks is told."""
    own.enable(shell_task("job", "true"))
    runner = own.start()
    assert own.run_to_end("job")["status"] == "success"
    before = resource.prlimit(runner, resource.RLIMIT_FSIZE)
    resource.prlimit(runner, resource.RLIMIT_FSIZE, (1, before[1]))
    with pytest.raises(SchedulerError, match="cannot be written"):
        own.run("job")
    wait_until(lambda: own.ask("status")["pid"] == runner)
    resource.prlimit(runner, resource.RLIMIT_FSIZE, before)
    assert own.run_to_end("job")["status"] == "success"
    assert [one["status"] for one in own.records()] == ["success", "success"] and "Traceback" not in own.log()


def test_old_claims_are_forgotten_by_their_number_alone(tmp_path: Path) -> None:
    """So the state does not grow for ever, and no clock can take a claim away."""
    state = State(str(tmp_path / "state.db"), NOW)
    for task, count in (("a", 12), ("b", 3)):
        for number in range(count):
            record = {"id": f"{task}{number}", "project": "/p", "taskId": task, "attempt": 1}
            assert state.claim(record, NOW + timedelta(minutes=number), NOW)
    assert state.claims.trim(5) == 7 and state.claims.trim(5) == 0
    assert sorted(state.claims.since("/p", NOW)) == ["a10", "a11", "a7", "a8", "a9", "b0", "b1", "b2"]
    state.close()


MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 21 0:31 / /home rw - {kind} server:/export/home rw
37 36 0:32 / /home/me/fast rw - ext4 /dev/sdb1 rw
"""


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_state_on_a_network_file_system_is_told_and_has_no_shared_memory(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A17."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS.format(kind=kind).replace("/home", str(tmp_path)))
    monkeypatch.setattr(database, "MOUNTS", str(table))
    own = Rig(tmp_path)
    runner = Runner(own.paths, own.env)
    assert runner.state._db.read("PRAGMA journal_mode").fetchone()[0] == "delete"
    runner.state.close()
    (said,) = [message for message in caplog.messages if "network" in message]
    assert f"({kind})" in said and "SCHEDULER_HOME" in said and own.paths.state in said
    state = State(str(tmp_path / "me" / "fast" / "state.db"), NOW)
    assert state._db.read("PRAGMA journal_mode").fetchone()[0] == "wal"
    state.close()


def test_without_locks_nothing_runs(own: Rig) -> None:
    """A17: ENOLCK is told, and nobody goes on unlocked."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "-o", os.devnull, "true"], check=False).returncode:
        pytest.skip("strace is not installed, or ptrace is not allowed here")
    argv = [strace, "-qq", "-o", os.devnull, "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"]
    done = subprocess.run(
        [*argv, sys.executable, "-I", str(PACKAGE), "runner"], env=own.env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot be locked (No locks available)" in done.stderr and "SCHEDULER_HOME" in done.stderr
    assert not os.path.exists(own.paths.runner_sock)
    log = Path(own.paths.logs, "execution-history.jsonl")
    code = """
from scheduler.disk import files
try:
    files.append(args[0], b"x\\n")
except OSError as error:
    print(error.strerror)
"""
    prologue = f"import os, sys\nsys.path.insert(0, {str(PACKAGE.parent)!r})\nargs = sys.argv[1:]\n"
    done = subprocess.run(
        [*argv, sys.executable, "-I", "-S", "-c", prologue + code, str(log)], capture_output=True, text=True
    )
    assert done.stdout == "No locks available\n" and not log.exists()


@pytest.mark.parametrize("many", [200, pytest.param(1000, marks=pytest.mark.full)])
def test_a_runner_of_many_looks_keeps_its_descriptors(own: Rig, many: int) -> None:
    """A18: also where each look reads the config anew."""
    own.enable(shell_task("job", "true"))
    runner = own.start()
    own.run_to_end("job")

    def opened() -> int:
        return len(os.listdir(f"/proc/{runner}/fd"))

    def looks(count: int) -> None:
        for _ in range(count):
            own.ask("reload")
        own.run_to_end("job")

    looks(50)
    wait_until(lambda: opened() > 0)
    before = opened()
    looks(many)
    # A supervisor that waits has a few; a leak would have one for each look.
    wait_until(lambda: opened() <= before + 10, 20, f"{before}, then {opened()}")
    assert files.rotated(own.paths.runner_log) == []
