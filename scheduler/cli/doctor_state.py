"""doctor, what is written down: approvals, settings, configs, pauses, the history against the state, what runs left."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from scheduler.cli import output
from scheduler.cli.patient import Check, Found, Patient
from scheduler.cli.view import known_of, off_hold
from scheduler.core import format as fmt
from scheduler.core import health
from scheduler.core.health import Finding
from scheduler.core.limits import Cause, quiet_until
from scheduler.core.models import ProjectSettings
from scheduler.core.query import Run
from scheduler.disk import paths, switch
from scheduler.errors import SchedulerError
from scheduler.execution import aftermath, leftovers, rollback, worktree
from scheduler.execution.refs import is_run_branch
from scheduler.store import config, database, history, ownenv, reading, search, settings, trust
from scheduler.store.state import RunRow, State

T = TypeVar("T")
COMPARED = timedelta(days=30)
TAIL = 8 << 20  # bytes of a history that are looked at
SHORTEST = 200  # bytes of a record
LOCK_AGE = 60.0  # seconds after which a lock of ours that no git holds was left by one that was killed
_GOES_ON = {
    Cause.BUDGET: "'run ID' runs a task all the same",
    Cause.USAGE_LIMIT: "nothing to do: they go on then, and with 'resume' at once",
    Cause.CREDIT: "'resume' when there is some",
    Cause.AUTH: "run `claude`, then /login: they go on by themselves then",
}


def checks(patient: Patient) -> Iterator[Check]:
    """The checks of what is written down."""
    for look in (off_switch, state_folder, approvals, user_settings, own_environment, global_history, trash):
        yield Check(look.__name__.replace("_", " "), partial(look, patient))
    for root in patient.roots:
        for part in (project_config, pauses, compared, worktrees, ref_locks, branches):
            yield Check(f"{part.__name__.replace('_', ' ')} of {root}", partial(part, patient, root))


def off_switch(patient: Patient) -> Iterator[Found]:
    """Whether the user switched everything off."""
    off = off_hold(patient.context)
    if off is not None:
        text = f"{output.hold(off, patient.context.now)}: nothing starts in any project"
        yield Found(Finding("warn", "off switch", text, switch.mend(off.by)))


def state_folder(patient: Patient) -> Iterator[Found]:
    """Whether others can look into it."""
    folder = patient.context.paths.state
    _rows(patient)  # opened here first, a damaged one is moved aside before it is looked for
    for path in database.moved_aside(patient.context.paths.state_db):
        text = f"the state was damaged, and begun anew without its pauses: {path}"
        yield Found(Finding("warn", "state", text, "look at your pauses, then delete it"))
    if os.path.isdir(folder):
        mode = stat.S_IMODE(os.stat(folder).st_mode)
        if mode & 0o055 and not mode & 0o022 and os.stat(folder).st_uid == os.getuid():
            text = f"others can look into {folder} (mode {mode:o})"

            def close() -> str:
                os.chmod(folder, 0o700)
                return f"{folder} is yours alone now (mode 700)"

            yield Found(Finding("warn", "state", text, f"'doctor --fix', or: chmod 700 '{folder}'"), close)


def approvals(patient: Patient) -> Iterator[Found]:
    """Whether the store of approvals can be read, and is safe."""
    try:
        known = trust.read(patient.context.paths)
    except SchedulerError as error:
        yield Found(_fail("approvals", error))
        return
    served = sum(project.enabled for project in known.values())
    yield Found(Finding("ok", "approvals", f"{fmt.count(served, 'project')} enabled"))
    for root, project in known.items():
        if project.enabled and not os.path.isdir(root):
            text = f"{root} is enabled and not there"
            mend = f"bring it back, or let it be forgotten: 'disable --project {shlex.quote(root)}'"
            yield Found(Finding("warn", "approvals", text, mend))
        elif not os.path.isdir(root):
            text = f"{root} is not there and not enabled"
            mend = f"'disable --project {shlex.quote(root)}' forgets it"
            yield Found(Finding("warn", "approvals", text, mend))


def user_settings(patient: Patient) -> Iterator[Found]:
    """Whether the user's settings can be used, and what they keep back now."""
    try:
        found = settings.read(patient.context.paths)
    except SchedulerError as error:
        yield Found(_fail("settings", error))
        return
    until = quiet_until(found.quiet_hours, patient.context.now)
    quiet = "" if until is None else f"; quiet hours until {output.moment(until, patient.context.now)}"
    yield Found(Finding("ok", "settings", f"at most {fmt.count(found.max_concurrent, 'run')} at once{quiet}"))


def own_environment(patient: Patient) -> Iterator[Found]:
    """Whether runner.env can be used, where there is one."""
    try:
        found = ownenv.read(patient.context.paths)
    except SchedulerError as error:
        yield Found(_fail("runner.env", error))
        return
    if found:
        yield Found(Finding("ok", "runner.env", f"gives the runner {', '.join(sorted(found))}"))


def project_config(patient: Patient, root: str) -> Iterator[Found]:
    """Whether it is the approved one, and what is wrong in it."""
    trusted = patient.known.get(root)
    try:
        source = config.read_source(root)
        parsed = source.parse()
    except SchedulerError as error:
        yield Found(_fail("config", error))
        return
    file = paths.config_file(root)
    if trusted is None or not trusted.enabled:
        yield Found(Finding("warn", "config", f"{root} has tasks and is not enabled", "'enable'"))
    elif not trusted.approves(source):
        yield Found(Finding("fail", "config", f"{file} is not the approved one: nothing runs", "'enable' shows it"))
    else:
        yield Found(Finding("ok", "config", f"{root}: {fmt.count(len(parsed.tasks), 'task')}, approved"))
    for problem in [problem for problem in parsed.problems if not problem.warning][:5]:
        yield Found(Finding("warn", "config", f"a task is suspended: {problem.text(file)}", "mend it, then 'enable'"))
    ignore = os.path.join(paths.logs_folder(root), ".gitignore")
    if os.path.isdir(os.path.dirname(ignore)) and not os.path.isfile(ignore):

        def again() -> str:
            config.prepare_logs(root)
            return f"{ignore} is there again"

        text = f"{ignore} is gone: git sees the logs, and `git clean` deletes them"
        yield Found(Finding("warn", "logs", text, "'doctor --fix'"), again)


def pauses(patient: Patient, root: str) -> Iterator[Found]:
    """What keeps tasks from starting; what concerns all projects is said of the first."""
    now = patient.context.now
    for hold in known_of(patient.context, root).holds:
        told = hold.project == "" and root != patient.roots[0]
        if not hold.is_over(now) and hold.cause is not Cause.OFF and not told:
            what = hold.task or (os.path.basename(hold.project) if hold.project else "all claude tasks")
            mend = f"'resume {hold.task}'" if hold.task else "'resume'"
            text = f"{what}: {output.hold(hold, now)}"
            yield Found(Finding("warn", "pauses", text, _GOES_ON.get(hold.cause, mend)))


def global_history(patient: Patient) -> Iterator[Found]:
    """Whether it has what the histories of the projects have, and can be read as a whole."""
    where, now = patient.context.paths, patient.context.now
    missing = history.missing_in_global(where, patient.known, now)
    if missing:

        def complete() -> str:
            return f"{fmt.count(history.complete_global(where, patient.known, now), 'record')} put into it"

        text = f"{fmt.count(len(missing), 'record')} of projects missing in {where.global_history}"
        yield Found(Finding("warn", "history", text, "'doctor --fix', or 'restart'"), complete)
    for path in (where.global_history, *(paths.history_file(root) for root in patient.roots)):
        bad = sum(history.parse(line) is None for line in reading.tail(path, TAIL) if line.strip())
        if bad:
            text = f"{fmt.count(bad, 'line')} of {path} cannot be read, and are left out"
            yield Found(Finding("warn", "history", text, "nothing to do: the rest is whole"))


def compared(patient: Patient, root: str) -> Iterator[Found]:
    """The history against the state."""
    context = patient.context
    read = history.fold(history.read_tail(paths.history_file(root), TAIL))
    since = context.now - COMPARED
    if len(read) * SHORTEST > TAIL:  # there may be more
        since = datetime.fromtimestamp(max(map(history.started, read[:100])), context.now.tzinfo)
    nothing: dict[str, datetime] = {}
    claims = _with_state(patient, lambda state: state.claims.since(root, since), nothing)
    live = {row.run_id for row in _rows(patient) if row.project == root}
    live |= {one["runId"] for one in _under_way(patient) if one["project"] == root}
    found = list(health.compare(claims, read, live, context.now))
    if patient.runner is None and patient.problem is None:
        rows = [row for row in _rows(patient) if row.project == root]
        waiting = {row.run_id for row in rows if row.phase in ("queued", "waiting")}
        found += health.abandoned([row.run_id for row in rows if row.run_id not in waiting], waiting)
    yield from map(Found, found)
    if not found:
        text = f"{os.path.basename(root)}: {fmt.count(len(read), 'run')}, as the state has them"
        yield Found(Finding("ok", "history", text))


def worktrees(patient: Patient, root: str) -> Iterator[Found]:
    """Those that stand though no run is at work in them."""
    project = patient.project(root)
    owned = {str((row.place or {}).get("worktree")) for row in _rows(patient)}
    runs = {run.get("worktreePath"): run for run in history.read_tail(paths.history_file(root), TAIL)}
    for folder in worktree.ours(project, Path(patient.context.paths.worktrees)):
        run = runs.get(str(folder))
        if str(folder) in owned or (run is not None and run["status"] == "running"):
            continue
        if run is not None:
            text = f"{folder} stays: what its run left could not all be saved"
            mend = f"'show {run['id'][:8]}' says why, 'discard {run['id'][:8]}' drops it"
        else:
            text = f"{folder} stands, and no run of it is known"
            mend = f"look at it, then: git -C '{root}' worktree remove '{folder}'"
        yield Found(Finding("warn", "worktrees", text, mend))


def trash(patient: Patient) -> Iterator[Found]:
    """Folders of removed worktrees that were not deleted yet."""
    where = patient.context.paths
    left = worktree.in_trash(Path(where.worktrees))
    if left and patient.runner is None:

        def empty() -> str:
            complaints = aftermath.empty_trash(where)
            return "; ".join(complaints) or f"{fmt.count(len(left), 'folder')} deleted"

        text = f"{fmt.count(len(left), 'removed worktree')} not deleted yet"
        yield Found(Finding("warn", "worktrees", text, "'doctor --fix', or 'start'"), empty)


def ref_locks(patient: Patient, root: str) -> Iterator[Found]:
    """Locks of our own refs that a killed git left: no git command clears them."""
    project = patient.project(root)
    heads = project.common_dir / "refs" / "heads"
    found = [lock for lock in heads.rglob("*.lock") if is_run_branch(str(lock.relative_to(heads))[: -len(".lock")])]
    found += (project.common_dir / "refs" / "claude-scheduler").rglob("*.lock")
    now = patient.context.now.timestamp()
    for lock in found:
        if now - lock.stat().st_mtime < LOCK_AGE or any(row.project == root for row in _rows(patient)):
            continue

        def clear(lock: Path = lock) -> str:
            if rollback.git_at_work(project.root, project.common_dir):
                return f"{lock} stays: a git is at work there"
            lock.unlink(missing_ok=True)
            return f"{lock} is removed"

        yield Found(Finding("warn", "locks", f"a git that was killed left {lock}", "'doctor --fix'"), clear)


def branches(patient: Patient, root: str) -> Iterator[Found]:
    """Branches and private refs of runs that nobody needs any more."""
    known = history.fold(history.read_tail(paths.history_file(root), TAIL))
    by_start = {run["id"][:8]: run for run in known}  # how branches name their run
    project = patient.project(root)
    left = leftovers.of_repository(project, lambda run_id: by_start.get(run_id[:8]), patient.context.now)
    if left:
        text = f"{root}: {len(left)} branches and private refs no longer needed; 'prune' removes them"
        yield Found(Finding("ok", "branches", text))
    parsed = patient.config(root)
    days = (ProjectSettings() if parsed is None else parsed.settings).history_days

    def recorded(run_id: str) -> Run | None:
        return by_start.get(run_id[:8]) or search.known(patient.context.paths, paths.history_file(root), run_id)

    unknown = leftovers.of_unknown_runs(project, recorded, patient.context.now - timedelta(days=days))
    if unknown:
        what = fmt.count(len(unknown), "private ref or branch", "private refs or branches")
        text = f"{root}: {what} of runs that no record tells of, so history was lost: {', '.join(unknown[:3])}"
        mend = f"look at their work: git -C {shlex.quote(root)} log {unknown[0]}"
        yield Found(Finding("warn", "branches", text, mend))


def _rows(patient: Patient) -> list[RunRow]:
    return _with_state(patient, lambda state: state.runs(), [])


def _with_state(patient: Patient, look: Callable[[State], T], nothing: T) -> T:
    if not os.path.exists(patient.context.paths.state_db):
        return nothing
    state = State(patient.context.paths.state_db, patient.context.now)
    try:
        return look(state)
    finally:
        state.close()


def _under_way(patient: Patient) -> list[dict[str, Any]]:
    runner = patient.runner or {}
    return [one for part in ("running", "queued", "waiting") for one in runner.get(part, ())]


def _fail(name: str, error: SchedulerError) -> Finding:
    return Finding("fail", name, error.message, error.hint)
