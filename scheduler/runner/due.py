"""What is due of a project's tasks: each occurrence claimed once, for a run or for the record of its being skipped."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from scheduler.core.limits import Hold
from scheduler.core.models import Task, iso
from scheduler.core.overdue import Absence
from scheduler.core.record import Reason, Record, RunnerMark, Status, TriggeredBy
from scheduler.core.schedule import Due, Skipped, collect_due, passed
from scheduler.runner.served import Served
from scheduler.store.state import State, TaskState


@dataclass(frozen=True)
class Claimed:
    """A claimed occurrence. `record` is `running` where a run is to be queued, `skipped` where it is final."""

    record: Record
    task: Task
    moment: datetime


@dataclass(frozen=True)
class Look:
    """One look at what is due. What `holds` cover goes to `pass_over`, which moves the task's watermark."""

    now: datetime
    mark: RunnerMark
    holds: Sequence[Hold]
    pass_over: Callable[[str, Task, Hold, Skipped], None]


def claim_due(served: Served, state: State, look: Look) -> Iterator[Claimed]:
    """Claim every occurrence that has come, and plan the next of each task. NotWritten where the state cannot be
    written: what was claimed till then has been given, the rest is due at the next look."""
    for task_id in served.due(look.now):
        known = served.active(task_id)
        if known is None:
            continue
        try:
            yield from _claim_under_holds(served, served.tasks[task_id], known, state, look)
        finally:
            served.states[task_id] = state.task(served.root, task_id) or known
            served.plan(task_id)
    served.absent = Absence.ASLEEP  # should anything have been missed at the next look


def _claim_under_holds(served: Served, task: Task, known: TaskState, state: State, look: Look) -> Iterator[Claimed]:
    root, now = served.root, look.now
    for hold in look.holds:
        if not hold.passes_over(root, task) or hold.since > now:
            continue
        if hold.since > known.handled_until:  # as a rule the runner has dealt with all that came before it
            yield from _claim_task(served, task, known, state, hold.since, look.mark)
            known = state.task(root, task.id) or known
        until = now if hold.until is None else min(now, hold.until)
        span = passed(task.trigger, known.handled_until, until, added_at=known.added_at)
        if span is not None:
            look.pass_over(root, task, hold, span)
            known = state.task(root, task.id) or known
    if known.done_at is None:
        yield from _claim_task(served, task, known, state, now, look.mark)


def _claim_task(
    served: Served, task: Task, known: TaskState, state: State, now: datetime, mark: RunnerMark
) -> Iterator[Claimed]:
    root = served.root
    due = collect_due(
        task.trigger,
        missed=task.policy.missed,
        missed_within=task.policy.missed_within,
        handled_until=known.handled_until,
        now=now,
        added_at=known.added_at,
    )
    done = task.trigger.type == "once"
    found = []
    missed = _missed(root, task, due, now, mark, served.absent)
    if missed is not None:
        found.append(missed)
    for occurrence in due.fire:
        triggered: TriggeredBy = "catch-up" if occurrence.catch_up else "schedule"
        found.append(Claimed(new_record(root, task, now, mark, triggered, occurrence.at), task, occurrence.at))
    if not found and due.handled_until > known.handled_until:
        state.handled(root, task.id, due.handled_until)
    for each in found:
        until = due.handled_until if each is found[-1] else each.moment
        # What follows from a claim, a run or the record of a skip, brings its own first step to the disk, and this too.
        if state.claim(each.record.to_json(), each.moment, now, handled=until, done=done, at_once=False):
            yield each


def _missed(root: str, task: Task, due: Due, now: datetime, mark: RunnerMark, absent: Absence) -> Claimed | None:
    """One record for all slots that are not run: those within `missedWithin` counted, what is older as a span."""
    notes = [absent.note()]
    if due.older_span is not None:
        since, until = due.older_span
        notes.insert(0, f"not counted: the time from {iso(since)} to {iso(until)}, longer ago than missedWithin")
        first, last, count = None, until, 0
    if due.skipped is not None:
        first, last, count = due.skipped.first, due.skipped.last, due.skipped.count
    elif due.older_span is None:
        return None
    record = new_record(root, task, now, mark, "schedule", last).evolve(
        status=Status.SKIPPED,
        reason=Reason.MISSED,
        completed_at=now,
        skipped_count=count,
        skipped_since=first,
        notes=tuple(notes),
    )
    return Claimed(record, task, last)


def new_record(
    root: str,
    task: Task,
    now: datetime,
    mark: RunnerMark,
    triggered: TriggeredBy,
    moment: datetime | None,
    attempt: int = 1,
) -> Record:
    """The record of a run that is to be, with an id of its own."""
    trigger = task.trigger
    return Record(
        id=str(uuid.uuid4()),
        task_id=task.id,
        task_name=task.name,
        project=root,
        scheduled_for=moment,
        started_at=now,
        status=Status.RUNNING,
        cron_expression=trigger.expression if trigger.type == "cron" else None,
        triggered_by=triggered,
        attempt=attempt,
        isolated=task.execution.worktree.enabled,
        tags=task.tags or None,
        runner=mark,
    )
