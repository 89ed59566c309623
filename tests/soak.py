"""A day of many tasks in minutes, on a clock of the test's: a real runner (tests/build.py) serves real repositories
on a small disk while runner, supervisors and agents are killed, the clock jumps, the disk fills up and configs are
edited. In the end every occurrence must be accounted for: `Sums`, counted apart from the product's own arithmetic.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from scheduler.core.limits import Cause, Hold
from scheduler.disk import paths as places
from scheduler.errors import SchedulerError
from scheduler.execution import process
from scheduler.runner import control
from scheduler.store import history
from scheduler.store.state import State, TaskState
from tests import repos
from tests.bench import figures
from tests.build import Clock, spawn
from tests.rig import Rig, rig, shell_task, wait_until
from tests.runs import branches, left_on_disk

UTC = timezone.utc
LOOK = 0.05  # seconds between two looks at the clock


@dataclass(frozen=True)
class Plan:
    """`span` of simulated time at `rate` seconds a second; how many times each fault comes."""

    span: timedelta
    rate: float
    tasks: int
    projects: int
    faults: Mapping[str, int]
    seed: int = 1
    disk: str = "400m"


DAY = Plan(
    timedelta(hours=24),
    240,
    2000,
    10,
    {"runner": 40, "supervisor": 60, "agent": 80, "forward": 4, "back": 4, "full": 6, "edit": 48, "break": 8,
     "pause": 12},
)  # fmt: skip
SHORT = Plan(
    timedelta(minutes=40),
    300,
    50,
    2,
    {"runner": 2, "supervisor": 3, "agent": 3, "forward": 1, "back": 1, "full": 1, "edit": 2, "break": 1, "pause": 1},
)


@dataclass
class Life:
    """A task's trigger, and the time in which it was in force: after `since`, up to `until`."""

    trigger: dict[str, Any]
    since: datetime
    until: datetime | None = None

    def occurrences(self, end: datetime) -> int:
        """How many moments fall into it; counted minute by minute, or by division."""
        until = min(self.until or end, end)
        if self.trigger["type"] == "interval":
            first = datetime.fromisoformat(self.trigger["from"])
            every = self.trigger["every"]
            return _steps(until - first, every) - _steps(self.since - first, every)
        minute, hour = self.trigger["expression"].split()[:2]
        moment, found = self.since.replace(second=0, microsecond=0), 0
        while moment <= until:
            here = (minute == "*" or int(minute) == moment.minute) and (hour == "*" or int(hour) == moment.hour)
            found += here and self.since < moment
            moment += timedelta(minutes=1)
        return found


def _steps(time: timedelta, every: int) -> int:
    """How many of the moments 0, every, 2 × every … are not after this time."""
    return int(time.total_seconds() // every) + 1 if time >= timedelta() else 0


@dataclass
class Sums:
    """What came of it. `wrong` names what does not add up, and is empty."""

    occurrences: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    executions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def settled(self) -> tuple[tuple[float, int], tuple[float, int]]:
        """RSS and descriptors of the last runner in the middle of its life, when it has seen all kinds of work, and at
        its end."""
        return self.memory[(len(self.memory) - 1) // 2], self.memory[-1]

    def lines(self) -> Iterator[str]:
        """For people."""
        runs, skips = sum(self.runs.values()), sum(self.skips.values())
        yield "faults: " + ", ".join(f"{count} × {name}" for name, count in self.faults.items())
        difference = self.occurrences - runs - skips
        yield f"occurrences {self.occurrences:,} = runs {runs:,} + skips {skips:,}; difference {difference}"
        yield "  runs:  " + ", ".join(f"{count:,} {name}" for name, count in sorted(self.runs.items()))
        yield "  skips: " + ", ".join(f"{count:,} {name}" for name, count in sorted(self.skips.items()))
        yield f"retries {self.retries:,}; executions {self.executions:,}, none of a run twice"
        if self.memory:
            (before, files), (after, files_after) = self.settled()
            yield f"runner in its last life: RSS {before:.1f} to {after:.1f} MB, descriptors {files} to {files_after}"
        yield from (f"WRONG: {each}" for each in self.wrong)


class Soak:
    """One soak in a rig of its own."""

    def __init__(self, own: Rig, plan: Plan, outside: Path, disk: Path | None) -> None:
        self.own, self.plan, self.disk = own, plan, disk
        self.chance = random.Random(plan.seed)
        self.executed = outside / "executed"
        self.clock = Clock(outside / "clock")
        self.begin = datetime.now(UTC).replace(microsecond=0)
        self.clock.set(self.begin, 0)
        self.end = self.begin + plan.span
        self.roots = [own.project, *(own.repository(own.home / f"p{n}") for n in range(1, plan.projects))]
        self.tasks: dict[Path, list[dict[str, Any]]] = {root: [] for root in self.roots}
        self.lives: dict[tuple[str, str], list[Life]] = {}
        self.sums = Sums()
        self.pid, self.since = 0, 0.0

    # The tasks

    def trigger(self, since: datetime) -> dict[str, Any]:
        """Most fire once in the span or a few times, a few often."""
        span = int(self.plan.span.total_seconds())
        every = max(span // self.chance.choices([1, 3, 12, 96], [60, 30, 9, 1])[0], 60)
        if every == 86400 and self.chance.random() < 0.7:
            expression = f"{self.chance.randrange(60)} {self.chance.randrange(24)} * * *"
        elif every == 7200 and self.chance.random() < 0.7:
            expression = f"{self.chance.randrange(60)} * * * *"
        else:
            first = since + timedelta(seconds=self.chance.randrange(1, every))
            return {"type": "interval", "every": every, "from": first.isoformat()}
        return {"type": "cron", "expression": expression, "timezone": "UTC"}

    def task(self, root: Path, since: datetime) -> dict[str, Any]:
        number = len(self.lives)
        note = f'echo "$SCHEDULER_RUN_ID" >> {self.executed}'
        isolated = number % 12 == 0
        command = {0: f"{note}; echo $SCHEDULER_RUN_ID > made.txt", 12: f"{note}; echo x > made.txt; exit 3"}
        usual = f"{note}; sleep 0.{number % 4}" if number % 3 == 0 else note
        made = shell_task(
            f"task-{number}",
            command.get(number % 24, usual),
            trigger=self.trigger(since),
            worktree={"enabled": isolated},
            policy={
                "missed": ["latest", "skip", "all"][number % 3],
                "overlap": ["skip", "queue", "cancel-running"][number % 3],
                "retries": int(number % 24 == 12),
                "retryDelay": 0,
            },
        )
        self.lives[(str(root), made["id"])] = [Life(made["trigger"], since)]
        return made

    def approve(self, root: Path) -> None:
        self.own.enable(*self.tasks[root], project=root, since=self.clock())

    # What happens to it

    def runner(self) -> None:
        """See that a runner lives, as sessions and services do; one that ended unasked is a fault of its own."""
        if self.pid and process.start_time(self.pid) is not None:
            return
        if self.pid and "cannot be opened: disk I/O error" in self.own.log()[-300:]:
            self.sums.faults["start refused by a full disk"] += 1
        elif self.pid:
            self.sums.wrong.append(f"the runner {self.pid} ended by itself: {self.own.log()[-600:]}")
        self.pid, self.since = spawn(self.own, clock=self.clock), time.monotonic()

    def fault_runner(self) -> None:
        self._kill(self.pid)
        wait_until(lambda: process.start_time(self.pid) is None)
        self.pid = 0
        time.sleep(self.chance.random() / 2)

    def fault_supervisor(self) -> bool:
        return self._hit(lambda: [pid for pid in self._children(self.pid) if self._children(pid)])

    def fault_agent(self) -> bool:
        return self._hit(lambda: [child for pid in self._children(self.pid) for child in self._children(pid)])

    def _hit(self, look: Callable[[], list[int]]) -> bool:
        """Kill one of those that are there within a second, if any is; whether it was there to be killed."""
        end = time.monotonic() + 1
        while not (found := look()) and time.monotonic() < end:
            time.sleep(LOOK / 5)
        return bool(found) and self._kill(self.chance.choice(found))

    def fault_forward(self) -> None:
        self.clock.jump(self.plan.span * self.chance.uniform(0.02, 0.08), self.plan.rate)

    def fault_back(self) -> None:
        self._latest = max(self._latest, self.clock() + timedelta(seconds=1))
        self.clock.jump(-self.plan.span * self.chance.uniform(0.02, 0.06), self.plan.rate)

    def fault_full(self) -> bool:
        """Fill the disk to the last byte for a moment; not where it is everybody's."""
        if self.disk is None:
            return False
        ballast = self.disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 20))
        time.sleep(self.chance.uniform(0.5, 1.5))
        ballast.unlink()
        return True

    def fault_edit(self) -> bool:
        """A trigger changes, a task is added, one is removed, one is switched off: with the clock standing still, and
        all handled till then, so that it is known to the second what was in force when."""
        if self.clock() < self._latest:
            return False  # after a jump back: it is not told here which moments come for the second time
        root = self.chance.choice(self.roots)
        listed = self.tasks[root]
        changed, gone, off = chosen = self.chance.sample(range(len(listed)), 3)
        now = self.still([(str(root), listed[index]["id"]) for index in chosen])
        for index in (changed, gone, off):
            life = self.lives[(str(root), listed[index]["id"])][-1]
            life.until = life.until or now
        new = {**listed[changed], "trigger": self.trigger(now), "enabled": True}
        self.lives[(str(root), new["id"])].append(Life(new["trigger"], now))
        listed[changed], listed[off] = new, {**listed[off], "enabled": False}
        del listed[gone]
        listed.append(self.task(root, now))
        self.approve(root)
        self._reload()
        self.clock.set(now, self.plan.rate)
        return True

    def _reload(self) -> None:
        """Have the runner look at the configs, and give it the time; it may be busy, or just have been killed."""
        with contextlib.suppress(SchedulerError):
            control.request(self.own.paths, {"verb": "reload"}, timeout=60)
        time.sleep(6 * LOOK)

    def fault_break(self) -> None:
        """A config is damaged by hand, which suspends its project, and is put right."""
        root = self.chance.choice(self.roots)
        file = Path(places.config_file(str(root)))
        good = file.read_bytes()
        file.write_bytes(good[: len(good) // 2])
        time.sleep(self.chance.uniform(0.1, 0.6))
        file.write_bytes(good)

    def fault_pause(self) -> None:
        """A project is paused for a while."""
        root, now = str(self.chance.choice(self.roots)), self.clock()
        until = now + self.plan.span * self.chance.uniform(0.01, 0.04)
        with contextlib.closing(State(self.own.paths.state_db, now)) as state:
            state.holds.put(Hold(root, "", Cause.USER, now, until, "soak"))

    def _children(self, pid: int) -> list[int]:
        try:
            return figures.children(pid)
        except OSError:
            return []

    def _kill(self, pid: int) -> bool:
        assert pid > 1  # 0 would be all that the tests have started
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    # Its course

    def still(self, keys: Collection[tuple[str, str]]) -> datetime:
        """Stop the clock, and wait until the runner has dealt with all that came before of these tasks; the moment."""
        self.clock.set(now := self.clock() + timedelta(seconds=2), 0)

        def handled() -> bool:
            self.runner()
            with contextlib.closing(State(self.own.paths.state_db, now)) as state:
                known = {root: state.tasks(root) for root in {root for root, _ in keys}}
            return not any(self._waits(known[root].get(task), (root, task), now) for root, task in keys)

        wait_until(handled, 300, f"for the runner to deal with all until {now}\n{self.own.log()[-2000:]}")
        return now

    def _waits(self, known: TaskState | None, key: tuple[str, str], now: datetime) -> bool:
        """Whether an occurrence of the task that is in force has come, and is not dealt with."""
        life = self.lives[key][-1]
        if life.until is not None or known is None:
            return False
        return Life(life.trigger, max(life.since, known.handled_until)).occurrences(now) > 0

    def run(self) -> Sums:
        """All of it."""
        for number in range(self.plan.tasks):
            root = self.roots[number % len(self.roots)]
            self.tasks[root].append(self.task(root, self.begin))
        self.own.settings(maxConcurrent=4)
        for root in self.roots:
            self.approve(root)
        self.runner()
        wait_until(lambda: control.request(self.own.paths, {"verb": "status"}) is not None)
        timetable = self._timetable()
        self.clock.set(self.begin, self.plan.rate)
        self._latest = self.begin
        while (now := self.clock()) < self.end:
            self._latest = max(self._latest, now)
            self.runner()
            while timetable and timetable[0][0] <= (now - self.begin) / self.plan.span:
                name = timetable.pop(0)[1]
                self.runner()
                came = getattr(self, f"fault_{name}")()
                self.sums.faults[name if came is not False else f"{name} that found nothing to hit"] += 1
            if not any(name == "runner" for _, name in timetable):
                self._measure()
            time.sleep(LOOK)
        self.end = self.still(self.lives.keys())
        self._measure()
        wait_until(lambda: not self._rows(), 1200, "for what is queued")
        self.own.stop(at_once=False)
        self.pid = spawn(self.own, clock=self.clock)  # which looks again at what had to stay on a full disk
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not left_on_disk(self.own), 20)
        self.own.stop(at_once=False)
        self.add_up()
        return self.sums

    def _timetable(self) -> list[tuple[float, str]]:
        """(share of the span, fault). In the last quarter no runner is killed, so that one is watched for long."""
        found = []
        for name, count in self.plan.faults.items():
            limit = 0.75 if name == "runner" else 0.95
            found += [(self.chance.uniform(0.03, limit), name) for _ in range(count)]
        return sorted(found)

    def _measure(self) -> None:
        if time.monotonic() - self.since < 1:
            return  # it is still starting
        with contextlib.suppress(OSError, KeyError):
            self.sums.memory.append((figures.memory(self.pid)[0], len(os.listdir(f"/proc/{self.pid}/fd"))))

    def _rows(self) -> list[str]:
        self.runner()
        with contextlib.closing(State(self.own.paths.state_db, self.clock())) as state:
            return [row.run_id for row in state.runs()]

    # The sums

    def add_up(self) -> None:
        """Count what was to come, and what is told of it."""
        sums, wrong = self.sums, self.sums.wrong
        records = self.own.records()
        told: Counter[tuple[str, str]] = Counter()
        for record in records:
            key = (record["project"], record["taskId"])
            if record["attempt"] > 1:
                sums.retries += 1
            elif record["status"] == "skipped":
                told[key] += record.get("skippedCount") or 1
                sums.skips[record["reason"]] += record.get("skippedCount") or 1
            else:
                told[key] += 1
                sums.runs[f"{record['status']}/{record['reason']}" if record.get("reason") else record["status"]] += 1
        with contextlib.closing(State(self.own.paths.state_db, self.end)) as state:
            for tally in state.holds.tallies():  # under a hold that lasts the record lags behind what is counted
                told[tally.project, tally.task] += tally.count - tally.told
                sums.skips[tally.reason] += tally.count - tally.told
        for key, lives in self.lives.items():
            expected = sum(life.occurrences(self.end) for life in lives)
            sums.occurrences += expected
            if told[key] != expected:
                what = f"{key[1]} of {Path(key[0]).name}, which had {len(lives)} triggers"
                wrong.append(f"{what}: {expected} occurrences, {told[key]} told")
        self._check_runs(records)
        self._check_repositories(records)
        if not sums.memory:
            wrong.append("the runner's memory was never looked at")
            return
        (before, files), (after, files_after) = sums.settled()
        if after - before > 10 or files_after - files > 18:  # each of four runs under way has some
            wrong.append(
                f"the runner grew from {before:.1f} MB and {files} descriptors to {after:.1f} and {files_after}"
            )

    def _check_runs(self, records: list[dict[str, Any]]) -> None:
        wrong = self.sums.wrong
        lines = self.executed.read_text().split()
        self.sums.executions = len(lines)
        wrong += [f"run {run} was executed {count} times" for run, count in Counter(lines).items() if count > 1]
        by_id = {record["id"]: record for record in records}
        for run in {*lines} - by_id.keys():
            wrong.append(f"run {run} was executed and is not on record")
        for run, record in by_id.items():
            if record["status"] == "running":
                wrong.append(f"run {run} is running for ever")
            if (run in lines) == (record["status"] == "skipped") and record.get("reason") not in UNSURE:
                wrong.append(f"run {run}: {record['status']} {record.get('reason')}, executed: {run in lines}")
        for root in self.roots:
            own = history.fold(history.read(places.history_file(str(root))))
            both = [r for r in records if r["project"] == str(root)]
            if sorted(own, key=lambda r: r["id"]) != sorted(both, key=lambda r: r["id"]):
                wrong.append(f"the history of {root.name} is not what the global one says")

    def _check_repositories(self, records: list[dict[str, Any]]) -> None:
        if left := left_on_disk(self.own):
            self.sums.wrong.append(f"left behind: {left[:5]}")
        for root in self.roots:
            repos.works_for_its_user(root)
            kept = {r["worktreeBranch"] for r in records if r["project"] == str(root) and r.get("worktreeBranch")}
            if kept != set(branches(root)):
                self.sums.wrong.append(f"{root.name}: branches {set(branches(root)) ^ kept} are not as on record")


#: Ends in which the agent may have begun or not.
UNSURE = {"crashed", "cancelled", "worktree-failed", "signal", "exit-code"}


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path | None]:
    """A file system of its own of this size; None where none can be mounted, which takes root's rights."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def soak(plan: Plan, folder: Path) -> Sums:
    """Carry out a plan below an empty folder."""
    with small_disk(folder / "disk", plan.disk) as disk, rig(folder / "disk") as own:
        return Soak(own, plan, folder, disk).run()
