"""Whatever dies or refuses to die, nothing of a run's process tree is left alive."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from scheduler.execution import agent, tree
from scheduler.execution.agent import AgentSpec, Limits, StartedAgent, SupervisorPool, carry_out
from tests import trees
from tests.rig import wait_until

PATIENCE = 15.0
GONE_AFTER = 5.0
"""A generous bound on what takes less than a second on an idle machine."""


@contextmanager
def a_runner(tmp_path: Path, timeout: float, program: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A runner in a process of its own with one of the trees as its agent; `members` and `supervisor` are noted."""
    agent = trees.tree(program, tmp_path / "members", *words)
    argv = trees.user("runner", tmp_path / "supervisor", timeout, *agent)
    runner = subprocess.Popen(argv, env=trees.environment(), stdout=subprocess.PIPE)
    with runner:
        try:
            yield runner
        finally:
            runner.kill()


def supervisor(tmp_path: Path) -> tuple[int, float]:
    return trees.wait_for(tmp_path / "supervisor", 1)["supervisor"]


def test_a_timeout_ends_the_whole_tree(tmp_path: Path) -> None:
    """E1."""
    with a_runner(tmp_path, 1.0, "hard") as runner:
        members = trees.wait_for(tmp_path / "members", 6)
        assert sorted(members) == sorted(trees.ROLES)
        out, _ = runner.communicate(timeout=PATIENCE)
    assert out == b"timeout 0\n"
    assert not trees.alive(members)


def test_the_death_of_the_runner_ends_the_whole_tree(tmp_path: Path) -> None:
    """E1."""
    with a_runner(tmp_path, PATIENCE, "hard") as runner:
        members = trees.wait_for(tmp_path / "members", 6)
        members["supervisor"] = supervisor(tmp_path)
        runner.kill()
        trees.until(lambda: not trees.alive(members), "the end of the tree", GONE_AFTER)


def test_the_death_of_the_supervisor_ends_the_whole_tree(tmp_path: Path) -> None:
    """E1."""
    with a_runner(tmp_path, PATIENCE, "hard") as runner:
        members = trees.wait_for(tmp_path / "members", 6)
        os.kill(supervisor(tmp_path)[0], signal.SIGKILL)
        out, _ = runner.communicate(timeout=PATIENCE)
    assert out == b"crashed 0\n"
    assert not trees.alive(members)


class Run:
    """A run of the tree of E1 in this process, to be watched and meddled with."""

    def __init__(self, pool: SupervisorPool, file: Path, grace: float) -> None:
        self.cancel = asyncio.Event()
        self.started: asyncio.Future[StartedAgent] = asyncio.get_running_loop().create_future()
        spec = AgentSpec(trees.tree("hard", file), Path("/"), {}, grace=grace)
        sink = lambda name, chunk: None  # noqa: E731
        self.file = file
        self.outcome = asyncio.create_task(
            carry_out(pool, spec, Limits(PATIENCE), sink, self.cancel, self.started.set_result)
        )

    async def members(self) -> trees.Members:
        await self.started
        return await asyncio.to_thread(trees.wait_for, self.file, 6)

    async def signal_supervisor(self, number: int) -> None:
        os.kill((await self.started).supervisor_pid, number)


def in_a_pool(test: Callable[[SupervisorPool], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        pool = SupervisorPool()
        pool.start()
        try:
            await test(pool)
        finally:
            await pool.close()

    asyncio.run(main())


def test_a_supervisor_that_dies_while_it_stops_the_tree_changes_nothing(tmp_path: Path) -> None:
    async def test(pool: SupervisorPool) -> None:
        run = Run(pool, tmp_path / "members", grace=PATIENCE)
        members = await run.members()
        run.cancel.set()
        await asyncio.sleep(0.1)
        assert len(trees.alive(members)) == 6
        await run.signal_supervisor(signal.SIGKILL)
        outcome = await run.outcome
        assert (outcome.stopped, outcome.unstoppable) == ("cancelled", 0)
        assert outcome.detail.startswith("its supervisor was killed, ")
        assert not trees.alive(members)

    in_a_pool(test)


def test_a_supervisor_that_hangs_is_killed_with_its_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "KILL_BOUND", 0.1)
    monkeypatch.setattr(agent, "ANSWER_PATIENCE", 0.1)

    async def test(pool: SupervisorPool) -> None:
        run = Run(pool, tmp_path / "members", grace=0.1)
        members = await run.members()
        await run.signal_supervisor(signal.SIGSTOP)
        run.cancel.set()
        outcome = await run.outcome
        assert outcome.stopped == "cancelled"
        assert not trees.alive(members)

    in_a_pool(test)


def test_a_sweep_spares_the_run_beside_it(tmp_path: Path) -> None:
    async def test(pool: SupervisorPool) -> None:
        lost, spared = Run(pool, tmp_path / "lost", grace=0.1), Run(pool, tmp_path / "spared", grace=0.1)
        dead, living = await lost.members(), await spared.members()
        await lost.signal_supervisor(signal.SIGKILL)
        assert (await lost.outcome).stopped == "crashed"
        assert not trees.alive(dead)
        assert len(trees.alive(living)) == 6
        spared.cancel.set()
        assert (await spared.outcome).stopped == "cancelled"
        assert not trees.alive(living)

    in_a_pool(test)


def test_a_signal_to_the_supervisor_is_no_limit_of_the_task(tmp_path: Path) -> None:
    async def test(pool: SupervisorPool) -> None:
        run = Run(pool, tmp_path / "members", grace=0.1)
        members = await run.members()
        await run.signal_supervisor(signal.SIGTERM)
        outcome = await run.outcome
        assert (outcome.stopped, outcome.detail) == ("crashed", "its supervisor was told to end")
        assert not trees.alive(members)

    in_a_pool(test)


def test_what_cannot_be_killed_is_counted_within_the_bound() -> None:
    """E2."""
    nobody = tree.Process(2**22 + 1, 1, 2**22 + 1, 2**22 + 1, True, 0)
    began = time.monotonic()
    assert tree.kill_all(lambda: [nobody], bound=0.1) == 1
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize("words", [("stays",), ("leaves",)])
def test_one_that_is_never_the_same_process_is_caught(tmp_path: Path, words: tuple[str, ...]) -> None:
    with a_runner(tmp_path, 0.5, "hopper", *words) as runner:
        members = trees.wait_for(tmp_path / "members", 2)
        out, _ = runner.communicate(timeout=PATIENCE)
    assert out == b"timeout 0\n"
    assert not trees.alive(members)
    assert not _mentions(tmp_path)


def test_a_fork_bomb_is_brought_to_a_stand(tmp_path: Path) -> None:
    """E2."""
    with a_runner(tmp_path, 0.5, "bomb", "30") as runner:
        out, _ = runner.communicate(timeout=PATIENCE * 2)
    assert out == b"timeout 0\n"
    assert not _mentions(tmp_path)
    # Thousands of its dead wait for init to take them off the system's list, where there is room for so many only: the
    # next test needs some of it.
    wait_until(lambda: _dead() < 100)


def _dead() -> int:
    """How many processes have ended that their parent has not taken notice of."""
    count = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            count += stat.read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    return count


def _mentions(tmp_path: Path) -> list[str]:
    """The processes whose command line names this test's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(tmp_path) in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found
