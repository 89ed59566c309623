"""`scripts/bench append`: a record's way into a history, beside bare writes of the same line.

A bare write opens the file, writes and closes it, as whoever has a line to add does. Ours takes the lock, looks for a
torn line and for a full file as well. All take turns, so that they meet the same moods of the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scheduler.store import history
from tests.bench import figures
from tests.bench.records import final

GOAL_WRITE, GOAL_SYNC = 3.0, 1.3
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT


def bare(path: Path, line: bytes, sync: bool) -> None:
    """Open, write, close."""
    fd = os.open(path, FLAGS, 0o600)
    os.write(fd, line)
    if sync:
        os.fsync(fd)
    os.close(fd)


def stream(path: Path, line: bytes) -> None:
    """The usual way in Python."""
    with open(path, "ab") as file:
        file.write(line)


def per_call(work: Callable[[], object], count: int) -> float:
    """Microseconds."""
    begin = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - begin) / count * 1e6


def measure(folder: Path, rounds: int) -> list[tuple[str, list[float]]]:
    """(name, microseconds of each round)."""
    line = history.to_line(final(1).to_json())
    own = str(folder / "own" / "execution-history.jsonl")
    history.append_lines(own, line)
    ways: list[tuple[str, int, Callable[[], object]]] = [
        ("write", 500, lambda: bare(folder / "bare", line, False)),
        ("open(…, 'ab').write", 500, lambda: stream(folder / "stream", line)),
        ("append", 500, lambda: history.append_lines(own, line)),
        ("write + fsync", 10, lambda: bare(folder / "synced", line, True)),
        ("append, durable", 10, lambda: history.append_lines(own, line, durable=True)),
    ]
    found: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    for _ in range(rounds):
        for name, count, work in ways:
            found[name].append(per_call(work, count))
    return list(found.items())


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args(words).rounds
    with figures.workplace() as folder:
        found = dict(measure(folder, rounds))
    middle = {name: statistics.median(values) for name, values in found.items()}
    write, sync = middle["append"] / middle["write"], middle["append, durable"] / middle["write + fsync"]
    print(f"{figures.machine()}; {rounds} rounds, medians\n")
    print("| | µs | × |\n|---|---|---|")
    for name, value in middle.items():
        base = middle["write + fsync" if "fsync" in name or "durable" in name else "write"]
        print(f"| {name} | {value:.1f} | {value / base:.2f} |")
    missed = [f"append is {write:.2f} × a write (≤ {GOAL_WRITE:g})"] * (write > GOAL_WRITE)
    missed += [f"a durable append is {sync:.2f} × write + fsync (≤ {GOAL_SYNC:g})"] * (sync > GOAL_SYNC)
    print("\n" + ("; ".join(["missed", *missed]) if missed else "goals reached"))
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
