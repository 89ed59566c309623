"""The options of `add` and `edit`, one for each field of a task, and how a value gets to its place in the config."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import click

from scheduler.cli.context import F
from scheduler.core.when import parse_duration
from scheduler.errors import SchedulerError, UsageError

Kind = Literal["text", "duration", "whole", "number", "words", "tools", "pairs", "switch"]


class Field(NamedTuple):
    """One option. `place` is where its value stands in a task's JSON; `choices` are the only values."""

    option: str
    place: tuple[str, ...]
    kind: Kind
    summary: str
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the option's value, and of the field for `--unset`."""
        return self.option.split("/")[0].lstrip("-").replace("-", "_")


_TREE = ("execution", "worktree")
FIELDS = (
    Field("--timeout", ("execution", "timeout"), "duration", "Stop it after this long (30m)."),
    Field("--stall-timeout", ("execution", "stallTimeout"), "duration", "Stop it when it says nothing for this long."),
    Field("--skip-permissions/--no-skip-permissions", ("execution", "skipPermissions"), "switch",
          "Let the agent use every tool unasked."),
    Field("--permission-mode", ("execution", "permissionMode"), "text", "The client's permission mode (acceptEdits).",
          ("acceptEdits", "auto", "default", "dontAsk", "plan")),
    Field("--allowed-tools", ("execution", "allowedTools"), "tools", "Tools used unasked: 'Read,Edit,Bash(npm *)'."),
    Field("--model", ("execution", "model"), "text", "The model, by name or alias."),
    Field("--max-turns", ("execution", "maxTurns"), "whole", "Stop the agent after so many turns."),
    Field("--max-budget-usd", ("execution", "maxBudgetUsd"), "number", "Stop the agent at this cost."),
    Field("--precheck", ("execution", "precheck"), "text", "Shell command: exit 0 runs, 1 means nothing to do."),
    Field("--verify", ("execution", "verify"), "text", "Shell command that must pass for the work to be kept."),
    Field("--env", ("execution", "env"), "pairs", "A variable, as K=V; with edit, K alone removes it."),
    Field("--sandbox", ("execution", "sandbox"), "text", "Keep its processes in a sandbox of bubblewrap.", ("bwrap",)),
    Field("--sandbox-write", ("execution", "sandboxWrite"), "words", "What it may write to there beside its worktree."),
    Field("--worktree/--no-worktree", (*_TREE, "enabled"), "switch", "Work in a worktree, or in the main checkout."),
    Field("--base", (*_TREE, "base"), "text", "Start from HEAD, the default branch, or what the remote has.",
          ("head", "default", "fresh")),
    Field("--branch-prefix", (*_TREE, "branchPrefix"), "text", "How branches of runs begin (claude-task/)."),
    Field("--setup", (*_TREE, "setup"), "text", "Shell command that prepares a new worktree."),
    Field("--link", (*_TREE, "link"), "words", "Ignored paths to link in from the main checkout."),
    Field("--push/--no-push", (*_TREE, "push"), "switch", "Push the branch of a run that succeeded."),
    Field("--remote", (*_TREE, "remoteName"), "text", "Where to push to (origin)."),
    Field("--overlap", ("policy", "overlap"), "text", "When the run before is still going.",
          ("skip", "queue", "cancel-running")),
    Field("--missed", ("policy", "missed"), "text", "What to catch up on that was missed.", ("skip", "latest", "all")),
    Field("--missed-within", ("policy", "missedWithin"), "duration", "How far back to catch up (24h)."),
    Field("--open-review", ("policy", "openReview"), "text", "When an earlier branch still waits.", ("run", "skip")),
    Field("--on-denied", ("policy", "onDenied"), "text", "When a tool was denied.", ("fail", "accept")),
    Field("--retries", ("policy", "retries"), "whole", "Try again so often after a passing failure."),
    Field("--retry-delay", ("policy", "retryDelay"), "duration", "Wait this long before the first retry (5m)."),
    Field("--pause-after-failures", ("policy", "pauseAfterFailures"), "whole",
          "Pause it after so many failures in a row (5; 0: never)."),
    Field("--tag", ("tags",), "words", "Tags."),
    Field("--enabled/--disabled", ("enabled",), "switch", "Whether the task runs."),
)  # fmt: skip


def duration(text: str) -> int | str:
    """A duration as it was typed (seconds, or text such as 30m), once it is known to be one."""
    seconds: int = as_usage(parse_duration, text)
    return seconds if text.strip().isdigit() else text.strip()


def as_usage(read: Any, *values: Any) -> Any:
    """What `read` makes of what was typed; its SchedulerError is one of usage."""
    try:
        return read(*values)
    except SchedulerError as error:
        raise UsageError(error.message, error.hint) from None


def field_options(command: F) -> F:
    """An option for each field, each None (a list: empty) where it is not given."""
    for field in reversed(FIELDS):
        many = field.kind in ("words", "tools", "pairs")
        kind: Any = {"duration": duration, "whole": click.INT, "number": click.FLOAT}.get(field.kind, click.STRING)
        if field.kind == "switch":
            option = click.option(field.option, field.name, default=None, help=field.summary)
        else:
            choice = click.Choice(field.choices) if field.choices else kind
            option = click.option(field.option, field.name, type=choice, multiple=many, help=field.summary)
        command = option(command)
    return command


def put_all(entry: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put what was given into a raw task. Lists replace the list that is there; variables are added to the others."""
    for field in FIELDS:
        value = given[field.name]
        if value is None or value == ():
            continue
        if field.kind == "pairs":
            for pair in value:
                _put_pair(entry, field.place, pair)
        elif field.kind == "tools":
            put(entry, field.place, [tool for words in value for tool in split_tools(words)])
        elif field.kind == "words":
            put(entry, field.place, [word for words in value for word in words.split(",") if word])
        else:
            put(entry, field.place, value)


def _put_pair(entry: dict[str, Any], place: tuple[str, ...], pair: str) -> None:
    name, sign, value = pair.partition("=")
    if sign:
        put(entry, (*place, name), value)
    elif not drop(entry, (*place, name)):
        raise UsageError(f"--env {pair!r:.60} is no K=V, and no variable to remove", "write it as NAME=VALUE")


def put(entry: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """Set the value at a place of a raw task, making the objects on the way."""
    for name in place[:-1]:
        entry = entry.setdefault(name, {})
        if not isinstance(entry, dict):
            raise SchedulerError(f"{name} of the task is no object", "mend the file by hand: see 'check'")
    entry[place[-1]] = value


def drop(entry: dict[str, Any], place: tuple[str, ...]) -> bool:
    """Remove the value at a place of a raw task; whether there was one."""
    part: Any = entry
    for name in place[:-1]:
        part = part.get(name) if isinstance(part, dict) else None
    return isinstance(part, dict) and part.pop(place[-1], None) is not None


def split_tools(text: str) -> list[str]:
    """`Read,Edit,Bash(a, b)` at the commas outside parentheses."""
    return [tool for tool in (part.strip() for part in re.split(r",(?![^()]*\))", text)) if tool]


def text_of(value: str) -> str:
    """A prompt or command as it was given; `-` reads it from standard input."""
    return sys.stdin.read() if value == "-" else value
