"""Output that is more than a log keeps: its beginning passes at once, of the rest the end is held until all has come.

So a program that writes without an end costs what reading its bytes costs, and not what cleaning them does.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.store.tasklog import HEAD, TAIL

LINE_COST = 46
"""Bytes that each line gets before its text in a log."""

PIECE_COST = 120
"""Bytes that a piece takes beside its own."""

OVERLAP = 1 << 16
"""Bytes before what is kept that a redaction sees: a private key may have begun there."""

_SMALL = 4096


class Gap(NamedTuple):
    """How many bytes are left out, and the last whole lines of them, for a redaction to see."""

    size: int
    before: bytes


class _Piece(NamedTuple):
    number: int
    data: bytes
    cost: int


@dataclass
class _Stream:
    room: int  # for the beginning
    begun: deque[_Piece] = field(default_factory=deque)  # the rest of the beginning, where it comes late
    held: deque[_Piece] = field(default_factory=deque)
    cost: int = 0
    dropped: int = 0
    before: bytes = b""  # the last of what was dropped

    def take(self, piece: _Piece) -> None:
        if self.room > 0:
            self.room -= piece.cost
            _put(self.begun, piece)
        else:
            self.cost += piece.cost + PIECE_COST * _put(self.held, piece)

    def drop(self) -> None:
        gone = self.held.popleft()
        self.cost -= gone.cost + PIECE_COST
        self.dropped += len(gone.data)
        self.before = (self.before + gone.data)[-OVERLAP:]

    def begin_at_a_line(self) -> None:
        """Drop what is left of the line that is cut."""
        while self.held:
            number, data, cost = self.held[0]
            end = data.find(b"\n") + 1
            if not end:
                self.drop()
                continue
            self.held[0] = _Piece(number, data[end:], cost)
            self.dropped += end
            self.before += data[:end]
            return
        self.before += b"\n"

    def gap(self) -> Gap | None:
        """What is left out before the piece that comes next, once."""
        if self.begun or not self.dropped:
            return None
        self.begin_at_a_line()
        found = Gap(self.dropped, self.before)
        self.dropped, self.before = 0, b""
        return found


def _put(pieces: deque[_Piece], piece: _Piece) -> bool:
    """Add a piece; whether it is one more, and not part of the last."""
    last = pieces[-1] if pieces else None
    if last is None or last.number != piece.number - 1 or len(last.data) >= _SMALL:
        pieces.append(piece)
        return True
    pieces[-1] = _Piece(piece.number, last.data + piece.data, last.cost + piece.cost)
    return False


class Flood:
    """The streams of one process. `head` and `tail`: bytes of a log that beginning and end of each may take. Once one
    has passed its head, all are held: what they say together stays in its order."""

    def __init__(self, head: int = HEAD, tail: int = TAIL) -> None:
        self._tail = tail
        self._streams: dict[str, _Stream] = defaultdict(lambda: _Stream(head))
        self._count = 0
        self._holding = False

    def passes(self, name: str, data: bytes) -> bool:
        """Take what comes next; whether it goes to the log now, or is held."""
        stream = self._streams[name]
        cost = len(data) + LINE_COST * data.count(b"\n")
        if not self._holding:
            stream.room -= cost
            self._holding = stream.room <= 0
            return True
        self._count += 1
        stream.take(_Piece(self._count, data, cost))
        while len(stream.held) > 1 and stream.cost - stream.held[0].cost >= self._tail:
            stream.drop()
        return False

    def pieces(self) -> Iterator[tuple[str, Gap | None, bytes]]:
        """At the end: what was held, once, in the order in which it came: pieces, and what is left out before one."""
        while left := [(queue[0].number, name) for name, stream in self._streams.items()
                       if (queue := stream.begun or stream.held)]:  # fmt: skip
            name = min(left)[1]
            stream = self._streams[name]
            gap = stream.gap()
            yield name, gap, b"" if gap else (stream.begun or stream.held).popleft().data
