"""One run, from its start to the record of its end: worktree, steps, verdict, then its work is kept or rolled back.

Each step is written down before it is made (`Workshop.update`), so that whoever comes after a crash knows what to undo.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from scheduler.core.models import iso
from scheduler.core.record import Reason, Record, Status
from scheduler.core.redact import Redactor
from scheduler.core.verdict import Verdict
from scheduler.disk import files, paths
from scheduler.errors import SchedulerError
from scheduler.execution.isolated import Isolated
from scheduler.execution.steps import Ended, Order, Steps, Workshop
from scheduler.store import history

ERROR_KEPT = 1000  # characters of an error in the record

__all__ = ["Order", "Workshop", "carry_out"]


async def carry_out(order: Order, shop: Workshop, cancel: asyncio.Event) -> Record:
    """Carry out a run; its final record, which the caller puts into the history.

    Ends in a record whatever happens to the work; raises only for a bug. Nothing of the run's processes is left.
    """
    return await _Run(order, shop, cancel).carry_out()


class _Run:
    def __init__(self, order: Order, shop: Workshop, cancel: asyncio.Event) -> None:
        if order.task.execution.type == "claude":
            order = replace(order, record=order.record.evolve(session_id=str(uuid.uuid4())))
        self._order = order
        self._shop = shop
        self._cancel = cancel
        self._record = order.record
        self._notes: list[str] = list(order.record.notes or ())
        self._scratch = Path(shop.paths.run_folder(order.record.id))
        self._began = asyncio.get_running_loop().time()

    async def carry_out(self) -> Record:
        task = self._order.task
        self._scratch.mkdir(0o700, parents=True, exist_ok=True)
        try:
            return await (self._isolated() if task.execution.worktree.enabled else self._in_main_checkout())
        finally:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    def _announce(self, place: dict[str, Any] | None = None) -> None:
        """Write down that the run begins, and where."""
        self._shop.update(self._record.id, phase="running", record=self._record.to_json(), place=place)
        try:
            history.append(self._shop.paths, self._record)
        except OSError as error:
            self._notes.append(f"the start was not written to the history: {error.strerror}")

    async def _in_main_checkout(self) -> Record:
        self._announce()
        steps = self._steps(Path(self._record.project))
        ended = await self._work(steps)
        if ended.verdict.status is Status.SUCCESS:
            ended = await self._verify(steps, ended)
        return self._final(steps, ended)

    async def _isolated(self) -> Record:
        where = Isolated(self._order, self._shop, self._scratch)
        try:
            self._record = await where.plan(self._record)
        except (SchedulerError, OSError) as error:
            self._announce()
            return self._final(None, _failed(Reason.WORKTREE_FAILED, error))
        if where.skip is not None:
            return self._final(None, Ended(Verdict(Status.SKIPPED, where.skip), None))
        self._announce(where.place)
        steps: Steps | None = None
        try:
            await where.create(self._notes)
            steps = self._steps(where.folder)
            ended = await self._work(steps)
        except (SchedulerError, OSError) as error:
            ended = _failed(Reason.WORKTREE_FAILED, error)
        if steps is not None and ended.verdict.status is Status.SUCCESS:
            ended = await self._keep(where, steps, ended)
        if not where.contained:
            await self._note_violation(where)
        final = self._final(steps, ended)
        self._shop.update(final.id, phase="ended", record=final.to_json())
        if final.commit is not None and self._order.task.execution.worktree.push:
            # Only now: a crash while it is pushed leaves a success on record, never a pushed branch of a failed run.
            final = await where.push(final)
        return await where.settle(final)

    async def _note_violation(self, where: Isolated) -> None:
        """What a run that has failed anyhow did to the main checkout."""
        try:
            violation = await where.contain(self._notes)
        except (SchedulerError, OSError) as error:
            violation = f"the main checkout could not be looked at: {_said(error)}"
        self._notes += [violation] if violation else []

    async def _work(self, steps: Steps) -> Ended:
        """Set-up, precheck and the agent."""
        execution = self._order.task.execution
        if execution.worktree.setup is not None and execution.worktree.enabled:
            failed = await self._gate(steps, "setup", execution.worktree.setup, Reason.SETUP_FAILED)
            if failed is not None:
                return failed
        if execution.precheck is not None:
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
            changed = await where.commit(self._record, steps.redactor)
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
            return Ended(Verdict(Status.FAILURE, Reason.CONTAINMENT, violation), ended.exit_code, ended.report)
        if not changed:
            return Ended(Verdict(Status.SUCCESS, Reason.NO_CHANGES), ended.exit_code, ended.report)
        self._record = self._record.evolve(**where.kept())
        return ended

    def _steps(self, folder: Path) -> Steps:
        return Steps(self._order, self._shop, folder, self._scratch, self._cancel)

    def _final(self, steps: Steps | None, ended: Ended) -> Record:
        """The record of the end; the logs are complete after it."""
        verdict, report, now = ended.verdict, ended.report, self._shop.now()
        milliseconds = int((asyncio.get_running_loop().time() - self._began) * 1000)
        final = self._record.evolve(
            status=verdict.status,
            reason=verdict.reason,
            error=verdict.error,
            exit_code=ended.exit_code,
            resets_at=verdict.resets_at,
            completed_at=max(now, self._record.started_at),
            duration=milliseconds,
            session_id=self._record.session_id if report is not None else None,  # the client was not started
        )
        if report is not None:
            final = final.evolve(cost_usd=report.cost_usd, turns=report.turns, model=report.model)
        redactor = Redactor(()) if steps is None else steps.redactor
        if steps is not None:
            final = self._close_logs(steps, final, report.result_text if report else "", now)
        told = redactor.text(final.error) if final.error else None
        told = told[:ERROR_KEPT] if told else None
        return final.evolve(error=told, notes=tuple(map(redactor.text, self._notes)) or None)

    def _close_logs(self, steps: Steps, final: Record, answer: str, now: datetime) -> Record:
        reason = f" ({final.reason})" if final.reason else ""
        steps.log.say(f"end: {final.status}{reason} at {iso(now)}")
        steps.log.close()
        if answer:
            try:
                Path(paths.result_file(final.project, final.id)).parent.mkdir(0o700, exist_ok=True)
                text = steps.redactor.text(answer).encode("utf-8", "replace")
                files.write_atomic(paths.result_file(final.project, final.id), text + b"\n")
            except OSError as error:
                self._notes.append(f"the full answer was not written: {error.strerror}")
        if steps.log.trouble:
            self._notes.append(steps.log.trouble)
        return final.evolve(output=steps.log.tail())


def _failed(reason: Reason, error: SchedulerError | OSError) -> Ended:
    return Ended(Verdict(Status.FAILURE, reason, _said(error)), None)


def _said(error: SchedulerError | OSError) -> str:
    return error.message if isinstance(error, SchedulerError) else str(error)
