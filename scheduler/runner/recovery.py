"""What an earlier runner left when it died: runs are put on record as they stood, worktrees and branches recovered.

Nothing that is not a run's of ours is touched, and no work is lost: what a run had done goes under its private ref.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from scheduler.core.models import iso
from scheduler.core.record import Reason, Record, Status
from scheduler.core.when import from_iso
from scheduler.disk.paths import Paths, history_file
from scheduler.errors import SchedulerError
from scheduler.execution import aftermath, process, selfedit, session, tree
from scheduler.runner.desk import Desk
from scheduler.runner.ledger import read_record
from scheduler.store import history, trust
from scheduler.store.costs import day_of
from scheduler.store.state import RunRow, State

log = logging.getLogger("scheduler")
SUPERVISOR_PATIENCE = 15.0  # seconds for the supervisor of a dead runner to end its tree, before it is killed
HISTORY_TAIL = 8 << 20  # bytes at the end of the global history that are searched for runs that nobody knows


async def recover(paths: Paths, env: Mapping[str, str], state: State, desk: Desk, now: Callable[[], datetime]) -> None:
    """Settle every run that an earlier runner had under way. Claimed runs that never began are queued again."""
    await asyncio.to_thread(_complete_history, paths, now())
    rows = [row for row in state.runs() if not desk.knows(row.run_id)]  # somebody may have asked for one already
    _restore_costs(paths, state, {row.run_id for row in rows}, now())
    for row in rows:
        try:
            await _settle(paths, env, row, desk, now)
        except Exception:
            log.exception("run %s could not be recovered", row.run_id)
    known = {row.run_id for row in rows}
    for last in history.fold(history.read_tail(paths.global_history, HISTORY_TAIL)):
        if last["status"] == "running" and last["id"] not in known:
            await _settle_unknown(paths, env, last, desk, now)
    await asyncio.to_thread(aftermath.clear_scratch, paths)
    desk.floor.sweep()


def _restore_costs(paths: Paths, state: State, known: Collection[str], now: datetime) -> None:
    """The budgets of today, where the state was lost, by the history; without the runs that the state has still."""
    if state.costs.on(now):
        return
    spent = [
        (run["project"], run["taskId"], float(run["costUsd"]))
        for run in history.fold(history.read_tail(paths.global_history, HISTORY_TAIL))
        if isinstance(run.get("costUsd"), int | float) and run["id"] not in known and _is_of_today(run, now)
    ]
    if spent:
        state.costs.restore(spent, now)


def _is_of_today(run: dict[str, Any], now: datetime) -> bool:
    try:
        return day_of(from_iso(run["completedAt"])) == day_of(now)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        return False


def _complete_history(paths: Paths, now: datetime) -> None:
    try:
        count = history.complete_global(paths, trust.read(paths), now)
    except (OSError, SchedulerError) as error:
        log.error("the global history was not compared with those of the projects: %s", error)
        return
    if count:
        log.warning("%d lines were missing from the global history, and are there now", count)


async def _settle(paths: Paths, env: Mapping[str, str], row: RunRow, desk: Desk, now: Callable[[], datetime]) -> None:
    record = read_record(row.record)
    if row.phase == "queued" and record.status is Status.RUNNING:
        held = (row.place or {}).get("notBefore")
        desk.requeue(record, datetime.fromisoformat(held) if held else None)
        return
    if row.phase == "waiting":
        desk.gate.recall_limit(record)
        desk.wait(row)
        return
    if row.phase == "running":
        await _see_ended(row.process)
        record = crashed(paths, record, now())
        record = await asyncio.to_thread(selfedit.recall, paths, record, env, iso(now()))
    if row.place and "worktree" in row.place:
        record = await asyncio.to_thread(aftermath.recover, paths, record, row.place, env)
    done = [path for path in (history_file(record.project), paths.global_history) if _is_on_record(path, record)]
    if not done:
        log.warning("run %s of %s was interrupted; it is on record as %s", record.id, record.task_id, record.status)
    desk.close_record(record, done)


async def _settle_unknown(
    paths: Paths, env: Mapping[str, str], last: dict[str, Any], desk: Desk, now: Callable[[], datetime]
) -> None:
    """A `running` record of a run that the state does not know (the state was lost)."""
    try:
        record = crashed(paths, read_record(last), now())
    except SchedulerError:
        return
    place = aftermath.place_of(paths, record)
    if place is not None:
        record = await asyncio.to_thread(aftermath.recover, paths, record, place, env)
    desk.close_record(record)


def crashed(paths: Paths, record: Record, now: datetime) -> Record:
    """The record of a run whose runner died under it; nobody saw when it ended, so it has no duration."""
    return session.completed(record, paths.claude).evolve(
        status=Status.FAILURE,
        reason=Reason.CRASHED,
        completed_at=now,
        error="the runner or the machine died while it ran; that was found at the runner's next start",
    )


def _is_on_record(path: str, record: Record) -> bool:
    lines = history.read_tail(path, HISTORY_TAIL)
    return any(r["id"] == record.id and r["status"] != "running" for r in lines)


async def _see_ended(known: dict[str, Any] | None) -> None:
    """Wait until the dead runner's supervisor has ended its tree; end it where it does not."""
    if known is None or known.get("started") is None:
        return
    pid, started = int(known["pid"]), float(known["started"])
    end = asyncio.get_running_loop().time() + SUPERVISOR_PATIENCE
    while process.is_alive(pid, started):
        if asyncio.get_running_loop().time() > end:
            log.warning("supervisor %d does not end; killing it and what it runs", pid)
            await asyncio.to_thread(tree.kill_all, lambda: tree.family(pid))
            return
        await asyncio.sleep(0.05)
