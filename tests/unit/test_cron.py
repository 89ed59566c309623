from __future__ import annotations

import re
import time
from datetime import date, timedelta
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.core.cron import ALIASES, LAST, LONGEST, Cron, check_cron, parse
from scheduler.errors import SchedulerError


def hours(cron: Cron) -> list[int]:
    return sorted({second // 3600 for second in cron.times})


def days_of(expression: str, month: str) -> list[int]:
    """The days of a month (YYYY-MM) on which an expression fires."""
    first = date.fromisoformat(month + "-01")
    month_days = [day for n in range(31) if (day := first + timedelta(days=n)).month == first.month]
    return [day.day for day in month_days if parse(expression).on(day)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 * * *", [0]),
        ("0 22-2 * * *", [0, 1, 2, 22, 23]),
        ("0 */6 * * *", [0, 6, 12, 18]),
        ("0 9-17/4 * * *", [9, 13, 17]),
        ("0 20/2 * * *", [20, 22]),
        ("0 23/2 * * *", [23]),
        ("0 5-5 * * *", [5]),
        ("0 5-5/3 * * *", [5]),
        ("0 1,3-5,09,*/12 * * *", [0, 1, 3, 4, 5, 9, 12]),
        ("  0\t \t7 * * *  ", [7]),
    ],
)
def test_hours(expression: str, expected: list[int]) -> None:
    check_cron(expression)
    assert hours(parse(expression)) == expected


@pytest.mark.parametrize(
    ("expression", "month", "expected"),
    [
        ("0 0 L * *", "2026-02", [28]),
        ("0 0 l * *", "2028-02", [29]),
        ("0 0 15,L * *", "2026-11", [15, 30]),
        ("0 0 31 * *", "2026-11", []),
        ("0 0 29 2 *", "2028-02", [29]),
        ("0 0 29 2 *", "2026-02", []),
        ("0 0 1 JAN,jul *", "2026-07", [1]),
        ("0 0 1 nov-Feb *", "2026-01", [1]),
        ("0 0 1 nov-Feb *", "2026-03", []),
        ("0 0 * * MON-fri", "2026-11", [2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 23, 24, 25, 26, 27, 30]),
        ("0 0 * * 0", "2026-11", [1, 8, 15, 22, 29]),
        ("0 0 * * 7", "2026-11", [1, 8, 15, 22, 29]),
        ("0 0 * * 7/2", "2026-11", [1, 8, 15, 22, 29]),
        ("0 0 * * sun-sun", "2026-11", [1, 8, 15, 22, 29]),
        ("0 0 * * sat-sun", "2026-11", [1, 7, 8, 14, 15, 21, 22, 28, 29]),
        ("0 0 * * 6-7", "2026-11", [1, 7, 8, 14, 15, 21, 22, 28, 29]),
        ("0 0 * * 7-1", "2026-11", [1, 2, 8, 9, 15, 16, 22, 23, 29, 30]),
        ("0 0 * * fri-mon", "2026-02", [1, 2, 6, 7, 8, 9, 13, 14, 15, 16, 20, 21, 22, 23, 27, 28]),
        ("0 0 * * 0-7", "2026-02", list(range(1, 29))),
        ("0 0 * * 1-7/3", "2026-02", [1, 2, 5, 8, 9, 12, 15, 16, 19, 22, 23, 26]),
        # the last Friday, in each spelling
        ("0 0 * * 5L", "2026-11", [27]),
        ("0 0 * * L5", "2026-11", [27]),
        ("0 0 * * FRIL", "2026-11", [27]),
        ("0 0 * * Lfri", "2026-11", [27]),
        ("0 0 * * 7L", "2026-11", [29]),
        ("0 0 * * 1L,5L", "2026-11", [27, 30]),
        # the second Friday
        ("0 0 * * 5#2", "2026-11", [13]),
        ("0 0 * * fri#2,mon#1,7#5", "2026-11", [2, 13, 29]),
        ("0 0 * * 5#5", "2026-11", []),
        ("0 0 * * 1#1,5L", "2026-11", [2, 27]),
        # one of two restricted day fields is enough
        ("0 0 13 * 5", "2026-11", [6, 13, 20, 27]),
        ("0 0 1,15 * 1", "2026-11", [1, 2, 9, 15, 16, 23, 30]),
        ("0 0 31 * 1", "2026-11", [2, 9, 16, 23, 30]),
        ("0 0 30 2 1", "2026-02", [2, 9, 16, 23]),
        ("0 0 1 * 5#2", "2026-11", [1, 13]),
        ("0 0 L * 5L", "2026-11", [27, 30]),
        ("0 0 1-31 * 1", "2026-02", list(range(1, 29))),
        ("0 0 1 * 0-6", "2026-02", list(range(1, 29))),
        # a day field that begins with * does not restrict, so both must match
        ("0 0 */2 * 1", "2026-11", [9, 23]),
        ("0 0 1-7 * */7", "2026-11", [1]),
        ("0 0 */1 * 1", "2026-11", [2, 9, 16, 23, 30]),
        ("0 0 2,*/2 * 1", "2026-02", [1, 2, 3, 5, 7, 9, 11, 13, 15, 16, 17, 19, 21, 23, 25, 27]),
    ],
)
def test_days(expression: str, month: str, expected: list[int]) -> None:
    check_cron(expression)
    assert days_of(expression, month) == expected


@pytest.mark.parametrize(("alias", "expression"), ALIASES.items())
def test_an_alias_is_its_expression(alias: str, expression: str) -> None:
    def fields(text: str) -> tuple[object, ...]:
        cron = parse(text)
        return cron.fixed, cron.times, cron.months, cron.dates, cron.weekdays, cron.both

    check_cron(alias.upper())
    assert fields(alias) == fields(expression)


@pytest.mark.parametrize(
    ("expression", "fixed"),
    [
        ("30 2 * * *", True),
        ("0,30 1-3,22 * * *", True),
        ("0 9 */2 * *", True),
        ("0-59 0-23 * * *", True),
        ("@daily", True),
        ("@hourly", False),
        ("0 * * * *", False),
        ("* 2 * * *", False),
        ("*/15 2 * * *", False),
        ("5/15 2 * * *", False),
        ("10-50/20 2 * * *", False),
        ("0 1,*/3 * * *", False),
    ],
)
def test_fixed_is_neither_star_nor_step_in_minute_and_hour(expression: str, fixed: bool) -> None:
    assert parse(expression).fixed is fixed


def test_every_range_of_weekdays_with_every_step() -> None:
    for low, high, step in product(range(8), range(8), range(1, 8)):
        expression = f"0 0 * * {low}-{high}/{step}"
        end = 7 if high == 0 < low else high
        start = 0 if low == 7 and low != end else low
        if start > end and step > 1:
            with pytest.raises(SchedulerError, match="steps over the end"):
                parse(expression)
            continue
        span = range(start, end + 1, step) if start <= end else [*range(start, 7), *range(end + 1)]
        expected = {day % 7 for day in ([start] if start == end else span)}
        assert {day for day, nth in parse(expression).weekdays if nth == 0} == expected, expression


def test_every_range_of_months_with_every_step() -> None:
    for low, high, step in product(range(1, 13), range(1, 13), range(1, 13)):
        if low <= high:
            assert parse(f"0 0 1 {low}-{high}/{step} *").months == set(range(low, high + 1, step))


@pytest.mark.parametrize("field", range(5))
def test_every_value_and_every_open_step(field: int) -> None:
    low, high = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))[field]
    ends = (59, 23, 31, 12, 6)
    for value, step in product(range(low, high + 1), (1, 2, 7)):
        for text, values in (
            (str(value), [value]),
            (f"{value}/{step}", range(value, ends[field] + 1, step) if value <= ends[field] else [value]),
            (f"*/{step}", range(low, high + 1, step)),
        ):
            fields = ["0", "0", "*", "*", "*"]
            fields[field] = text
            cron = parse(" ".join(fields))
            minutes = sorted({second // 60 % 60 for second in cron.times})
            read = (minutes, hours(cron), cron.dates, cron.months, {day for day, _ in cron.weekdays})[field]
            expected = {number % 7 if field == 4 else number for number in values}
            assert set(read) == expected, text


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "has 0 fields instead of 5"),
        ("   ", "has 0 fields instead of 5"),
        ("* * * *", "has 4 fields instead of 5"),
        ("0 0 * * * *", "has 6 fields instead of 5"),
        ("0 0 * * * * 2030", "has 7 fields instead of 5"),
        ("@reboot", "no alias '@reboot'"),
        ("@every 5m", "no alias '@every 5m'"),
        ("@daily * * * *", "no alias '@daily * * * *'"),
        ("60 * * * *", "minute '60' is outside 0-59"),
        ("* 24 * * *", "hour '24' is outside 0-23"),
        ("* * 0 * *", "day-of-month '0' is outside 1-31"),
        ("* * 32 * *", "day-of-month '32' is outside 1-31"),
        ("* * * 0 *", "month '0' is outside 1-12"),
        ("* * * 13 *", "month '13' is outside 1-12"),
        ("* * * * 8", "day-of-week '8' is outside 0-7"),
        ("1-60 * * * *", "minute '1-60' is outside 0-59"),
        ("-1 * * * *", "minute '-1' is not understood"),
        ("1- * * * *", "minute '1-' is not understood"),
        ("1-2-3 * * * *", "minute '1-2-3' is not understood"),
        ("1,,2 * * * *", "minute '' is not understood"),
        (",1 * * * *", "minute '' is not understood"),
        ("*,5 * * * *", "minute '*' is not understood"),
        ("*-5 * * * *", "minute '*-5' is not understood"),
        ("** * * * *", "minute '**' is not understood"),
        ("1.5 * * * *", "minute '1.5' is not understood"),
        ("+1 * * * *", "minute '+1' is not understood"),
        ("1_0 * * * *", "minute '1_0' is not understood"),
        ("jan * * * *", "minute 'jan' is not understood"),
        ("* * * mon *", "month 'mon' is not understood"),
        ("* * * * january", "day-of-week 'january' is not understood"),
        ("* * * * monday", "day-of-week 'monday' is not understood"),
        ("*/0 * * * *", "minute '*/0' has a step outside 1-59"),
        ("*/60 * * * *", "minute '*/60' has a step outside 1-59"),
        ("0 */24 * * *", "hour '*/24' has a step outside 1-23"),
        ("*/ * * * *", "minute '*/' is not understood"),
        ("*/-5 * * * *", "minute '*/-5' is not understood"),
        ("*/5/5 * * * *", "minute '*/5/5' is not understood"),
        ("*/4294967295 * * * *", "minute '*/4294967295' is not understood"),
        ("0-4294967295 * * * *", "minute '0-4294967295' is not understood"),
        ("0 21-5/2 * * *", "hour '21-5/2' steps over the end of the field"),
        ("* * * * 1,5#2", "day-of-week '1,5#2' mixes plain days"),
        ("* * * * 1#1,1", "day-of-week '1#1,1' mixes plain days"),
        ("* * * * mon,5L", "day-of-week 'mon,5l' mixes plain days"),
        ("* * * * 5#0", "day-of-week '5#0' is not understood"),
        ("* * * * 5#6", "day-of-week '5#6' is not understood"),
        ("* * * * 8#1", "day-of-week '8#1' is outside 0-7"),
        ("* * * * 1-5#2", "day-of-week '1-5#2' is not understood"),
        ("* * * * L", "day-of-week 'l' is not understood"),
        ("* * L-3 * *", "day-of-month 'l-3' is not understood"),
        ("* * 5-L * *", "day-of-month '5-l' is not understood"),
        ("* L * * *", "hour 'l' is not understood"),
        ("* * 5#2 * *", "day-of-month '5#2' is not understood"),
        # croniter's own language: random, hashed, nearest weekday, any
        ("R * * * *", "minute 'r' is not understood"),
        ("R(0-10) * * * *", "minute 'r(0-10)' is not understood"),
        ("H * * * *", "minute 'h' is not understood"),
        ("H/15 * * * *", "minute 'h/15' is not understood"),
        ("* H(0-5) * * *", "hour 'h(0-5)' is not understood"),
        ("* * 15W * *", "day-of-month '15w' is not understood"),
        ("* * W15 * *", "day-of-month 'w15' is not understood"),
        ("* * LW * *", "day-of-month 'lw' is not understood"),
        ("0 0 ? * 1", "day-of-month '?' is not understood"),
        # what only looks like digits or blanks
        ("١ * * * *", "minute '١' is not understood"),
        ("² * * * *", "minute '²' is not understood"),
        ("0\u00a00 * * * *", "minute '0\\xa00' is not understood"),
        ("0 0 * * *\n", "day-of-week '*\\n' is not understood"),
        ("0 0 * *\n*", "has 4 fields instead of 5"),
        ("0 0 * * 1\0", "day-of-week '1\\x00' is not understood"),
        ("0 0 * * ma\u0131", "day-of-week 'maı' is not understood"),
    ],
)
def test_what_is_refused_and_where(expression: str, message: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        check_cron(expression)
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 30 2 *",
        "0 0 31 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 30,31 feb *",
        "0 0 31 2-2 *",
        "0 0 30 2 */2",
    ],
)
def test_what_never_fires_is_refused(expression: str) -> None:
    """C12."""
    with pytest.raises(SchedulerError, match="never fires") as caught:
        check_cron(expression)
    assert expression in caught.value.message
    assert not parse(expression).ever()


@pytest.mark.parametrize("expression", ["0 0 29 2 *", "0 0 29 2 */7", "0 0 * 2 5#5", "0 0 30 2 1", "0 0 31 2 5L"])
def test_what_fires_rarely_is_accepted(expression: str) -> None:
    check_cron(expression)


def test_hostile_input_is_refused_quickly() -> None:
    began = time.perf_counter()
    for text in (
        "9" * 1_000_000,
        "* " * 500_000,
        "*/" * 400,
        "0-" * 400,
        "(" * 900,
        "1," * 499,
        "@" * 900,
        "[a-z]{3}l" * 90,
    ):
        for expression in (text, f"{text} * * * *", f"* * * * {text}"):
            with pytest.raises(SchedulerError) as caught:
                check_cron(expression)
            assert len(caught.value.message) < 200
    assert time.perf_counter() - began < 2


def test_the_longest_sensible_expression_is_short_enough() -> None:
    ranges = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
    expression = " ".join(",".join(f"{n:02}" for n in range(low, high + 1)) for low, high in ranges)
    assert len(expression) < LONGEST
    assert len(parse(expression).times) == 1440
    with pytest.raises(SchedulerError, match="characters"):
        parse(expression + " " * LONGEST)


FIELD = st.text("0123456789*/,-#LWHR?@jansumofri ", max_size=12)


@given(st.one_of(st.text(max_size=60), st.lists(FIELD, min_size=5, max_size=5).map(" ".join)))
@example("0 0 * * 7-0")
@example("0 0 L * L0")
def test_any_text_is_read_or_clearly_refused(text: str) -> None:
    try:
        cron = parse(text)
    except SchedulerError as error:
        assert error.message and error.hint
        return
    assert not re.search("[rhw?]", re.sub("thu|fri|mar|apr|wed|@hourly|@weekly|@yearly", "", text.lower()))
    assert cron.times and all(0 <= second < 86400 and second % 60 == 0 for second in cron.times)
    assert cron.months <= set(range(1, 13))
    assert cron.dates <= {LAST, *range(1, 32)}
    assert {day for day, _ in cron.weekdays} <= set(range(7))
