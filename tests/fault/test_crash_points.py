"""A test build of the runner (tests/build.py) killed at each named step of a run (A15, B6): claim, record, worktree,
agent, verdict, commit or rollback, record, clean-up. After each: at most one execution of each attempt, a true record,
a repository that its user can work with, no work lost, and the next run works.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import paths
from scheduler.execution import process
from scheduler.store import config, history
from tests import build, repos
from tests.puppet import Puppet, act
from tests.rig import Rig, rig, shell_task, soon, wait_until
from tests.runs import branch_tree, branches, changed, discarded_tree, finals, fingerprint, nothing_left, strangers

WORK = "echo one > one.txt; git add -A; git commit -q --no-verify -m one; echo two > two.txt"


@dataclass(frozen=True)
class Shape:
    """How the run goes when nothing happens to it. `end`: status and reason on record."""

    command: str
    end: tuple[str, str | None]
    fields: dict[str, Any]
    never: tuple[str, ...] = ()

    def steps(self) -> list[str]:
        elsewhere = ("client ended", "client judged", "history completed", "recovered", "scratch cleared")
        return [step for step in build.STEPS if step not in (*self.never, *elsewhere)]


#: Steps that a run in the main checkout does not come to.
ISOLATED = (
    "planned", "branch made", "worktree registered", "checked out", "worktree made", "committed", "contained", "pushed",
    "saved", "worktree removed", "branch dropped", "settled",
)  # fmt: skip

SHAPES = {
    "kept": Shape(
        WORK,
        ("success", None),
        {"execution": {"verify": "test -e two.txt"}, "worktree": {"push": True}},
        ("saved", "branch dropped"),
    ),
    "undone": Shape(
        f"{WORK}; exit 3",
        ("failure", "exit-code"),
        {"policy": {"retries": 1, "retryDelay": 0}},
        ("committed", "pushed"),
    ),
    "idle": Shape("true", ("success", "no-changes"), {}, ("pushed", "saved")),
    "main": Shape("true", ("success", None), {"worktree": {"enabled": False}}, ISOLATED),
}
CASES = [(shape, step) for shape, known in SHAPES.items() for step in known.steps()]
SAMPLE = {
    ("kept", "claimed"),
    ("undone", "begun"),
    ("undone", "worktree registered"),
    ("undone", "agent ended"),
    ("kept", "committed"),
    ("kept", "pushed"),
    ("undone", "saved"),
    ("undone", "end on record"),
    ("idle", "worktree removed"),
    ("main", "judged"),
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def enable(own: Rig, shape: Shape, ran: Path) -> dict[str, object]:
    """Have a task that fires at once, and one for afterwards; how the user's checkout is before."""
    bare = own.home / "remote.git"
    own.git("init", "-q", "--bare", str(bare))
    own.git("remote", "add", "origin", str(bare))
    own.git("push", "-q", "origin", "main")
    command = f"echo $SCHEDULER_RUN_ID >> {ran}; {shape.command}"
    job = shell_task("job", command, trigger={"type": "once", "at": soon(-1)}, **shape.fields)
    own.enable(job, shell_task("next", "echo x > made"), since=datetime.now(timezone.utc) - timedelta(minutes=1))
    config.prepare_logs(str(own.project))
    return fingerprint(own.project)


def crashed(own: Rig, step: str) -> None:
    """Start a runner that dies at a step, and wait for its death."""
    pid = build.spawn(own, step)
    wait_until(lambda: process.start_time(pid) is None, what=f"for the crash at {step!r}\n{own.log()}")


def finished(own: Rig, shape: Shape) -> list[dict[str, Any]]:
    """The records of all attempts, once there are no more to come."""

    def look() -> list[dict[str, Any]]:
        found = own.task_records("job")
        again = found and found[-1]["status"] == "failure" and "policy" in shape.fields and found[-1]["attempt"] == 1
        at_work = not found or again or any(record["status"] == "running" for record in found)
        return [] if at_work else found

    return wait_until(look, what=f"for the end of all attempts\n{own.log()}")


def check(own: Rig, shape: Shape, ran: Path, runner: int, before: dict[str, object]) -> None:
    """All that must hold after a crash and the recovery from it."""
    attempts = finished(own, shape)
    wait_until(lambda: not strangers(own, runner), 20, f"for processes to end: {strangers(own, runner)}")
    executed = ran.read_text().split() if ran.exists() else []
    assert len(executed) == len(set(executed)), "an attempt was executed twice"
    assert set(executed) <= {record["id"] for record in attempts}
    assert [record["attempt"] for record in attempts] == list(range(1, len(attempts) + 1))
    for record in attempts:
        assert (record["status"], record.get("reason")) in (shape.end, ("failure", "crashed"))
        for file in (own.paths.global_history, str(own.project / ".omc/scheduler/logs/execution-history.jsonl")):
            assert finals(file, record["id"]) == [record]
        tree = None
        if record["status"] == "success" and record.get("commit"):
            tree = branch_tree(own.project, record)
        elif record.get("discardedRef"):
            tree = discarded_tree(own.project, record)
        if (record["status"], record.get("reason")) == shape.end and shape.command != "true":
            assert tree is not None and tree["two.txt"][1] == b"two\n"
    assert any((r["status"], r.get("reason")) == shape.end for r in attempts) or len(attempts) == 1
    assert branches(own.project) == [r["worktreeBranch"] for r in attempts if r.get("worktreeBranch")]
    nothing_left(own)
    after = fingerprint(own.project)
    for state in (before, after):
        state["refs"] = [line for line in state["refs"] if "refs/remotes/" not in line]  # type: ignore[attr-defined]
    assert changed(before, after) == set()
    repos.works_for_its_user(own.project)
    assert own.run_to_end("next")["status"] == "success"
    assert len(own.task_records("job")) == len(attempts)


@pytest.mark.parametrize(
    ("name", "step"), [pytest.param(*c, marks=() if c in SAMPLE else pytest.mark.full) for c in CASES]
)
def test_a_crash_at(own: Rig, tmp_path: Path, name: str, step: str) -> None:
    """A15: SCHEDULER_CRASH_AT."""
    shape, ran = SHAPES[name], tmp_path / "ran"
    before = enable(own, shape, ran)
    crashed(own, step)
    work = ran.exists() and "two.txt" in [path.name for path in Path(own.paths.worktrees).rglob("two.txt")]
    check(own, shape, ran, own.start(), before)
    if work:
        first = own.task_records("job")[0]
        assert first.get("discardedRef") or first.get("commit"), "work was lost"


@pytest.mark.parametrize("step", [pytest.param("client ended", marks=pytest.mark.full), "client judged"])
def test_a_crash_at_the_verdict_over_a_client(own: Rig, tmp_path: Path, step: str) -> None:
    """A15: its session is not begun anew, and what it did is saved."""
    client = Puppet(tmp_path / "client")
    client.plays(act(files={"two.txt": "two\n"}))
    job = shell_task("job", "do it", execution={"type": "claude"}, trigger={"type": "once", "at": soon(-1)})
    own.enable(job, client=str(client.path),
               since=datetime.now(timezone.utc) - timedelta(minutes=1))  # fmt: skip
    config.prepare_logs(str(own.project))
    before = fingerprint(own.project)
    crashed(own, step)
    own.start()
    record = wait_until(lambda: (found := own.task_records("job")) and found[0]["status"] != "running" and found[0])
    assert (record["status"], record["reason"]) == ("failure", "crashed")
    assert discarded_tree(own.project, record)["two.txt"][1] == b"two\n"
    own.stop()
    assert len(client.calls) == 1 and len(own.task_records("job")) == 1
    nothing_left(own)
    assert branches(own.project) == [] and changed(before, fingerprint(own.project)) == set()
    repos.works_for_its_user(own.project)


TWICE = [
    ("undone", "saved", "saved"),
    ("undone", "agent ended", "recovered"),
    ("undone", "agent ended", "saved"),
    ("undone", "agent ended", "worktree removed"),
    ("undone", "agent ended", "branch dropped"),
    ("undone", "agent ended", "end half on record"),
    ("undone", "agent ended", "end on record"),
    ("undone", "start half on record", "history completed"),
    ("kept", "committed", "recovered"),
    ("kept", "ended", "worktree removed"),
    ("kept", "ended", "recovered"),
    ("kept", "end half on record", "history completed"),
    ("kept", "end on record", "forgotten"),
    ("idle", "ended", "branch dropped"),
    ("idle", "claimed", "scratch cleared"),
]


@pytest.mark.parametrize(
    ("name", "step", "then"),
    [pytest.param(*c, marks=() if c == TWICE[1] else pytest.mark.full) for c in TWICE],
)
def test_a_crash_while_a_crash_is_recovered_from(own: Rig, tmp_path: Path, name: str, step: str, then: str) -> None:
    """A15."""
    shape, ran = SHAPES[name], tmp_path / "ran"
    before = enable(own, shape, ran)
    crashed(own, step)
    crashed(own, then)
    check(own, shape, ran, own.start(), before)


def test_a_retry_outlives_a_crash_right_after_the_record(own: Rig, tmp_path: Path) -> None:
    """A15: Its claim is made with the run's being forgotten; where that did not come about, it is derived again."""
    for step in ("end on record", "forgotten"):
        ran = tmp_path / step.replace(" ", "-")
        command = f"echo $SCHEDULER_RUN_ID >> {ran}; exit 3"
        policy = {"retries": 1, "retryDelay": 0}
        own.enable(shell_task(ran.name, command, trigger={"type": "once", "at": soon(-1)}, policy=policy),
                   since=datetime.now(timezone.utc) - timedelta(minutes=1))  # fmt: skip
        crashed(own, step)
        own.start()
        again = wait_until(lambda ran=ran: len(found := own.task_records(ran.name)) == 2 and found[1])
        assert (again["attempt"], again["triggeredBy"]) == (2, "retry")
        own.record(again["id"])
        assert len(set(ran.read_text().split())) == 2
        own.stop()


def test_a_record_that_one_history_alone_has_reaches_the_other(own: Rig, tmp_path: Path) -> None:
    """A16, A4: also where both have later lines, as when a disk that was full had room again before the crash."""
    shape, ran = SHAPES["idle"], tmp_path / "ran"
    before = enable(own, shape, ran)
    crashed(own, "end half on record")
    mine = paths.history_file(str(own.project))
    (run,) = {line["id"] for line in history.read(mine)}
    assert finals(mine, run) and not finals(own.paths.global_history, run)
    later = {**finals(mine, run)[0], "id": str(uuid.uuid4()), "taskId": "other"}
    for file in (mine, own.paths.global_history):
        history.append_lines(file, history.to_line(later))
    check(own, shape, ran, own.start(), before)


def test_the_product_has_no_way_to_crash_it() -> None:
    source = Path(build.SCRIPT).parents[1] / "scheduler"
    assert not [path for path in source.rglob("*.py") if "CRASH_AT" in path.read_text()]
