from __future__ import annotations

import json
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core import statistics
from scheduler.core.query import began, day
from scheduler.core.statistics import Fact, Gap, Streak, Totals

NOW = datetime(2026, 12, 1, 9, 0, tzinfo=timezone.utc)
MOMENT = int(NOW.timestamp() * 1000)
ROOT = Path(__file__).parents[2]
STATUSES = ["success", "failure", "timeout", "skipped", "running"]


def jq_of_the_docs() -> tuple[str, str]:
    """The lines of shell in docs/history.md which say what `stats` says: before the program, and the program."""
    text = (ROOT / "docs" / "history.md").read_text()
    script = text.partition("<!-- stats.jq -->\n```sh\n")[2].partition("```")[0]
    shell, _, program = script.rstrip().removesuffix("'").partition("jq -nR '")
    return shell, program


def fact(minutes: int, status: str = "success", duration: float | None = None) -> Fact:
    return Fact(MOMENT + minutes * 60_000, status, duration, None, None)


def numbers(facts: list[Fact]) -> dict[str, Any]:
    return statistics.of(facts, NOW)


def test_of_nothing_there_is_nothing() -> None:
    assert numbers([]) == {
        "runs": 0, "statuses": dict.fromkeys(STATUSES, 0), "successRate": None, "duration": None, "costUsd": 0,
        "turns": 0, "failures24h": 0, "streak": None, "longestGap": None,
    }  # fmt: skip


def test_what_was_skipped_or_runs_has_no_outcome() -> None:
    found = numbers([fact(0), fact(1, "skipped", 5), fact(2, "running", 5), fact(3, "failure"), fact(4, "odd")])
    assert found["runs"] == 5 and found["successRate"] == 0.5 and found["duration"] is None
    assert found["statuses"] == {"success": 1, "failure": 1, "timeout": 0, "skipped": 1, "running": 1, "odd": 1}


@pytest.mark.parametrize(
    ("durations", "average", "median", "p95"),
    [
        ([7], 7, 7, 7),
        ([1, 2], 1.5, 1.5, 2),
        ([3, 1, 2], 2, 2, 3),
        (range(1, 101), 50.5, 50.5, 95),
        (range(1, 21), 10.5, 10.5, 19),
    ],
)
def test_durations(durations: Any, average: float, median: float, p95: float) -> None:
    found = numbers([fact(0, duration=value) for value in durations])["duration"]
    assert found == {"average": average, "median": median, "p95": p95}


def test_failures_of_the_last_day() -> None:
    assert numbers([fact(-1440, "failure"), fact(-1441, "failure"), fact(-5, "timeout"), fact(-5)])["failures24h"] == 2


@pytest.mark.parametrize(
    ("statuses", "streak"),
    [
        ("sss", (True, 3)),
        ("sfs", (True, 1)),
        ("sft", (False, 2)),
        ("fss-r", (True, 2)),
        ("-r", None),
    ],
)
def test_the_streak_is_of_the_latest_outcomes(statuses: str, streak: tuple[bool, int] | None) -> None:
    words = {"s": "success", "f": "failure", "t": "timeout", "-": "skipped", "r": "running"}
    facts = [fact(minutes, words[letter]) for minutes, letter in enumerate(statuses)]
    assert statistics.streak(reversed(facts)) == (streak and Streak(*streak))


def test_the_longest_gap_is_between_starts() -> None:
    gap = numbers([fact(0), fact(600, "skipped"), fact(10), fact(700), fact(710)])["longestGap"]
    assert gap == {"from": "2026-12-01T09:10:00.000+00:00", "to": "2026-12-01T20:40:00.000+00:00",
                   "milliseconds": 690 * 60_000}  # fmt: skip
    assert numbers([fact(0), fact(3, "skipped")])["longestGap"] is None
    assert numbers([fact(0), Fact(0, "success", None, None, None)])["longestGap"] is None


def test_a_moment_is_read_as_it_stands() -> None:
    assert began("2026-12-01T10:00:00.123+01:00") == MOMENT + 123
    assert began("2026-12-01T09:00:00.123Z") == began("2026-12-01T09:00:00.123000+00:00") == MOMENT + 123
    assert [began(text) for text in ("", "x", "2026-12-01T09:00:00", "2026-99-01T09:00:00.000+00:00")] == [0] * 4
    assert day("2026-12-01T00:10:00.000+02:00") == 20261201 and day("soon") == 0


FACTS = st.lists(
    st.builds(
        Fact,
        st.integers(0, 40).map(lambda minutes: MOMENT - minutes * 100_000),
        st.sampled_from(STATUSES),
        st.none() | st.integers(0, 10_000),
        st.none() | st.integers(0, 100).map(lambda cents: cents / 100),
        st.none() | st.integers(0, 50),
    ),
    max_size=30,
)


@given(FACTS, FACTS)
def test_totals_and_a_few_more_are_the_totals_of_all(facts: list[Fact], more: list[Fact]) -> None:
    whole = Totals.of([*facts, *more])
    found = Totals.of(facts).plus(more)
    if found is not None:
        assert statistics.summary(found, None, 0) == statistics.summary(whole, None, 0)
        assert (found.first, found.last) == (whole.first, whole.last)


def test_a_run_within_the_longest_gap_is_not_guessed_at() -> None:
    totals = Totals.of([fact(0), fact(100)])
    assert totals.plus([fact(50)]) is None
    later = totals.plus([fact(150), fact(400), fact(-10)])
    assert later is not None and later.gap == Gap(fact(150).began, fact(400).began)


RUNS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 25).map(str),
            "status": st.sampled_from(STATUSES),
            "startedAt": st.integers(0, 3_000_000).map(
                lambda seconds: (NOW - timedelta(seconds=seconds, milliseconds=seconds % 1000)).isoformat(
                    timespec="milliseconds"
                )
            ),
        },
        optional={
            "duration": st.integers(0, 10**7) | st.just("long"),
            "costUsd": st.integers(0, 10_000).map(lambda cents: cents / 100),
            "turns": st.integers(0, 100) | st.none(),
        },
    ),
    min_size=1,
    max_size=40,
)


def test_jq_says_the_same(tmp_path: Path) -> None:
    samples: list[list[dict[str, Any]]] = []

    @given(RUNS)
    def collect(sample: list[dict[str, Any]]) -> None:
        samples.append(sample)

    collect()
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    _, program = jq_of_the_docs()
    every, _, _ = program.rpartition("[inputs")
    jq = ["jq", "-c", f"{every} stats({MOMENT})", str(file)]
    said = subprocess.run(jq, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == len(samples) > 30, said
    for sample, line in zip(samples, said, strict=True):
        # As the store has them: in the order of their last records.
        state = {run["id"]: run for run in sample}
        told = sorted(state.values(), key=lambda run: -[*reversed(sample)].index(run))
        assert_same(statistics.of(map(statistics.fact, told), NOW), json.loads(line))


def assert_same(ours: dict[str, Any], told: dict[str, Any]) -> None:
    """What we say is what jq says, but for what we round, and for the length of the gap alone."""
    gap = ours["longestGap"] and ours["longestGap"]["milliseconds"]
    ours, theirs = {**ours, "longestGap": gap or 0}, {**told, "longestGap": told["longestGap"] or 0}
    for name, digits in (("successRate", 4), ("costUsd", 6)):
        assert ours.pop(name) == pytest.approx(theirs.pop(name), abs=0.6 * 10**-digits)
    for one in (ours, theirs):
        if one["duration"]:
            one["duration"] = {**one["duration"], "average": pytest.approx(one["duration"]["average"], abs=0.06)}
    assert ours == theirs
