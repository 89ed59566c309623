"""One run, from its start to the record of its end: worktree, steps, verdict, then its work is kept or rolled back.

Each step is written down before it is made (`Workshop.update`), so that whoever comes after a crash knows what to undo.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from scheduler.core import limits
from scheduler.core.models import iso
from scheduler.core.plain import plain
from scheduler.core.record import Reason, Record, Status
from scheduler.core.verdict import Verdict
from scheduler.disk import files, paths
from scheduler.errors import SchedulerError
from scheduler.execution import session
from scheduler.execution.inside import evidence_folder
from scheduler.execution.isolated import Isolated
from scheduler.execution.sandbox import SandboxMissing
from scheduler.execution.selfedit import Watch
from scheduler.execution.steps import Ended, Order, Steps, Workshop
from scheduler.store import history

ERROR_KEPT = 1000  # characters of an error in the record

__all__ = ["Order", "Workshop", "carry_out"]


async def carry_out(order: Order, shop: Workshop, cancel: asyncio.Event) -> Record:
    """Carry out a run; its final record, which the caller puts into the history.

    Ends in a record whatever happens to the work; raises only for a bug. Nothing of the run's processes is left. Where
    the client meets a usage limit the record is still `running`, and written down as such, with the place where it is
    to go on; worktree and branch stay.
    """
    return await _Run(order, shop, cancel).carry_out()


class _Run:
    def __init__(self, order: Order, shop: Workshop, cancel: asyncio.Event) -> None:
        if order.task.execution.type == "claude" and order.place is None:
            order = replace(order, record=order.record.evolve(session_id=str(uuid.uuid4())))
        self._order = order
        self._shop = shop
        self._cancel = cancel
        self._record = order.record
        self._notes: list[str] = list(order.record.notes or ())
        self._scratch = Path(shop.paths.run_folder(order.record.id))
        self._watch = Watch(shop, self._scratch)
        self._began = asyncio.get_running_loop().time()

    async def carry_out(self) -> Record:
        evidence_folder(self._scratch).mkdir(0o700, parents=True, exist_ok=True)
        try:
            return await (self._isolated() if self._record.isolated else self._in_main_checkout())
        finally:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    def _clean(self, text: str) -> str:
        return self._order.redactor.text(plain(text))

    async def _announce(self, place: Mapping[str, Any] | None = None) -> None:
        """Write down that the run begins, or goes on, and where."""
        self._record = self._record.evolve(reason=None, error=None, resets_at=None, output=None)
        record = self._record.to_json()
        await self._shop.write_down(self._record.id, self._cancel, phase="running", record=record, place=place)
        self._tell(self._record)

    def _tell(self, record: Record) -> None:
        try:
            history.append(self._shop.paths, record)
        except OSError as error:
            self._notes.append(f"the start was not written to the history: {error.strerror}")

    async def _in_main_checkout(self) -> Record:
        place = self._order.place
        await self._announce(place)
        steps = self._steps(Path(self._record.project))
        try:
            await steps.shut_in(await self._watch.begin(self._record), None)
        except (SchedulerError, OSError) as error:
            return self._final(steps, _failed(_why(error), error))
        ended = await self._work(steps, made=place is None)
        if ended.verdict.status is Status.SUCCESS:
            ended = await self._verify(steps, ended)
        ended = await self._judge(steps, ended)
        if self._waits(ended, place or {}):
            return await self._wait(steps, ended, place or {})
        return self._final(steps, ended)

    async def _judge(self, steps: Steps, ended: Ended) -> Ended:
        """Whether the run changed what decides over it, whichever way it ended; nothing of its work is kept then."""
        ended = await self._watch.judge(self._record, ended, steps.redactor, self._notes)
        if ended.verdict.reason is Reason.SELF_EDIT:
            self._record = self._record.evolve(commit=None, files_changed=None, insertions=None, deletions=None)
        return ended

    async def _isolated(self) -> Record:
        where = Isolated(self._order, self._shop, self._scratch)
        place = self._order.place
        if place is None:
            try:
                self._record = await where.plan(self._record)
            except (SchedulerError, OSError) as error:
                await self._announce()
                return self._final(None, _failed(Reason.WORKTREE_FAILED, error))
            if where.skip is not None:
                return self._final(None, Ended(Verdict(Status.SKIPPED, where.skip), None))
            place = where.place
        await self._announce(place)
        steps: Steps | None = None
        try:
            planned = where.tree.project if self._order.place is None else None
            watching = self._watch.begin(self._record, planned)
            made, _ = await asyncio.gather(where.settle_in(self._order.place, self._notes), watching)
            steps = self._steps(where.folder)
            where.wrap(await steps.shut_in(where.tree.project, where.tree))
            ended = await self._work(steps, made=made)
            if self._waits(ended, place):
                violation = await where.contain(self._notes)
                ended = await self._judge(steps, ended if violation is None else _violated(violation, ended))
                if self._waits(ended, place):
                    return await self._wait(steps, ended, place)
        except (SchedulerError, OSError) as error:
            ended = _failed(_why(error), error)
        if steps is not None and ended.verdict.status is Status.SUCCESS:
            ended = await self._keep(where, steps, ended)
        if not where.contained:
            await self._note_violation(where)
        if steps is not None and ended.verdict.reason is not Reason.SELF_EDIT:
            ended = await self._judge(steps, ended)
        final = self._final(steps, ended)
        await self._shop.write_down(final.id, self._cancel, phase="ended", record=final.to_json())
        if final.commit is not None and self._order.task.execution.worktree.push:
            # Only now: a crash while it is pushed leaves a success on record, never a pushed branch of a failed run.
            final = await where.push(final)
        return (await where.settle(final)).cleaned(self._clean)

    async def _note_violation(self, where: Isolated) -> None:
        """What a run that has failed anyhow did to the main checkout."""
        try:
            violation = await where.contain(self._notes)
        except (SchedulerError, OSError) as error:
            violation = f"the main checkout could not be looked at: {_said(error)}"
        self._notes += [violation] if violation else []

    async def _work(self, steps: Steps, *, made: bool) -> Ended:
        """Set-up, where the worktree was `made` now; precheck, unless the run goes on; and the agent."""
        execution = self._order.task.execution
        if execution.worktree.setup is not None and self._record.isolated and made:
            failed = await self._gate(steps, "setup", execution.worktree.setup, Reason.SETUP_FAILED)
            if failed is not None:
                return failed
        if execution.precheck is not None and self._order.place is None:
            outcome = await steps.shell("precheck", execution.precheck)
            if outcome.stopped is None and outcome.returncode == 1:
                return Ended(Verdict(Status.SKIPPED, Reason.PRECHECK_IDLE), 1)
            failed = steps.unless_passed(outcome, "precheck", Reason.PRECHECK_ERROR)
            if failed is not None:
                return failed
        return await steps.perform()

    async def _gate(self, steps: Steps, label: str, command: str, reason: Reason) -> Ended | None:
        return steps.unless_passed(await steps.shell(label, command), label, reason)

    async def _verify(self, steps: Steps, ended: Ended) -> Ended:
        verify = self._order.task.execution.verify
        if verify is None:
            return ended
        failed = await self._gate(steps, "verify", verify, Reason.VERIFY_FAILED)
        return ended if failed is None else Ended(failed.verdict, failed.exit_code, ended.report)

    async def _keep(self, where: Isolated, steps: Steps, ended: Ended) -> Ended:
        """Commit what the agent left, verify that state, and see that the run stayed where it belongs."""
        try:
            changed = await where.commit(self._record, self._notes)
            if changed:
                ended = await self._verify(steps, ended)
            violation = await where.contain(self._notes)
        except (SchedulerError, OSError) as error:
            reason = where.refusal or Reason.NOT_KEPT
            return Ended(Verdict(Status.FAILURE, reason, _said(error)), ended.exit_code, ended.report)
        if ended.verdict.status is not Status.SUCCESS:
            self._notes += [violation] if violation else []
            return ended
        if violation is not None:
            return _violated(violation, ended)
        if not changed:
            return Ended(Verdict(Status.SUCCESS, Reason.NO_CHANGES), ended.exit_code, ended.report)
        self._record = self._record.evolve(**where.kept())
        return ended

    def _waits(self, ended: Ended, place: Mapping[str, Any]) -> bool:
        return limits.waits_for(ended.verdict.reason, int(place.get("waits", 0)))

    async def _wait(self, steps: Steps, ended: Ended, place: Mapping[str, Any]) -> Record:
        """Write down that the run waits for a usage limit to end; its record, which is still `running`."""
        waits = int(place.get("waits", 0))
        until = limits.resume_at(ended.verdict.resets_at, self._shop.now(), waits)
        verdict = replace(ended.verdict, status=Status.RUNNING, resets_at=until)
        record = self._final(steps, Ended(verdict, None, ended.report))
        where = {**place, "resumeAt": iso(until), "waits": waits + 1}
        what = {"phase": "waiting", "record": record.to_json(), "place": where}
        await self._shop.write_down(record.id, self._cancel, **what)
        self._tell(record)
        return record

    def _steps(self, folder: Path) -> Steps:
        return Steps(self._order, self._shop, folder, self._scratch, self._cancel)

    def _final(self, steps: Steps | None, ended: Ended) -> Record:
        """The record of the end, or of a wait; the logs are complete after it."""
        verdict, report, now = ended.verdict, ended.report, self._shop.now()
        milliseconds = int((asyncio.get_running_loop().time() - self._began) * 1000) + (self._record.duration or 0)
        final = self._record.evolve(
            status=verdict.status,
            reason=verdict.reason,
            error=verdict.error,
            exit_code=ended.exit_code,
            resets_at=verdict.resets_at,
            completed_at=None if verdict.status is Status.RUNNING else max(now, self._record.started_at),
            duration=milliseconds,
            # Where the client was never started it has none.
            session_id=self._record.session_id if report is not None or self._order.place is not None else None,
        )
        if report is not None:
            cost, turns = _sum(final.cost_usd, report.cost_usd), _sum(final.turns, report.turns)
            if report.session_usd is not None:
                cost = max(cost or 0.0, report.session_usd)
            elif report.cost_usd is None and report.client_version is not None:
                self._notes.append(session.UNKNOWN)
            final = final.evolve(cost_usd=cost, turns=turns, model=report.model or final.model)
        if steps is not None:
            final = self._close_logs(steps, final, report.result_text if report else "", now)
        final = final.evolve(notes=tuple(self._notes) or None).cleaned(self._clean)
        return final.evolve(error=final.error[:ERROR_KEPT]) if final.error else final

    def _close_logs(self, steps: Steps, final: Record, answer: str, now: datetime) -> Record:
        reason = f" ({final.reason})" if final.reason else ""
        waits = final.status is Status.RUNNING
        until = f" until {iso(final.resets_at)}" if final.resets_at is not None else ""
        steps.log.say(f"{f'wait{until}' if waits else f'end: {final.status}'}{reason} at {iso(now)}")
        steps.log.close()
        if answer and not waits:
            try:
                Path(paths.result_file(final.project, final.id)).parent.mkdir(0o700, exist_ok=True)
                text = self._clean(answer).encode("utf-8", "replace")
                files.write_atomic(paths.result_file(final.project, final.id), text + b"\n")
            except OSError as error:
                self._notes.append(f"the full answer was not written: {error.strerror}")
        self._notes += steps.log.troubles
        return final.evolve(output=steps.log.tail())


def _violated(violation: str, ended: Ended) -> Ended:
    return Ended(Verdict(Status.FAILURE, Reason.CONTAINMENT, violation), ended.exit_code, ended.report)


def _why(error: Exception) -> Reason:
    return Reason.SANDBOX_MISSING if isinstance(error, SandboxMissing) else Reason.WORKTREE_FAILED


def _failed(reason: Reason, error: SchedulerError | OSError) -> Ended:
    return Ended(Verdict(Status.FAILURE, reason, _said(error)), None)


def _sum(one: Any, other: Any) -> Any:
    """Two numbers together, where either may be unknown."""
    return other if one is None else one if other is None else one + other


def _said(error: SchedulerError | OSError) -> str:
    return error.message if isinstance(error, SchedulerError) else str(error)
