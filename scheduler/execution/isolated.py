"""The place of an isolated run: its worktree and branch, what is kept of its work, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scheduler.core.format import count
from scheduler.core.record import Reason, Record
from scheduler.disk.files import locked, make_folder
from scheduler.disk.paths import CONFIG_FOLDER
from scheduler.errors import SchedulerError
from scheduler.execution import attribution, branches, containment, git, guard, links, refs, scan, trace, work, worktree
from scheduler.execution.aftermath import digest, repository_lock, settle
from scheduler.execution.changes import tool_paths
from scheduler.execution.eachref import unmerged_branches
from scheduler.execution.inside import evidence_folder
from scheduler.execution.steps import Order, Workshop
from scheduler.execution.work import Work
from scheduler.execution.worktree import Worktree


def project_key(root: str) -> str:
    """The name of a project's folder of worktrees: `{name}-{hash8}`, of its real path."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(root).name).strip("-.")[:40] or "project"
    return f"{name}-{digest(root)[:8]}"


def _left_behind(before: containment.Snapshot) -> list[str]:
    """A note on the user's uncommitted work, which the run does not see. Our own config there, say, is no work."""
    number = before.uncommitted - sum(path.startswith(f"{CONFIG_FOLDER}/") for path in before.files)
    verb = "is" if number == 1 else "are"
    return [f"{count(number, 'uncommitted change')} of the main checkout {verb} not in the worktree"] if number else []


def _restore(tree: Worktree) -> bool:
    """See that a worktree stands; whether it had to be made again, from its branch or else from its base."""
    if tree.stands and any(tree.path.iterdir()):
        # It is saved as what a failed run left, rather than overwritten, or gone on with though it lacks much.
        if worktree.admin_folder(tree) is None:
            raise SchedulerError("git has forgotten the worktree", "was `git worktree prune` called?")
        if not os.path.lexists(tree.path / ".git"):
            raise SchedulerError("the .git of the worktree has gone, and maybe more", "was the folder cleaned?")
        return False
    make_folder(tree.path.parent)
    with locked(tree.lock):
        worktree.remove_held(tree)  # git's record of it
        if refs.is_checked_out(tree.project, tree.branch):
            raise SchedulerError(f"its worktree has gone, and you have its branch {tree.branch} checked out")
        if git.resolve(tree.project, tree.ref) is None:
            worktree.make_branch_held(tree)
        worktree.furnish_held(tree)
    return True


class Isolated:
    """One run's place. Call `plan` and `create`, or `take_up`; then `commit` and `contain`; `settle` in the end."""

    def __init__(self, order: Order, shop: Workshop, scratch: Path) -> None:
        self._order = order
        self._shop = shop
        self._trace = evidence_folder(scratch)
        self._tree: Worktree | None = None
        self._work: Work | None = None
        self._before: asyncio.Future[containment.Snapshot] | None = None
        self._made = False
        self.skip: Reason | None = None
        self.refusal: Reason | None = None
        self.contained = False

    @property
    def tree(self) -> Worktree:
        if self._tree is None:
            raise RuntimeError("a place that was not planned")
        return self._tree

    @property
    def folder(self) -> Path:
        return self.tree.path

    @property
    def place(self) -> dict[str, Any]:
        """What recovery needs to know."""
        tree = self.tree
        return {"worktree": str(tree.path), "branch": tree.branch, "base": tree.base}

    async def plan(self, record: Record) -> Record:
        """Decide base, branch and folder; nothing is made yet. SchedulerError where there can be no worktree."""
        settings = self._order.task.execution.worktree
        moment = (record.scheduled_for or record.started_at).strftime("%Y%m%dT%H%M")

        def decide() -> Worktree:
            # Hooks of the user's (commit, push) find their programs where they did at `enable`.
            project = git.find_project(record.project, {**self._shop.env, "PATH": self._order.path})
            lock = repository_lock(self._shop.paths, project)
            branch = refs.check_branch(
                project, refs.branch_name(settings.branch_prefix, record.task_id, moment, record.id[:8])
            )
            base = refs.resolve_base(project, settings.base, remote=settings.remote_name, lock=lock)
            path = Path(self._shop.paths.worktree(project_key(record.project), record.task_id, record.id))
            return Worktree(project, path, branch, base, lock)

        self._tree = tree = await asyncio.to_thread(decide)
        if self._order.task.policy.open_review == "skip" and record.triggered_by not in ("manual", "retry"):
            begin = f"{settings.branch_prefix}{record.task_id}-"
            open_branches = await asyncio.to_thread(unmerged_branches, tree.project.root, self._shop.env)
            if any(b.startswith(begin) and refs.is_run_branch(b) for b in open_branches):
                self.skip = Reason.OPEN_REVIEW
                return record
        return record.evolve(worktree_path=str(tree.path), worktree_branch=tree.branch, base_commit=tree.base)

    async def create(self, notes: list[str]) -> None:
        """Make the worktree, with its links and copies. The main checkout is looked at meanwhile."""
        tree = self.tree
        self._before = asyncio.ensure_future(asyncio.to_thread(containment.snapshot, tree.project))
        self._made = True  # from here on something may be there
        notes += await asyncio.to_thread(worktree.create, tree)
        notes += _left_behind(await self._before)
        notes += await self._link()

    async def _link(self) -> list[str]:
        tree, names = self.tree, self._order.task.execution.worktree.link
        return await asyncio.to_thread(lambda: links.copy_included(tree) + (links.link(tree, names) if names else []))

    async def settle_in(self, place: Mapping[str, Any] | None, notes: list[str]) -> bool:
        """`create`, or `take_up` where there is a place already; whether the worktree was made now."""
        if place is not None:
            return await self.take_up(place, notes)
        await self.create(notes)
        return True

    async def take_up(self, place: Mapping[str, Any], notes: list[str]) -> bool:
        """Go back to the place of a run that waited; whether its worktree had gone, and was made again at its path."""
        project_root = self._order.record.project

        def find() -> Worktree:
            project = git.find_project(project_root, self._shop.env)
            lock = repository_lock(self._shop.paths, project)
            return Worktree(project, Path(place["worktree"]), place["branch"], place["base"], lock)

        self._tree = tree = await asyncio.to_thread(find)
        self._made = True
        self._before = asyncio.ensure_future(asyncio.to_thread(containment.snapshot, tree.project))
        anew = await asyncio.to_thread(_restore, tree)
        await self._before
        if anew:
            notes.append("the worktree was gone when the run went on, and was made again from its branch")
            notes += await self._link()
        return anew

    def wrap(self, words: tuple[str, ...]) -> None:
        """Have our own git commands in the worktree in the sandbox of the run: what it left there may be a hook."""
        self._tree = replace(self.tree, wrap=words)

    async def commit(self, record: Record, notes: list[str]) -> bool:
        """Commit what the agent left; False where nothing changed. On SchedulerError `refusal` says its kind."""
        message = f"{record.task_name}\n\nTask: {record.task_id}\nRun: {record.id}\n"
        try:
            await asyncio.to_thread(work.clear_pipes, self.tree)
            self._work = await asyncio.to_thread(work.keep, self.tree, message)
        except work.LeftBranch:
            self.refusal = Reason.LEFT_BRANCH
            raise
        except work.CommitRejected:
            self.refusal = Reason.COMMIT_REJECTED
            raise
        if self._work is not None and self._work.unsaved:
            self.refusal = Reason.NOT_KEPT
            raise SchedulerError("not all of the work can be kept in git: " + "; ".join(self._work.unsaved[:5]))
        if self._work is not None:
            await self._look_for_secrets(self._work.commit, notes)
        return self._work is not None

    async def _look_for_secrets(self, tip: str, notes: list[str]) -> None:
        tree, redactor = self.tree, self._order.redactor
        found = await asyncio.to_thread(scan.new_secrets, tree.project, tree.base, tip, redactor, notes)
        if found:
            self.refusal = Reason.SECRET_IN_WORK
            named = ", ".join(dict.fromkeys(f"{one.path} ({one.kind})" for one in found[:10]))
            raise SchedulerError(f"the work holds a secret that was not there before: {named}")

    def kept(self) -> dict[str, Any]:
        """The fields of the record that tell of kept work."""
        if self._work is None:
            return {}
        done = self._work
        return {
            "commit": done.commit,
            "files_changed": done.files_changed,
            "insertions": done.insertions,
            "deletions": done.deletions,
        }

    async def contain(self, notes: list[str]) -> str | None:
        """Compare the main checkout with how it was. What the run did to it comes back as one line; what somebody else
        did there meanwhile is a note."""
        self.contained = True
        if self._before is None:
            return None
        tree, before = self.tree, await self._before

        def compare() -> tuple[list[str], list[str]]:
            work.clear_pipes(tree)
            changes = containment.difference(before, containment.snapshot(tree.project, since=before))
            if not changes:
                return [], []
            mine, others = attribution.attribute(
                changes,
                tool_paths=tool_paths(self._order.record.project, self._order.record.id),
                commands=trace.read(self._trace),
                before=before,
                main_root=tree.project.root,
                worktree=tree.path,
                branch=tree.branch,
            )
            told = (change for change in others if not guard.is_decisive(change.what))  # Watch tells of those
            return [str(change) for change in mine], [str(change) for change in told]

        attributed, others = await asyncio.to_thread(compare)
        notes += [f"the main checkout changed meanwhile, it cannot be told by whom: {text}" for text in others[:10]]
        if not attributed:
            return None
        return "the run changed the main checkout: " + "; ".join(attributed[:10])

    async def push(self, final: Record) -> Record:
        """Push the kept branch; the record with what came of it."""
        remote = self._order.task.execution.worktree.remote_name
        try:
            await asyncio.to_thread(branches.push, self.tree, remote)
        except SchedulerError as error:
            note = f"not pushed, the branch is kept here: {error.message}"
            return final.evolve(worktree_pushed=False, notes=(*(final.notes or ()), note))
        return final.evolve(worktree_pushed=True)

    async def settle(self, final: Record) -> Record:
        """What the end of the run means for its worktree and branch: `final` with what became of them."""
        if not self._made:
            return final
        return await asyncio.to_thread(settle, self.tree, final)
