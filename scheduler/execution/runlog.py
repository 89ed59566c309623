"""The two logs of a run: what its processes say, without secrets, and a few lines of our own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from scheduler.core.joint import Joint, Reader, Released
from scheduler.core.plain import OVERLAP
from scheduler.core.record import Record
from scheduler.core.redact import Redactor
from scheduler.execution.flood import Flood
from scheduler.store.tasklog import TaskLog

OUTPUT_KEPT = 2048  # characters of the output's end in the record
HELD = 0.1  # seconds, once or twice, that lines wait for what the other stream says in the same moment


class RunLog:
    """Takes the output of one process after the other; keeps the end of it for the record. A full disk never stops the
    run. In the event loop alone."""

    def __init__(self, record: Record, now: Callable[[], datetime], redactor: Redactor) -> None:
        self._now = now
        self._redactor = redactor
        self._logs = {
            "stdout": TaskLog(record.project, record.task_id, record.id),
            "stderr": TaskLog(record.project, record.task_id, record.id, error=True),
        }
        output = redactor.stream()
        self._streams = {"stdout": output, "stderr": redactor.stream(beside=output)}
        self._readers: dict[str, Reader] = {}
        self._joint = Joint(redactor, {})
        self._flood: Flood | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tail: deque[str] = deque(maxlen=64)
        self._refused: str | None = None
        self.last_error = ""

    def say(self, text: str) -> None:
        """A line of our own."""
        self._flush()
        self._write("stdout", self._streams["stdout"].lines([text]))

    def open(self, stdout: Reader, stderr: Reader, *, flood: bool) -> None:
        """A process begins; how its two streams are read. `flood`: of more than a log keeps, the end can wait until the
        process has ended."""
        self._readers = {"stdout": stdout, "stderr": stderr}
        self._joint = Joint(self._redactor, self._readers)
        self._flood = Flood() if flood else None

    def feed(self, name: str, data: bytes) -> None:
        """A piece of its output."""
        if self._flood is not None and not self._flood.passes(name, data):
            return
        self._take(self._joint.feed(name, data))
        self._wait()

    async def settle(self) -> None:
        """It has ended: take what was held, while others get their turn."""
        for _ in self._held():
            await asyncio.sleep(0)

    def end(self) -> None:
        """It has ended, and there is nothing more of it."""
        for _ in self._held():
            pass
        self._flush()
        self._take(self._joint.end())

    def _held(self) -> Iterator[None]:
        if self._flood is None:
            return
        for name, gap, piece in self._flood.pieces():
            if gap is None:
                self._take(self._joint.feed(name, piece))
            else:
                self._skip(name, *gap)
            yield

    def _skip(self, name: str, count: int, before: bytes) -> None:
        """So many bytes of a stream are left out; `before` are the last lines of them, in which a secret may begin that
        goes on."""
        begun = self._readers[name].rest()
        if begun:
            # Of a line that is cut only what no secret can begin in that would have ended behind the cut.
            kept = begun[:-OVERLAP]
            self._take(self._joint.feed(name, f"\r{kept}…\n".encode("utf-8", "replace")))
            count += len(begun) - len(kept)
        self._flush()
        for stream, lines in self._joint.feed(name, before) + self._joint.flush():
            self._streams[stream].lines(lines)
        self._logs[name].drop(count)

    def _wait(self) -> None:
        if self._timer is None and self._joint.holds:
            self._timer = asyncio.get_running_loop().call_later(HELD, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._take(self._joint.tick())
        self._wait()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._take(self._joint.flush())

    def _take(self, released: Released) -> None:
        for name, lines in released:
            clean = self._streams[name].lines(lines)
            self._tail.extend(clean)
            if name == "stderr":
                self.last_error = next((line for line in reversed(clean) if line.strip()), self.last_error)
            self._write(name, clean)

    def _write(self, name: str, lines: list[str]) -> None:
        try:
            self._logs[name].write(lines, self._now())
        except OSError as error:
            self._refused = error.strerror

    def close(self) -> None:
        """Write what waits."""
        self._flush()
        for log in self._logs.values():
            try:
                log.close(self._now())
            except OSError as error:
                self._refused = error.strerror

    @property
    def troubles(self) -> list[str]:
        """What is missing of the logs, and why."""
        dropped = sum(stream.dropped for stream in self._streams.values())
        lost = [f"the log is not complete: {self._refused}"] if self._refused else []
        return lost + ([_lost(dropped)] if dropped else [])

    def tail(self) -> str | None:
        """The end of the output, for the record."""
        return "\n".join(self._tail)[-OUTPUT_KEPT:] or None


def _lost(lines: int) -> str:
    what = "1 line was left out, as it" if lines == 1 else f"{lines} lines were left out, as they"
    return f"the log is not complete: {what} could not be freed of secrets"
