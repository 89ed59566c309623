"""`scripts/bench idle`: what a runner with nothing due costs, how soon it answers, how soon a change is in force.

For 1, 1,000 and 10,000 tasks in one project, and for 1,000 in 100 projects: processor time and wake-ups (voluntary
switches of all its threads), memory, the time from its start to its first answer and to all tasks being planned, and
the time from a changed config to its being in force.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from scheduler.runner import control
from tests.bench import figures
from tests.rig import Rig, rig, shell_task

SHAPES = ((1, 1), (1_000, 1), (10_000, 1), (1_000, 100))  # tasks in all, projects
GOAL_CORE, GOAL_MEMORY = 0.1, 60.0  # per cent of a core, megabytes at 1,000 tasks
CHANGES = 5
SETTLE = 5.0  # seconds after the start that do not count


@dataclass(frozen=True)
class Costs:
    """Of one shape. Seconds, megabytes, and per minute."""

    answered: float
    planned: float
    cpu: float
    wakeups: float
    rss: float
    pss: float
    supervisor: float
    changed: float
    longest: float

    def __str__(self) -> str:
        return "\n".join(
            (
                f"  idle      {self.cpu / 60 * 100:.3f} % of a core, {self.wakeups:.0f} wake-ups a minute",
                f"  memory    RSS {self.rss:.1f} MB, PSS {self.pss:.1f} MB; supervisor PSS {self.supervisor:.1f} MB",
                f"  start     first answer in {self.answered * 1e3:.0f} ms, planned in {self.planned * 1e3:.0f} ms",
                f"  change    in force after {self.changed * 1e3:.0f} ms, answers within {self.longest * 1e3:.0f} ms",
            )
        )


def tasks(count: int) -> list[dict[str, Any]]:
    """Daily ones at all minutes but those of the coming hour."""
    begin = datetime.now(timezone.utc) + timedelta(hours=1, minutes=5)
    found = []
    for index in range(count):
        moment = begin + timedelta(minutes=index % (22 * 60))
        trigger = {"type": "cron", "expression": f"{moment.minute} {moment.hour} * * *", "timezone": "UTC"}
        found.append(shell_task(f"task-{index:05}", "true", trigger=trigger))
    return found


@contextmanager
def served(folder: Path, count: int, projects: int) -> Iterator[tuple[Rig, list[Path]]]:
    """A home with so many tasks, spread over so many projects; no runner yet."""
    with rig(folder) as own:
        roots = [own.project]
        while len(roots) < projects:
            roots.append(folder / f"project-{len(roots):03}")
            (roots[-1] / ".git").mkdir(parents=True)
        for root in roots:
            own.enable(*tasks(count // projects), project=root)
        yield own, roots


def change(own: Rig, root: Path, count: int, index: int) -> tuple[float, float]:
    """Add a task that comes before all others; seconds from its approval until the runner plans it, and the longest
    time that the runner took to answer till then."""
    soon = (datetime.now(timezone.utc) + timedelta(minutes=30 - index)).isoformat(timespec="milliseconds")
    new = f"new-{index}"
    own.enable(*tasks(count), shell_task(new, "true", trigger={"type": "once", "at": soon}), project=root)
    begin, longest = time.perf_counter(), 0.0
    while True:
        asked = time.perf_counter()
        coming = own.ask("status")["next"]
        longest = max(longest, time.perf_counter() - asked)
        if coming and coming[0]["taskId"] == new:
            return time.perf_counter() - begin, longest
        time.sleep(0.005)


def measure(folder: Path, count: int, projects: int, seconds: float) -> Costs:
    """Start a runner for this shape and watch it for so long."""
    with served(folder, count, projects) as (own, roots):
        begin = time.perf_counter()
        pid = int(control.ensure_runner(own.paths, own.env)["pid"])
        answered = time.perf_counter() - begin
        figures.until(lambda: len(own.ask("status")["next"]) >= min(count, 10), "the tasks")
        planned = time.perf_counter() - begin
        own.run_to_end("task-00000")  # a runner that has worked holds more than one that has not
        time.sleep(SETTLE)
        before, at = figures.usage(pid), time.perf_counter()
        time.sleep(seconds)
        used, share = figures.usage(pid).since(before), 60 / (time.perf_counter() - at)
        changes = [change(own, roots[0], count // projects, index) for index in range(CHANGES)]
        rss, pss = figures.memory(pid)  # after the changes, which leave their traces
        supervisor = sum(figures.memory(child)[1] for child in figures.children(pid))
        changed, longest = statistics.median(took for took, _ in changes), max(longest for _, longest in changes)
        return Costs(
            answered, planned, used.cpu * share, used.voluntary * share, rss, pss, supervisor, changed, longest
        )


def main() -> int:
    """Measure; 0 where the goals are met."""
    parser = argparse.ArgumentParser(prog="scripts/bench idle", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="to watch each runner (%(default)g)")
    options = parser.parse_args()
    print(figures.machine())
    met = True
    with figures.workplace() as folder:
        for count, projects in SHAPES:
            costs = measure(folder / f"{count}-{projects}", count, projects, options.seconds)
            print(f"{count:,} tasks in {projects} project{'s' if projects > 1 else ''}\n{costs}", flush=True)
            if projects == 1:
                met = met and costs.cpu / 60 * 100 <= GOAL_CORE and (count > 1000 or costs.rss <= GOAL_MEMORY)
    print(f"goal: <= {GOAL_CORE:g} % of a core, <= {GOAL_MEMORY:g} MB at 1,000 tasks: {'met' if met else 'NOT met'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
