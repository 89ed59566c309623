"""Numbers, spans and moments as people read them. Pure: now and the zone are arguments.

For machines there is one form of a moment, `core.models.iso`; numbers go out as they are.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

_SIGNS = {"success": "✓", "failure": "✗", "timeout": "!", "skipped": "-", "running": "…"}
_DAY = 86400


def duration(seconds: float) -> str:
    """A span of time: `0.4s`, `42s`, `3m 20s`, `2h 05m`, `3d 4h`. A negative one counts as none."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m {total % 60:02}s"
    if total < _DAY:
        return f"{total // 3600}h {total % 3600 // 60:02}m"
    return f"{total // _DAY}d {total % _DAY // 3600}h"


def setting(seconds: int) -> str:
    """A span as it is written in a config, in its largest whole unit: `90s`, `30m`, `24h`, `7d`."""
    for size, unit, least in ((_DAY, "d", 2), (3600, "h", 1), (60, "m", 1)):
        if seconds % size == 0 and seconds // size >= least:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def relative(moment: datetime, now: datetime) -> str:
    """How far a moment is from now: `in 3h 20m`, `5m ago`, `now`; coarser the farther it is."""
    seconds = round((moment - now).total_seconds())
    if seconds == 0:
        return "now"
    span = _coarse(abs(seconds))
    return f"in {span}" if seconds > 0 else f"{span} ago"


def _coarse(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m"
    if seconds < _DAY:
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        return f"{hours}h {minutes:02}m" if minutes else f"{hours}h"
    days, hours = seconds // _DAY, seconds % _DAY // 3600
    if days < 14:
        return f"{days}d {hours}h" if hours else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def clock(moment: datetime, zone: tzinfo | None) -> str:
    """A moment on the wall clock of a zone (None: the system's): `Tue 2026-12-01 09:00 CET`, with seconds if any."""
    local = moment.astimezone(zone)
    time = "%H:%M:%S" if local.second else "%H:%M"
    return local.strftime(f"%a %Y-%m-%d {time} ") + _abbreviation(local)


def _abbreviation(local: datetime) -> str:
    # A zone without letters of its own is named by its offset, in several ways.
    name = local.tzname() or ""
    if name.isalpha():
        return name
    offset = local.utcoffset() or timedelta()
    minutes = abs(offset) // timedelta(minutes=1)
    return f"UTC{'-' if offset < timedelta() else '+'}{minutes // 60:02}:{minutes % 60:02}"


def size(count: int) -> str:
    """A number of bytes: `512 B`, `1.4 KB`, `10 MB` (1 KB is 1024 B)."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"


def money(usd: float) -> str:
    """An amount of US dollars: `$2.50`; less than a cent, but something, is `<$0.01`."""
    return "<$0.01" if 0 < usd < 0.01 else f"${usd:,.2f}"


def status(word: str, reason: str | None = None) -> str:
    """How a run stands, by a sign and by its word, with the reason behind: `✗ failure (verify-failed)`."""
    return f"{_SIGNS.get(word, '?')} {word}" + (f" ({reason})" if reason else "")


def count(number: int, noun: str, nouns: str = "") -> str:
    """`1 task`, `2 tasks`; `nouns` where an s does not make the plural."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
