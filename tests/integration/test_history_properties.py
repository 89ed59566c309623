"""Any sequence of appends, crashes, rotations and cleanups keeps every acknowledged record, in both histories, once."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scheduler.core.models import ProjectSettings, UserSettings
from scheduler.core.record import Record, RunnerMark, Status
from scheduler.disk import files, paths
from scheduler.disk.paths import Paths
from scheduler.runner import upkeep
from scheduler.store import history, segments

BEGIN = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)
DAYS = 60
STEPS = st.lists(
    st.one_of(
        *[st.tuples(st.just("append"), st.integers(0, 1500))] * 3,
        # A crash: after the project's line, or when this many bytes of a line were written.
        st.tuples(st.just("between"), st.integers(0, 1500)),
        st.tuples(st.sampled_from(["torn-own", "torn-global"]), st.integers(1, 900)),
        st.tuples(
            st.sampled_from(["rotate-own", "rotate-global", "compress", "half-compressed", "restart"]), st.just(0)
        ),
        st.tuples(st.just("clean"), st.integers(0, 50)),
    ),
    min_size=10,
    max_size=60,
)


class World:
    """One project, the files that its runs write, and what was acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.where = Paths({"HOME": str(folder), "SCHEDULER_HOME": str(folder / "state")})
        self.root = str(folder / "project")
        Path(self.root).mkdir()
        self.own = paths.history_file(self.root)
        self.both = (self.own, self.where.global_history)
        for path in self.both:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.now = BEGIN
        self.count = 0
        self.kept: list[tuple[str, datetime]] = []

    def record(self, size: int) -> Record:
        self.count += 1
        self.now += timedelta(seconds=1)
        return Record(
            id=str(self.count), task_id="a", task_name="A", project=self.root, started_at=self.now,
            status=Status.SUCCESS, completed_at=self.now, triggered_by="schedule",
            runner=RunnerMark(host="h", pid=1, version="0"),
            output="x" * size or None,
        )  # fmt: skip

    def step(self, name: str, size: int) -> None:
        if name == "append":
            record = self.record(size)
            history.append(self.where, record)
            self.kept.append((record.id, self.now))
        elif name == "between":  # the runner is gone, and begins anew before it writes again
            record = self.record(size)
            history.append_lines(self.own, history.to_line(record.to_json()), durable=True)
            self.restart()
            self.kept.append((record.id, self.now))
        elif name.startswith("torn"):
            line = history.to_line(self.record(900).to_json())
            with open(self.both[name == "torn-global"], "ab") as file:
                file.write(line[: min(size, len(line) - 2)])
            self.restart()
        elif name.startswith("rotate"):
            files.rotate(self.both[name == "rotate-global"], segments.next_name)
        elif name == "compress":
            segments.compress(self.own)
        elif name == "half-compressed":
            self.leave_half_compressed()
        elif name == "restart":
            self.restart()
        else:
            self.now += timedelta(days=size)
            project = ProjectSettings.model_validate({"historyDays": DAYS})
            user = UserSettings.model_validate({"historyDays": DAYS})
            assert list(upkeep.tidy(self.where, {self.root: project}, user, (), self.now)) == []

    def restart(self) -> None:
        history.complete_global(self.where, [self.root], self.now)

    def leave_half_compressed(self) -> None:
        """As a kill leaves it: the packed part is not whole, or is whole and the plain one is still there."""
        for segment in segments.listed(self.own)[: -segments.PLAIN]:
            if not segment.path.endswith(".gz"):
                Path(segment.path + ".gz").write_bytes(b"\x1f\x8bhalf")
                return


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
@example([("append", 900)] * 10 + [("clean", 1)])
def test_no_sequence_loses_or_doubles_a_record(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """A2, A3, J1, J2, J4."""
    world = World(tmp_path_factory.mktemp("world"))
    with limits():
        for name, size in steps:
            world.step(name, size)
        world.restart()
    needed = [run for run, at in world.kept if at > world.now - timedelta(days=DAYS)]
    for path in world.both:
        found = [record["id"] for record in history.read(path)]
        assert len(found) == len(set(found)), "a record came twice"
        assert [run for run in found if run in set(needed)] == needed
        assert set(found) <= {run for run, _ in world.kept}


@contextlib.contextmanager
def limits():
    """Small parts, and a clock that is believed."""
    old = segments.LIMIT, upkeep.STEP
    segments.LIMIT, upkeep.STEP = 900, timedelta(days=36500)
    try:
        yield
    finally:
        segments.LIMIT, upkeep.STEP = old
