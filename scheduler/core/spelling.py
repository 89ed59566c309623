"""A secret as programs print it: percent-encoded, escaped, quoted. Pure.

Only letters and digits stay as they are in all of these. So the longest run of them is what to search for, and what
stands around it is held against every spelling of the other characters, each by itself, in time that grows with their
number alone.
"""

from __future__ import annotations

import re
from functools import lru_cache

from scheduler.core.shapes import Span

SHORTEST = 3
LONGEST = 4096
_RUN = re.compile(r"[A-Za-z0-9]+")
_AS_IT_IS = re.compile(r"[A-Za-z0-9_.~-]*")
_WIDEST = 48  # characters of a spelling of one character
_NAMES = {"&": ("amp",), "<": ("lt",), ">": ("gt",), '"': ("quot",), "'": ("apos",)}
_QUOTED = {'"': ('""',), "'": ("''", "'\\''", "'\"'\"'")}
_LETTER = {"\n": "n", "\r": "r", "\t": "t"}
_MOST = 8  # backslashes that escape one character, where escaped text was escaped again

_Token = str | tuple[str, int, int]  # a character of any case; a text that comes so many times


def run_of(secret: str) -> str:
    """The part of a secret that every spelling has; empty where there is none, or only one spelling."""
    if len(secret) > LONGEST or _AS_IT_IS.fullmatch(secret):
        return ""
    longest = max(_RUN.findall(secret), key=len, default="")
    return longest if len(longest) >= SHORTEST else ""


def around(text: str, at: int, secret: str, kind: str) -> Span | None:
    """The secret whose run stands at a place of the text, in whatever spelling."""
    before, after, place, size = _patterns(secret)
    head = before.match(text[max(0, at - _WIDEST * place) : at][::-1])
    rest = head and after.match(text, at + size)
    return Span(at - head.end(), rest.end(), kind) if head and rest else None


@lru_cache(maxsize=256)
def _patterns(secret: str) -> tuple[re.Pattern[str], re.Pattern[str], int, int]:
    """What stands before the run, read backwards, and what stands after it; the place and length of the run."""
    run = run_of(secret)
    at = secret.index(run)
    before = [_either(secret, place, back=True) for place in range(at)]
    after = [_either(secret, place, back=False) for place in range(at + len(run), len(secret))]
    return re.compile("".join(reversed(before))), re.compile("".join(after)), at, len(run)


def _either(secret: str, at: int, *, back: bool) -> str:
    """The spellings of one character."""
    char, before = secret[at], secret[at - 1] if at else ""
    if char.isascii() and char.isalnum():
        return char
    if char == "\\":
        # All that follow one another are one: where each ended would be anybody's guess.
        count = len(secret) - at - len(secret[at:].lstrip("\\"))
        coded = [tokens * count for tokens in (_percent(char), _entity("#92"), _entity("#x5c"))]
        slashes: list[_Token] = [("\\", count, _MOST * (count + 1))]
        found = [slashes, *coded] if before != "\\" else [[]]
    else:
        found = _spellings(char, before == "\\", char not in (before, secret[at + 1 : at + 2]))
    return "(?:" + "|".join(_pattern(tokens, back) for tokens in found) + ")"


def _spellings(char: str, escaped: bool, doubled: bool) -> list[list[_Token]]:
    """`escaped`: backslashes before it are counted already; `doubled`: it may stand twice."""
    slashes: list[_Token] = [] if escaped else [("\\", 1, _MOST)]
    octets = char.encode("utf-8", "surrogatepass")
    units = char.encode("utf-16-be", "surrogatepass").hex()
    found = [_percent(char)]
    found.append([token for at in range(0, len(units), 4) for token in (*slashes, "u", *units[at : at + 4])])
    found.append([*slashes, "U", *f"{ord(char):08x}"])
    found.append([token for octet in octets for token in (*slashes, "x", *f"{octet:02x}")])
    found.append([token for octet in octets for token in (*slashes, *f"{octet:03o}")])
    found += [[*slashes, "x", *f"{ord(char):02x}"]] if ord(char) < 256 else []
    found += [_entity(name) for name in (*_NAMES.get(char, ()), f"#{ord(char)}", f"#x{ord(char):x}")]
    found += [[*slashes, _LETTER[char]]] if char in _LETTER else []
    found += [["+"]] if char == " " else []
    found += [list(quoted) for quoted in _QUOTED.get(char, ())] if doubled else []
    if char not in "\n\r":  # a secret of several lines is one for each
        found.append([*([] if escaped else [("\\", 0, _MOST)]), char])
    return found


def _percent(char: str) -> list[_Token]:
    octets = char.encode("utf-8", "surrogatepass")
    return [token for octet in octets for token in ("%", ("25", 0, 2), *f"{octet:02x}")]


def _entity(name: str) -> list[_Token]:
    return ["&", ("amp;", 0, 2), *name, ";"]


def _pattern(tokens: list[_Token], back: bool) -> str:
    return "".join(_token(token, back) for token in (reversed(tokens) if back else tokens))


def _token(token: _Token, back: bool) -> str:
    if isinstance(token, str):
        return f"[{token.lower()}{token.upper()}]" if token.isascii() and token.isalpha() else re.escape(token)
    text, least, most = token
    return f"(?:{re.escape(text[::-1] if back else text)}){{{least},{most}}}"
