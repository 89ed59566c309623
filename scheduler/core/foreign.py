"""What another scheduler for Claude Code wrote, as ours: a task of its `schedules.json`, a record of its history. Pure.

Both have the names of the common format, which ours extend.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple

from scheduler.core.models import Fault, Task, from_json
from scheduler.core.parse import show
from scheduler.core.plain import plain
from scheduler.core.query import Run, began, number
from scheduler.core.record import Record, RunnerMark
from scheduler.core.when import from_iso
from scheduler.errors import SchedulerError

OUTPUT_KEPT = 2048  # characters of the output's end, as of our own runs
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}\Z")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,99}\Z")
_WORKTREE = {"branchPrefix": "branchPrefix", "remoteName": "remoteName"}
_EXECUTION = {"command": "command", "skipPermissions": "skipPermissions", "env": "env"}


class Taken(NamedTuple):
    """A task as ours, switched off; what of it is not as it was, in words; and the folder that it worked in."""

    entry: dict[str, Any]
    notes: list[str]
    folder: str


def task(raw: Any, zone: str, task_id: str) -> Taken:
    """A task of a `schedules.json`. `zone` stands for its "local". SchedulerError where it cannot be one of ours."""
    if not isinstance(raw, dict) or not isinstance(raw.get("execution"), dict):
        raise SchedulerError("an entry is no task")
    notes: list[str] = []
    trigger = dict(raw["trigger"]) if isinstance(raw.get("trigger"), dict) else {}
    if trigger.get("type") == "cron" and trigger.get("timezone", "local") == "local":
        trigger["timezone"] = zone
    entry = {
        "id": task_id,
        "name": plain(str(raw.get("name") or task_id))[:200] or task_id,
        "enabled": False,
        "trigger": trigger,
        "execution": _execution(raw["execution"], notes),
        "tags": [tag for tag in _texts(raw.get("tags")) if _TAG.match(tag)],
    }
    if raw.get("description"):
        notes.append(f"its description is not taken over: {str(raw['description'])[:200]!r}")
    found = from_json(Task, json.dumps(entry))
    if not isinstance(found, Task):
        raise SchedulerError(_said(found))
    folder = str(raw["execution"].get("workingDirectory") or ".")
    if plain(folder) != folder:
        raise SchedulerError("it names no folder that it works in")
    return Taken(entry, notes, folder)


def _execution(raw: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    timeout = number(raw, "timeout")
    if timeout is None and raw.get("timeout") is not None:
        notes.append(f"its timeout is not taken over: {raw['timeout']!r:.80}")
    tree = raw.get("worktree") if isinstance(raw.get("worktree"), dict) else {}
    assert isinstance(tree, dict)
    worktree = {ours: tree[theirs] for theirs, ours in _WORKTREE.items() if tree.get(theirs) is not None}
    if tree.get("enabled") is True:
        worktree["push"] = True  # as it did
    else:
        notes.append("it worked in the main checkout; here it gets a worktree and a branch of its own")
    return {
        "type": "claude",
        **{ours: raw[theirs] for theirs, ours in _EXECUTION.items() if raw.get(theirs) is not None},
        "timeout": math.ceil(timeout) if timeout else 300,
        "worktree": worktree,
    }


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _said(faults: list[Fault]) -> str:
    place, _, message = faults[0]
    return f"{show(*place) or 'the task'}: {message}"


def record(raw: Run, now: datetime, mask: Callable[[str], str]) -> Record:
    """The last record of a run that is over, without secrets. SchedulerError where it is none.

    Who ran it is not known: `runner` names nobody.
    """
    _check(raw)
    begin, end = _moment(raw["startedAt"]), _moment(raw.get("completedAt"))
    if begin is None or began(begin) <= 0 or began(begin) > now.timestamp() * 1000:
        raise SchedulerError("it does not tell when it began")
    if end is None or not began(begin) <= began(end) <= now.timestamp() * 1000:
        end = begin
    cost, turns, duration, code = (number(raw, name) for name in ("costUsd", "turns", "duration", "exitCode"))
    notes = ["taken over from another scheduler"]
    branch = _text(raw.get("worktreeBranch"), mask)
    notes += [f"its branch was {branch[:200]}"] if branch else []
    made = {
        "id": raw["id"].lower(),
        "taskId": raw["taskId"],
        "taskName": _text(raw.get("taskName"), mask) or raw["taskId"],
        "project": os.path.normpath(raw["project"]),
        "startedAt": begin,
        "completedAt": end,
        "status": raw["status"],
        "duration": None if duration is None else max(round(duration), 0),
        "error": _text(raw.get("error"), mask),
        "exitCode": None if code is None else int(code),
        "cronExpression": _text(raw.get("cronExpression"), mask),
        "triggeredBy": "manual" if raw.get("triggeredBy") == "manual" else "schedule",
        "isolated": isinstance(raw.get("worktreePath"), str),
        "worktreePushed": raw.get("worktreePushed") if isinstance(raw.get("worktreePushed"), bool) else None,
        "costUsd": cost,
        "turns": None if turns is None else int(turns),
        "output": (_text(raw.get("output"), mask) or "")[-OUTPUT_KEPT:] or None,
        "notes": notes,
        "runner": RunnerMark(host="", pid=0, version="").to_json(),
    }
    found = from_json(Record, json.dumps({name: value for name, value in made.items() if value is not None}))
    if not isinstance(found, Record):
        raise SchedulerError(_said(found))
    return found


def _check(raw: Run) -> None:
    if raw["status"] == "running":
        raise SchedulerError("it never ended")
    if not _ID.match(raw["id"]) or ".." in raw["id"]:
        raise SchedulerError("it has no id that can be kept")
    if not os.path.isabs(raw["project"]) or plain(raw["project"]) != raw["project"]:
        raise SchedulerError("it names no folder that it worked in")


def _text(value: Any, mask: Callable[[str], str]) -> str | None:
    return mask(plain(value)) if isinstance(value, str) and value else None


def _moment(text: Any) -> str | None:
    if not isinstance(text, str):
        return None
    try:
        moment = from_iso(text)
        return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds") if text.endswith("Z") else text
    except (ValueError, OverflowError):
        return None
