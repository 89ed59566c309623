from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths
from scheduler.disk.paths import Paths
from scheduler.execution.refs import DISCARDED
from scheduler.store import trust
from tests.command import Command, environment

NOW = datetime.now(timezone.utc)
OLD = NOW - timedelta(days=40)


@pytest.fixture
def cli(tmp_path: Path, home: Path, repo: Path) -> Command:
    """A project that is known, with a config."""
    made = Command(repo, environment(home, tmp_path / "state", CLAUDE_CONFIG_DIR=str(tmp_path / "claude")))
    file = Path(paths.config_file(str(repo)))
    file.parent.mkdir(parents=True)
    file.write_text('{"version": 1, "tasks": []}')
    where = Paths(made.env)
    root = os.path.realpath(repo)
    with trust.lock(where):
        trust.write(where, {root: trust.Project(root, True, "", None, "now")})
    return made


def run(number: int, status: str = "success", *, ended: datetime = OLD, **more: Any) -> dict[str, Any]:
    return {
        "id": f"{number:08x}-0000-4000-8000-000000000000", "taskId": "a", "taskName": "A", "project": "/p",
        "startedAt": ended.isoformat(), "completedAt": ended.isoformat(), "status": status, **more,
    }  # fmt: skip


def put(repo: Path, *runs: dict[str, Any]) -> None:
    file = Path(paths.history_file(os.path.realpath(repo)))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.writelines(json.dumps(one) + "\n" for one in runs)


def touch(path: Path, size: int = 1000, at: datetime = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (at.timestamp(),) * 2)
    return path


def everything(cli: Command) -> set[str]:
    """All files, branches and refs of the test, without what every call makes anew."""
    root = cli.folder.parent
    found = {str(path.relative_to(root)) for path in root.rglob("*") if ".git" not in path.parts}
    return {name for name in found if not name.startswith(("state/state.db", "state/upkeep.lock", "state/index.db"))}


@pytest.fixture
def left(cli: Command, repo: Path, git: Any) -> Iterator[dict[str, str]]:
    """What many runs left: name in the test -> what `prune` calls it; only those that begin with `old` may go."""
    root, where = Path(os.path.realpath(repo)), Paths(cli.env)
    logs = Path(paths.logs_folder(str(root)))
    found = {"old log": str(touch(logs / "a.log"))}
    touch(logs / "b.log", at=NOW)
    touch(root / "notes.log")

    def branch(number: int, *, commit: bool = True, **more: Any) -> str:
        name = f"claude-task/a-20261201T0200-{number:08x}"
        git("branch", name, cwd=repo)
        if commit:
            git("switch", "-q", name, cwd=repo)
            git("commit", "-q", "--allow-empty", "-m", name, cwd=repo)
            git("switch", "-q", "main", cwd=repo)
        put(repo, run(number, worktreeBranch=name, **more))
        return name

    found["old branch"] = branch(1)
    git("merge", "-q", "--no-ff", "-m", "review", found["old branch"], cwd=repo)
    found["new branch"] = branch(2)
    found["running branch"] = branch(3, commit=False, status="running")
    git("branch", "claude-task/a-20261201T0200-0000dead", cwd=repo)  # merged, but of no run that is known
    git("branch", "feature", cwd=repo)

    def ref(number: int, ended: datetime | None) -> str:
        tip = git("commit-tree", "-m", f"{number}", "HEAD^{tree}", cwd=repo)
        name = f"{DISCARDED}{run(number)['id']}"
        git("update-ref", name, tip, cwd=repo)
        if ended is not None:
            put(repo, run(number, "failure", ended=ended, discardedRef=name))
        return name

    found["old ref"] = ref(4, OLD)
    found["new ref"] = ref(5, NOW - timedelta(days=29))
    found["unknown ref"] = ref(6, None)
    aside = Path(where.worktrees, "repo-0a1b2c3d", ".trash", "a-00000001.123", "file")
    found["old worktree"] = str(touch(aside).parent)
    slug = "".join(char if char.isalnum() else "-" for char in f"{where.worktrees}/repo-0a1b2c3d/a-")
    projects = Path(where.claude, "projects")
    found["old transcripts"] = str(touch(projects / f"{slug}00000001" / "session.jsonl").parent)
    touch(projects / f"{slug}00000002" / "session.jsonl", at=NOW)
    touch(projects / f"{slug}00000003" / "session.jsonl")
    Path(where.worktrees, "repo-0a1b2c3d", "a-00000003").mkdir()
    touch(projects / f"{slug}notours" / "session.jsonl")
    touch(projects / "-home-somebody" / "session.jsonl")
    yield found


def test_what_may_go_is_told_and_stays(cli: Command, left: dict[str, str], git: Any, repo: Path) -> None:
    before, refs = everything(cli), git("for-each-ref", cwd=repo)
    told = cli("prune", "--dry-run", "--json").json
    (note,) = told["notes"]
    assert not told["removed"] and "a-00000003 stays: it is of no project that is known" in note
    assert {item["what"] for item in told["items"]} == {what for name, what in left.items() if name.startswith("old")}
    assert {item["kind"] for item in told["items"]} == {"log", "branch", "ref", "worktree", "transcripts"}
    sizes = {item["kind"]: item["bytes"] for item in told["items"]}
    assert 0 < sizes.pop("ref") < 1000
    assert sizes == {"log": 1000, "branch": 0, "worktree": 1000, "transcripts": 1000}
    said = cli("prune", "--dry-run").out
    assert said.splitlines()[-1].startswith("5 things would go, 3.")
    assert everything(cli) == before and git("for-each-ref", cwd=repo) == refs


def test_what_may_go_goes_and_nothing_else(cli: Command, left: dict[str, str], git: Any, repo: Path) -> None:
    """F29."""
    before, refs = everything(cli), set(git("for-each-ref", "--format=%(refname)", cwd=repo).splitlines())
    assert cli("prune").out.splitlines()[-1].startswith("5 things removed, 3.")
    gone = {name for name in before - everything(cli) if not name.endswith(("session.jsonl", "/file"))}
    base = cli.folder.parent
    files = [os.path.relpath(left[name], base) for name in ("old log", "old worktree", "old transcripts")]
    assert gone == set(files)
    assert refs - set(git("for-each-ref", "--format=%(refname)", cwd=repo).splitlines()) == {
        f"refs/heads/{left['old branch']}", left["old ref"],
    }  # fmt: skip
    assert cli("prune").out == "0 things removed, 0 B\n"


def test_a_branch_that_somebody_is_on_stays(cli: Command, left: dict[str, str], git: Any, repo: Path) -> None:
    git("worktree", "add", "-q", str(repo.parent / "mine"), left["old branch"], cwd=repo)
    assert left["old branch"] not in cli("prune").out
    assert git("rev-parse", "--verify", left["old branch"], cwd=repo)


def test_what_a_private_ref_alone_holds_is_its_size(cli: Command, left: dict[str, str], git: Any, repo: Path) -> None:
    (repo / "big").write_bytes(os.urandom(100_000))
    git("add", "big", cwd=repo)
    tree = git("write-tree", cwd=repo)
    git("update-ref", left["old ref"], git("commit-tree", "-p", "HEAD", "-m", "work", tree, cwd=repo), cwd=repo)

    def size() -> int:
        return next(
            item["bytes"] for item in cli("prune", "--dry-run", "--json").json["items"] if item["kind"] == "ref"
        )

    assert 100_000 < size() < 102_000
    git("branch", "adopted", left["old ref"], cwd=repo)
    assert size() == 0


def test_worktrees_that_stay_are_told(cli: Command, left: dict[str, str], git: Any, repo: Path) -> None:
    """F29."""
    folder = Path(Paths(cli.env).worktrees)
    here, gone = (folder / "repo-0a1b2c3d" / f"a-{name}" for name in ("0000000a", "0000000b"))
    for tree in (here, gone):
        git("worktree", "add", "-q", "--detach", str(tree), cwd=repo)
    shutil.rmtree(gone)
    strange = folder / "other-0a1b2c3d" / "b-0000000c"
    strange.mkdir(parents=True)
    notes = cli("prune", "--json").json["notes"]
    assert [note for note in notes if f"{here} stays: 'show 0000000a' says why" in note]
    assert [note for note in notes if f"{gone} is gone, but git knows it still" in note]
    assert [note for note in notes if f"{strange} stays: it is of no project that is known" in note]
    assert here.exists() and strange.exists()


def test_a_project_that_is_gone_holds_up_nothing(cli: Command, left: dict[str, str], tmp_path: Path) -> None:
    where = Paths(cli.env)
    with trust.lock(where):
        known = trust.read(where)
        trust.write(where, {**known, "/gone": trust.Project("/gone", True, "", None, "now")})
    said = cli("prune")
    assert "5 things removed" in said.out and "/gone is left as it is" in said.err


def test_a_config_that_is_not_approved_does_not_decide(cli: Command, left: dict[str, str], repo: Path) -> None:
    Path(paths.config_file(str(repo))).write_text('{"version": 1, "settings": {"logDays": 99999}, "tasks": []}')
    assert "5 things would go" in cli("prune", "--dry-run").out


def test_inside_a_run_it_is_refused(cli: Command) -> None:
    said = cli("prune", code=1, SCHEDULER_RUN_ID="00000001-0000-4000-8000-000000000000")
    assert "refused inside a scheduled run" in said.err
