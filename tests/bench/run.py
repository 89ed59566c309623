"""`scripts/bench run`: the cost of a whole run of `true` in a repository of 10,000 files, beside the least plain git.

Ours: from asking the runner to the final record on disk, and to the moment when nothing of the worktree is left. Plain:
`git worktree add`, `true` in it, `git worktree remove`. In alternating pairs, since a disk has moods; each starts with
everything before it written out, and waits a while for the machine to be left alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.store import history
from tests.bench import figures
from tests.rig import Rig, rig, shell_task

GOAL = 1.25
FOLDERS = 100
SIZE = 2000  # bytes of a file, about


@dataclass(frozen=True)
class Pair:
    """Seconds of one run of ours, to its record and to the end of all deletion, and of plain git."""

    recorded: float
    clean: float
    plain: float


def fill(repository: Path, own: Rig, count: int) -> None:
    """Commit so many files, packed as in a clone."""
    for index in range(count):
        file = repository / f"folder{index % FOLDERS:02}" / f"file{index:05}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"line {index} of a file that is like others\n" * (SIZE // 45))
    own.git("config", "gc.auto", "0")
    own.git("add", "-A")
    own.git("commit", "-q", "-m", "many files")
    own.git("gc", "-q")


def plain(own: Rig, folder: Path) -> float:
    """Seconds that plain git takes for a worktree, `true`, and the worktree's removal."""
    place = folder / "plain"
    begin = time.perf_counter()
    own.git("worktree", "add", "--quiet", "-b", place.name, str(place))
    subprocess.run(["/bin/sh", "-c", "true"], cwd=place, env=own.env, check=True)
    own.git("worktree", "remove", str(place))
    took = time.perf_counter() - begin
    own.git("branch", "-q", "-D", place.name)
    return took


def ours(own: Rig) -> tuple[float, float]:
    """Seconds from asking the runner to the final record on disk, and to the end of all deletion."""
    worktrees, file = Path(own.paths.worktrees), own.paths.global_history
    begin = time.perf_counter()
    asked = own.ask("run", project=str(own.project), task="nothing")["runId"]

    def ended() -> dict[str, Any] | None:
        lines = (line for line in history.read_tail(file, 1 << 14) if line["id"] == asked)
        return next((line for line in lines if line["status"] != "running"), None)

    record = figures.until(ended, "the record")
    own.ask("status")  # answered once the record is synced
    recorded = time.perf_counter() - begin
    assert (record["status"], record.get("reason")) == ("success", "no-changes"), record
    figures.until(lambda: not any((*worktrees.glob("*/nothing-*"), *worktrees.glob("*/.trash/*"))), "a clean disk")
    clean = time.perf_counter() - begin
    assert len(own.git("worktree", "list").splitlines()) == 1
    return recorded, clean


def measure(own: Rig, folder: Path, pairs: int) -> list[Pair]:
    """So many pairs, each begun by the other side than the one before."""
    found = []
    for index in range(pairs + 1):
        calm = "" if figures.calm() else "   (others were at work)"
        baseline = 0.0
        if index % 2:
            os.sync()
            baseline = plain(own, folder)
        os.sync()
        recorded, clean = ours(own)
        if not index % 2:
            os.sync()
            baseline = plain(own, folder)
        if index:  # the first one warms the caches
            found.append(Pair(recorded, clean, baseline))
            line = f"  {index:2}  ours {recorded * 1e3:5.0f} / {clean * 1e3:5.0f} ms   plain {baseline * 1e3:5.0f} ms"
            print(line + calm, flush=True)
    return found


def tell(pairs: Sequence[Pair]) -> float:
    """Print the figures; the ratio that counts."""
    print(f"plain git                {figures.spread([pair.plain * 1000 for pair in pairs])}")
    print(f"ours, until on record    {figures.spread([pair.recorded * 1000 for pair in pairs])}")
    print(f"ours, until all is clean {figures.spread([pair.clean * 1000 for pair in pairs])}")
    recorded = statistics.median(pair.recorded / pair.plain for pair in pairs)
    clean = statistics.median(pair.clean / pair.plain for pair in pairs)
    print(f"median of the pairs' ratios: {recorded:.2f} until on record, {clean:.2f} until all is clean")
    return recorded


def main() -> int:
    """Measure; 0 where the goal is met."""
    parser = argparse.ArgumentParser(prog="scripts/bench run", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="(%(default)s)")
    parser.add_argument("--files", type=int, default=10_000, help="of the repository (%(default)s)")
    options = parser.parse_args()
    print(figures.machine())
    with figures.workplace() as folder, rig(folder / "rig") as own:
        fill(own.project, own, options.files)
        own.enable(shell_task("nothing", "true"))
        own.start()
        own.run_to_end("nothing")
        ratio = tell(measure(own, folder, options.pairs))
    print(f"goal: <= {GOAL:g}: {'met' if ratio <= GOAL else 'NOT met'}")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
