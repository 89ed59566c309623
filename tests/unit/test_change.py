"""The numbers in a line of file changes. Events as the real client 2.1.330 sends them, cut to what is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.hooks import change
from scheduler.hooks.place import Place


def line(top: Path, name: str, content: bytes | None, **event: Any) -> dict[str, Any]:
    """The line for an event on the file `name`, which holds `content` by now."""
    top = Path(os.path.realpath(top))
    if content is not None:
        (top / name).write_bytes(content)
    event.setdefault("tool_input", {})["file_path"] = str(top / name)
    return change.record({"tool_name": "Edit", **event}, Place(str(top), str(top)), "", "", 0.0)


def numbers(found: dict[str, Any]) -> list[Any]:
    return [found.get(key) for key in ("kind", "bytesBefore", "bytesAfter", "linesAdded", "linesRemoved")]


def edit(before: str | None, *lines: str, **fields: Any) -> dict[str, Any]:
    patch = [{"oldStart": 1, "oldLines": 1, "newStart": 1, "newLines": 1, "lines": list(lines)}] if lines else []
    return {"originalFile": before, "structuredPatch": patch, **fields}


NO_END = "\\ No newline at end of file"


@pytest.mark.parametrize(
    ("content", "response", "expected"),
    [
        # an edit in a file whose last line is not ended
        (b"one\n2\n2b\nlast", edit("one\ntwo\nlast", " one", "-two", "+2", "+2b", " last", NO_END), [12, 13, 2, 1]),
        # an edit that ends the last line
        (
            "äöü\ndrei\nvier ß\n".encode(),
            edit("äöü\nthree", " äöü", "-three", NO_END, "+drei", "+vier ß"),
            [12, 20, 2, 1],
        ),
        # one that leaves it open
        (b"one\ntwo", edit("one\ntwo\n", " one", "-two", "+two", NO_END), [8, 7, 1, 1]),
        # the client hands CRLF over as LF; the disk tells
        (b"one\r\nzwei\r\n", edit("one\ntwo\n", " one", "-two", "+zwei"), [10, 11, 1, 1]),
        # a byte order mark is part of the text
        (b"\xef\xbb\xbfone\nzwei\n", edit("\ufeffone\ntwo\n", " \ufeffone", "-two", "+zwei"), [11, 12, 1, 1]),
        # another encoding, or a change since: what cannot be known is left out
        ("one\nzwei\n".encode("utf-16"), edit("\ufeffone\ntwo\n", " \ufeffone", "-two", "+zwei"), [None, 20, 1, 1]),
        # the file has gone since
        (None, edit("one\ntwo\n", " one", "-two", "+zwei"), [8, None, 1, 1]),
        # several hunks, one that removes alone
        (b"a\nd\n", edit("a\nb\nc\nd\n", " a", "-b", "-c", " d"), [8, 4, 0, 2]),
    ],
)
def test_an_edit(tmp_path: Path, content: bytes | None, response: dict[str, Any], expected: list[Any]) -> None:
    assert numbers(line(tmp_path, "a", content, tool_response=response)) == ["update", *expected]


@pytest.mark.parametrize(
    ("asked", "response", "expected"),
    [
        ("a\nb\n", edit(None, type="create"), ["create", 0, 4, 2, 0]),
        ("a\nb", edit(None, type="create"), ["create", 0, 3, 2, 0]),
        ("", edit(None, type="create"), ["create", 0, 0, 0, 0]),
        ("a\nB\nc\n", edit("a\nb\n", " a", "-b", "+B", "+c", type="update"), ["update", 4, 6, 2, 1]),
        ("same\n", edit("same\n", type="update"), ["update", 5, 5, 0, 0]),
        ("a\nX\nc\n", edit("a\nb\nc\n", type="update"), ["update", 6, 6, 1, 1]),
        # a client that keeps a large original to itself
        ("x\n", edit(None, type="update"), ["update", None, 2, None, None]),
        ("x\n", {}, [None, None, 2, None, None]),
    ],
)
def test_a_write(tmp_path: Path, asked: str, response: dict[str, Any], expected: list[Any]) -> None:
    found = line(tmp_path, "a", asked.encode(), tool_input={"content": asked}, tool_response=response)
    assert numbers(found) == expected


def test_an_edit_that_makes_a_file(tmp_path: Path) -> None:
    found = line(tmp_path, "a", b"x\ny", tool_response=edit("", "+x", "+y", NO_END))
    assert numbers(found) == ["create", 0, 3, 2, 0]


def test_a_notebook(tmp_path: Path) -> None:
    response = {"notebook_path": "n", "original_file": "{\n1\n2\n}", "updated_file": "{\n1\n3\n4\n}"}
    assert numbers(line(tmp_path, "n", b"{\n1\n3\n4\n}", tool_response=response)) == ["update", 7, 9, 2, 1]


LINES = st.lists(st.text("ab\n\r\x0b\u2028ä", max_size=4), max_size=8).map("".join)


@given(LINES, LINES)
def test_a_region_is_a_diff(before: str, after: str) -> None:
    counts = change._count_region(before, after)
    old, new = before.count("\n") + (before[-1:] not in ("", "\n")), after.count("\n") + (after[-1:] not in ("", "\n"))
    assert counts["added"] - counts["removed"] == new - old
    assert 0 <= counts["added"] <= new
    assert 0 <= counts["removed"] <= old
    assert len(before.encode()) + counts["bytes"] == len(after.encode())
    assert (counts["added"], counts["removed"]) == (0, 0) or before != after


def test_what_names_no_file_is_refused(tmp_path: Path) -> None:
    for asked in ({}, {"file_path": 5}, {"file_path": "x" * 5000}, None, []):
        with pytest.raises(ValueError, match="names no file"):
            change.record({"tool_name": "Edit", "tool_input": asked}, Place("/", "/"), "", "", 0.0)


@pytest.mark.parametrize(
    ("now", "zone", "said"),
    [
        (1_800_000_000.5, "UTC0", "2027-01-15T08:00:00.500+00:00"),
        (1_800_000_000.0, "IST-5:30", "2027-01-15T13:30:00.000+05:30"),
        (1_800_000_000.999, "NST3:30", "2027-01-15T04:30:00.999-03:30"),
    ],
)
def test_moments_carry_their_offset(monkeypatch: pytest.MonkeyPatch, now: float, zone: str, said: str) -> None:
    import time

    from scheduler.hooks import wire

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert wire.iso(now) == said
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
