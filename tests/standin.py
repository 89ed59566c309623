"""A Messages API on loopback that plays scripted turns, so that the real client works without network, account or cost.

    with StandIn() as api:
        api.play([tool("Write", file_path="a.txt", content="hello"), text("Done.")])
        … start the client with ANTHROPIC_BASE_URL=api.url …
        assert api.requests[0].prompt == …

A script serves the conversations whose first user message contains its `when`; the longest that fits wins, so
a subagent, or one of several clients at the same stand-in, is given a script of its own by a word of its prompt.
Turns are served in order and the last one again for ever. Side questions of the client (titles, summaries; they
offer no tools) get a fixed answer and use up no turn.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)


@dataclass(frozen=True)
class Turn:
    """One answer: content blocks with status 200, or an error body with any other status."""

    blocks: tuple[dict[str, Any], ...] = ()
    stop_reason: str = "end_turn"
    status: int = 200
    error: tuple[str, str] = ("", "")
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    output_tokens: int = 20


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The conversation's first user message, without what the client adds (date, git status, …)."""
        messages = self.body.get("messages") or [{}]
        return _REMINDER.sub("", _text(messages[0].get("content"))).strip()

    @property
    def said(self) -> str:
        """The text of all messages of the conversation, with what the client adds."""
        return "\n".join(_text(message.get("content")) for message in self.body.get("messages") or [])

    @property
    def tools(self) -> list[str]:
        return [str(offered.get("name", "")) for offered in self.body.get("tools") or []]

    @property
    def is_turn(self) -> bool:
        return self.path.split("?")[0] == "/v1/messages" and bool(self.tools)


def text(words: str, *, delay: float = 0.0, output_tokens: int = 20) -> Turn:
    """The assistant says `words` and ends; `delay` seconds pass before the first byte of the answer."""
    return Turn(({"type": "text", "text": words},), delay=delay, output_tokens=output_tokens)


def tool(name: str, *, words: str = "", output_tokens: int = 20, **arguments: Any) -> Turn:
    """The assistant calls a tool, which the client then really runs."""
    said = ({"type": "text", "text": words},) if words else ()
    call = {"type": "tool_use", "name": name, "input": arguments}
    return Turn((*said, call), "tool_use", output_tokens=output_tokens)


def failure(status: int, kind: str = "api_error", message: str = "stand-in", **headers: str) -> Turn:
    """An HTTP error; underscores in header names become hyphens."""
    return Turn(status=status, error=(kind, message), headers={k.replace("_", "-"): v for k, v in headers.items()})


def silence(seconds: float) -> Turn:
    """No byte for so long (or until the client leaves)."""
    return text("late", delay=seconds)


def bad_key() -> Turn:
    return failure(401, "authentication_error", "invalid x-api-key")


def overloaded() -> Turn:
    return failure(529, "overloaded_error", "Overloaded")


def no_credit() -> Turn:
    return failure(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")


def usage_limit(resets_at: int, claim: str = "five_hour") -> Turn:
    """The refusal of a subscription whose `claim` (`five_hour`, `seven_day`) is used up until `resets_at` (epoch s)."""
    window = {"five_hour": "5h", "seven_day": "7d"}[claim]
    unified = "anthropic-ratelimit-unified"
    return Turn(
        status=429,
        error=("rate_limit_error", "This request would exceed your account's rate limit. Please try again later."),
        headers={
            f"{unified}-status": "rejected",
            f"{unified}-reset": str(resets_at),
            f"{unified}-representative-claim": claim,
            f"{unified}-{window}-status": "rejected",
            f"{unified}-{window}-reset": str(resets_at),
            f"{unified}-{window}-utilization": "1.0",
            f"{unified}-overage-status": "rejected",
            f"{unified}-overage-disabled-reason": "org_level_disabled",
        },
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # A client that was killed has just gone.
            super().handle_error(request, client_address)


class StandIn:
    """The server; a context manager. `url` is its base address, `requests` all that came in so far, in order."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._scripts: dict[str, list[Turn]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.numbers = itertools.count(1)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def play(self, turns: Sequence[Turn], *, when: str = "") -> None:
        """Give the conversations whose first user message contains `when` this script (it replaces an earlier one)."""
        with self._lock:
            self._scripts[when] = list(turns)

    @property
    def turns(self) -> list[Request]:
        """The requests that used up a turn of a script."""
        return [request for request in self.requests if request.is_turn]

    def answer(self, request: Request) -> Turn:
        with self._lock:
            self.requests.append(request)
            if not request.is_turn:
                return text("ok")
            fitting = [when for when in self._scripts if when in request.prompt]
            if not fitting:
                return failure(404, "not_found_error", "the stand-in has no script for this prompt")
            script = self._scripts[max(fitting, key=len)]
            return script.pop(0) if len(script) > 1 else script[0]

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass, or less when the stand-in is being closed."""
        self._closing.wait(seconds)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text") or "") for block in content or [] if isinstance(block, dict))


def _usage(turn: Turn) -> dict[str, int]:
    return {
        "input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": turn.output_tokens,
    }


def _message(turn: Turn, model: str, number: int) -> dict[str, Any]:
    blocks = [
        {**block, "id": f"toolu_{number:04d}{index:02d}"} if block["type"] == "tool_use" else block
        for index, block in enumerate(turn.blocks)
    ]
    return {
        "id": f"msg_{number:04d}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": turn.stop_reason,
        "stop_sequence": None,
        "usage": _usage(turn),
    }


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The server-sent events that stream a message."""
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            start: dict[str, Any] = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            start = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": message["usage"]}
    yield {"type": "message_stop"}


def _handler(api: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Silent: the tests read `requests`."""

        def do_HEAD(self) -> None:
            self._send(200, b"")

        def do_GET(self) -> None:
            api.answer(Request("GET", self.path, dict(self.headers), {}))
            self._send(404, _error_body("not_found_error", "stand-in"))

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                body = json.loads(raw)
            except ValueError:
                body = {}
            turn = api.answer(Request("POST", self.path, dict(self.headers), body if isinstance(body, dict) else {}))
            if turn.delay:
                api.wait(turn.delay)
            self._reply(turn, body)

        def _reply(self, turn: Turn, body: dict[str, Any]) -> None:
            route = self.path.split("?")[0]
            if route == "/v1/messages/count_tokens":
                self._send(200, b'{"input_tokens": 100}')
            elif route != "/v1/messages":
                self._send(404, _error_body("not_found_error", "stand-in"))
            elif turn.status != 200:
                self._send(turn.status, _error_body(*turn.error), turn.headers)
            else:
                message = _message(turn, str(body.get("model", "stand-in")), next(api.numbers))
                if body.get("stream"):
                    lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _events(message))
                    self._send(200, "".join(lines).encode(), turn.headers, "text/event-stream")
                else:
                    self._send(200, json.dumps(message).encode(), turn.headers)

        def _send(
            self, status: int, body: bytes, headers: Mapping[str, str] | None = None, kind: str = "application/json"
        ) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.send_header("request-id", f"req_{next(api.numbers):04d}")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _error_body(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
