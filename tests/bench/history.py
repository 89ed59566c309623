"""`scripts/bench history`: "the ten latest failures" and "statistics of everything", of histories of three sizes.

In process and as a whole command, with the index cold (deleted) and warm, beside jq, DuckDB and a pass with orjson over
the same files in the same run. All must say the same. The histories lie in parts of 10 MB, as the runner leaves them,
none compressed (jq and DuckDB read plain files). Every run has two records, its begin and its end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import orjson

from scheduler.core.query import Query
from scheduler.disk.paths import Paths
from scheduler.store import history, search, segments
from tests.bench import figures, records
from tests.command import PACKAGE

SIZES = (1_000, 100_000, 1_000_000)
LATEST = Query(statuses=("failure", "timeout"), limit=10)
GOALS = {"recent, warm": 20.0, "stats, warm": 50.0, "recent, command": 250.0, "stats, command": 250.0}
SMALL_GOAL = 5.0  # milliseconds, with no index at all, of a thousand records
BUILD_GOAL = 2.0  # times the pass that answers

DUCK = """
SELECT id, unnest(arg_max(r, n)) FROM (
  SELECT id, {'status': status, 'duration': duration, 'turns': turns, 'began': epoch_ms(startedAt::TIMESTAMPTZ)} AS r,
    row_number() OVER () AS n
  FROM read_json($files, format='newline_delimited', columns={
    id: 'VARCHAR', status: 'VARCHAR', duration: 'BIGINT', turns: 'BIGINT', startedAt: 'VARCHAR'}))
GROUP BY id
"""
DUCK_RECENT = f"SELECT * FROM ({DUCK}) WHERE status IN ('failure', 'timeout') ORDER BY began DESC LIMIT 10"
DUCK_STATS = f"SELECT count(*), quantile_disc(duration, 0.95), sum(turns) FROM ({DUCK})"
JQ = """
reduce inputs as $r ({}; .[$r.id] = ($r | {id, status, duration, costUsd, turns, startedAt})) | [.[]]
"""
JQ_RECENT = JQ + '| map(select(.status == "failure" or .status == "timeout")) | sort_by(.startedAt) | .[-10:] | length'
JQ_STATS = (
    JQ
    + """
| ([.[].duration | numbers] | sort) as $d
| {runs: length, p95: $d[($d | length * 95 + 99) / 100 | floor | . - 1], turns: ([.[].turns | numbers] | add)}
"""
)


class Pass:
    """What somebody writes who has orjson and no index: read every line, keep the last of each id, answer."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files

    def parse(self) -> None:
        """Only read every line: less than any answer needs."""
        for name in self._files:
            with open(name, "rb") as file:
                for line in file:
                    orjson.loads(line)

    def fold(self) -> dict[str, Any]:
        state = {}
        for name in self._files:
            with open(name, "rb") as file:
                for line in file:
                    run = orjson.loads(line)
                    state[run["id"]] = run
        return state

    def recent(self) -> int:
        failed = [run for run in self.fold().values() if run["status"] in ("failure", "timeout")]
        failed.sort(key=lambda run: datetime.fromisoformat(run["startedAt"]), reverse=True)
        return len(failed[:10])

    def stats(self) -> dict[str, Any]:
        runs = self.fold().values()
        durations = sorted(run["duration"] for run in runs if "duration" in run)
        starts = sorted(datetime.fromisoformat(run["startedAt"]) for run in runs)
        max(later - begin for begin, later in pairwise(starts))
        return {
            "runs": len(runs), "p95": durations[-(-len(durations) * 95 // 100) - 1],
            "turns": sum(run.get("turns") or 0 for run in runs),
        }  # fmt: skip


class Bench:
    """One size."""

    def __init__(self, folder: Path, count: int, rounds: int) -> None:
        self.rounds = rounds
        self.where = Paths({"HOME": str(folder), "SCHEDULER_HOME": str(folder / "state")})
        self.path = Path(self.where.global_history)
        records.write(self.path, count)
        self.files = [*(segment.path for segment in segments.listed(str(self.path))), str(self.path)]
        self.size = sum(os.path.getsize(file) for file in self.files)
        self.env = {**os.environ, "SCHEDULER_HOME": self.where.state, "HOME": str(folder)}
        self.now = records.BEGIN + timedelta(seconds=records.STEP * count // 2)
        self.found: dict[str, float] = {}
        self.notes: list[str] = []
        self.index = Path(self.where.in_state("index.db"))

    def timed(self, name: str, work: Callable[[], Any], rounds: int = 1) -> Any:
        """Do it; the median of some rounds, in milliseconds, is noted."""
        took = []
        for _ in range(rounds):
            begin = time.perf_counter()
            said = work()
            took.append((time.perf_counter() - begin) * 1000)
        self.found[name] = statistics.median(took)
        return said

    def forget(self) -> None:
        """Delete the index."""
        for end in ("", "-wal", "-shm"):
            Path(f"{self.index}{end}").unlink(missing_ok=True)

    def recent(self) -> int:
        return len(list(search.newest(self.where, str(self.path), LATEST)))

    def stats(self) -> dict[str, Any]:
        return search.everything(self.where, str(self.path), self.now)

    def append_and_ask(self) -> int:
        """One record more, then the question: what a living history costs."""
        history.append_lines(str(self.path), history.to_line(records.final(10**7).to_json()))
        return self.recent()

    def command(self, *words: str) -> Any:
        argv = [sys.executable, "-I", str(PACKAGE), *words, "--all-projects", "--json"]
        return json.loads(subprocess.run(argv, env=self.env, cwd="/", capture_output=True, check=True).stdout)

    def ours(self) -> dict[str, Any]:
        self.forget()
        self.timed("recent, cold", self.recent)
        self.timed("recent, warm", self.recent, self.rounds)
        self.timed("stats, first", self.stats)
        told: dict[str, Any] = self.timed("stats, warm", self.stats, self.rounds)
        self.timed("recent, command", lambda: self.command("history", "--status", "failure", "-n", "10"), self.rounds)
        said = self.timed("stats, command", lambda: self.command("stats"), self.rounds)
        assert said["runs"] == told["runs"]
        if self.index.exists():
            self.notes.append(f"index {self.index.stat().st_size / 1e6:.0f} MB")
        return {"runs": told["runs"], "p95": told["duration"]["p95"], "turns": told["turns"]}

    def peers(self) -> list[tuple[str, dict[str, Any]]]:
        """What each says of everything."""
        once = Pass(self.files)
        self.timed("orjson, only parsed", once.parse)
        assert self.timed("orjson pass, recent", once.recent) == 10
        said = [("orjson", self.timed("orjson pass, stats", once.stats))]
        given = {"files": self.files}
        assert len(self.timed("DuckDB, recent", lambda: duckdb.execute(DUCK_RECENT, given).fetchall())) == 10
        told = self.timed("DuckDB, stats", lambda: duckdb.execute(DUCK_STATS, given).fetchone())
        said.append(("DuckDB", {"runs": told[0], "p95": told[1], "turns": int(told[2])}))
        assert self.timed("jq, recent", lambda: self._jq(JQ_RECENT)) == 10
        said.append(("jq", self.timed("jq, stats", lambda: self._jq(JQ_STATS))))
        return said

    def _jq(self, program: str) -> Any:
        done = subprocess.run(["jq", "-n", "-c", program, *self.files], capture_output=True, check=True)
        return json.loads(done.stdout)


def missed(bench: Bench, count: int) -> list[str]:
    """The goals that were not reached."""
    found = bench.found
    if count <= 1000:
        slow = [name for name in ("recent, cold", "stats, first") if found[name] > SMALL_GOAL]
        return [f"{name}: {found[name]:.1f} ms (≤ {SMALL_GOAL:g})" for name in slow]
    if count < SIZES[-1]:
        return []
    short = [f"{name}: {found[name]:.0f} ms (≤ {goal:g})" for name, goal in GOALS.items() if found[name] > goal]
    if "orjson pass, recent" in found and found["recent, cold"] > BUILD_GOAL * found["orjson pass, recent"]:
        short.append(f"first build: {found['recent, cold'] / found['orjson pass, recent']:.1f} × the pass (≤ 2)")
    return short


def main(words: Sequence[str] | None = None) -> int:
    """Print a table; 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", action="store_true", help="without the peers")
    given = parser.parse_args(words)
    print(f"{figures.machine()}\n")
    columns: dict[str, dict[str, float]] = {}
    short: list[str] = []
    for count in given.sizes:
        with figures.workplace() as folder:
            bench = Bench(folder, count, given.rounds)
            told = bench.ours()
            for name, said in [] if given.alone else bench.peers():
                assert said == told, f"{name} says {said}, we say {told}"
            bench.timed("one more, then recent", bench.append_and_ask, given.rounds)
            title = f"{count:,} ({bench.size / 1e6:.1f} MB{''.join(', ' + note for note in bench.notes)})"
            columns[title] = bench.found
            short += [f"{count:,}: {text}" for text in missed(bench, count)]
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    print("| ms | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name in names:
        print(f"| {name} | " + " | ".join(f"{found[name]:,.1f}" for found in columns.values()) + " |")
    print("\n" + ("\n".join(["missed:", *short]) if short else "goals reached"))
    return int(bool(short))


if __name__ == "__main__":
    raise SystemExit(main())
