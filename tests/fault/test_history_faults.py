"""What histories and logs survive: kills, tears, full and broken disks, missing locks and descriptors (A, J).

What is not here: whole-file writes and plain appends (test_files.py), rotation, kills of appenders (test_segments.py),
retention (test_retention.py), the index (test_index.py), `state.db` (test_state.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.query import Query
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.runner.space import Space
from scheduler.store import history, search, segments
from tests import child
from tests.command import PACKAGE, Command, environment

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)
RUN = "0b6c1c9e-6d0f-4c3e-9a54-2f7f5d1f8a11"


def record(run: str = RUN, project: str = "/p", **changes: Any) -> Record:
    begun = Record(
        id=run, task_id="a", task_name="A", project=project, started_at=NOW, status=Status.RUNNING,
        triggered_by="schedule", runner=RunnerMark(host="h", pid=1, version="0"),
    )  # fmt: skip
    return begun.evolve(**changes)


def line(run: str, pad: int = 0) -> bytes:
    return history.to_line(record(run, output="x" * pad or None).to_json())


@pytest.fixture
def where(tmp_path: Path) -> Paths:
    return Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})


@pytest.fixture
def strace() -> str:
    """The program that makes system calls fail; skips where this process may not trace another."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run([found, "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"ptrace is not allowed here: {tried.stderr.strip()[:200]}")
    return found


# The lines that are told on standard output are those of which the append said that they are kept. Without
# third-party packages, so that few system calls but those of the append are made.
APPENDS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from scheduler.disk import files
from scheduler.store import segments
path = sys.argv[2]
for number in range(4):
    run = f"{sys.argv[3]}.{number}"
    line = (b'{"id":"%s","taskId":"a","project":"/p","startedAt":"2026-12-01T09:00:00.000+00:00","status":"success",'
            b'"output":"%s"}\\n' % (run.encode(), b"x" * 700))
    try:
        files.append(path, line, durable=True, limit=2000, part=segments.next_name)
    except OSError as error:
        print("failed", error.errno, flush=True)
    else:
        print(run, flush=True)
"""


def inject(strace: str, calls: str, what: str, code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run `code` with an injection into some of its system calls."""
    argv = [strace, "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"]
    python = [sys.executable, "-I", "-S", "-B", "-c", code, str(child.REPOSITORY), *map(str, words)]
    return subprocess.run([*argv, *python], capture_output=True, text=True, check=False, timeout=60)


def kept(path: Path) -> list[str]:
    return [one["id"] for one in history.read(str(path))]


@pytest.mark.parametrize("calls", ["write", "rename,ftruncate,fsync", "flock,pread64"])
def test_killed_at_the_nth_call(strace: str, tmp_path: Path, calls: str) -> None:
    """K(n), J2: what was told as kept is kept, and the next append works."""
    path = tmp_path / "execution-history.jsonl"
    told: set[str] = set()
    for number in range(1, 40):
        done = inject(strace, calls, f"signal=KILL:when={number}", APPENDS, path, number)
        told.update(word for word in done.stdout.split() if "." in word)
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
    assert done.returncode == 0 and number > 2
    found = kept(path)
    assert told <= set(found) and len(found) == len(set(found))
    assert set(found) - told <= {f"{turn}.{last}" for turn in range(1, number) for last in range(4)}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("write", "ENOSPC"), ("write", "EDQUOT"), ("fsync", "EIO"), ("rename", "EIO"), ("rename", "ENOSPC"),
        ("flock", "ENOLCK"), ("openat", "EMFILE"), ("openat", "ENFILE"), ("pread64", "EIO"), ("ftruncate", "EIO"),
    ],
)  # fmt: skip
def test_failed_at_the_nth_call(strace: str, tmp_path: Path, call: str, error: str) -> None:
    """E(n), A4, A6, A17, A18: a failure is told, loses nothing that was kept, and is over with its cause."""
    path = tmp_path / "execution-history.jsonl"
    place = ["-P", str(path)] if call == "openat" else []
    for number in range(1, 20):
        argv = [strace, "-f", "-qq", "-o", os.devnull, *place, "-e", f"trace={call}", "-e"]
        python = [sys.executable, "-I", "-S", "-B", "-c", APPENDS, str(child.REPOSITORY), str(path), str(number)]
        done = subprocess.run(
            [*argv, f"inject={call}:error={error}:when={number}", *python], capture_output=True, text=True, check=False
        )
        words = done.stdout.split("\n")
        told = [word for word in words if word.startswith(f"{number}.")]
        found = [run for run in kept(path) if run.startswith(f"{number}.")]
        assert set(told) <= set(found) and len(found) == len(set(found)), (done, found)
        if "failed" not in done.stdout and done.returncode == 0:
            break
    else:
        raise AssertionError(f"{call} still fails")
    assert found == [f"{number}.{last}" for last in range(4)] or call == "write"


APPENDS_TO_BOTH = """
import sys
sys.path.insert(0, sys.argv[1])
from datetime import datetime, timezone
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.store import history
now = datetime(2026, 12, 1, tzinfo=timezone.utc)
record = Record(id="a", task_id="a", task_name="A", project=sys.argv[2], started_at=now, completed_at=now,
                status=Status.SUCCESS, triggered_by="schedule", runner=RunnerMark(host="h", pid=1, version="0"))
try:
    history.append(Paths({"HOME": "/x", "SCHEDULER_HOME": sys.argv[3]}), record)
except files.NotDurable as error:
    print("not durable", error.strerror)
"""


def test_a_disk_that_does_not_confirm_is_told_once_and_marked(strace: str, tmp_path: Path, where: Paths) -> None:
    """A6: the record is there, says that it is not certain, and nothing pretends that a second try helped."""
    project = tmp_path / "project"
    (project / ".omc" / "scheduler" / "logs").mkdir(parents=True)
    (project / ".omc" / "scheduler" / "logs" / ".gitignore").write_text("*\n")
    own = paths.history_file(str(project))
    argv = [strace, "-f", "-qq", "-o", os.devnull, "-P", own, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]
    python = [sys.executable, "-I", "-c", APPENDS_TO_BOTH, str(child.REPOSITORY), str(project), where.state]
    done = subprocess.run([*argv, *python], capture_output=True, text=True, check=False)
    assert done.stdout == "not durable Input/output error\n", done
    for path in (own, where.global_history):
        (state,) = history.fold(history.read(path))
        assert state["status"] == "success" and "did not confirm" in state["notes"][0]
        assert len(list(history.read(path))) == 2


def test_an_append_is_one_write_and_a_final_record_waits_for_the_disk(strace: str, tmp_path: Path) -> None:
    """One write for each line, in each history; a sync for the end of a run, and one for a file's new name."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from datetime import datetime, timezone
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.disk.paths import Paths
from scheduler.store import history
now = datetime(2026, 12, 1, tzinfo=timezone.utc)
begun = Record(id="a", task_id="a", task_name="A", project=sys.argv[2], started_at=now, status=Status.RUNNING,
               triggered_by="schedule", runner=RunnerMark(host="h", pid=1, version="0"))
for record in (begun, begun.evolve(status=Status.SUCCESS, completed_at=now, output="x" * 30_000)):
    history.append(Paths({"HOME": "/x", "SCHEDULER_HOME": sys.argv[3]}), record)
"""
    project, calls = tmp_path / "project", tmp_path / "calls"
    project.mkdir()
    argv = [strace, "-f", "-qq", "-y", "-o", str(calls), "-e", "trace=write,fsync,fdatasync,flock"]
    python = [sys.executable, "-I", "-B", "-c", code, str(child.REPOSITORY), str(project), str(tmp_path / "state")]
    subprocess.run([*argv, *python], check=True)
    made = calls.read_text().splitlines()
    histories = [text for text in made if "execution-history.jsonl>" in text]
    assert [text.split()[1].split("(")[0] for text in histories] == [
        "write",
        "write",
        "write",
        "fsync",
        "write",
        "fsync",
    ]
    assert sum("flock(" in text and "execution-history.jsonl.lock>" in text for text in made) == 4


COMPRESSES = """
import sys
sys.path.insert(0, sys.argv[1])
from scheduler.store import segments
segments.compress(sys.argv[2])
"""


def test_killed_while_parts_are_compressed(strace: str, tmp_path: Path) -> None:
    path = tmp_path / "execution-history.jsonl"
    for number in range(6):
        history.append_lines(str(path), line(f"{number}", 5000))
        files.rotate(path, segments.next_name)
    for number in range(1, 40):
        done = inject(strace, "write,fsync,rename,unlink,utimensat", f"signal=KILL:when={number}", COMPRESSES, path)
        assert kept(path) == [str(run) for run in range(6)]
        if done.returncode == 0:
            break
    assert number > 2 and sum(part.path.endswith(".gz") for part in segments.listed(str(path))) == 5
    assert not [
        name for name in os.listdir(tmp_path) if name.endswith(".jsonl") and name + ".gz" in os.listdir(tmp_path)
    ]


@pytest.mark.parametrize(
    ("call", "error"), [("write", "ENOSPC"), ("fsync", "EIO"), ("rename", "ENOSPC"), ("unlink", "EPERM")]
)
def test_compressing_failed_at_the_nth_call(strace: str, tmp_path: Path, call: str, error: str) -> None:
    """E(n): every record is there, once, whatever fails, and the next try does what is left."""
    path = tmp_path / "execution-history.jsonl"
    for number in range(5):
        history.append_lines(str(path), line(f"{number}", 5000))
        files.rotate(path, segments.next_name)
    for number in range(1, 40):
        done = inject(strace, call, f"error={error}:when={number}", COMPRESSES, path)
        assert kept(path) == [str(run) for run in range(5)], done
        if done.returncode == 0:
            break
    assert done.returncode == 0, done
    assert sum(part.path.endswith(".gz") for part in segments.listed(str(path))) == 4
    assert not [name for name in os.listdir(tmp_path) if ".tmp-" in name]


def test_a_tail_lost_at_any_byte(tmp_path: Path, where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A3: all that was before it is read, in both ways, and the next record begins on a line of its own."""
    monkeypatch.setattr(search, "SHORT", -1)
    whole = b"".join(line(str(number)) for number in range(4))
    size = len(line("0"))
    path = tmp_path / "execution-history.jsonl"
    for cut in range(0, 2 * size, 7):
        path.write_bytes(whole[: len(whole) - cut])
        count = 4 - (cut + size - 2) // size
        assert len(kept(path)) == count
        assert sum(1 for _ in search.newest(where, str(path), Query())) == count
        history.append_lines(str(path), line("new"))
        assert kept(path)[-1] == "new" and len(kept(path)) == count + 1
        assert next(search.newest(where, str(path), Query(limit=1)))["id"] == "new"
    path.write_bytes(whole + b"\0" * 4096)
    bad = history.Unreadable()
    assert len(list(history.read(str(path), bad))) == 4 and bad.lines == [(str(path), 5)]
    history.append_lines(str(path), line("new"))
    assert kept(path)[-1] == "new" and search.unreadable(where, str(path)) == 1


CROWD = """
import os, random
from scheduler.store import history
path = args[0]
for name in range(32):
    if os.fork() == 0:
        pause = random.Random(name)
        for number in range(15):
            size = pause.choice([200, 900, 4099, 30_011, 64_000])
            record = {"id": f"{name}.{number}", "taskId": "a", "project": "/p", "status": "success",
                      "startedAt": "2026-12-01T09:00:00.000+00:00"}
            history.append_lines(path, history.to_line({**record, "output": "x" * (size - 150)}))
        os._exit(0)
codes = [os.wait()[1] for _ in range(32)]
print(codes.count(0))
"""


def test_thirty_two_appenders_of_long_and_short_lines(tmp_path: Path) -> None:
    """A1: every line once, none torn, also for who reads meanwhile."""
    path = tmp_path / "execution-history.jsonl"
    crowd = child.start(CROWD, path)
    seen = 0
    while crowd.poll() is None:
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1].splitlines()
        assert all(history.parse(text) for text in whole[-50:]) and len(whole) >= seen
        seen = len(whole)
        time.sleep(0.02)
    assert child.output(crowd) == "32\n"
    assert sorted(kept(path)) == sorted(f"{name}.{number}" for name in range(32) for number in range(15))


def test_a_place_that_cannot_be_written_is_told_with_its_name(tmp_path: Path, where: Paths) -> None:
    """A7: nothing appears elsewhere, no link is followed."""
    project = tmp_path / "project"
    logs = Path(paths.logs_folder(str(project)))
    logs.parent.mkdir(parents=True)
    logs.write_text("a file")
    with pytest.raises(OSError) as told:
        history.append(where, record(project=str(project)))
    assert str(logs) in str(told.value.filename)
    logs.unlink()
    logs.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine\n")
    (logs / "execution-history.jsonl").symlink_to(victim)
    with pytest.raises(OSError):
        history.append(where, record(project=str(project)))
    assert victim.read_bytes() == b"mine\n"


def test_descriptors_do_not_leak(tmp_path: Path, where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A18: after a thousand appends and questions there are as many as before."""
    monkeypatch.setattr(search, "SHORT", -1)
    monkeypatch.setattr(segments, "LIMIT", 5000)
    path = str(tmp_path / "execution-history.jsonl")

    def work(count: int) -> int:
        for number in range(count):
            history.append_lines(path, line(f"{number}"))
            if number % 20 == 0:
                assert len(list(search.newest(where, path, Query(limit=3)))) >= 1
                segments.compress(path)
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    assert work(21) == work(400)


STARVED = """
import resource
from scheduler.store import history
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
spare = []
try:
    while True:
        spare.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
line = history.to_line({"id": "a", "taskId": "a", "project": "/p", "startedAt": "2026-12-01T09:00:00.000+00:00",
                        "status": "success"})
for free in range(4):
    try:
        history.append_lines(args[0], line)
        print("kept")
    except OSError as error:
        print(error.strerror)
    os.close(spare.pop())
"""


def test_without_a_descriptor_left_the_append_is_told_to_have_failed(tmp_path: Path) -> None:
    path = tmp_path / "execution-history.jsonl"
    said = child.output(child.start(STARVED, path)).splitlines()
    assert said[0] == "Too many open files" and said[-1] == "kept"
    assert len(kept(path)) == said.count("kept")


FULL = """
import signal
from datetime import datetime, timezone
import resource
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.disk.paths import Paths
from scheduler.store import history
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
where = Paths({"HOME": args[0], "SCHEDULER_HOME": args[0] + "/state"})
now = datetime(2026, 12, 1, tzinfo=timezone.utc)
def write(run):
    record = Record(id=run, task_id="a", task_name="A", project=args[0], started_at=now, completed_at=now,
                    status=Status.SUCCESS, triggered_by="schedule", output="x" * 700,
                    runner=RunnerMark(host="h", pid=1, version="0"))
    try:
        history.append(where, record)
        print("kept")
    except OSError as error:
        print(error.strerror)
write("1")
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
write("2")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write("2")
"""


def test_a_full_disk_costs_that_record_until_there_is_room(tmp_path: Path, where: Paths) -> None:
    """A4, A5: told, taken back, and written by the next try; each history reads as if nothing had been."""
    said = child.output(child.start(FULL, tmp_path)).splitlines()
    assert said == ["kept", "No space left on device", "kept"]
    for path in (paths.history_file(str(tmp_path)), where.global_history):
        bad = history.Unreadable()
        assert [one["id"] for one in history.read(path, bad)] == ["1", "2"] and bad.lines == []


def test_nothing_is_started_on_a_disk_that_is_nearly_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A4: below the floor nothing begins, said once; with room again it goes on."""
    folders = (str(tmp_path), str(tmp_path / "not" / "there"))
    assert Space(folders, floor=0).enough()
    space = Space(folders, floor=1 << 60)
    assert not space.enough() and not space.enough()
    space._floor = 0
    assert space.enough() and space.enough()
    assert caplog.messages == [
        f"nothing is started while the disk of {tmp_path} is nearly full",
        "there is room on the disk again",
    ]


def measured(argv: list[str], cwd: Path, env: dict[str, str]) -> tuple[float, int]:
    """Seconds and kilobytes of resident memory that a command takes."""
    begin = time.monotonic()
    started = subprocess.Popen(argv, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    assert started.returncode == 0
    return time.monotonic() - begin, usage.ru_maxrss


def test_a_history_of_a_gigabyte_costs_status_nothing(tmp_path: Path, home: Path, repo: Path) -> None:
    """A9: only its end is read."""
    cli = Command(repo, environment(home, tmp_path / "state"))
    cli("add", "A", "--id", "a", "--every", "1h", "--shell", "true")
    cli("enable", "--yes", "--no-start")
    argv = [sys.executable, "-I", str(PACKAGE), "status"]
    measured(argv, repo, cli.env)
    time_before, memory_before = measured(argv, repo, cli.env)
    own = Path(paths.history_file(str(repo)))
    own.parent.mkdir(parents=True, exist_ok=True)
    ids = [f"{number:08x}-6d0f-4c3e-9a54-2f7f5d1f8a11" for number in range(2000)]
    ended = record(project=str(repo), status=Status.SUCCESS, completed_at=NOW, output="x" * 300)
    lines = [history.to_line(ended.evolve(id=run).to_json()) for run in ids]
    with own.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"".join(lines))
    time_after, memory_after = measured(argv, repo, cli.env)
    assert memory_after - memory_before < 30_000 and time_after - time_before < 2
    assert "success" in cli("status").out  # it did look there


def test_killed_while_the_index_is_built(tmp_path: Path, where: Paths) -> None:
    """Whatever is left of it, the answer is that of the files."""
    path = tmp_path / "execution-history.jsonl"
    path.write_bytes(b"".join(line(f"{number:05}", 100) for number in range(12_000)))
    code = """
from scheduler.core.query import Query
from scheduler.disk.paths import Paths
from scheduler.store import search
print("ready", flush=True)
list(search.newest(Paths({"HOME": "/x", "SCHEDULER_HOME": args[0]}), args[1], Query(limit=1)))
"""
    pause = random.Random(3)
    for _ in range(6):
        asking = child.start(code, where.state, path)
        assert asking.stdout is not None and asking.stdout.readline() == "ready\n"
        time.sleep(pause.uniform(0, 0.25))
        asking.kill()
        asking.communicate()
    history.append_lines(str(path), line("new"))
    found = [one["id"] for one in search.newest(where, str(path), Query(limit=2))]
    assert set(found) <= {"new", *(f"{number:05}" for number in range(12_000))} and found[0] == "new"
    assert search.everything(where, str(path), NOW)["runs"] == 12_001


def test_terminal_escapes_of_a_record_reach_no_terminal(tmp_path: Path, home: Path, repo: Path) -> None:
    """A8."""
    cli = Command(repo, environment(home, tmp_path / "state"))
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\r"
    own = Path(paths.history_file(str(repo)))
    own.parent.mkdir(parents=True)
    own.write_bytes(history.to_line({**record().to_json(), "taskId": evil, "error": evil, "reason": evil}))
    for words in (["history"], ["history", "--csv"], ["history", "--verify"], ["stats", "--by", "task"], ["show", RUN]):
        said = cli(*words).out
        assert not any(char in said for char in "\x1b\x07\u202e\x9b"), words
    assert json.loads(cli("history", "--jsonl").out)["error"] == evil


ROTATES = """
import os
from scheduler.disk import files
path, size = args[0], 20_000
for name in range(16):
    if os.fork() == 0:
        for number in range(60):
            text = b"[2026-12-01T09:00:00.000+00:00] [%08x] line %d " % (name, number)
            files.append(path, text + b"y" * (name * 50) + b"\\n", limit=size)
        os._exit(0)
print([os.wait()[1] for _ in range(16)].count(0))
"""


def test_a_log_is_rotated_under_sixteen_writers(tmp_path: Path) -> None:
    """J1, J3: no line lost or doubled, each part within its size, no part overwritten."""
    path = paths.task_log(str(tmp_path), "a")
    assert child.output(child.start(ROTATES, path, site=False)) == "16\n"
    parts = files.rotated(path)
    assert len(parts) > 15 and all(os.path.getsize(part) <= 20_000 for part in (*parts, path))
    lines = b"".join(Path(part).read_bytes() for part in (*parts, path)).splitlines()
    found = [(int(text.split()[1][1:9], 16), int(text.split()[3])) for text in lines]
    assert sorted(found) == [(name, number) for name in range(16) for number in range(60)]
