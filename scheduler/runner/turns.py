"""The runs that a runner has: those in its queue, those under way, and how `status` lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from scheduler.core.lifecycle import Going, Waiting
from scheduler.core.models import iso
from scheduler.core.record import Record


@dataclass
class Queued:
    """A claimed run that has not begun; or one that waits for a usage limit to end, at its `place`."""

    record: Record
    waiting: Waiting
    place: Mapping[str, Any] | None = None


@dataclass
class Underway:
    """A run that has begun."""

    record: Record
    going: Going
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None


def listing(going: Iterable[Underway], queue: Sequence[Queued], limit_ends: datetime | None = None) -> dict[str, Any]:
    """Runs under way, queued, and those that met a usage limit and wait to go on, for the control socket. `limit_ends`:
    when the limit does that holds all of these back; None where it is over, and something else does."""
    return {
        "running": [
            {
                **_named(u.record),
                "startedAt": iso(u.record.started_at),
                "isolated": u.record.isolated,
            }
            for u in going
        ],
        "queued": [
            {**_named(q.record), "scheduledFor": iso(q.waiting.not_before or q.waiting.since)}
            for q in queue
            if q.place is None
        ],
        "waiting": [
            {**_named(q.record), "until": None if limit_ends is None else iso(limit_ends)}
            for q in queue
            if q.place is not None
        ],
    }


def _named(record: Record) -> dict[str, Any]:
    return {"runId": record.id, "taskId": record.task_id, "project": record.project}
