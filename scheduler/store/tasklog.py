"""The per-task logs: `{task-id}.log` and `{task-id}.error.log`, lines of `[ISO time] [run] text`.

What is kept of one run and stream is bounded: the first 2 MB as they come, then the last 8 MB, with a line that says
how much was dropped between. A file that passes 10 MB is renamed; its parts stay beside it.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from datetime import datetime

from scheduler.core.models import iso
from scheduler.disk import files, paths

HEAD = 2 * 1024 * 1024
TAIL = 8 * 1024 * 1024
ROTATE = 10 * 1024 * 1024


class TaskLog:
    """One stream of one run. Lines must be clean (core/plain.py). The run's first eight characters name it."""

    def __init__(self, project: str, task_id: str, run_id: str, *, error: bool = False) -> None:
        self._project = project
        self._path = paths.task_log(project, task_id, error=error)
        self._run = run_id[:8]
        self._head = HEAD
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0

    def write(self, lines: list[str], now: datetime) -> None:
        """Keep lines; once the head is full they wait in memory until `close`."""
        ready = []
        for line in lines:
            data = f"[{iso(now)}] [{self._run}] {line}\n".encode("utf-8", "replace")
            if self._head > 0:
                self._head -= len(data)
                ready.append(data)
            else:
                self._keep(data)
        self._append(ready)

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size > TAIL:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._dropped += gone

    def drop(self, count: int) -> None:
        """So many bytes of output are left out here: what follows is the end, what was dropped is said before it."""
        self._head = 0
        self._dropped += count + self._tail_size
        self._tail.clear()
        self._tail_size = 0

    def close(self, now: datetime) -> None:
        """Write what waits, and what was dropped."""
        said = [f"[{iso(now)}] [{self._run}] … {self._dropped} bytes dropped …\n".encode()] if self._dropped else []
        self._append([*said, *self._tail])
        self._tail.clear()
        self._tail_size = self._dropped = 0

    def _append(self, lines: list[bytes]) -> None:
        if lines and not os.path.isdir(self._project):  # moved away: a folder of its name must not come back
            raise OSError(errno.ENOENT, "the project is not there any more", self._project)
        block = bytearray()
        for line in lines:
            block += line
            if len(block) > 1 << 20:
                files.append(self._path, bytes(block), limit=ROTATE)
                block.clear()
        if block:
            files.append(self._path, bytes(block), limit=ROTATE)
