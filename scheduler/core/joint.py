"""What a process writes to its two streams, joined where it goes from one to the other: a secret of which one stream
has a part and the other the rest is in neither of them. Pure.

Which came first is not sure when both come in one moment. So the lines of a piece are held until the next piece, or
`flush`, and either order is tried.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from scheduler.core.redact import Redactor, mark

WINDOW = 1024
"""Characters on each side of such a place that are looked at."""


class Reader(Protocol):
    """Makes lines of bytes. `rest`: what there is of a line that has not ended."""

    def feed(self, data: bytes) -> list[str]: ...
    def end(self) -> list[str]: ...
    def rest(self) -> str: ...


@dataclass(frozen=True)
class _Piece:
    """A part of a line, as it came; `ended`: the line ends with it."""

    stream: str
    line: int
    start: int
    text: str
    ended: bool


class _Cut(NamedTuple):
    """What of a line goes: `text`, which stands at `start`."""

    start: int
    text: str
    kind: str


Released = list[tuple[str, list[str]]]
"""Lines in the order in which they came, each with the name of its stream."""


class Joint:
    """The streams of one process. The lines that it gives are still to be redacted, each by itself."""

    def __init__(self, redactor: Redactor, readers: Mapping[str, Reader]) -> None:
        self._redactor = redactor
        self._readers = readers
        self._lines = dict.fromkeys(readers, 0)  # how many have ended
        self._cuts: dict[tuple[str, int], list[_Cut]] = defaultdict(list)
        self._chain: list[_Piece] = []
        self._before: _Piece | None = None  # how the last piece began
        self._held: tuple[str, list[str]] = ("", [])

    def feed(self, stream: str, data: bytes) -> Released:
        """Take a piece of output; the lines of the piece before."""
        reader, line = self._readers[stream], self._lines[stream]
        begun = reader.rest()
        lines = reader.feed(data)
        first = _piece(stream, line, begun, lines[0] if lines else reader.rest(), ended=bool(lines))
        last = first
        if lines:
            rest, number = reader.rest(), line + len(lines)
            if rest:
                last = _piece(stream, number, "", rest, ended=False)
            elif len(lines) > 1:
                last = _piece(stream, number - 1, "", lines[-1], ended=True)
        self._join(first, last)
        released = self.flush()
        self._lines[stream] += len(lines)
        self._held = (stream, lines)
        self._before = first
        return released

    def flush(self) -> Released:
        """The lines that are held."""
        stream, lines = self._held
        self._held, self._before = ("", []), None
        return self._released(stream, lines)

    def end(self) -> Released:
        """All that is left, at the end of the streams."""
        left = self.flush()
        for stream, reader in self._readers.items():
            lines = reader.end()
            self._lines[stream] += len(lines)
            left += self._released(stream, lines)
        return left

    def _released(self, stream: str, lines: list[str]) -> Released:
        if not lines:
            return []
        if self._cuts:
            number = self._lines[stream] - len(lines)
            lines = [_without(line, self._cuts.pop((stream, number + at), ())) for at, line in enumerate(lines)]
        return [(stream, lines)]

    def _join(self, first: _Piece, last: _Piece) -> None:
        """Look where the new piece, from its first line to its last, goes on with what came before."""
        chain = self._chain
        if chain and chain[-1].stream == first.stream:
            if chain[-1].ended:
                chain = []
            else:
                first = replace(chain[-1], text=chain[-1].text + first.text, ended=first.ended)
                last = first if last.line == first.line else last
                chain = chain[:-1]
        elif self._before is not None and self._before.stream != first.stream:
            self._look([_cut_short(last), self._before])
        chain = [*chain, first]
        if len(chain) > 1:
            self._look(chain)
        if last is not first or first.ended or len(first.text) > WINDOW:
            chain = [_cut_short(last)]
        while sum(len(piece.text) for piece in chain) > 4 * WINDOW:
            chain = chain[1:]
        self._chain = chain

    def _look(self, pieces: Sequence[_Piece]) -> None:
        text = "".join([*(piece.text for piece in pieces[:-1]), pieces[-1].text[:WINDOW]])
        # Over the end of a line only what is known by its value: any word would go on with one of the next line.
        found = self._redactor.find_known(text) if pieces[0].ended else self._redactor.find(text)
        for kind, begin, end in found:
            at, over = 0, list[tuple[_Piece, _Cut]]()
            for piece in pieces:
                start, stop = max(begin - at, 0), min(end - at, len(piece.text))
                if start < stop:
                    over.append((piece, _Cut(piece.start + start, piece.text[start:stop], kind)))
                at += len(piece.text)
            for piece, cut in over if len(over) > 1 else ():
                self._cuts[piece.stream, piece.line].append(cut)


def _piece(stream: str, line: int, begun: str, whole: str, *, ended: bool) -> _Piece:
    """What of a line is new, where `begun` was there; all of it, where the line began anew."""
    start = len(begun) if whole.startswith(begun) else 0
    return _Piece(stream, line, start, whole[start:], ended)


def _cut_short(piece: _Piece) -> _Piece:
    over = max(len(piece.text) - WINDOW, 0)
    return replace(piece, start=piece.start + over, text=piece.text[over:]) if over else piece


def _without(line: str, cuts: Sequence[_Cut]) -> str:
    parts, at = [], 0
    for cut in sorted(cuts):
        end = cut.start + len(cut.text)
        if end > at and line.startswith(cut.text, cut.start):  # else the line began anew since
            parts += [line[at : max(cut.start, at)], mark(cut.kind)] if cut.start >= at else []
            at = end
    return "".join([*parts, line[at:]])
