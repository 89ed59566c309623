"""The folder of a project is moved, or copied, while a run of it is under way."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths as places
from tests import repos
from tests.command import Command
from tests.puppet import Puppet, limited
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import discarded_tree, nothing_left

WAIT = "echo work > made.txt; touch $HOME/begun; while ! test -e $HOME/go; do sleep 0.05; done"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def begin(own: Rig) -> str:
    """A run that is under way, and has made a file."""
    own.enable(shell_task("job", WAIT))
    own.start()
    run = own.run("job")
    wait_until((own.home / "begun").exists)
    return run


def here(own: Rig, root: Path, run: str) -> dict[str, Any]:
    return next(record for record in own.records(root) if record["id"] == run)


@pytest.mark.parametrize("runner", ["lives", "killed"])
def test_the_record_and_the_work_of_a_run_are_put_right_where_the_project_is_now(
    own: Rig, tmp_path: Path, runner: str
) -> None:
    run = begin(own)
    new = tmp_path / "elsewhere"
    own.project.rename(new)
    if runner == "killed":
        own.kill()
        wait_until(lambda: control_gone(own))
    (own.home / "go").touch()
    if runner == "lives":
        own.record(run)
    assert here(own, new, run)["status"] == "running"
    own.enable(shell_task("job", "true"), project=new)
    own.start()
    final = wait_until(lambda: found if (found := here(own, new, run))["status"] != "running" else None)
    assert (final["status"], final["reason"]) == ("failure", "not-kept" if runner == "lives" else "crashed")
    assert final["project"] == str(new) and "its project was moved while it ran" in final["notes"][0]
    assert discarded_tree(new, final)["made.txt"][1] == b"work\n"
    assert own.record(run) == final
    nothing_left(own, new)
    repos.works_for_its_user(new)
    said = Command(new, own.env)("adopt", run[:8]).out
    assert "is on the branch adopted/job-" in said


@pytest.mark.parametrize("runner", ["lives", "killed"])
def test_a_run_that_waits_for_a_usage_limit_ends_where_the_project_is_now(
    own: Rig, tmp_path: Path, runner: str
) -> None:
    puppet = Puppet(tmp_path / "client")
    puppet.plays(limited(3600, 0.25, files={"made.txt": "work\n"}))
    task = shell_task("job", "do it", execution={"type": "claude"})
    own.enable(task, client=str(puppet.path))
    own.start()
    run = own.run("job")
    wait_until(lambda: [r for r in own.records() if r["id"] == run and r.get("reason") == "usage-limit"])
    new = tmp_path / "elsewhere"
    own.project.rename(new)
    if runner == "killed":
        own.kill()
        wait_until(lambda: control_gone(own))
    own.enable(task, project=new, client=str(puppet.path))
    own.start()
    final = own.record(run)
    assert (final["status"], final["reason"], final["project"]) == ("failure", "cancelled", str(new))
    assert final["error"] == "its project was moved while it waited for a usage limit to end"
    assert discarded_tree(new, final)["made.txt"][1] == b"work\n"
    assert here(own, new, run) == final
    status = Command(own.home, own.env)("status", "--json").json
    assert (status["waiting"], status["spentToday"], len(puppet.calls)) == ([], 0.25, 1)
    nothing_left(own, new)


def control_gone(own: Rig) -> bool:
    try:
        return bool(Command(own.home, own.env)("status", "--json").json["runner"] is None)
    except AssertionError:
        return False


def test_a_copy_learns_how_the_run_ended_and_changes_nothing_of_it(own: Rig, tmp_path: Path) -> None:
    run = begin(own)
    copy = tmp_path / "copy"
    shutil.copytree(own.project, copy, symlinks=True)
    (own.home / "go").touch()
    final = own.record(run)
    assert final["status"] == "success"
    own.enable(shell_task("job", "true"), project=copy)
    assert wait_until(lambda: found if (found := here(own, copy, run))["status"] != "running" else None) == final
    assert own.record(run) == final and here(own, own.project, run) == final
    assert "commit" in final and final["worktreeBranch"] in repos.branches(own.project)


@pytest.mark.parametrize("known", [True, False], ids=["who knows where it is", "who does not"])
def test_a_history_that_came_with_a_repository_moves_no_folder(own: Rig, tmp_path: Path, known: bool) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    forged = {
        "id": str(uuid.uuid4()), "taskId": "job", "taskName": "job", "isolated": True, "attempt": 1,
        "project": str(own.project) if known else "/gone",
        "startedAt": "2026-11-01T00:00:00.000+00:00", "status": "running", "triggeredBy": "schedule",
        "worktreePath": str(precious), "worktreeBranch": "main",
        "baseCommit": repos.git("rev-parse", "HEAD", cwd=own.project).strip(),
        "runner": {"host": "h", "pid": 1, "version": "0"},
    }  # fmt: skip
    file = Path(places.history_file(str(own.project)))
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(forged) + "\n")
    own.enable(shell_task("job", "true"))
    own.start()
    assert own.run_to_end("job")["status"] == "success"
    assert os.listdir(precious) == ["file"]
    assert "main" in repos.branches(own.project)
    repos.works_for_its_user(own.project)
