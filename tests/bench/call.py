"""One call of a program, as the client makes it of a hook, and how long it takes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Call:
    """A command, where it is started, and what it reads."""

    argv: Sequence[str]
    cwd: Path
    stdin: bytes


def took(call: Call, env: Mapping[str, str]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    done = subprocess.run(call.argv, input=call.stdin, cwd=call.cwd, env=env, capture_output=True)
    end = time.perf_counter()
    assert (done.returncode, done.stderr) == (0, b""), done
    return (end - begin) * 1000
