"""The dead-man's switch at SessionStart: what came due and did not run, since when, and why. Pure.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

from scheduler.hooks.greeting import is_suspended, moment, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LATE = 90  # s: what came due and is younger may be under way
_DUE = 10  # so many moments a glance holds at most
_WHY = {
    "no-runner": "no runner was at work",
    "hung": "the runner was stopped or held up",
    "unwritten": "the state could not be written",
    "asleep": "the machine was asleep",
    "behind": "its runner has not got to them",
    "untrusted": "the config is not the approved one",
    "settings": "the settings cannot be read",
    "clock": "the clock was not set",
    "paused": "paused",
    "off": "switched off",
    "budget": "a budget is used up",
    "usage-limit": "a usage limit is reached",
    "auth": "the client is not logged in",
    "credit": "there is no credit left",
}


def line(entry: Mapping[str, Any], runner: str, now: float) -> str:
    """How much came due while nothing ran, in a line; empty where that is nothing."""
    found = _neglected(entry, runner, now)
    if found is None:
        return ""
    count, since, why = found
    return f"{count} due, 0 ran since {moment(since, now)}{': ' if why else ''}{why}. /scheduler:status"


def _neglected(entry: Mapping[str, Any], runner: str, now: float) -> tuple[str, float, str] | None:
    """How much, since when, and why; None where that is nothing."""
    found = entry.get("overdue")
    known = found if isinstance(found, dict) and not number(found, "ran") else {}
    told = number(known, "due")
    # What has come since the entry was written, by the plan that it holds.
    late, held = _passed(entry.get("due"), now), _passed(entry.get("held"), now)
    count = told + len(late) + len(held)
    if not count:
        return None
    since = number(known, "since") if told else min(at for at, _ in (*late, *held))
    if runner == "off":
        cause = runner
    elif is_suspended(entry):
        cause = "untrusted"
    elif told >= max(len(late), len(held)):
        cause = str(known.get("cause"))
    elif len(late) >= len(held):
        cause = "behind" if runner == "alive" else "no-runner"
    else:
        cause = str(held[0][1])
    return f"{count:.0f}{'+' if max(len(late), len(held)) >= _DUE else ''}", since, _WHY.get(cause, "")


def _passed(plan: object, now: float) -> list[tuple[float, object]]:
    """What of a plan has come and is late: moments, or moments with what kept it from starting."""
    found = []
    for one in plan if isinstance(plan, list) else []:
        at, why = one if isinstance(one, list) and len(one) == 2 else (one, None)
        if isinstance(at, (int, float)) and 0 < at <= now - LATE:
            found.append((at, why))
    return found
