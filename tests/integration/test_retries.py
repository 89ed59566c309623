"""Another attempt at what failed: it is made whatever happens between the record of the failure and its start."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from scheduler.core.record import Reason, Record, RunnerMark, Status
from scheduler.disk import paths as places
from scheduler.runner import ledger
from scheduler.runner.ledger import Closing, Ledger
from scheduler.runner.projects import Projects
from scheduler.store import history
from scheduler.store.state import State
from tests.rig import Rig, rig, shell_task, soon, wait_until

ONCE = {"type": "once", "at": soon(9e5)}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def record_of(own: Rig, task: str, attempt: int = 1) -> Record:
    now = datetime.now(timezone.utc)
    return Record(
        id=str(uuid.uuid4()), task_id=task, task_name=task, project=str(own.project), scheduled_for=now, started_at=now,
        completed_at=now, status=Status.FAILURE, reason=Reason.EXIT_CODE, triggered_by="schedule", attempt=attempt,
        runner=RunnerMark(host="h", pid=1, version="0"),
    )  # fmt: skip


@pytest.mark.parametrize("retries", [1, 0])
def test_a_crash_after_the_record_of_a_failure_loses_nothing(own: Rig, retries: int) -> None:
    """The record is in the history, the state was not told: the attempt is made, or the failure counted, once."""
    own.enable(
        shell_task("job", "true", trigger=ONCE, policy={"retries": retries, "retryDelay": 0, "pauseAfterFailures": 1})
    )
    failed = record_of(own, "job")
    state = State(own.paths.state_db, failed.started_at)
    assert failed.scheduled_for is not None
    assert state.claim(failed.to_json(), failed.scheduled_for, failed.started_at)
    state.update_run(failed.id, phase="ended", record=failed.to_json())
    history.append(own.paths, failed)
    own.start()
    wait_until(lambda: not [row for row in state.runs() if row.run_id == failed.id])
    if retries == 0:
        assert [hold.task for hold in state.holds.all()] == ["job"]
        assert [r["status"] for r in own.task_records("job")] == ["failure"]
    state.close()
    if retries == 1:
        again = wait_until(lambda: [r for r in own.task_records("job") if r["status"] == "success"])
        assert (again[0]["attempt"], again[0]["triggeredBy"]) == (2, "retry")
        assert again[0]["scheduledFor"] == failed.to_json()["scheduledFor"]


def test_what_the_disk_refuses_is_followed_by_its_retry_once_it_is_written(
    own: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "AGAIN", 0.01)
    failed, again = record_of(own, "job"), record_of(own, "job", 2)
    at = failed.started_at + timedelta(minutes=5)
    state = State(own.paths.state_db, failed.started_at)
    begun: list[Record] = []
    made = Ledger(own.paths, state, Projects(own.paths, state, own.env), lambda record, _: begun.append(record))
    file = Path(places.history_file(str(own.project)))

    async def close() -> None:
        file.mkdir(parents=True)  # in the way
        made.close(Closing(failed, None, (again, at)))
        assert begun == []
        file.rmdir()
        while not begun:
            await asyncio.sleep(0.01)

    asyncio.run(close())
    assert begun == [again]
    (run,) = state.runs()
    assert (run.run_id, run.phase) == (again.id, "queued")
    assert run.place is not None and datetime.fromisoformat(run.place["notBefore"]) == at
    assert [line["id"] for line in history.read(str(file))] == [failed.id]
    state.close()
