"""history, stats and show of a run, as a person calls them: what test_cli_records.py leaves."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.store import history, segments
from tests.command import Command, environment
from tests.unit.test_statistics import assert_same, jq_of_the_docs

NOW = datetime.now(timezone.utc).replace(microsecond=0)


def run(number: int, task: str = "a", status: str = "success", *, hours: float = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{number:08x}-0000-4000-8000-000000000000",
        "taskId": task,
        "taskName": task.upper(),
        "project": "/p",
        "startedAt": (NOW - timedelta(hours=hours)).isoformat(timespec="milliseconds"),
        "status": status,
        **more,
    }


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    return Command(repo, environment(home, tmp_path / "state"))


@pytest.fixture
def own(repo: Path) -> str:
    return paths.history_file(str(repo))


def put(path: str, *runs: dict[str, Any], raw: bytes = b"") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        file.write(b"".join(json.dumps(one).encode() + b"\n" for one in runs) + raw)


@pytest.fixture
def some(cli: Command, own: str) -> Command:
    """Six runs of two tasks; the second line of the third is its end."""
    put(
        own,
        run(1, hours=50, duration=1000, costUsd=0.25, turns=3, tags=["night", "deps"]),
        run(2, "b", "failure", hours=40, reason="verify-failed", duration=3000, costUsd=0.5),
        run(3, status="running", hours=30),
        run(4, "b", "skipped", hours=20, reason="missed"),
        run(3, hours=30, reason="no-changes", duration=2000, tags=["night"]),
        run(5, status="timeout", hours=10, duration=60_000),
    )
    return cli


def ids(runs: Any) -> list[int]:
    return [int(one["id"][:8], 16) for one in runs]


def test_tags(some: Command) -> None:
    assert ids(some("history", "--json", "--tag", "night").json) == [3, 1]
    assert ids(some("history", "--json", "--tag", "night", "--tag", "deps").json) == [1]


def test_json_lines(some: Command) -> None:
    assert ids(map(json.loads, some("history", "--jsonl", "-n", "0").out.splitlines())) == [5, 4, 3, 2, 1]


def test_csv_is_for_spreadsheets(some: Command, own: str) -> None:
    put(own, run(6, error='=HYPERLINK("x"),\n\x1b[31mred', hours=1, notes=["one", "two"], isolated=False, exitCode=-9))
    rows = list(csv.DictReader(io.StringIO(some("history", "--csv", "-n", "0").out)))
    assert ids(rows) == [6, 5, 4, 3, 2, 1]
    assert rows[0]["error"] == '\'=HYPERLINK("x"),\nred' and rows[0]["notes"] == "one\ntwo"
    assert (rows[0]["isolated"], rows[0]["exitCode"], rows[1]["duration"], rows[1]["error"]) == (
        "false", "-9", "60000", "",
    )  # fmt: skip


@pytest.mark.parametrize("words", [["--json", "--csv"], ["--jsonl", "--jq", "."], ["--verify", "--csv"]])
def test_one_form_at_a_time(some: Command, words: list[str]) -> None:
    assert "give one of them" in some("history", *words, code=2).err


def test_unreadable_lines_are_counted_and_named(some: Command, own: str) -> None:
    assert some("history", "--verify").out == f"6 records, 0 unreadable lines: {own}\n"
    files.rotate(own, segments.next_name)
    (part,) = segments.listed(own)
    put(part.path, raw=b"[]\n")
    put(own, run(6), raw=b'{"id": "torn')
    said = some("history", "--verify", code=1)
    assert said.out == f"{part.path}:7: no record\n{own}:2: no record\n7 records, 2 unreadable lines: {own}\n"
    assert some("history", "--verify", "--json", code=1).json == {
        "history": own, "records": 7,
        "unreadable": [{"file": part.path, "line": 7}, {"file": own, "line": 2}],
    }  # fmt: skip
    shown = some("history", "--json")
    assert ids(shown.json) == [6, 5, 4, 3, 2, 1] and "2 lines of the history could not be read" in shown.err
    for words in (["history"], ["history", "--jsonl"], ["history", "--csv"], ["history", "--jq", "."], ["stats"]):
        assert "2 lines of the history could not be read" in some(*words).err


def test_unreadable_lines_of_a_compressed_part_are_named(cli: Command, own: str) -> None:
    for number in range(5):
        put(own, run(number, hours=900 - number), raw=b"[]\n" * (number == 0))
        files.rotate(own, segments.next_name)
    segments.compress(own)
    first = segments.listed(own)[0].path
    assert first.endswith(".jsonl.gz")
    assert cli("history", "--verify", code=1).out.startswith(f"{first}:2: no record\n5 records, 1 unreadable line: ")
    whole = Path(first).read_bytes()
    Path(first).write_bytes(whole[: len(whole) // 2])
    said = cli("history", "--verify", "--json", code=1).json
    assert said["records"] == 4 and [bad["file"] for bad in said["unreadable"]] == [first]
    assert ids(cli("history", "--json").json) == [4, 3, 2, 1]


def test_a_project_that_is_gone_is_found_among_all(some: Command) -> None:
    put(Paths(some.env).global_history, run(7, project="/gone"), run(8, project="/other"))
    assert ids(some("history", "--json", "--all-projects", "--project", "/gone").json) == [7]


def test_statistics(some: Command) -> None:
    found = some("stats", "--json").json
    assert found == {
        "runs": 5, "successRate": 0.5,
        "statuses": {"success": 2, "failure": 1, "timeout": 1, "skipped": 1, "running": 0},
        "duration": {"average": 16500, "median": 2500, "p95": 60000}, "costUsd": 0.75, "turns": 3, "failures24h": 1,
        "streak": {"success": False, "runs": 1},
        "longestGap": {**found["longestGap"], "milliseconds": 72_000_000},
    }  # fmt: skip
    lines = dict(line.split("  ", 1) for line in some("stats").out.splitlines())
    assert lines["success rate"].strip() == "50.0%" and lines["p95"].strip() == "1m 00s"
    assert lines["streak"].strip() == "1 failed run" and lines["longest gap"].strip().startswith("20h 00m, from ")
    statuses = some("stats", "--task", "b", "--since", "45h", "--json").json["statuses"]
    assert statuses == {"success": 0, "failure": 1, "timeout": 0, "skipped": 1, "running": 0}
    assert some("stats", "--task", "nothing").out.startswith("runs")


def test_statistics_divided(some: Command, own: str) -> None:
    def by(what: str) -> list[tuple[Any, int]]:
        return [(group[what], group["runs"]) for group in some("stats", "--by", what, "--json").json]

    assert by("task") == [("a", 3), ("b", 2)]
    assert by("reason") == [(None, 2), ("missed", 1), ("no-changes", 1), ("verify-failed", 1)]
    days = sorted({(NOW - timedelta(hours=hours)).date().isoformat() for hours in (50, 40, 30, 20, 10)})
    assert [day for day, _ in by("day")] == days
    assert by("project") == []
    put(Paths(some.env).global_history, run(7, project="/x"), run(8, project="/y"))
    assert by("project") == [("/x", 1), ("/y", 1)]
    head, first, _ = some("stats", "--by", "task").out.splitlines()
    columns = "TASK RUNS SUCCESS FAILURE TIMEOUT SKIPPED RATE AVERAGE MEDIAN P95 COST TURNS FAILED 24H STREAK GAP"
    assert head.split() == columns.split()
    assert first.split() == "a 3 2 1 66.7% 21s 2.0s 1m 00s $0.25 3 1 1 failed 20h 00m".split()
    assert some("stats", "--by", "task", "--since", "1h").out == "no runs\n"


def test_jq_over_the_same_files_says_the_same(some: Command, own: str, repo: Path) -> None:
    """With the very lines of docs/history.md, over parts that are compressed and a line that cannot be read."""
    for number in range(6, 11):
        files.rotate(own, segments.next_name)
        put(own, run(number, status="failure", hours=number / 9, costUsd=0.1, turns=1), raw=b'{"id": "torn\n')
    segments.compress(own)
    assert any(segment.path.endswith(".gz") for segment in segments.listed(own))
    shell, program = jq_of_the_docs()
    script = f"{shell}jq -nR '{program}'"
    told = json.loads(subprocess.run(["sh", "-c", script], cwd=repo, capture_output=True, check=True).stdout)
    said = some("stats", "--json")
    assert_same(said.json, told)
    assert said.json["runs"] == 10 and said.json["streak"] == {"success": False, "runs": 6}
    assert "5 lines of the history could not be read" in said.err


def test_a_long_history_says_the_same_by_the_index(cli: Command, own: str) -> None:
    pad = "x" * 200
    status = ("failure", *["success"] * 6)
    put(own, *(run(n, status=status[n % 7], hours=n / 9, duration=n, output=pad) for n in range(9000)))
    found = cli("stats", "--json").json
    assert Path(Paths(cli.env).in_state("index.db")).exists()
    assert found["runs"] == 9000 and found["statuses"]["failure"] == 1286
    assert ids(cli("history", "--json", "--status", "failure", "-n", "2").json) == [0, 7]
    put(own, run(0, status="failure", reason="crashed"), raw=b"{]\n")
    shown = cli("history", "--json", "-n", "1")
    assert shown.json[0]["reason"] == "crashed" and "1 line of the history could not be read" in shown.err


def test_wrong_types_in_a_record_break_nothing(cli: Command, own: str) -> None:
    odd: list[Any] = ["long", [1], {"a": 1}, True, None, 1e308]
    names = ("duration", "costUsd", "turns", "filesChanged", "insertions", "notes", "tags", "reason", "error", "runner")
    put(own, *(run(n, **dict.fromkeys(names, value)) for n, value in enumerate(odd)))
    for words in (["history"], ["history", "--csv"], ["history", "--jsonl"], ["stats"], ["stats", "--by", "reason"],
                  *(["show", f"{n:08x}"] for n in range(len(odd)))):  # fmt: skip
        assert cli(*words).out


def test_all_of_a_run_is_shown(cli: Command, own: str, repo: Path, git: Any) -> None:
    base = git("rev-parse", "HEAD", cwd=repo)
    (repo / "new.txt").write_text("hello\n" * 300)
    git("add", "-A", cwd=repo)
    git("commit", "-qm", "work", cwd=repo)
    tip = git("rev-parse", "HEAD", cwd=repo)
    one = run(1, duration=61_000, costUsd=0.5, baseCommit=base, commit=tip, notes=["a note"])
    put(own, {**one, "status": "running"}, one, run(2, status="failure"), run(3, status="skipped", reason="missed"))
    files.append(paths.task_log(str(repo), "a"), b"[2026-12-01T09:00:00.000+00:00] [00000001] said\n")
    files.append(paths.task_log(str(repo), "a", error=True), b"[2026-12-01T09:00:00.000+00:00] [00000001] bad\n")
    files.write_atomic(paths.result_file(str(repo), one["id"]), b"All is \x1b[31mwell.\n")
    shown = cli("show", "00000001").out
    for part in ("✓ success", "1m 01s", "$0.50", "a note", "  All is well.", "] said", "] bad", "  +hello",
                 "'diff 00000001'", "more lines"):  # fmt: skip
        assert part in shown
    told = cli("show", "00000001", "--json").json
    assert told["patch"].count("+hello") == 300 and told["answer"].startswith("All is") and len(told["log"]) == 1
    assert "changes: run 00000002 left no work" in cli("show", "00000002").out
    assert "no run '12345678'" in cli("show", "12345678", code=1).err
    assert "3 runs begin with '0000'" in cli("show", "0000", code=1).err
    assert cli("show", "00000003", "--json").json["patch"] is None


def test_a_run_is_found_in_a_part_that_is_compressed(cli: Command, own: str) -> None:
    for number in range(6):
        history.append_lines(own, json.dumps(run(number, hours=900 - number)).encode() + b"\n")
        files.rotate(own, segments.next_name)
    segments.compress(own)
    assert "✓ success" in cli("show", "00000000").out
    assert ids(cli("history", "--json").json) == [5, 4, 3, 2, 1, 0]
