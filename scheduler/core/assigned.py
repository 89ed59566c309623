"""Secrets that are known by what stands before them: a name that announces one, a header, an option, a URL. Pure.

The names are searched for in the lower-case text, by literals first; only where a name and something like an assignment
stand together is the value looked at. No pattern has a quantifier without an upper bound except at its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from scheduler.core.named import harmless, is_placeholder, names_itself, parts, secret_kind, speaks_of_secrets
from scheduler.core.shapes import Span

FILL = "\v"
"""What has been masked already reads as this; it is white space, and in no value."""

_ASSIGNMENT = r"""
(?P<more>[\w.-]{0,40})(?![\w.-])
(?:
    [\\"'`\])]{0,4} [ \t]{0,8} (?P<sep>=>|:=|[!=]==?|[:=]|%3d|%3a) [ \t]{0,8}
    (?P<fold> (?P<mark>\\|[|>][+-]?)? [ \t]{0,8} \n [ \t]{0,40} )?
  | [\\"'`]{0,2} [ \t]{0,4} ,? [ \t]{0,4} (?:\n[ \t]{0,40})? \\?["']? value
    \\?["']? [ \t]{0,4} [:=] [ \t]{0,4}
  | (?P<gap> [ \t]{1,8} (?:\\\n[ \t]{0,40})? | \\\n[ \t]{0,40} )
  | (?P<tag> > )
)
"""
# No secret, and frequent: a `key` that no word stands before, numbers of `tokens`, and tests that `passed`.
_NEVER = {"key": r"(?<=[\w.-]key)", "token": r"(?!s(?![a-z]))", "pass": r"(?!(?:ed|es|ing)(?![a-z]))"}
_NAMES = tuple(
    (word, re.compile(word + _NEVER.get(word, "") + _ASSIGNMENT, re.ASCII | re.VERBOSE))
    for word in ("pass", "pwd", "secret", "token", "key", "credential")
)
_NAME_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-$")
_QUOTE = re.compile(r"(?:[bBrRuUfFL@$]{1,2})?(\\{0,3}[\"'`])", re.ASCII)
_NAME_LENGTH = 48
_READ = 128  # characters of a value that suffice to judge it
_LONGEST = 1024
_CLOSED = {
    quote: re.compile(rf"(?:[^{quote}\\\n\v]|\\[^\n\v]){{0,{_LONGEST}}}(?=[{quote}\v])", re.ASCII) for quote in "\"'`"
}
_PLAIN = re.compile(rf"[^\s\"'`&<>]{{1,{_READ}}}", re.ASCII)
_PLAIN_REST = re.compile(r"[^\s\"'`&<>;,]*", re.ASCII)
_TRAILING = ",;:)]}>|\\"

_CALL = re.compile(r"[({\[|]|[A-Za-z_$][\w$]*(?:(?:\.|::|->|\?\.)[A-Za-z_$][\w$]*)*[(\[{]", re.ASCII)
_DOTTED = re.compile(r"[A-Za-z_$]+\d{0,2}(?:(?:\.|::|->|\?\.)[A-Za-z_$]+\d{0,2})+", re.ASCII)
_CLASS = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*", re.ASCII)
_NEXT_FIELD = re.compile(r"[;,][A-Za-z]\w*=", re.ASCII)
_LETTERS = re.compile(r"[A-Za-z_.-]+")
_PROSE = re.compile(r"[A-Za-z][A-Za-z,.:'!? ]* [A-Za-z,.:'!? ]+")
_TYPES = frozenset("secretstr accesstoken basicauth sensitive optional callable protected private internal".split())


def assigned(text: str, low: str) -> Iterator[Span]:
    """The values in `text` that something before them calls a secret; `low` is `text` in lower case, of equal length.
    They may overlap."""
    for word, pattern in _NAMES:
        if word not in low:
            continue
        covered = 0
        for match in pattern.finditer(low):
            if match.end() > covered:
                span = _assignment(text, match)
                if span is not None:
                    covered = span.end
                    yield span


def _assignment(text: str, match: re.Match[str]) -> Span | None:
    start, at = match.start(), match.end()
    lowest = max(0, start - _NAME_LENGTH)
    while start > lowest and text[start - 1] in _NAME_CHARS:
        start -= 1
    name = text[start : match.end("more")]
    kind = secret_kind(name)
    if kind is None:
        return None
    if match["gap"] is not None and not name.startswith("-"):
        return None
    if match["tag"] is not None and text[start - 1 : start] != "<":
        return None
    found = _quoted(text, at) or _plain(text, at)
    if found is None or not _likely(found, name, lambda: _is_sure(text, match, start, found)):
        return None
    if match["fold"] is not None:
        # A value on the next line: a JSON string after its key, or what `|`, `>` or `\` announces.
        key = text[match.end("more")] in "\"'"
        if not (found.quoted and key if match["mark"] is None else _ends_line(text, found.end)):
            return None
    rest = _PLAIN_REST.match(text, found.end) if found.goes_on else None
    return Span(found.start, rest.end() if rest else found.end, kind)


def _is_sure(text: str, match: re.Match[str], start: int, found: _Value) -> bool:
    """Whether a value of letters alone is one all the same, as in `PASSWORD=swordfish`: no word of code or prose."""
    if match["fold"] is not None:
        return True
    if match["gap"] is not None:
        return "-" in found.value
    if text.startswith(("self.", "this."), start):
        return False
    tight = match["sep"] in ("=", "%3d", None) and text[match.end() - 1] not in " \t"
    if tight:
        return text[found.end : found.end + 1] not in (",", ")") or text[start - 1 : start] not in ("(", " ")
    if _DOTTED.fullmatch(found.value) or _CLASS.fullmatch(found.value):
        return False
    before = text[max(0, start - 64) : start].rpartition("\n")[2]
    alone = not before.strip(" \t-\"'") and _ends_line(text, found.end)
    # `PASS: a name` is what a test runner says.
    return alone and (match["sep"] == "=" or (match["sep"] == ":" and match["more"] + match[0][:4] != "pass"))


def _ends_line(text: str, at: int) -> bool:
    rest = text[at : at + 4].lstrip("\"'`, \t")
    return not rest or rest[0] == "\n"


class _Value(NamedTuple):
    value: str
    start: int
    end: int
    quoted: bool
    goes_on: bool = False
    """It is longer than what was read of it."""


def _quoted(text: str, at: int) -> _Value | None:
    """The value in quotes at a place."""
    opened = _QUOTE.match(text, at)
    if opened is None:
        return None
    begin, quote = opened.end(), opened[1]
    if len(quote) == 1:
        closed = _CLOSED[quote].match(text, begin)
        end = closed.end() if closed else -1
    else:
        end = text.find(quote, begin, begin + _LONGEST)
        fill = min((at for at in (text.find(char, begin, end) for char in (FILL, "\n")) if at >= 0), default=end)
        end = fill if text[fill : fill + 1] != "\n" else -1
    if end < 0:
        return None
    value = text[begin:end]
    # Backticks also set a word of prose apart.
    return _Value(value, begin, end, quote != "`" or not value.isalpha())


def _plain(text: str, at: int) -> _Value | None:
    """The value without quotes at a place, or behind a quote that nothing closes."""
    opened = _QUOTE.match(text, at)
    found = _PLAIN.match(text, opened.end() if opened else at)
    if found is None:
        return None
    value = _NEXT_FIELD.split(found[0], maxsplit=1)[0]
    if len(value) == _READ:
        return _Value(value, found.start(), found.end(), False, True)
    value = value.rstrip(_TRAILING)
    return _Value(value, found.start(), found.start() + len(value), False)


def _likely(found: _Value, name: str, is_sure: Callable[[], bool]) -> bool:
    """Whether a value can be the secret that its name announces."""
    value, quoted = found.value, found.quoted
    if len(value) < (6 if quoted else 8) or value[0].isspace() or is_placeholder(value):
        return False
    head = value[:_READ]
    if not quoted and _CALL.match(head):
        return False
    if len(set(head)) == 1 or harmless(head):
        return False
    if len(value) <= _NAME_LENGTH and (names_itself(value) or parts(value) == parts(name)):
        return False
    if quoted:
        return not (_PROSE.fullmatch(head) and speaks_of_secrets(head))
    if _LETTERS.fullmatch(value) or _DOTTED.fullmatch(value):
        return value.lower() not in _TYPES and is_sure()
    return True
