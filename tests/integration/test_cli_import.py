from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths
from scheduler.disk.paths import Paths
from scheduler.store import history, search, segments
from tests.command import Command, environment

TOKEN = "ghp_" + "0123456789abcdefghijklmnopqrstuvwxyz"
TASK = "7d9f3c1e-4b1a-4f3e-9a54-2f7f5d1f8a11"


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    return Command(repo, environment(home, tmp_path / "state", CLAUDE_CONFIG_DIR=str(tmp_path / "claude")))


def task(task_id: str = TASK, **execution: Any) -> dict[str, Any]:
    return {
        "id": task_id, "name": "Daily review", "description": "Looks at yesterday", "enabled": True,
        "trigger": {"type": "cron", "expression": "0 9 * * 1-5", "timezone": "local"},
        "execution": {"command": "Review the commits.", "workingDirectory": ".", "timeout": 300, **execution},
        "tags": ["daily", "not a tag!"], "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip


def schedules(folder: Path, *tasks: Any, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "schedules.json"
    file.write_text(json.dumps({"version": 1, "tasks": tasks, "settings": settings}))
    return file


def run(number: int, project: Path | str, status: str = "success", **more: Any) -> dict[str, Any]:
    return {
        "id": f"{number:08x}-0000-4000-8000-000000000000", "taskId": TASK, "taskName": "Daily review",
        "project": str(project), "startedAt": f"2026-03-{number:02}T09:00:00.000Z", "status": status,
        "completedAt": f"2026-03-{number:02}T09:05:00.000Z", "triggeredBy": "scheduler", "duration": 300000, **more,
    }  # fmt: skip


def runs(folder: Path, *records: dict[str, Any], raw: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "execution-history.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records) + raw)
    return file


def config(repo: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(paths.config_file(str(repo))).read_text())
    return read


def test_tasks_are_taken_over_switched_off(cli: Command, repo: Path, tmp_path: Path) -> None:
    schedules(tmp_path / "claude", task(env={"CI": "1"}, skipPermissions=True))
    told = cli("import", "--json").json
    assert told["tasks"] == [TASK] and told["runs"] == 0
    (entry,) = config(repo)["tasks"]
    assert entry == {
        "id": TASK, "name": "Daily review", "enabled": False,
        "trigger": {"type": "cron", "expression": "0 9 * * 1-5", "timezone": "Europe/Berlin"},
        "execution": {"type": "claude", "command": "Review the commits.", "skipPermissions": True, "env": {"CI": "1"},
                      "timeout": 300, "worktree": {}},
        "tags": ["daily"],
    }  # fmt: skip
    assert any("Looks at yesterday" in note for note in told["notes"])
    assert any("worked in the main checkout" in note for note in told["notes"])
    assert "off" in cli("list").out


def test_done_twice_it_changes_nothing_more(cli: Command, repo: Path, tmp_path: Path) -> None:
    schedules(tmp_path / "claude", task())
    runs(tmp_path / "claude", run(1, repo), run(2, repo))
    assert "1 task and 2 runs taken over" in cli("import").out

    def written() -> dict[Path, bytes]:
        files = [path for path in tmp_path.rglob("*.json*") if path.is_file() and path.name != "glance.json"]
        return {path: path.read_bytes() for path in files}

    before = written()
    assert "0 tasks and 0 runs taken over" in cli("import").out
    assert written() == before


def test_tasks_of_one_name_are_all_taken_over(cli: Command, repo: Path, tmp_path: Path) -> None:
    schedules(tmp_path / "claude", task("Daily Review"), task("Review, daily"), task("daily-review"))
    runs(tmp_path / "claude", raw="no history at all\n")
    told = cli("import", "--json").json
    assert told["tasks"] == ["daily-review", "daily-review-2", "daily-review-3"]
    assert "is neither a schedules.json nor a history" in told["notes"][-1]
    again = cli("import", "--json").json
    assert again["tasks"] == [] and "Daily review is here already, as daily-review-2" in again["notes"]
    assert len(config(repo)["tasks"]) == 3


def test_a_worktree_stays_one_and_is_pushed_as_before(cli: Command, repo: Path, tmp_path: Path) -> None:
    tree = {"enabled": True, "basePath": "/tmp/x", "branchPrefix": "auto/", "remoteName": "mine"}
    file = schedules(tmp_path / "elsewhere", task(worktree=tree, timeout=0.5), defaultTimezone="Asia/Tokyo")
    cli("import", file)
    (entry,) = config(repo)["tasks"]
    assert entry["execution"]["worktree"] == {"branchPrefix": "auto/", "remoteName": "mine", "push": True}
    assert entry["execution"]["timeout"] == 1 and entry["trigger"]["timezone"] == "Asia/Tokyo"


def test_tasks_of_other_projects_and_broken_ones_are_left_and_told(cli: Command, repo: Path, tmp_path: Path) -> None:
    file = schedules(
        tmp_path / "claude",
        task("a", workingDirectory="/elsewhere"),
        task("b", workingDirectory=str(repo / "sub")),
        {**task("c"), "trigger": {"type": "cron", "expression": "soon"}},
        {**task("D e"), "name": "Über alles!"},
        "no task",
        task("f", env={"PATH": "/tmp"}),
        {**task("a"), "id": 7, "name": "Seven"},
    )
    told = cli("import", file, "--json").json
    assert told["tasks"] == ["b", "uber-alles", "seven"], told
    said = "\n".join(told["notes"])
    assert "works in /elsewhere: import it there" in said and "b worked in sub" in said
    for left in ("trigger.expression", "an entry is no task", "may not set PATH"):
        assert left in said


def test_a_projects_own_file_means_that_project(cli: Command, repo: Path) -> None:
    file = schedules(repo / ".claude", task(workingDirectory="."))
    assert cli("import", file, "--json").json["tasks"] == [TASK]


def test_runs_become_history(cli: Command, repo: Path, tmp_path: Path) -> None:
    file = runs(
        tmp_path / "claude",
        run(1, repo, output="x" * 5000 + TOKEN, exitCode=0, worktreePath="/tmp/w", worktreeBranch="auto/x"),
        run(2, "/elsewhere", "failure", error=f"token {TOKEN} refused"),
        run(3, repo, "running"),
        run(4, repo, "running"),
        run(4, repo, "timeout", triggeredBy="manual"),
        run(5, repo, "exploded"),
        {**run(6, repo), "startedAt": "yesterday"},
        raw='{"id": "torn\n',
    )
    told = cli("import", file, "--json").json
    assert told["runs"] == 3 and told["tasks"] == []
    assert any("never ended" in note for note in told["notes"])
    own = cli("history", "--json").json
    assert [one["startedAt"] for one in own] == ["2026-03-04T09:00:00.000+00:00", "2026-03-01T09:00:00.000+00:00"]
    assert (own[0]["status"], own[0]["triggeredBy"], own[1]["isolated"]) == ("timeout", "manual", True)
    assert own[1]["output"].endswith("[REDACTED:github-token]") and len(own[1]["output"]) == 2048
    assert own[1]["notes"] == ["taken over from another scheduler", "its branch was auto/x"]
    everywhere = cli("history", "--all-projects", "--json").json
    assert [one["project"] for one in everywhere] == [str(repo), "/elsewhere", str(repo)]
    assert not any(TOKEN.encode() in path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert cli("stats", "--json").json["runs"] == 2


def test_what_is_taken_over_stands_before_what_runs_now(cli: Command, repo: Path, tmp_path: Path) -> None:
    own = paths.history_file(os.path.realpath(repo))
    Path(own).parent.mkdir(parents=True)
    new = {**run(9, repo), "startedAt": "2026-11-01T09:00:00.000+00:00"}
    history.append_lines(own, json.dumps(new).encode() + b"\n")
    cli("import", runs(tmp_path / "claude", run(1, repo), run(2, repo)))
    cli("import", runs(tmp_path / "more", run(2, repo), run(3, repo)))
    assert [record["id"][:8] for record in history.read(own)] == ["00000001", "00000002", "00000003", "00000009"]
    assert [segment.name[18:] for segment in segments.listed(own)] == [
        "20260301T090500Z--20260302T090500Z.jsonl",
        "20260303T090500Z--20260303T090500Z.jsonl",
    ]


def test_a_long_history_is_cut_into_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LIMIT", 2000)
    monkeypatch.setattr(search, "SHORT", -1)
    own = str(tmp_path / "execution-history.jsonl")
    lines = []
    for number in range(1, 29):
        record = run(number, "/p", completedAt="2026-04-01T00:00:00+00:00")
        lines.append((history.from_iso(record["completedAt"]), history.to_line(record)))
    segments.insert(own, lines)
    assert len(segments.listed(own)) > 3 and sum(1 for _ in history.read(own)) == 28
    where = Paths({"HOME": str(tmp_path), "SCHEDULER_HOME": str(tmp_path / "state")})
    assert search.everything(where, own, history.from_iso("2026-12-01T00:00:00Z"))["runs"] == 28


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "neither a schedules.json nor a history"), ("[1]", "neither"), ('{"tasks": 1}', "neither")],
)
def test_another_file_is_refused(cli: Command, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "file").write_text(content)
    assert says in cli("import", tmp_path / "file", code=1).err


def test_without_anything_to_take_over(cli: Command) -> None:
    assert "there is no schedules.json" in cli("import", code=1).err
