from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.plain import LINE_LIMIT, OVERLAP, Lines, plain, visible, without_notice


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "red"),
        ("bell\x07 nul\x00 del\x7f", "bell nul del"),
        ("abc\u202edef\u2066ghi\u200b", "abcdefghi"),
        ("a\r\nb", "a\nb"),
        ("one\u2028two\u0085", "onetwo"),
        ("\x1b", ""),
        ("half \x1b[", "half "),
        ("naïve ✓ 日本", "naïve ✓ 日本"),
        ("\ud800", ""),
    ],
)
def test_plain_takes_out_what_is_not_text(text: str, clean: str) -> None:
    assert plain(text) == clean


@given(st.text())
def test_plain_is_done_the_first_time_but_for_what_it_reveals(text: str) -> None:
    clean = plain(text)
    assert "\x1b" not in clean and "\x00" not in clean
    assert plain(clean) == clean


def test_visible_spells_out_what_could_hide() -> None:
    assert visible("rm\u202e x\x1b[2K\r\u200b\n\ttab") == "rm\\u202e x\\x1b[2K\\x0d\\u200b\n\ttab"
    assert visible("\U000e0041") == "\\U000e0041"


def feed(*parts: bytes) -> list[str]:
    lines = Lines()
    found = [line for part in parts for line in lines.feed(part)]
    return found + lines.end()


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b\nc"], ["ab", "c"]),
        ([b"a\r\nb\r\n"], ["a", "b"]),
        ([b"10%\r20%\r100%\n"], ["100%"]),
        ([b"\xff\xfe\n"], ["\ufffd\ufffd"]),
        (["ü".encode()[:1], "ü".encode()[1:] + b"\n"], ["ü"]),
        ([b"\n\n"], ["", ""]),
        ([b""], []),
    ],
)
def test_lines(parts: list[bytes], lines: list[str]) -> None:
    assert feed(*parts) == lines


def test_a_line_without_an_end_is_cut_and_says_so() -> None:
    (line,) = feed(*[b"x" * 65536] * 8, b"\n")
    assert line.startswith("x" * LINE_LIMIT) and line.endswith(f"[{8 * 65536 - LINE_LIMIT} characters cut]")


@given(st.binary(), st.integers(1, 7))
def test_lines_do_not_depend_on_how_the_bytes_come(data: bytes, size: int) -> None:
    assert feed(*[data[i : i + size] for i in range(0, len(data), size)]) == feed(data)


def test_a_long_line_comes_with_what_a_redaction_needs_to_see() -> None:
    (line,) = feed(b"a" * LINE_LIMIT + b"b" * OVERLAP + b"c" * OVERLAP, b"\n")
    assert without_notice(line) == ("a" * LINE_LIMIT + "b" * OVERLAP, 2 * OVERLAP)
    assert without_notice("a [x characters cut]") == ("a [x characters cut]", 0)


def test_what_follows_a_gap_is_not_joined_to_what_comes_before_it() -> None:
    (line,) = feed(*[b"\x1b[31ma" * 8192] * 8, b"b" * 65536, b"\n")
    assert without_notice(line)[0] == "a" * (LINE_LIMIT + OVERLAP)


def test_of_endless_progress_only_the_last_state_is_held() -> None:
    assert feed(*[b"x" * 65536, b"\r", b"50%\r", b"60%"] * 4, b"\r\n") == ["60%"]
    assert feed(b"x" * 200_000, b"\rdone", b"\n") == ["done"]


IGNORABLE = (
    "00AD 034F 061C 115F-1160 17B4-17B5 180B-180F 200B-200F 202A-202E 2060-206F 3164 FE00-FE0F FEFF FFA0 FFF0-FFF8 "
    "1BCA0-1BCA3 1D173-1D17A E0000-E0FFF"
)
SPACES = "00A0 1680 2000-200A 2028 2029 202F 205F 2800 3000"


@pytest.mark.parametrize("span", (IGNORABLE + " " + SPACES).split())
def test_what_shows_as_nothing_or_as_a_space_is_spelt_out(span: str) -> None:
    """The first list is Unicode's Default_Ignorable_Code_Point."""
    first, _, last = span.partition("-")
    for code in range(int(first, 16), int(last or first, 16) + 1):
        said = visible(f"rm{chr(code)}-rf")
        assert said.isascii() and f"{code:x}" in said, (hex(code), said)


@pytest.mark.parametrize("text", ["a b\tc\nd", "Grüße – “ok”", "更新する", "تحديث", "обновить", "עדכן", "✅ ok"])
def test_what_is_seen_stays_as_it_is(text: str) -> None:
    assert visible(text) == text
