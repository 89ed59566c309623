"""What a process writes to its two streams, joined where it goes from one to the other: a secret of which one stream
has a part and the other the rest is in neither of them. Pure.

Which came first is not sure when both come in one moment, nor where one write ended within what was read at once. So
lines are held for a moment, as long as `tick` says; either order is tried, and any two parts that make a whole.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from scheduler.core.known import KIND
from scheduler.core.redact import Redactor, mark
from scheduler.core.shapes import BEGINNING, shaped

WINDOW = 1024
"""Characters on each side of such a place that are looked at."""


_HELD = 64 * 1024  # bytes of output of which the lines are held for a moment
_CHUNKS = 24  # reads, likewise
_MOMENT = 4096  # characters of a piece, and of the one before, among which parts are looked for wherever they stand
_SHORTEST = 4  # characters of a part that are taken out
_TRIED = 8
_WORD = re.compile(r"[\w.-]+", re.ASCII)
_STRONG = re.compile(r"(?=[\w.-]*(?:[0-9][\w.-]*[A-Za-z]|[A-Za-z][\w.-]*[0-9]|[a-z][A-Z]))[\w.-]{6}", re.ASCII)


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


@dataclass(frozen=True)
class _Chunk:
    """What was read at once of one stream: the lines that it ends, the first of which is the `line`-th and was there
    but for what is new from `skip` on; the rest of a line that goes on."""

    stream: str
    line: int
    skip: int
    lines: list[str]
    rest: str
    size: int

    def piece(self, at: int) -> _Piece:
        """Its `at`-th part of a line."""
        ended = at < len(self.lines)
        skip = self.skip if at == 0 else 0
        return _Piece(self.stream, self.line + at, skip, (self.lines[at] if ended else self.rest)[skip:], ended)

    @property
    def count(self) -> int:
        """How many parts of lines it has."""
        return len(self.lines) + bool(self.rest)


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
        self._ended = dict.fromkeys(readers, 0)  # lines
        self._cuts: dict[tuple[str, int], list[_Cut]] = defaultdict(list)
        self._chain: list[_Piece] = []
        self._old: list[_Chunk] = []
        self._new: list[_Chunk] = []

    def feed(self, stream: str, data: bytes) -> Released:
        """Take a piece of output. Lines come out once too many are held."""
        reader = self._readers[stream]
        begun = reader.rest()
        lines = reader.feed(data)
        rest = reader.rest()
        whole = lines[0] if lines else rest
        skip = len(begun) if whole.startswith(begun) else 0  # else the line began anew
        now = _Chunk(stream, self._ended[stream], skip, lines, rest, len(data))
        self._ended[stream] += len(lines)
        if now.count:
            others = [chunk for chunk in (*self._old, *self._new) if chunk.stream != stream and chunk.count]
            if others:
                self._meet(others, now)
            self._join(now.piece(0), now.piece(now.count - 1))
        held = [*self._old, *self._new]
        released = self.flush() if len(held) >= _CHUNKS or sum(chunk.size for chunk in held) > _HELD else []
        self._new.append(now)
        return released

    def tick(self) -> Released:
        """The lines that were held already at the last call: a moment has passed."""
        old, self._old, self._new = self._old, self._new, []
        return self._released(old)

    @property
    def holds(self) -> bool:
        """Whether any lines are held."""
        return bool(self._old or self._new)

    def flush(self) -> Released:
        """All lines that are held."""
        held, self._old, self._new = [*self._old, *self._new], [], []
        return self._released(held)

    def end(self) -> Released:
        """All that is left, at the end of the streams."""
        last = [_Chunk(name, self._ended[name], 0, reader.end(), "", 0) for name, reader in self._readers.items()]
        return self.flush() + self._released(last)

    def _released(self, chunks: Sequence[_Chunk]) -> Released:
        if not self._cuts:
            return [(chunk.stream, chunk.lines) for chunk in chunks if chunk.lines]
        return [(chunk.stream, [self._cleaned(chunk, at) for at in range(len(chunk.lines))]) for chunk in chunks]

    def _cleaned(self, chunk: _Chunk, at: int) -> str:
        return _without(chunk.lines[at], self._cuts.pop((chunk.stream, chunk.line + at), ()))

    def _join(self, first: _Piece, last: _Piece) -> None:
        """Look where the new piece, from its first line to its last, goes on with what came before."""
        chain = self._chain
        if chain and chain[-1].stream == first.stream:
            if chain[-1].ended:
                chain = []
            else:
                first = replace(chain[-1], text=chain[-1].text + first.text, ended=first.ended)
                chain = chain[:-1]
        chain = [*chain, first]
        if len(chain) > 1:
            self._look(chain)
        if last.line != first.line:
            chain = [_cut_short(last)]
        elif first.ended or len(first.text) > WINDOW:
            chain = [_cut_short(first)]
        while sum(len(piece.text) for piece in chain) > 4 * WINDOW:
            chain = chain[1:]
        self._chain = chain

    def _meet(self, others: Sequence[_Chunk], now: _Chunk) -> None:
        """Look for the two parts of a secret in what came in one moment on the two streams, in either order."""
        first, last = now.piece(0), _cut_short(now.piece(now.count - 1))
        for chunk in others[-_TRIED:]:
            self._look([_cut_short(chunk.piece(chunk.count - 1)), first])
            self._look([last, chunk.piece(0)])
        if sum(chunk.size + len(chunk.piece(0).text) for chunk in (*others, now)) > _MOMENT:
            return
        mine = [now.piece(at) for at in range(now.count)]
        theirs = [chunk.piece(at) for chunk in others for at in range(chunk.count)]
        for one, other in ((theirs, mine), (mine, theirs)):
            self._match_known(one, other)
            self._match_shaped(one, other)

    def _match_known(self, one: Sequence[_Piece], other: Sequence[_Piece]) -> None:
        head, rest = ("\n".join(piece.text for piece in pieces) for pieces in (one, other))
        for secret in self._redactor.texts:
            half = len(secret) // 2
            if secret[:half] not in head and secret[half:] not in rest:
                continue
            for at in range(1, len(secret)):
                if secret[:at] in head and secret[at:] in rest:
                    self._take_out(one, secret[:at], KIND)
                    self._take_out(other, secret[at:], KIND)

    def _match_shaped(self, one: Sequence[_Piece], other: Sequence[_Piece]) -> None:
        begun = [(piece, match) for piece in one for match in BEGINNING.finditer(piece.text)][-_TRIED:]
        words = [(piece, word) for piece in other if (word := _WORD.match(piece.text))] if begun else []
        for piece, match in begun:
            around = piece.text[max(match.start() - 4, 0) : match.end()]
            alone = any(span.end == len(around) for span in shaped(around))
            for there, word in (*words[:_TRIED], *words[_TRIED:][-_TRIED:]):
                if (alone or there is not other[0]) and not _STRONG.match(word[0]):
                    continue  # a word of its own, rather than the rest of this one
                span = next((s for s in shaped(around + word[0]) if s.start < len(around) < s.end), None)
                if span is not None:
                    self._take_out([piece], around[span.start :], span.kind)
                    self._take_out([there], word[0], span.kind)

    def _take_out(self, pieces: Sequence[_Piece], part: str, kind: str) -> None:
        for piece in pieces if len(part) >= _SHORTEST else ():
            for found in re.finditer(re.escape(part), piece.text):
                self._cuts[piece.stream, piece.line].append(_Cut(piece.start + found.start(), part, kind))

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
