"""The runner's side of one agent: launch it under a supervisor, watch its limits, take its output."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scheduler.execution import ending, process
from scheduler.execution.supervisors import CHUNK, Supervisor, SupervisorPool
from scheduler.execution.tree import KILL_BOUND

__all__ = ["AgentSpec", "Limits", "Outcome", "Sink", "StartedAgent", "Stop", "SupervisorPool", "carry_out"]

Stop = Literal["timeout", "stalled", "cancelled", "crashed", "not-started"]
Sink = Callable[[Literal["stdout", "stderr"], bytes], bool | None]
"""Takes a piece of output; False where it is no sign that the work goes on."""

ANSWER_PATIENCE = 3.0
"""Seconds beyond grace and killing after which a supervisor that was told to stop is taken for hung, and killed."""

LAST_READS = 64
"""Reads from each pipe after the end, more than a pipe holds: whoever could not be stopped does not keep us reading."""


@dataclass(frozen=True)
class AgentSpec:
    """What to start. A bare `argv[0]` is looked for on the PATH of `env`; `env` is the whole environment.

    `stdin` is written, then comes its end. When it is stopped, `farewell` seconds go by between SIGINT to it alone and
    SIGTERM to its tree (0: no SIGINT), then `grace` seconds till SIGKILL. `wrapped`: its first process only starts it.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    stdin: bytes = b""
    grace: float = 10.0
    farewell: float = 0.0
    wrapped: bool = False
    umask: int = 0o022


@dataclass(frozen=True)
class Limits:
    """Seconds from the launch to the end, and seconds without output that the sink takes for a sign of life; the
    machine's sleep does not count."""

    timeout: float
    stall: float | None = None


@dataclass(frozen=True)
class StartedAgent:
    """Who was started: names for the run table, to recognise these processes later."""

    pid: int
    supervisor_pid: int
    supervisor_started: float | None
    """`process.start_time` of the supervisor."""
    started_at: float
    """Seconds since the epoch at which the program was running."""


@dataclass(frozen=True)
class Outcome:
    """How it ended. When this is there, nothing of the tree runs any more, but for the `unstoppable`."""

    returncode: int | None
    """The exit code, None if it was ended by a signal, was never started or nobody saw it end."""
    signal: int | None
    stopped: Stop | None
    """Why it did not end by itself: a limit, a cancel, a killed supervisor, or no start at all."""
    detail: str
    """One clause for people; empty where the exit code is 0 and there is nothing to tell."""
    leftovers: int
    """Processes beside the agent that had to be ended."""
    unstoppable: int
    started_at: float | None
    """Seconds since the epoch, None if it never ran."""
    duration: float
    """Seconds from the launch to the end of the last process."""


async def carry_out(
    pool: SupervisorPool,
    spec: AgentSpec,
    limits: Limits,
    sink: Sink,
    cancel: asyncio.Event,
    on_start: Callable[[StartedAgent], None] | None = None,
) -> Outcome:
    """Run one agent to its end, within `limits`, or until `cancel` is set.

    `sink` gets the output as it comes, in pieces of at most 64 KB that may end anywhere; when this returns, all of it.
    If `sink` or `on_start` raises, the agent is stopped and the exception comes out of here; so it is when this task
    is cancelled. In no case is anything of the agent's tree left behind. From the main thread only.
    """
    run = _Run(spec, limits, sink, on_start)
    work = asyncio.ensure_future(run.carry_out(pool, cancel))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        run.stop("cancelled")
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((work,))
        if not work.cancelled():
            work.exception()  # Seen: the cancel is what the caller hears of.
        raise


class _Run:
    """One agent under way."""

    def __init__(
        self, spec: AgentSpec, limits: Limits, sink: Sink, on_start: Callable[[StartedAgent], None] | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._spec = spec
        self._limits = limits
        self._sink = sink
        self._on_start = on_start
        self._supervisor: Supervisor | None = None
        self._started: StartedAgent | None = None
        self._stopped: Stop | None = None
        self._failure: Exception | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._began = self._heard = self._loop.time()
        self._last_word: asyncio.Future[dict[str, Any] | None] = self._loop.create_future()

    async def carry_out(self, pool: SupervisorPool, cancel: asyncio.Event) -> Outcome:
        if self._stopped or cancel.is_set():
            return self._outcome("cancelled", "cancelled before it was started")
        try:
            self._supervisor = supervisor = pool.take()
        except OSError as error:
            return self._outcome("not-started", f"no supervisor could be started: {error.strerror or error}")
        watch = self._loop.create_task(self._watch(cancel))
        try:
            self._launch(supervisor)
            last_word = await self._last_word
            swept = await supervisor.wait() if last_word is None else None
            for _ in range(LAST_READS):
                more = self._read("stdout", supervisor.stdout), self._read("stderr", supervisor.stderr)
                if not any(more):
                    break
        finally:
            watch.cancel()
            for timer in self._timers:
                timer.cancel()
            await supervisor.end()
            process.reap_orphans()
        if self._failure:
            raise self._failure
        if last_word is None:
            return self._lost(swept or process.Swept(0, 0))
        return self._refused(last_word) if "failed" in last_word else self._ended(last_word)

    def stop(self, why: Stop) -> None:
        """Have the tree ended, unless that is under way; the first reason counts."""
        if self._stopped:
            return
        self._stopped = why
        if self._supervisor and not self._last_word.done():
            self._supervisor.say({"stop": self._spec.grace, "first": self._spec.farewell})
            self._after(self._spec.farewell + self._spec.grace + KILL_BOUND + ANSWER_PATIENCE, self._supervisor.kill)

    async def _watch(self, cancel: asyncio.Event) -> None:
        await cancel.wait()
        self.stop("cancelled")

    def _launch(self, supervisor: Supervisor) -> None:
        spec = self._spec
        supervisor.attend(self._hear)
        supervisor.say(
            {
                "argv": [os.fsencode(word) for word in spec.argv],
                "cwd": os.fsencode(spec.cwd),
                "env": {os.fsencode(name): os.fsencode(value) for name, value in spec.env.items()},
                "umask": spec.umask,
                "wrapped": spec.wrapped,
            }
        )
        self._loop.add_reader(supervisor.stdout.fileno(), self._read, "stdout", supervisor.stdout)
        self._loop.add_reader(supervisor.stderr.fileno(), self._read, "stderr", supervisor.stderr)
        self._after(self._limits.timeout, self.stop, "timeout")
        self._check_stall()
        if spec.stdin:
            supervisor.stdin.push(spec.stdin)
        supervisor.stdin.finish()

    def _after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        self._timers.append(self._loop.call_later(delay, call, *arguments))

    def _check_stall(self) -> None:
        if self._limits.stall is None:
            return
        left = self._heard + self._limits.stall - self._loop.time()
        if left <= 0:
            self.stop("stalled")
        else:
            self._after(left, self._check_stall)

    def _hear(self, message: dict[str, Any] | None) -> None:
        """Take a word of the supervisor's; None and every word but "started" are its last."""
        if message is None or "started" not in message:
            if not self._last_word.done():
                self._last_word.set_result(message)
            return
        supervisor = self._supervisor
        assert supervisor
        self._started = StartedAgent(message["started"], supervisor.pid, supervisor.started, message["at"])
        if self._on_start:
            self._guard(self._on_start, self._started)

    def _read(self, name: Literal["stdout", "stderr"], stream: io.FileIO) -> bool:
        """Pass on what is there, a chunk at most; whether there may be more."""
        chunk = stream.read(CHUNK)
        if chunk == b"":
            self._loop.remove_reader(stream.fileno())
        if chunk and not self._failure and self._guard(self._sink, name, chunk) is not False:
            self._heard = self._loop.time()
        return bool(chunk)

    def _guard(self, call: Callable[..., bool | None], *arguments: Any) -> bool | None:
        """Call code that is not ours; if it raises, the agent is stopped and the exception kept for the end."""
        try:
            return call(*arguments)
        except Exception as error:
            self._failure = error
            self.stop("cancelled")
            return None

    def _lost(self, swept: process.Swept) -> Outcome:
        """The supervisor has died without a last word; what it left has been swept."""
        detail = f"its supervisor was killed, and what it had left was ended (processes: {swept.ended})"
        return self._outcome(self._stopped or "crashed", detail, unstoppable=swept.unstoppable)

    def _refused(self, word: dict[str, Any]) -> Outcome:
        cwd = self._spec.cwd if word["failed"] == "cwd" else None
        message, hint = ending.not_started(self._spec.argv, cwd, word["errno"])
        return self._outcome("not-started", f"{message}; {hint}")

    def _ended(self, word: dict[str, Any]) -> Outcome:
        # A stop that nobody here asked for is a signal to the supervisor, as at the machine's shutdown.
        why = self._stopped or "crashed" if word["stopped"] else None
        texts: dict[Stop | None, str] = {
            "timeout": f"took longer than {self._limits.timeout:g} s",
            "stalled": f"gave no output for {self._limits.stall:g} s" if self._limits.stall else "",
            "cancelled": "cancelled",
            "crashed": "its supervisor was told to end",
            None: "",
        }
        detail = texts[why]
        if why is None and word["exit"]:
            detail = f"ended with code {word['exit']}"
        if why is None and word["signal"]:
            detail = ending.ended_by(word["signal"])
        return self._outcome(why, detail, word["exit"], word["signal"], word["left"], word["unstoppable"])

    def _outcome(
        self,
        stopped: Stop | None,
        detail: str,
        code: int | None = None,
        signal: int | None = None,
        leftovers: int = 0,
        unstoppable: int = 0,
    ) -> Outcome:
        if unstoppable:
            detail = f"{detail}; {unstoppable} processes could not be stopped".lstrip("; ")
        return Outcome(
            returncode=code,
            signal=signal,
            stopped=stopped,
            detail=detail,
            leftovers=leftovers,
            unstoppable=unstoppable,
            started_at=self._started.started_at if self._started else None,
            duration=self._loop.time() - self._began,
        )
