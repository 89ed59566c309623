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


class _Piece(NamedTuple):
    number: int
    data: bytes
    cost: int


@dataclass
class _Stream:
    room: int  # for what passes at once
    held: deque[_Piece] = field(default_factory=deque)
    cost: int = 0
    dropped: int = 0
    before: bytes = b""  # the last of what was dropped

    def hold(self, piece: _Piece) -> None:
        self.cost += piece.cost
        last = self.held[-1] if self.held else None
        if last is not None and last.number == piece.number - 1 and len(last.data) < _SMALL:
            self.held.pop()
            piece = _Piece(piece.number, last.data + piece.data, last.cost + piece.cost)
        else:
            self.cost += PIECE_COST
        self.held.append(piece)

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
        stream.hold(_Piece(self._count, data, cost))
        most = self._tail + max(stream.room, 0)
        while len(stream.held) > 1 and stream.cost - stream.held[0].cost >= most:
            stream.drop()
        return False

    def gaps(self) -> list[tuple[str, int, bytes]]:
        """At the end: of each stream of which something is left out how many bytes, and the last whole lines of that,
        for a redaction to see."""
        found = []
        for name, stream in self._streams.items():
            if stream.dropped:
                stream.begin_at_a_line()
                found.append((name, stream.dropped, stream.before))
                stream.dropped, stream.before = 0, b""
        return found

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """What was held, in the order in which it came, once."""
        while left := [(stream.held[0].number, name) for name, stream in self._streams.items() if stream.held]:
            name = min(left)[1]
            yield name, self._streams[name].held.popleft().data
