"""The formats: a project's config, a task, the user's settings.

JSON names are camelCase; Python names snake_case. An unknown field is an error here; who reads a file decides what an
error suspends (core/parse.py). Values read from JSON are validated as JSON (`model_validate_json`). Durations are
seconds, or text such as "30m". All moments are aware.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from scheduler.core import checks
from scheduler.core.when import parse_duration

CONFIG_VERSION = 1
# In these (Rust) expressions `$` is the end of the text, also where the text ends in a newline.
TASK_ID = r"^[a-z0-9][a-z0-9-]{0,63}$"
_PREFIX = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$"
_REMOTE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_TAG = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
MAX_TIMEOUT = 7 * 86400
MAX_RETRY_DELAY = 6 * 3600
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def iso(moment: datetime) -> str:
    """ISO 8601 with offset, in milliseconds: how every file of ours writes a time."""
    return moment.isoformat(timespec="milliseconds")


Duration = Annotated[int, BeforeValidator(checks.as_value_error(parse_duration), json_schema_input_type=int | str)]
Moment = Annotated[
    datetime,
    BeforeValidator(checks.moment, json_schema_input_type=str),
    PlainSerializer(iso, return_type=str, when_used="json"),
]
Text = Annotated[str, Field(min_length=1, max_length=1_000_000), AfterValidator(checks.no_nul)]
EnvName = Annotated[str, Field(pattern=_ENV_NAME)]
Days = Annotated[int, Field(ge=1, le=36500)]
Usd = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
ShortText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(checks.no_nul)]


class Model(BaseModel):
    """Strict types, camelCase in JSON, no unknown field, not to be changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


#: For models that the program builds itself: by the names of Python as well as by those of JSON.
BY_NAME = ConfigDict(validate_by_name=True, validate_by_alias=True)


class CronTrigger(Model):
    """Fires as a five-field cron expression says, on the wall clock of `timezone` (an IANA name)."""

    type: Literal["cron"] = "cron"
    expression: Annotated[str, AfterValidator(checks.as_value_error(checks.cron))]
    timezone: Annotated[str, AfterValidator(checks.as_value_error(checks.zone))] = "UTC"


class OnceTrigger(Model):
    """Fires once, at a moment."""

    type: Literal["once"] = "once"
    at: Moment


class IntervalTrigger(Model):
    """Fires every `every` seconds, counted from `from` (default: when the task was added)."""

    type: Literal["interval"] = "interval"
    every: Annotated[Duration, Field(ge=1)]
    from_: Annotated[Moment | None, Field(alias="from")] = None


Trigger = Annotated[CronTrigger | OnceTrigger | IntervalTrigger, Field(discriminator="type")]


class Worktree(Model):
    """Where the work is done: a git worktree of its own on a new branch, unless `enabled` is false."""

    enabled: bool = True
    base: Literal["head", "default", "fresh"] = "head"
    branch_prefix: Annotated[str, Field(pattern=_PREFIX), AfterValidator(checks.branch_prefix)] = "claude-task/"
    setup: Text | None = None
    link: tuple[Annotated[ShortText, AfterValidator(checks.link)], ...] = ()
    push: bool = False
    remote_name: Annotated[str, Field(pattern=_REMOTE)] = "origin"


class Execution(Model):
    """What is done: a prompt for `claude -p` or a shell command, and its limits. Durations in seconds.

    `sandbox`: all of the run's processes see a file system that they can only read, but for their worktree, what git
    needs, a /tmp of their own and `sandbox_write`.
    """

    type: Literal["claude", "shell"]
    command: Text
    timeout: Annotated[Duration, Field(ge=1, le=MAX_TIMEOUT)] = 1800
    stall_timeout: Annotated[Duration, Field(ge=1, le=MAX_TIMEOUT)] | None = None
    skip_permissions: bool = False
    permission_mode: Literal["acceptEdits", "auto", "default", "dontAsk", "plan"] = "acceptEdits"
    allowed_tools: tuple[ShortText, ...] = ()
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/\[\]@-]{0,127}$")] | None = None
    max_turns: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_budget_usd: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    precheck: Text | None = None
    verify: Text | None = None
    env: Annotated[dict[EnvName, Annotated[str, AfterValidator(checks.no_nul)]], AfterValidator(checks.env)] = {}
    worktree: Worktree = Worktree()
    sandbox: Literal["bwrap"] | None = None
    sandbox_write: tuple[Annotated[ShortText, AfterValidator(checks.writable)], ...] = ()


class Policy(Model):
    """What happens when things do not go by the clock. Durations in seconds."""

    overlap: Literal["skip", "queue", "cancel-running"] = "skip"
    missed: Literal["skip", "latest", "all"] = "latest"
    missed_within: Duration = 86400
    open_review: Literal["run", "skip"] = "run"
    on_denied: Literal["fail", "accept"] = "fail"
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    retry_delay: Annotated[Duration, Field(le=MAX_RETRY_DELAY)] = 300
    pause_after_failures: Annotated[int, Field(ge=0, le=1000)] = 5


class Task(Model):
    """What a user scheduled."""

    id: Annotated[str, Field(pattern=TASK_ID)]
    name: ShortText
    enabled: bool = True
    trigger: Trigger
    execution: Execution
    policy: Policy = Policy()
    tags: tuple[Annotated[str, Field(pattern=_TAG)], ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Task:
        if self.execution.type == "shell" and self.execution.skip_permissions:
            raise ValueError("skipPermissions is for claude tasks; a shell command has no permissions to skip")
        if self.execution.sandbox_write and self.execution.sandbox is None:
            raise ValueError("sandboxWrite is for tasks with a sandbox")
        if self.execution.sandbox is not None and "/" not in self.execution.worktree.branch_prefix:
            raise ValueError("with a sandbox, branchPrefix needs a '/': the agent may write branches beside its own")
        return self


class ProjectSettings(Model):
    """`settings` of a project's config. For so many days its records, and its logs since their last line, are kept."""

    remind: bool = True
    history_days: Days = 365
    log_days: Days = 30


class QuietHours(Model):
    """From `from` until `until` (`HH:MM`; over midnight where that is not later) nothing starts by itself. `days` are
    those on which it begins, `timezone` says by whose clocks (default: the system's)."""

    from_: Annotated[str, Field(alias="from", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    until: Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
    days: Annotated[tuple[Day, ...], Field(min_length=1)] = get_args(Day)
    timezone: Annotated[str, AfterValidator(checks.as_value_error(checks.zone))] | None = None

    @model_validator(mode="after")
    def _has_length(self) -> QuietHours:
        if self.from_ == self.until:
            raise ValueError("from and until are the same time; a whole day is from 00:00 until 24:00")
        return self


class Budgets(Model):
    """US dollars a day, on the local calendar, after which nothing more starts: for each task, each project, all."""

    task_per_day: Usd | None = None
    project_per_day: Usd | None = None
    per_day: Usd | None = None


class UserSettings(Model):
    """`settings.json` of the user. `history_days`: how long the records of all projects are kept."""

    max_concurrent: Annotated[int, Field(ge=1, le=64)] = 2
    env_pass: tuple[EnvName, ...] = ()
    quiet_hours: QuietHours | None = None
    budgets: Budgets = Budgets()
    history_days: Days = 365


#: (place, kind, message); a place is the way of names and indexes from the object that was read.
Fault = tuple[tuple[str | int, ...], str, str]
M = TypeVar("M", bound=Model)


def from_json(model: type[M], text: str | bytes) -> M | list[Fault]:
    """An object of `model` from JSON, or what is wrong with it."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        return [_fault(item) for item in error.errors(include_url=False)]


def _fault(item: Any) -> Fault:
    loc, kind, value = item["loc"], item["type"], item["input"]
    # A union's member is part of pydantic's place, and no part of the file's.
    place = tuple(part for at, part in enumerate(loc) if not (at and loc[at - 1] == "trigger" and part in _TAGS))
    if kind == "union_tag_invalid":
        return (*place, "type"), kind, _no_such(item["ctx"]["tag"], _TAGS)
    if kind == "union_tag_not_found":
        return (*place, "type"), "missing", "field required"
    if kind == "literal_error" and isinstance(value, str):
        return place, kind, _no_such(value, re.findall(r"'([^']*)'", item["ctx"]["expected"]))
    message = item["msg"].removeprefix("Value error, ")
    return place, kind, message[:1].lower() + message[1:]


def _no_such(value: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(value[:80], known, 1)
    return f"{value!r:.80} is not one of {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")


_TAGS = ("cron", "once", "interval")
