"""Whether the work of a run brings a secret into the repository: in a line, a binary file, a name, a message.

What was in the repository before the run is not new, wherever it stood there, and what is taken away is not brought.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from scheduler.core import format as fmt
from scheduler.core.plain import bared, plain
from scheduler.core.redact import Found, Redactor
from scheduler.execution import branches, git
from scheduler.execution.git import Project

BINARY_LIMIT = 16 << 20
"""Bytes of a binary file: a larger one is not looked through, and the record says so."""

_CHANGED = re.compile(rb":\d+ (\d+) ([0-9a-f]+) ([0-9a-f]+) ([A-Z])\d*\Z")
_FILE = re.compile(rb"1[02]0\d{3}\Z")  # the mode of a file or a link: anything but a repository within
_SEARCHED = 100  # secrets that are looked for in what was there before


def new_secrets(project: Project, base: str, tip: str, redactor: Redactor, notes: list[str]) -> list[Found]:
    """The secrets that the commits from `base` to `tip` bring in, each once; what could not be looked at is a note."""
    each, whole = (
        branches.patch(project, base, tip, each_commit=each).decode("utf-8", "replace") for each in (True, False)
    )
    changed = _changed(project, base, tip)
    found = [
        *sorted({one for clean in _readings(each) for one in redactor.new_secrets(clean(each), clean(whole))}),
        *_in_binaries(project, changed, redactor, notes),
        *_in_names(project, base, changed, redactor),
        *_in_messages(project, base, tip, redactor),
    ]
    known = {text for text in {one.text for one in found[:_SEARCHED]} if _stood(project, base, text)}
    return [one for one in found if one.text not in known]


class _Change(NamedTuple):
    """What one commit does to one path: the objects before and after, its letter, whether git takes it for binary."""

    path: str
    old: str
    new: str
    letter: str
    binary: bool


def _changed(project: Project, base: str, tip: str) -> list[_Change]:
    command = ("log", "--format=", "--raw", "--no-abbrev", "--numstat", "-z", "--diff-merges=first-parent")
    options = ("--no-renames", "--no-ext-diff", "--no-textconv", "--ignore-submodules=none")
    told = git.run(project.checkout, *command, *options, f"{base}..{tip}", "--", timeout=git.LONG).stdout
    parts = iter(part for part in told.split(b"\0") if part.strip(b"\n"))
    raw: list[tuple[bytes, re.Match[bytes]]] = []
    binary = set()
    for part in parts:
        entry = _CHANGED.search(part)
        if entry is not None:
            path = next(parts)
            if _FILE.match(entry[1]) or entry[4] == b"D":
                raw.append((path, entry))
        elif part.lstrip(b"\n").startswith(b"-\t-\t"):
            binary.add(part.split(b"\t", 2)[2])
    return [_Change(os.fsdecode(path), m[2].decode(), m[3].decode(), m[4].decode(), path in binary) for path, m in raw]


def _in_binaries(project: Project, changed: list[_Change], redactor: Redactor, notes: list[str]) -> Iterator[Found]:
    binary = [change for change in changed if change.binary]
    wanted = {name for change in binary for name in (change.old, change.new) if name.strip("0")}
    sizes = _sizes(project, wanted) if wanted else {}
    too_large = {change.path for change in binary if sizes.get(change.new, 0) > BINARY_LIMIT}
    if too_large:
        said = (
            f"{fmt.count(len(too_large), 'binary file')} over {fmt.size(BINARY_LIMIT)} not looked through for secrets"
        )
        notes.append(f"{said}: {', '.join(sorted(too_large)[:5])}")
    for change in binary:
        if 0 < sizes.get(change.new, 0) <= BINARY_LIMIT:
            data = _content(project, change.new)
            find = redactor.find_exact if b"\0" in data else redactor.find
            before = (
                _whole(_readable(_content(project, change.old))) if 0 < sizes.get(change.old, 0) <= BINARY_LIMIT else ""
            )
            for kind, text in _hits(find, _readable(data)):
                if text not in before:
                    yield Found(change.path, kind, text)


def _sizes(project: Project, names: Iterable[str]) -> dict[str, int]:
    asked = "".join(f"{name}\n" for name in names).encode()
    told = git.run(project.checkout, "cat-file", "--batch-check", input=asked, timeout=git.LONG).stdout
    lines = [line.split() for line in told.decode().splitlines()]
    return {line[0]: int(line[2]) for line in lines if len(line) == 3 and line[1] == "blob"}


def _content(project: Project, name: str) -> bytes:
    return git.run(project.checkout, "cat-file", "blob", name, timeout=git.LONG).stdout


def _readable(data: bytes) -> str:
    """The bytes as text. Without the NULs, what is ASCII in UTF-16 reads like ASCII."""
    return data.replace(b"\0", b"").decode("utf-8", "replace")


def _in_names(project: Project, base: str, changed: list[_Change], redactor: Redactor) -> Iterator[Found]:
    names = list(dict.fromkeys(change.path for change in changed if change.letter == "A"))
    found = [Found(name, *hit) for name in names for hit in _hits(redactor.find, name)]
    if found:
        listed = git.run(project.checkout, "ls-tree", "-r", "-z", "--name-only", base, timeout=git.LONG).stdout
        before = _whole("\n".join(git.fields(listed)))
        yield from (one for one in found if one.text not in before)


def _in_messages(project: Project, base: str, tip: str, redactor: Redactor) -> Iterator[Found]:
    for name, people, message in _log(project, f"{base}..{tip}"):
        for kind, text in _hits(redactor.find, message):
            yield Found(f"the message of commit {name}", kind, text)
        for kind, text in _hits(redactor.find, people):
            if not any(text in _whole(before) for _, before, _ in _log(project, base)):
                yield Found(f"the author of commit {name}", kind, text)


def _log(project: Project, revisions: str) -> Iterator[tuple[str, str, str]]:
    """Of each commit its name, who made it, and its message."""
    form = "--format=%h%x00%an <%ae>%n%cn <%ce>%x00%B%x00"
    told = git.run(project.checkout, "log", form, revisions, "--", timeout=git.LONG).stdout
    parts = [os.fsdecode(part) for part in told.split(b"\0")[:-1]]  # a message may be empty
    for name, people, message in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield name.strip(), people, message


def _readings(text: str) -> list[Callable[[str], str]]:
    """How to read a text: as a terminal shows it, and, where that swallows something, without that."""
    return [plain, bared] if "\x1b" in text or "\x9b" in text else [plain]


def _whole(text: str) -> str:
    return "\n".join(clean(text) for clean in _readings(text))


def _hits(find: Callable[[str], list[tuple[str, int, int]]], text: str) -> list[tuple[str, str]]:
    texts = [clean(text) for clean in _readings(text)]
    return list(dict.fromkeys((kind, one[start:end]) for one in texts for kind, start, end in find(one)))


def _stood(project: Project, base: str, text: str) -> bool:
    """Whether a secret was in a file before. It goes to git on its standard input: others may see command lines."""
    line = max(text.split("\n"), key=len)
    command = ("grep", "--quiet", "--text", "--fixed-strings", "-f", "-", base, "--")
    asked = line.encode("utf-8", "surrogateescape") + b"\n"
    return git.run(project.checkout, *command, input=asked, check=False, timeout=git.LONG).returncode == 0
