"""The runner killed by SIGKILL at every stage of a run: no process is left, no work is lost, one true record tells it.

Each stage is held by something real that the runner has to wait for there: a lock, a hook, a filter, the task itself.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import files, paths
from scheduler.execution.aftermath import repository_lock
from scheduler.execution.git import find_project
from scheduler.store import config
from scheduler.store.state import State
from tests import repos, trees
from tests.repos import git
from tests.rig import Rig, rig, shell_task, soon, wait_until
from tests.runs import (
    branch_tree,
    branches,
    changed,
    discarded_tree,
    finals,
    fingerprint,
    kill,
    nothing_left,
    row,
    settled,
)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


# What holds a run

WAIT = 'touch "$GATE/reached"; while ! test -e "$GATE/open"; do sleep 0.02; done'
"""For a task's commands, which have GATE: wait until the gate is opened."""


class Gate:
    """A folder with two files: `reached` is there once somebody waits, `open` lets everybody go on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.reached, self.open = folder, folder / "reached", folder / "open"

    def program(self, path: Path, then: str = "exec cat") -> Path:
        """An executable that waits here, then does what a filter or a hook should."""
        path.write_text(f"#!/bin/sh\nGATE={shlex.quote(str(self.folder))}\n{WAIT}\n{then}\n")
        path.chmod(0o755)
        return path


def locked_repository(own: Rig) -> AbstractContextManager[object]:
    return files.locked(repository_lock(own.paths, find_project(own.project, own.env)))


def locked_history(own: Rig) -> AbstractContextManager[object]:
    return files.locked(files.sidecar(paths.history_file(str(own.project))))


def locked_global_history(own: Rig) -> AbstractContextManager[object]:
    return files.locked(files.sidecar(own.paths.global_history))


# The stages

Setting = Callable[[Rig, Gate], object]
Lock = Callable[[Rig], AbstractContextManager[object]]
CRASHED = ("failure", "crashed")
FAILED = ("failure", "exit-code")
DONE = ("success", None)


@dataclass(frozen=True)
class Stage:
    """A moment of a run at which something holds it, and what must be true when its runner is killed there.

    The gate holds it (in a command of the task, or in a program that `setting` puts into git's way), or `lock`, which
    is taken when the runner starts (`early`) or while the task runs. `there` says that the moment has come. `end`:
    status and reason on record. `kept`: where the work is. `executed`: whether the task itself had begun.
    """

    end: tuple[str, str | None]
    kept: str | None = "discarded"
    executed: bool = True
    command: str = ":"
    execution: Mapping[str, Any] = field(default_factory=dict)
    worktree: Mapping[str, Any] = field(default_factory=dict)
    setting: Setting = lambda own, gate: None
    lock: Lock | None = None
    early: bool = False
    there: Callable[[Rig, Gate, str], object] = lambda own, gate, run: gate.reached.exists()


def smudge(own: Rig, gate: Gate) -> None:
    repos.commit(own.project, "filter", {".gitattributes": "*.slow filter=slow\n", "old.slow": "old\n"})
    git("config", "filter.slow.smudge", gate.program(gate.folder / "filter"), cwd=own.project)


def clean(own: Rig, gate: Gate) -> None:
    repos.commit(own.project, "filter", {".gitattributes": "*.slow filter=slow\n"})
    git("config", "filter.slow.clean", gate.program(gate.folder / "filter"), cwd=own.project)


def pre_commit(own: Rig, gate: Gate) -> None:
    gate.program(own.project / ".git" / "hooks" / "pre-commit", "exit 0")


def remote(own: Rig, gate: Gate) -> Path:
    bare = gate.folder / "remote.git"
    git("init", "-q", "--bare", bare, cwd=gate.folder)
    git("remote", "add", "origin", bare, cwd=own.project)
    git("push", "-q", "origin", "main", cwd=own.project)
    return bare


def pre_receive(own: Rig, gate: Gate) -> None:
    gate.program(remote(own, gate) / "hooks" / "pre-receive", "cat > /dev/null")


def upload_pack(own: Rig, gate: Gate) -> None:
    remote(own, gate)
    program = gate.program(gate.folder / "upload-pack", 'exec git upload-pack "$@"')
    git("config", "remote.origin.uploadpack", program, cwd=own.project)


def is_running(own: Rig, gate: Gate, run: str) -> bool:
    found = row(own, run)
    return found is not None and found.phase == "running"


def is_ended(own: Rig, gate: Gate, run: str) -> bool:
    found = row(own, run)
    return found is not None and found.phase == "ended"


def is_removed(own: Rig, gate: Gate, run: str) -> bool:
    return is_ended(own, gate, run) and not list(Path(own.paths.worktrees).glob("*/job-*"))


def is_in_the_projects_history(own: Rig, gate: Gate, run: str) -> object:
    return finals(paths.history_file(str(own.project)), run)


STAGES = {
    "fetching its base": Stage(DONE, "branch", worktree={"base": "fresh"}, setting=upload_pack),
    "not yet on record": Stage(CRASHED, None, False, lock=locked_history, early=True, there=is_running),
    "on record": Stage(CRASHED, None, False, lock=locked_repository, early=True, there=is_running),
    "in git worktree add": Stage(CRASHED, None, False, setting=smudge),
    "in setup": Stage(CRASHED, "setup", False, worktree={"setup": f"echo half > half.txt; {WAIT}"}),
    "in the task": Stage(CRASHED, command=WAIT),
    "in the commit": Stage(CRASHED, setting=pre_commit),
    "in verify": Stage(CRASHED, execution={"verify": WAIT}),
    "in the rollback": Stage(FAILED, command="echo new > new.slow; exit 3", setting=clean),
    "saved": Stage(FAILED, command="exit 3", lock=locked_repository, there=is_ended),
    "kept": Stage(DONE, "branch", lock=locked_repository, there=is_ended),
    "nothing to keep": Stage(
        ("success", "no-changes"),
        None,
        command="git reset -q --hard HEAD~1; git clean -qfd",
        lock=locked_repository,
        there=is_ended,
    ),
    "in the push": Stage(DONE, "branch", worktree={"push": True}, setting=pre_receive),
    "kept and removed": Stage(DONE, "branch", lock=locked_history, there=is_removed),
    "saved and removed": Stage(FAILED, command="exit 3", lock=locked_history, there=is_removed),
    "half on record": Stage(DONE, "branch", lock=locked_global_history, there=is_in_the_projects_history),
}
WORK = "echo one > one.txt; git add -A; git commit -q --no-verify -m one; echo two > two.txt"


def task_of(stage: Stage, gate: Gate, pause: Gate, ran: Path) -> dict[str, Any]:
    """The task that is held in `stage`; it fires by itself, once. For a late lock it waits at `pause` first."""
    held = f"(GATE={pause.folder}; {WAIT})" if stage.lock and not stage.early else ":"
    return shell_task(
        "job",
        f"set -e; echo ran >> {ran}; {WORK}; {held}; {stage.command}",
        trigger={"type": "once", "at": soon(-1)},
        execution={"env": {"GATE": str(gate.folder)}, **stage.execution},
        worktree=stage.worktree,
    )


@pytest.mark.parametrize("name", STAGES)
def test_a_runner_killed(own: Rig, tmp_path: Path, name: str) -> None:
    """A15, B6."""
    stage = STAGES[name]
    gate, pause, ran = Gate(tmp_path / "gate"), Gate(tmp_path / "pause"), tmp_path / "ran"
    stage.setting(own, gate)
    # The state knows the task longer than its moment has passed, so that it fires at once.
    since = datetime.now(timezone.utc) - timedelta(minutes=1)
    own.enable(task_of(stage, gate, pause, ran), shell_task("next", "echo x > made"), since=since)
    config.prepare_logs(str(own.project))
    before = fingerprint(own.project)
    with contextlib.ExitStack() as held:
        if stage.lock and stage.early:
            held.enter_context(stage.lock(own))
        runner = own.start()
        if stage.lock and not stage.early:
            wait_until(pause.reached.exists)
            held.enter_context(stage.lock(own))
            pause.open.touch()
        run = wait_until(lambda: only_run(own))
        wait_until(lambda: stage.there(own, gate, run), what=f"for the stage {name!r}\n{own.log()}")
        kill(runner)
    gate.open.touch()

    record = settled(own, run, own.start(), before)
    assert (record["status"], record.get("reason")) == stage.end, record
    assert (ran.read_text() if ran.exists() else "") == ("ran\n" if stage.executed else "")
    check_work(own, record, stage.kept)
    assert [r["id"] for r in own.task_records("job")] == [run]
    assert own.run_to_end("next")["status"] == "success"
    if stage.lock:  # it is on record now, for every runner that comes
        own.stop()
        own.start()
        own.run_to_end("next")
        assert own.task_records("job") == own.records(own.project)[:1] == [record]


def only_run(own: Rig) -> str | None:
    """The run of the task `job` that is under way, by the state."""
    with contextlib.closing(State(own.paths.state_db, datetime.now(timezone.utc))) as state:
        return next((found.run_id for found in state.runs() if found.task == "job"), None)


def check_work(own: Rig, record: dict[str, Any], kept: str | None) -> None:
    """Whether all that WORK made (or `setup`) is where it should be."""
    if kept is None:
        assert not {"discardedRef", "worktreeBranch"} & record.keys(), record
        return
    tree = branch_tree(own.project, record) if kept == "branch" else discarded_tree(own.project, record)
    names = {"half.txt"} if kept == "setup" else {"one.txt", "two.txt"}
    assert names <= tree.keys() and (kept == "setup" or tree["two.txt"][1] == b"two\n"), tree.keys()


def test_the_hardest_tree_of_a_killed_runner_is_gone(own: Rig, tmp_path: Path) -> None:
    """B6, E1: setsid, setpgid, double fork, clean environment, all deaf to SIGTERM."""
    file = tmp_path / "pids"
    own.enable(shell_task("job", f"{WORK}; exec {shlex.join(trees.tree('hard', file))}"), shell_task("next", "true"))
    before = fingerprint(own.project)
    pid = own.start()
    run = own.run("job")
    members = trees.wait_for(file, 6)
    kill(pid)
    wait_until(lambda: not trees.alive(members), 10, "for the tree to be ended without any runner")
    record = settled(own, run, own.start(), before)
    assert (record["status"], record["reason"]) == CRASHED
    check_work(own, record, "discarded")
    assert own.run_to_end("next")["status"] == "success"


def test_a_runner_killed_over_many_runs(own: Rig, tmp_path: Path) -> None:
    """Each keeps its own work; one in the main checkout leaves what it did there."""
    own.settings(maxConcurrent=5)
    gates = [Gate(tmp_path / f"gate{number}") for number in range(4)]
    alone = Gate(tmp_path / "alone")
    commands = [f"{WORK}; echo {gate.folder} > mine.txt; GATE={gate.folder}; {WAIT}" for gate in gates]
    own.enable(
        *[shell_task(f"job{number}", command) for number, command in enumerate(commands)],
        shell_task("alone", f"GATE={alone.folder}; {WAIT}", worktree={"enabled": False}),
    )
    before = fingerprint(own.project)
    runner = own.start()
    runs = {own.run(f"job{number}"): gate for number, gate in enumerate(gates)}
    outside = own.run("alone")
    wait_until(lambda: all(gate.reached.exists() for gate in (*gates, alone)))
    kill(runner)
    own.start()
    for run, gate in runs.items():
        record = own.record(run)
        assert (record["status"], record["reason"]) == CRASHED
        assert discarded_tree(own.project, record)["mine.txt"][1] == f"{gate.folder}\n".encode()
    record = own.record(outside)
    assert (record["status"], record["reason"], record["isolated"]) == (*CRASHED, False)
    assert branches(own.project) == []
    assert changed(before, fingerprint(own.project)) == set()
    nothing_left(own)
    repos.works_for_its_user(own.project)


@pytest.mark.parametrize("when", ["in the task", "in setup"])
def test_a_supervisor_killed(own: Rig, tmp_path: Path, when: str) -> None:
    file = tmp_path / "pids"
    hard = f"{WORK}; echo $PPID > {tmp_path}/supervisor; exec {shlex.join(trees.tree('hard', file))}"
    setup = {"setup": hard} if when == "in setup" else {}
    own.enable(shell_task("job", hard, worktree=setup), shell_task("next", "echo x > made"))
    runner = own.start()
    before = fingerprint(own.project)
    run = own.run("job")
    members = trees.wait_for(file, 6)
    os.kill(int((tmp_path / "supervisor").read_text()), signal.SIGKILL)
    record = settled(own, run, runner, before)
    assert (record["status"], record["reason"]) == CRASHED
    assert "supervisor" in record["error"]
    assert not trees.alive(members)
    check_work(own, record, "discarded")
    assert own.run_to_end("next")["status"] == "success"


def killed_in_the_task(own: Rig, gate: Gate) -> tuple[str, dict[str, object]]:
    """A run whose runner was killed while its task was at work; and how the user's checkout was before."""
    own.enable(shell_task("job", f"{WORK}; GATE={gate.folder}; {WAIT}"), shell_task("next", "echo x > made"))
    before = fingerprint(own.project)
    runner = own.start()
    run = own.run("job")
    wait_until(gate.reached.exists)
    kill(runner)
    gate.open.touch()
    return run, before


def test_a_killed_run_is_found_without_the_state(own: Rig, tmp_path: Path) -> None:
    """A16: By its running record in the history alone."""
    run, before = killed_in_the_task(own, Gate(tmp_path / "gate"))
    for file in Path(own.paths.state).glob("state.db*"):
        file.unlink()
    record = settled(own, run, own.start(), before)
    assert (record["status"], record["reason"]) == CRASHED
    check_work(own, record, "discarded")
    assert own.run_to_end("next")["status"] == "success"


@pytest.mark.parametrize("state", ["state.db*", "no such file"])
def test_a_killed_run_of_a_project_that_is_gone(own: Rig, tmp_path: Path, state: str) -> None:
    """Its runner starts and serves the others; the folder does not come back."""
    run, _ = killed_in_the_task(own, Gate(tmp_path / "gate"))
    for file in Path(own.paths.state).glob(state):
        file.unlink()
    shutil.rmtree(own.project)
    other = own.repository(tmp_path / "other")
    own.enable(shell_task("job", "echo x > made"), project=other)
    own.start()
    assert own.run_to_end("job", other)["status"] == "success"
    assert not own.project.exists()
    assert own.record(run)["reason"] == "crashed"


def test_a_run_that_is_asked_for_while_a_runner_recovers_happens_once(own: Rig, tmp_path: Path) -> None:
    own.enable(shell_task("job", f"echo ran >> {tmp_path}/ran; {WORK}"))
    own.start()
    own.run_to_end("job")
    own.stop()
    os.unlink(own.paths.global_history)
    with locked_global_history(own):  # the new runner has lines to add to it, and waits
        own.start()
        run = own.run("job")
    record = own.record(run)
    own.stop(at_once=False)
    assert record["status"] == "success"
    assert (tmp_path / "ran").read_text() == "ran\n" * 2
    assert [finals(file, run) for file in (own.paths.global_history, paths.history_file(str(own.project)))] == [
        [record],
        [record],
    ]


def test_a_runner_killed_at_any_moment(own: Rig, tmp_path: Path) -> None:
    """B6.

    Kills spread over the length of a run: whatever they hit, the record is true and the work is where it says.
    """
    done = tmp_path / "done"
    done.mkdir()
    mark = f'touch {done}/"$SCHEDULER_RUN_ID"'
    own.enable(shell_task("good", f"{WORK}; {mark}"), shell_task("bad", f"{WORK}; {mark}; exit 3"))
    before = fingerprint(own.project)
    length = 0.0
    for attempt in range(6):
        pid = own.start()
        begun = time.monotonic()
        run = own.run("bad" if attempt % 3 == 2 else "good")
        if attempt:
            time.sleep(length * (attempt - 1) / 4)
            kill(pid)
            own.start()
        record = own.record(run)
        length = length or time.monotonic() - begun
        if record["status"] == "success":
            names = branch_tree(own.project, record).keys()
        else:
            assert record["reason"] in ("crashed", "exit-code"), record
            names = discarded_tree(own.project, record).keys() if (done / run).exists() else {"one.txt", "two.txt"}
        assert {"one.txt", "two.txt"} <= names
    own.stop()
    kept = [record["worktreeBranch"] for record in own.records() if record.get("worktreeBranch")]
    assert sorted(branches(own.project)) == sorted(kept)
    nothing_left(own)
    assert changed(before, fingerprint(own.project)) == set()
    repos.works_for_its_user(own.project)
    for file in (own.paths.global_history, paths.history_file(str(own.project))):
        assert all(len(finals(file, record["id"])) == 1 for record in own.records())
