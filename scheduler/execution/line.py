"""The line between a runner and a supervisor: whole messages over a stream. Imported by both, so built-ins only."""

from __future__ import annotations

import marshal

TYPE_CHECKING = False  # of `typing`, without its 4 ms
if TYPE_CHECKING:
    from typing import Any


class Line:
    """Messages over a stream: a length of four bytes, then a dict in `marshal` form.

    Both ends run the same interpreter (`sys.executable`), which is what `marshal` asks for; unlike `json` it is built
    in and carries bytes.
    """

    def __init__(self) -> None:
        self._pending = b""

    @staticmethod
    def frame(message: dict[str, Any]) -> bytes:
        """One message as it goes over the stream."""
        body = marshal.dumps(message)
        return len(body).to_bytes(4, "big") + body

    def feed(self, chunk: bytes) -> None:
        """Take what was read from the stream."""
        self._pending += chunk

    def take(self) -> dict[str, Any] | None:
        """The next whole message, None while there is none."""
        end = 4 + int.from_bytes(self._pending[:4], "big")
        if len(self._pending) < max(end, 5):
            return None
        body, self._pending = self._pending[4:end], self._pending[end:]
        message: dict[str, Any] = marshal.loads(body)
        return message
