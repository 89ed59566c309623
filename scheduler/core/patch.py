"""Unified diffs as git writes them, read. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)")
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}


class FilePatch(NamedTuple):
    """What a diff does to one file: its path afterwards, the lines it adds, and those it takes away or shows."""

    path: str
    added: str
    before: str


def parse(diff: str) -> list[FilePatch]:
    """The files of a diff that have text hunks, in order. What is no hunk is left out."""
    files: list[tuple[str, list[str], list[str]]] = []
    old = new = 0  # lines still to come of the hunk
    for line in diff.split("\n"):
        if old > 0 or new > 0:
            sign, text = line[:1], line[1:]
            if sign == "+":
                new -= 1
                files[-1][1].append(text)
            elif sign != "\\":
                old -= 1
                new -= sign != "-"
                files[-1][2].append(text)
        elif line.startswith("+++ "):
            files.append((_path(line[4:]), [], []))
        elif files and (hunk := _HUNK.match(line)):
            old, new = (1 if count is None else int(count) for count in hunk.groups())
    return [FilePatch(path, "\n".join(added), "\n".join(before)) for path, added, before in files]


def _path(word: str) -> str:
    word = word.rstrip("\r").removesuffix("\t")
    if word.startswith('"'):
        data = word.strip('"').encode("utf-8", "surrogateescape")
        word = _ESCAPED.sub(lambda m: _unescaped(m[1]), data).decode("utf-8", "replace")
    return word[2:] if word[1:2] == "/" else word


def _unescaped(escape: bytes) -> bytes:
    return bytes([int(escape, 8) & 255]) if len(escape) == 3 else _ESCAPES.get(escape, escape)
