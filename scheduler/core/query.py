"""What may be asked of a history: which runs, and in which order. Pure; runs are records as they were read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from scheduler.core.when import from_iso

Run = dict[str, Any]
NUMBERS = (int, float)
LARGEST = 1e15  # of a number in a record: what passes it no run can have, and its sum would be no number


@dataclass(frozen=True)
class Kind:
    """What filters look at, but for the time: the same for many runs."""

    project: str
    task: str
    status: str
    reason: str | None
    tags: tuple[str, ...]

    @classmethod
    def of(cls, run: Run) -> Kind:
        """The kind of a run."""
        tags = run.get("tags")
        reason = run.get("reason")
        return cls(
            run["project"],
            run["taskId"],
            run["status"],
            reason if isinstance(reason, str) else None,
            tuple(map(str, tags)) if isinstance(tags, list) else (),
        )


@dataclass(frozen=True)
class Query:
    """Which runs: every part that is given must fit. `since` and `until` are milliseconds since 1970, of the start.

    Of `statuses`, `reasons` one must fit, of `tags` each; `limit` None stands for all.
    """

    task: str | None = None
    statuses: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    project: str | None = None
    tags: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    limit: int | None = None

    def wants(self, kind: Kind) -> bool:
        """Whether runs of this kind are asked for."""
        return (
            self.task in (None, kind.task)
            and self.project in (None, kind.project)
            and (not self.statuses or kind.status in self.statuses)
            and (not self.reasons or kind.reason in self.reasons)
            and all(tag in kind.tags for tag in self.tags)
        )

    def within(self, began: int) -> bool:
        """Whether a run that began then is asked for."""
        return (self.since is None or began >= self.since) and (self.until is None or began < self.until)

    def fits(self, run: Run) -> bool:
        """Whether this run is asked for."""
        return self.wants(Kind.of(run)) and self.within(began(run["startedAt"]))


def began(text: str) -> int:
    """When a run began, of its `startedAt`: milliseconds since 1970; 0 where that is no moment that can be."""
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except (ValueError, TypeError):
        try:  # Python 3.10 knows no Z
            since = from_iso(text) - _EPOCH
        except ValueError:
            return 0
    found = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    return found if 0 < found < _END else 0


_END = 253_370_764_800_000  # the year 9999
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def day(text: str) -> int:
    """The date in a `startedAt`, as it was written there, as a number: 20261201; 0 where there is none."""
    try:
        return int(text[:4] + text[5:7] + text[8:10])
    except ValueError:
        return 0


def chosen(runs: Iterable[Run], query: Query) -> list[Run]:
    """The runs that are asked for, the latest first; of those that began together, the one that was told last."""
    found = [(began(run["startedAt"]), run) for run in runs if query.wants(Kind.of(run))]
    found = [pair for pair in found if query.within(pair[0])]
    found.reverse()
    found.sort(key=lambda pair: pair[0], reverse=True)
    return [run for _, run in found[: query.limit]]


def number(run: Run, name: str) -> float | None:
    """A field that should be a number, None where it is none that can be."""
    value = run.get(name)
    return value if value.__class__ in NUMBERS and -LARGEST < value < LARGEST else None
