"""Whether this very process is inside a scheduled run, and what of it the run's record is to tell.

A run is known by SCHEDULER_RUN_ID, in this process or in one above it: a shell that unsets it is still below one that
had it. Who means to hide can (a run has the rights of its user); this stops what happens by mistake or by suggestion.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from scheduler.disk import files
from scheduler.disk.paths import Paths, is_run_id
from scheduler.errors import SchedulerError
from scheduler.execution import tree

MARK = "SCHEDULER_RUN_ID"
UNKNOWN = "unknown"
_REFUSED = "refused"
_LIMIT = 1 << 16
_HIGHEST = 100
_SUPERVISE = b"supervise"


def run_around(env: Mapping[str, str]) -> str | None:
    """The run that this process is inside of (`unknown` where its id is not told); None outside of any."""
    if env.get(MARK):
        return env[MARK]
    pid = os.getppid()
    for _ in range(_HIGHEST):
        process = tree.look(pid)
        if process is None or pid <= 1:
            return None
        found = _mark_of(pid)
        if found is not None:
            return found
        pid = process.parent
    return None


def _mark_of(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == MARK.encode() and value:
                return os.fsdecode(value)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[4:5] == [_SUPERVISE] and words[1:3] == [b"-I", b"-S"]:
            return UNKNOWN
    return None


def evidence_folder(scratch: Path) -> Path:
    """Where what happens inside a run is put on file: git's own reports, and verbs that were refused."""
    return scratch / "trace"


def note_refusal(paths: Paths, run_id: str, verb: str) -> None:
    """Write down, for the record, that a run called a verb that is refused inside one."""
    with contextlib.suppress(SchedulerError, OSError):
        folder = evidence_folder(Path(paths.run_folder(run_id)))
        if is_run_id(run_id) and folder.is_dir():
            files.append(folder / _REFUSED, f"{verb}\n".encode())


def refusals(folder: Path) -> list[str]:
    """The verbs that were refused to the run of that evidence, each once."""
    try:
        said = files.read_bounded(folder / _REFUSED, _LIMIT)
    except OSError:
        return []
    return sorted({verb[:40] for verb in said.decode("utf-8", "replace").split()})
