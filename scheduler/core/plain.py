"""Text from programs made safe to keep and to show: no control bytes, no escapes, no endless lines. Pure."""

from __future__ import annotations

import codecs
import re
import unicodedata

LINE_LIMIT = 16 * 1024
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|[ -/]*[0-~]?)|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: str) -> str:
    """`text` without escape sequences, control, bidirectional and zero-width characters; tabs and newlines stay."""
    return _CONTROL.sub("", _ESCAPE.sub("", text.replace("\r\n", "\n")))


def visible(text: str) -> str:
    """`text` with each control or formatting character spelt out (`\\x1b`, `\\u202e`), newlines kept: for review."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _HIDDEN else _spelt(c) for c in text)


_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _spelt(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


class Lines:
    """Cuts a stream of bytes into clean lines.

    Of a progress line (`\\r`) only its last state is kept; a line longer than 16 KB is cut, and says so; bytes that are
    no UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._dropped = 0

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *whole, rest = (self._rest + self._decoder.decode(data)).split("\n")
        lines = []
        for line in whole:
            lines.append(self._finish(line))
            self._dropped = 0
        if len(rest) > 2 * LINE_LIMIT:
            self._dropped += len(rest) - LINE_LIMIT
            rest = rest[:LINE_LIMIT]
        self._rest = rest
        return lines

    def end(self) -> list[str]:
        """The last line, where the stream did not end in a newline."""
        last = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        return [self._finish(last)] if last else []

    def _finish(self, line: str) -> str:
        line = line.rstrip("\r")
        line = plain(line[line.rfind("\r") + 1 :])
        dropped = self._dropped + max(len(line) - LINE_LIMIT, 0)
        return line[:LINE_LIMIT] + (f" [{dropped} characters cut]" if dropped else "")
