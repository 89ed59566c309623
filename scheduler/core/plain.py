"""Text from programs made safe to keep and to show: no control bytes, no escapes, no endless lines. Pure."""

from __future__ import annotations

import codecs
import re
import unicodedata

LINE_LIMIT = 16 * 1024
OVERLAP = 4 * 1024
_HELD = 4 * LINE_LIMIT
_LONGEST_ESCAPE = 4200
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)?|[ -/]*[0-~]?)|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: str) -> str:
    """`text` without escape sequences, control, bidirectional and zero-width characters; tabs and newlines stay."""
    return _CONTROL.sub("", _ESCAPE.sub("", text.replace("\r\n", "\n")))


def bared(text: str) -> str:
    """`text` without control characters alone: what an escape sequence would swallow stays, for who searches it."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def visible(text: str) -> str:
    """`text` with each character spelt out that nobody would see as what it is: of control and formatting (`\\x1b`,
    `\\u202e`), letters without ink, spaces other than the usual one. Newlines and tabs are kept: for review."""
    return "".join(c if c in " \n\t" or not _is_hidden(c) else _spelt(c) for c in text)


_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs")
#: Unicode's Default_Ignorable_Code_Point, as far as the categories above do not have it, and the blank of Braille.
_INKLESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


def _is_hidden(char: str) -> bool:
    return _INKLESS.match(char) is not None or unicodedata.category(char) in _HIDDEN


def _spelt(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def notice(count: int) -> str:
    """What stands at the end of a line of which `count` characters are missing."""
    return f" [{count} characters cut]"


_NOTICE = re.compile(r" \[(\d{1,15}) characters cut\]\Z")


def without_notice(line: str) -> tuple[str, int]:
    """A line without its notice, and the number there (0 where it has none)."""
    found = _NOTICE.search(line, max(0, len(line) - 40))
    return (line[: found.start()], int(found[1])) if found else (line, 0)


class Lines:
    """Cuts a stream of bytes into clean lines.

    Of a progress line (`\\r`) only its last state is kept; bytes that are no UTF-8 become U+FFFD. A line longer than
    16 KB comes with the 4 KB after them and then a notice of all that is over 16 KB: whoever redacts it needs to see
    the whole of a secret at that place, and cuts afterwards (`redact.Stream`).
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._dropped = 0
        self._returned = False  # the line so far ends in `\\r`: what comes next, but a newline, begins it anew

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        first, *others = self._decoder.decode(data).split("\n")
        lines = []
        self._add(first)
        for piece in others:
            lines.append(self._finish())
            self._add(piece)
        return lines

    def rest(self) -> str:
        """What there is of a line that has not ended, clean."""
        return plain(self._rest) if self._rest else ""

    def end(self) -> list[str]:
        """The last line, where the stream did not end in a newline."""
        self._add(self._decoder.decode(b"", final=True))
        return [self._finish()] if self._rest or self._returned else []

    def _add(self, piece: str) -> None:
        if not piece:
            return
        state = piece.rstrip("\r")
        last = state.rfind("\r") + 1
        if state and (last or self._returned):
            self._rest, self._dropped = "", 0
        if state:
            self._returned = False
        self._returned = self._returned or len(state) < len(piece)
        if self._dropped:
            # What follows a gap is not joined to what comes before it: together they would be neither.
            self._dropped += len(state) - last
            return
        self._rest += state[last:]
        if len(self._rest) > _HELD:
            self._hold()

    def _hold(self) -> None:
        """Keep of a very long line what may be written."""
        escape = self._rest.rfind("\x1b", len(self._rest) - _LONGEST_ESCAPE)
        whole = escape if escape >= 0 else len(self._rest)
        clean = plain(self._rest[:whole])
        self._rest = clean + self._rest[whole:]
        if len(clean) > LINE_LIMIT + OVERLAP:
            self._dropped = len(self._rest) - LINE_LIMIT - OVERLAP
            self._rest = clean[: LINE_LIMIT + OVERLAP]

    def _finish(self) -> str:
        line = plain(self._rest)
        over = len(line) - LINE_LIMIT + self._dropped
        self._rest, self._dropped, self._returned = "", 0, False
        return line[: LINE_LIMIT + OVERLAP] + (notice(over) if over > 0 else "")
