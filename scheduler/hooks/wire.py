"""The frame around each hook: one event in, at most one JSON object out, exit code 0 whatever happens.

Hook-safe: standard library only and of that what costs nothing to import, Python 3.9 syntax.
"""

from __future__ import annotations

import os
import time

from scheduler.disk import files, tinyjson
from scheduler.disk.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Optional

    Event = dict[str, Any]
    #: (event, environment, epoch s) -> what the client is told, or None
    Answer = Callable[[Event, Mapping[str, str], float], Optional[dict[str, Any]]]

LIMIT = 4 << 20
FIRST_BYTE = 0.08  # s; the client writes at once, and a hook may take 100 ms in all
NEXT_BYTES = 0.5  # s; a busy client that has begun to write is waited for
LOG_LIMIT = 1 << 20
_SECRET_PARTS = ("TOKEN", "SECRET", "PASS", "KEY", "CRED", "AUTH")


def run(name: str, answer: Answer) -> None:
    """Answer the event on stdin and leave the process, by 0. A failure becomes a line in the hooks' log, no more."""
    try:
        told = answer(read_event(0), os.environ, time.time())
        if told:
            os.write(1, tinyjson.dumps(told).encode() + b"\n")
    except BaseException as error:
        _note(name, error)
    os._exit(0)  # skips taking the interpreter down, which costs as much as all that a hook does


def read_event(fd: int) -> Event:
    """The client's JSON object; of one larger than LIMIT its whole members, with `"cut": True`. Else ValueError."""
    data, whole = _read(fd)
    event = tinyjson.loads(data) if whole else {**tinyjson.loads_start(data), "cut": True}
    if not isinstance(event, dict):
        raise ValueError("the event is no JSON object")
    return event


def _read(fd: int) -> tuple[bytes, bool]:
    """What comes on `fd`, and whether that is all of it."""
    parts: list[bytes] = []
    left = LIMIT
    os.set_blocking(fd, False)
    while left and (part := _read_some(fd, min(left, 1 << 16), NEXT_BYTES if parts else FIRST_BYTE)):
        parts.append(part)
        left -= len(part)
        if part.endswith(b"}\n"):  # so the client ends its one line; nobody need wait for it to close the pipe
            break
    return b"".join(parts), left > 0


def _read_some(fd: int, size: int, wait: float) -> bytes:
    """As os.read, for `wait` seconds; nothing after that."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        import select  # mostly everything has come by now, and its import is spared

        return os.read(fd, size) if select.select([fd], [], [], wait)[0] else b""


def text(event: Mapping[str, Any], name: str, limit: int = 200) -> str:
    """A member of the event that is text; empty where it is not there, no text, or longer than `limit`."""
    value = event.get(name)
    return value if isinstance(value, str) and len(value) <= limit else ""


def iso(now: float) -> str:
    """ISO 8601 with offset, in milliseconds."""
    at = time.localtime(now)
    minutes = at.tm_gmtoff // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", at)
    return f"{clock}.{int(now % 1 * 1000):03d}{sign}{minutes // 60:02d}:{minutes % 60:02d}"


def _told(error: BaseException) -> str:
    """What an error says, without what may be a secret in it: there is no time to look closely."""
    said = str(error.strerror) if isinstance(error, OSError) else str(error)
    for name, value in os.environ.items():
        if len(value) >= 8 and any(part in name.upper() for part in _SECRET_PARTS):
            said = said.replace(value, "...")
    return " ".join(word if len(word) < 20 or word.isalpha() else "..." for word in said.split())


def _note(name: str, error: BaseException) -> None:
    try:
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        where = f"{os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno}" if at is not None else "?"
        line = f"{iso(time.time())} {name} {type(error).__name__}: {ascii(_told(error))[:300]} ({where})\n"
        files.append(Paths(os.environ).hooks_log, line.encode("ascii", "replace"), limit=LOG_LIMIT, wait=False)
    except BaseException:  # there is nobody left to tell
        pass
