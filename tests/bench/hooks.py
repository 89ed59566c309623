"""`scripts/bench hooks`: a hook's cost through the real launcher, beside a bare interpreter and other ways to do it.

Every round calls each of them once, so that all meet the same moods of the machine; a call's time is from its start to
the end of its output, as the client waits for it. Phases: a small project, the same with 2,000 tasks and 100,000
records, and that with both cores kept busy. Then the slash commands that a hook answers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scheduler.disk import glance, paths
from tests.bench import answers, figures
from tests.bench.call import Call, took
from tests.hooks import BASE, ROOT, RUN, Bed

GOALS = {"PostToolUse": 1.4, "SessionStart": 1.8, "SessionEnd": 1.8, "outside a project": 0.4}
LIMIT = 100.0  # ms, p99 with both cores busy
SIZES = (("A small project", 3, 20), ("2,000 tasks and 100,000 records", 2_000, 100_000))
BARE = "python3 -I -S -c pass"
COUNT = (
    'jq -r "[.tasks[] | select(.enabled != false)] | length" "$1" && '
    'tail -n 100 "$2" | jq -s "map(select(.status == \\"failure\\")) | length"'
)


def hook(name: str, event: Mapping[str, object], cwd: Path) -> Call:
    """A hook as the client starts it."""
    return Call(["sh", str(ROOT / "scripts" / "hook"), name], cwd, json.dumps(event).encode() + b"\n")


def calls(bed: Bed) -> dict[str, Call]:
    """What is measured, by name."""
    written = bed.write_event(bed.project / "src" / "module.py", "line of code\n" * 400)
    outside = bed.folder / "outside"
    outside.mkdir(exist_ok=True)
    files = [paths.config_file(str(bed.project)), paths.history_file(str(bed.project))]
    return {
        BARE: Call([BASE, "-I", "-S", "-c", "pass"], bed.project, b""),
        "PostToolUse": hook("post_tool_use", written, bed.project),
        "SessionStart": hook("session_start", bed.event("SessionStart", source="startup"), bed.project),
        "SessionEnd": hook("session_end", bed.event("SessionEnd", reason="other"), bed.project),
        "outside a project": hook("post_tool_use", {**written, "cwd": str(outside)}, outside),
        "sh -c true": Call(["sh", "-c", "true"], bed.project, b""),
        "bash and jq counting": Call(["bash", "-c", COUNT, "-", *files], bed.project, b""),
    }


def measure(bed: Bed, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call, by name."""
    measured = calls(bed)
    found: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(rounds + 5):
        for name, call in measured.items():
            milliseconds = took(call, bed.env)
            if number >= 5:  # the first ones write bytecode and warm the caches
                found[name].append(milliseconds)
    return found


def fill(bed: Bed, tasks: int, records: int) -> None:
    """An enabled project with so many tasks, and so many records in its history."""
    task = {"name": "A task with a name", "trigger": {"type": "cron", "expression": "0 2 * * *", "timezone": "UTC"}}
    task["execution"] = {"type": "claude", "command": "Update the dependencies, run the tests, fix what breaks. " * 4}
    bed.write_config(*({"id": f"task-{number}", **task} for number in range(tasks)))
    record = {"id": RUN, "taskId": "task-1", "status": "success", "output": "x" * 200}
    history = Path(paths.history_file(str(bed.project)))
    history.parent.mkdir(exist_ok=True)
    history.write_text((json.dumps(record) + "\n") * records)
    enable(bed, tasks)


def enable(bed: Bed, active: int) -> None:
    """An enabled project with all that a glance can hold, among 20 others."""
    now = time.time()
    runs = [
        {"run": f"{n:08x}", "task": f"task-{n % 9}", "status": "success", "reason": None, "at": now, "costUsd": 0.1}
        for n in range(50)
    ]
    opened = [{"kind": "review", "run": f"{n:08x}", "task": f"task-{n}", "at": now} for n in range(20)]
    coming = [{"task": f"task-{n}", "at": now + 3600} for n in range(3)]
    due = [now + 3600 * n for n in range(1, 11)]
    judged = {"approved": ["0" * 16] * 20, "stamp": glance.stamp(str(bed.project))}
    bed.enable(
        tasks=active, active=active, recent=runs, open=opened, next=coming, due=due, held=[], overdue=None, **judged
    )
    entry = (glance.read(bed.paths.glance) or {})["projects"][str(bed.project)]
    for number in range(20):
        glance.update(bed.paths.glance, f"/home/person/projects/other-{number}", entry)


@contextmanager
def busy() -> Iterator[None]:
    """Both (all) cores kept busy."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def report(title: str, found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print a phase as a table; the ratios of the medians to the bare interpreter's."""
    bare = statistics.median(found[BARE])
    print(f"\n{title}\n\n| | p50 ms | p95 | p99 | × bare | goal |\n|---|---|---|---|---|---|")
    ratios = {}
    for name, values in found.items():
        ratios[name] = statistics.median(values) / bare
        numbers = " | ".join(f"{figures.percentile(values, share):.1f}" for share in (0.5, 0.95, 0.99))
        goal = f"≤ {GOALS[name]}" if name in GOALS else ""
        print(f"| {name} | {numbers} | {ratios[name]:.2f} | {goal} |")
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench hooks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="calls of each (default 200)")
    parser.add_argument("--client", metavar="PATH", help="the real client; without it only its hooks are measured")
    parser.add_argument("--answers", type=int, default=50, help="answers of each slash command (default 50)")
    given = parser.parse_args()
    rounds = given.rounds
    print(figures.machine())
    missed = []
    with figures.workplace() as folder:
        bed = Bed(folder)
        bed.env["TMPDIR"] = str(folder)
        with bed.runner():
            for title, tasks, records in SIZES:
                fill(bed, tasks, records)
                ratios = report(title, measure(bed, rounds))
                missed += [f"{name}: {ratios[name]:.2f} × ({title})" for name in GOALS if ratios[name] > GOALS[name]]
            with busy():
                found = measure(bed, rounds)
            report("The same with all cores busy", found)
        slow = {name: figures.percentile(found[name], 0.99) for name in GOALS}
        missed += [f"{name}: p99 {value:.0f} ms under load" for name, value in slow.items() if value >= LIMIT]
        shown, late = answers.measure(folder / "answers", given.answers, given.client)
        print(f"\n{shown}")
        missed += late
    print("\n" + ("Missed: " + "; ".join(missed) if missed else "All goals are reached."))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
