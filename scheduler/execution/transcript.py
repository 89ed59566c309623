"""The client's stream as text that a person can follow in a log: what was said, each tool call, what went wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from scheduler.core.plain import LINE_LIMIT, OVERLAP, notice, plain

Message = Mapping[str, Any]
_SUBJECTS = "file_path notebook_path command pattern path url query skill description prompt".split()
_SHORT = 160


class Transcript:
    """Renders the messages of one stream, in order."""

    def __init__(self, mask: Callable[[str], str] = str) -> None:
        """`mask` takes secrets out; it is used where a text is cut, which could leave half of one."""
        self._mask = mask
        self._began = False
        self._cwd = ""
        self._tools: dict[str, str] = {}

    def lines(self, message: Message) -> list[str]:
        """The lines, clean and without line breaks, that a message is worth; many are worth none. A long one is cut as
        core/plain.Lines does: whoever redacts it cuts the rest."""
        render = _RENDERERS.get(str(message.get("type")))
        rendered = render(self, message) if render else ()
        return [cut_long(line) for text in rendered for line in plain(text).split("\n")]

    def _system(self, message: Message) -> Iterator[str]:
        if message.get("subtype") == "init" and not self._began:
            self._began = True
            self._cwd = str(message.get("cwd", ""))
            version, model = message.get("claude_code_version"), message.get("model")
            yield f"session {message.get('session_id')}, {model}, client {version}"
        elif message.get("subtype") == "api_retry":
            cause = message.get("error_status") or message.get("error") or "no answer"
            seconds = _number(message.get("retry_delay_ms")) / 1000
            tries = f"{message.get('attempt')} of {message.get('max_retries')}"
            yield f"… the API refused ({cause}); try {tries} in {seconds:.0f} s"

    def _assistant(self, message: Message) -> Iterator[str]:
        indent = _indent(message)
        for block in _blocks(message):
            if block.get("type") == "text" and str(block.get("text", "")).strip():
                yield "\n".join(indent + line for line in str(block["text"]).strip().split("\n"))
            elif block.get("type") == "tool_use":
                name = str(block.get("name"))
                self._tools[str(block.get("id"))] = name
                yield f"{indent}→ {name} {self._subject(block.get('input'))}".rstrip()

    def _user(self, message: Message) -> Iterator[str]:
        for block in _blocks(message):
            if block.get("type") == "tool_result":
                name = self._tools.pop(str(block.get("tool_use_id")), "tool")
                if block.get("is_error") is True:
                    yield f"{_indent(message)}✗ {name}: {self._short(_text(block.get('content')))}".rstrip(": ")

    def _rate_limit(self, message: Message) -> Iterator[str]:
        info = message.get("rate_limit_info")
        if isinstance(info, dict) and info.get("status") in ("allowed_warning", "rejected"):
            resets_at = moment(info.get("resetsAt"))
            until = f", resets {resets_at:%Y-%m-%d %H:%M} UTC" if resets_at else ""
            state = "reached" if info["status"] == "rejected" else "near"
            yield f"… usage limit {info.get('rateLimitType') or ''} {state}{until}".replace("  ", " ")

    def _result(self, message: Message) -> Iterator[str]:
        words = ["failed" if message.get("is_error") else "done"]
        if message.get("subtype") != "success":
            words[0] += f" ({message.get('subtype')})"
        if message.get("api_error_status"):
            words[0] += f" (HTTP {message['api_error_status']})"
        words.append(f"{_number(message.get('num_turns')):.0f} turns")
        words.append(f"${_number(message.get('total_cost_usd')):.4f}")
        denials = message.get("permission_denials")
        if isinstance(denials, list) and denials:
            words.append(f"{len(denials)} tool calls denied")
        errors = message.get("errors")
        yield "\n".join([f"= {', '.join(words)}", *map(str, errors if isinstance(errors, list) else [])])

    def _subject(self, arguments: object) -> str:
        if not isinstance(arguments, dict):
            return ""
        subject = next((str(arguments[key]) for key in _SUBJECTS if isinstance(arguments.get(key), str)), "")
        return self._short(subject.removeprefix(self._cwd + os.sep) if self._cwd else subject)

    def _short(self, text: str) -> str:
        line = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return _cut(self._mask(line[:LINE_LIMIT]), _SHORT)


_RENDERERS = {
    "system": Transcript._system,
    "assistant": Transcript._assistant,
    "user": Transcript._user,
    "rate_limit_event": Transcript._rate_limit,
    "result": Transcript._result,
}


def moment(epoch: object) -> datetime | None:
    """A moment from seconds since 1970, or None for what is none."""
    if isinstance(epoch, bool) or not isinstance(epoch, int | float) or not 0 < epoch < 1e11:
        return None
    return datetime.fromtimestamp(epoch, timezone.utc)


def _blocks(message: Message) -> Iterator[Message]:
    inner = message.get("message")
    content = inner.get("content") if isinstance(inner, dict) else None
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            yield block


def _text(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""


def _indent(message: Message) -> str:
    return "    " if message.get("parent_tool_use_id") else ""


def cut_long(line: str) -> str:
    """A line of bounded length, with what it lost said behind it."""
    over = len(line) - LINE_LIMIT
    return line if over <= 0 else line[: LINE_LIMIT + OVERLAP] + notice(over)


def _cut(line: str, limit: int) -> str:
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1 << 53 else 0.0  # no NaN, nothing endless
