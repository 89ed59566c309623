from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from scheduler.core.overdue import Absence, Neglected, Overdue, missed, sum_up
from scheduler.core.record import Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def test_nothing_is_overdue() -> None:
    assert sum_up([], [NOW]) is None
    assert sum_up([Neglected(0, NOW, Absence.ASLEEP)], []) is None
    assert sum_up([Neglected(9, NOW, Absence.QUIET)], []) is None


def test_what_did_not_run_is_summed_up_with_its_main_cause() -> None:
    neglected = [
        Neglected(2, NOW, Absence.NO_RUNNER),
        Neglected(3, NOW - HOUR, Reason.PAUSED),
        Neglected(2, NOW + HOUR, Absence.NO_RUNNER),
        Neglected(50, NOW - 9 * HOUR, Absence.QUIET),
    ]
    ran = [NOW - 2 * HOUR, NOW - HOUR, NOW]
    assert sum_up(neglected, ran) == Overdue(7, 2, NOW - HOUR, "no-runner")
    assert sum_up(neglected, []) == Overdue(7, 0, NOW - HOUR, "no-runner")


@pytest.mark.parametrize("absence", Absence)
def test_a_missed_record_tells_why(absence: Absence) -> None:
    assert missed(["something else", absence.note()], 3, NOW) == Neglected(3, NOW, absence)


def test_one_of_an_older_version_tells_of_no_runner() -> None:
    assert missed([], 1, NOW).cause is Absence.NO_RUNNER
