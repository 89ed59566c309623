from __future__ import annotations

import gzip
import io
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.store import history, reading, segments
from tests import child

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)


def line(run: str, moment: datetime = NOW, *, pad: int = 0, **fields: Any) -> bytes:
    at = moment.isoformat(timespec="milliseconds")
    record = {"id": run, "taskId": "a", "project": "/p", "startedAt": at, "status": "success", **fields}
    return history.to_line({**record, "output": "x" * pad})


def ids(path: Path) -> list[str]:
    return [record["id"] for record in history.read(str(path))]


def test_a_full_history_is_renamed_by_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LIMIT", 1000)
    path = tmp_path / "execution-history.jsonl"
    for number in range(20):
        history.append_lines(str(path), line(str(number), NOW + timedelta(hours=number)))
    names = [segment.name for segment in segments.listed(str(path))]
    assert names[0] == "execution-history-20261201T090000Z--20261201T160000Z.jsonl"
    assert len(names) == 2 and ids(path) == [str(number) for number in range(20)]
    assert all((tmp_path / name).stat().st_size <= 1000 for name in names)


def test_names_follow_one_another_though_the_clock_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """J3."""
    monkeypatch.setattr(segments, "LIMIT", 400)
    path = tmp_path / "execution-history.jsonl"
    for number in range(40):
        moment = NOW - timedelta(days=number * 7 % 50, seconds=number)
        history.append_lines(str(path), line(str(number), moment))
    assert len(segments.listed(str(path))) > 10 and ids(path) == [str(number) for number in range(40)]


def test_a_history_without_a_time_that_can_be_read_is_named_by_its_last_write(tmp_path: Path) -> None:
    path = tmp_path / "execution-history.jsonl"
    path.write_bytes(b'\0\0{"startedAt":"2026-99-01T09:00:00.000+00:00"}\n')
    os.utime(path, (NOW.timestamp(),) * 2)
    assert segments.next_name(str(path)).endswith("-20261201T090000Z--20261201T090000Z.jsonl")


def test_only_our_names_are_parts(tmp_path: Path) -> None:
    for name in (
        "execution-history.jsonl", "execution-history-1--2.jsonl", "execution-history-20261201T090000Z.jsonl",
        "other-20261201T090000Z--20261201T090000Z.jsonl", "execution-history-20261301T090000Z--20261301T090000Z.jsonl",
        "execution-history-20261201T090000Z--20261201T090000Z.jsonl.gz.tmp-1-1",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert segments.listed(str(tmp_path / "execution-history.jsonl")) == []
    assert segments.listed(str(tmp_path / "none" / "execution-history.jsonl")) == []


def parts(tmp_path: Path, count: int, each: int = 3, start: datetime = NOW) -> Path:
    """A history of `count` parts with a month between them, and the one that is written to."""
    path = tmp_path / "execution-history.jsonl"
    for number in range(count + 1):
        for index in range(each):
            history.append_lines(str(path), line(f"{number}.{index}", start + timedelta(days=31 * number, hours=index)))
        if number < count:
            files.rotate(path, segments.next_name)
            newest = segments.listed(str(path))[-1]
            os.utime(newest.path, (newest.last.timestamp(),) * 2)
    return path


def test_old_parts_are_compressed_and_read_as_before(tmp_path: Path) -> None:
    path = parts(tmp_path, 6)
    before = ids(path)
    times = {s.name: os.stat(s.path).st_mtime_ns for s in segments.listed(str(path))}
    segments.compress(str(path))
    found = segments.listed(str(path))
    assert [s.path.endswith(".gz") for s in found] == [True] * 5 + [False]
    assert {s.name: os.stat(s.path).st_mtime_ns for s in found} == times
    assert ids(path) == before and len(before) == 21
    segments.compress(str(path))
    assert segments.listed(str(path)) == found


def test_a_compression_that_was_killed_is_made_again(tmp_path: Path) -> None:
    """J2."""
    path = parts(tmp_path, 4)
    before, oldest = ids(path), segments.listed(str(path))[0].path
    Path(oldest + ".gz").write_bytes(b"\x1f\x8bhalf")
    assert ids(path) == before
    segments.compress(str(path))
    assert not os.path.exists(oldest) and ids(path) == before


def test_a_broken_part_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = parts(tmp_path, 5, each=400)
    segments.compress(str(path))
    oldest = Path(segments.listed(str(path))[0].path)
    oldest.write_bytes(oldest.read_bytes()[:-300])
    bad = history.Unreadable()
    found = list(history.read(str(path), bad))
    assert 2000 <= len(found) < 2400
    ((place, number),) = bad.lines
    assert place == str(oldest) and number == len(found) - 2000 + 1
    oldest.write_bytes(b"no gzip")
    assert len(ids(path)) == 2000


def test_parts_past_their_days_are_told_but_never_the_newest_three(tmp_path: Path) -> None:
    """J4."""
    path = parts(tmp_path, 8)
    late = NOW + timedelta(days=31 * 8)
    assert [s.name[18:26] for s in segments.expired(str(path), 100, late)] == ["20261201", "20270101", "20270201",
                                                                               "20270304", "20270404"]  # fmt: skip
    assert len(segments.expired(str(path), 365, late)) == 0
    assert len(segments.expired(str(path), 365, late + timedelta(days=3650))) == 5


def test_a_name_in_the_future_does_not_keep_a_part_for_ever(tmp_path: Path) -> None:
    path = parts(tmp_path, 5, start=NOW + timedelta(days=20000))
    for segment in segments.listed(str(path)):
        os.utime(segment.path, (NOW.timestamp(),) * 2)
    assert segments.expired(str(path), 365, NOW + timedelta(days=300)) == []
    assert len(segments.expired(str(path), 365, NOW + timedelta(days=400))) == 2


def test_a_history_is_full_by_size_or_after_a_month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "execution-history.jsonl"
    assert not segments.is_full(str(path), NOW)
    path.write_bytes(line("a"))
    assert not segments.is_full(str(path), NOW + timedelta(days=30))
    assert segments.is_full(str(path), NOW + timedelta(days=32))
    monkeypatch.setattr(segments, "LIMIT", 10)
    assert segments.is_full(str(path), NOW)


def test_the_tail_goes_over_parts(tmp_path: Path) -> None:
    path = parts(tmp_path, 6)
    segments.compress(str(path))
    size = len(line("0.0"))
    for count in range(1, 21):
        assert [r["id"] for r in history.read_tail(str(path), count * size + 5)] == ids(path)[-count:]
        assert [r["id"] for r in history.read_tail(str(path), count * size)] == ids(path)[-count:]
    assert [r["id"] for r in history.read_tail(str(path), 10**9)] == ids(path)


def test_lines_are_bounded_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "execution-history.jsonl"
    with path.open("wb") as file:
        file.write(line("a"))
        file.truncate(200 << 20)
    files.append(path, line("b"))
    code = """
import resource
from scheduler.store import history
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bad = history.Unreadable()
print([r["id"] for r in history.read(args[0], bad)], bad.lines)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000)
"""
    said = child.output(child.start(code, path))
    assert said.splitlines() == [f"['a', 'b'] [({str(path)!r}, 2)]", "True"]


def test_a_part_of_any_size_is_compressed_in_little_memory(tmp_path: Path) -> None:
    """A9: a history that was there before us can be larger than any part of ours."""
    path = parts(tmp_path, 4)
    with open(segments.listed(str(path))[0].path, "r+b") as file:
        file.truncate(300 << 20)
    code = """
import resource
from scheduler.store import segments
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
segments.compress(args[0])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000)
"""
    assert child.output(child.start(code, path)) == "True\n"
    assert segments.listed(str(path))[0].path.endswith(".gz") and len(ids(path)) == 15


def test_only_a_regular_file_is_compressed(tmp_path: Path) -> None:
    path = parts(tmp_path, 6)
    first, second, third, *_ = (segment.path for segment in segments.listed(str(path)))
    os.rename(third, tmp_path / "elsewhere")
    for place in (first, second):
        os.unlink(place)
    os.mkfifo(first)
    os.mkdir(second)
    os.symlink(tmp_path / "elsewhere", third)
    segments.compress(str(path))
    assert os.path.lexists(first) and os.path.isdir(second) and os.path.islink(third)


@given(st.binary(max_size=600), st.integers(1, 40), st.integers(0, 600), st.integers(1, 30))
def test_batches_are_the_lines_of_a_file(tmp_path: Path, data: bytes, block: int, start: int, limit: int) -> None:
    path = tmp_path / "lines"
    path.write_bytes(data)
    start = min(start, len(data))
    old = reading._BLOCK, reading.LINE_LIMIT
    reading._BLOCK, reading.LINE_LIMIT = block, limit
    try:
        with open(path, "rb", buffering=0) as file:
            found = list(reading.batches(file, start))
    finally:
        reading._BLOCK, reading.LINE_LIMIT = old
    lines = [line for _, batch in found for line in batch]
    wanted = io.BytesIO(data[start:]).readlines()
    assert len(lines) == len(wanted)
    for line, want in zip(lines, wanted, strict=True):
        assert line == want or (line == b"\0" and len(want) > limit)
    assert all(data[place:].startswith(b"".join(batch)) for place, batch in found if batch != [b"\0"])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 900)),
        st.tuples(st.just("crash"), st.integers(1, 900)),
        st.tuples(st.sampled_from(["rotate", "compress"]), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(STEPS)
def test_no_sequence_of_appends_crashes_and_rotations_loses_a_record(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("steps") / "execution-history.jsonl"
    kept: list[str] = []
    old, segments.LIMIT = segments.LIMIT, 2000
    try:
        for number, (step, size) in enumerate(steps):
            if step == "append":
                history.append_lines(str(path), line(str(number), pad=size))
                kept.append(str(number))
            elif step == "crash":  # the write of a line came to this byte, and nobody was told that it was kept
                torn = line(str(number), pad=900)
                with path.open("ab") as file:
                    file.write(torn[: min(size, len(torn) - 2)])
            elif step == "rotate":
                files.rotate(path, segments.next_name)
            else:
                segments.compress(str(path))
    finally:
        segments.LIMIT = old
    assert ids(path) == kept


# Each function below is a process of its own, forked from one that has imported all it needs.
CROWD = """
import random, signal, time
from datetime import datetime, timezone
from scheduler.core.models import ProjectSettings, UserSettings
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.runner import upkeep
from scheduler.store import history, segments
segments.LIMIT = 20_000
root, now = args[1], datetime(2026, 12, 1, 12, tzinfo=timezone.utc)
where = Paths({"HOME": root, "SCHEDULER_HOME": root + "/state"})
path = paths.history_file(root)
stop = path + ".stop"

def appender(name, count):
    pause = random.Random(name)
    told = os.open(f"{path}.{name}.told", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in range(count):
        record = {"id": f"{name}.{number}", "taskId": "a", "project": "/p", "status": "success",
                  "startedAt": "2026-12-01T09:00:00.000+00:00", "output": "x" * pause.choice([10, 700, 4099, 9001])}
        history.append_lines(path, history.to_line(record))
        os.write(told, f"{record['id']}\\n".encode())

def rotator():
    while not os.path.exists(stop):
        files.rotate(path, segments.next_name)
        time.sleep(0.003)

def cleaner():
    while not os.path.exists(stop):
        assert list(upkeep.tidy(where, {root: ProjectSettings()}, UserSettings(), (), now)) == []
        time.sleep(0.01)

def reader():
    seen = 0
    while not os.path.exists(stop):
        bad = history.Unreadable()
        found = [r["id"] for r in history.read(path, bad) if r["id"] != "old"]
        assert len(found) == len(set(found)), "a record came twice"
        assert len(found) >= seen, f"{seen} records were there, then {len(found)}"
        assert all(place == path for place, _ in bad.lines), bad.lines
        seen = len(found)

def begin(work, *given):
    pid = os.fork()
    if pid == 0:
        try:
            work(*given)
        except BaseException as error:
            print(type(error), error, flush=True)
            os._exit(1)
        os._exit(0)
    return pid

def wait(pids):
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)

def crowd():
    others = [begin(rotator), begin(cleaner), begin(reader)]
    try:
        wait([begin(appender, name, 40) for name in range(16)])
    finally:
        open(stop, "w").close()
        wait(others)

def kills():
    pause = random.Random(5)
    for turn in range(30):
        writers = [begin(appender, f"{turn}-{index}", 10_000) for index in range(2)]
        try:
            while not os.path.exists(f"{path}.{turn}-0.told"):
                time.sleep(0.001)
            time.sleep(pause.uniform(0, 0.02))
        finally:
            for writer in writers:
                os.kill(writer, signal.SIGKILL)
                os.waitpid(writer, 0)

globals()[args[0]]()
"""


def told(path: Path) -> list[str]:
    """What the appenders were told that it is kept."""
    return [run for file in path.parent.glob("*.told") for run in file.read_text().splitlines()]


def test_sixteen_appenders_a_rotation_a_cleanup_and_a_reader_lose_nothing(tmp_path: Path) -> None:
    """A1, J1: what is past its days goes meanwhile, and nothing else."""
    path = Path(paths.history_file(str(tmp_path)))
    for number in range(8):
        history.append_lines(str(path), line("old", NOW - timedelta(days=400 + number)))
        files.rotate(path, segments.next_name)
    assert child.output(child.start(CROWD, "crowd", tmp_path)) == ""
    bad = history.Unreadable()
    found = [record["id"] for record in history.read(str(path), bad)]
    assert sorted(found) == sorted(told(path)) and len(found) == 16 * 40
    parts = segments.listed(str(path))
    assert bad.lines == [] and len(parts) > 20 and sum(part.path.endswith(".gz") for part in parts) > 5


def test_what_a_killed_appender_was_told_is_kept(tmp_path: Path) -> None:
    """A2, J2: lines of odd sizes, which are torn where a kill comes in their midst."""
    path = Path(paths.history_file(str(tmp_path)))
    path.parent.mkdir(parents=True)
    assert child.output(child.start(CROWD, "kills", tmp_path)) == ""
    files.append(path, b"{}\n")
    found = [record["id"] for record in history.read(str(path))]
    assert len(told(path)) > 100
    assert set(told(path)) <= set(found) and len(found) == len(set(found))


def test_the_global_history_gets_what_a_crash_kept_from_it(tmp_path: Path) -> None:
    where = Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})
    projects = [str(tmp_path / name) for name in "ab"]
    for number in range(30):
        for project in projects:
            text = line(f"{project[-1]}{number}", NOW + timedelta(minutes=number), project=project)
            history.append_lines(paths.history_file(project), text)
            if (project[-1], number) not in (("a", 28), ("a", 29), ("b", 29)):
                files.make_folder(where.logs)
                history.append_lines(where.global_history, text)
    with open(paths.history_file(projects[0]), "ab") as torn:
        torn.write(b'{"id": "torn')
    # What a history says of another project may have come with a repository.
    history.append_lines(paths.history_file(projects[1]), line("forged", NOW + timedelta(hours=1), project=projects[0]))
    assert history.complete_global(where, [*projects, str(tmp_path / "none")], NOW) == 3
    assert ids(Path(where.global_history))[-3:] == ["a28", "a29", "b29"]
    assert history.complete_global(where, projects, NOW) == 0
    files.rotate(where.global_history, segments.next_name)
    assert history.complete_global(where, projects, NOW) == 0
    assert sorted(ids(Path(where.global_history))) == sorted(f"{p}{n}" for p in "ab" for n in range(30))


def test_a_project_that_rested_for_long_is_not_copied_again(tmp_path: Path) -> None:
    where = Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})
    old, busy = str(tmp_path / "old"), str(tmp_path / "busy")
    files.make_folder(where.logs)
    history.append_lines(paths.history_file(old), line("old", NOW - timedelta(days=50), project=old))
    for number in range(3):
        text = line(str(number), NOW, project=busy)
        history.append_lines(paths.history_file(busy), text)
        history.append_lines(where.global_history, text)
    assert history.complete_global(where, [old, busy], NOW) == 0
    Path(where.global_history).unlink()
    assert history.complete_global(where, [old, busy], NOW) == 4


def test_a_compressed_part_holds_the_very_bytes(tmp_path: Path) -> None:
    path = parts(tmp_path, 4)
    oldest = Path(segments.listed(str(path))[0].path)
    before = oldest.read_bytes()
    segments.compress(str(path))
    assert gzip.decompress(Path(f"{oldest}.gz").read_bytes()) == before
    assert [json.loads(text)["id"] for text in before.splitlines()] == ["0.0", "0.1", "0.2"]
