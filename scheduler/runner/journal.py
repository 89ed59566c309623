"""The runner's own log, without secrets: what git or a program said may be in a message, any value in a traceback."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from types import TracebackType

from scheduler.core.plain import plain
from scheduler.core.redact import Redactor, known_values
from scheduler.disk import files

log = logging.getLogger("scheduler")
LIMIT = 10 << 20  # bytes


class Words(logging.Formatter):
    """Lines with time and level. One that cannot be redacted is dropped and counted."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self.clean = clean
        self.dropped = 0

    def format(self, record: logging.LogRecord) -> str:
        try:
            return self.clean(plain(super().format(record)))
        except Exception:
            self.dropped += 1
            return f"{self.formatTime(record)} ERROR a line was left out that could not be redacted ({self.dropped})"


def set_up(env: Mapping[str, str]) -> Words:
    """Have all that the runner says, last words included, written to its standard error; how it is put."""
    words = Words(Redactor(known_values(env, {})).text)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(words)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = _last_words
    return words


def _last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("the runner ends by a bug", exc_info=(kind, error, trace))


def renew(path: str) -> None:
    """Where `path` is full, and our standard error goes there, rename it and go on in a new file. Raises OSError."""
    mine = os.fstat(2)
    if mine.st_size <= LIMIT or not (os.path.exists(path) and os.path.samestat(mine, os.stat(path))):
        return  # not full, or somebody else's: of a service of the system, a terminal
    files.rotate(path)
    fd = files.open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    for stream in (1, 2):
        os.dup2(fd, stream)
    os.close(fd)
