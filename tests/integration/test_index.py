from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.query import Query
from scheduler.disk import files
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.store import history, lookup, search, segments
from tests import child

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)
MOMENT = int(NOW.timestamp() * 1000)
QUERIES = (
    Query(),
    Query(limit=3),
    Query(task="a", limit=5),
    Query(statuses=("failure", "timeout"), limit=2),
    Query(reasons=("crashed",)),
    Query(project="/p1", tags=("nightly",)),
    Query(since=MOMENT - 3_600_000, until=MOMENT + 600_000),
    Query(task="nobody"),
)


def line(run: str, minutes: int = 0, status: str = "success", **fields: Any) -> bytes:
    at = (NOW + timedelta(minutes=minutes)).isoformat(timespec="milliseconds")
    return history.to_line(
        {"id": run, "taskId": "a", "project": "/p0", "startedAt": at, "status": status, "duration": minutes, **fields}
    )


@pytest.fixture
def where(tmp_path: Path) -> Paths:
    return Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "execution-history.jsonl"


@pytest.fixture
def index(where: Paths) -> Path:
    return Path(where.in_state("index.db"))


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a history is, the index is asked."""
    monkeypatch.setattr(search, "SHORT", -1)


def answers(where: Paths, path: Path) -> list[Any]:
    """All that can be asked."""
    told: list[Any] = [list(search.newest(where, str(path), query)) for query in QUERIES]
    told += [search.counted(where, str(path), query) for query in QUERIES]
    told.append(search.everything(where, str(path), NOW))
    for prefix in ("0000", "1234", "zzzz"):
        try:
            told.append(search.find(where, str(path), prefix))
        except SchedulerError as error:
            told.append(error.message)
    return told


def from_files(where: Paths, path: Path) -> list[Any]:
    """The same, without an index."""
    old, search.SHORT = search.SHORT, 1 << 60
    try:
        return answers(where, path)
    finally:
        search.SHORT = old


def ids(where: Paths, path: Path, **query: Any) -> list[str]:
    return [run["id"] for run in search.newest(where, str(path), Query(**query))]


def test_a_short_history_needs_no_index(where: Paths, path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SHORT", 2 << 20)
    history.append_lines(str(path), line("a"))
    assert ids(where, path) == ["a"] and not index.exists()


def test_a_record_shows_in_the_next_answer(where: Paths, path: Path, index: Path) -> None:
    for number in range(5):
        history.append_lines(str(path), line(f"{number}", number, "running"))
        assert ids(where, path)[0] == str(number)
        history.append_lines(str(path), line(f"{number}", number, "failure"))
        assert [run["status"] for run in search.newest(where, str(path), Query(limit=1))] == ["failure"]
        assert search.everything(where, str(path), NOW)["statuses"]["failure"] == number + 1
    assert index.stat().st_mode & 0o777 == 0o600


def test_there_is_nothing_where_there_is_no_history(where: Paths, path: Path) -> None:
    assert answers(where, path) == from_files(where, path)


def fill(path: Path, count: int = 40) -> None:
    for number in range(count):
        history.append_lines(str(path), line(f"{number:04}", number, tags=["nightly"] * (number % 2)))


def add(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def rewrite_in_place(path: Path) -> None:
    """Other bytes of the same number in the same file, and the time of its last write as before."""
    info = path.stat()
    data = path.read_bytes().replace(b'"0003"', b'"1234"')
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    now = path.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (info.st_ino, info.st_size, info.st_mtime_ns)


Change = Callable[[Path], object]
CHANGES: dict[str, Change] = {
    "appended": lambda path: history.append_lines(str(path), line("new", 50)),
    "ended": lambda path: history.append_lines(str(path), line("0007", 7, "failure", reason="crashed")),
    "torn": lambda path: add(path, line("torn", 60)[:-20]),
    "whole but for its end": lambda path: add(path, line("whole", 60)[:-1]),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "rewritten": lambda path: path.write_bytes(path.read_bytes().replace(b'"0003"', b'"1234"')),
    "rewritten in place": rewrite_in_place,
    "rewritten, longer": lambda path: path.write_bytes(line("1234", 5) + path.read_bytes()),
    "replaced": lambda path: files.write_atomic(path, line("1234", 5) * 3),
    "removed": lambda path: path.unlink(),
    "rotated": lambda path: files.rotate(path, segments.next_name),
    "rotated and written to": lambda path: (
        files.rotate(path, segments.next_name),
        history.append_lines(str(path), line("new", 50)),
    ),
    "a part added before": lambda path: path.with_name(
        "execution-history-20200101T000000Z--20200102T000000Z.jsonl"
    ).write_bytes(line("1234", -90)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_becomes_of_a_file_is_noticed(where: Paths, path: Path, change: str) -> None:
    fill(path)
    answers(where, path)
    time.sleep(0.06)  # so that the index believes the times of the file
    answers(where, path)
    CHANGES[change](path)
    assert answers(where, path) == from_files(where, path)
    history.append_lines(str(path), line("later", 70))
    assert answers(where, path) == from_files(where, path)
    assert ids(where, path, limit=1) == ["later"]


def many_parts(path: Path, count: int = 6) -> None:
    for number in range(count):
        for index in range(4):
            history.append_lines(str(path), line(f"{number}{index}00", number * 60 + index))
        files.rotate(path, segments.next_name)


def rebuilt(index: Path) -> bool:
    """Whether the runs were taken in anew since the mark was set."""
    with sqlite3.connect(index) as db:
        row = db.execute("SELECT count(*) FROM runs_1 WHERE turns = 4711").fetchone()
        db.execute("UPDATE runs_1 SET turns = 4711 WHERE seq = (SELECT min(seq) FROM runs_1)")
    db.close()
    return bool(row[0] == 0)


def test_parts_that_are_compressed_or_past_their_days_cost_no_new_start(where: Paths, path: Path, index: Path) -> None:
    many_parts(path)
    ids(where, path)
    assert rebuilt(index)
    segments.compress(str(path))
    assert ids(where, path, limit=1) == ["5300"] and not rebuilt(index)
    files.rotate(path, segments.next_name)
    history.append_lines(str(path), line("new", 600))
    assert ids(where, path, limit=1) == ["new"] and not rebuilt(index)
    files.rotate(path, segments.next_name)
    assert ids(where, path, limit=1) == ["new"] and not rebuilt(index)
    os.unlink(segments.listed(str(path))[0].path)
    assert len(ids(where, path)) == 21
    assert ids(where, path) == [run["id"] for run in from_files(where, path)[0]]


def test_a_part_removed_from_the_middle_or_altered_means_a_new_start(where: Paths, path: Path, index: Path) -> None:
    many_parts(path)
    segments.compress(str(path))
    ids(where, path)
    parts = [segment.path for segment in segments.listed(str(path))]
    os.unlink(parts[3])
    assert ids(where, path) == [run["id"] for run in from_files(where, path)[0]] and rebuilt(index)
    Path(parts[0]).write_bytes(Path(parts[1]).read_bytes())
    assert ids(where, path) == [run["id"] for run in from_files(where, path)[0]] and rebuilt(index)


@pytest.mark.parametrize("what", ["deleted", "garbage", "half", "empty", "log only", "folder", "newer"])
def test_the_index_may_be_lost_or_broken_at_any_moment(where: Paths, path: Path, index: Path, what: str) -> None:
    fill(path)
    wanted = from_files(where, path)
    assert answers(where, path) == wanted
    if what == "deleted":
        index.unlink()
    elif what == "garbage":
        index.write_bytes(b"no database " * 1000)
    elif what == "half":
        os.truncate(index, index.stat().st_size // 2 // 4096 * 4096)
    elif what == "empty":
        os.truncate(index, 0)
    elif what == "log only":
        Path(f"{index}-wal").write_bytes(os.urandom(5000))
    elif what == "folder":
        index.unlink()
        index.mkdir()
    else:
        with sqlite3.connect(index) as db:
            db.execute("PRAGMA user_version=99")
        db.close()
    for _ in range(3):
        assert answers(where, path) == wanted
    if what != "folder":
        assert index.stat().st_size > 0


EDGES = [
    2**63, 2**64 - 1, -(2**63) - 1, 2**70, 1e308, -0.0, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "",
    "\0",
]  # fmt: skip
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
ODD = st.sampled_from(EDGES) | st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
FIELDS = ("id", "taskId", "project", "startedAt", "status", "duration", "costUsd", "turns", "reason", "tags")


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4), min_size=1, max_size=6))
def test_odd_values_are_indexed_as_they_are_read(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    """With what no run of ours would write, in a history that is taken in at once and in one that grows."""
    folder = tmp_path_factory.mktemp("odd")
    where = Paths({"HOME": str(folder), "SCHEDULER_HOME": str(folder / "state")})
    known = {
        "id": "a",
        "taskId": "a",
        "project": "/p0",
        "startedAt": "2026-12-01T09:00:00.000+00:00",
        "status": "success",
    }
    lines = [json.dumps({**known, **one}).encode() + b"\n" for one in records]
    grown, whole = (folder / name / "execution-history.jsonl" for name in ("1", "2"))
    for path in (grown, whole):
        path.parent.mkdir()
    for one in lines:
        add(grown, one)
        assert answers(where, grown) == from_files(where, grown)
    add(whole, b"".join(lines))
    assert answers(where, whole) == from_files(where, whole)


def test_a_row_that_lies_is_found_out(where: Paths, path: Path, index: Path) -> None:
    fill(path)
    ids(where, path)
    with sqlite3.connect(index) as db:
        db.execute("UPDATE runs_1 SET place = place + 1 WHERE id = '0003'")
    db.close()
    assert ids(where, path) == [f"{number:04}" for number in reversed(range(40))]
    assert search.find(where, str(path), "0003")["id"] == "0003"
    assert ids(where, path, limit=3) == ["0039", "0038", "0037"]
    with sqlite3.connect(index) as db:
        db.execute("UPDATE kinds SET status = 'failure'")
    db.close()
    assert ids(where, path, statuses=("failure",)) == []


def test_an_index_that_somebody_holds_does_not_hold_up_the_answer(
    where: Paths, path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.index.PATIENCE", 0.05)
    fill(path)
    ids(where, path)
    holder = sqlite3.connect(index, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    history.append_lines(str(path), line("new", 50))
    assert ids(where, path, limit=1) == ["new"]
    holder.execute("COMMIT")
    holder.close()
    assert ids(where, path, limit=1) == ["new"]


def test_the_lines_that_cannot_be_read_are_not_waited_for(where: Paths, path: Path, index: Path) -> None:
    fill(path)
    ids(where, path)
    add(path, b"torn")
    holder = sqlite3.connect(index, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    begin = time.monotonic()
    assert search.unreadable(where, str(path)) == 1
    assert time.monotonic() - begin < 2
    holder.close()


def test_a_state_folder_that_cannot_be_written_is_no_obstacle(where: Paths, path: Path) -> None:
    Path(where.state).parent.mkdir(exist_ok=True)
    Path(where.state).write_text("a file")
    fill(path, 3)
    assert ids(where, path) == ["0002", "0001", "0000"]


def test_histories_do_not_mix(where: Paths, tmp_path: Path) -> None:
    one, two = tmp_path / "1" / "execution-history.jsonl", tmp_path / "2" / "execution-history.jsonl"
    for file in (one, two):
        history.append_lines(str(file), line(file.parent.name, project=file.parent.name))
    for file in (one, two, one):
        assert ids(where, file) == [file.parent.name]
        assert ids(where, file, project="1") == ["1"] * (file is one)


def test_a_history_that_is_gone_is_forgotten(where: Paths, tmp_path: Path, index: Path) -> None:
    one, two = tmp_path / "1" / "execution-history.jsonl", tmp_path / "2" / "execution-history.jsonl"
    search.forget_gone(where)
    for file in (one, two):
        history.append_lines(str(file), line(file.parent.name))
        ids(where, file)
    one.unlink()
    search.forget_gone(where)
    with sqlite3.connect(index) as db:
        assert db.execute("SELECT path FROM histories").fetchall() == [(str(two),)]
        assert db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'runs_%' AND type='table'").fetchall() == [
            ("runs_2",)
        ]
    db.close()
    assert ids(where, two) == ["2"] and ids(where, one) == []


def test_totals_are_kept_and_stay_right(where: Paths, path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "TAIL", 5)
    steps = [line(f"{n:04}", n * 7 % 50, ("success", "failure", "running", "skipped")[n % 4]) for n in range(60)]
    steps += [line("0002", 14, "timeout"), line("0001", 7, "success"), line("0100", 21), line("0101", 900)]
    for count, step in enumerate(steps):
        history.append_lines(str(path), step)
        if count % 3 == 0 or count > 56:
            assert search.everything(where, str(path), NOW) == from_files(where, path)[2 * len(QUERIES)]
    with sqlite3.connect(index) as db:
        assert db.execute("SELECT upto FROM histories").fetchone()[0] > 0
    db.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"), st.integers(0, 12), st.integers(-90, 90),
            st.sampled_from(["success", "failure", "timeout", "skipped", "running", "running"]), st.booleans(),
        ),
        st.tuples(st.sampled_from(["ask", "ask", "rotate", "compress", "expire", "torn", "cut", "rewrite", "forget"])),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=30)
@given(STEPS)
def test_the_index_says_what_the_files_say(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("steps")
    where = Paths({"HOME": str(folder), "SCHEDULER_HOME": str(folder / "state")})
    path = folder / "logs" / "execution-history.jsonl"
    path.parent.mkdir()
    tail, lookup.TAIL = lookup.TAIL, 4
    try:
        for step, *given_ in (*steps, ("ask",)):
            if step == "append":
                run, minutes, status, tagged = given_
                fields: dict[str, Any] = {"reason": "crashed"} if status == "failure" else {}
                fields |= {"tags": ["nightly", "x"], "project": "/p1", "taskId": "b"} if tagged else {}
                history.append_lines(str(path), line(f"{run:04}", minutes, status, **fields))
            elif step == "ask":
                assert answers(where, path) == from_files(where, path)
            elif step == "rotate":
                files.rotate(path, segments.next_name)
            elif step == "compress":
                segments.compress(str(path))
            elif step == "expire":
                for segment in segments.listed(str(path))[:-3]:
                    os.unlink(segment.path)
            elif step == "torn":
                add(path, line("torn")[:-9])
            elif step == "cut" and path.exists():
                os.truncate(path, path.stat().st_size * 2 // 3)
            elif step == "rewrite" and path.exists():
                path.write_bytes(path.read_bytes().replace(b'"0001"', b'"0002"'))
            elif step == "forget":
                Path(where.in_state("index.db")).unlink(missing_ok=True)
    finally:
        lookup.TAIL = tail


ASKER = """
from scheduler.core.query import Query
from scheduler.disk.paths import Paths
from scheduler.store import history, search
search.SHORT = -1
where = Paths({"HOME": args[0], "SCHEDULER_HOME": args[0] + "/state"})
path = args[1]

def run(number):
    return history.to_line({"id": f"{number:05}", "taskId": "a", "project": "/p", "status": "success",
                            "startedAt": "2026-12-01T09:00:00.000+00:00"})

def ask():
    seen = 0
    while seen < 300:
        found = [run["id"] for run in search.newest(where, path, Query())]
        assert found == sorted(set(found), reverse=True) and len(found) >= seen, (len(found), seen)
        seen = len(found)

askers = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        try:
            ask()
        except BaseException as error:
            print(type(error), error, flush=True)
            os._exit(1)
        os._exit(0)
    askers.append(pid)
for number in range(300):
    history.append_lines(path, run(number))
print([os.waitpid(pid, 0)[1] for pid in askers])
"""


def test_many_may_ask_while_it_is_written(tmp_path: Path, path: Path) -> None:
    assert child.output(child.start(ASKER, tmp_path, path)) == "[0, 0, 0, 0]\n"


def test_a_rewrite_within_the_same_tick_of_the_clock_is_noticed(where: Paths, path: Path) -> None:
    for turn in range(10):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(line(f"000{turn % 2}"))
        assert ids(where, path) == [f"000{turn % 2}"]


def test_a_long_history_is_answered_fast_once_it_is_known(where: Paths, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"".join(line(f"{number:08}", number, output="x" * 500) for number in range(20_000)))
    ids(where, path, limit=1)
    begin = time.monotonic()
    assert ids(where, path, limit=2) == ["00019999", "00019998"]
    assert time.monotonic() - begin < 1
