"""Text without its secrets, each replaced by `[REDACTED:<kind>]`. Pure.

They are known by value, by shape, or by what stands before them. Everything that is written to a disk passes through
here. Texts must be clean (`plain.plain`): an escape sequence within a secret would hide it. What is redacted stays as
it is when it is redacted again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scheduler.core import patch, pem
from scheduler.core.assigned import FILL, assigned
from scheduler.core.headers import placed
from scheduler.core.known import KIND as KNOWN
from scheduler.core.known import Known, known_values
from scheduler.core.plain import LINE_LIMIT, notice, without_notice
from scheduler.core.shapes import Span, shaped

__all__ = ["Found", "Redactor", "Span", "Stream", "known_values", "mark"]

_MARK = re.compile(r"\[REDACTED:[a-z0-9-]{1,40}\]")
_BLOCK = 8192  # characters looked at together: enough to spread the cost of a look, few enough that most hold nothing
_CONTEXT = 160  # characters of the line before, for a value that stands on the line after its name
_PASSES = 4
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
# Where spans of several kinds overlap, the first of these names the whole, then any shape, then what was announced.
_VAGUE = ("password", "secret", "token", "key", "credential", "authorization", "cookie", "url-password", KNOWN)


class Found(NamedTuple):
    """A secret, and the path of the file that it is in."""

    path: str
    kind: str
    text: str


def mark(kind: str) -> str:
    """What a secret is replaced by."""
    return f"[REDACTED:{kind}]"


class Redactor:
    """Made once per run from the values to mask (`known_values`)."""

    def __init__(self, values: Iterable[str]) -> None:
        self._known = Known(values)

    def text(self, text: str) -> str:
        """A whole text without its secrets. A line that cannot be redacted reads `[REDACTED:failed]`."""
        stream = Stream(self, limit=None, failed=mark("failed"))
        return "\n".join(stream.lines(text.split("\n")))

    def stream(self, beside: Stream | None = None) -> Stream:
        """For the lines of one stream, in order; `beside`: another of the same process, which a private key that is
        open there goes on in."""
        return Stream(self, beside=beside)

    def find(self, text: str) -> list[tuple[str, int, int]]:
        """The secrets of a text, in order and apart: kind, start, end."""
        keys = _key_spans(text)
        return [(span.kind, span.start, span.end) for span in merged([*keys, *self.spans(blanked(text, keys))])]

    @property
    def texts(self) -> Sequence[str]:
        """The secrets that are known by their value, each of one line or whole."""
        return self._known.texts

    def find_known(self, text: str) -> list[tuple[str, int, int]]:
        """Those alone that are known by their value."""
        return [(span.kind, span.start, span.end) for span in merged(self._known.spans(text))]

    def find_exact(self, text: str) -> list[tuple[str, int, int]]:
        """Those that their value or their shape gives away, for what is no text: there a name announces nothing."""
        keys = _key_spans(text)
        spans = merged([*keys, *self._known.spans(text), *shaped(text)])
        return [(span.kind, span.start, span.end) for span in spans]

    def new_secrets(self, diff: str, whole: str | None = None) -> list[Found]:
        """The secrets that a unified diff brings in: those in an added line and in no line that was there before. Where
        `diff` is that of several commits one after the other, `whole` is that from the first state to the last: what
        one commit adds and the next removes was not there before."""
        files = patch.parse(diff)
        before = "\n".join(file.before for file in (files if whole is None else patch.parse(whole)))
        new = {
            Found(file.path, kind, file.added[start:end])
            for file in files
            for kind, start, end in self.find(file.added)
            if file.added[start:end] not in before
        }
        return sorted(new)

    def spans(self, text: str) -> list[Span]:
        """The secrets of a text but for private keys in PEM; they may overlap. What is found is looked at once more
        without them, as a secret may end where another begins; what has not settled after some rounds is one secret."""
        rest = _MARK.sub(lambda match: FILL * len(match[0]), text) if "[REDACTED:" in text else text
        spans: list[Span] = []
        for _ in range(_PASSES):
            found = self._scan(rest)
            if not found:
                return spans
            spans += found
            rest = blanked(rest, found)
        return spans + [_line_around(text, span) for span in self._scan(rest)]

    def _scan(self, text: str) -> list[Span]:
        low = text.lower()
        if len(low) != len(text):
            low = text.translate(_ASCII_LOWER)
        return [*self._known.spans(text), *shaped(text), *assigned(text, low), *placed(text, low)]


class Stream:
    """The lines of one stream. Remembers an open private key, and the line before."""

    def __init__(
        self,
        redactor: Redactor,
        *,
        limit: int | None = LINE_LIMIT,
        failed: str | None = None,
        beside: Stream | None = None,
    ) -> None:
        self._redactor = redactor
        self._limit = limit
        self._failed = failed
        self._pem: pem.Pem = beside._pem if beside else pem.Pem()
        self._context = ""
        self.dropped = 0
        """Lines that could not be redacted and are therefore lost."""

    def line(self, line: str) -> str | None:
        """The next line (no line break within) without its secrets; None where there is nothing to write: within a
        private key, after its first line, and where the redaction failed."""
        done = self.lines([line])
        return done[0] if done else None

    def lines(self, lines: Sequence[str]) -> list[str]:
        """The next lines, as `line` does for each, and much faster."""
        done: list[str] = []
        block: list[str] = []
        size = 0
        for line in lines:
            block.append(line)
            size += len(line) + 1
            if size >= _BLOCK:
                done += self._safe(block)
                block, size = [], 0
        return done + self._safe(block) if block else done

    def _safe(self, lines: list[str]) -> list[str]:
        before = self._pem.copy()
        try:
            return self._clean(lines)
        except Exception:
            # Whatever it was: better a line lost than a secret kept.
            self._pem.restore(before)
        if len(lines) > 1:
            return [done for line in lines for done in self._safe([line])]
        self._context = ""
        self.dropped += 1
        return [] if self._failed is None else [self._failed]

    def _clean(self, lines: list[str]) -> list[str]:
        text = "\n".join(lines)
        if self._pem.open or pem.LITERAL in text:
            lines = self._without_keys(lines)
            text = "\n".join(lines)
        if not lines:
            return []
        context = self._context
        self._context = _MARK.sub(FILL, lines[-1])[-_CONTEXT:] if "[" in lines[-1] else lines[-1][-_CONTEXT:]
        spans = self._redactor.spans(f"{context}\n{text}")
        skip = len(context) + 1
        if spans or (self._limit is not None and len(text) > self._limit):
            spans = [Span(s.start - skip, s.end - skip, s.kind) for s in spans if s.start >= skip]
            lines = self._rendered(lines, merged(spans))
        return lines

    def _without_keys(self, lines: list[str]) -> list[str]:
        done = []
        for line in lines:
            inside = self._pem.open
            spans = self._pem.spans(line)
            goes_on = inside and bool(spans) and spans[0][0] == 0
            parts, at = [], 0
            for index, (start, end) in enumerate(spans):
                parts += [line[at:start], "" if goes_on and index == 0 else mark(pem.KIND)]
                at = end
            clean = "".join([*parts, line[at:]])
            if not (goes_on and not clean.strip(" \t\"'`,;)")):
                done.append(clean)
        return done

    def _rendered(self, lines: list[str], spans: list[Span]) -> list[str]:
        done, at, index = [], 0, 0
        for line in lines:
            first, end = index, at + len(line)
            while index < len(spans) and spans[index].end <= end:
                index += 1
            here = [Span(span.start - at, span.end - at, span.kind) for span in spans[first:index]]
            done.append(_masked(line, here, self._limit))
            at = end + 1
        return done


def _masked(line: str, spans: list[Span], limit: int | None) -> str:
    """The line with marks for its spans, cut after `limit` characters, but never within a mark."""
    body, over, room = line, 0, len(line)
    if limit is not None and len(line) > limit:
        body, over = without_notice(line)
        if len(body) <= limit:
            body, over = line, 0
        else:
            over, room = over or len(body) - limit, limit
    parts, at, size = [], 0, 0
    for span in spans:
        if span.start >= room:
            break
        parts += [body[at : span.start], mark(span.kind)]
        at = span.end
    parts.append(body[at : max(room, at)])
    if not over:
        return "".join(parts)
    for index, part in enumerate(parts):
        size += len(part)
        if size > room:
            # Marks may be longer than what they stand for.
            parts[index:] = [part[: len(part) - (size - room)]] if index % 2 == 0 else []
            break
    return "".join(parts) + notice(over)


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, each group of overlapping ones as one, under the most telling of their kinds."""
    done: list[Span] = []
    for span in sorted(spans):
        last = done[-1] if done else None
        if last is None or span.start >= last.end:
            done.append(span)
        else:
            kind = max(last.kind, span.kind, key=lambda kind: (_rank(kind), kind == last.kind))
            done[-1] = Span(last.start, max(last.end, span.end), kind)
    return done


def _rank(kind: str) -> int:
    return _VAGUE.index(kind) if kind in _VAGUE else len(_VAGUE)


def blanked(text: str, spans: Iterable[Span]) -> str:
    """The text with FILL for what the spans cover, of the same length."""
    parts, at = [], 0
    for span in merged(spans):
        # Line breaks stay: no secret but a private key goes over one.
        parts += [text[at : span.start], re.sub(r"[^\n]", FILL, text[span.start : span.end])]
        at = span.end
    return "".join([*parts, text[at:]])


def _line_around(text: str, span: Span) -> Span:
    end = text.find("\n", span.end)
    return Span(text.rfind("\n", 0, span.start) + 1, len(text) if end < 0 else end, "line")


def _key_spans(text: str) -> list[Span]:
    """The private keys in PEM, each from BEGIN to END."""
    if pem.LITERAL not in text:
        return []
    state, spans, at = pem.Pem(), list[Span](), 0
    for line in text.split("\n"):
        inside = state.open
        for start, end in state.spans(line):
            if inside and start == 0 and spans:
                spans[-1] = Span(spans[-1].start, at + end, pem.KIND)
            else:
                spans.append(Span(at + start, at + end, pem.KIND))
            inside = False
        at += len(line) + 1
    return spans
