"""Secrets that are known by their value: found in every form in which a program may print them. Pure."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from scheduler.core import spelling
from scheduler.core.named import harmless, names_secret
from scheduler.core.shapes import Span

MIN_LENGTH = 8
KIND = "known"
_CHUNK = 16
_PART = 6  # characters of base64 at the edge of a line that are known for a part of a secret
_FULL_END = re.compile(r"[A-Za-z0-9+/_-]{40}")
_FULL_LINE = re.compile(r"\n(?<=[A-Za-z0-9+/_-]{40}\n)[ \t]{0,32}")
_COMMON_FIRST = " etaoinsrhldcumfpgwybv_-k./=:,\"'()0123456789xETAOINSRHLDCUMFPGWYBVjqzKXJQZ"


def known_values(environment: Mapping[str, str], config_env: Mapping[str, str]) -> tuple[str, ...]:
    """The values to mask, of the environment and of a config's variables: those whose name has a whole part such as
    TOKEN, SECRET, PASSWORD, KEY or AUTH, of at least 8 characters, and never a path, a number or a boolean."""
    found = {
        value.strip()
        for variables in (environment, config_env)
        for name, value in variables.items()
        if names_secret(name)
    }
    return tuple(sorted(value for value in found if len(value) >= MIN_LENGTH and not harmless(value)))


class _Needle(NamedTuple):
    text: str
    anchor: int
    form: str
    offset: int
    """Where in its whole `form` the needle stands: a long base64 form, which tools wrap, is searched in pieces."""
    spelt: bool
    """Whether it is only the run of a secret (`core.spelling`), its `form`."""


class Known:
    """The secrets of one run, compiled once. All are searched for in one pass: each by three characters of its own that
    begin with its rarest one."""

    def __init__(self, values: Iterable[str]) -> None:
        values = list(values)
        self.texts = sorted(set(_lines(values)))
        """The secrets as such, and their lines."""
        self._needles: dict[str, list[_Needle]] = defaultdict(list)
        runs = {(run, secret, 0) for secret in self.texts if (run := spelling.run_of(secret))}
        for found, spelt in ((_texts(values), False), (runs, True)):
            for text, form, offset in sorted(found):
                anchor = max(range(len(text) - 2), key=lambda at: (_rarity(text[at]), -at))
                self._needles[text[anchor : anchor + 3]].append(_Needle(text, anchor, form, offset, spelt))
        self._wraps = _Wraps(form for value in values if len(value) >= MIN_LENGTH for form in _base64(value))
        rests: dict[str, list[str]] = defaultdict(list)
        for three in self._needles:
            rests[three[0]].append(re.escape(three[1:]))
        # The lookahead lets hits overlap.
        groups = [f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items()]
        self._pattern = re.compile("|".join(groups)) if groups else None

    def spans(self, text: str) -> Iterator[Span]:
        """Where the secrets stand; the spans may overlap."""
        if self._pattern is None:
            return
        last = Span(0, 0, KIND)
        for match in self._pattern.finditer(text):
            at = match.start()
            for needle in self._needles[text[at : at + 3]]:
                start = at - needle.anchor
                inside = last.start <= start and start + len(needle.text) <= last.end and not needle.spelt
                if start >= 0 and not inside and text.startswith(needle.text, start):
                    span = _whole(text, start, needle)
                    if span is not None:
                        last = span
                        yield last
        yield from self._wraps.spans(text)


class _Wraps:
    """Forms of base64 that are broken over two lines, as `base64` does after 76 characters: the part at the end of the
    one and the part at the beginning of the next, each by itself."""

    def __init__(self, forms: Iterable[str]) -> None:
        self._ends: dict[str, set[str]] = defaultdict(set)
        self._begins: dict[str, set[str]] = defaultdict(set)
        for form in forms:
            for size in range(_PART, min(len(form), 2 * _CHUNK + 1)):  # longer ones are found by their pieces
                self._ends[form[size - _PART : size]].add(form[:size])
                self._begins[form[-size:][:_PART]].add(form[-size:])

    def spans(self, text: str) -> Iterator[Span]:
        """Where such parts stand."""
        ends = [line.span() for line in _FULL_LINE.finditer(text)] if self._ends else []
        if _FULL_END.fullmatch(text[-40:]):
            ends.append((len(text), len(text)))
        for end, begin in ends:
            for part in self._ends.get(text[max(end - _PART, 0) : end], ()):
                if text.endswith(part, 0, end):
                    yield Span(end - len(part), end, KIND)
            for part in self._begins.get(text[begin : begin + _PART], ()):
                if text.startswith(part, begin):
                    yield Span(begin, begin + len(part), KIND)


def _whole(text: str, start: int, needle: _Needle) -> Span | None:
    """The hit, with as much of the needle's form around it as the text has. None where a run stands alone."""
    if needle.spelt:
        return spelling.around(text, start, needle.form, KIND)
    end, before, after = start + len(needle.text), needle.offset, needle.offset + len(needle.text)
    while before > 0 and start > 0 and text[start - 1] == needle.form[before - 1]:
        start, before = start - 1, before - 1
    while after < len(needle.form) and end < len(text) and text[end] == needle.form[after]:
        end, after = end + 1, after + 1
    return Span(start, end, KIND)


def _rarity(char: str) -> int:
    place = _COMMON_FIRST.find(char)
    return place if place >= 0 else len(_COMMON_FIRST)


def _texts(values: Iterable[str]) -> set[tuple[str, str, int]]:
    """What to search for: the text, the form it is of, and its offset there."""
    texts = {(form, form, 0) for secret in _lines(values) for form in _spelt(secret) if "\n" not in form}
    for value in values:
        for form in _base64(value) if len(value) >= MIN_LENGTH else ():
            if len(form) < 2 * _CHUNK:
                texts.add((form, form, 0))
            else:
                starts = [*range(0, len(form) - _CHUNK, _CHUNK), len(form) - _CHUNK]
                texts |= {(form[at : at + _CHUNK], form, at) for at in starts}
    return texts


def _lines(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        for secret in {value, value.strip(), *(line.strip() for line in value.splitlines())}:
            if len(secret) >= MIN_LENGTH:
                yield secret


def _spelt(secret: str) -> set[str]:
    """The secret as such, backwards, and in hexadecimal; as URLs, JSON, shells and XML write it too, where no run of it
    finds that."""
    forms = {secret, secret[::-1], _bytes(secret).hex(), _bytes(secret).hex().upper()}
    return forms if spelling.run_of(secret) else forms | _quoted(secret)


def _quoted(secret: str) -> set[str]:
    quote = urllib.parse.quote
    forms = {quote(secret), quote(secret, safe=""), urllib.parse.quote_plus(secret)}
    forms |= {re.sub("%[0-9A-F]{2}", lambda m: m.group().lower(), form) for form in forms if "%" in form}
    once = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    once |= {form.replace("/", "\\/") for form in once}
    forms |= once | {json.dumps(form)[1:-1] for form in once}
    quoted = shlex.quote(secret)
    forms |= {quoted[1:-1] if quoted != secret else secret, secret.replace("'", "'\\''")}
    forms.add(re.sub(r"([^\w@%+=:,./-])", r"\\\1", secret))
    forms.add(re.sub(r'([$`"\\!])', r"\\\1", secret))
    return forms | {html.escape(secret), html.escape(secret, quote=False)}


def _base64(secret: str) -> set[str]:
    """The part of its base64 forms that does not depend on what stands around it, at each of the three offsets."""
    data, forms = _bytes(secret), set()
    for offset in range(3):
        first, last = -(-8 * offset // 6), 8 * (offset + len(data)) // 6
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            forms.add(encode(b"\0" * offset + data).decode()[first:last])
    return forms


def _bytes(secret: str) -> bytes:
    return secret.encode("utf-8", "surrogatepass")
