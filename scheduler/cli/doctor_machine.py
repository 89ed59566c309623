"""doctor, the machine: set-up, clock, zones, disks, file systems, locks, the runner and its service."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import zoneinfo
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from scheduler import __version__
from scheduler.cli.patient import Check, Found, Patient, holders
from scheduler.cli.triggers import local_zone
from scheduler.core import health
from scheduler.core.health import Finding
from scheduler.disk import files, glance
from scheduler.errors import SchedulerError
from scheduler.execution import process
from scheduler.execution.environment import DEFAULT_PATH
from scheduler.runner import service, space
from scheduler.store import history

TAIL = 1 << 18
ASK = 5.0  # seconds for a program that answers at once


def checks(patient: Patient) -> Iterator[Check]:
    """The checks of the machine."""
    looks = (set_up, runner, services, clock, zone, disk, file_system, locks)
    for look in looks:
        yield Check(look.__name__.replace("_", " "), partial(look, patient))


def set_up(patient: Patient) -> Iterator[Found]:
    """The program, and the interpreter that hooks use."""
    file = patient.context.paths.runtime
    try:
        base, python, package, version = os.fsdecode(files.read_bounded(file, 16384)).splitlines()[:4]
    except FileNotFoundError:
        text = "scripts/scheduler has set up nothing here: hooks look for a python3 in their PATH"
        yield Found(Finding("ok" if _has_python(patient) else "warn", "set-up", text))
    except (OSError, ValueError):
        yield Found(Finding("warn", "set-up", f"{file} is damaged", "call scripts/scheduler, which writes it anew"))
    else:
        gone = [path for path in (base, python) if not os.access(path, os.X_OK)]
        gone += [] if os.path.isfile(os.path.join(package, "__main__.py")) else [package]
        if gone:
            yield Found(
                Finding("fail", "set-up", f"gone: {', '.join(gone)}", "call scripts/scheduler: it sets up anew")
            )
        else:
            yield Found(Finding("ok", "set-up", f"version {version}; hooks run by {base}"))
    if shutil.which("jq", path=patient.context.env.get("PATH")) is None:
        yield Found(Finding("warn", "jq", "is not in the PATH: 'history --jq' needs it", "install jq"))


def _has_python(patient: Patient) -> bool:
    return shutil.which("python3", path=patient.context.env.get("PATH")) is not None


def runner(patient: Patient) -> Iterator[Found]:
    """Whether it is at work, and is of this version."""
    where, found = patient.context.paths, patient.runner
    served = sum(project.enabled for project in patient.known.values())
    if patient.problem is not None:
        mend = patient.problem.hint or f"see {where.runner_log}"
        yield Found(Finding("fail", "runner", patient.problem.message, mend))
    elif found is None:
        text = "none is at work"
        yield Found(Finding("warn", "runner", f"{text}, so nothing runs", "'start'") if served else _ok("runner", text))
        told = glance.read(where.glance)
        if told is not None and told.get("runner") is not None:
            said = Finding(
                "warn", "glance", "it tells the hooks of a runner that is gone", "'doctor --fix', or 'start'"
            )
            yield Found(said, lambda: _without_runner(where.glance))
    else:
        by = found.get("startedBy") or "hand"
        yield Found(_ok("runner", f"pid {found['pid']}, version {found['version']}, started by {by}"))
        if found["version"] != __version__:
            text = f"it is of version {found['version']}, this is {__version__}"
            yield Found(Finding("warn", "runner", text, "'restart', which waits for what runs"))
        if found["stopping"]:
            yield Found(
                Finding("warn", "runner", "it is stopping: it starts nothing any more", "'start' when it is gone")
            )


def _without_runner(path: str) -> str:
    glance.update(path, None, None, runner=None)
    return "the glance tells of no runner any more"


def services(patient: Patient) -> Iterator[Found]:
    """The operating system's service."""
    context = patient.context
    mine = service.of(context.paths, context.env)
    if not mine.installed:
        yield Found(_ok("service", "none is installed; 'service install' keeps the runner alive over reboots"))
        return
    found = mine.look()
    again = "'service install'"
    if found.problem is not None:
        yield Found(
            Finding("warn", "service", f"{mine.manager} does not answer: {found.problem}", "log in as this user")
        )
    elif not found.enabled:
        yield Found(Finding("warn", "service", "it is not started at log-in", again))
    elif not found.active and patient.runner is None:
        yield Found(Finding("warn", "service", "it is installed, and stopped", "'start'"))
    else:
        yield Found(_ok("service", f"installed ({mine.manager})"))
    if not mine.is_current(service.launcher(context.paths, context.env, ())[0]):
        yield Found(Finding("warn", "service", "its files are not those of this version", again))
    if mine.lingers() is False:
        yield Found(Finding("warn", "service", "it ends when you log out", "loginctl enable-linger"))


def clock(patient: Patient) -> Iterator[Found]:
    """Whether the clock can be right, by what it said before."""
    context, latest, what = patient.context, None, ""
    ends = [(run.get("completedAt") or run["startedAt"], "a record") for run in _tail(context.paths.global_history)]
    told = glance.read(context.paths.glance)
    written = told.get("writtenAt") if told is not None else None
    if isinstance(written, (int, float)):
        ends.append((datetime.fromtimestamp(written, context.now.tzinfo).isoformat(), "glance.json"))
    for text, name in ends:
        try:
            moment = datetime.fromisoformat(text)
        except (ValueError, TypeError):
            continue
        if moment.tzinfo is not None and (latest is None or moment > latest):
            latest, what = moment, name
    yield Found(health.clock(context.now, latest, what))


def _tail(path: str) -> list[dict[str, str]]:
    return list(history.read_tail(path, TAIL))


def zone(patient: Patient) -> Iterator[Found]:
    """The system's zone, and that zones have data at all. Those of tasks are checked with the configs."""
    name, problem = None, ""
    try:
        name = local_zone()
    except SchedulerError as error:
        problem = error.message
    yield Found(health.zone(name, problem, bool(zoneinfo.available_timezones())))
    theirs, ours = patient.env.get("TZ"), patient.context.env.get("TZ")
    if patient.runner is not None and theirs != ours:
        text = f"the runner's TZ is {theirs or 'not set'}, yours is {ours or 'not set'}"
        yield Found(Finding("warn", "time zone", text, "'restart', if yours is the right one"))


def _places(patient: Patient) -> dict[str, str]:
    where = patient.context.paths
    names = {"the state": where.state, "worktrees": where.worktrees, "the program": where.cache}
    names |= {f"the project {os.path.basename(root)}": root for root in patient.roots}
    return {name: os.path.realpath(space.existing(path)) for name, path in names.items()}


def disk(patient: Patient) -> Iterator[Found]:
    """Room, once for each disk unless it is short."""
    seen = set()
    for name, path in _places(patient).items():
        info = os.statvfs(path)
        device = os.stat(path).st_dev
        if info.f_blocks and device not in seen:
            seen.add(device)
            free = info.f_bavail * info.f_frsize
            yield Found(health.disk(name, path, free, info.f_favail if info.f_files else None, space.FLOOR))


def file_system(patient: Patient) -> Iterator[Found]:
    """Whether any of it is on the network."""
    known = health.mounts(_mounts())
    found = {name: health.file_system(name, path, known) for name, path in _places(patient).items()}
    bad = [finding for finding in found.values() if finding.level != "ok"]
    if bad:
        yield from map(Found, bad)
    else:
        kinds = sorted({finding.text.partition(": ")[2] for finding in found.values()})
        yield Found(_ok("file system", f"local ({', '.join(kinds)})"))


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        done = process.run(["mount"], env={"PATH": f"{DEFAULT_PATH}:/sbin", "LC_ALL": "C"}, timeout=ASK)
        return os.fsdecode(done.stdout)


def locks(patient: Patient) -> Iterator[Found]:
    """Whether a lock keeps a second one out, who holds the runner's, and what a killed git left in the checkouts."""
    where = patient.context.paths
    folder = where.state if os.path.isdir(where.state) else tempfile.gettempdir()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(file.name, "rb") as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            problem = "a second lock was given on a file that is locked"
        except BlockingIOError:
            problem = ""
        except OSError as error:
            problem = f"locks do not work there: {error.strerror}"
    if problem:
        yield Found(Finding("fail", "locks", f"{folder}: {problem}", "keep the state on a local disk (SCHEDULER_HOME)"))
    pids = holders(where.runner_lock)
    living = patient.runner["pid"] if patient.runner else None
    strangers = [pid for pid in pids if pid != living]
    if strangers and living is None and patient.problem is None:
        text = f"process {strangers[0]} holds the runner's lock and answers nobody: no other can start"
        yield Found(Finding("fail", "locks", text, f"look at {where.runner_log}, then: kill {strangers[0]}"))
    elif not problem:
        held = f"; the runner's is held by process {living}" if living in pids else ""
        yield Found(_ok("locks", f"keep a second one out{held}"))
    for root in patient.roots:
        yield from map(Found, _git_locks(patient, root))


def _git_locks(patient: Patient, root: str) -> Iterator[Finding]:
    folder = patient.project(root).common_dir
    for lock in (folder / f"{name}.lock" for name in ("index", "HEAD", "config", "packed-refs", "shallow")):
        try:
            age = patient.context.now.timestamp() - lock.stat().st_mtime
        except OSError:
            continue
        if age > health.STALE_LOCK:
            text = f"a git that was killed left {lock}: your own git commands fail at it"
            yield Finding("warn", "locks", text, f"if no git is at work there: rm '{lock}' (we never remove it)")


def _ok(name: str, text: str) -> Finding:
    return Finding("ok", name, text)
