"""The runs under way: each carried out, or undone where it comes to no end of its own; the folders that they leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any

from scheduler.core.lifecycle import Going
from scheduler.core.models import UserSettings
from scheduler.core.record import Reason, Record, Status
from scheduler.disk.paths import Paths
from scheduler.execution import aftermath, run
from scheduler.execution.agent import SupervisorPool
from scheduler.runner.turns import Underway
from scheduler.store.database import NotWritten
from scheduler.store.state import State

log = logging.getLogger("scheduler")
Place = Mapping[str, Any]


class Floor:
    """All of it happens in the runner's one thread. `ended` gets the record of each run, when it is off the floor."""

    def __init__(
        self,
        paths: Paths,
        env: Mapping[str, str],
        state: State,
        pool: SupervisorPool,
        now: Callable[[], datetime],
        ended: Callable[[Record], None],
    ) -> None:
        self._paths = paths
        self._env = env
        self._state = state
        self._now = now
        self._ended = ended
        self._shop = run.Workshop(paths, pool, dict(env), now, state.update_run)
        self._sweeping: asyncio.Task[None] | None = None
        self._unswept = False
        self.going: dict[str, Underway] = {}

    def start(self, order: run.Order, settings: UserSettings) -> None:
        """Carry out a run, with the user's settings of this moment."""
        underway = self._enter(order.record)
        self._work(underway, self._carry(order, settings, underway.cancel))

    def give_up(self, record: Record, place: Place | None, why: str) -> None:
        """End a run that waits for a usage limit to end, or was to go on; its work is saved, its worktree goes."""
        final = record.evolve(
            status=Status.FAILURE, reason=Reason.CANCELLED, completed_at=self._now(), error=why, resets_at=None
        )
        underway = self._enter(final)
        self._work(underway, self._end(final, place, underway.cancel))

    async def _end(self, final: Record, place: Place | None, cancel: asyncio.Event) -> Record:
        with contextlib.suppress(NotWritten):  # it is ended, now or when a later runner finds it
            await self._shop.write_down(final.id, cancel, phase="ended", record=final.to_json())
        return await self._save(final, place)

    def _enter(self, record: Record) -> Underway:
        underway = Underway(record, Going(record.id, record.project, record.task_id, record.isolated))
        self.going[record.id] = underway
        return underway

    def _work(self, underway: Underway, work: Coroutine[Any, Any, Record]) -> None:
        async def to_the_end() -> None:
            final = await work
            del self.going[final.id]
            self._ended(final)
            self.sweep()

        underway.work = asyncio.create_task(to_the_end(), name=f"run {underway.record.id[:8]}")

    async def _carry(self, order: run.Order, settings: UserSettings, cancel: asyncio.Event) -> Record:
        record = order.record
        try:
            return await run.carry_out(order, self._shop.with_settings(settings), cancel)
        except NotWritten as error:
            reason, said = Reason.CANCELLED, f"cancelled while it waited to write down how far it was: {error.message}"
        except Exception as error:
            log.exception("run %s ended by a bug", record.id)
            reason = Reason.CRASHED
            what = order.redactor.text(repr(error))[:300]  # cut only then: half a secret is not known for one
            said = f"a bug of the scheduler ended this run: {what}; see {self._paths.runner_log}"
        final = record.evolve(status=Status.FAILURE, reason=reason, completed_at=self._now(), error=said)
        row = self._state.run(record.id)
        return await self._save(final, row.place if row else None)

    async def _save(self, final: Record, place: Place | None) -> Record:
        """The final record, with what became of the work, which is saved as after a crash."""
        if place is None or "worktree" not in place:
            return final
        try:
            return await asyncio.to_thread(aftermath.recover, self._paths, final, place, self._env)
        except Exception:  # a second bug must not keep the run on the list of those under way for ever
            log.exception("the work of run %s was not saved", final.id)
            return final.evolve(notes=(*(final.notes or ()), f"its worktree {place['worktree']} stays as it is"))

    def cancel(self, run_id: str | None = None) -> bool:
        """Stop a run, or all of them; whether there was any."""
        found = [underway for known, underway in self.going.items() if run_id in (None, known)]
        for underway in found:
            underway.cancel.set()
        return bool(found)

    def sweep(self) -> None:
        """Delete the folders of removed worktrees, in the background."""
        self._unswept = True
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while self._unswept:  # by a run that ended while the last sweep was under way
            self._unswept = False
            for complaint in await asyncio.to_thread(aftermath.empty_trash, self._paths):
                log.warning(complaint)

    async def close(self) -> None:
        """Wait for what is under way."""
        tasks = [underway.work for underway in self.going.values() if underway.work is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sweeping is not None:
            await self._sweeping
