"""What a person sees: tables that fit the terminal, lines, JSON for programs.

On a terminal rich lays out and colours (never under NO_COLOR); anywhere else the text is plain and nothing is cut. All
text that is shown goes through `plain`: names and messages come from files and programs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from scheduler.core import format as fmt
from scheduler.core.plain import plain

if TYPE_CHECKING:
    from scheduler.core.limits import Hold
    from scheduler.core.models import CronTrigger, IntervalTrigger, OnceTrigger

_STYLES = {"✓": "green", "✗": "red", "!": "yellow", "…": "cyan", "-": "dim"}


def say(text: str = "") -> None:
    """Lines of the answer."""
    click.echo(plain(text))


def note(text: str) -> None:
    """A remark beside the answer, on standard error."""
    click.echo(plain(text), err=True)


def advise(advice: tuple[str, str] | None) -> None:
    """What stands in the way and what to do about it, beside the answer; nothing for None."""
    if advice is not None:
        note(f"{advice[0]}\n  {advice[1]}")


def say_json(value: object) -> None:
    """The answer as strict JSON in ASCII, so that no text in it reaches the terminal as it is."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrap: Sequence[str] = ()) -> None:
    """A table, without its empty columns. On a terminal the columns named in `wrap` give way where it is too narrow."""
    cells = [[" ".join(plain(cell).split()) for cell in row] for row in rows]
    full = [at for at in range(len(columns)) if any(row[at] for row in cells)]
    shown = [columns[at] for at in full]
    cells = [[row[at] for at in full] for row in cells]
    if sys.stdout.isatty():
        _rich_table(shown, cells, wrap)
    else:
        _plain_table(shown, cells)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [columns, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], wrap: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        shown.add_column(Text(name), no_wrap=name not in wrap, overflow="fold" if name in wrap else "ellipsis")
    for row in rows:
        shown.add_row(*(Text(cell, _STYLES.get(cell[:1], "") if cell[1:2] == " " else "") for cell in row))
    Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto").print(shown)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one a line, without those that are empty; further lines of a value stand below its first."""
    pairs = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        first, *more = plain(value).split("\n")
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {first}".rstrip())
        for line in more:
            click.echo(f"{' ' * width}  {line}".rstrip())


def moment(value: datetime, now: datetime) -> str:
    """A moment on the local clock, and how far it is: `Tue 2026-12-01 09:00 CET, in 3h 20m`."""
    return f"{fmt.clock(value, None)}, {fmt.relative(value, now)}"


def instant(text: str | None, now: datetime) -> str:
    """How far a moment in ISO 8601, of a record, is; nothing where it is none."""
    try:
        return fmt.relative(datetime.fromisoformat(text or ""), now)
    except (ValueError, TypeError):
        return ""


def hold(value: Hold, now: datetime) -> str:
    """A hold in words: `paused by sam 3h ago, until Tue 2026-12-01 09:00 CET, in 2d`."""
    until = "" if value.until is None else f", until {moment(value.until, now)}"
    return f"{value.words()} {fmt.relative(value.since, now)}{until}"


def trigger(value: CronTrigger | OnceTrigger | IntervalTrigger) -> str:
    """A trigger in words: `At 02:00, Monday through Friday (Europe/Berlin)`."""
    if value.type == "cron":
        return f"{_cron_words(value.expression)} ({value.timezone})"
    if value.type == "once":
        return f"Once, {fmt.clock(value.at, value.at.tzinfo)}"
    return f"Every {fmt.setting(value.every)}"


def _cron_words(expression: str) -> str:
    from cron_descriptor import Options, get_description  # type: ignore[import-untyped]

    from scheduler.core.cron import ALIASES

    options = Options()
    options.use_24hour_time_format = True
    options.locale_code = "en_US"
    try:
        return str(get_description(ALIASES.get(expression.strip().lower(), expression), options))
    except Exception:  # it reads less than the scheduler does; then the expression speaks for itself
        return expression


_DURATIONS = ("timeout", "stallTimeout", "missedWithin", "retryDelay", "every")


def fields(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The leaves of a JSON object as (path, text), for `facts`."""
    found: list[tuple[str, str]] = []
    for name, part in value.items():
        if isinstance(part, dict):
            found += fields(part, f"{prefix}{name}.")
        elif isinstance(part, list):
            found.append((prefix + name, ", ".join(map(str, part))))
        elif isinstance(part, bool):
            found.append((prefix + name, "yes" if part else "no"))
        elif name in _DURATIONS:
            found.append((prefix + name, fmt.setting(part)))
        else:
            found.append((prefix + name, str(part)))
    return found
