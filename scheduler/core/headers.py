"""Secrets in their place: HTTP headers, URLs, curl's options, netrc and docker's config. Pure.

As in `assigned`, no pattern has a quantifier without an upper bound except at its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from scheduler.core.named import is_placeholder, names_itself
from scheduler.core.shapes import Span

Judge = Callable[[str], bool]


def _any(value: str) -> bool:
    return not is_placeholder(value)


def _strong(value: str) -> bool:
    """No word of a sentence: it has a digit, or is too long to be one."""
    return _any(value) and (any(char.isdigit() for char in value) or (len(value) >= 20 and "-" not in value))


class _Place(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    """For the lower-case text; its first group is the secret."""
    judge: Judge


def _place(kind: str, pattern: str, judge: Judge) -> _Place:
    return _Place(kind, re.compile(pattern, re.ASCII), judge)


_HEADER = r"authorization[\\\"'\])]{0,4}[ \t]{0,4}[:=,][ \t]{0,4}[\\\"'(]{0,4}"
_HEADER_ALONE = _HEADER.replace("[:=,]", "[:=]")
_PLACES = {
    "auth": (
        _place(
            "authorization",
            _HEADER
            + r"(?:basic|bearer|token|apikey|api-key|key|negotiate|ntlm)(?:[ \t]|%20|\+){1,4}([^\s\"',;<>\\]{6,})",
            _any,
        ),
        _place(
            "authorization",
            _HEADER + r"(?:digest|oauth|hawk|aws4-hmac-sha256|signature)[ \t]{1,4}([^\n\v]{8,})",
            _any,
        ),
        _place("authorization", _HEADER_ALONE + r"([^\s\"',;<>\\]{8,})", _strong),
        _place("docker-auth", r"auth\\?\"[ \t]{0,4}:[ \t]{0,4}\\?\"([\w+/=-]{8,})", _strong),
        _place("npm-token", r"_auth[ \t]{0,4}=[ \t]{0,4}\"?([\w+/=-]{8,})", _strong),
    ),
    "bearer": (_place("authorization", r"bearer(?:[ \t]|%20|\+){1,4}([\w.~+/=-]{16,})", _strong),),
    "cookie": (
        _place(
            "cookie",
            r"cookie[\\\"']{0,3}[ \t]{0,4}:[ \t]{0,4}[\\\"']{0,3}([\w.!#$%&*+-]{1,80}=[^\n\v\"']{6,})",
            _any,
        ),
    ),
    "sig=": (_place("signature", r"sig=(?<=[?&;, ]sig=)([\w%/+=-]{24,})", _any),),
    "signature=": (_place("signature", r"signature=([\w%/+=-]{24,})", _any),),
    "login": (
        _place("netrc", r"login[ \t]{1,4}\S{1,128}[ \t]{0,8}[ \t\n][ \t]{0,8}password[ \t]{1,4}(?=(\S+))", _strong),
        _place(
            "netrc",
            r"machine[ \t]{1,4}\S{1,256}[ \t]{1,8}login[ \t]{1,4}\S{1,128}[ \t]{1,8}password[ \t]{1,4}(?=(\S+))",
            _any,
        ),
    ),
    "sshpass": (_place("password", r"sshpass[ \t]{1,4}-p[ \t]{0,4}['\"]?([^\s'\"]{4,})", _any),),
}
"""By a literal, in lower case, without which none of them is there."""
_URL = re.compile(r"://[^\s/:@\"'<>?#]{0,128}:([^\s/@\"'<>]{1,256})@", re.ASCII)
_CURL = re.compile(
    r"-(?:[uU](?<=[\s\"',]-[uU])|-user|-proxy-user)[ \t=\"',]{0,4}[^\s:\"']{1,64}:([^\s\"'<>]{3,})", re.ASCII
)


def placed(text: str, low: str) -> Iterator[Span]:
    """The secrets in `text` that stand where such a header, option or URL has one; `low` is `text` in lower case.
    They may overlap."""
    for literal, places in _PLACES.items():
        for place in places if literal in low else ():
            for match in place.pattern.finditer(low):
                begin, end = match.span(1)
                if place.judge(text[begin:end]):
                    yield Span(begin, end, place.kind)
    if "@" in text and "://" in text:
        for match in _URL.finditer(text):
            if _any(match[1]) and not names_itself(match[1]):
                yield Span(*match.span(1), "url-password")
    if "curl" in low:
        yield from _curl(text, low)


def _curl(text: str, low: str) -> Iterator[Span]:
    """`-u name:password`, on a line that names curl before it. All of it is one pass over the text."""
    curl, line_end, seen = -1, -1, 0
    for match in _CURL.finditer(text):
        found = low.rfind("curl", seen, match.start())
        seen = match.start()
        if found >= 0:
            curl = found
            if line_end < curl:
                line_end = text.find("\n", curl)
                line_end = len(text) if line_end < 0 else line_end
        if 0 <= curl and match.start() < line_end and _any(match[1]) and not match[1].isdigit():
            yield Span(*match.span(1), "curl-password")
