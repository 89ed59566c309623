"""What the benchmarks share: a place to work in, the machine in a line, percentiles, and the figures of a process."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 60.0
CALM = 0.9  # share of the processors' time that is idle when others leave them alone
LOADED = 0.5  # a load per core above which the figures say more of the others at work than of us


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder of the benchmark's own, below TMPDIR, deleted in the end."""
    folder = Path(tempfile.mkdtemp(prefix="scheduler-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(look: Callable[[], T | None], what: str) -> T:
    """The first true value that `look` gives, looked for each millisecond. TimeoutError after a minute."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.001)
    raise TimeoutError(f"waited {PATIENCE:g} s in vain for {what}")


def machine() -> str:
    """What was measured on, and how busy it was with other things."""
    found = re.search(r"model name\s*: (.+)", _text("/proc/cpuinfo"))
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    busy = " — BUSY, measure again" if load / cores > LOADED else ""
    kind = found.group(1).strip() if found else platform.machine()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}, git {git}"
    return f"{cores} cores ({kind}), {system}; load {load:.2f}{busy}"


def calm(patience: float = 20.0) -> bool:
    """Wait for a moment in which others leave the processors alone; False where none came within `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        rest = Rest()
        time.sleep(0.5)
        if rest.share() >= CALM:
            return True
    return False


class Rest:
    """How much of their time the processors, all together, have been idle since this was made."""

    def __init__(self) -> None:
        self._before = self._ticks()

    def share(self) -> float:
        """From 0 to 1."""
        spent = [now - then for now, then in zip(self._ticks(), self._before, strict=True)]
        return (spent[3] + spent[4]) / max(sum(spent), 1)

    @staticmethod
    def _ticks() -> list[int]:
        """User, nice, system, idle, waiting for a disk, and so on."""
        return [int(word) for word in _text("/proc/stat").split("\n", 1)[0].split()[1:9]]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` (0 to 1) of them do not pass."""
    ordered = sorted(values)
    return ordered[max(-int(-share * len(ordered) // 1) - 1, 0)]


def spread(values: Sequence[float], unit: str = "ms") -> str:
    """Median and quartiles in words."""
    low, high = percentile(values, 0.25), percentile(values, 0.75)
    return f"{statistics.median(values):.0f} {unit} ({low:.0f} to {high:.0f})"


@dataclass(frozen=True)
class Usage:
    """What a process has used since its start: seconds of processor time, and switches of its threads, by kind."""

    cpu: float
    voluntary: int
    involuntary: int

    def since(self, earlier: Usage) -> Usage:
        """What it used meanwhile."""
        return Usage(self.cpu - earlier.cpu, self.voluntary - earlier.voluntary, self.involuntary - earlier.involuntary)


def usage(pid: int) -> Usage:
    """Of all threads of a living process. A thread that ends in between takes its figures with it."""
    cpu = 0.0
    voluntary = involuntary = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        cpu += int(_text(thread / "schedstat").split()[0]) / 1e9
        voluntary += switches(thread, "voluntary")
        involuntary += switches(thread, "nonvoluntary")
    return Usage(cpu, voluntary, involuntary)


def switches(thread: Path, kind: str) -> int:
    """How often a thread (its folder below /proc) has left the processor: by itself (voluntary) or not."""
    found = re.search(rf"^{kind}_ctxt_switches:\s+(\d+)", _text(thread / "status"), re.MULTILINE)
    return int(found.group(1)) if found else 0


def memory(pid: int) -> tuple[float, float]:
    """RSS and PSS of a process in megabytes (of 10^6 bytes)."""
    text = _text(f"/proc/{pid}/smaps_rollup")
    found = {name: int(size) * 1024 / 1e6 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return found["Rss"], found["Pss"]


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    return [int(word) for word in _text(f"/proc/{pid}/task/{pid}/children").split()]


def _text(path: str | Path) -> str:
    return Path(path).read_text()
