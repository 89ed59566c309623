from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.disk import tinyjson

ROOT = Path(__file__).resolve().parents[2]

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)

BITS = st.text('{}[],:"\\ \n\t0123456789.eE+-truefalsnINy\x00\x0b\xa0', max_size=4)


def strict(text: str | bytes) -> Any:
    """What `json` makes of a text, without its leave for NaN."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    return json.loads(text, parse_constant=refuse)


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_reads_whatever_json_writes(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert tinyjson.loads(text) == strict(text)


@given(VALUES)
def test_json_reads_whatever_it_writes_and_it_is_one_line_of_ascii(value: Any) -> None:
    text = tinyjson.dumps(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert text.isprintable()
    assert text == json.dumps(value, separators=(",", ":"))


@given(st.data())
def test_takes_and_refuses_what_json_takes_and_refuses(data: st.DataObject) -> None:
    text = json.dumps(data.draw(VALUES))
    cut = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(cut, len(text)))
    text = text[:cut] + data.draw(BITS) + text[end:]
    try:
        expected = strict(text)
    except ValueError:
        with pytest.raises(ValueError, match="not JSON"):
            tinyjson.loads(text)
    else:
        assert tinyjson.loads(text) == expected


@given(st.binary(max_size=40))
def test_any_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    try:
        expected = strict(data)
    except ValueError:
        with pytest.raises(ValueError):
            tinyjson.loads(data)
    else:
        assert tinyjson.loads(data) == expected


@given(st.text())
def test_quotes_as_json_does(text: str) -> None:
    assert tinyjson.quote(text) == json.dumps(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", '{"a"', '{"a":1,}', "[1,]", "nul", "NaN", "-Infinity", "1 2", "{}x", '"\x01"', "'a'", "[" * 100_000],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        tinyjson.loads(text)


def test_takes_a_byte_order_mark_and_white_space() -> None:
    assert tinyjson.loads(b'\xef\xbb\xbf\r\n {"a": 1}\t\n') == {"a": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"bytes"])
def test_does_not_write_what_json_does_not_know(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        tinyjson.dumps(value)


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=5), st.data())
def test_the_start_of_an_object_gives_its_whole_members(value: dict[str, Any], data: st.DataObject) -> None:
    whole = tinyjson.dumps(value).encode()
    found = tinyjson.loads_start(whole[: data.draw(st.integers(0, len(whole)))])
    names = list(value)[: len(found)]
    assert list(found) == names
    for name in names[:-1]:
        assert found[name] == value[name]


def test_the_start_of_an_object_is_read_into_the_object_that_breaks_off() -> None:
    whole = {"session": "s", "input": {"path": "/a", "content": "x" * 50}, "response": {"big": 1}}
    assert tinyjson.loads_start(json.dumps(whole).encode()[:60]) == {"session": "s", "input": {"path": "/a"}}
    assert tinyjson.loads_start(json.dumps(whole).encode()) == whole
    for text in (b"", b"[1]", b'{"a', b"nul", b"\xff\xfe"):
        assert tinyjson.loads_start(text) == {}


def test_imports_json_only_where_the_accelerator_is_missing() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "if sys.argv[2] == 'without': sys.modules['_json'] = None\n"
        "from scheduler.disk import tinyjson\n"
        'assert tinyjson.loads(\'{"a": [1, "\\\\u00e9"]}\') == {"a": [1, "\\u00e9"]}\n'
        'assert tinyjson.dumps({"a": [1.5, "\\u00e9"]}) == \'{"a":[1.5,"\\\\u00e9"]}\'\n'
        'assert tinyjson.loads_start(b\'{"a": 1, "b": {"c": 2, "d\') == {"a": 1, "b": {"c": 2}}\n'
        "for bad in ('{', 'NaN', '1 2'):\n"
        "    try: tinyjson.loads(bad)\n"
        "    except ValueError: continue\n"
        "    raise AssertionError(bad)\n"
    )
    seen = "print('json' in sys.modules)"
    with_it = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code.replace("for bad", f"{seen}\nfor bad"), str(ROOT), "with"],
        capture_output=True,
        text=True,
        check=True,
    )
    without = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code + seen, str(ROOT), "without"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (with_it.stdout, without.stdout) == ("False\n", "True\n")
