"""What SessionStart says of approvals since the last session: what may run now, and who said yes to it. Pure.

Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

from scheduler.disk import paths
from scheduler.hooks.greeting import moment, number, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SHOWN = 3
_FILES = ("rules.md", "config.json")


def line(entry: Mapping[str, Any], since: float, now: float) -> str:
    """The approvals of the entry that are younger than `since` (epoch s), the newest first; empty without any."""
    told = entry.get("approvals")
    found = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    young = sorted((one for one in found if since < number(one, "at") <= now), key=lambda one: -number(one, "at"))
    if not young:
        return ""
    said = [_said(one, now) for one in young[:SHOWN]]
    more = f"; {len(young) - SHOWN} more" if len(young) > SHOWN else ""
    return f"Approved: {'; '.join(said)}{more}. Not you? /scheduler:disable"


def _said(one: Mapping[str, Any], now: float) -> str:
    by = plain(one.get("by") or "somebody", 80)
    return f"{_what(one)} by {by}, {moment(number(one, 'at'), now)}"


def _what(one: Mapping[str, Any]) -> str:
    told = one.get("what")
    names = [name for name in told if _is_sound(name)] if isinstance(told, list) else []
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "") or "the config"


def _is_sound(name: object) -> bool:
    return isinstance(name, str) and (name in _FILES or paths.is_task_id(name))
