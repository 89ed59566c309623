"""What a session has cost, from the client's own file of it: nothing is made up, and nothing waits."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from scheduler.core.record import Record, RunnerMark, Status
from scheduler.execution import session

RUN = "0f0e0d0c-0b0a-4900-8800-070605040302"


def told(usd: object, session_id: str = RUN) -> bytes:
    return json.dumps({"type": "cost-state", "sessionId": session_id, "totalCostUSD": usd}).encode() + b"\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "projects" / "-w-x" / f"{RUN}.jsonl"
    path.parent.mkdir(parents=True)
    return path


def record(**fields: object) -> Record:
    made = Record(
        id=RUN,
        task_id="job",
        task_name="job",
        project="/p",
        started_at=datetime(2026, 12, 1, tzinfo=timezone.utc),
        status=Status.RUNNING,
        triggered_by="schedule",
        runner=RunnerMark(host="h", pid=1, version="0"),
    )
    return made.evolve(**fields)


def test_the_last_word_counts(tmp_path: Path, file: Path) -> None:
    file.write_bytes(told(0.5) + b'{"type":"user"}\n' + told(0.75) + b'{"type":"last-prompt","text":"cost-state"}\n')
    assert session.cost(str(tmp_path), RUN) == 0.75
    file.write_bytes(told(0.5) + b"x" * (1 << 20) + b"\n" + told(2) + told(9)[:-9])
    assert session.cost(str(tmp_path), RUN) == 2.0


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"type":"cost-state"',
        told("1"),
        told(-1),
        told(True),
        told(float("nan")),
        told(1, "another"),
        b'["cost-state", "cost-state"]\n',
        b'{"type":"user","message":"\\"cost-state\\" totalCostUSD 9"}\n',
        b"[" * 100_000 + b'"cost-state"\n',
    ],
)
def test_what_is_none_says_nothing(tmp_path: Path, file: Path, text: bytes) -> None:
    file.write_bytes(text)
    assert session.cost(str(tmp_path), RUN) is None


def test_what_else_a_run_leaves_in_its_place_keeps_nobody_waiting(tmp_path: Path, file: Path) -> None:
    os.mkfifo(file)
    assert session.cost(str(tmp_path), RUN) is None
    file.unlink()
    (tmp_path / "real").write_bytes(told(1))
    file.symlink_to(tmp_path / "real")
    assert session.cost(str(tmp_path), RUN) is None
    file.unlink()
    file.mkdir()
    assert session.cost(str(tmp_path), RUN) is None


def test_a_run_that_nobody_saw_end(tmp_path: Path, file: Path) -> None:
    """One without a session, one whose client was never there, one that did not say it, and those that did."""
    folder = str(tmp_path)
    assert session.completed(record(), folder) == record()
    begun = record(session_id=RUN, notes=("before",))
    assert session.completed(begun, folder) == begun
    file.write_bytes(b'{"type":"user"}\n')
    assert session.completed(begun, folder).notes == ("before", session.UNKNOWN)
    file.write_bytes(told(0.5))
    assert session.completed(begun, folder) == begun.evolve(cost_usd=0.5)
    assert session.completed(begun.evolve(cost_usd=0.75), folder).cost_usd == 0.75
