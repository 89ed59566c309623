from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core import format as fmt
from scheduler.core.record import Status
from scheduler.core.when import parse_duration

NOW = datetime(2026, 12, 1, 8, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0s"),
        (0.42, "0.4s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (200, "3m 20s"),
        (3599.7, "1h 00m"),
        (7500, "2h 05m"),
        (86400 * 3 + 4 * 3600, "3d 4h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (45, "45s"), (90, "90s"), (1800, "30m"), (3600, "1h"), (86400, "24h"), (604800, "7d"), (5400, "90m")],
)
def test_a_setting_is_written_in_its_largest_whole_unit(seconds: int, text: str) -> None:
    assert fmt.setting(seconds) == text


@given(st.integers(1, 10**7))
def test_a_setting_reads_back_as_itself(seconds: int) -> None:
    assert parse_duration(fmt.setting(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "now"),
        (42, "in 42s"),
        (-90, "1m ago"),
        (3600, "in 1h"),
        (12000, "in 3h 20m"),
        (-86400 * 2 - 3700, "2d 1h ago"),
        (86400 * 2, "in 2d"),
        (86400 * 34 + 5000, "in 34d"),
        (-86400 * 365 * 3, "3y ago"),
    ],
)
def test_relative_says_in_or_ago(seconds: float, text: str) -> None:
    assert fmt.relative(NOW + timedelta(seconds=seconds), NOW) == text


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        (ZoneInfo("Europe/Berlin"), "Tue 2026-12-01 09:00 CET"),
        (timezone.utc, "Tue 2026-12-01 08:00 UTC"),
        (ZoneInfo("America/Sao_Paulo"), "Tue 2026-12-01 05:00 UTC-03:00"),
        (ZoneInfo("Asia/Kathmandu"), "Tue 2026-12-01 13:45 UTC+05:45"),
        (timezone(timedelta(hours=-3, minutes=-30)), "Tue 2026-12-01 04:30 UTC-03:30"),
    ],
)
def test_a_clock_names_its_zone(zone: timezone | ZoneInfo, text: str) -> None:
    assert fmt.clock(NOW, zone) == text


def test_a_clock_shows_seconds_only_where_there_are_some() -> None:
    assert fmt.clock(NOW + timedelta(seconds=5), timezone.utc) == "Tue 2026-12-01 08:00:05 UTC"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (1434, "1.4 KB"), (10 << 20, "10 MB"), (5 << 40, "5120 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert fmt.size(count) == text


@pytest.mark.parametrize(("usd", "text"), [(0, "$0.00"), (0.004, "<$0.01"), (2.5, "$2.50"), (1234.5, "$1,234.50")])
def test_money(usd: float, text: str) -> None:
    assert fmt.money(usd) == text


def test_every_status_has_a_sign_of_its_own_and_its_word() -> None:
    shown = [fmt.status(status) for status in Status]
    assert len({text[0] for text in shown}) == len(shown)
    assert "?" not in {text[0] for text in shown}
    assert fmt.status("failure", "verify-failed") == "✗ failure (verify-failed)"


def test_a_count_has_a_plural() -> None:
    assert [fmt.count(n, "task") for n in (0, 1, 2, 1500)] == ["0 tasks", "1 task", "2 tasks", "1,500 tasks"]
