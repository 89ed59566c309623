"""The words of SessionStart: for the user at most six lines, for the model at most sixty words. Pure.

All that is said comes from glance.json and is checked here: ids have their closed form, other text is made plain.
Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

import time

from scheduler.disk import glance, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Items = list[Mapping[str, Any]]

LINES = 6
WORDS = 60
TAG = "[claude-scheduler]"
_REACH = 7 * 86400  # s: a glance knows of no run that ended earlier
_HEX = frozenset("0123456789abcdef")


def offer(tasks: int, *, set_up: bool) -> str:
    """For a project that has tasks and is not enabled."""
    what = f"{_count(tasks, 'task')} here {'is' if tasks == 1 else 'are'} not enabled"
    verbs = "shows what would run and turns it on" if set_up else "sets it up, shows what would run and turns it on"
    return f"Scheduler: {what}. /scheduler:enable {verbs}."


def state(entry: Mapping[str, Any], runner: str, now: float) -> str:
    """The first line. `runner`: `alive`, `starting`, `failed` (did not come up last time), `missing` (no set-up),
    `unwritable` (its folder cannot be written) or `off` (the off switch is thrown)."""
    if is_suspended(entry):
        why = plain(entry.get("suspended") or "its config is not the one that was approved", 160)
        verb = "status says more" if entry.get("trusted") else "enable shows what changed"
        return f"Scheduler: suspended, {why}. /scheduler:{verb}."
    parts = [f"{_count(number(entry, 'active'), 'task')} active"]
    for item in coming(entry):
        at = number(item, "at")
        parts.append(f"next {item['task']} {when(at, now)}" if at > now else f"{item['task']} is due")
    if runner == "alive":
        running = number(entry, "running")
        paused = any(item.get("kind") == "paused" and not item.get("task") for item in _open(entry, now))
        on = "paused" if paused else "on"
        return ", ".join([f"Scheduler: {on}", *parts, *([f"{running:.0f} running now"] if running else [])])
    how = {
        "starting": "its runner was not running and is being started.",
        "failed": "its runner did not come up last time and is being started again: /scheduler:status.",
        "missing": "its set-up is gone: /scheduler:status makes it again.",
        "unwritable": "nothing runs.",
        "off": "nothing starts.",
    }[runner]
    return f"Scheduler: {', '.join(parts)}; {how}"


def switched_off(since: float, mend: str, now: float) -> str:
    """The first line where the off switch is thrown."""
    return f"Scheduler: SWITCHED OFF since {moment(since, now)}, nothing starts in any project: {plain(mend, 300)}"


def is_suspended(entry: Mapping[str, Any]) -> bool:
    """Whether nothing of the project runs, though it is enabled."""
    return not entry.get("trusted") or bool(entry.get("suspended"))


def fit(lines: list[str]) -> list[str]:
    """At most LINES: what does not fit shares the last one, each with its first sentence."""
    if len(lines) <= LINES:
        return lines
    rest = [line.partition(". ")[0].rstrip(".") for line in lines[LINES - 1 :]]
    return [*lines[: LINES - 1], f"{'; '.join(rest)}. /scheduler:status"]


def news(runs: Items, since: float, now: float, *, more: bool = False) -> str:
    """What ran, as a line; empty where nothing did. `more`: these are the last of them."""
    plus = "+" if more else ""
    good = [run for run in runs if run.get("status") == "success"]
    bad = [run for run in runs if run.get("status") in ("failure", "timeout")]
    parts = [f"{len(good)}{plus} {'run' if len(good) == 1 else 'runs'} ok ({_names(good)})"] if good else []
    parts += [f"{len(bad)}{plus} failed ({_names(bad)})"] if bad else []
    cost = sum(number(run, "costUsd") for run in runs)
    if cost >= 0.005:
        parts.append(f"${cost:.2f}{plus}")
    start = f"Since {moment(since, now)}" if since and now - since < _REACH else "Lately"
    return f"{start}: {', '.join(parts)}" if good or bad else ""


_LOUD = {"containment": "CHANGED YOUR CHECKOUT", "self-edit": "CHANGED WHAT DECIDES OVER RUNS"}


def matters(entry: Mapping[str, Any], now: float) -> list[str]:
    """What needs a person: one line for each kind, and before them what keeps tasks from running."""
    by_kind: dict[str, Items] = {}
    opened = _open(entry, now)
    for item in opened:
        if item.get("run") and item.get("task"):
            by_kind.setdefault(str(item.get("kind")), []).append(item)
    alarms, lines = [], []
    failed = by_kind.get("failed", [])
    for loud, what in _LOUD.items():
        runs = [item for item in failed if item.get("loud") == loud]
        alarms += [f"{what}: {_runs(runs)}. /scheduler:status"] if runs else []
    failed = [item for item in failed if str(item.get("loud")) not in _LOUD]
    if failed:
        task = failed[0]["task"] if len(failed) == 1 else "TASK"
        saved = [item for item in failed if item.get("work") is not False]
        run = saved[0]["run"] if len(saved) == 1 else "RUN"
        keep = f". Keep its work: /scheduler:adopt {run}" if saved else ""
        lines.append(f"Failed: {_runs(failed)}. Why: /scheduler:logs {task}{keep}")
    review = by_kind.get("review")
    if review:
        lines.append(f"To review: {_branches(entry, review)}, {_runs(review)}. /scheduler:status")
    return [*alarms, *_held(opened, now), *lines, *_rest(opened, by_kind)]


def _held(items: Items, now: float) -> Iterator[str]:
    limits = [item for item in items if item.get("kind") == "usage-limit"]
    if limits:
        until = max(number(item, "until") for item in limits)
        which = _names(item for item in limits if item.get("task")) or "all claude tasks"
        end = f" until {moment(until, now)}" if until else ""
        yield f"Waiting for the usage limit{end}: {which}. /scheduler:status"
    kinds = {str(item.get("kind")) for item in items}
    if "auth" in kinds:
        yield "Claude tasks wait for a login: /login here, then they go on by themselves."
    if "credit" in kinds:
        yield "Claude tasks wait for credit. When there is some: /scheduler:resume"
    paused = [item for item in items if item.get("kind") == "paused"]
    if paused:
        tasks = list(dict.fromkeys(str(item["task"]) for item in paused if item.get("task")))
        whole = not all(item.get("task") for item in paused)
        names = (["this project"] if whole else []) + tasks
        verb = "/scheduler:resume" + ("" if whole else f" {tasks[0] if len(tasks) == 1 else 'TASK'}")
        yield f"Paused: {_some(names)}. {verb}"


def _rest(opened: Items, by_kind: Mapping[str, Items]) -> list[str]:
    rest = []
    if any(item.get("kind") == "budget" for item in opened):
        rest.append("a budget of the day is used up")
    if "waiting" in by_kind:
        rest.append(f"waiting to go on: {_names(by_kind['waiting'])}")
    if "kept-worktree" in by_kind:
        rest.append(f"a worktree that stays: {_runs(by_kind['kept-worktree'])}")
    if any(item.get("kind") == "config" for item in opened):
        rest.append("a task with an error in its config")
    return [f"Also: {'; '.join(rest)}. /scheduler:status"] if rest else []


def reminder(waiting: float, at: float, now: float) -> str:
    """What SessionEnd could not say aloud."""
    them = "it" if waiting == 1 else "them"
    return f"When you left ({moment(at, now)}), {_count(waiting, 'task')} had nobody to run {them}." if waiting else ""


def context(entry: Mapping[str, Any], runs: Items, now: float, *, off: bool = False) -> str:
    """Facts for the model. No free text is among them."""
    if is_suspended(entry):
        return f"{TAG} This project has scheduled tasks; they are suspended until the user looks at /scheduler:status."
    said = [f"{TAG} This project has {_count(number(entry, 'active'), 'active scheduled task')}."]
    said += ["The user switched the scheduler off: nothing starts."] if off else []
    for item in [] if off else coming(entry):
        clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(number(item, "at")))
        said.append(f"Next: {item['task']}, {clock}.")
    bad = [run for run in runs if run.get("status") in ("failure", "timeout")]
    if bad:
        said.append(f"Failed since the last session: {_names(bad)}.")
    kinds = [str(item.get("kind")) for item in _open(entry, now)]
    held = [kind for kind in ("paused", "usage-limit", "auth", "credit", "budget") if kind in kinds]
    if held:
        said.append(f"Held back at present: {', '.join(held)}.")
    review = [item for item in _items(entry, "open") if item.get("kind") == "review"]
    if review:
        said.append(f"{_branches(entry, review)} of finished runs not merged yet.")
    said.append("The user sees more with /scheduler:status.")
    return " ".join(" ".join(said).split()[:WORDS])


def recent(entry: Mapping[str, Any]) -> Items:
    """The ended runs that the glance knows, each with a valid task and run."""
    return _whole(entry, "recent")


def coming(entry: Mapping[str, Any]) -> Items:
    """The next occurrence, if one is known."""
    return [item for item in _items(entry, "next") if item.get("task")][:1]


def _open(entry: Mapping[str, Any], now: float) -> Items:
    """The open matters without what has ended since they were written; a run whose usage limit has waits to go on."""
    found = []
    for item in _items(entry, "open"):
        if not 0 < number(item, "until") <= now:
            found.append(item)
        elif item.get("kind") == "usage-limit" and item.get("task"):
            found.append({**item, "kind": "waiting"})
    return found


def number(item: Mapping[str, Any], name: str) -> float:
    """A number of the item that can be a count, a cost or a moment; else 0."""
    value = item.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2e11 else 0


def plain(text: object, limit: int) -> str:
    """Text as one line of printable characters: no controls, no marks that turn the direction of writing."""
    kept = "".join(char if char.isprintable() else " " for char in str(text))
    return " ".join(kept.split())[:limit]


def moment(at: float, now: float) -> str:
    """A moment as people say it: 18:02, Fri 18:02, 2026-11-20 18:02."""
    then, today = time.localtime(at), time.localtime(now)
    if then[:3] == today[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%a %H:%M" if abs(at - now) < 6 * 86400 else "%Y-%m-%d %H:%M", then)


def when(at: float, now: float) -> str:
    """A coming moment, with the time until then where that is short."""
    minutes = round((at - now) / 60)
    if minutes < 90:
        return f"at {moment(at, now)} (in {max(minutes, 1)} min)"
    return f"at {moment(at, now)}" + (f" (in {round(minutes / 60)} h)" if minutes < 36 * 60 else "")


def _items(entry: Mapping[str, Any], name: str) -> Items:
    found = entry.get(name)
    return [item for item in found if _is_sound(item)] if isinstance(found, list) else []


def _whole(entry: Mapping[str, Any], name: str) -> Items:
    return [item for item in _items(entry, name) if item.get("run") and item.get("task")]


def _is_sound(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    task, run = item.get("task"), item.get("run")
    sound_task = task is None or (isinstance(task, str) and paths.is_task_id(task))
    return sound_task and (run is None or (isinstance(run, str) and len(run) == 8 and _HEX.issuperset(run)))


def _names(items: Iterable[Mapping[str, Any]]) -> str:
    return _some(list(dict.fromkeys(str(item.get("task")) for item in items)))


def _runs(items: Iterable[Mapping[str, Any]]) -> str:
    return _some([f"{item.get('task')} {item.get('run')}" for item in items])


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _branches(entry: Mapping[str, Any], review: Items) -> str:
    full = len(_items(entry, "open")) >= glance.OPEN
    return f"{len(review)}+ branches" if full else _count(len(review), "branch", "branches")


def _count(count: float, one: str, many: str = "") -> str:
    return f"{count:.0f} {one if count == 1 else many or one + 's'}"
