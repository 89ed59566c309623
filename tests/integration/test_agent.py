"""One agent from launch to outcome, as the runner carries it out."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from scheduler.disk import files
from scheduler.execution import process, supervisors
from scheduler.execution.agent import AgentSpec, Limits, Outcome, StartedAgent, SupervisorPool, carry_out
from tests import trees

PATIENCE = 20.0
ENV = {"PATH": os.environ["PATH"]}


@asynccontextmanager
async def a_pool() -> AsyncIterator[SupervisorPool]:
    """A pool whose end is checked: no process and no descriptor is left of it."""
    loop_fds = _fds()
    pool = SupervisorPool()
    pool.start()
    try:
        yield pool
    finally:
        await pool.close()
    assert not _supervisors()
    assert _fds() == loop_fds


def _fds() -> set[str]:
    folder = "/proc/self/fd"
    return {
        f"{name} {os.readlink(f'{folder}/{name}')}" for name in os.listdir(folder) if os.path.exists(f"{folder}/{name}")
    }


def _supervisors() -> set[int]:
    """Pids of the supervisors that this process has."""
    found = set()
    for pid in process.descendants(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"supervise" in words and words[-2] == str(os.getpid()).encode():
            found.add(pid)
    return found


async def _next_one(*before: int) -> int:
    """The pid of the pool's waiting supervisor, once there is one that is not among those `before`."""
    deadline = time.monotonic() + PATIENCE
    while not (new := _supervisors() - set(before)):
        assert time.monotonic() < deadline, "no supervisor is made ready"
        await asyncio.sleep(0.02)
    (pid,) = new
    return pid


class Watched:
    """What came of one run."""

    def __init__(self) -> None:
        self.outcome: Outcome
        self.stdout = b""
        self.stderr = b""
        self.started: StartedAgent
        self.cancel = asyncio.Event()
        self.latency = 0.0

    def take(self, name: str, chunk: bytes) -> None:
        assert 0 < len(chunk) <= 65536
        setattr(self, name, getattr(self, name) + chunk)

    def start(self, started: StartedAgent) -> None:
        self.started = started

    async def run(
        self, pool: SupervisorPool, *argv: str, timeout: float = PATIENCE, stall: float | None = None, **spec: Any
    ) -> Outcome:
        began = time.time()
        whole = AgentSpec(argv, **{"cwd": Path("/"), "env": ENV, **spec})
        self.outcome = await carry_out(pool, whole, Limits(timeout, stall), self.take, self.cancel, self.start)
        self.latency = (self.outcome.started_at or 0.0) - began
        return self.outcome


def run(*argv: str, **options: Any) -> Watched:
    """Carry out one agent in a loop of its own."""
    watched = Watched()

    async def main() -> None:
        async with a_pool() as pool:
            await watched.run(pool, *argv, **options)

    asyncio.run(main())
    return watched


def loop(test: Callable[[SupervisorPool], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that is a coroutine over a pool."""

    def run_test() -> None:
        async def main() -> None:
            async with a_pool() as pool:
                await test(pool)

        asyncio.run(main())

    run_test.__name__ = test.__name__
    return run_test


def test_an_agent_gives_output_and_outcome() -> None:
    began = time.time()
    run_ = run("sh", "-c", "cat; echo err >&2; exit 3", stdin=b"prompt")
    outcome = run_.outcome
    assert (run_.stdout, run_.stderr) == (b"prompt", b"err\n")
    assert (outcome.returncode, outcome.signal, outcome.stopped) == (3, None, None)
    assert outcome.detail == "ended with code 3"
    assert (outcome.leftovers, outcome.unstoppable) == (0, 0)
    assert outcome.started_at == run_.started.started_at
    assert began <= run_.started.started_at <= time.time()
    assert 0 < outcome.duration < PATIENCE


def test_success_needs_no_words() -> None:
    assert run("true").outcome.detail == ""


@pytest.mark.parametrize(
    ("script", "code", "number", "detail"),
    [
        ("exit 255", 255, None, "ended with code 255"),
        ("kill -TERM $$", None, signal.SIGTERM, "ended by SIGTERM"),
        ("kill -KILL $$", None, signal.SIGKILL, "ended by SIGKILL, maybe for want of memory"),
        ("kill -SEGV $$", None, signal.SIGSEGV, "ended by SIGSEGV"),
    ],
)
def test_code_and_signal_are_told_apart(script: str, code: int | None, number: int | None, detail: str) -> None:
    """E12."""
    outcome = run("sh", "-c", f"ulimit -c 0; {script}").outcome
    assert (outcome.returncode, outcome.signal, outcome.stopped, outcome.detail) == (code, number, None, detail)


def test_running_out_of_memory_is_an_ending_like_any_other() -> None:
    """E15."""
    script = "ulimit -v 100000; exec " + sys.executable + " -I -S -c 'x = bytes(10**9)'"
    run_ = run("sh", "-c", script)
    assert run_.outcome.returncode == 1
    assert b"MemoryError" in run_.stderr


@pytest.mark.parametrize(
    ("argv", "options", "detail"),
    [
        (["no-such-agent"], {}, "`no-such-agent` was not found; install it, or put its folder on the PATH"),
        (["/etc/passwd"], {}, "`/etc/passwd` cannot be executed: Permission denied; look at `ls -l /etc/passwd`"),
        (["true"], {"cwd": Path("/no/folder")}, "`true` cannot start: there is no folder /no/folder; "),
        (["true", "x" * 200_000], {}, "`true` cannot start: its arguments and environment are too long; "),
        (["true"], {"env": {"WORD": "a\0b", **ENV}}, "`true` cannot start: Invalid argument; "),
    ],
)
def test_an_agent_that_cannot_start_is_an_outcome(argv: list[str], options: dict[str, Any], detail: str) -> None:
    run_ = run(*argv, stdin=b"x" * 1_000_000, **options)
    assert run_.outcome.stopped == "not-started"
    assert run_.outcome.detail.startswith(detail)
    assert (run_.outcome.returncode, run_.outcome.signal, run_.outcome.started_at) == (None, None, None)
    assert not hasattr(run_, "started")


def test_a_prompt_of_any_size_and_content_arrives() -> None:
    """E10."""
    prompt = b"-rf \0 \xff" + os.urandom(2_000_000)
    run_ = run("cat", stdin=prompt)
    assert run_.stdout == prompt


def test_an_agent_that_reads_finds_the_end() -> None:
    """E9."""
    assert run("cat").outcome.returncode == 0


@pytest.mark.parametrize("script", ["exit 0", "exec 0<&-; sleep 0.2", "sleep 0.2; head -c 10 >/dev/null"])
def test_a_prompt_that_nobody_reads_does_no_harm(script: str) -> None:
    assert run("sh", "-c", script, stdin=b"x" * 10_000_000).outcome.returncode == 0


def test_output_of_any_size_costs_little_memory() -> None:
    """E6."""
    seen = 0

    def count(name: str, chunk: bytes) -> None:
        nonlocal seen
        seen += len(chunk)

    async def main() -> None:
        async with a_pool() as pool:
            spec = AgentSpec(["head", "-c", "200000000", "/dev/zero"], Path("/"), ENV)
            await carry_out(pool, spec, Limits(60), count, asyncio.Event())

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(main())
    assert seen == 200_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KB


def test_output_of_the_last_moment_is_delivered() -> None:
    """E8."""
    script = "printf '%65536s' x; head -c 65536 /dev/zero >&2; printf end; printf END >&2"
    run_ = run("sh", "-c", script)
    assert (len(run_.stdout), run_.stdout[-3:]) == (65539, b"end")
    assert (len(run_.stderr), run_.stderr[-3:]) == (65539, b"END")


def test_a_limit_stops_the_tree_and_its_last_words_are_read() -> None:
    """E8."""
    script = "trap 'echo farewell; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    run_ = run("sh", "-c", script, timeout=0.5)
    assert run_.stdout == b"ready\nfarewell\n"
    assert (run_.outcome.stopped, run_.outcome.returncode) == ("timeout", 7)
    assert run_.outcome.detail == "took longer than 0.5 s"
    assert run_.outcome.duration >= 0.5


def test_silence_stops_the_tree_and_any_output_is_none() -> None:
    script = "for i in 1 2 3 4 5 6; do echo $i >&2; sleep 0.1; done; exec sleep 60"
    run_ = run("sh", "-c", script, stall=0.4)
    assert (run_.outcome.stopped, run_.outcome.signal) == ("stalled", signal.SIGTERM)
    assert run_.stderr == b"1\n2\n3\n4\n5\n6\n"
    assert run_.outcome.duration >= 0.9
    assert run_.outcome.detail == "gave no output for 0.4 s"


def test_an_agent_that_ended_before_its_limit_was_not_stopped_by_it() -> None:
    outcome = run("sh", "-c", "(trap '' TERM; exec sleep 60) & sleep 0.1; exit 5", timeout=0.5).outcome
    assert (outcome.returncode, outcome.stopped, outcome.leftovers) == (5, None, 1)


def test_a_grandchild_that_holds_the_output_does_not_delay_the_end() -> None:
    run_ = run("sh", "-c", "sleep 60 & setsid sleep 60 & echo done")
    assert run_.stdout == b"done\n"
    assert (run_.outcome.returncode, run_.outcome.leftovers) == (0, 2)
    assert run_.outcome.duration < PATIENCE


def test_an_agent_has_no_terminal() -> None:
    """E13."""
    assert b"No such device" in run("sh", "-c", "echo hello > /dev/tty").stderr


def test_an_agent_has_no_descriptor_of_the_runner(tmp_path: Path) -> None:
    """B4: also not the lock of the runner, nor the pipes of a run beside it."""
    os.set_inheritable(stray := os.open("/dev/zero", os.O_RDONLY), True)

    @loop
    async def test(pool: SupervisorPool) -> None:
        first, second = Watched(), Watched()
        long = asyncio.create_task(first.run(pool, "sh", "-c", "sleep 60"))
        while not hasattr(first, "started"):
            await asyncio.sleep(0.01)
        await second.run(pool, sys.executable, "-I", "-S", "-c", "import os; print(os.listdir('/proc/self/fd'))")
        first.cancel.set()
        await long
        assert second.stdout == b"['0', '1', '2', '3']\n"  # The last is the folder's own, while it is listed.

    with files.locked(tmp_path / "runner.lock"):
        test()
    os.close(stray)


@loop
async def test_a_cancel_stops_the_tree(pool: SupervisorPool) -> None:
    run_ = Watched()
    work = asyncio.create_task(run_.run(pool, "sleep", "60"))
    await asyncio.sleep(0.1)
    run_.cancel.set()
    outcome = await work
    assert (outcome.stopped, outcome.signal, outcome.detail) == ("cancelled", signal.SIGTERM, "cancelled")


@loop
async def test_a_cancel_before_the_start_starts_nothing(pool: SupervisorPool) -> None:
    run_ = Watched()
    run_.cancel.set()
    outcome = await run_.run(pool, "sleep", "60")
    assert (outcome.stopped, outcome.started_at) == ("cancelled", None)


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_a_task_that_is_cancelled_leaves_nobody(tmp_path: Path, delay: float) -> None:
    @loop
    async def test(pool: SupervisorPool) -> None:
        run_ = Watched()
        argv = trees.tree("hard", tmp_path / "members")
        work = asyncio.create_task(run_.run(pool, *argv, grace=0.2))
        await asyncio.sleep(delay)
        for _ in range(3):
            work.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await work
        assert process.descendants(os.getpid()) <= _supervisors()

    test()
    if (tmp_path / "members").exists():
        assert not trees.alive(trees.wait_for(tmp_path / "members", 1))


@pytest.mark.parametrize("who", ["sink", "on_start"])
def test_an_exception_of_the_callers_stops_the_agent_and_comes_out(who: str) -> None:
    def fail(*words: object) -> None:
        raise OSError("disk full")

    @loop
    async def test(pool: SupervisorPool) -> None:
        spec = AgentSpec(["sh", "-c", "echo $$; exec head -c 10000000 /dev/zero"], Path("/"), ENV)
        sink, on_start = (fail, None) if who == "sink" else (lambda name, chunk: None, fail)
        with pytest.raises(OSError, match="disk full"):
            await carry_out(pool, spec, Limits(PATIENCE), sink, asyncio.Event(), on_start)

    test()


@loop
async def test_runs_beside_each_other_do_not_mix(pool: SupervisorPool) -> None:
    runs = [Watched() for _ in range(8)]
    script = "for i in 1 2 3 4 5; do echo $0; sleep 0.01; done; cat; exit $0"
    await asyncio.gather(*(run_.run(pool, "sh", "-c", script, str(n), stdin=b"%d!" % n) for n, run_ in enumerate(runs)))
    assert [run_.outcome.returncode for run_ in runs] == list(range(8))
    assert [run_.stdout for run_ in runs] == [b"%d\n" % n * 5 + b"%d!" % n for n in range(8)]


@loop
async def test_one_supervisor_is_ready_and_the_next_one_follows(pool: SupervisorPool) -> None:
    first = await _next_one()
    run_ = Watched()
    await run_.run(pool, "true")
    assert run_.started.supervisor_pid == first
    await _next_one(first)


@loop
async def test_one_that_dies_while_it_waits_is_replaced(pool: SupervisorPool) -> None:
    first = await _next_one()
    os.kill(first, signal.SIGKILL)
    trees.until(lambda: process.start_time(first) is None, "its death")
    run_ = Watched()
    await run_.run(pool, "true")
    assert run_.outcome.returncode == 0
    second = await _next_one(first, run_.started.supervisor_pid)
    os.kill(second, signal.SIGKILL)
    await _next_one(first, run_.started.supervisor_pid, second)


def test_a_supervisor_is_started_from_the_main_thread_alone() -> None:
    caught: list[str] = []

    def start() -> None:
        try:
            supervisors.Supervisor()
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert caught == ["a supervisor must be started from the main thread"]


def test_without_descriptors_a_run_is_told_so_and_leaks_none() -> None:
    """A18."""

    @loop
    async def test(pool: SupervisorPool) -> None:
        await Watched().run(pool, "true")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(lowest_free := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 4, hard))
        try:
            outcome = await Watched().run(pool, "true")
            await asyncio.sleep(0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert outcome.stopped == "not-started"
        assert outcome.detail == "no supervisor could be started: Too many open files"
        assert (await Watched().run(pool, "true")).returncode == 0

    test()


def _launch_many(count: int) -> None:
    @loop
    async def test(pool: SupervisorPool) -> None:
        await Watched().run(pool, "true")
        before = len(_fds())
        for _ in range(count):
            await Watched().run(pool, "true", stdin=b"prompt")
        await asyncio.sleep(0.2)
        assert len(_fds()) <= before + 4  # Those of the next supervisor, if it was not yet there before.
        assert process._own <= _supervisors()

    test()


def test_descriptors_do_not_leak() -> None:
    _launch_many(40)


@pytest.mark.full
def test_descriptors_do_not_leak_over_a_thousand_launches() -> None:
    _launch_many(1000)
