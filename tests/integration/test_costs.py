"""What work costs, counted and not timed: git's processes, waits for the disk, wake-ups of an idle runner."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.models import UserSettings
from scheduler.core.redact import Redactor
from scheduler.disk import paths
from scheduler.execution import overview
from scheduler.execution.agent import SupervisorPool
from scheduler.runner import loop, served
from scheduler.runner.loop import Runner
from scheduler.store import config, trust
from scheduler.store.state import State
from tests.bench import figures
from tests.rig import Rig, rig, shell_task, soon, wait_until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[Rig, Callable[[], list[str]]]]:
    """A rig, and what returns the git commands of its runner since it was last called."""
    log, program = tmp_path / "git.log", tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{log}'\nexec '{shutil.which('git')}' \"$@\"\n")
    program.chmod(0o755)
    log.touch()

    def commands() -> list[str]:
        found = [line for line in log.read_text().splitlines() if "--no-merged" not in line]  # the glance's
        log.write_text("")
        return found

    with rig(tmp_path, {"PATH": f"{program.parent}:{os.environ['PATH']}"}) as made:
        yield made, commands


@pytest.mark.parametrize(
    ("command", "most"),
    [("true", 12), ("echo more >> file.txt", 19), ("echo new > new.txt; exit 1", 21)],
    ids=["no-changes", "kept", "rolled-back"],
)
def test_the_git_processes_of_a_run(counted: tuple[Rig, Callable[[], list[str]]], command: str, most: int) -> None:
    own, commands = counted
    own.enable(shell_task("job", command))
    own.start()
    own.run_to_end("job")
    commands()
    own.run_to_end("job")
    found = commands()
    assert len(found) <= most, "\n".join(found)


def test_a_run_waits_for_the_disk_once_before_it_starts(
    own: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    happened: list[str] = []
    fsync, take, connect = os.fsync, SupervisorPool.take, sqlite3.connect

    class Connection(sqlite3.Connection):
        synchronous = "FULL"

        def execute(self, text: str, *values: Any) -> sqlite3.Cursor:
            if text.startswith("PRAGMA synchronous="):
                self.synchronous = text.rpartition("=")[2]
            if text == "COMMIT":
                happened.append("sync" if self.synchronous == "FULL" else "write")
            return super().execute(text, *values)

    def counted_fsync(fd: int) -> None:
        if "glance" not in os.readlink(f"/proc/self/fd/{fd}"):  # told later, in a thread
            happened.append("sync")
        fsync(fd)

    def noted_take(pool: SupervisorPool) -> Any:
        happened.append("start")
        return take(pool)

    monkeypatch.setattr(os, "fsync", counted_fsync)
    monkeypatch.setattr(SupervisorPool, "take", noted_take)
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Connection, **options))
    once = {"type": "once", "at": soon(2)}
    own.enable(shell_task("job", "true", trigger=once, worktree={"enabled": False}))
    config.prepare_logs(str(own.project))
    for history in (paths.history_file(str(own.project)), own.paths.global_history):
        Path(history).parent.mkdir(parents=True, exist_ok=True)
        Path(history).write_text("\n")  # the first line of a file also waits for its folder

    async def serve() -> None:
        runner = Runner(own.paths, own.env)
        work = asyncio.create_task(runner.work())
        await asyncio.sleep(1)  # what it makes once is made
        happened.clear()
        while not any(record["status"] == "success" for record in own.records()):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        told = [*happened]
        runner.stop()
        await work
        happened[:] = told

    asyncio.run(asyncio.wait_for(serve(), 60))
    begin = happened.index("start")
    assert happened[:begin].count("sync") <= 1, happened
    assert happened.count("sync") <= 6, happened


def test_an_idle_runner_wakes_once_a_second_and_its_threads_never(own: Rig) -> None:
    own.enable(*[shell_task(f"job-{number}", "true") for number in range(50)])
    pid = own.start()
    wait_until(lambda: Path(own.paths.glance).exists())
    time.sleep(1.5)

    def switches() -> dict[str, int]:
        processes = (pid, *figures.children(pid))
        threads = [thread for process in processes for thread in Path(f"/proc/{process}/task").iterdir()]
        return {thread.name: figures.switches(thread, "voluntary") for thread in threads}

    before, begin = switches(), time.monotonic()
    time.sleep(3)
    after, took = switches(), time.monotonic() - begin
    changed = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name)}
    assert changed.keys() == {str(pid)}
    assert changed[str(pid)] <= 2 * (took / loop.POLL + 2)


def test_files_of_runs_that_end_while_others_are_deleted_are_deleted_too(own: Rig) -> None:
    own.enable(shell_task("one", "true"), shell_task("two", "true"))
    own.start()
    own.run_to_end("one")
    (trash,) = Path(own.paths.worktrees).glob("*/.trash")
    large = trash / "large"
    large.mkdir()
    for number in range(20_000):
        os.link(own.project / "file.txt", large / str(number))
    for run in [own.run("one"), own.run("two")]:
        own.record(run)
    wait_until(lambda: not any(trash.iterdir()), what="for an empty trash")


def test_what_the_runner_has_planned_is_what_the_config_says(own: Rig) -> None:
    own.enable(
        shell_task("daily", "true", trigger={"type": "cron", "expression": "0 3 * * *", "timezone": "Europe/Berlin"}),
        shell_task("often", "true", trigger={"type": "interval", "every": "10m"}),
        shell_task("late", "true", trigger={"type": "once", "at": soon(86400)}),
        shell_task("past", "true", trigger={"type": "once", "at": soon(-86400)}),
        shell_task("off", "true", enabled=False),
        *[shell_task(f"more-{number}", "true") for number in range(5)],
    )
    now = datetime.now(timezone.utc)
    root = str(own.project)
    trusted = trust.read(own.paths)[root]
    state = State(own.paths.state_db, now)
    project, told = served.read(trusted, {}, Redactor(()))
    served.take_in(project, told, state, now)
    state.handled(root, "past", now, done=now)
    project.states = state.tasks(root)
    known = state.known(root, UserSettings(), now)
    state.close()
    for task in project.tasks:
        project.plan(task)
    planned = project.standing(known, now)
    assert planned is not None
    assert (planned.tasks, planned.active, len(planned.coming)) == (10, 8, 8)
    told_by_plan = overview.entry(root, trusted, known, 0, now, planned)
    assert told_by_plan == overview.entry(root, trusted, known, 0, now)
