"""doctor: a sound installation has no complaint; each thing that is broken for real is found, and mended or told."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scheduler.cli import doctor, patient
from scheduler.cli.context import Context
from scheduler.cli.patient import Check, Found
from scheduler.core.health import Finding
from scheduler.disk import glance, paths
from scheduler.errors import SchedulerError
from scheduler.runner import service
from scheduler.store import history
from tests.command import Command
from tests.rig import Rig, rig, shell_task, wait_until

CLIENT = """#!/bin/sh
case "$*" in
--version) echo "${STANDIN_VERSION:-2.1.330} (Claude Code)" ;;
"auth status")
    if [ -n "$CLAUDE_CODE_OAUTH_TOKEN" ]; then echo '{"loggedIn": true, "authMethod": "oauth_token"}'
    else echo '{"loggedIn": false, "authMethod": "none"}'; exit 1; fi ;;
*) exit 9 ;;
esac
"""
Told = list[dict[str, str]]


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, {"TZ": "Europe/Berlin"}) as made:
        yield made


@pytest.fixture
def cli(living: Rig) -> Command:
    return Command(living.project, living.env)


def ask(cli: Command, *words: str, code: int | None = 0, **env: str) -> Any:
    """`doctor --json`, in this process: to start the command line takes ten times as long as all that it looks at."""
    context = Context({**cli.env, **env}, datetime.now().astimezone())
    back = os.getcwd()
    os.chdir(cli.folder)
    try:
        done = CliRunner().invoke(doctor.doctor, ["--json", *words], obj=context, standalone_mode=False)
    finally:
        os.chdir(back)
    assert done.exception is None, done.exception
    assert code is None or done.return_value == code, done.output
    return json.loads(done.stdout)


def look(cli: Command, *words: str, code: int | None = 0, **env: str) -> Told:
    found: Told = ask(cli, *words, code=code, **env)["findings"]
    return found


def complaints(told: Told) -> list[tuple[str, str]]:
    """What is not well, but for what the machine of the test lacks (a client, for a project without tasks for it)."""
    return [(one["level"], one["text"]) for one in told if one["level"] != "ok" and one["name"] not in ("client", "jq")]


def complaint(told: Told, name: str) -> dict[str, str]:
    found = [one for one in told if one["name"] == name and one["level"] != "ok"]
    assert len(found) == 1, told
    assert found[0]["mend"]
    return found[0]


def files(rig: Rig) -> dict[Path, int]:
    places = [rig.home, Path(rig.paths.state), rig.project]
    return {path: path.lstat().st_mtime_ns for place in places for path in place.rglob("*") if path.is_file()}


def test_a_sound_installation_has_no_complaint(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "echo x >new"))
    living.start()
    assert living.run_to_end("work")["status"] == "success"
    told = cli("doctor", "--json").json["findings"]
    assert complaints(told) == []
    names = {one["name"] for one in told}
    assert names >= {"git", "git identity", "base", "set-up", "runner", "service", "clock", "time zone", "disk"}
    assert names >= {"file system", "locks", "approvals", "settings", "config", "history"}


def test_it_works_before_anything_is_there_and_outside_a_repository(living: Rig, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    assert complaints(look(Command(nowhere, living.env))) == []
    assert not Path(living.paths.state).exists(), "looking makes nothing"
    assert complaints(look(Command(living.project, living.env))) == []


def test_looking_changes_nothing(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "echo x >new"))
    before = files(living)
    look(cli)
    after = files(living)
    assert {path: time for path, time in after.items() if "state.db" not in path.name} == {
        path: time for path, time in before.items() if "state.db" not in path.name
    }


def test_for_people_each_line_has_a_sign_and_a_word(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    Path(paths.config_file(str(living.project))).write_text("{")
    said = cli("doctor", code=1)
    lines = [line for line in said.out.splitlines() if line and not line.startswith("        → ")]
    assert all(line.startswith(("✓ ok    ", "! warn  ", "✗ fail  ")) for line in lines[:-1])
    assert "1 thing wrong" in lines[-1]
    assert "\x1b" not in said.out


def test_a_runner_that_is_not_there_and_a_glance_that_says_so(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    pid = living.start()
    wait_until(lambda: (glance.read(living.paths.glance) or {}).get("runner"))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    told = look(cli)
    assert complaint(told, "runner")["mend"] == "'start'"
    assert complaint(told, "glance")
    done = ask(cli, "--fix")
    assert [one["name"] for one in done["done"]] == ["glance"]
    assert [name for level, name in complaints(done["findings"])] == ["none is at work, so nothing runs"]
    assert ask(cli, "--fix")["done"] == []


def test_a_process_that_holds_the_lock_and_answers_nobody(
    cli: Command, living: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "STARTING", 0.3)
    Path(living.paths.state).mkdir(mode=0o700)
    with open(living.paths.runner_lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = complaint(look(cli, code=1), "locks")
    assert f"process {os.getpid()} holds" in found["text"] and f"kill {os.getpid()}" in found["mend"]


def test_a_runner_that_does_not_answer(cli: Command, living: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "ANSWER", 0.3)
    living.enable(shell_task("work", "true"))
    pid = living.start()
    os.kill(pid, signal.SIGSTOP)
    try:
        found = complaint(look(cli, code=1), "runner")
        assert found["text"] == "the runner does not answer" and f"kill -9 {pid}" in found["mend"]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_login_is_looked_at_in_the_environment_of_the_runner_at_work(cli: Command, living: Rig) -> None:
    client = living.home / "claude"
    client.write_text(CLIENT)
    client.chmod(0o755)
    task = shell_task("ask", "Do it.", execution={"type": "claude"})
    living.enable(task, client=str(client))
    living.start()
    token = {"CLAUDE_CODE_OAUTH_TOKEN": "a-token-of-the-terminal"}
    found = complaint(look(cli, code=1, **token), "login")
    assert found["level"] == "fail" and "of the runner at work" in found["text"]
    living.stop()
    assert complaint(look(cli, **token), "login")["level"] == "warn", "it would have the token only from this terminal"
    own = Path(living.paths.runner_env)
    own.write_text("CLAUDE_CODE_OAUTH_TOKEN=a-lasting-token\n")
    own.chmod(0o600)
    living.start()
    assert [one["level"] for one in look(cli) if one["name"] == "login"] == ["ok"]
    own.chmod(0o644)
    assert "chmod 600" in complaint(look(cli, code=1), "runner.env")["mend"]


def test_a_client_that_is_gone_or_old(cli: Command, living: Rig) -> None:
    client = living.home / "claude"
    living.enable(shell_task("ask", "Do it.", execution={"type": "claude"}), client=str(client))
    assert f"{client} is gone" in complaint(look(cli, code=1), "client")["text"]
    client.write_text(CLIENT.replace("2.1.330", "2.0.1"))
    client.chmod(0o755)
    told = [one for one in look(cli, code=1) if one["name"] == "client"]
    assert [one["level"] for one in told] == ["warn"] and "2.0.1 is older" in told[0]["text"]


def test_a_sandbox_that_cannot_be_had(cli: Command, living: Rig, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "sh"):
        (tools / name).symlink_to(shutil.which(name) or "")
    living.env["PATH"] = str(tools)
    living.enable(shell_task("shut", "true", execution={"sandbox": "bwrap"}))
    assert "install bubblewrap" in complaint(look(cli, code=1), "sandbox")["mend"]


def test_the_real_client_is_found_and_known(cli: Command, living: Rig, client: Path) -> None:
    living.enable(shell_task("ask", "Do it.", execution={"type": "claude"}), client=str(client))
    told = look(cli, code=1)
    assert [one["level"] for one in told if one["name"] == "client"] == ["ok"]
    assert complaint(told, "login")["text"].startswith("the client is not logged in")


def test_a_remote_that_does_not_answer(cli: Command, living: Rig, tmp_path: Path) -> None:
    there = tmp_path / "there.git"
    living.git("init", "-q", "--bare", str(there), cwd=tmp_path)
    living.git("remote", "add", "origin", str(there), cwd=living.project)
    living.enable(shell_task("push", "true", worktree={"push": True}))
    assert [one["level"] for one in look(cli) if one["name"] == "push"] == ["ok"]
    there.rename(tmp_path / "elsewhere.git")
    assert "ls-remote origin" in complaint(look(cli, code=1), "push")["mend"]


@pytest.mark.full
def test_a_remote_that_hangs_does_not_hold_it_up(cli: Command, living: Rig) -> None:
    living.git("remote", "add", "origin", "ext::sleep 60", cwd=living.project)
    living.git("config", "protocol.ext.allow", "always", cwd=living.project)
    living.enable(shell_task("push", "true", worktree={"push": True}))
    began = time.monotonic()
    assert "took longer than 4 s" in complaint(look(cli, code=1), "push")["text"]
    assert time.monotonic() - began < 30


def test_a_clock_that_went_back(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    living.start()
    living.run_to_end("work")
    living.stop()
    for name in (living.paths.global_history, paths.history_file(str(living.project))):
        line = history.fold(history.read(name))[-1]
        later = (datetime.now(timezone.utc) + timedelta(days=2, minutes=30)).isoformat()
        with open(name, "ab") as file:
            file.write(json.dumps({**line, "completedAt": later}).encode() + b"\n")
    assert "2d 0h from now" in complaint(look(cli), "clock")["text"]


def test_the_users_own_git_lock_is_told_and_left(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    lock = living.project / ".git/index.lock"
    lock.touch()
    assert not [one for one in look(cli) if "index.lock" in one["text"]], "a git may be at work"
    os.utime(lock, (1, 1))
    found = complaint(look(cli, "--fix"), "locks")
    assert f"rm '{lock}'" in found["mend"] and lock.exists()


def test_locks_of_our_own_refs_are_cleared(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    ours = living.project / ".git/refs/heads/claude-task/work-20261201T0200-0a1b2c3d.lock"
    theirs = living.project / ".git/refs/heads/feature.lock"
    ours.parent.mkdir()
    for lock in (ours, theirs):
        lock.touch()
        os.utime(lock, (1, 1))
    assert complaint(look(cli), "locks")["mend"] == "'doctor --fix'"
    done = ask(cli, "--fix")
    assert [one["text"] for one in done["done"]] == [f"{ours} is removed"]
    assert not ours.exists() and theirs.exists()
    assert ask(cli, "--fix")["done"] == []


def test_a_worktree_that_nobody_owns(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    folder = Path(living.paths.worktrees, "project-01234567", "work-0a1b2c3d")
    living.git("worktree", "add", "-q", str(folder), cwd=living.project)
    found = complaint(look(cli, "--fix"), "worktrees")
    assert f"worktree remove '{folder}'" in found["mend"] and folder.is_dir()


def test_folders_of_removed_worktrees_are_deleted(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    left = Path(living.paths.worktrees, "project-01234567", ".trash", "work-0a1b2c3d.17")
    left.mkdir(parents=True)
    assert complaint(look(cli), "worktrees")
    assert [one["text"] for one in ask(cli, "--fix")["done"]] == ["1 folder deleted"]
    assert not left.exists()


def test_the_history_against_the_state(cli: Command, living: Rig) -> None:
    """A16."""
    living.enable(shell_task("work", "echo x >new"))
    living.start()
    first, _ = living.run_to_end("work"), living.run_to_end("work")
    living.stop()
    for name in (living.paths.global_history, paths.history_file(str(living.project))):
        lines = Path(name).read_bytes().splitlines(keepends=True)
        Path(name).write_bytes(b"".join(line for line in lines if first["id"].encode() not in line))
    with sqlite3.connect(living.paths.state_db) as db:
        at = (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat(timespec="microseconds")
        db.execute("UPDATE claims SET claimed_at=?", (at,))
    assert f"1 run claimed and not on record: {first['id'][:8]}" in complaint(look(cli), "history")["text"]


def test_a_repository_that_git_refuses(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    (living.project / ".git" / "HEAD").unlink()
    found = complaint(look(cli, code=1), "git")
    assert found["level"] == "fail" and "no task can run" in found["text"] and "not a git repository" in found["text"]


def test_a_damaged_state_is_told_at_the_first_look(cli: Command, living: Rig) -> None:
    """A11: this look is what moves it aside."""
    living.enable(shell_task("work", "true"))
    Path(living.paths.state_db).write_bytes(b"garbage" * 3000)
    assert "was damaged" in complaint(look(cli), "state")["text"]


def test_a_run_on_record_as_running_that_nobody_runs(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "sleep 600"))
    pid = living.start()
    run = living.run("work")
    wait_until(lambda: [one for one in living.records() if one["id"] == run])
    assert not [one for one in look(cli) if one["name"] == "history" and one["level"] != "ok"], "it is under way"
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    found = complaint(look(cli), "history")
    assert found["text"] == f"1 run under way when the runner ended: {run[:8]}" and "'start'" in found["mend"]
    with sqlite3.connect(living.paths.state_db) as db:
        db.execute("DELETE FROM runs")
    assert f"which nobody runs: {run[:8]}" in complaint(look(cli), "history")["text"]
    living.start()
    living.record(run)
    assert not [one for one in look(cli) if one["name"] == "history" and one["level"] != "ok"]


def test_what_a_crash_kept_from_the_global_history_is_put_there(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    living.start()
    run = living.run_to_end("work")["id"]
    living.stop()
    whole = Path(living.paths.global_history)
    lines = whole.read_bytes().splitlines(keepends=True)
    whole.write_bytes(b"".join(lines[:-1]))
    assert "1 record of projects missing" in complaint(look(cli), "history")["text"]
    assert [one["text"] for one in ask(cli, "--fix")["done"]] == ["1 record put into it"]
    assert whole.read_bytes().splitlines(keepends=True) == lines
    assert living.records()[-1]["id"] == run
    assert ask(cli, "--fix")["done"] == []


def test_damaged_lines_are_counted(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    living.start()
    living.run_to_end("work")
    living.stop()
    with open(paths.history_file(str(living.project)), "ab") as file:
        file.write(b"torn\n\0\0\n")
    assert "2 lines of" in complaint(look(cli), "history")["text"]


@pytest.mark.parametrize("mode", [0o666, 0o606])
def test_approvals_that_others_can_write_are_told_and_left(cli: Command, living: Rig, mode: int) -> None:
    living.enable(shell_task("work", "true"))
    os.chmod(living.paths.trust, mode)
    assert complaint(look(cli, "--fix", code=1), "approvals")["level"] == "fail"
    assert os.stat(living.paths.trust).st_mode & 0o777 == mode, "somebody has to look at it first"


def test_a_state_folder_that_others_can_look_into_is_closed(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    os.chmod(living.paths.state, 0o755)
    assert complaint(look(cli), "state")
    assert [one["name"] for one in ask(cli, "--fix")["done"]] == ["state"]
    assert os.stat(living.paths.state).st_mode & 0o777 == 0o700


def broken_settings(living: Rig) -> None:
    living.settings(maxConcurrent=0)


def changed_config(living: Rig) -> None:
    with open(paths.config_file(str(living.project)), "a") as file:
        file.write("\n")


def moved_project(living: Rig) -> None:
    living.project.rename(living.project.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("harm", "name", "mend"),
    [(broken_settings, "settings", "mend it"), (changed_config, "config", "'enable' shows it")],
)
def test_what_the_user_has_to_mend(
    cli: Command, living: Rig, harm: Callable[[Rig], None], name: str, mend: str
) -> None:
    living.enable(shell_task("work", "true"))
    harm(living)
    assert mend in complaint(look(cli, code=1), name)["mend"]


def test_a_project_that_is_gone(cli: Command, living: Rig, tmp_path: Path) -> None:
    living.enable(shell_task("work", "true"))
    moved_project(living)
    told = look(Command(tmp_path, living.env), code=1)
    assert f"disable --project {living.project}" in complaint(told, "approvals")["mend"]


def test_pauses_and_logs(cli: Command, living: Rig) -> None:
    living.enable(shell_task("work", "true"))
    cli("pause", "work")
    ignore = Path(paths.logs_folder(str(living.project)), ".gitignore")
    ignore.parent.mkdir(exist_ok=True)
    ignore.unlink(missing_ok=True)
    told = look(cli)
    assert complaint(told, "pauses")["mend"] == "'resume work'"
    assert complaint(told, "logs")
    ask(cli, "--fix")
    assert ignore.read_text() == "*\n"


def test_a_service_that_is_of_another_version(cli: Command, living: Rig) -> None:
    mine = service.Systemd(living.paths, living.env)
    mine.write(service.launcher(living.paths, living.env, ())[0])
    Path(mine.file).write_bytes(Path(mine.file).read_bytes().replace(b"mixed", b"process"))
    told = [one["text"] for one in look(cli) if one["name"] == "service" and one["level"] == "warn"]
    assert "its files are not those of this version" in told


def test_fix_is_refused_inside_a_run(cli: Command, living: Rig) -> None:
    assert (
        "'doctor --fix' is refused inside a scheduled run" in cli("doctor", "--fix", code=1, SCHEDULER_RUN_ID="x").err
    )
    cli("doctor", SCHEDULER_RUN_ID="x")


def test_a_check_that_cannot_be_made_is_a_line_and_the_others_go_on() -> None:
    def half() -> Iterator[Found]:
        yield Found(Finding("ok", "half", "so far so good"))
        raise ZeroDivisionError("a bug")

    def refused() -> Iterator[Found]:
        raise SchedulerError("no", "do this")

    found = [one.finding for check in (Check("half", half), Check("other", refused)) for one in doctor._made(check)]
    assert [(one.level, one.name, one.mend) for one in found] == [
        ("ok", "half", ""),
        ("warn", "half", ""),
        ("warn", "other", "do this"),
    ]
    assert all("could not be checked: " in one.text for one in found[1:])


def test_work_of_runs_that_no_record_tells_of_is_named(cli: Command, living: Rig) -> None:
    """History and state are gone, the repository is left: what runs saved in it must not be forgotten."""
    living.enable(shell_task("kept", "echo x > kept.txt"), shell_task("fails", "echo x > half.txt; exit 1"))
    living.start()
    kept, failed = living.run_to_end("kept"), living.run_to_end("fails")
    living.stop()
    assert [text for _, text in complaints(look(cli)) if "no record" in text] == []
    shutil.rmtree(paths.logs_folder(str(living.project)))
    for tail in ("", "-wal", "-shm"):
        Path(living.paths.state_db + tail).unlink(missing_ok=True)
    found = complaint(look(cli, code=None), "branches")
    assert found["level"] == "warn" and "2 private refs or branches" in found["text"]
    assert failed["discardedRef"] in found["text"] and kept["worktreeBranch"] in found["text"]
    *words, ref = found["mend"].removeprefix("look at their work: ").split()
    assert living.git(*words[1:], ref).startswith("commit ")
    living.git("branch", "-q", "-D", kept["worktreeBranch"])
    living.git("update-ref", "-d", failed["discardedRef"])
    assert [text for _, text in complaints(look(cli, code=None)) if "no record" in text] == []
