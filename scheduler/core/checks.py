"""What a value in a config may be, beyond its type: each check gives the value back, or raises ValueError. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from scheduler.core.schedule import check_cron
from scheduler.core.variables import refused_names
from scheduler.core.zones import zone_of
from scheduler.errors import SchedulerError


def as_value_error(check: Any) -> Any:
    def checked(value: Any) -> Any:
        try:
            return check(value)
        except SchedulerError as error:
            raise ValueError(f"{error.message}; {error.hint[:1].lower()}{error.hint[1:].rstrip('.')}") from None

    return checked


def moment(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00") if value.endswith("Z") else value)
        except ValueError:
            raise ValueError(f"not an ISO 8601 time: {value[:60]!r}") from None
    if not isinstance(value, datetime):
        raise ValueError("not an ISO 8601 time")
    if value.tzinfo is None:
        raise ValueError("a time needs its offset from UTC, as in 2026-12-01T09:00:00+01:00")
    return value


def cron(value: str) -> str:
    check_cron(value)
    return value


def zone(value: str) -> str:
    zone_of(value)
    return value


def no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def branch_prefix(value: str) -> str:
    # The pattern leaves these of what git refuses in the name of a branch.
    if any(part in value for part in ("..", "//", "/.", ".lock/")):
        raise ValueError("no branch can begin like this: no '..', '//', '/.' or '.lock/'")
    return value


def link(value: str) -> str:
    if value.startswith("/") or any(part in ("", ".", "..", ".git") for part in value.rstrip("/").split("/")):
        raise ValueError("not a path inside the checkout, such as node_modules")
    return value


def env(value: dict[str, str]) -> dict[str, str]:
    refused = refused_names(value)
    if refused:
        raise ValueError(f"a task may not set {', '.join(refused)}: name it in envPass of your own settings")
    return value


def writable(value: str) -> str:
    """A place that a sandboxed task may write to."""
    if not value.startswith(("/", "~/")) or ".." in value.split("/") or not value.strip("/"):
        raise ValueError("not an absolute path, such as /srv/data or ~/.npm")
    return value
