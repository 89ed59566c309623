"""H1: a secret of which a part goes to one stream and the rest to the other."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from scheduler.core.joint import WINDOW, Joint
from scheduler.core.plain import LINE_LIMIT, Lines
from scheduler.core.redact import Redactor
from scheduler.core.shapes import BEGINNING, shaped
from tests.samples import ANNOUNCED, LOOK_ALIKES, SHAPED, private_key, some

KNOWN = "correct-horse-battery-staple"
LONG = some(108)
REDACTOR = Redactor([KNOWN, LONG])
Pieces = list[tuple[str, str]]
OTHER = {"out": "err", "err": "out"}
SECRETS = [KNOWN, LONG, *(secret for _, secret in SHAPED[:8])]


def written(pieces: Pieces, *, flush: bool = False) -> dict[str, str]:
    """What is kept of each stream."""
    joint = Joint(REDACTOR, {"out": Lines(), "err": Lines()})
    output = REDACTOR.stream()
    streams = {"out": output, "err": REDACTOR.stream(beside=output)}
    kept: dict[str, list[str]] = {"out": [], "err": []}

    def take(released: Any) -> None:
        for name, lines in released:
            kept[name] += streams[name].lines(lines)

    for name, text in pieces:
        take(joint.feed(name, text.encode()))
        if flush:
            take(joint.flush())
    take(joint.flush())
    take(joint.end())
    return {name: "\n".join(lines) for name, lines in kept.items()}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("first", ["out", "err"])
@pytest.mark.parametrize("flush", [False, True])
def test_h1_a_secret_split_at_every_place_over_two_streams(secret: str, first: str, flush: bool) -> None:
    for at in range(1, len(secret)):
        kept = written([(first, f"one\na {secret[:at]}"), (OTHER[first], f"{secret[at:]} b\nlast\n")], flush=flush)
        assert kept[first].startswith("one\na [REDACTED:") and kept[first].endswith("]"), (at, kept)
        assert kept[OTHER[first]].startswith("[REDACTED:") and kept[OTHER[first]].endswith("] b\nlast"), (at, kept)


@pytest.mark.parametrize("secret", SECRETS)
def test_h1_also_when_the_second_part_is_read_first(secret: str) -> None:
    for at in range(1, len(secret)):
        kept = written([("err", f"{secret[at:]} b\nlast\n"), ("out", f"one\na {secret[:at]}")])
        assert kept["out"].startswith("one\na [REDACTED:") and kept["out"].endswith("]"), (at, kept)
        assert kept["err"].startswith("[REDACTED:") and kept["err"].endswith("] b\nlast"), (at, kept)


@pytest.mark.parametrize("secret", [KNOWN, LONG])
@pytest.mark.parametrize("turned", [False, True])
def test_h1_what_is_known_is_found_over_the_end_of_a_line_too(secret: str, turned: bool) -> None:
    for at in range(1, len(secret)):
        pieces = [("out", f"one\na {secret[:at]}\n"), ("err", f"{secret[at:]} b\nlast\n")]
        kept = written(pieces[::-1] if turned else pieces)
        assert kept == {"out": "one\na [REDACTED:known]", "err": "[REDACTED:known] b\nlast"}, at


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("secret", SECRETS)
def test_h1_the_parts_may_stand_in_the_midst_of_what_was_read(secret: str, turned: bool) -> None:
    # So it is where a program writes to its output before and after, and that is read at once.
    for at in range(1, len(secret)):
        pieces = [("out", f"one\na {secret[:at]} c\nlast\n"), ("err", f"{secret[at:]} b\nlast\n")]
        kept = written(pieces[::-1] if turned else pieces)
        for part, name in ((secret[:at], "out"), (secret[at:], "err")):
            if len(part) >= 16 and (secret in (KNOWN, LONG) or at > 12):
                assert part not in kept[name], (at, kept)
        assert kept["out"].endswith(" c\nlast") and kept["err"].endswith(" b\nlast")


@pytest.mark.parametrize("secret", [KNOWN, LONG])
def test_h1_the_parts_may_come_in_several_pieces_of_one_moment(secret: str) -> None:
    for at in range(4, len(secret) - 4):
        kept = written([("out", f"a {secret[:at]}"), ("out", " c\nmore\n"), ("err", f"{secret[at:]} b\n")])
        assert kept == {"out": "a [REDACTED:known] c\nmore", "err": "[REDACTED:known] b"}


def test_what_is_held_comes_out_after_a_moment_or_when_it_is_much() -> None:
    joint = Joint(REDACTOR, {"out": Lines(), "err": Lines()})
    assert joint.feed("out", b"one\ntwo") == [] and joint.holds
    assert joint.tick() == [] and joint.holds
    assert joint.feed("out", b"\n") == []
    assert joint.tick() == [("out", ["one"])] and joint.holds
    assert joint.tick() == [("out", ["two"])] and not joint.holds
    big = [joint.feed("out", b"x\n" * 30_000) for _ in range(4)]
    assert [sum(len(lines) for _, lines in released) for released in big] == [0, 0, 60_000, 0]


def test_h8_words_after_a_secret_on_the_other_stream_stay() -> None:
    token = "ghp_" + some(36)
    told = [("out", f"made {token}\n"), ("err", "warning: it is new\n"), ("out", "taskbar sk-learn gh-pages\n")]
    kept = written(told)
    assert kept == {"out": "made [REDACTED:github-token]\ntaskbar sk-learn gh-pages", "err": "warning: it is new"}


def test_h1_in_pieces_that_take_turns() -> None:
    for size in (1, 2, 3, 7, 11):
        parts = [KNOWN[at : at + size] for at in range(0, len(KNOWN), size)]
        pieces = [("out" if number % 2 == 0 else "err", part) for number, part in enumerate(parts)]
        kept = written([("out", "a "), ("err", "b "), *pieces, ("out", " c\n"), ("err", " d\n")])
        assert set(kept["out"].replace("[REDACTED:known]", "*")) <= set("a* c"), kept
        assert set(kept["err"].replace("[REDACTED:known]", "*")) <= set("b* d"), kept


def test_h1_the_parts_of_a_line_that_goes_on() -> None:
    kept = written([("out", f"a {KNOWN[:9]}"), ("err", f"{KNOWN[9:]}\n"), ("out", " and more\nlast\n")])
    assert kept == {"out": "a [REDACTED:known] and more\nlast", "err": "[REDACTED:known]"}
    kept = written([("out", f"a {KNOWN[:9]}"), ("err", f"{KNOWN[9:15]}"), ("err", f"{KNOWN[15:]} b\n"), ("out", "\n")])
    assert kept == {"out": "a [REDACTED:known]", "err": "[REDACTED:known] b"}


@pytest.mark.parametrize(("context", "secret"), ANNOUNCED)
def test_h1_a_secret_that_is_announced(context: str, secret: str) -> None:
    if "\n" in context or len(secret) < 8:
        return
    text = context.format(secret)
    for at in range(text.index(secret) + 1, text.index(secret) + len(secret)):
        kept = written([("out", text[:at]), ("err", text[at:] + "\n"), ("out", "\n")])
        assert "[REDACTED:" in kept["out"] and secret[-6:] not in kept["err"], (at, kept)


def test_h1_a_private_key_whose_lines_go_to_both() -> None:
    key = private_key().split("\n")
    kept = written([("out" if at % 2 == 0 else "err", line + "\n") for at, line in enumerate(key)] + [("err", "end\n")])
    assert kept["out"] == "[REDACTED:private-key]" and kept["err"] == "end"


def makes_a_whole(told: Pieces) -> bool:
    """Whether what one stream has goes on with what the other has to look like a secret: there is no telling then."""
    pairs = [(one, other) for (stream, one), (beside, other) in itertools.permutations(told, 2) if stream != beside]
    parts = [(one[: begun.end()], other) for one, other in pairs for begun in BEGINNING.finditer(one)]
    return any(span.start < len(begun) < span.end for begun, other in parts for span in shaped(begun + other))


def test_what_looks_like_two_parts_of_a_secret_goes() -> None:
    kept = written([("out", LOOK_ALIKES[1] + "\n"), ("err", "glpat-\n")])
    assert kept == {"out": "[REDACTED:gitlab-token]", "err": "[REDACTED:gitlab-token]"}


@given(st.lists(st.tuples(st.sampled_from(["out", "err"]), st.sampled_from(LOOK_ALIKES)), max_size=12), st.booleans())
def test_h8_look_alikes_in_turns_stay(told: Pieces, flush: bool) -> None:
    assume(not makes_a_whole(told))
    kept = written([(name, text + "\n") for name, text in told], flush=flush)
    for name in kept:
        assert kept[name] == "\n".join(text for stream, text in told if stream == name)


anything = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]) | st.sampled_from("\n\r\x1b[m"))


@given(st.lists(st.tuples(st.sampled_from(["out", "err"]), anything | st.sampled_from([KNOWN[:9], KNOWN[9:]]))))
def test_no_line_is_lost_whichever_way_it_comes(pieces: Pieces) -> None:
    kept = written(pieces)
    for name in kept:
        reader = Lines()
        lines = [line for stream, text in pieces if stream == name for line in reader.feed(text.encode())]
        lines += reader.end()
        assert kept[name].count("\n") == max(len(lines) - 1, 0)
        if "[REDACTED:" not in kept[name]:
            assert kept[name] == "\n".join(lines)


def test_a_line_that_begins_anew_is_not_cut() -> None:
    kept = written([("out", f"10 % {KNOWN[:9]}"), ("err", f"{KNOWN[9:]}\n"), ("out", "\r20 % of all of it\n")])
    assert kept == {"out": "20 % of all of it", "err": "[REDACTED:known]"}


def test_long_lines_are_looked_at_where_they_meet() -> None:
    for size in (WINDOW - 5, WINDOW + 5, LINE_LIMIT - 100):
        kept = written([("out", "x " * (size // 2) + KNOWN[:12]), ("err", KNOWN[12:] + " y" * (size // 2) + "\n")])
        assert kept["out"].endswith(" [REDACTED:known]") and kept["err"].startswith("[REDACTED:known] y")


def test_streams_that_take_turns_for_long_take_time_in_proportion() -> None:
    chance = random.Random(3)
    pieces = [("out" if at % 2 else "err", chance.choice("sk-abc \n")) for at in range(4_000)]
    begin = time.process_time()
    written(pieces)
    assert time.process_time() - begin < 8
