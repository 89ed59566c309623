"""A run that changed what decides over runs fails for that, and its project is suspended until the user has looked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from scheduler.core.models import iso
from scheduler.core.record import Reason, Record, Status
from scheduler.core.redact import Redactor
from scheduler.core.verdict import Verdict
from scheduler.disk.paths import Paths
from scheduler.errors import SchedulerError
from scheduler.execution import attribution, git, guard, inside, trace
from scheduler.execution.changes import tool_paths
from scheduler.execution.guard import Finding, Guarded
from scheduler.execution.steps import Ended, Workshop
from scheduler.store import trust
from scheduler.store.trust import Suspension

_TOLD = 10


class Watch:
    """Over one run. Call `begin` before its first process, `judge` when its last has ended."""

    def __init__(self, shop: Workshop, scratch: Path) -> None:
        self._shop = shop
        self._trace = inside.evidence_folder(scratch)
        self._project: git.Project | None = None
        self._before: Guarded | None = None

    async def begin(self, record: Record, project: git.Project | None = None) -> git.Project:
        """Look at what is not to change; the project, if it is not known. SchedulerError where it cannot be found."""
        if project is None:
            project = await asyncio.to_thread(git.find_project, record.project, self._shop.env)
        self._project = project
        self._before = await asyncio.to_thread(guard.look, project, self._shop.paths)
        return project

    async def judge(self, record: Record, ended: Ended, redactor: Redactor, notes: list[str]) -> Ended:
        """How the run ends, after a look at what it changed: as it did, or as a self-edit, its project suspended."""
        before, self._before = self._before, None
        if before is None:  # it never began, or is judged already
            return ended
        notes += _refused(self._trace)
        try:
            finding = await asyncio.to_thread(self._compare, record, before)
        except (SchedulerError, OSError) as error:
            notes.append(f"whether it changed what decides over it could not be told: {error}")
            return ended
        notes += [f"changed meanwhile, it cannot be told by whom: {label}" for label in finding.others[:_TOLD]]
        if not finding.mine:
            return ended
        notes += [_also(ended)] if ended.verdict.status is not Status.SUCCESS else []
        finding = replace(finding, difference=guard.without_secrets(finding.difference, redactor))
        notes += await asyncio.to_thread(_suspend, self._shop.paths, record, finding, iso(self._shop.now()))
        return Ended(Verdict(Status.FAILURE, Reason.SELF_EDIT, _said(finding)), ended.exit_code, ended.report)

    def _compare(self, record: Record, before: Guarded) -> Finding:
        assert self._project is not None
        commands = trace.read(self._trace)
        root, tree = self._project.root, Path(record.worktree_path or self._project.root)
        return guard.compare(
            self._project,
            before,
            guard.look(self._project, self._shop.paths),
            tool_paths=tool_paths(record.project, record.id),
            commands=commands,
            wrote_files=attribution.wrote_files(commands, root, tree),
        )


def recall(paths: Paths, record: Record, env: Mapping[str, str], at: str) -> Record:
    """The record of a run that crashed, after a look at what its tool calls wrote: that much is known of it."""
    try:
        project = git.find_project(record.project, env)
        mine = guard.touched(guard.look(project, paths), tool_paths(record.project, record.id))
    except (SchedulerError, OSError):
        return record
    if not mine:
        return record
    finding = Finding(mine)
    notes = (*(record.notes or ()), f"it ended as {record.status} ({record.reason}): {record.error}")
    notes += tuple(_suspend(paths, record, finding, at))
    return record.evolve(reason=Reason.SELF_EDIT, error=_said(finding), notes=notes)


def _said(finding: Finding) -> str:
    return f"the run changed what decides over it: {', '.join(finding.mine[:_TOLD])}"


def _also(ended: Ended) -> str:
    reason = f" ({ended.verdict.reason})" if ended.verdict.reason else ""
    return f"it ended as {ended.verdict.status}{reason}: {ended.verdict.error}"


def _suspend(paths: Paths, record: Record, finding: Finding, at: str) -> list[str]:
    """Suspend the project, and those whose approvals the run wrote; a note where that cannot be."""
    suspension = Suspension(record.id, record.task_id, at, finding.mine, finding.difference)
    try:
        trust.suspend(paths, {record.project, *finding.roots}, suspension)
    except (SchedulerError, OSError) as error:
        return [f"the project could not be suspended: {error}"]
    return ["the project is suspended: 'enable' shows what changed"]


def _refused(folder: Path) -> list[str]:
    verbs = inside.refusals(folder)
    return [f"it called verbs that are refused inside a run: {', '.join(verbs)[:300]}"] if verbs else []
