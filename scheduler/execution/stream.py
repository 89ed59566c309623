"""The client's standard output (stream-json) read as it comes: lines for the log now, a report at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from scheduler.core.plain import plain
from scheduler.core.report import AgentReport
from scheduler.execution.transcript import Transcript, cut_long, moment

MAX_LINE = 32 * 1024 * 1024
_MOST = 1 << 53  # beyond it a number in JSON is not certain
_HEARTBEATS = frozenset(["tool_progress", "keep_alive"])
"""What newer clients send by the clock while a tool runs, whether or not it gets on."""


class ResultReader:
    """Takes the bytes of one client's output in any pieces. Keeps at most one line (up to `max_line` bytes) of it.

    What is no JSON goes to the log as it is; a line that is too long is left out and named. `mask`: see Transcript.
    """

    def __init__(self, mask: Callable[[str], str] = str, *, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._rest = bytearray()
        self._too_long = 0
        self._transcript = Transcript(mask)
        self._report = AgentReport()
        self._denied: dict[str, str] = {}
        self._costs: list[float | None] = []
        self.got_on = False

    def feed(self, data: bytes) -> list[str]:
        """The log lines (clean, without line breaks, not redacted) of the messages that `data` completes.

        `got_on` then says whether one of them is more than a heartbeat.
        """
        lines = []
        start = 0
        self.got_on = False
        while (end := data.find(b"\n", start)) >= 0:
            self._keep(data[start:end])
            lines += self._line()
            start = end + 1
        self._keep(data[start:])
        return lines

    def rest(self) -> str:
        """Nothing: a message is whole, or no line at all."""
        return ""

    def end(self) -> list[str]:
        """The log lines of what came after the last line break."""
        return self._line()

    def report(self) -> AgentReport:
        """What the client has said so far."""
        costs = self._costs
        # The part that each result adds; older clients give only a running total.
        cost = sum(c for c in costs if c is not None) if costs and None not in costs else self._report.cost_usd
        return replace(self._report, denials=tuple(self._denied.values()), cost_usd=cost)

    def _keep(self, piece: bytes) -> None:
        if self._too_long or len(self._rest) + len(piece) > self._max_line:
            self._too_long += len(self._rest) + len(piece)
            self._rest.clear()
        else:
            self._rest += piece

    def _line(self) -> list[str]:
        line, dropped = bytes(self._rest).strip(), self._too_long
        self._rest.clear()
        self._too_long = 0
        if dropped:
            self.got_on = True
            return [f"… a line of {dropped} bytes was left out …"]
        if not line:
            return []
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        self.got_on = self.got_on or not (isinstance(message, dict) and message.get("type") in _HEARTBEATS)
        if not isinstance(message, dict):
            return [cut_long(plain(line.decode("utf-8", "replace")).replace("\n", " "))]
        self._take(message)
        return self._transcript.lines(message)

    def _take(self, message: Mapping[str, Any]) -> None:
        kind = message.get("type")
        if kind == "system" and message.get("subtype") == "init":
            self._report = replace(
                self._report,
                session_id=_str(message.get("session_id")) or self._report.session_id,
                model=self._report.model or _str(message.get("model")),
                client_version=_str(message.get("claude_code_version")),
            )
        elif kind == "assistant" and not message.get("parent_tool_use_id"):
            detail = _str(message.get("api_error"))
            self._report = replace(self._report, error_kind=_str(message.get("error")), error_detail=detail)
        elif kind == "rate_limit_event":
            self._take_limit(message.get("rate_limit_info"))
        elif kind == "result":
            self._take_result(message)

    def _take_limit(self, info: object) -> None:
        if not isinstance(info, dict):
            return
        refuses = info.get("status") == "rejected"
        self._report = replace(
            self._report,
            resets_at=(moment(info.get("resetsAt")) or moment(info.get("overageResetsAt"))) if refuses else None,
            limit_type=_str(info.get("rateLimitType")) if refuses else None,
        )

    def _take_result(self, message: Mapping[str, Any]) -> None:
        old = self._report
        errors = message.get("errors")
        self._report = replace(
            old,
            has_result=True,
            is_error=message.get("is_error") is not False,
            subtype=_str(message.get("subtype")),
            api_error_status=_int(message.get("api_error_status")),
            error_detail=_str(message.get("api_error")) or old.error_detail,
            terminal_reason=_str(message.get("terminal_reason")),
            result_text=_str(message.get("result")) or old.result_text,
            errors=tuple(str(error) for error in errors) if isinstance(errors, list) else (),
            session_id=_str(message.get("session_id")) or old.session_id,
            cost_usd=finite(message.get("total_cost_usd")),
            turns=_sum(old.turns, _int(message.get("num_turns"))),
            duration_ms=_sum(old.duration_ms, _int(message.get("duration_ms"))),
        )
        self._costs.append(_cost_of(message.get("model_usage_since_last_result")))
        denials = message.get("permission_denials")
        for denial in denials if isinstance(denials, list) else ():
            if isinstance(denial, dict):
                self._denied[str(denial.get("tool_use_id"))] = str(denial.get("tool_name"))


def _cost_of(usage: object) -> float | None:
    """What the models of a result's own usage cost together; None where the client does not say."""
    if not isinstance(usage, dict):
        return None
    costs = [finite(of_model.get("costUSD")) for of_model in usage.values() if isinstance(of_model, dict)]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _str(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST else None


def finite(value: object) -> float | None:
    """A number; not NaN or one without end, which Python reads and no record can hold."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST
    return float(value) if good else None  # type: ignore[arg-type]


def _sum(old: int | None, new: int | None) -> int | None:
    return new if old is None else old + (new or 0)
