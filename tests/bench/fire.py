"""`scripts/bench fire`: the delay from the scheduled moment to the agent's start, beside APScheduler.

A runner serves a project with five tasks without a worktree, and APScheduler's BackgroundScheduler has five jobs in
this process; each fires every two seconds, and no two at the same moment. All start the same command, whose first act
is to write down the time: what the shell and `date` need for that is in all figures, and is measured by itself too.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler  # type: ignore[import-untyped]

from tests.bench import figures
from tests.rig import Rig, rig, shell_task

EVERY = 2  # seconds between two occurrences of a task
TASKS = 5
STEP = EVERY / TASKS
GOAL_P50, GOAL_P99 = 10.0, 50.0  # milliseconds


def delays(stamps: Sequence[int], start: float, count: int) -> list[float]:
    """Milliseconds from each of `count` occurrences, EVERY seconds apart from `start`, to its stamp (nanoseconds since
    the epoch); infinite where there is none."""
    found = [math.inf] * count
    for stamp in stamps:
        index, late = divmod(stamp / 1e9 - start, EVERY)
        if 0 <= index < count:
            found[int(index)] = min(found[int(index)], late * 1000)
    return found


def command(file: Path) -> str:
    """Writes down the time, in nanoseconds."""
    return f"date +%s%N >> '{file}'"


def stamps(file: Path) -> list[int]:
    """What the command wrote down."""
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def shell_alone(folder: Path, env: dict[str, str]) -> list[float]:
    """Milliseconds from a bare start of the command to its stamp."""
    file = folder / "alone"
    found = []
    for index in range(50):
        begin = time.time_ns()
        subprocess.run(["/bin/sh", "-c", command(file)], env=env, check=True)
        found.append((stamps(file)[index] - begin) / 1e6)
        time.sleep(0.05)
    return found


def rivals(folder: Path, env: dict[str, str], starts: Sequence[float]) -> BackgroundScheduler:
    """APScheduler with the same command at moments of its own."""
    made = BackgroundScheduler(timezone=timezone.utc)
    for index, start in enumerate(starts):

        def job(text: str = command(folder / f"rival{index}")) -> None:
            subprocess.Popen(["/bin/sh", "-c", text], env=env).wait()

        made.add_job(job, "interval", seconds=EVERY, start_date=datetime.fromtimestamp(start, timezone.utc))
    made.start()
    return made


def enable(own: Rig, folder: Path, starts: Sequence[float]) -> None:
    """The runner's tasks, at their moments."""
    tasks = []
    for index, start in enumerate(starts):
        moment = datetime.fromtimestamp(start, timezone.utc).isoformat(timespec="milliseconds")
        trigger = {"type": "interval", "every": EVERY, "from": moment}
        line = command(folder / f"ours{index}")
        tasks.append(shell_task(f"task-{index}", line, trigger=trigger, worktree={"enabled": False}))
    own.enable(*tasks)


def tell(name: str, found: Sequence[float]) -> tuple[float, float]:
    """Print one side's figures; its p50 and p99."""
    missing = sum(math.isinf(delay) for delay in found)
    p50, p99 = figures.percentile(found, 0.5), figures.percentile(found, 0.99)
    lost = f", {missing} NEVER STARTED" if missing else ""
    print(f"{name:28} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   worst {max(found):6.2f} ms   of {len(found)}{lost}")
    return p50, p99


def main() -> int:
    """Measure; 0 where the goals are met."""
    parser = argparse.ArgumentParser(prog="scripts/bench fire", description=__doc__.splitlines()[0])
    parser.add_argument("--occurrences", type=int, default=200, help="of each side (%(default)s)")
    each = -(-parser.parse_args().occurrences // TASKS)
    print(figures.machine())
    with figures.workplace() as folder, rig(folder / "rig") as own:
        figures.calm(60)
        alone = shell_alone(folder, own.env)
        begin = math.ceil(time.time()) + 3
        ours = [begin + index * STEP for index in range(TASKS)]
        theirs = [start + STEP / 2 for start in ours]
        enable(own, folder, ours)
        own.start()
        scheduler = rivals(folder, own.env, theirs)
        rest, end = figures.Rest(), begin + each * EVERY
        time.sleep((datetime.fromtimestamp(end) - datetime.now() + timedelta(seconds=0.2)).total_seconds())
        idle = rest.share()
        scheduler.shutdown()
        own.stop()
        tell("the command alone", alone)
        sides = {
            name: [d for i, start in enumerate(starts) for d in delays(stamps(folder / f"{name}{i}"), start, each)]
            for name, starts in (("ours", ours), ("rival", theirs))
        }
        tell("APScheduler", sides["rival"])
        p50, p99 = tell("the runner", sides["ours"])
    met = p50 <= GOAL_P50 and p99 <= GOAL_P99
    print(f"the processors were idle for {idle:.0%} of the time: less than about 90 % means that others were at work")
    print(f"goal: p50 <= {GOAL_P50:g} ms, p99 <= {GOAL_P99:g} ms: {'met' if met else 'NOT met'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
