"""The soak in short: B15, D15, and what `scripts/bench soak` does over a day of 2,000 tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import DAY, SHORT, Plan, soak


@pytest.mark.parametrize("plan", [pytest.param(SHORT, id="short"), pytest.param(DAY, id="day", marks=pytest.mark.full)])
def test_every_occurrence_is_accounted_for(tmp_path: Path, plan: Plan) -> None:
    """B15."""
    sums = soak(plan, tmp_path)
    print("\n".join(sums.lines()))
    assert sums.wrong == []
    assert sums.occurrences == sum(sums.runs.values()) + sum(sums.skips.values()) > plan.tasks / 2
    assert sums.faults.keys() >= plan.faults.keys()
