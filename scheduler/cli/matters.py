"""What `status` says of open matters, and of the limits that the user set."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from typing import Any

from scheduler.cli import output
from scheduler.cli.context import Context
from scheduler.cli.view import kept_settings, off_hold, spent_today, user_settings
from scheduler.core import format as fmt
from scheduler.core import health
from scheduler.core.limits import quiet_until
from scheduler.core.models import iso
from scheduler.disk.switch import mend
from scheduler.errors import SchedulerError
from scheduler.store import database, settings

NAMED = 5  # so many tasks of an approval are said
_TEXTS = {
    "failed": "failed: 'show {run}', 'logs {task}' or 'retry {run}'",
    "containment": "CHANGED YOUR CHECKOUT: 'show {run}' has the list, 'diff {run}' its own work",
    "self-edit": "CHANGED WHAT DECIDES OVER RUNS: 'show {run}' has the list, 'enable' shows the difference",
    "failed-work": "failed: 'show {run}', 'diff {run}', 'adopt {run}' or 'retry {run}'",
    "review": "waits for review: 'diff {run}', then 'merge {run}' or 'discard {run}'",
    "kept-worktree": "worktree {path} stays: 'show {run}' says why, 'adopt {run}' saves it once that is mended, "
    "'discard {run}' drops all that the run left",
    "usage-limit": "waits for a usage limit to end ({by}){until}{skipped}: 'cancel {run}' gives it up",
    "usage-limit-of-others": "claude tasks wait for a usage limit to end ({by}){until}{skipped}",
    "waiting": "met a usage limit, and waits for {by} before it goes on: 'cancel {run}' gives it up",
    "auth": "claude tasks wait for a login; the client said: {by}{skipped}: run `claude`, then /login",
    "credit": "claude tasks wait for credit; the client said: {by}{skipped}: 'resume' when there is some",
    "git": "which branches wait for review is not known: {by}",
    "paused": "paused by {by} {since}{until}{skipped}: {verb}",
    "budget": "kept back by the budget of a day ({by}){until}{skipped}: 'run ID' runs a task all the same",
}


_WHY = {
    "no-runner": "no runner was at work: 'start'",
    "hung": "the runner does not answer, or did not",
    "unwritten": "the state cannot be written",
    "asleep": "the machine was asleep",
    "untrusted": "the config is not the approved one: 'enable'",
    "settings": "the settings cannot be read",
    "clock": "the clock was not set",
    "paused": "they are paused: 'resume'",
    "budget": "a budget is used up",
    "usage-limit": "a usage limit is reached",
    "auth": "the client is not logged in",
    "credit": "there is no credit left",
}


def overdue(entry: dict[str, Any], now: datetime, *, off: bool = False) -> str | None:
    """What came due in a project while nothing ran there, in a line; None where something ran, or nothing was due.
    `off`: the off switch is thrown."""
    found = entry["overdue"]
    if not found or found["ran"]:
        return None
    since = output.moment(_local(found["since"]), now)
    why = "the scheduler is switched off" if off else _WHY.get(found["cause"], found["cause"])
    return f"{found['due']} due, 0 ran since {since}: {why}"


def approvals(entry: dict[str, Any], now: datetime) -> list[str]:
    """Who approved what in a project of late, a line each, the newest first."""
    found = []
    for one in reversed(entry["approvals"]):
        what, more = one["what"][:NAMED], len(one["what"]) - NAMED
        names = ", ".join(what) + (f" and {more} more" if more > 0 else "")
        found.append(f"approved {output.moment(_local(one['at']), now)} by {one['by']}: {names or 'no task'}")
    return found


def rows(projects: list[dict[str, Any]], now: datetime) -> list[list[str]]:
    """A row for each open matter: run, task, what to do. What concerns all projects is said once."""
    found = []
    passed_over = Counter[str]()
    for entry in projects:
        passed_over.update({m["kind"]: m.get("skipped") or 0 for m in entry["open"] if m.get("scope") == "all"})
    told = set[str]()
    for entry in projects:
        for matter in entry["open"]:
            everywhere, kind = matter.get("scope") == "all", matter["kind"]
            if kind == "config" or (everywhere and kind in told):  # `status` tells what is wrong in a config, and where
                continue
            if everywhere:
                told.add(kind)
                matter = {**matter, "skipped": passed_over[kind]}
            name = "all projects" if everywhere else matter["task"] or os.path.basename(entry["root"])
            text = _TEXTS.get(_kind(matter), kind).format(**_words(matter, now))
            found.append([matter["run"] or "", name, text])
    return found


def _kind(matter: dict[str, Any]) -> str:
    if matter["kind"] == "usage-limit" and matter.get("scope") == "all":
        return "usage-limit-of-others"
    return str(matter.get("loud") or ("failed-work" if matter.get("work") else matter["kind"]))


def _words(matter: dict[str, Any], now: datetime) -> dict[str, str]:
    """What the texts name."""
    until, skipped, task = matter.get("until"), matter.get("skipped"), matter["task"]
    return {
        "run": matter["run"] or "",
        "task": task or "",
        "by": matter.get("by") or "",
        "path": matter.get("path") or "",
        "since": fmt.relative(_local(matter["at"]), now),
        "until": "" if until is None else f" until {output.moment(_local(until), now)}",
        "skipped": f", {fmt.count(skipped, 'occurrence')} passed over" if skipped else "",
        "verb": f"'resume {task}'" if task else "'resume'",
    }


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at).astimezone()


def of_the_user(context: Context) -> dict[str, Any]:
    """How the user's own limits stand now."""
    chosen = user_settings(context)
    quiet = quiet_until(chosen.quiet_hours, context.now)
    try:
        settings.read(context.paths)
        problem = None
    except SchedulerError as error:
        problem = f"{error.message}: {error.hint}"
    off = off_hold(context)
    return {
        "off": off and {"file": off.by, "since": iso(off.since)},
        "clockUnset": health.is_unset(context.now),
        "quietUntil": None if quiet is None else iso(quiet),
        "spentToday": round(sum(usd for _, _, usd in spent_today(context)), 6),
        "budgets": chosen.budgets.to_json(),
        "settingsProblem": problem,
        "settingsKept": problem is not None and kept_settings(context) is not None,
        "damaged": database.moved_aside(context.paths.state_db),
    }


def tell_standstill(context: Context) -> None:
    """Say that nothing starts at all, where that is so: the off switch is thrown, or the clock is not set."""
    off = off_hold(context)
    if off is not None:
        since = output.moment(off.since, context.now)
        output.note(f"SWITCHED OFF: nothing starts in any project since {since}\n  let it go on: {mend(off.by)}")
    if health.is_unset(context.now):
        said = health.unset_words(context.now)
        output.note(f"{said}: nothing starts until it is set\n  {health.SET_THE_CLOCK}")


def tell_limits(answer: dict[str, Any], now: datetime) -> None:
    """Say it, where there is something to say."""
    for path in answer["damaged"]:
        output.note(
            f"the state was damaged, and begun anew without its pauses: {path}\n  look at your pauses, then delete it"
        )
    if answer["settingsProblem"]:
        kept = "cannot be used, and the runner goes by those before" if answer["settingsKept"] else "are not used"
        output.note(f"the settings {kept}: {answer['settingsProblem']}")
    if answer["quietUntil"]:
        until = output.moment(datetime.fromisoformat(answer["quietUntil"]), now)
        output.say(f"quiet hours: nothing starts by itself until {until}")
    if answer["budgets"]:
        of = answer["budgets"].get("perDay")
        budget = "" if of is None else f" of {fmt.money(of)}"
        output.say(f"spent today: {fmt.money(answer['spentToday'])}{budget}")
