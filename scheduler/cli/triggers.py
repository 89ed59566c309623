"""The options that say when a task runs, and the trigger that they describe."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any, NamedTuple

import click

from scheduler.cli.context import F
from scheduler.cli.fields import as_usage, duration, put
from scheduler.core.cron import check_cron
from scheduler.core.models import iso
from scheduler.core.when import parse_past, parse_when
from scheduler.core.zones import zone_of
from scheduler.errors import SchedulerError, UsageError


class When(NamedTuple):
    """What was said about when; None where nothing was."""

    cron: str | None
    at: str | None
    every: int | str | None
    since: str | None
    timezone: str | None

    @classmethod
    def taken_from(cls, given: dict[str, Any]) -> When:
        """The options of `trigger_options`, taken out of `given`."""
        return cls(**{name: given.pop(name) for name in cls._fields})


def trigger_options(command: F) -> F:
    """`--cron`, `--at`, `--every`, `--from`, `--timezone`, as the names of `When`."""
    for option in (
        click.option("--timezone", metavar="ZONE", help="The zone of its times; default: the local one, by its name."),
        click.option("--from", "since", metavar="WHEN", help="When an interval begins; default: now."),
        click.option("--every", metavar="D", type=duration, help="Run at this interval: 4h."),
        click.option("--at", metavar="WHEN", help="Run once: 'tomorrow 09:00', 'in 2h', an ISO 8601 time."),
        click.option("--cron", metavar="EXPR", help="Run by the clock: '0 2 * * 1-5'."),
    ):
        command = option(command)
    return command


def new_trigger(when: When, now: datetime, old: object = None) -> dict[str, Any] | None:
    """The trigger that --cron, --at or --every describes, as JSON; None when none of them is given.

    Another expression in the place of an `old` one keeps its zone, unless another is given.
    """
    if sum(value is not None for value in (when.cron, when.at, when.every)) > 1:
        raise UsageError("a task has one trigger", "give one of --cron, --at and --every")
    if when.since is not None and (when.cron is not None or when.at is not None):
        raise UsageError("--from is for intervals", "give it together with --every")
    if when.cron is not None:
        as_usage(check_cron, when.cron)
        as_usage(zone_of, when.timezone)
        before = old.get("timezone") if isinstance(old, dict) else None
        return {"type": "cron", "expression": when.cron, "timezone": when.timezone or before or local_zone()}
    if when.at is not None:
        moment = moment_of(when.at, when.timezone, now)
        if moment <= now:
            raise UsageError(f"{when.at!r:.60} is in the past ({iso(moment)})", "give a moment that comes")
        return {"type": "once", "at": moment.isoformat()}
    if when.every is not None:
        if when.timezone is not None and when.since is None:
            raise UsageError("--timezone says nothing of an interval", "give it together with --cron, --at or --from")
        begin = {} if when.since is None else {"from": moment_of(when.since, when.timezone, now).isoformat()}
        return {"type": "interval", "every": when.every, **begin}
    return None


def adjust_trigger(entry: dict[str, Any], when: When, now: datetime) -> None:
    """Give the raw task's own trigger another zone, if it is a cron's, or another beginning, if it is an interval's."""
    trigger = entry.get("trigger")
    kind = trigger.get("type") if isinstance(trigger, dict) else None
    if when.since is not None:
        if kind != "interval":
            raise UsageError("--from is for intervals", "give it together with --every")
        put(entry, ("trigger", "from"), moment_of(when.since, when.timezone, now).isoformat())
    elif when.timezone is not None:
        if kind != "cron":
            raise UsageError("--timezone is for cron expressions", "give it together with --cron, --at or --from")
        as_usage(zone_of, when.timezone)
        put(entry, ("trigger", "timezone"), when.timezone)


def moment_of(text: str, timezone: str | None, now: datetime) -> datetime:
    """The moment that was typed, by the clock of a zone (None: the local one). UsageError when it is none."""
    zone: tzinfo = as_usage(zone_of, timezone or local_zone())
    moment: datetime = as_usage(parse_when, text, now, zone)
    return moment


def past_moment(text: str, now: datetime) -> datetime:
    """The moment that was typed of those that were, by the local clock. UsageError when it is none."""
    zone = as_usage(zone_of, local_zone())
    moment: datetime = as_usage(parse_past, text, now, zone)
    return moment


def local_zone() -> str:
    """The IANA name of the local zone: a name is stored, for offsets change."""
    import tzlocal

    try:
        name = tzlocal.get_localzone_name()
        zone_of(name)
        return name
    except (SchedulerError, LookupError, ValueError, OSError) as error:
        said = f"the local time zone has no name: {error!s:.80}"
        raise UsageError(said, "give one: --timezone Europe/Berlin") from None
