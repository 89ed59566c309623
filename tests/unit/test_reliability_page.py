"""docs/reliability.md names every fault of the matrix, and only tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
ROWS = dict(re.findall(r"^\| ([A-L]\d+) \| (.+) \|$", PAGE, re.MULTILINE))
#: How many faults each letter has; some numbers were never given.
LAST = {"A": 18, "B": 17, "C": 14, "D": 15, "E": 17, "F": 32, "G": 11, "H": 9, "I": 9, "J": 8, "L": 11}
NEVER = set("B3 B14 C4 C5 D8 E4 F10 F12 G4 H2 J5".split())


def test_every_fault_is_there_with_a_promise_and_a_test() -> None:
    wanted = {f"{letter}{number}" for letter, last in LAST.items() for number in range(1, last + 1)} - NEVER
    assert ROWS.keys() == wanted
    for fault, row in ROWS.items():
        promise, brought_about, tests = row.split(" | ")
        assert promise.strip() and brought_about.strip() and "::test_" in tests, fault


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > len(ROWS) and PAGE.count("::") == len(named)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)
    ]
    assert missing == []
