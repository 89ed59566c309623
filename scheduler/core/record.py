"""The record: one line of the history, and the words it may use."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Literal

from scheduler.core.models import BY_NAME, Model, Moment


class Status(str, Enum):
    """How a run stands."""

    SUCCESS = "success"  # it did what it should, or there was nothing to do
    FAILURE = "failure"  # it ended, and not well; `reason` says why
    TIMEOUT = "timeout"  # a limit of time stopped it
    SKIPPED = "skipped"  # it was not started; `reason` says why
    RUNNING = "running"  # it has not ended

    def __str__(self) -> str:
        return self.value


class Reason(str, Enum):
    """Why a run has its status."""

    NO_CHANGES = "no-changes"  # success: the agent changed nothing
    PRECHECK_IDLE = "precheck-idle"  # skipped: the precheck said there is nothing to do
    OVERLAP = "overlap"  # skipped: the task's run before is still going
    MISSED = "missed"  # skipped: the moment passed while nothing could run
    UNTRUSTED = "untrusted"  # skipped: the config is not what its user approved
    PAUSED = "paused"  # skipped: the task or the project is paused
    OPEN_REVIEW = "open-review"  # skipped: an earlier branch waits for review
    DISABLED = "disabled"  # skipped: switched off between queue and start
    PRECHECK_ERROR = "precheck-error"
    SETUP_FAILED = "setup-failed"
    VERIFY_FAILED = "verify-failed"
    WORKTREE_FAILED = "worktree-failed"
    LEFT_BRANCH = "left-branch"  # the agent switched the worktree to another branch
    COMMIT_REJECTED = "commit-rejected"  # a git hook of the repository refused the commit
    CONTAINMENT = "containment"  # the run changed the main checkout
    SELF_EDIT = "self-edit"  # the run changed its own schedule
    SECRET_IN_WORK = "secret-in-work"
    CLIENT_MISSING = "client-missing"
    SANDBOX_MISSING = "sandbox-missing"  # the sandbox that the task asks for cannot be had: nothing was started
    AUTH = "auth"  # the client is not logged in
    CREDIT = "credit"
    USAGE_LIMIT = "usage-limit"
    RATE_LIMITED = "rate-limited"
    OVERLOADED = "overloaded"
    API_ERROR = "api-error"
    BUDGET = "budget"
    MAX_TURNS = "max-turns"
    DENIED_TOOLS = "denied-tools"
    AGENT_ERROR = "agent-error"  # the client's result object says that it failed
    NO_RESULT = "no-result"  # the client ended without a result object
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    STALLED = "stalled"  # timeout: no output for `stallTimeout`
    CANCELLED = "cancelled"
    CRASHED = "crashed"  # runner, supervisor or machine died under it
    NOT_KEPT = "not-kept"  # the work was done, and could not be kept

    def __str__(self) -> str:
        return self.value


TriggeredBy = Literal["schedule", "catch-up", "manual", "retry"]


class RunnerMark(Model):
    """Which runner wrote a record."""

    model_config = BY_NAME

    host: str
    pid: int
    version: str


class Record(Model):
    """One line of the history. The last line of an id is its state. `duration` is in milliseconds. A skipped one tells
    of `skipped_count` occurrences, the first of them at `skipped_since`."""

    model_config = BY_NAME

    id: str
    task_id: str
    task_name: str
    project: str
    scheduled_for: Moment | None = None
    started_at: Moment
    completed_at: Moment | None = None
    status: Status
    reason: Reason | None = None
    duration: int | None = None
    error: str | None = None
    exit_code: int | None = None
    cron_expression: str | None = None
    triggered_by: TriggeredBy
    attempt: int = 1
    isolated: bool = True
    sandbox: Literal["bwrap"] | None = None
    worktree_path: str | None = None
    worktree_branch: str | None = None
    worktree_pushed: bool | None = None
    base_commit: str | None = None
    commit: str | None = None
    discarded_ref: str | None = None
    files_changed: int | None = None
    insertions: int | None = None
    deletions: int | None = None
    session_id: str | None = None
    cost_usd: float | None = None
    turns: int | None = None
    model: str | None = None
    output: str | None = None
    notes: tuple[str, ...] | None = None
    resets_at: Moment | None = None
    skipped_count: int | None = None
    skipped_since: Moment | None = None
    tags: tuple[str, ...] | None = None
    runner: RunnerMark

    @property
    def asked(self) -> bool:
        """Whether a person asked for it, by `run` or `retry`; the retries of a policy are later attempts."""
        return self.triggered_by == "manual" or (self.triggered_by == "retry" and self.attempt == 1)

    def evolve(self, **changes: Any) -> Record:
        """A copy with `changes`, validated."""
        return Record.model_validate({**dict(self), **changes})

    def cleaned(self, clean: Callable[[str], str]) -> Record:
        """The record with `clean` applied to every text of it that others wrote: programs, git, the config."""
        told = {name: text for name in ("task_name", "error", "output", "model") if (text := getattr(self, name))}
        notes = tuple(map(clean, self.notes)) if self.notes else None
        return self.evolve(**{name: clean(text) for name, text in told.items()}, notes=notes)
