from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from tests.command import PACKAGE, Command, environment

NOW = datetime.now(timezone.utc).replace(microsecond=0)


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    return Command(repo, environment(home, tmp_path / "state"))


def run(number: int, task: str = "a", status: str = "success", *, ago: float = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{number:08x}-0000-4000-8000-000000000000",
        "taskId": task,
        "taskName": task,
        "project": "/p",
        "startedAt": (NOW - timedelta(seconds=ago)).isoformat(),
        "status": status,
        "triggeredBy": "schedule",
        **more,
    }


def put(path: str, *runs: dict[str, Any], raw: bytes = b"") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        file.write(b"".join(json.dumps(one).encode() + b"\n" for one in runs) + raw)


def ids(said: Any) -> list[int]:
    return [int(one["id"][:8], 16) for one in said.json]


@pytest.fixture
def five(cli: Command, repo: Path) -> Command:
    """Five runs of two tasks; the second line of the third is its end."""
    put(
        paths.history_file(str(repo)),
        run(1, ago=5 * 86400),
        run(2, "b", "failure", ago=4 * 86400, reason="verify-failed", error="npm test: exit code 1"),
        run(3, status="running", ago=3 * 86400),
        run(4, "b", "skipped", ago=2 * 86400, reason="missed", skippedCount=7),
        run(3, ago=3 * 86400, reason="no-changes", duration=61000, costUsd=0.5),
        run(5, status="timeout", ago=86400, filesChanged=2, insertions=3, deletions=1, isolated=False),
    )
    return cli


def test_the_latest_comes_first(five: Command) -> None:
    assert ids(five("history", "--json")) == [5, 4, 3, 2, 1]
    lines = five("history").out.splitlines()
    assert lines[0].split() == ["RUN", "TASK", "STATUS", "STARTED", "TOOK", "CHANGED", "COST", "WHAT"]
    assert [line.split()[0] for line in lines[1:]] == [f"{n:08x}" for n in (5, 4, 3, 2, 1)]
    assert "✓ success (no-changes) " in lines[3] and " 3d ago   1m 01s " in lines[3] and "$0.50" in lines[3]
    assert "✗ failure (verify-failed)" in lines[4] and "npm test: exit code 1" in lines[4]
    assert "2 files +3 -1" in lines[1] and "not isolated" in lines[1] and "7 occurrences" in lines[2]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--task", "b"], [4, 2]),
        (["--status", "failure", "--status", "timeout"], [5, 2]),
        (["--reason", "missed"], [4]),
        (["--since", "60h"], [5, 4]),
        (["--until", "60h"], [3, 2, 1]),
        (["--since", (NOW - timedelta(days=3.5)).isoformat(), "--until", (NOW - timedelta(days=2.5)).isoformat()], [3]),
        (["--limit", "2"], [5, 4]),
        (["-n", "0"], [5, 4, 3, 2, 1]),
        (["--task", "nothing"], []),
    ],
)
def test_filters(five: Command, words: list[str], found: list[int]) -> None:
    assert ids(five("history", "--json", *words)) == found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--status", "done"], "--status"),
        (["--reason", "because"], "there is no reason 'because'"),
        (["--since", "someday"], "is no moment"),
        (["--limit", "-1"], "--limit"),
    ],
)
def test_a_wrong_filter_is_wrong_usage(five: Command, words: list[str], says: str) -> None:
    assert says in five("history", *words, code=2).err


def test_jq_gets_the_json(five: Command) -> None:
    assert shutil.which("jq"), "jq is needed"
    assert five("history", "--jq", ".[0].status").out == "timeout\n"
    assert five("history", "--task", "b", "--jq", 'map(.reason)|join(",")').out == "missed,verify-failed\n"
    assert five("history", "--jq", "-1").out == "-1\n"
    said = five("history", "--jq", ".[", code=1)
    assert said.err.startswith("jq: error: syntax error") and said.out == ""
    assert said.err.endswith("jq: 1 compile error\nerror: jq ended with code 3\n  mend the filter: see `man jq`\n")
    said = five("history", "--jq", '.[0].status, error("not this")', code=1)
    assert said.out == "timeout\n" and said.err.startswith("jq: error (at <stdin>:0): not this\n")


def test_a_missing_jq_is_told(five: Command, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "git").symlink_to(shutil.which("git") or "")
    assert "jq" in five("history", "--jq", ".", code=1, PATH=str(tools)).err


def test_all_projects(five: Command, tmp_path: Path) -> None:
    put(Paths(five.env).global_history, run(0x77, project="/elsewhere"))
    assert ids(five("history", "--all-projects", "--json")) == [0x77]
    assert "/elsewhere" in five("history", "--all-projects").out
    five.folder = tmp_path
    assert ids(five("history", "--all-projects", "--json")) == [0x77]


def test_a_long_history_is_read_from_its_end(cli: Command, repo: Path) -> None:
    old = [run(n, ago=10_000 - n, output="x" * 500) for n in range(4000)]
    put(paths.history_file(str(repo)), *old)
    assert ids(cli("history", "--json", "-n", "3")) == [3999, 3998, 3997]
    assert ids(cli("history", "--json", "--until", (NOW - timedelta(seconds=9999)).isoformat(), "-n", "3")) == [0]
    assert len(ids(cli("history", "--json", "-n", "0"))) == 4000


def test_damaged_lines_are_passed_over(five: Command, repo: Path) -> None:
    put(paths.history_file(str(repo)), raw=b'{"id": "torn\n\0\0\0\n[]\nNaN\n' + b"[" * 100_000 + b"\n")
    put(paths.history_file(str(repo)), run(6, task="x\x1b[2J\u202e", startedAt="never", error="\x1b]0;title\x07"))
    assert ids(five("history", "--json")) == [5, 4, 3, 2, 1, 6]
    said = five("history").out
    assert "\x1b" not in said and "\u202e" not in said


def test_a_run_without_a_runner_is_not_said_to_run(cli: Command, repo: Path) -> None:
    assert cli("history").out == "nothing has run yet\n"
    put(paths.history_file(str(repo)), run(1, status="running"))
    assert "no runner is at work" in cli("history").err


def log(repo: Path, task: str = "a", *, error: bool = False) -> str:
    return paths.task_log(str(repo), task, error=error)


def line(number: int, run_id: str = "00000001") -> bytes:
    return f"[2026-12-01T09:00:00.000+00:00] [{run_id}] line {number}\n".encode()


def test_the_last_lines_of_a_log_through_its_parts(cli: Command, repo: Path) -> None:
    for number in range(100):
        files.append(log(repo), line(number), limit=1500)
    assert len(files.rotated(log(repo))) > 2
    assert [text.split()[-1] for text in cli("logs", "a").out.splitlines()] == [str(n) for n in range(50, 100)]
    assert cli("logs", "a", "-n", "3").out.endswith("line 97\n" + line(98).decode() + line(99).decode())
    assert len(cli("logs", "a", "-n", "1000").out.splitlines()) == 100
    assert cli("logs", "a", "-n", "0").out == ""
    assert cli("logs", "a", "-n", "1", "--json").json == [
        {"time": "2026-12-01T09:00:00.000+00:00", "run": "00000001", "text": "line 99"}
    ]


def test_the_log_of_one_run(five: Command, repo: Path) -> None:
    for number in range(10):
        files.append(log(repo), line(number, f"{number % 2 + 1:08x}"))
    assert five("logs", "a", "--run", "00000002").out.count("\n") == 5
    assert five("logs", "a", "--run", "0000", code=1).err.startswith("error: 5 runs begin with")


def test_errors_are_a_log_of_their_own(cli: Command, repo: Path) -> None:
    files.append(log(repo, error=True), line(1))
    assert "there is no log of 'a' yet" in cli("logs", "a", code=1).err
    assert cli("logs", "a", "--error").out == line(1).decode()


@pytest.mark.parametrize("task", ["../../../etc/passwd", "a/b", "-x"])
def test_a_log_is_of_a_task(cli: Command, task: str) -> None:
    assert "not a task id" in cli("logs", "--", task, code=1).err


def test_strange_lines_do_no_harm(cli: Command, repo: Path) -> None:
    files.append(log(repo), b"\xff\xfe \x1b[2J no time\n")
    assert cli("logs", "a").out == "\ufffd\ufffd  no time\n"
    assert cli("logs", "a", "--json").json == [{"text": "\ufffd\ufffd \x1b[2J no time"}]


@contextmanager
def following(cli: Command, *words: str) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-I", str(PACKAGE), "logs", "a", "-f", *words]
    child = subprocess.Popen(argv, cwd=cli.folder, env=cli.env, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.terminate()
        child.communicate()


def test_following_goes_on_through_rotations(cli: Command, repo: Path) -> None:
    """J6."""
    files.append(log(repo), line(0))
    with following(cli) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == line(0).decode()
        for number in range(1, 40):
            files.append(log(repo), line(number), limit=300)
            time.sleep(0.005)
        assert [child.stdout.readline() for _ in range(39)] == [line(n).decode() for n in range(1, 40)]


def test_following_waits_for_a_log_that_is_not_there_yet(cli: Command, repo: Path) -> None:
    put(paths.history_file(str(repo)), run(1, status="running"))
    with following(cli, "--run", "00000001") as child:
        time.sleep(0.5)
        files.append(log(repo), line(1) + line(2, "ffffffff") + line(3))
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == [line(1).decode(), line(3).decode()]


def test_following_is_no_json(cli: Command) -> None:
    assert "give one of them" in cli("logs", "a", "-f", "--json", code=2).err
