"""JSON without the `json` module, whose import alone costs a hook more than all of its work.

Only the C accelerator behind it is used; where that is missing, `json` itself is. The language is RFC 8259: no NaN, no
Infinity, nothing after the value. Hook-safe, Python 3.9 syntax.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\n\r"


def _refuse(word: str) -> None:
    raise ValueError(word + " is not JSON")


def _unknown(value: object) -> None:
    raise TypeError(type(value).__name__ + " is not JSON")


class _Context:
    """What the scanner asks of a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse)


_scan: Callable[[str, int], tuple[Any, int]]
_write: Callable[[object], str]

try:
    import _json

    _scan = _json.make_scanner(_Context)  # type: ignore[arg-type]
    _string = _json.scanstring
    quote: Callable[[str], str] = _json.encode_basestring_ascii
    _encoder = _json.make_encoder(None, _unknown, quote, None, ":", ",", False, False, False)

    def _write(value: object) -> str:
        return "".join(_encoder(value, 0))

except (ImportError, AttributeError, TypeError):
    import json

    _scan = json.JSONDecoder(parse_constant=_refuse).scan_once  # type: ignore[attr-defined]
    _string = json.decoder.scanstring  # type: ignore[attr-defined]
    quote = json.encoder.encode_basestring_ascii

    def _write(value: object) -> str:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)


def loads(data: bytes | str) -> Any:
    """The value that a JSON text holds; bytes are UTF-8. ValueError for anything else, however it is broken."""
    try:
        text = _text(data)
        value, end = _scan(text, _skip(text, 0))
    except Exception:  # malformed text makes the scanner raise StopIteration, SystemError, RecursionError and more
        raise ValueError("not JSON") from None
    if _skip(text, end) != len(text):
        raise ValueError("not JSON: something follows the value")
    return value


def loads_start(data: bytes) -> dict[str, Any]:
    """The members of an object whose text breaks off somewhere, as far as they are whole (also of objects in it)."""
    found, _ = _members(data.decode("utf-8", "ignore"))
    return found


def dumps(value: object) -> str:
    """`value` as JSON in ASCII on one line. ValueError for NaN and Infinity, TypeError for what JSON does not know."""
    return _write(value)


def _text(data: bytes | str) -> str:
    text = data if isinstance(data, str) else data.decode()
    return text[1:] if text[:1] == "\ufeff" else text  # the codec utf-8-sig would be one more import


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _members(text: str, at: int = 0) -> tuple[dict[str, Any], int]:
    """The whole members of the object at `at`, and where it ended; -1 when it broke off."""
    found: dict[str, Any] = {}
    at = _skip(text, at)
    if text[at : at + 1] != "{":
        return found, -1
    try:
        while True:
            at = _skip(text, at + 1)
            name, at = _string(text, at + 1)
            at = _skip(text, _skip(text, at) + 1)
            try:
                found[name], at = _scan(text, at)
            except Exception:
                if text[at : at + 1] == "{":
                    found[name], _ = _members(text, at)
                return found, -1
            at = _skip(text, at)
            if text[at : at + 1] != ",":
                return found, at
    except Exception:
        return found, -1
