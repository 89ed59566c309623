from __future__ import annotations

import json
from pathlib import Path

import pytest

from scheduler.core.models import from_json
from scheduler.core.record import Reason, Record, Status

GOLDEN = Path(__file__).parent.parent / "golden" / "record.json"


def golden() -> Record:
    record = from_json(Record, GOLDEN.read_text())
    assert isinstance(record, Record), record
    return record


def test_the_golden_record_goes_round() -> None:
    assert golden().to_json() == json.loads(GOLDEN.read_text())


def test_the_golden_record_has_every_field_but_those_of_other_statuses() -> None:
    assert {field.alias for field in Record.model_fields.values()} - json.loads(GOLDEN.read_text()).keys() == {
        "resetsAt",
        "skippedCount",
        "skippedSince",
    }


def test_evolve_changes_a_copy_and_checks_it() -> None:
    before = golden()
    after = before.evolve(status=Status.SUCCESS, reason=None, error=None)
    assert (before.status, after.status, after.reason) == (Status.FAILURE, Status.SUCCESS, None)
    with pytest.raises(ValueError):
        before.evolve(status="done")


def test_words_print_as_they_are_written() -> None:
    assert f"{Status.SUCCESS} {Reason.NO_CHANGES}" == "success no-changes"


def test_a_time_without_its_offset_is_refused() -> None:
    raw = json.loads(GOLDEN.read_text())
    raw["startedAt"] = "2026-12-01T02:00:00"
    assert [place for place, _, _ in from_json(Record, json.dumps(raw))] == [("startedAt",)]
