"""What may start at this moment: quiet hours, and the holds, read at each look since the command line writes some."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from scheduler.core.limits import (
    Cause,
    Hold,
    is_of_another_clock,
    is_too_often,
    of_the_account,
    quiet_until,
    switched_off,
)
from scheduler.core.models import Task
from scheduler.core.overdue import Absence
from scheduler.core.record import Record, Status
from scheduler.disk import switch
from scheduler.runner.projects import Projects
from scheduler.store.state import State

log = logging.getLogger("scheduler")


class Gate:
    """The holds as of the last look. `shut`: why nothing starts by itself now, in quiet hours and while no limit of the
    user is known."""

    def __init__(self, off_switch: str, state: State, projects: Projects, now: Callable[[], datetime]) -> None:
        self._off_switch = off_switch
        self._state = state
        self._projects = projects
        self._now = now
        self.holds: list[Hold] = []
        self.shut: Absence | None = None

    def look(self, now: datetime) -> None:
        """Read the holds; a change of what holds now is news for the hooks."""
        settings = self._projects.settings
        quiet = Absence.QUIET if quiet_until(settings.quiet_hours, now) is not None else None
        was, self.shut = self.shut, quiet if self._projects.settings_known else Absence.SETTINGS
        if was is not self.shut:
            self._projects.changed |= self._projects.served.keys()
        before, self.holds = self.holds, self._read(now)
        for hold in {*before} ^ {*self.holds}:
            self._projects.changed |= {root for root in self._projects.served if hold.project in ("", root)}

    def _read(self, now: datetime) -> list[Hold]:
        budgets = self._projects.settings.budgets
        found = self._state.all_holds(budgets, now)
        if self._take_over_switch(found, now):
            found = self._state.all_holds(budgets, now)
        if not any(is_of_another_clock(hold, now) for hold in found):
            return found
        self._state.holds.lift("", "", (Cause.USAGE_LIMIT,), now)
        return self._state.all_holds(budgets, now)

    def off(self, now: datetime) -> switch.Off | None:
        """Whether the off switch is thrown at this moment."""
        return switch.look(self._off_switch, now.timestamp())

    def _take_over_switch(self, found: list[Hold], now: datetime) -> bool:
        """Keep a hold as long as the switch is thrown, so that all that came due meanwhile is passed over though no
        runner was there at its end; whether that changed."""
        off = self.off(now)
        known = any(hold.cause is Cause.OFF and not hold.is_over(now) for hold in found)
        if off is not None and not known:
            self._state.holds.put(switched_off(self._off_switch, datetime.fromtimestamp(off.since, now.tzinfo)))
            log.warning("switched off: nothing starts until %s is gone", self._off_switch)
        elif off is None and known:
            self._state.holds.lift("", "", (Cause.OFF,), now)
            log.info("switched on again: %s is gone", self._off_switch)
        return (off is not None) != known

    def over(self, root: str, task: Task, now: datetime) -> list[Hold]:
        """What keeps a task from starting now, in the order in which it began."""
        return [hold for hold in self.holds if hold.covers(root, task) and not hold.is_over(now)]

    def count_failure(self, record: Record, task: Task) -> Record:
        """Pause the task of a run that failed for good, where that was once too often; the record, with a note then."""
        state = self._state.task(record.project, task.id)
        failures = 1 if state is None else state.failures + 1
        now = record.completed_at or record.started_at
        paused = any(hold.cause is Cause.FAILURES for hold in self.over(record.project, task, now))
        if paused or not is_too_often(task, failures):
            return record
        self._state.holds.put(Hold(record.project, task.id, Cause.FAILURES, now, None, "scheduler", record.id))
        note = f"paused: {failures} failures in a row; 'resume {task.id}' lets it run again"
        return record.evolve(notes=(*(record.notes or ()), note))

    def limit(self, record: Record) -> None:
        """All claude tasks wait until the usage limit ends that a run has met."""
        now, until = self._now(), record.resets_at
        assert until is not None
        self.look(now)
        self._put(Cause.USAGE_LIMIT, max(until, self.limit_ends(now) or until), record)

    def recall_limit(self, record: Record) -> None:
        """The same for a run that waits already, where the runner died before it had written that all wait."""
        known = any(hold.cause is Cause.USAGE_LIMIT for hold in self._state.holds.all())  # also one that was lifted
        if not known and record.resets_at is not None and record.resets_at > self._now():
            self.limit(record)

    def limit_ends(self, now: datetime) -> datetime | None:
        """When the usage limit ends that holds claude tasks back, as of the last look; None where none does."""
        ends = (hold.until for hold in self.holds if hold.cause is Cause.USAGE_LIMIT and not hold.is_over(now))
        return next(ends, None)

    def judge_account(self, record: Record) -> None:
        """What the end of a claude run says of the account: it may hold all claude tasks, or let them go again."""
        cause = of_the_account(record.status, record.reason)
        if cause is not None and not any(h.cause is cause and not h.is_over(self._now()) for h in self.holds):
            self._put(cause, None, record)
        elif record.status is Status.SUCCESS and record.session_id is not None:
            if any(hold.cause in (Cause.AUTH, Cause.CREDIT) for hold in self.holds):
                self._state.holds.lift("", "", (Cause.AUTH, Cause.CREDIT), self._now())

    def waits_for_login(self) -> bool:
        """Whether claude tasks wait for somebody to log in."""
        return any(hold.cause is Cause.AUTH and not hold.is_over(self._now()) for hold in self.holds)

    def login_is_back(self) -> None:
        """Let them go on."""
        self._state.holds.lift("", "", (Cause.AUTH,), self._now())

    def _put(self, cause: Cause, until: datetime | None, record: Record) -> None:
        said = (record.error or cause.value)[:200]
        self._state.holds.put(Hold("", "", cause, self._now(), until, said, record.id))
        self.look(self._now())

    def settle(self, now: datetime) -> None:
        """Forget the holds that are over, once all that came due under them is passed over."""
        for hold in self.holds:
            served = self._projects.served.get(hold.project)
            settled = hold.project == "" or (served is not None and served.suspended is None)
            if hold.is_over(now) and settled:
                self._state.holds.forget(hold)
