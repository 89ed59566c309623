"""The runner's end of its supervisors: starting them ahead of need, talking to them, and taking leave of them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scheduler.execution import process
from scheduler.execution.line import Line
from scheduler.execution.process import Swept

PACKAGE = Path(__file__).resolve().parent.parent

CHUNK = 65536
"""Bytes read or written in one turn of the loop."""

REFILL_DELAY = 0.05
"""Seconds from a launch to the start of the next supervisor, so that the two do not compete."""

RENEWAL_DELAY = 1.0
"""Seconds from the loss of a waiting supervisor to its replacement, so that a lasting fault costs little."""

END_PATIENCE = 8.0
"""Seconds for a supervisor whose line was closed to end its tree and itself, before it is killed."""


class Feed:
    """Writes to a pipe or socket as fast as it is read, without ever waiting; what a dead reader leaves is dropped."""

    def __init__(self, target: io.FileIO | socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._pending: deque[memoryview] = deque()
        self._closing = self._closed = False

    def push(self, data: bytes) -> None:
        """Write `data` after all that was given before."""
        self._pending.append(memoryview(data))
        if len(self._pending) == 1:
            self._write()

    def finish(self) -> None:
        """Close the target once everything is written, or nobody reads any more."""
        self._closing = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close the target; what is not written yet is dropped."""
        self._pending.clear()
        if not self._closed:
            self._closed = True
            self._loop.remove_writer(self._target.fileno())
            self._target.close()

    def _write(self) -> None:
        fd = self._target.fileno()
        try:
            while self._pending:
                rest = self._pending[0]
                rest = rest[os.write(fd, rest[:CHUNK]) :]
                if rest:
                    self._pending[0] = rest
                else:
                    self._pending.popleft()
        except BlockingIOError:
            self._loop.add_writer(fd, self._write)
            return
        except OSError:
            self._pending.clear()
        self._loop.remove_writer(fd)
        if self._closing:
            self.close()


class Supervisor:
    """One supervisor: its process, the line to it, and our ends of the pipes that its agent will have."""

    def __init__(self) -> None:
        """Start it. Raises OSError (no descriptors, no processes) and leaves nothing open then."""
        if threading.current_thread() is not threading.main_thread():
            # The kernel tells the supervisor of its parent's death when the *thread* that started it ends.
            raise RuntimeError("a supervisor must be started from the main thread")
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            near, far = socket.socketpair()
            ours.enter_context(near)
            theirs.enter_context(far)
            their_stdin, our_stdin = _pipe(theirs, ours)
            self.stdout, their_stdout = _pipe(ours, theirs)
            self.stderr, their_stderr = _pipe(ours, theirs)
            for end in (near, our_stdin, self.stdout, self.stderr):
                os.set_blocking(end.fileno(), False)
            fds = [end.fileno() for end in (far, their_stdin, their_stdout, their_stderr)]
            words = [sys.executable, "-I", "-S", str(PACKAGE), "supervise", *map(str, fds), str(os.getpid())]
            null = subprocess.DEVNULL
            self._child = process.start(words, pass_fds=fds, stdin=null, stdout=null, cwd="/")
            self._open = ours.pop_all()
        self.pid = self._child.pid
        self.started = process.start_time(self.pid)
        self._socket = near
        self._line = Line()
        self._feed = Feed(near)
        self.stdin = Feed(our_stdin)

    def attend(self, hear: Callable[[dict[str, Any] | None], None]) -> None:
        """From now on call `hear` with every message of the supervisor, and with None when its line has ended."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read, hear)

    def say(self, message: dict[str, Any]) -> None:
        """Send a message; it is lost if the supervisor has died."""
        self._feed.push(Line.frame(message))

    def is_lost(self) -> bool:
        """Whether it has died."""
        return self._child.poll() is not None

    def kill(self) -> None:
        """End the supervisor itself, by force."""
        self._child.kill()

    async def wait(self) -> Swept | None:
        """Wait for the process to end, by force after a while.

        None if it ended in order; else all that it left to us has been ended too, and is counted.
        """
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + END_PATIENCE, 0.0005
        while (code := self._child.poll()) is None:
            if loop.time() >= deadline:
                self._child.kill()
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        process.forget(self._child)
        return await asyncio.to_thread(process.sweep_orphans) if code else None

    async def end(self) -> None:
        """Close everything, upon which it ends whatever it has under it, and itself; wait for that."""
        loop = asyncio.get_running_loop()
        for end in (self.stdout, self.stderr):
            loop.remove_reader(end.fileno())
        if self._socket.fileno() >= 0:
            loop.remove_reader(self._socket.fileno())
        self._feed.close()
        self.stdin.close()
        self._open.close()
        await self.wait()

    def _read(self, hear: Callable[[dict[str, Any] | None], None]) -> None:
        try:
            chunk = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            chunk = b""
        self._line.feed(chunk)
        while message := self._line.take():
            hear(message)
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            hear(None)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    """The two ends of a new pipe, each entered into its owner's stack. None reaches a child that is not given it."""
    read, write = os.pipe()
    return reader.enter_context(io.FileIO(read, "rb")), writer.enter_context(io.FileIO(write, "wb"))


class SupervisorPool:
    """Keeps one supervisor ready, because to start one takes the time of a hundred launches. Main thread only."""

    def __init__(self) -> None:
        self._ready: Supervisor | None = None
        self._refill_at: asyncio.TimerHandle | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        self._closed = True

    def start(self) -> None:
        """Begin to keep one ready, and to inherit what a killed one leaves; the loop must be running."""
        process.become_subreaper()
        self._closed = False
        self._refill()

    def take(self) -> Supervisor:
        """The one that is ready, else a new one (OSError if that cannot be started). The caller ends it."""
        ready, self._ready = self._ready, None
        if ready and ready.is_lost():
            self._say_farewell(ready)
            ready = None
        self._refill_in(REFILL_DELAY)
        return ready or Supervisor()

    async def close(self) -> None:
        """Keep none ready any more; when this returns, none is left. Those taken are their takers' affair."""
        self._closed = True
        if self._refill_at:
            self._refill_at.cancel()
        if self._ready:
            self._say_farewell(self._ready)
            self._ready = None
        await asyncio.gather(*self._farewells)

    def _refill_in(self, delay: float) -> None:
        if self._refill_at:
            self._refill_at.cancel()
        self._refill_at = asyncio.get_running_loop().call_later(delay, self._refill)

    def _refill(self) -> None:
        if self._closed or self._ready:
            return
        try:
            self._ready = Supervisor()
        except OSError:  # Whoever takes one meanwhile is told.
            self._refill_in(RENEWAL_DELAY)
        else:
            self._ready.attend(self._lose)

    def _lose(self, message: dict[str, Any] | None) -> None:
        """The ready one has died: it has nothing to say before it is taken."""
        if self._ready:
            self._say_farewell(self._ready)
            self._ready = None
            self._refill_in(RENEWAL_DELAY)

    def _say_farewell(self, supervisor: Supervisor) -> None:
        task = asyncio.get_running_loop().create_task(supervisor.end())
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)
