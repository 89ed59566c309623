"""A project that was moved while a run of it was under way: what its history tells of that run is put right there, and
the work that was left is saved.

The project's own history, which may have come with a repository, only names a run; what is done follows from what the
user's global history tells of that run.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from scheduler.core.record import Reason, Record, Status
from scheduler.disk import paths as places
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import aftermath, session
from scheduler.runner.desk import Desk
from scheduler.runner.ledger import read_record
from scheduler.runner.recovery import HISTORY_TAIL, crashed
from scheduler.store import history

log = logging.getLogger("scheduler")
TAIL = 1 << 20  # bytes at the end of a project's history that are looked at


async def settle(paths: Paths, env: Mapping[str, str], root: str, desk: Desk, now: Callable[[], datetime]) -> None:
    """End the runs that the history of a project which is served from now on has as `running` elsewhere."""
    try:
        runs = await asyncio.to_thread(_running_elsewhere, root)
        for run in runs:
            queued = desk.queue.get(run["id"])
            if queued is not None and queued.place is not None and not os.path.isdir(queued.record.project):
                del desk.queue[run["id"]]
                desk.close_record(await asyncio.to_thread(_give_up, paths, env, root, queued.record, now()))
                desk.floor.sweep()
            elif not desk.knows(run["id"]):
                await asyncio.to_thread(_settle, paths, env, root, run, now())
                desk.floor.sweep()
    except (OSError, SchedulerError) as error:
        log.error("what runs of %s left where it was before was not put right: %s", root, error)


def _running_elsewhere(root: str) -> list[dict[str, Any]]:
    last = history.fold(history.read_tail(places.history_file(root), TAIL))
    return [run for run in last if run["status"] == "running" and run["project"] != root]


def _settle(paths: Paths, env: Mapping[str, str], root: str, run: dict[str, Any], now: datetime) -> None:
    told = history.fold(history.read_tail(paths.global_history, HISTORY_TAIL))
    last = next((record for record in told if record["id"] == run["id"]), None)
    if last is None:
        return
    ended = last["status"] != "running"
    if os.path.isdir(last["project"]):  # this is a copy: its own file is put right, and nothing else
        if ended:
            history.append_lines(places.history_file(root), history.to_line(last), durable=True)
        return
    record = read_record(last) if ended else crashed(paths, read_record(last), now)
    record = _save(paths, env, record.evolve(project=root))
    history.append(paths, record)
    log.warning("run %s of %s was under way when its project was moved to %s", record.id, record.task_id, root)


def _give_up(paths: Paths, env: Mapping[str, str], root: str, record: Record, now: datetime) -> Record:
    """The end of a run that waited for a usage limit to end: git in its worktree looks for the project's old place."""
    why = "its project was moved while it waited for a usage limit to end"
    final = record.evolve(
        status=Status.FAILURE, reason=Reason.CANCELLED, completed_at=now, error=why, resets_at=None, project=root
    )
    return _save(paths, env, final)


def _save(paths: Paths, env: Mapping[str, str], record: Record) -> Record:
    """Save what stands in the worktree of a run, now that its repository is found again."""
    place = aftermath.place_of(paths, record)
    if place is None or not os.path.isdir(place["worktree"]):
        return record
    notes = ["its project was moved while it ran; what it had done was saved where the project is now"]
    notes += [note for note in record.notes or () if note == session.UNKNOWN]  # the others are of where it was before
    return aftermath.recover(paths, record.evolve(notes=tuple(notes)), place, env)
