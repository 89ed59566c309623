"""The soak in short: B15, D15, and what `scripts/bench soak` does over a day of 2,000 tasks."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from scheduler.disk import paths
from tests import repos
from tests.rig import Rig, rig
from tests.runs import branches
from tests.soak import DAY, SHORT, Plan, Soak, Sums, soak

#: In a short time there may be no run to kill, no moment for an edit, and no right to mount a disk.
MAY_FIND_NOTHING = {"supervisor", "agent", "edit", "full"}
CALM = Plan(timedelta(minutes=8), 160, 25, 1, {})


@pytest.mark.parametrize("plan", [pytest.param(SHORT, id="short"), pytest.param(DAY, id="day", marks=pytest.mark.full)])
def test_every_occurrence_is_accounted_for(tmp_path: Path, plan: Plan) -> None:
    """B15."""
    sums = soak(plan, tmp_path)
    print("\n".join(sums.lines()))
    assert sums.wrong == []
    assert sums.occurrences == sum(sums.runs.values()) + sum(sums.skips.values()) > plan.tasks / 2
    missing = plan.faults.keys() - sums.faults.keys()
    assert missing <= ({"full"} if plan is DAY else MAY_FIND_NOTHING), sums.faults


def test_the_sums_can_fail(tmp_path: Path) -> None:
    """Whatever is lost, doubled or left behind in a soak that adds up is named."""
    with rig(tmp_path / "home") as own:
        calm = Soak(own, CALM, tmp_path, None)
        assert calm.run().wrong == []
        memory = calm.sums.memory
        whole = {Path(name): Path(name).read_bytes() for name in histories(own)}
        executed = calm.executed.read_text()
        first = executed.split()[0]

        def wrong() -> str:
            calm.sums = Sums(memory=memory)
            calm.add_up()
            for file, data in whole.items():
                file.write_bytes(data)
            calm.executed.write_text(executed)
            return "\n".join(calm.sums.wrong)

        for file, data in whole.items():
            file.write_bytes(b"".join(line for line in data.splitlines(True) if first.encode() not in line))
        said = wrong()
        assert re.search(r"task-\d+ of .*: \d+ occurrences, \d+ told", said)
        assert f"run {first} was executed and is not on record" in said
        for file, data in list(whole.items())[:1]:
            file.write_bytes(b"".join(line for line in data.splitlines(True) if first.encode() not in line))
        assert "is not what the global one says" in wrong()
        for file, data in whole.items():
            file.write_bytes(b"".join(line for line in data.splitlines(True) if not final(line, first)))
        assert f"run {first} is running for ever" in wrong()
        calm.executed.write_text(f"{executed}{first}\n")
        assert f"run {first} was executed 2 times" in wrong()
        calm.executed.write_text(executed.replace(first, ""))
        assert f"run {first}: success" in wrong()
        memory = [(10.0, 20), (10.0, 20), (21.0, 20)]
        assert "the runner grew from 10.0 MB" in wrong()
        memory = [(10.0, 20), (10.0, 20), (10.0, 40)]
        assert "and 40" in wrong()
        memory = []
        assert "never looked at" in wrong()
        memory = [(10.0, 20)]
        assert wrong() == ""
        repos.git("branch", "-D", branches(own.project)[0], cwd=own.project)
        assert "are not as on record" in wrong()


def histories(own: Rig) -> list[str]:
    return [own.paths.global_history, paths.history_file(str(own.project))]


def final(line: bytes, run: str) -> bool:
    return run.encode() in line and b'"completedAt"' in line
