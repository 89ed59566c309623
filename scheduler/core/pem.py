"""Private keys in PEM, followed by lines from BEGIN to END, or to the end of the text where END is missing. Pure."""

from __future__ import annotations

import re

KIND = "private-key"
LITERAL = "PRIVATE"
_GAP = r"(?: |%20|\+)"
_LABEL = rf"(?:{_GAP}[A-Z0-9]{{1,12}}){{0,4}}{_GAP}PRIVATE{_GAP}KEY(?:{_GAP}BLOCK)?{_GAP}?-{{4,5}}"
_BEGIN = re.compile(rf"-{{4,5}}{_GAP}?BEGIN{_LABEL}")
_END = re.compile(rf"-{{4,5}}{_GAP}?END{_LABEL}")
# What may stand around a line of a key: quotes, an escaped line break, a comma, the marks of a diff or a quotation.
_AROUND = re.compile(r"(?:\\[nr]|[^A-Za-z0-9/=])*")
_HEADER = re.compile(r"\W*(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID|Subject):|\W*-[A-Z -]*\Z")
_BODY = re.compile(r"[A-Za-z0-9+/]{32,}")
_LAST_LINE = re.compile(r"[A-Za-z0-9+/=]+")
_PATIENCE = 20


class Pem:
    """The state of one text. A line that is clearly none of a key (a log line between, or code that only names the
    BEGIN line) is left alone; after 20 such lines the key is taken to have ended."""

    def __init__(self) -> None:
        self.open = False
        self._foreign = 0

    def copy(self) -> Pem:
        """The same state, apart from this one."""
        other = Pem()
        other.restore(self)
        return other

    def restore(self, before: Pem) -> None:
        """Be in the state of another again."""
        self.open, self._foreign = before.open, before._foreign

    def spans(self, line: str) -> list[tuple[int, int]]:
        """The parts of the text's next line that belong to a private key. A first part at 0 goes on with the key of
        the line before where `open` was true."""
        found, at = [], 0
        if self.open:
            end = _END.search(line)
            if end is None and _BEGIN.search(line) is None:
                return self._inside(line)
            self.open = False
            if end is not None:
                found.append((0, end.end()))
                at = end.end()
        while (begin := _BEGIN.search(line, at)) is not None:
            end = _END.search(line, begin.end())
            if end is None:
                if _is_begin(line[begin.end() :]):
                    found.append((begin.start(), len(line)))
                    self.open, self._foreign = True, 0
                break
            found.append((begin.start(), end.end()))
            at = end.end()
        return found

    def _inside(self, line: str) -> list[tuple[int, int]]:
        if _BODY.search(line) or _HEADER.match(line) or not line.strip():
            self._foreign = 0
            return [(0, len(line))]
        core = _core(line)
        if core and _LAST_LINE.fullmatch(core):
            return [(0, len(line))]
        self._foreign += 1
        self.open = self._foreign < _PATIENCE
        return []


def _is_begin(rest: str) -> bool:
    """Whether what follows BEGIN on its line lets a key follow, rather than a sentence."""
    return rest.startswith(("\\n", "\\r")) or _BODY.search(rest) is not None or not _core(rest)


def _core(line: str) -> str:
    begin = _AROUND.match(line)
    core = line[begin.end() if begin else 0 :]
    return re.sub(r"(?:\\[nr]|[^A-Za-z0-9+/=\\]|(?<=\W)\+)+$", "", core[:256])
