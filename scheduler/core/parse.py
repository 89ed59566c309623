"""A project's config from its bytes: the tasks that are right, and every error with its line, place and nearest name.

Pure. A file that is not JSON suspends the project (ConfigUnreadable); an error in a task suspends that task alone.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scheduler.core.models import (
    CONFIG_VERSION,
    CronTrigger,
    Execution,
    IntervalTrigger,
    Model,
    OnceTrigger,
    Policy,
    ProjectSettings,
    Task,
    Worktree,
    from_json,
)
from scheduler.errors import SchedulerError

Place = tuple[str | int, ...]
_TRIGGERS: dict[Any, type[Model]] = {"cron": CronTrigger, "once": OnceTrigger, "interval": IntervalTrigger}
_PARTS: dict[Place, type[Model]] = {("execution",): Execution, ("execution", "worktree"): Worktree, ("policy",): Policy}
_TOP = ("version", "settings", "tasks", "$schema")


class ConfigUnreadable(SchedulerError):
    """The config as a whole cannot be used; its project is suspended until it can."""


@dataclass(frozen=True)
class Problem:
    """One error (or, with `warning`, one remark) in a config file."""

    line: int
    place: str  # a JSON path such as `tasks[2].execution.timeout`
    message: str
    task: str | None = None  # the id of the task that it suspends, if it is known
    warning: bool = False

    def text(self, file: str) -> str:
        """One line for people: `FILE:LINE: PLACE: MESSAGE`."""
        return f"{file}:{self.line}: {self.place}: {self.message}"


@dataclass(frozen=True)
class Config:
    """What a config file says: `tasks` holds those without an error, in the file's order."""

    settings: ProjectSettings
    tasks: tuple[Task, ...]
    problems: tuple[Problem, ...]

    def task(self, task_id: str) -> Task:
        """The task of that id. SchedulerError when there is none, or when an error suspends it."""
        for task in self.tasks:
            if task.id == task_id:
                return task
        for problem in self.problems:
            if problem.task == task_id:
                raise SchedulerError(f"task {task_id} is suspended: {problem.message}", "see 'check' for the line")
        close = difflib.get_close_matches(task_id, [t.id for t in self.tasks], 1)
        raise SchedulerError(f"no task {task_id!r:.80}", f"did you mean {close[0]}?" if close else "see 'list'")


def trigger_digest(task: Task) -> str:
    """Changes exactly when the task's trigger means something else: its occurrences then start anew."""
    return hashlib.sha256(json.dumps(task.trigger.to_json(), sort_keys=True).encode()).hexdigest()


def parse_config(data: bytes) -> Config:
    """The config in `data`. ConfigUnreadable when it is no JSON object of our version."""
    text = _decode(data)
    raw = _load(text)
    problems: list[Problem] = [
        Problem(locate(text, (key,)), show(key), _unknown(key, _TOP), warning=True) for key in raw if key not in _TOP
    ]
    settings = _settings(text, raw.get("settings", {}), problems)
    tasks: list[Task] = []
    entries = raw.get("tasks", [])
    if not isinstance(entries, list):
        raise ConfigUnreadable(f"line {locate(text, ('tasks',))}: tasks: should be a list", "make it a list of tasks")
    seen = Counter(e.get("id") for e in entries if isinstance(e, dict) and isinstance(e.get("id"), str))
    for index, entry in enumerate(entries):
        found = _task(text, index, entry, seen)
        if isinstance(found, Task):
            tasks.append(found)
        else:
            problems += found
    return Config(settings, tuple(tasks), tuple(problems))


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigUnreadable("is in UTF-16", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigUnreadable(f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from None


def _load(text: str) -> dict[str, Any]:
    try:
        raw = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigUnreadable(
            f"is not JSON: line {error.lineno} column {error.colno}: {error.msg}", "mend that line; nothing was changed"
        ) from None
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise ConfigUnreadable(f"is not usable JSON: {what}", "mend it; nothing was changed") from None
    if not isinstance(raw, dict):
        raise ConfigUnreadable("does not hold a JSON object", 'it starts as {"version": 1, "tasks": []}')
    version = raw.get("version")
    if version != CONFIG_VERSION or isinstance(version, bool):
        line = locate(text, ("version",))
        raise ConfigUnreadable(
            f"line {line}: version is {json.dumps(version)[:40]}, this program knows {CONFIG_VERSION}",
            "update the plugin" if isinstance(version, int) and version > CONFIG_VERSION else 'write "version": 1',
        )
    return raw


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _settings(text: str, raw: object, problems: list[Problem]) -> ProjectSettings:
    if not isinstance(raw, dict):
        problems.append(Problem(locate(text, ("settings",)), "settings", "should be an object", warning=True))
        return ProjectSettings()
    known = dict(raw)
    while True:
        result = from_json(ProjectSettings, json.dumps(known))
        if isinstance(result, ProjectSettings):
            return result
        for place, kind, message in result:
            said = _unknown(place[0], names(ProjectSettings)) if kind == "extra_forbidden" else message
            problems.append(Problem(locate(text, ("settings", *place)), show("settings", *place), said, warning=True))
            known.pop(str(place[0]), None)


def _task(text: str, index: int, entry: object, seen: Counter[Any]) -> Task | list[Problem]:
    base: Place = ("tasks", index)
    task_id = entry.get("id") if isinstance(entry, dict) and isinstance(entry.get("id"), str) else None
    if task_id is not None and seen[task_id] > 1:
        message = f"the id {task_id!r:.80} stands {seen[task_id]} times"
        return [Problem(locate(text, (*base, "id")), show(*base, "id"), message, task_id)]
    result = from_json(Task, json.dumps(entry))
    if isinstance(result, Task):
        return result
    return [
        Problem(locate(text, base + place), show(*base, *place), _said(entry, place, kind, message), task_id)
        for place, kind, message in result
    ]


def _said(entry: object, place: Place, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return _unknown(place[-1], names(_model_at(entry, place[:-1])))
    return "is missing" if kind == "missing" else message


def _model_at(entry: object, place: Place) -> type[Model]:
    if place[:1] == ("trigger",) and isinstance(entry, dict) and isinstance(entry.get("trigger"), dict):
        return _TRIGGERS.get(entry["trigger"].get("type"), CronTrigger)
    return _PARTS.get(place, Task)


def names(model: type[Model]) -> list[str]:
    """The JSON names of a model's fields."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _unknown(key: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), list(known), 1, 0.6)
    return f"unknown field {str(key)!r:.80}" + (f"; did you mean {close[0]!r}?" if close else "")


def show(*place: str | int) -> str:
    """A place as a JSON path: `tasks[2].execution.timeout`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


_decoder = json.JSONDecoder()


def locate(text: str, place: Place) -> int:
    """The line (from 1) where the value at `place` stands, or the innermost value around it that exists."""
    at = _skip(text, 0)
    for part in place:
        inner = _enter(text, at, part)
        if inner is None:
            break
        at = inner
    return text.count("\n", 0, at) + 1


def _enter(text: str, at: int, part: str | int) -> int | None:
    opening, index = text[at : at + 1], 0
    if opening != ("[" if isinstance(part, int) else "{"):
        return None
    at = _skip(text, at + 1)
    while text[at : at + 1] not in ("]", "}", ""):
        key: str | int = index
        if opening == "{":
            key, end = _decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, end) + 1)
        if key == part:
            return at
        _, end = _decoder.raw_decode(text, at)
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        index += 1
    return None


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] == "\ufeff":
        at += 1
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at
