"""The verdict on how an agent ended. Pure.

On a client it is read from the fields of its result, never from words and never from the exit code alone: an API error
has the subtype `success`, a denied tool the exit code 0, an interrupt either 0 or 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from signal import Signals
from typing import Literal

from scheduler.core.record import Reason, Status
from scheduler.core.report import AgentReport

#: Why an agent did not end by itself: a limit, a cancel, a killed supervisor, or no start at all.
Stopped = Literal["timeout", "stalled", "cancelled", "crashed", "not-started"]


@dataclass(frozen=True)
class Verdict:
    """How an agent ended; `error` is one line for people. A success may still fail later (verify, containment)."""

    status: Status
    reason: Reason | None = None
    error: str | None = None
    resets_at: datetime | None = None


SUCCESS = Verdict(Status.SUCCESS)

# Ends that no error flag marks, though the agent was not done.
_CUT_SHORT = frozenset(
    "aborted_streaming aborted_tools api_error background_requested blocking_limit hook_stopped image_error "
    "malformed_tool_use_exhausted model_error prompt_too_long rapid_refill_breaker tool_deferred "
    "tool_deferred_unavailable turn_setup_failed".split()
)
_BY_SUBTYPE = {"error_max_turns": Reason.MAX_TURNS, "error_max_budget_usd": Reason.BUDGET}
_BY_DETAIL = {
    "usage_limit_reached": Reason.USAGE_LIMIT,
    "model_requires_usage_credits": Reason.CREDIT,
    "long_context_credits_required": Reason.CREDIT,
    "api_key_auth_disabled": Reason.AUTH,
    "gateway_session_expired": Reason.AUTH,
    "gateway_signin_required": Reason.AUTH,
    "invalid_credential_header": Reason.AUTH,
    "org_disabled_credential": Reason.AUTH,
    "provider_credentials": Reason.AUTH,
    "stored_login_refused": Reason.AUTH,
}
_BY_KIND = {
    "account_on_hold": Reason.AUTH,
    "authentication_failed": Reason.AUTH,
    "cloud_credential_error": Reason.AUTH,
    "oauth_org_not_allowed": Reason.AUTH,
    "verification_required": Reason.AUTH,
    "billing_error": Reason.CREDIT,
    "overloaded": Reason.OVERLOADED,
    "rate_limit": Reason.RATE_LIMITED,
}
# The client calls a 529 a `server_error` and a 402 `unknown`: there the status says more than the kind.
_BY_STATUS = {401: Reason.AUTH, 402: Reason.CREDIT, 429: Reason.RATE_LIMITED, 529: Reason.OVERLOADED}


def judge_claude(
    report: AgentReport,
    returncode: int | None,
    signal: int | None,
    stopped: Stopped | None,
    *,
    on_denied: Literal["fail", "accept"] = "fail",
    detail: str = "",
    last_words: str = "",
) -> Verdict:
    """The verdict on a client. `detail`, what the supervisor says of its end, and `last_words`, the end of its standard
    error, decide nothing: they are quoted where there is no result to quote."""
    if stopped is not None:
        return _judge_stopped(stopped, Reason.CLIENT_MISSING, detail)
    if report.has_result and (report.is_error or report.subtype != "success"):
        return _judge_error(report)
    if signal is not None or (returncode or 0) > 128:
        # Also with a result: a turn that answers a subagent may have been under way.
        return _failure(Reason.SIGNAL, detail or _killed(signal or (returncode or 0) - 128), last_words)
    if not report.has_result:
        code = "" if returncode is None else f" (exit code {returncode})"
        return _failure(Reason.NO_RESULT, f"the client ended without a result{code}", last_words)
    if report.terminal_reason in _CUT_SHORT:
        return _failure(Reason.AGENT_ERROR, f"the client ended before its work was done: {report.terminal_reason}")
    if report.turns == 0:
        # A slash command that was refused or answered by the client itself, or a prompt that a hook blocked.
        return _failure(Reason.AGENT_ERROR, "the prompt did not reach the model", report.result_text)
    if report.denials and on_denied == "fail":
        counted = ", ".join(f"{name} ×{n}" if n > 1 else name for name, n in Counter(report.denials).items())
        return _failure(Reason.DENIED_TOOLS, f"tools were denied: {counted}")
    return SUCCESS


def judge_shell(returncode: int | None, signal: int | None, stopped: Stopped | None, *, detail: str = "") -> Verdict:
    """The verdict on a shell command: success is exit code 0. `detail` as for `judge_claude`."""
    if stopped is not None:
        return _judge_stopped(stopped, Reason.CRASHED, detail)
    if signal is not None:
        return _failure(Reason.SIGNAL, detail or _killed(signal))
    if returncode is None:
        return _failure(Reason.CRASHED, detail or "nobody saw it end")
    if returncode != 0:
        return _failure(Reason.EXIT_CODE, detail or f"ended with code {returncode}")
    return SUCCESS


def _judge_stopped(stopped: Stopped, not_started: Reason, detail: str) -> Verdict:
    if stopped == "timeout":
        return Verdict(Status.TIMEOUT, None, detail or "stopped at its time limit")
    if stopped == "stalled":
        return Verdict(Status.TIMEOUT, Reason.STALLED, detail or "stopped because it said nothing for too long")
    if stopped == "cancelled":
        return _failure(Reason.CANCELLED, detail or "cancelled")
    if stopped == "crashed":
        return _failure(Reason.CRASHED, detail or "its supervisor was killed")
    return _failure(not_started, detail or "could not be started")


def _judge_error(report: AgentReport) -> Verdict:
    reason = _error_reason(report)
    said = report.errors[0] if report.errors else report.result_text
    resets_at = report.resets_at if reason is Reason.USAGE_LIMIT else None
    return Verdict(Status.FAILURE, reason, _one_line(said) or "the client failed and did not say why", resets_at)


def _error_reason(report: AgentReport) -> Reason:
    if report.subtype in _BY_SUBTYPE:
        return _BY_SUBTYPE[report.subtype]
    if report.subtype != "success":
        return Reason.AGENT_ERROR
    reason = _BY_DETAIL.get(report.error_detail or "") or _BY_KIND.get(report.error_kind or "")
    reason = reason or _BY_STATUS.get(report.api_error_status or 0)
    if reason is Reason.RATE_LIMITED and (report.resets_at or report.limit_type):
        # Only a subscription's limit has a name or an end; a server that is merely busy gives neither.
        return Reason.USAGE_LIMIT
    if reason is None:
        told = report.error_kind or report.api_error_status or report.terminal_reason == "api_error"
        return Reason.API_ERROR if told else Reason.AGENT_ERROR
    return reason


def _failure(reason: Reason, error: str, quoted: str = "") -> Verdict:
    tail = _one_line(quoted)
    return Verdict(Status.FAILURE, reason, f"{error}: {tail}" if tail else error)


def _one_line(text: str, limit: int = 300) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _killed(number: int) -> str:
    try:
        return f"killed by {Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"
