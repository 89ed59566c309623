"""What the client's account does to runs: a usage limit is waited for; no login, no credit hold claude tasks back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import glance
from scheduler.disk import paths as places
from tests import repos
from tests.command import Command
from tests.puppet import Puppet, act, limited, refused
from tests.rig import Rig, rig, shell_task, soon, wait_until
from tests.runs import branch_tree, discarded_tree, nothing_left

EACH_SECOND = {"type": "interval", "every": 1}
LONG = 60.0  # seconds: a limit that does not end during the test


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, {"TZ": "UTC"}) as made:
        yield made


@pytest.fixture
def cli(own: Rig) -> Command:
    return Command(own.project, own.env)


@pytest.fixture
def puppet(tmp_path: Path) -> Puppet:
    return Puppet(tmp_path / "client")


def claude_task(task_id: str, **fields: Any) -> dict[str, Any]:
    execution = {"type": "claude", **fields.pop("execution", {})}
    return shell_task(task_id, "do it", execution=execution, **fields)


def waiting(own: Rig, run: str) -> dict[str, Any]:
    """The record of a run, once it waits."""
    look = lambda: [r for r in own.records() if r["id"] == run and r.get("reason") == "usage-limit"]  # noqa: E731
    return wait_until(look, what=f"for the wait of {run}\n{own.log()}")[0]


def place(own: Rig, run: str) -> tuple[str, dict[str, Any]]:
    """Phase and place of a run that `state.db` knows."""
    db = sqlite3.connect(own.paths.state_db)
    (row,) = db.execute("SELECT phase, place FROM runs WHERE run_id=?", (run,)).fetchall()
    db.close()
    return row[0], json.loads(row[1])


def matters(own: Rig, kind: str) -> list[dict[str, Any]]:
    entry = (glance.read(own.paths.glance) or {"projects": {}})["projects"].get(str(own.project), {"open": []})
    return [matter for matter in entry["open"] if matter["kind"] == kind]


def test_a_run_waits_for_the_end_of_a_limit_and_goes_on_where_it_was(own: Rig, cli: Command, puppet: Puppet) -> None:
    steps = {"precheck": "echo x >> $SCHEDULER_PROJECT/../prechecks", "verify": "test -f two.txt",
             "worktree": {"setup": "echo x >> $SCHEDULER_PROJECT/../setups"}}  # fmt: skip
    two = act(0.25, files={"two.txt": "2\n"}, seconds=0.5)
    puppet.plays(limited(6, 0.5, files={"one.txt": "1\n"}), two, task="job")
    own.enable(
        claude_task("job", execution=steps, policy={"retries": 1, "retryDelay": 0}),
        claude_task("other", trigger=EACH_SECOND),
        shell_task("free", "true", trigger=EACH_SECOND),
        client=str(puppet.path),
    )  # fmt: skip
    own.start()
    run = own.run("job")
    record = waiting(own, run)
    assert (record["status"], record.get("completedAt")) == ("running", None)
    ends = datetime.fromisoformat(record["resetsAt"])
    phase, where = place(own, run)
    assert (phase, where["waits"], where["resumeAt"]) == ("waiting", 1, record["resetsAt"])
    assert Path(record["worktreePath"], "one.txt").exists()
    final = own.record(run)
    assert (final["status"], final.get("reason"), final["attempt"]) == ("success", None, 1)
    assert datetime.fromisoformat(final["completedAt"]) > ends
    assert (final["costUsd"], final["turns"], final["startedAt"]) == (0.75, 2, record["startedAt"])
    assert {"one.txt", "two.txt"} <= branch_tree(own.project, final).keys()
    first, second = puppet.calls_for("job")
    assert f"--session-id={final['sessionId']}" in first["argv"]
    assert f"--resume={final['sessionId']}" in second["argv"]
    assert first["cwd"] == second["cwd"] == record["worktreePath"]
    assert "A usage limit stopped you" in second["prompt"] and "do it" not in second["prompt"]
    for file in ("prechecks", "setups"):
        assert (own.project.parent / file).read_text() == "x\n"
    skipped = [r for r in own.task_records("other") if r.get("reason") == "usage-limit"]
    counted = [
        r["skippedCount"] for r in skipped if "skippedCount" in r
    ]  # one that was queued already has a record alone
    assert {r["status"] for r in skipped} == {"skipped"} and len(counted) == 1 and counted[0] >= 2
    meanwhile = [
        r for r in own.task_records("free") if r["status"] == "success" and r["startedAt"] < final["completedAt"]
    ]
    assert meanwhile
    wait_until(lambda: [r for r in own.task_records("other") if r["status"] == "success"])
    wait_until(lambda: not matters(own, "usage-limit"))
    assert [r["attempt"] for r in own.task_records("job")] == [1]
    assert cli("status", "--json").json["spentToday"] == 0.75


def test_a_run_that_waits_for_a_limit_is_told(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(limited(3600))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    ends = datetime.fromisoformat(waiting(own, run)["resetsAt"])
    status = cli("status", "--json").json
    assert [w["runId"] for w in status["waiting"]] == [run]
    assert run not in [r["runId"] for r in status["running"]]
    assert "waits for a usage limit to end (You've hit your session limit)" in cli("status").out
    listed = cli("list")
    assert listed.out.splitlines()[1].split()[:3] == ["job", "job", "waits"]
    assert "claude tasks are kept back by a usage limit (You've hit your session limit)" in listed.err
    wait_until(lambda: matters(own, "usage-limit"))
    (matter,) = matters(own, "usage-limit")
    assert (matter["run"], matter["task"], matter["until"]) == (run[:8], "job", ends.timestamp())


def test_a_run_that_waits_is_told_without_a_runner_too(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(limited(LONG, files={"one.txt": "1\n"}), act())
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    record = waiting(own, run)
    assert f"wait until {record['resetsAt']} (usage-limit)" in cli("logs", "job").out
    own.stop()
    said = cli("history").err
    assert "what met a usage limit does not go on" in said and "has ended" not in said
    found = [one for one in cli("doctor", "--fix", "--json", code=None).json["findings"] if one["name"] == "history"]
    assert [one["text"] for one in found] == [f"1 run waiting, and no runner is at work: {run[:8]}"]
    cli("prune")
    own.git("gc", "-q", "--prune=now")
    own.git("worktree", "prune")
    assert Path(record["worktreePath"], "one.txt").exists()
    own.start()
    cli("resume")
    assert "one.txt" in branch_tree(own.project, own.record(run))


@pytest.mark.parametrize("why", ["pause", "budget", "quiet hours", "off switch"])
def test_a_run_says_what_it_waits_for_once_its_limit_is_over(own: Rig, cli: Command, puppet: Puppet, why: str) -> None:
    puppet.plays(limited(2, 0.25, files={"one.txt": "1\n"}), act(0.25))
    own.enable(claude_task("job", trigger={"type": "once", "at": soon(0.5)}), client=str(puppet.path))
    own.start()
    run = wait_until(lambda: [r["id"] for r in own.records() if r.get("reason") == "usage-limit"])[0]
    if why == "pause":
        cli("pause")
    elif why == "budget":
        own.settings(budgets={"perDay": 0.2})
    elif why == "quiet hours":
        begin, end = (datetime.now(timezone.utc) + timedelta(hours=hours) for hours in (-1, 2))
        own.settings(quietHours={"from": f"{begin:%H:%M}", "until": f"{end:%H:%M}"})
    else:
        Path(own.paths.off_switch).write_text("")
    awaited = {
        "pause": "its pause to end",
        "budget": "the budget of another day",
        "quiet hours": "the quiet hours to end",
        "off switch": "the off switch to be taken away",
    }[why]
    wait_until(lambda: f"met a usage limit, and waits for {awaited} before it goes on" in cli("status").out)
    assert [one["until"] for one in cli("status", "--json").json["waiting"]] == [None]
    assert len(puppet.calls) == 1
    if why == "pause":
        cli("resume")
    elif why == "off switch":
        Path(own.paths.off_switch).unlink()
    else:
        own.settings()
    final = own.record(run)
    assert (final["status"], final["costUsd"]) == ("success", 0.5)
    assert cli("status", "--json").json["spentToday"] == 0.5


def test_a_wait_survives_the_runner_and_protects_its_worktree(own: Rig, puppet: Puppet) -> None:
    puppet.plays(limited(3, files={"one.txt": "1\n"}), act(files={"two.txt": "2\n"}))
    own.enable(claude_task("job"), client=str(puppet.path))
    pid = own.start()
    run = own.run("job")
    record = waiting(own, run)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    own.start()
    assert Path(record["worktreePath"], "one.txt").exists()
    final = own.record(run)
    assert final["status"] == "success"
    assert {"one.txt", "two.txt"} <= branch_tree(own.project, final).keys()
    assert puppet.calls[1]["cwd"] == record["worktreePath"]
    nothing_left(own)


def test_a_runner_that_starts_after_the_limit_goes_on_at_once(own: Rig, puppet: Puppet) -> None:
    puppet.plays(limited(2), act(files={"two.txt": "2\n"}))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    waiting(own, run)
    own.stop()
    time.sleep(2)
    own.start()
    assert own.record(run)["status"] == "success"


@pytest.mark.parametrize("emptied", [False, True], ids=["gone", "emptied"])
def test_a_worktree_that_has_gone_is_made_again_at_its_path(own: Rig, puppet: Puppet, emptied: bool) -> None:
    puppet.plays(limited(3, files={"one.txt": "1\n"}), act(files={"two.txt": "2\n"}))
    setup = {"worktree": {"setup": "echo x >> $SCHEDULER_PROJECT/../setups"}}
    own.enable(claude_task("job", execution=setup), client=str(puppet.path))
    own.start()
    run = own.run("job")
    record = waiting(own, run)
    shutil.rmtree(record["worktreePath"])
    if emptied:
        os.mkdir(record["worktreePath"])
    final = own.record(run)
    assert final["status"] == "success"
    assert any("was gone when the run went on" in note for note in final["notes"])
    assert branch_tree(own.project, final).keys() == {".gitignore", "file.txt", "two.txt"}
    assert [call["cwd"] for call in puppet.calls] == [record["worktreePath"]] * 2
    assert (own.project.parent / "setups").read_text() == "x\nx\n"
    nothing_left(own)


@pytest.mark.parametrize("lost", ["what git knows of it", "its .git"])
def test_a_worktree_that_is_none_any_more_is_saved_as_that_of_a_failed_run(own: Rig, puppet: Puppet, lost: str) -> None:
    puppet.plays(limited(3, files={"one.txt": "1\n"}), act())
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    record = waiting(own, run)
    if lost == "its .git":
        Path(record["worktreePath"], ".git").unlink()
    else:
        shutil.rmtree(own.project / ".git" / "worktrees" / Path(record["worktreePath"]).name)
    final = own.record(run)
    assert (final["status"], final["reason"]) == ("failure", "worktree-failed")
    assert discarded_tree(own.project, final)["one.txt"][1] == b"1\n"


@pytest.mark.parametrize("then", ["its limit ends", "it is cancelled"])
def test_a_branch_that_its_user_has_taken_over_is_left_alone(own: Rig, cli: Command, puppet: Puppet, then: str) -> None:
    puppet.plays(limited(4, files={"one.txt": "1\n"}), act(files={"two.txt": "2\n"}))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    record = waiting(own, run)
    own.git("worktree", "remove", "--force", record["worktreePath"])
    own.git("switch", "-q", record["worktreeBranch"])
    (own.project / "mine.txt").write_text("mine\n")
    own.git("add", "mine.txt")
    own.git("commit", "-q", "-m", "mine")
    mine = own.git("rev-parse", "HEAD")
    if then == "it is cancelled":
        cli("cancel", run[:8])
    final = own.record(run)
    reason = "cancelled" if then == "it is cancelled" else "worktree-failed"
    assert (final["status"], final["reason"]) == ("failure", reason)
    assert [note for note in final["notes"] if f"the branch {record['worktreeBranch']} is checked out" in note]
    assert own.git("rev-parse", "HEAD") == mine
    assert own.git("status", "--porcelain", "--untracked-files=no") == ""
    assert own.git("symbolic-ref", "--short", "HEAD").strip() == record["worktreeBranch"]


def test_a_limit_that_refuses_again_is_waited_for_again(own: Rig, puppet: Puppet) -> None:
    puppet.plays(limited(2, 0.1), limited(4, 0.1), act(0.1, files={"made.txt": "x\n"}))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    final = own.run_to_end("job")
    assert (final["status"], final["turns"]) == ("success", 3)
    assert final["costUsd"] == pytest.approx(0.3)
    assert len(puppet.calls) == 3


def test_a_run_in_the_main_checkout_waits_too(own: Rig, puppet: Puppet) -> None:
    puppet.plays(limited(2), act(files={"made.txt": "x\n"}))
    own.enable(claude_task("job", execution={"worktree": {"enabled": False}}), client=str(puppet.path))
    own.start()
    final = own.run_to_end("job")
    assert (final["status"], final["isolated"]) == ("success", False)
    assert (own.project / "made.txt").exists() and puppet.calls[1]["cwd"] == str(own.project)


def test_nobody_else_works_in_the_main_checkout_while_a_run_waits_there(own: Rig, puppet: Puppet) -> None:
    here = {"enabled": False}
    puppet.plays(limited(3, files={"one.ignored": "1\n"}), act(files={"two.ignored": "2\n"}, seconds=0.5))
    own.enable(
        claude_task("job", worktree=here),
        shell_task("here", "ls *.ignored", worktree=here, trigger=EACH_SECOND),
        shell_task("asked", "ls *.ignored", worktree=here),
        shell_task("apart", "true", trigger=EACH_SECOND),
        client=str(puppet.path),
    )
    own.start()
    run = own.run("job")
    waiting(own, run)
    since = datetime.now(timezone.utc)
    asked = own.run("asked")
    final = own.record(run)
    assert final["status"] == "success" and own.record(asked)["status"] == "success"
    wait_until(lambda: [r for r in own.task_records("here") if r["startedAt"] >= final["completedAt"]])

    def began(task: str) -> list[datetime]:
        found = [r for r in own.task_records(task) if r["status"] != "skipped"]
        return [datetime.fromisoformat(r["startedAt"]) for r in found]

    ended = datetime.fromisoformat(final["completedAt"])
    assert [at for at in began("here") + began("asked") if since < at < ended] == []
    assert [at for at in began("apart") if since < at < ended]
    assert [r for r in own.task_records("here") if r.get("reason") == "overlap"]  # one waits, the others are skipped


def test_what_overlaps_by_queue_is_queued_and_what_is_asked_for_waits(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(limited(LONG), act(), task="job")
    patient = claude_task("patient", trigger=EACH_SECOND, policy={"overlap": "queue"})
    own.enable(claude_task("job"), patient, claude_task("asked"), client=str(puppet.path))
    own.start()
    first = own.run("job")
    waiting(own, first)
    asked = own.run("asked")
    queued = wait_until(
        lambda: q if len(q := [r for r in own.ask("status")["queued"] if r["taskId"] == "patient"]) >= 2 else None
    )
    assert asked in [r["runId"] for r in own.ask("status")["queued"]]
    assert puppet.calls_for("asked") == []
    assert "it will wait: kept back by a usage limit (You've hit" in cli("run", "asked").err
    cli("resume")
    for run in (first, asked, queued[0]["runId"]):
        assert own.record(run)["status"] == "success"
    assert "--resume" in " ".join(puppet.calls_for("job")[1]["argv"])


def test_a_run_that_waits_can_be_cancelled_and_its_work_is_kept(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(limited(LONG, files={"one.txt": "1\n"}))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    waiting(own, run)
    cli("cancel", run[:8])
    final = own.record(run)
    assert (final["status"], final["reason"]) == ("failure", "cancelled")
    assert final["error"] == "cancelled while it waited for a usage limit to end"
    assert discarded_tree(own.project, final)["one.txt"][1] == b"1\n"
    nothing_left(own)


def test_a_run_whose_task_is_removed_while_it_waits_is_given_up(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(limited(LONG, files={"one.txt": "1\n"}))
    own.enable(claude_task("job"), shell_task("rest", "true"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    waiting(own, run)
    cli("remove", "job")
    final = own.record(run)
    assert (final["status"], final["reason"]) == ("failure", "cancelled")
    assert "its task was removed" in final["error"] and "one.txt" in discarded_tree(own.project, final)


def test_a_runner_that_dies_before_it_has_written_that_all_wait_takes_nothing_back(own: Rig, puppet: Puppet) -> None:
    """The run is written down as waiting first: what follows from that is made up for at the next start."""
    puppet.plays(limited(LONG, files={"one.txt": "1\n"}), act(0.25))
    own.enable(claude_task("job"), client=str(puppet.path))
    pid = own.start()
    record = waiting(own, own.run("job"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    db = sqlite3.connect(own.paths.state_db, isolation_level=None)
    db.execute("DELETE FROM holds")
    own.start()
    (row,) = wait_until(lambda: db.execute("SELECT cause, until FROM holds").fetchall())
    db.close()
    assert row[0] == "usage-limit"
    assert datetime.fromisoformat(row[1]) == datetime.fromisoformat(record["resetsAt"])
    time.sleep(1.5)
    assert len(puppet.calls) == 1


def test_a_run_that_was_asked_for_in_spite_of_everything_goes_on_so(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(refused(500, "server_error", "no", 0.25), limited(2, 0.25, files={"one.txt": "1\n"}), act(0.25))
    own.enable(claude_task("job", enabled=False), client=str(puppet.path))
    own.settings(budgets={"perDay": 0.1})
    own.start()
    failed = own.run_to_end("job")
    cli("pause")
    run = cli("retry", failed["id"][:8], "--json").json["runId"]
    waiting(own, run)
    final = own.record(run)
    assert (final["status"], final["triggeredBy"], final["costUsd"]) == ("success", "retry", 0.5)


def test_a_run_that_waits_is_told_also_when_its_project_is_not_served(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(limited(LONG, files={"one.txt": "1\n"}), act(files={"two.txt": "2\n"}))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    waiting(own, run)
    file = Path(places.config_file(str(own.project)))
    approved = file.read_bytes()
    file.write_bytes(approved + b"\n")
    cli("resume")  # the limit is over, its config is not the approved one
    told = "met a usage limit, and waits for its project"
    assert f"{told}, which is suspended, before it goes on: 'cancel {run[:8]}'" in cli("status").out
    wait_until(lambda: [matter["run"] for matter in matters(own, "waiting")] == [run[:8]])
    cli("disable")
    assert f"{told} to be enabled before it goes on" in cli("status").out
    away = own.project.with_name("away")
    own.project.rename(away)
    elsewhere = Command(own.home, own.env)
    assert "not enabled, and gone" in elsewhere("status").out
    assert f"'cancel {run[:8]}' gives it up" in elsewhere("disable", "--project", str(own.project)).err
    assert f"{told} to be enabled before it goes on" in elsewhere("status").out
    away.rename(own.project)
    file.write_bytes(approved)
    puppet.logged_in(True)
    cli("enable", "--yes", PATH=f"{puppet.path.parent}:{own.env['PATH']}")
    final = own.record(run)
    assert final["status"] == "success" and {"one.txt", "two.txt"} <= branch_tree(own.project, final).keys()
    wait_until(lambda: not matters(own, "waiting"))


def test_a_project_whose_folder_is_gone_is_said_to_be(own: Rig, cli: Command) -> None:
    own.enable(shell_task("job", "true"))
    away = own.project.with_name("away")
    own.project.rename(away)
    elsewhere = Command(own.home, own.env)
    assert "its folder is not there any more: 'enable' it where it is now" in elsewhere("status").out
    away.rename(own.project)
    assert "not there" not in cli("status").out
    own.start()
    known = lambda: str(own.project) in (glance.read(own.paths.glance) or {"projects": {}})["projects"]  # noqa: E731
    wait_until(known)
    own.project.rename(away)
    assert "forgotten" in elsewhere("disable", "--project", str(own.project)).out
    wait_until(lambda: not known())


def test_a_run_that_changed_the_main_checkout_before_its_limit_does_not_wait(own: Rig, puppet: Puppet) -> None:
    puppet.plays(limited(LONG))
    git = "import subprocess; subprocess.run(['git', '-C', os.environ['SCHEDULER_PROJECT'], 'branch', 'mine'])"
    puppet.path.write_text(puppet.path.read_text().replace("time.sleep(", f"{git}\ntime.sleep("))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    final = own.run_to_end("job")
    assert (final["status"], final["reason"]) == ("failure", "containment")
    assert repos.git("branch", "--list", "mine", cwd=own.project)


@pytest.mark.parametrize(
    ("reason", "status", "kind", "said"),
    [
        ("auth", 401, "authentication_failed", "Failed to authenticate."),
        ("credit", 400, "billing_error", "Credit balance is too low"),
    ],
)
def test_without_login_or_credit_claude_tasks_wait_for_a_person(
    own: Rig, cli: Command, puppet: Puppet, reason: str, status: int, kind: str, said: str
) -> None:
    puppet.plays(refused(status, kind, said))
    policy = {"pauseAfterFailures": 1, "retries": 2, "retryDelay": 0}
    own.enable(
        claude_task("job", policy=policy), claude_task("often", trigger=EACH_SECOND, policy=policy),
        shell_task("free", "true", trigger=EACH_SECOND), client=str(puppet.path),
    )  # fmt: skip
    own.start()
    # A slow machine passes some over for overlap too, before the refusal is known.
    held = lambda: [r for r in own.task_records("often") if r.get("reason") == reason]  # noqa: E731
    wait_until(lambda: [r for r in held() if r.get("skippedCount", 0) >= 2])
    assert len([r for r in held() if r["status"] == "skipped"]) == 1
    assert len(puppet.calls) == 1
    (matter,) = wait_until(lambda: matters(own, reason))
    assert (matter["by"], matter["until"], matter["scope"]) == (said, None, "all")
    assert cli("status").out.count("the client said") == 1
    free = len(own.task_records("free"))
    wait_until(lambda: len(own.task_records("free")) > free)
    puppet.plays(act())
    if reason == "auth":
        cli("resume")
    else:  # a person tries, and it works
        assert own.run_to_end("job")["status"] == "success"
    wait_until(lambda: [r for r in own.task_records("often") if r["status"] == "success"])
    wait_until(lambda: not matters(own, reason))
    assert matters(own, "paused") == []


def test_what_holds_all_projects_back_is_said_once(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(refused(401, "authentication_failed", "Failed to authenticate."))
    own.enable(claude_task("job"), claude_task("one", trigger=EACH_SECOND), client=str(puppet.path))
    other = own.repository(own.project.parent / "other")
    two = claude_task("two", trigger={"type": "interval", "every": 2})
    own.enable(two, project=other, client=str(puppet.path))
    own.start()
    skipped = lambda: {r["taskId"]: r["skippedCount"] for r in own.records() if r.get("skippedCount")}  # noqa: E731
    counts = wait_until(lambda: found if len(found := skipped()) == 2 else None)
    said = cli("status").out
    assert said.count("the client said: Failed to authenticate.") == 1
    assert int(said.partition(" occurrences passed over")[0].split()[-1]) >= sum(counts.values())
    (found,) = [one for one in cli("doctor", "--json", code=None).json["findings"] if one["name"] == "pauses"]
    assert found["mend"] == "run `claude`, then /login: they go on by themselves then"


def test_a_rate_limit_without_an_end_is_waited_for_too(own: Rig, cli: Command, puppet: Puppet) -> None:
    said = "API Error: Request rejected (429)"
    puppet.plays(refused(429, "rate_limit", said, files={"one.txt": "1\n"}), act(files={"two.txt": "2\n"}))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    run = own.run("job")
    record = wait_until(lambda: [r for r in own.records() if r["id"] == run and r.get("reason") == "rate-limited"])[0]
    assert (record["status"], record["error"]) == ("running", said)
    after = datetime.fromisoformat(record["resetsAt"]).timestamp() - time.time()
    assert 50 < after <= 60
    assert [w["runId"] for w in cli("status", "--json").json["waiting"]] == [run]
    cli("resume")
    final = own.record(run)
    assert (final["status"], final.get("reason"), final["attempt"]) == ("success", None, 1)
    assert {"one.txt", "two.txt"} <= branch_tree(own.project, final).keys()


def test_after_a_login_claude_tasks_go_on_by_themselves(own: Rig, puppet: Puppet) -> None:
    puppet.logged_in(False)
    puppet.plays(refused(None, "authentication_failed", "Not logged in · Please run /login"))
    own.enable(claude_task("often", trigger=EACH_SECOND), client=str(puppet.path))
    own.start()
    wait_until(lambda: matters(own, "auth"))
    wait_until(lambda: [r for r in own.task_records("often") if r.get("skippedCount", 0) >= 2])
    assert len(puppet.calls) == 1
    puppet.plays(act())
    puppet.logged_in(True)
    wait_until(lambda: [r for r in own.task_records("often") if r["status"] == "success"])
    wait_until(lambda: not matters(own, "auth"))


def test_a_credential_that_was_refused_is_tried_again_when_it_changes(own: Rig, puppet: Puppet) -> None:
    puppet.logged_in(True)
    puppet.plays(refused(401, "authentication_failed", "Failed to authenticate. API Error: 401"))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    own.run_to_end("job")
    wait_until(lambda: matters(own, "auth"))
    time.sleep(3)  # the client is asked, and says that there is a login
    assert matters(own, "auth")
    credentials = Path(own.paths.credentials)
    credentials.parent.mkdir(parents=True, exist_ok=True)
    credentials.write_text("{}")
    wait_until(lambda: not matters(own, "auth"))


def test_enabling_with_a_login_lets_claude_tasks_go_on(own: Rig, cli: Command, puppet: Puppet) -> None:
    puppet.plays(refused(401, "authentication_failed", "Failed to authenticate."))
    own.enable(claude_task("job"), client=str(puppet.path))
    own.start()
    own.run_to_end("job")
    wait_until(lambda: matters(own, "auth"))
    for logged_in in (False, True):
        answer = json.dumps({"loggedIn": logged_in, "authMethod": "api_key" if logged_in else "none"})
        puppet.path.write_text(f"#!/bin/sh\necho '{answer}'\n")
        cli("enable", "--yes", PATH=f"{puppet.path.parent}:{own.env['PATH']}")
        wait_until(lambda held=not logged_in: bool(matters(own, "auth")) is held)


def test_the_hold_of_a_limit_is_as_long_as_the_longest(own: Rig, puppet: Puppet) -> None:
    puppet.plays(limited(2 * LONG, seconds=1), task="one")
    puppet.plays(limited(LONG, seconds=2), task="two")
    own.enable(claude_task("one"), claude_task("two"), client=str(puppet.path))
    own.start()
    runs = [own.run("one"), own.run("two")]
    records = [waiting(own, run) for run in runs]
    longest = max(datetime.fromisoformat(record["resetsAt"]).timestamp() for record in records)
    wait_until(lambda: len(matters(own, "usage-limit")) == 2)
    assert [matter["until"] for matter in matters(own, "usage-limit")] == [longest] * 2
    told = [datetime.fromisoformat(one["until"]).timestamp() for one in own.ask("status")["waiting"]]
    assert told == [longest] * 2
