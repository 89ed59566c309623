"""The one door to other processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scheduler.errors import CommandFailed
from scheduler.execution import process
from tests import trees

PATIENCE = 10.0
ENV = {"PATH": os.environ["PATH"]}


def run(*argv: str, timeout: float = PATIENCE, **options: object) -> process.Completed:
    return process.run(argv, **{"env": ENV, "timeout": timeout, **options})  # type: ignore[arg-type]


def test_a_command_gives_its_output_and_code() -> None:
    done = run("sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert done == process.Completed(("sh", "-c", "echo out; echo err >&2; exit 3"), 3, b"out\n", b"err\n")


def test_a_command_gets_its_input_else_nothing() -> None:
    assert run("cat", input=b"words \0\xff").stdout == b"words \0\xff"
    assert run("cat").stdout == b""


def test_input_that_nobody_reads_is_dropped() -> None:
    assert run("true", input=b"x" * 10_000_000).returncode == 0


def test_a_command_has_the_given_place_environment_and_umask(tmp_path: Path) -> None:
    done = run("sh", "-c", "pwd; umask; echo $WORD; echo $HOME", cwd=tmp_path, env={**ENV, "WORD": "ö"}, umask=0o027)
    assert done.stdout.decode() == f"{tmp_path}\n0027\nö\n\n"


def test_a_command_is_in_a_session_of_its_own() -> None:
    sid, pid = run("sh", "-c", "ps -o sid= -p $$; echo $$").stdout.split()
    assert sid == pid


def test_output_of_any_size_is_drained() -> None:
    done = run("sh", "-c", "head -c 20000000 /dev/zero >&2 & head -c 20000000 /dev/zero; wait")
    assert (len(done.stdout), len(done.stderr)) == (20_000_000, 20_000_000)


def test_what_holds_the_output_open_does_not_delay_the_end() -> None:
    began = time.monotonic()
    assert run("sh", "-c", "sleep 60 & echo done").stdout == b"done\n"
    assert time.monotonic() - began < PATIENCE


def test_what_holds_the_output_open_and_got_away_does_not_either() -> None:
    began = time.monotonic()
    done = run("sh", "-c", "setsid sh -c '(sleep 15 & echo $! >&2)' & wait; echo done")
    with contextlib.suppress(ProcessLookupError):  # A subreaper has swept it.
        os.kill(int(done.stderr), signal.SIGKILL)
    assert done.stdout == b"done\n"
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize(
    ("argv", "options", "code", "words"),
    [
        (["sh", "-c", "echo first >&2; echo ' last ' >&2; exit 3"], {}, 3, "exit 3'` ended with code 3: last"),
        (["false"], {}, 1, "`false` ended with code 1"),
        (["sh", "-c", "kill -9 $$"], {}, -9, "was ended by SIGKILL, maybe for want of memory"),
        (["sh", "-c", "kill -40 $$"], {}, -40, "was ended by signal 40"),
        (["no-such-program"], {}, 127, "`no-such-program` was not found"),
        (["/etc/passwd"], {}, 126, "`/etc/passwd` cannot be executed: Permission denied"),
        (["true"], {"cwd": "/no/such/folder"}, 127, "there is no folder /no/such/folder"),
        (["true", "x" * 200_000], {}, 126, "`true` cannot start: its arguments and environment are too long"),
        (["true", "a\0b"], {}, 126, "cannot start: Invalid argument"),
    ],
)
def test_a_failure_tells_command_code_and_last_words(
    argv: list[str], options: dict[str, object], code: int, words: str
) -> None:
    with pytest.raises(CommandFailed) as failure:
        run(*argv, **options)
    assert words in failure.value.message
    assert failure.value.returncode == code
    assert "\n" not in failure.value.message and len(failure.value.message) < 400


def test_a_script_without_its_interpreter_is_told_apart_from_a_missing_one(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandFailed, match="interpreter that its first line names is missing"):
        run(str(script))


def test_a_command_that_takes_too_long_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    """E5."""
    script = f"trap '' TERM; sleep 60 & echo a $! > {tmp_path}/m; (sleep 60 & echo b $! >> {tmp_path}/m); wait; wait"
    with pytest.raises(CommandFailed, match=r"took longer than 0\.5 s and was stopped") as failure:
        run("sh", "-c", script, timeout=0.5)
    assert failure.value.returncode == 124
    assert not trees.alive(trees.wait_for(tmp_path / "m", 2))


def test_a_runner_leaves_nobody_of_a_command_that_takes_too_long(tmp_path: Path) -> None:
    done = subprocess.Popen(trees.user("command", tmp_path / "members"), env=trees.environment(), stdout=-1)
    members = trees.wait_for(tmp_path / "members", 6)
    out, _ = done.communicate(timeout=PATIENCE)
    assert out == b"124\n"
    assert not trees.alive(members)


def test_an_exception_while_a_command_runs_stops_it(tmp_path: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            run("sh", "-c", f"echo sh $$ > {tmp_path}/m; exec sleep 60")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not trees.alive(trees.wait_for(tmp_path / "m", 1))


def test_orphans_are_swept_and_own_children_are_not(tmp_path: Path) -> None:
    words = trees.user("sweeper", tmp_path / "members")
    done = subprocess.run(words, env=trees.environment(), stdout=subprocess.PIPE, timeout=60, check=True)
    assert done.stdout == b"ok\n"
    assert not trees.alive(trees.wait_for(tmp_path / "members", 1))


def test_what_is_detached_survives_its_caller_and_holds_nothing_of_it(tmp_path: Path) -> None:
    """B10."""
    script = f"""
import os, sys
from pathlib import Path
from scheduler.execution.process import spawn_detached
os.set_inheritable(os.open("/dev/zero", os.O_RDONLY), True)
env = {{"PATH": os.environ["PATH"], "ONE": "1"}}
print(spawn_detached(["sleep", "60"], env=env, cwd={str(tmp_path)!r}), flush=True)
sys.stdin.read()
"""
    words = [sys.executable, "-c", script]
    caller = subprocess.Popen(words, env=trees.environment(), stdin=-1, stdout=-1, stderr=-1, start_new_session=True)
    assert caller.stdout and caller.stderr and caller.stdin
    pid = int(caller.stdout.readline())
    try:
        os.killpg(caller.pid, signal.SIGKILL)
        caller.wait()
        assert caller.stdout.read() == b""  # B11: the end comes with the caller's, not with the detached one's.
        started = process.start_time(pid)
        assert started and process.is_alive(pid, started)
        folder = Path(f"/proc/{pid}")
        assert {fd.name: os.readlink(fd) for fd in (folder / "fd").iterdir()} == dict.fromkeys("012", "/dev/null")
        assert os.readlink(folder / "cwd") == str(tmp_path)
        assert b"ONE=1" in (folder / "environ").read_bytes().split(b"\0")
        assert os.getsid(pid) not in (os.getsid(0), caller.pid, pid)  # A session without a leader gets no terminal.
    finally:
        os.kill(pid, signal.SIGKILL)
        for stream in (caller.stdin, caller.stdout, caller.stderr):
            stream.close()


def test_what_is_detached_may_write_to_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    process.spawn_detached(["sh", "-c", "echo out; echo err >&2"], env=ENV, log=log)
    trees.until(lambda: log.read_text() == "before\nout\nerr\n", "the output")


@pytest.mark.parametrize("argv", [["no-such-program"], ["/etc/passwd"]])
def test_what_cannot_be_detached_is_told(argv: list[str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CommandFailed, match=argv[0]):
        process.spawn_detached(argv, env=ENV)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_is_known_by_pid_start_and_boot() -> None:
    me = os.getpid()
    started = process.start_time(me)
    assert started
    assert process.is_alive(me, started) and process.is_alive(me, started, process.boot_id())
    assert not process.is_alive(me, started + 0.01)
    assert not process.is_alive(me, started, "another boot")


def test_one_that_has_ended_is_not_alive_before_it_is_reaped_either() -> None:
    child = subprocess.Popen(["sleep", "60"])
    started = process.start_time(child.pid)
    assert started and child.pid in process.descendants(os.getpid())
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive(child.pid, started)
    assert child.pid not in process.descendants(os.getpid())
    child.wait()
    assert process.start_time(child.pid) is None


def test_without_proc_the_table_comes_from_ps(monkeypatch: pytest.MonkeyPatch) -> None:
    from scheduler.execution import tree

    child = process.start(["sh", "-c", "sleep 60 & wait"])
    try:
        trees.until(lambda: len(process.descendants(child.pid)) == 1, "its child")
        for way in (tree.table, tree._table_without_proc):
            monkeypatch.setattr(tree, "table", way)
            family = {row.pid: row for row in tree.family(os.getpid())}
            assert family[child.pid].parent == os.getpid()
            assert "ps" not in {Path(f"/proc/{pid}/comm").read_text().strip() for pid in family}
            (below,) = tree.family(child.pid)
            assert (below.parent, below.group, below.session, below.alive) == (child.pid,) * 3 + (True,)
    finally:
        tree.kill_all(lambda: tree.family(child.pid, session=child.pid))
        child.wait()
        process.forget(child)
