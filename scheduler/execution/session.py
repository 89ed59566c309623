"""What a client's session has cost, where nobody heard its result: it was cut short, or the runner died under it.

A client notes it at the end of the session's own file when it ends, also when it is told to: 2.1.330 does, 2.1.197 not
(then it is not known), nor any that is killed. That file is the client's and not documented, so a result is preferred.
"""

from __future__ import annotations

import glob
import json
import os
import stat

from scheduler.core.record import Record
from scheduler.execution.stream import finite

UNKNOWN = "what it cost is not known: the client did not come to say it, and no budget counts it"
_TAIL = 1 << 18  # bytes at the end of the file that are looked at
_MARK = b'"cost-state"'


def cost(client_folder: str, session_id: str) -> float | None:
    """US dollars that the session has cost in all, from its beginning; None where the client noted nothing."""
    found = [_noted(path, session_id) for path in _files(client_folder, session_id)]
    return max((usd for usd in found if usd is not None), default=None)


def completed(record: Record, client_folder: str) -> Record:
    """The record of a run that nobody saw end, with what its session has cost; with a note where that is not known,
    though there was one."""
    if record.session_id is None or not _files(client_folder, record.session_id):
        return record
    usd = cost(client_folder, record.session_id)
    if usd is None:
        return record.evolve(notes=(*(record.notes or ()), UNKNOWN))
    return record.evolve(cost_usd=max(record.cost_usd or 0.0, usd))


def _files(client_folder: str, session_id: str) -> list[str]:
    return glob.glob(os.path.join(glob.escape(client_folder), "projects", "*", f"{glob.escape(session_id)}.jsonl"))


def _noted(path: str, session_id: str) -> float | None:
    try:
        lines = _end(path).split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        if _MARK in line:
            usd = _usd(line, session_id)
            if usd is not None:
                return usd
    return None


def _end(path: str) -> bytes:
    """The last of a file; nothing where the run left something else in its place, which could keep us waiting."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return b""
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
        return file.read(_TAIL)


def _usd(line: bytes, session_id: str) -> float | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or (told.get("type"), told.get("sessionId")) != ("cost-state", session_id):
        return None
    usd = finite(told.get("totalCostUSD"))
    return usd if usd is not None and usd >= 0 else None
