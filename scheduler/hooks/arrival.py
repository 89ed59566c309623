"""What SessionStart does: says how things stand, and sees to it that an enabled project has a runner.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import errno
import os

import scheduler
from scheduler.disk import files, glance, switch
from scheduler.disk.paths import Paths
from scheduler.hooks import greeting, neglect, place, seen, tasks, wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

REFRESH_AGAIN = 600  # s
REFRESHED = 120  # s after which an update is through, as a rule


def answer(event: dict[str, Any], env: Mapping[str, str], now: float) -> dict[str, Any] | None:
    """What the client is told at the start of a session; None inside a scheduled run and where there are no tasks."""
    where = None if env.get("SCHEDULER_RUN_ID") else place.of_event(event, env)
    if where is None:
        return None
    paths = Paths(env)
    known = glance.read(paths.glance, where.project) or {}
    entry = known.get("projects", {}).get(where.project, {})
    goes_on = event.get("source") in ("clear", "compact")
    if not entry.get("enabled"):
        waiting, _ = tasks.wanted(where.project)
        said = greeting.offer(waiting, set_up=wake.runtime(paths) is not None)
        return {"systemMessage": said} if waiting and not goes_on else None
    return _enabled(event, env, now, paths, where.project, known)


def _enabled(
    event: Mapping[str, Any], env: Mapping[str, str], now: float, paths: Paths, project: str, known: Mapping[str, Any]
) -> dict[str, Any] | None:
    before = seen.load(paths, project)
    after = dict(before)
    off = switch.look(paths.off_switch, now)
    runner, update = _see_to_runner(paths, env, known, after, now) if off is None else ("off", "")
    entry = _as_it_is(known["projects"][project], project)
    runs = [run for run in greeting.recent(entry) if run["run"] not in seen.shown(before)]
    more = len(runs) >= glance.RECENT  # and none of them was told of: there may have been others before
    lines = [greeting.news(runs, greeting.number(before, "at"), now, more=more)]
    approved = _approved(entry, greeting.number(before, "at"), now)
    goes_on = event.get("source") in ("clear", "compact")
    if goes_on:  # only what is new
        lines = [approved, *lines, *(greeting.matters(entry, now) if lines[0] else [])]
    else:
        left = greeting.reminder(greeting.number(before, "waiting"), greeting.number(before, "reminded"), now)
        late = neglect.line(entry, runner, now)
        first = [] if off is None else [greeting.switched_off(off.since, switch.mend(paths.off_switch), now)]
        if off is None or greeting.is_suspended(entry):
            first.append(greeting.state(entry, runner, now))
        lines = [*first, late, approved, *lines, update, *greeting.matters(entry, now), left]
    lines = greeting.fit([line for line in lines if line])
    if not env.get("CLAUDE_CODE_ENTRYPOINT", "").startswith("sdk"):  # with -p nobody sees it
        after.update(at=now, shown=[run["run"] for run in greeting.recent(entry)])
        if not goes_on:
            after.pop("waiting", None)
    if after != before:
        seen.save(paths, project, after, before)
    if not entry.get("active") and len(lines) < 2 and not greeting.is_suspended(entry):
        return None
    context = greeting.context(entry, runs, now, off=off is not None)
    reply: dict[str, Any] = {"hookSpecificOutput": {"hookEventName": "SessionStart", "additionalContext": context}}
    return {"systemMessage": "\n".join(lines), **reply} if lines else reply


def _approved(entry: Mapping[str, Any], since: float, now: float) -> str:
    """A line on who approved what since then; empty where nobody did."""
    if not entry.get("approvals"):
        return ""
    from scheduler.hooks import approvals  # mostly there is none, and its import is spared

    return approvals.line(entry, since, now)


def _as_it_is(entry: Mapping[str, Any], project: str) -> Mapping[str, Any]:
    """The entry; suspended if the config on disk is none that was approved, which a living runner sees in a second."""
    approved = entry.get("approved")
    if greeting.is_suspended(entry) or not isinstance(approved, list) or entry.get("stamp") == glance.stamp(project):
        return entry
    try:
        found = tasks.digest(project)[:16]
    except (OSError, ValueError):
        return {**entry, "suspended": "its config cannot be read"}
    return entry if found in approved else {**entry, "trusted": False}


def _see_to_runner(
    paths: Paths, env: Mapping[str, str], known: Mapping[str, Any], memory: dict[str, Any], now: float
) -> tuple[str, str]:
    """Start a runner where none lives, a set-up where the plugin is newer. The runner's state, a line on what is
    special about that."""
    found = wake.runtime(paths)
    usable = found is not None and found.usable
    state = "alive"
    if not wake.is_alive(paths):
        woken = greeting.number(memory, "woken")
        # A runner that comes up writes the glance within a second.
        failed = woken and now - woken > 10 and greeting.number(known, "writtenAt") < woken
        state = "missing" if not usable else "failed" if failed else "starting"
        if found is not None and usable:
            why = _unwritable(paths.state)
            if why:
                return "unwritable", f"The scheduler cannot write {paths.state}: {why}."
            wake.start(found, env, paths.runner_log)
            memory["woken"] = now
    if found is None or not usable:
        return state, ""
    running = known.get("runner") if state == "alive" else None
    versions = [found.version, *([str(running.get("version"))] if isinstance(running, dict) else [])]
    if not any(_is_newer(scheduler.__version__, version) for version in versions):
        return state, ""
    since = now - greeting.number(memory, "refreshed")
    if since > REFRESH_AGAIN:
        memory["refreshed"] = now
        wake.refresh(_root(), env, paths.hooks_log)
    elif since > REFRESHED:
        said = f"The update to {scheduler.__version__} is not through: it waits for runs to end, or failed"
        return state, f"{said} ({paths.hooks_log}). It is tried again."
    return state, f"Updating the scheduler to {scheduler.__version__} in the background."


def _unwritable(folder: str) -> str:
    """Why a runner could not keep its state there; empty where it can."""
    try:
        files.make_folder(folder)
    except OSError as error:
        return str(error.strerror)
    if os.access(folder, os.W_OK):
        return ""
    return os.strerror(errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES)


def _is_newer(one: str, other: str) -> bool:
    try:
        return [int(part) for part in one.split(".")] > [int(part) for part in other.split(".")]
    except ValueError:
        return False


def _root() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(scheduler.__file__)))
