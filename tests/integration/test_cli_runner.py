"""The verbs that talk to a living runner, and what they leave of a run's work: all against a real one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import glance, paths
from scheduler.runner import control
from tests.command import PACKAGE, Command, environment
from tests.rig import Rig, rig, wait_until

NEVER = ["--cron", "0 0 29 2 *"]


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def cli(living: Rig) -> Command:
    return Command(living.project, environment(living.home, Path(living.paths.state), PATH=living.env["PATH"]))


def add(cli: Command, name: str, shell: str, *words: str) -> None:
    cli("add", name, *NEVER, "--shell", shell, *words)


def enabled(cli: Command) -> Command:
    cli("enable", "--yes")
    return cli


def of(said: Any) -> str:
    return str(said.json["id"])


def test_start_stop_restart(cli: Command, living: Rig) -> None:
    add(cli, "a", "true")
    assert cli("enable", "--yes", "--no-start", "--json").json["runner"] is None
    assert cli("stop").out == "no runner was at work\n"
    first = cli("start", "--json").json["pid"]
    assert cli("start", "--json").json["pid"] == first
    second = cli("restart", "--json").json["pid"]
    assert second != first
    assert control.request(living.paths, {"verb": "status"})
    assert cli("stop", "--json").json == {"stopped": True}
    assert control.request(living.paths, {"verb": "status"}) is None


def test_a_runner_that_cannot_start_says_why(cli: Command, living: Rig) -> None:
    Path(living.paths.state).mkdir(parents=True)
    Path(living.paths.state_db).mkdir()
    said = cli("start", code=1)
    assert said.err.startswith("error: the runner did not start") and living.paths.runner_log in said.err


def test_two_who_restart_it_at_once_wait_for_the_run_and_both_come_to_an_end(cli: Command, living: Rig) -> None:
    go = living.project.parent / "go"
    add(cli, "slow", f"until [ -e {go} ]; do sleep 0.05; done")
    enabled(cli)
    cli("run", "slow")
    wait_until(lambda: living.ask("status")["running"])
    before = living.ask("status")["pid"]
    argv = [sys.executable, "-I", str(PACKAGE), "restart"]
    both = [
        subprocess.Popen(argv, cwd=living.project, env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for one in both:
        assert one.stderr and one.stderr.readline().startswith(b"waiting for 1 run: slow")
    go.touch()
    assert [one.wait(60) for one in both] == [0, 0]
    for one in both:
        one.communicate()
    assert living.ask("status")["pid"] != before
    assert [record["status"] for record in living.records()] == ["success"]


def test_a_change_reaches_a_living_runner(cli: Command, living: Rig) -> None:
    add(cli, "a", "true")
    enabled(cli)
    add(cli, "b", "true")
    assert cli("run", "b", "--wait", "--json").json["status"] == "success"
    cli("disable")
    assert "not enabled" in cli("run", "b", code=1).err
    wait_until(lambda: living.ask("status")["next"] == [])


def test_work_that_is_kept(cli: Command, living: Rig) -> None:
    add(cli, "Good", "echo two >> file.txt; echo new > new.txt; echo done", "--precheck", "test -e file.txt")
    enabled(cli)
    run = cli("run", "good", "--wait", "--json").json
    assert (run["status"], run["filesChanged"], run["triggeredBy"]) == ("success", 2, "manual")
    short = run["id"][:8]
    assert "waits for review" in cli("status").out
    said = cli("diff", short)
    assert "+two" in said.out and "new.txt" in said.out
    assert cli("diff", short, "--json").json["tip"] == run["commit"]
    subprocess.run(["git", "apply", "--check"], input=said.out, text=True, cwd=living.project, check=True)
    assert "already" in cli("adopt", short, code=1).err
    (living.project / "file.txt").write_text("mine\n")
    assert "uncommitted changes" in cli("merge", short, code=1).err
    assert (living.project / "file.txt").read_text() == "mine\n"
    living.git("checkout", "-q", "file.txt")
    assert cli("merge", short, "--json").json["branch"] == run["worktreeBranch"]
    assert "is already merged" in cli("merge", short).out
    assert (living.project / "new.txt").read_text() == "new\n"
    assert "waits for review" not in cli("status").out
    assert run["worktreeBranch"] in cli("discard", short, "--yes").out
    assert living.git("branch", "--list", "claude-task/*") == ""
    assert "had left nothing" in cli("discard", short, "--yes").out


def test_work_that_was_rolled_back(cli: Command, living: Rig) -> None:
    add(cli, "Bad", "echo oops >&2; echo half > half.txt; exit 3")
    enabled(cli)
    said = cli("run", "bad", "--wait", code=1)
    assert re.search(r"^status +✗ failure \(exit-code\)$", said.out, re.MULTILINE)
    run = cli("history", "--json").json[0]
    short = run["id"][:8]
    assert cli("logs", "bad", "--error", "--run", short).out.endswith("oops\n")
    assert "+half" in cli("diff", short).out
    assert f"'adopt {short}'" in cli("merge", short, code=1).err
    adopted = cli("adopt", short, "--json").json
    assert adopted["branch"] == f"adopted/bad-{short}"
    assert living.git("show", f"{adopted['branch']}:half.txt") == "half\n"
    assert "give another name with --branch" in cli("adopt", short, code=1).err
    assert "is no name for a branch" in cli("adopt", short, "--branch", "-D", code=1).err
    again = cli("retry", short, "--wait", "--json", code=1).json
    assert (again["triggeredBy"], again["taskId"]) == ("retry", "bad") and again["id"] != run["id"]
    assert "say yes" in cli("discard", short, code=1).err
    cli("discard", short, "--yes", "--json")
    assert "left no work" in cli("diff", short, code=1).err
    assert "nothing is kept" in cli("adopt", short, "--branch", "again", code=1).err


def test_a_run_that_changed_nothing_has_nothing_to_show(cli: Command) -> None:
    add(cli, "Idle", "echo looked")
    enabled(cli)
    run = cli("run", "idle", "--wait", "--json").json
    assert run["reason"] == "no-changes"
    short = run["id"][:8]
    assert "left no work" in cli("diff", short, code=1).err
    assert "has no branch" in cli("merge", short, code=1).err
    assert "no run 'ffff'" in cli("result", "ffff", code=1).err


def test_the_closing_answer(cli: Command, living: Rig) -> None:
    add(cli, "a", "echo x")
    enabled(cli)
    run = cli("run", "a", "--wait", "--json").json
    path = living.project / ".omc/scheduler/logs/results" / f"{run['id']}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("# Done\n\x1b[2Jall of it\n")
    assert cli("result", run["id"][:8]).out == "# Done\nall of it\n"
    assert cli("result", run["id"], "--json").json == {"runId": run["id"], "text": "# Done\n\x1b[2Jall of it\n"}
    path.unlink()
    assert "has no answer: it ended as success" in cli("result", run["id"], code=1).err


def test_what_runs_is_seen_and_cancelled(cli: Command, living: Rig) -> None:
    add(cli, "Slow", "echo started; echo x > x.txt; sleep 60")
    enabled(cli)
    run_id = cli("run", "slow", "--json").json["runId"]
    wait_until(lambda: "started" in cli("logs", "slow", code=None).out)
    status = cli("status", "--json").json
    assert [one["runId"] for one in status["running"]] == [run_id]
    assert run_id[:8] in cli("status").out
    for verb in ("diff", "merge", "adopt"):
        assert "still under way" in cli(verb, run_id[:8], code=1).err
    assert "has not ended" in cli("result", run_id[:8], code=1).err
    assert cli("cancel", run_id[:6], "--json").json == {"cancelled": run_id, "task": "slow"}
    record = living.record(run_id)
    assert (record["status"], record["reason"]) == ("failure", "cancelled")
    assert "nothing runs" in cli("cancel", run_id[:8], code=1).err
    assert "+x" in cli("diff", run_id[:8]).out
    cli("stop")
    assert "no runner is at work" in cli("cancel", run_id[:8], code=1).err


def test_stop_waits_and_stop_now_does_not(cli: Command, living: Rig) -> None:
    add(cli, "Slow", "echo started; sleep 60")
    enabled(cli)
    run_id = cli("run", "slow", "--json").json["runId"]
    wait_until(lambda: "started" in cli("logs", "slow", code=None).out)
    argv = [sys.executable, "-I", str(PACKAGE), "stop"]
    waiting = subprocess.Popen(argv, cwd=cli.folder, env=cli.env, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("waiting for 1 run: slow (")
    assert "is stopping" in cli("status").out
    assert waiting.poll() is None
    cli("stop", "--now")
    assert waiting.wait(30) == 0
    waiting.stderr.close()
    assert living.record(run_id)["reason"] == "cancelled"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "alpah"], "did you mean alpha?"),
        (["retry", "ffff"], "no run 'ffff'"),
        (["run", "broken"], "is suspended"),
    ],
)
def test_what_cannot_run_is_told_at_once(cli: Command, living: Rig, words: list[str], says: str) -> None:
    add(cli, "alpha", "true")
    path = living.project / ".omc/scheduler/config.json"
    raw = json.loads(path.read_text())
    raw["tasks"].append({"id": "broken"})
    path.write_text(json.dumps(raw))
    cli("enable", "--yes", "--no-start")
    assert says in cli(*words, code=1).err


def test_an_unapproved_config_does_not_run(cli: Command, living: Rig) -> None:
    add(cli, "a", "true")
    enabled(cli)
    path = living.project / ".omc/scheduler/config.json"
    path.write_text(path.read_text().replace('"true"', '"echo evil"'))
    assert "not the one that was approved" in cli("run", "a", code=1).err
    said = cli("status")
    assert "SUSPENDED" in said.out and "'enable' shows it" in said.out


def test_status_names_what_is_wrong_in_a_config(cli: Command, living: Rig) -> None:
    folder = living.project / ".omc/scheduler"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"version": 1, "tasks": [{"id": "a"}]}')
    cli("enable", "--yes", "--no-start")
    said = cli("status").out
    assert f"a task is suspended: {folder}/config.json:1: tasks[0].name: is missing" in said
    assert not re.search(r" config$", said, re.MULTILINE)
    known = glance.read(living.paths.glance) or {}
    assert [matter["kind"] for matter in known["projects"][str(living.project)]["open"]] == ["config"]


def test_status_tells_of_damaged_lines_of_a_history_once(cli: Command, living: Rig) -> None:
    """A2"""
    add(cli, "a", "true")
    file = Path(paths.history_file(str(living.project)))
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b'{"id": "torn\n\nnot a record\n')
    said = cli("status")
    assert said.err.count("2 damaged lines in this history, passed over") == 1
    assert cli("status", "--json").json["projects"][0]["damagedLines"] == 2
    file.unlink()
    assert "damaged" not in cli("status").err


def test_status_without_a_runner(cli: Command, living: Rig, tmp_path: Path) -> None:
    said = cli("status")
    assert said.out == "no runner is at work\n" and "there are no tasks yet" in said.err
    add(cli, "a", "true")
    assert "not enabled (1 task): 'enable' shows" in cli("status").out
    cli("enable", "--yes", "--no-start")
    said = cli("status")
    assert "1 of 1 task active" in said.out and "start it: 'start'" in said.err
    assert re.search(r"^project +a +\w+ \d{4}-02-2[89]", said.out, re.MULTILINE)
    cli.folder = tmp_path
    status = cli("status", "--json").json
    assert status["runner"] is None and status["coming"][0]["task"] == "a"
    assert [entry["root"] for entry in status["projects"]] == [str(living.project)]
    assert cli("status", "--json", "--project", living.project).json["projects"] == status["projects"]


def test_a_run_whose_runner_dies_is_not_waited_for(cli: Command, living: Rig) -> None:
    add(cli, "Slow", "echo started; sleep 60")
    enabled(cli)
    pid = cli("status", "--json").json["runner"]["pid"]
    argv = [sys.executable, "-I", str(PACKAGE), "run", "slow", "--wait"]
    waiting = subprocess.Popen(argv, cwd=cli.folder, env=cli.env, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: "started" in cli("logs", "slow", code=None).out)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    _, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 1 and "the runner is gone" in said
    cli("start")
    wait_until(lambda: cli("history", "--json").json[0]["reason"] == "crashed")
