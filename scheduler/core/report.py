"""What the client said of a run, in the machine-readable fields of its stream; how to read them is core/verdict.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class AgentReport:
    """The end of a client's stream. Without `has_result` every other field may still be at its default.

    One run may have several results (each subagent that ends in the background is answered by one more turn): flags,
    errors and text are the last one's, denials, turns, cost and duration are of all.
    """

    has_result: bool = False
    is_error: bool = False
    subtype: str | None = None  # `success`, `error_max_turns`, …
    api_error_status: int | None = None  # the HTTP status of the API's refusal
    error_kind: str | None = None  # the client's class of the error that ended it: `billing_error`, `rate_limit`, …
    error_detail: str | None = None  # a finer class that newer clients add: `usage_limit_reached`, …
    terminal_reason: str | None = None  # `completed`, `hook_stopped`, …; a client that asked no model gives none
    denials: tuple[str, ...] = ()  # the name of a tool for each call that was refused for want of permission
    result_text: str = ""  # the full closing answer, as the agent wrote it: not yet redacted
    errors: tuple[str, ...] = ()
    session_id: str | None = None
    cost_usd: float | None = None
    session_usd: float | None = None  # what the whole session has cost, where it was cut short and the client noted it
    turns: int | None = None
    model: str | None = None
    client_version: str | None = None
    duration_ms: int | None = None
    resets_at: datetime | None = None  # when the limit that refuses now ends (aware, UTC)
    limit_type: str | None = None  # which limit refuses now: `five_hour`, `seven_day`, …
