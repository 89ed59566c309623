from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.record import Record, RunnerMark, Status
from scheduler.disk import paths
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.store import history

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone(timedelta(hours=1)))
RUN = "0b6c1c9e-6d0f-4c3e-9a54-2f7f5d1f8a11"


def record(project: str = "/p", **changes: Any) -> Record:
    base: dict[str, Any] = {
        "id": RUN,
        "task_id": "a",
        "task_name": "A",
        "project": project,
        "started_at": NOW,
        "status": Status.RUNNING,
        "triggered_by": "schedule",
        "runner": RunnerMark(host="h", pid=1, version="0"),
    }
    return Record(**{**base, **changes})


def test_a_record_goes_to_the_project_and_to_all(tmp_path: Path, repo: Path, git: Any) -> None:
    where = Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})
    history.append(where, record(str(repo)))
    history.append(where, record(str(repo), status=Status.SUCCESS, completed_at=NOW, output="naïve \u2028"))
    for path in (paths.history_file(str(repo)), where.global_history):
        lines = Path(path).read_bytes().split(b"\n")
        assert len(lines) == 3 and lines[2] == b"" and all(line.isascii() for line in lines)
        (state,) = history.fold(history.read(path))
        assert (state["status"], state["output"]) == ("success", "naïve \u2028")
    assert git("status", "--porcelain", cwd=repo) == ""


# A8. A line of 50 MB and more: test_segments.py.
HOSTILE = [
    b"NaN",
    b'{"id": NaN}',
    b"1e400",
    b"[" * 100_000,
    b"1" * 5000,
    b'{"id": "' + b"x" * 300_000 + b'"}',
    b"\0" * 4096,
    b'{"id": "a\rb"}',
    b"1",
    b'"x"',
    b"[]",
    b"{}",
    '{"id": "a\u2028b\u0085"}'.encode(),
    b'{"id": "a", "taskId": "a", "project": "/p", "startedAt": "x"}',
    b'{"id": 1, "taskId": "a", "project": "/p", "startedAt": "x", "status": "success"}',
    b'{"id": "torn", "taskId": "a", "proj',
    b"\xff\xfe",
    b'{"id": "\\ud800", "taskId": 3}',
]


def test_hostile_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    """A8."""
    path = tmp_path / "history.jsonl"
    good = history.to_line(record().to_json())
    path.write_bytes(good + b"".join(line + b"\n" + good for line in HOSTILE) + b"\n\n")
    bad = history.Unreadable()
    assert len(list(history.read(str(path), bad))) == len(HOSTILE) + 1
    assert bad.lines == [(str(path), 2 * number) for number in range(1, len(HOSTILE) + 1)]


@pytest.mark.parametrize("cut", range(0, 400, 13))
def test_a_tail_lost_at_any_byte_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "history.jsonl"
    lines = [history.to_line(record(id=RUN[:-1] + digit).to_json()) for digit in "123"]
    path.write_bytes(b"".join(lines)[: -(cut + 1)])
    assert len(list(history.read(str(path)))) >= 3 - 1 - cut // len(lines[0]) - (cut % len(lines[0]) > 0)
    path.write_bytes(b"".join(lines[:2]) + b"\0" * 4096)
    assert len(list(history.read(str(path)))) == 2


def test_there_is_no_history_where_there_is_no_file(tmp_path: Path) -> None:
    assert list(history.read(str(tmp_path / "none"))) == []
    assert list(history.read_tail(str(tmp_path / "none"), 100)) == []


def test_the_last_line_of_an_id_is_its_state_and_the_first_its_place() -> None:
    lines = [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "a", "n": 3}]
    assert history.fold(lines) == [{"id": "a", "n": 3}, {"id": "b", "n": 2}]


def test_the_tail_begins_at_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    lines = [history.to_line(record(id=RUN[:-1] + digit).to_json()) for digit in "12345"]
    path.write_bytes(b"".join(lines))
    found = [r["id"][-1] for r in history.read_tail(str(path), 2 * len(lines[0]) + 5)]
    assert found == ["4", "5"]
    assert len(list(history.read_tail(str(path), 10**9))) == 5


def test_a_line_has_a_limit_and_what_is_cut_says_so() -> None:
    long = record(output="ü" * 100_000, error="e" * 100_000, notes=tuple("n" * 5000 for _ in range(500)))
    line = history.to_line(long.to_json())
    assert len(line) <= history.LINE_LIMIT and line.endswith(b"\n")
    told = json.loads(line)
    assert told["output"].endswith("[cut]") and told["error"].endswith("[cut]")
    assert all(note.endswith("[cut]") for note in told["notes"])
    count, words = told["notes"][-1].split(" ", 1)
    assert words == "notes left out [cut]" and int(count) == 500 - (len(told["notes"]) - 1)
    assert json.loads(history.to_line(record(notes=("short",)).to_json()))["notes"] == ["short"]


ANY_TEXT = st.text(st.characters(), max_size=200) | st.sampled_from(["\ud800", "\\ud800", "\udfff\ud83d", "\u2028\0\r"])


@given(ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, max_size=5), st.integers(1, 40_000))
def test_whatever_a_record_holds_its_line_is_one_that_is_read(
    output: str, name: str, notes: list[str], times: int
) -> None:
    """A8, of our own making: strict JSON in ASCII, one line, at most 64 KB."""
    whole = record(output=output * times, task_name=name, project=f"/p/{name}", notes=tuple(notes)).to_json()
    line = history.to_line(whole)
    assert len(line) <= history.LINE_LIMIT and line.isascii() and line.count(b"\n") == 1
    read = history.parse(line)
    assert read is not None and read["id"] == RUN
    if "\\ud" not in json.dumps(whole) and len(json.dumps(whole)) < history.LINE_LIMIT - 2000:
        assert read == whole


def test_what_was_written_to_one_of_the_two_is_not_written_to_it_again(tmp_path: Path) -> None:
    """A4: where only the global history could not take it, the next try leaves out the project's."""
    where = Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})
    project = tmp_path / "project"
    project.mkdir()
    blocked = Path(where.global_history)
    blocked.mkdir(parents=True)
    done: set[str] = set()
    with pytest.raises(OSError):
        history.append(where, record(str(project), status=Status.SUCCESS, completed_at=NOW), done)
    blocked.rmdir()
    history.append(where, record(str(project), status=Status.SUCCESS, completed_at=NOW), done)
    for path in (paths.history_file(str(project)), where.global_history):
        assert [one["id"] for one in history.read(path)] == [RUN]


def test_a_run_is_found_by_the_beginning_of_its_id() -> None:
    records = [{"id": RUN}, {"id": "0b6c2222"}]
    assert history.find_run(records, RUN[:8])["id"] == RUN
    assert history.find_run(records, RUN[:8].upper())["id"] == RUN
    for prefix, says in (("0b", "too short"), ("0b6c", "2 runs"), ("ffff", "no run")):
        with pytest.raises(SchedulerError, match=says):
            history.find_run(records, prefix)
