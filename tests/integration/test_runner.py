"""The runner as a process: one at a time, started and stopped, on time, fair, and true about what it skips."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths as places
from scheduler.execution import overview
from scheduler.runner import control
from scheduler.store import trust
from scheduler.store.state import Known, State
from tests.command import Command
from tests.rig import Rig, rig, shell_task, soon, wait_until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_one_runner_however_many_are_started(own: Rig) -> None:
    pid = own.start()
    others = [
        subprocess.Popen(
            [sys.executable, "-I", control.package_folder(), "runner"], env=own.env, stderr=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    assert [other.wait(30) for other in others] == [0] * 4
    assert own.ask("status")["pid"] == pid


def test_it_is_detached_and_its_socket_is_private(own: Rig) -> None:
    pid = own.start()
    assert os.getsid(pid) != os.getsid(0)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert stat.S_IMODE(os.stat(own.paths.runner_sock).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(own.paths.state).st_mode) == 0o700


def test_a_socket_path_longer_than_the_system_allows(tmp_path: Path) -> None:
    with rig(tmp_path / ("long-" * 30)) as own:
        assert len(own.paths.runner_sock) > 108
        assert own.start() > 0


def test_a_once_task_runs_on_time_and_never_again(own: Rig) -> None:
    own.enable(shell_task("once", "echo done > made", trigger={"type": "once", "at": soon(1.5)}))
    own.start()
    record = wait_until(lambda: [r for r in own.task_records("once") if r["status"] == "success"])[0]
    late = datetime.fromisoformat(record["startedAt"]) - datetime.fromisoformat(record["scheduledFor"])
    assert timedelta(0) <= late < timedelta(seconds=5)
    assert record["triggeredBy"] == "schedule"
    own.stop()
    own.start()
    time.sleep(1.2)
    assert len(own.task_records("once")) == 1
    state = State(own.paths.state_db, datetime.now(timezone.utc))
    assert state.tasks(str(own.project))["once"].done_at is not None
    state.close()


def test_a_task_added_while_it_runs_is_noticed(own: Rig) -> None:
    own.enable(shell_task("first", "true"))
    own.start()
    own.enable(shell_task("first", "true"), shell_task("new", "true", trigger={"type": "once", "at": soon(2.5)}))
    wait_until(lambda: own.task_records("new"), 10)


def test_a_config_that_changed_without_approval_suspends_its_project(own: Rig) -> None:
    own.enable(shell_task("job", "echo approved > made"))
    own.start()
    file = Path(places.config_file(str(own.project)))
    approved = file.read_bytes()
    file.write_bytes(approved.replace(b"echo approved", b"echo injected"))
    with pytest.raises(Exception, match="not the one that was approved"):
        own.run("job")
    assert own.ask("status")["suspended"]
    file.write_bytes(approved)
    assert own.run_to_end("job")["status"] == "success"


def test_a_clone_inherits_no_approval(own: Rig, tmp_path: Path) -> None:
    own.enable(shell_task("job", "true"))
    own.git("add", "-A")
    own.git("commit", "-q", "-m", "config")
    clone = tmp_path / "clone"
    own.git("clone", "-q", str(own.project), str(clone))
    own.start()
    with pytest.raises(Exception, match="not enabled"):
        own.ask("run", project=os.path.realpath(clone), task="job")


def slow(task_id: str, overlap: str) -> dict[str, Any]:
    return shell_task(task_id, "sleep 2", policy={"overlap": overlap}, trigger={"type": "interval", "every": 1})


def test_overlap_skip_is_on_record_with_its_reason(own: Rig) -> None:
    own.enable(slow("job", "skip"))
    own.start()
    skipped = wait_until(lambda: [r for r in own.task_records("job") if r["status"] == "skipped"])[0]
    assert skipped["reason"] == "overlap" and skipped["scheduledFor"] and skipped["completedAt"]


def test_overlap_queue_runs_one_after_the_other(own: Rig) -> None:
    own.settings(maxConcurrent=4)
    own.enable(slow("job", "queue"))
    own.start()

    def ended() -> list[dict[str, Any]]:
        return [r for r in own.task_records("job") if r["status"] == "success"]

    first, second = wait_until(lambda: ended() if len(ended()) >= 2 else None)[:2]
    assert second["startedAt"] >= first["completedAt"]


def test_overlap_cancel_running_stops_the_run_before(own: Rig) -> None:
    own.enable(slow("job", "cancel-running"))
    own.start()
    cancelled = wait_until(lambda: [r for r in own.task_records("job") if r.get("reason") == "cancelled"])[0]
    assert cancelled["status"] == "failure"


def test_no_more_runs_at_once_than_allowed(own: Rig) -> None:
    own.settings(maxConcurrent=2)
    own.enable(*[shell_task(f"job{i}", "sleep 1") for i in range(5)])
    own.start()
    runs = [own.run(f"job{i}") for i in range(5)]
    seen = 0
    while not all(any(r["id"] == run and r["status"] == "success" for r in own.records()) for run in runs):
        seen = max(seen, len(own.ask("status")["running"]))
        time.sleep(0.05)
    assert seen == 2


def test_stop_waits_for_runs_and_stop_now_cancels_them(own: Rig) -> None:
    own.enable(shell_task("job", "sleep 1.5; echo x > made"))
    pid = own.start()
    run = own.run("job")
    wait_until(lambda: own.ask("status")["running"])
    own.stop(at_once=False)
    assert own.record(run)["status"] == "success"
    wait_until(lambda: gone(pid))
    own.start()
    run = own.run("job")
    wait_until(lambda: own.ask("status")["running"])
    own.stop(at_once=True)
    assert (own.record(run)["status"], own.record(run)["reason"]) == ("failure", "cancelled")


def test_sighup_has_every_config_read_again(own: Rig) -> None:
    """B7: also one whose times and size tell of no change."""
    own.enable(shell_task("job", "echo one", trigger={"type": "once", "at": soon(3600)}))
    pid = own.start()
    wait_until(lambda: own.ask("status")["next"])
    file = Path(places.config_file(str(own.project)))
    info, data = file.stat(), file.read_bytes()
    with file.open("r+b") as same:
        same.write(data.replace(b"echo one", b"echo two"))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    time.sleep(2.5)  # it looks each second
    assert not own.ask("status")["suspended"]
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: own.ask("status")["suspended"])


def test_sigterm_waits_for_the_run_and_sighup_reloads(own: Rig) -> None:
    """B7."""
    own.enable(shell_task("job", "sleep 1; echo x > made"))
    pid = own.start()
    os.kill(pid, signal.SIGHUP)
    run = own.run("job")
    wait_until(lambda: own.ask("status")["running"])
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: gone(pid))
    assert own.record(run)["status"] == "success"
    assert not os.path.exists(own.paths.runner_sock)


def test_missed_occurrences_run_once_and_the_rest_is_one_record(own: Rig) -> None:
    """The runner was off for ten minutes of a task that fires each second."""
    often = shell_task("often", "true", trigger={"type": "interval", "every": 1})
    own.enable(often, since=datetime.now(timezone.utc) - timedelta(minutes=10))
    own.start()
    wait_until(lambda: [r for r in own.task_records("often") if r.get("skippedCount")])
    own.stop()
    missed = [r for r in own.task_records("often") if r.get("reason") == "missed"]
    assert len(missed) == 1 and 500 <= missed[0]["skippedCount"] <= 700
    assert len([r for r in own.task_records("often") if r["triggeredBy"] == "catch-up"]) <= 1


def test_a_runner_that_was_off_for_ten_years_starts_at_once(own: Rig) -> None:
    """C7."""
    often = shell_task("often", "true", trigger={"type": "cron", "expression": "* * * * *", "timezone": "UTC"})
    own.enable(often, since=datetime.now(timezone.utc) - timedelta(days=3650))
    own.start()
    missed = wait_until(lambda: [r for r in own.task_records("often") if r.get("reason") == "missed"], 20)[0]
    assert missed["skippedCount"] in (1438, 1439, 1440)
    assert "not counted" in missed["notes"][0]


def test_a_queue_is_kept_over_a_restart(own: Rig) -> None:
    own.settings(maxConcurrent=1)
    own.enable(shell_task("long", "sleep 30"), shell_task("short", "echo x > made"))
    pid = own.start()
    own.run("long")
    wait_until(lambda: own.task_records("long"))
    queued = own.run("short")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid))
    own.start()
    assert own.record(queued)["status"] == "success"


def test_cancel_of_a_queued_run_is_on_record(own: Rig) -> None:
    own.settings(maxConcurrent=1)
    own.enable(shell_task("long", "sleep 30"), shell_task("short", "true"))
    own.start()
    own.run("long")
    wait_until(lambda: own.ask("status")["running"])
    queued = own.run("short")
    own.ask("cancel", runId=queued)
    assert (own.record(queued)["status"], own.record(queued)["reason"]) == ("skipped", "cancelled")


def test_retries_are_new_attempts_of_the_same_occurrence(own: Rig) -> None:
    own.enable(shell_task("job", "exit 3", policy={"retries": 1, "retryDelay": 1}))
    own.start()
    own.run("job")
    attempts = wait_until(
        lambda: rs if len(rs := own.task_records("job")) == 2 and rs[1]["status"] != "running" else None
    )
    assert [(r["attempt"], r["triggeredBy"]) for r in attempts] == [(1, "manual"), (2, "retry")]
    time.sleep(1.5)
    assert len(own.task_records("job")) == 2


def test_a_damaged_state_is_set_aside_and_nothing_fires_for_the_past(own: Rig) -> None:
    """A11."""
    own.enable(shell_task("often", "true", trigger={"type": "cron", "expression": "* * * * *", "timezone": "UTC"}))
    Path(own.paths.state).mkdir(mode=0o700, exist_ok=True)
    Path(own.paths.state_db).write_bytes(os.urandom(5000))
    own.start()
    assert "was damaged" in own.log()
    assert list(Path(own.paths.state).glob("state.db.corrupt-*"))
    assert own.run_to_end("often")["status"] == "success"


def test_the_glance_tells_what_the_hooks_need(own: Rig) -> None:
    own.enable(shell_task("job", "echo x > made"), shell_task("bad", "exit 1"))
    own.start()
    own.run_to_end("job")
    own.run_to_end("bad")

    def look() -> dict[str, Any] | None:
        entry = json.loads(Path(own.paths.glance).read_text())["projects"].get(str(own.project), {})
        return entry if len(entry.get("recent", ())) == 2 else None

    entry = wait_until(look)
    assert {m["kind"] for m in entry["open"]} == {"failed", "review"}
    # A branch waits for its review however long; that a task failed is news of a week.
    trusted = trust.read(own.paths)[str(own.project)]
    assert entry["approved"] == [approval.digest[:16] for approval in trusted.approvals] != []
    later = datetime.now(timezone.utc) + timedelta(days=30)
    old = overview.entry(str(own.project), trusted, Known({}), 0, later)
    assert ([m["kind"] for m in old["open"]], old["recent"]) == (["review"], [])
    assert (entry["enabled"], entry["trusted"], entry["tasks"], entry["active"]) == (True, True, 2, 2)
    # A branch that a person merges with git itself waits for nobody any more.
    own.git("merge", "-q", next(r["worktreeBranch"] for r in own.records() if r["taskId"] == "job" and "commit" in r))
    wait_until(lambda: [m["kind"] for m in (look() or entry)["open"]] == ["failed"], 10, "for the branch to go")
    own.stop()
    assert json.loads(Path(own.paths.glance).read_text())["runner"] is None


def test_the_glance_knows_a_task_that_an_error_suspends_also_while_a_runner_is_at_work(own: Rig) -> None:
    own.enable(shell_task("job", "true"))
    file = Path(places.config_file(str(own.project)))
    found = json.loads(file.read_text())
    found["tasks"].append({"id": "half"})
    file.write_text(json.dumps(found))
    Command(own.project, own.env)("enable", "--yes", "--no-start")
    own.start()
    glance = Path(own.paths.glance)
    wait_until(lambda: glance.exists() and '"kind":"config"' in glance.read_text(), 10)


def test_the_runner_of_a_plugin_ends_when_the_plugin_is_uninstalled(tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "installed_plugins.json").write_text(json.dumps({"version": 2, "plugins": {}}))
    extra = {"SCHEDULER_STARTED_BY": "plugin", "SCHEDULER_PLUGIN_DATA": str(plugins / "data" / "scheduler-market")}
    with rig(tmp_path, extra) as own:
        own.enable(shell_task("job", "true"))
        pid = own.start()
        wait_until(lambda: gone(pid), 30)
        assert "uninstalled" in own.log()


def test_a_queued_run_of_a_project_that_was_switched_off_says_so(own: Rig) -> None:
    own.settings(maxConcurrent=1)
    own.enable(shell_task("long", "sleep 30"), shell_task("short", "true"))
    own.start()
    own.run("long")
    wait_until(lambda: own.task_records("long"))
    queued = own.run("short")
    with trust.lock(own.paths):
        known = trust.read(own.paths)
        root = str(own.project)
        trust.write(own.paths, {root: dataclasses.replace(known[root], enabled=False)})
    assert own.record(queued)["reason"] == "disabled"


def test_a_repository_that_is_moved_away_during_a_run_does_not_come_back(own: Rig, tmp_path: Path) -> None:
    began = tmp_path / "began"
    own.enable(shell_task("job", f"touch {began}; sleep 1.5; echo more >> file.txt; echo said"))
    own.start()
    run = own.run("job")
    wait_until(began.exists)
    own.project.rename(tmp_path / "elsewhere")
    record = own.record(run)
    assert (record["status"], record["reason"]) == ("failure", "not-kept"), record["error"] + own.log()
    assert "not there any more" in record["error"]
    time.sleep(1.2)
    assert not own.project.exists()
    assert (Path(record["worktreePath"]) / "file.txt").read_text() == "one\nmore\n"
