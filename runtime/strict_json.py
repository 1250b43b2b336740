"""JSON that means the same to every reader: UTF-8, no key twice, no NaN or infinity, no number or
nesting that takes a parser down. Independent of what the values mean."""

from __future__ import annotations

import json
import math
import re
from typing import Any

# A parser recurses once for each open bracket, and an app may have raised Python's own limit. A
# manifest has some dozens; one for every member that a bundle can have leaves as many for the rest.
_MAX_BRACKETS = 2000
_MAX_DIGITS = 20  # of a whole number: beyond 64 bits
# A string of JSON, or the rest of a text in which one is not closed, which is then refused.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)


def loads(text: bytes | str) -> Any:
    """The value of a JSON text; raises ValueError, whose message says what is wrong."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")  # json.loads would guess UTF-16 and UTF-32 as well
    outside = _STRING.sub("", text)  # brackets in a string are text
    if (brackets := outside.count("[") + outside.count("{")) > _MAX_BRACKETS:
        raise ValueError(f"{brackets} lists and objects; expected at most {_MAX_BRACKETS}")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError as exc:
        raise ValueError("lists and objects are nested too deeply") from exc
    if "\\u" in text:  # half of a pair passes as an escape, and fails where it is printed
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"the keys {repeated} occur more than once in one object")
    return value


def _constant(word: str) -> float:
    raise ValueError(f"{word} is not a number of JSON")


def _float(digits: str) -> float:
    if math.isfinite(value := float(digits)):
        return value
    raise ValueError(f"the number {digits} is too large")


def _int(digits: str) -> int:
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    raise ValueError(f"a whole number has {len(digits)} digits; expected at most {_MAX_DIGITS}")
