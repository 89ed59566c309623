from __future__ import annotations

import itertools
import re

from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.core.plain import LINE_LIMIT, OVERLAP, Lines
from scheduler.core.redact import Redactor
from tests.samples import ANNOUNCED, LOOK_ALIKES, SHAPED, private_key, some

KNOWN = ["hunter2hunter2", "correct horse battery staple", "pä$$ 'w\"\\ord/<&", some(40), f"{some(30)}\n{some(30)}"]
REDACTOR = Redactor(KNOWN)
KEY = private_key(lines=12)

# Escapes and carriage returns would cut a secret or take it away, and are another matter; so is a key's BEGIN.
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]) | st.just("\n"), max_size=200)
ends = st.sampled_from(["", " ", "\n", '"', "=", ", ", "(", "\t"])
known = st.sampled_from([line for value in KNOWN for line in value.split("\n")])
shaped = st.sampled_from([secret for _, secret in SHAPED])


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def logged(parts: list[bytes], redactor: Redactor = REDACTOR) -> str:
    """What a log holds of a stream that comes in these parts."""
    reader, stream = Lines(), redactor.stream()
    lines = [line for part in parts for line in stream.lines(reader.feed(part))]
    lines += stream.lines(reader.end())
    assert stream.dropped == 0
    return "\n".join(lines)


def leaks(secret: str, text: str) -> list[str]:
    """The pieces of a secret, of 10 characters, that are in a text."""
    return [secret[i : i + 10] for i in range(len(secret) - 9) if secret[i : i + 10] in text]


@given(texts, known, texts, st.lists(st.integers(0, 2**20), max_size=6))
def test_h1_a_known_value_is_found_wherever_it_stands_and_however_it_comes(
    before: str, secret: str, after: str, cuts: list[int]
) -> None:
    assert not leaks(secret, logged(chunks(f"{before}{secret}{after}".encode(), cuts)))


@given(texts, ends, shaped, ends, texts, st.lists(st.integers(0, 2**20), max_size=6))
def test_h1_a_shaped_secret_is_found_wherever_it_stands_and_however_it_comes(
    before: str, begin: str, secret: str, end: str, after: str, cuts: list[int]
) -> None:
    begin = begin or " "
    assert not leaks(secret, logged(chunks(f"{before}{begin}{secret}{end or ' '}{after}".encode(), cuts)))


@given(st.sampled_from(ANNOUNCED), texts, st.lists(st.integers(0, 2**20), max_size=6))
def test_h1_an_announced_secret_is_found_however_it_comes(place: tuple[str, str], before: str, cuts: list[int]) -> None:
    context, secret = place
    text = logged(chunks(f"{before}\n{context.format(secret)}\n".encode(), cuts))
    assert not leaks(secret, text) and "[REDACTED:" in text


@given(st.integers(0, len(KEY)), st.lists(st.integers(0, 2**20), max_size=6))
def test_h3_a_private_key_is_masked_wherever_it_is_cut_off(end: int, cuts: list[int]) -> None:
    begin = KEY.index("\n") + 1
    text = logged(chunks(("a\n" + KEY[: max(end, begin)]).encode(), cuts))
    assert text == "a\n[REDACTED:private-key]"


@given(shaped | known, st.integers(0, 2**20), st.lists(st.integers(0, 2**20), max_size=4))
def test_colours_within_a_secret_do_not_hide_it(secret: str, at: int, cuts: list[int]) -> None:
    at %= len(secret)
    data = f"a {secret[:at]}\x1b[1;31m{secret[at:]}\x1b[0m b\n".encode()
    assert not leaks(secret, logged(chunks(data, cuts)))


@given(
    shaped | known,
    st.integers(-300, OVERLAP + 300),
    st.sampled_from(["x", "word ", "\x1b[31mx"]),
    st.lists(st.integers(0, 2**20), max_size=4),
)
@example(KNOWN[1], -10, "x", [LINE_LIMIT])
def test_h5_a_secret_at_the_cut_of_a_long_line_is_never_halved(
    secret: str, over: int, fill: str, cuts: list[int]
) -> None:
    before = (fill * LINE_LIMIT)[: (LINE_LIMIT + over) * (6 if fill[0] == "\x1b" else 1)]
    data = f"{before} {secret} {'y' * 5000}\nnext".encode()
    text = logged(chunks(data, cuts))
    assert not leaks(secret, text)
    assert text.endswith(" characters cut]\nnext") and len(text) < LINE_LIMIT + 50


anything = st.text() | st.lists(
    st.text(max_size=8)
    | known
    | shaped
    | st.sampled_from([context.format(secret) for context, secret in ANNOUNCED])
    | st.sampled_from([*LOOK_ALIKES, KEY, KEY[:200], KEY[-200:], "[REDACTED:token]", "[REDACTED:", "token", "=", "\n"]),
    max_size=8,
).map("".join)


@given(anything)
def test_what_is_redacted_stays_as_it_is(text: str) -> None:
    once = REDACTOR.text(text)
    assert REDACTOR.text(once) == once
    assert "failed" not in once or "failed" in text
    lines = REDACTOR.stream().lines(text.split("\n"))
    assert REDACTOR.stream().lines(lines) == lines


@given(anything)
def test_a_stream_is_a_text_whichever_way_its_lines_come(text: str) -> None:
    lines = text.split("\n")
    stream = REDACTOR.stream()
    one_by_one = [clean for line in lines if (clean := stream.line(line)) is not None]
    assert one_by_one == REDACTOR.stream().lines(lines)
    assert "\n".join(one_by_one) == REDACTOR.text(text)


@given(anything)
def test_marks_stay(text: str) -> None:
    marks = re.findall(r"\[REDACTED:[a-z0-9-]{1,40}\]", text)
    clean = REDACTOR.text(text)
    if "PRIVATE" not in text and "[REDACTED:line]" not in clean:
        assert all(clean.count(mark) >= marks.count(mark) for mark in marks)


@given(st.lists(st.sampled_from(LOOK_ALIKES), max_size=12))
def test_h8_look_alikes_stay_in_any_company(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert REDACTOR.text(text) == text
    assert REDACTOR.find(text) == []
