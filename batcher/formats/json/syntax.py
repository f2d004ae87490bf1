"""Turn a JSON text into Python values, strictly: the parser of the slow path and of inference.

Numbers keep their text, because `float` would round and `int` would refuse 5,000 digits. Objects keep their pairs,
because a dict would hide a key that occurs twice. CPython's parser does the work: it is the one within reach that hands
out both (msgspec keeps neither).
"""

from __future__ import annotations

import json
import json.encoder
import re
from collections.abc import Callable
from typing import Any, Final

from batcher.formats.json.limits import Refused

_STRING: Final = re.compile(r'"(?>[^"\\]+|\\.)*+"?', re.DOTALL)
"""A string, or the rest of the text where one is not closed. So a scan never starts over and stays linear."""

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}"\\'))
_NOT_BRACKET: Final = re.compile(r"[^\[\]{}]+")

_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""One escape; group 1 is half of a surrogate pair."""


class NumberText(str):
    """Hold a number as it was written."""

    __slots__ = ()


class Pairs:
    """Hold an object as it was written: its pairs in order, repeated keys included."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items


def _constant(name: str) -> None:
    raise Refused("syntax", f"{name} is not JSON")


_scan: Final = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_int=NumberText, parse_float=NumberText, parse_constant=_constant
).decode


def parse_object(raw: bytes, max_depth: int) -> Pairs:
    """Return the object that a message holds, and nothing else; raise Refused with the reason otherwise.

    Values are None, bool, str, NumberText, list and Pairs.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Refused("encoding", f"invalid UTF-8 at byte {error.start}") from error
    if not text.strip(" \t\r\n"):
        raise Refused("empty", "the message is empty")
    if text[0] == "\ufeff":
        raise Refused("syntax", "the message begins with a byte order mark")
    check_depth(text, max_depth)
    try:
        value = _scan(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise Refused("trailing_data", f"more data after the document, at character {error.pos}") from error
        raise Refused("syntax", f"not JSON at character {error.pos}: {error.msg}") from error
    except RecursionError as error:
        raise Refused("too_deep", "nested too deep to be parsed") from error
    if type(value) is not Pairs:
        raise Refused("not_object", f"the document is {kind(value)}, not an object")
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(text)
    return value


def _check_surrogates(text: str) -> None:
    for escape in _ESCAPE.finditer(text):
        if escape[1]:
            raise Refused("encoding", f"half a surrogate pair at character {escape.start()}")


def check_depth(text: str, max_depth: int) -> None:
    """Raise Refused if brackets outside strings are nested deeper than allowed."""
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for bracket in _brackets(text):
        if bracket in b"[{":
            depth += 1
            if depth > max_depth:
                raise Refused("too_deep", f"nested deeper than {max_depth} levels")
        else:
            depth -= 1


def _brackets(text: str) -> bytes:
    """Return the brackets outside strings."""
    found = text.encode().translate(None, _NO_BRACKETS)
    if b"\\" in found:
        # What these stand before, or for, ends no string.
        return _NOT_BRACKET.sub("", _STRING.sub("", text)).encode()
    return b"".join(found.split(b'"')[::2])


def kind(value: Any) -> str:
    """Name the kind of a parsed value, for a message."""
    names = {str: "a string", NumberText: "a number", bool: "a boolean", list: "a list", Pairs: "an object"}
    return names.get(type(value), "null")


quote: Final[Callable[[str], str]] = json.encoder.encode_basestring
"""Write a string as JSON, and escape only what has to be."""


def compact(value: Any) -> str:
    """Write a parsed value as JSON without spaces, numbers as they were; raise Refused for a repeated key."""
    if type(value) is NumberText:
        return value
    if type(value) is str:
        return quote(value)
    if type(value) is list:
        return "[" + ",".join([compact(item) for item in value]) + "]"
    if type(value) is Pairs:
        if len({key for key, _ in value.items}) < len(value.items):
            raise Refused("duplicate", "a key occurs twice in one object")
        return "{" + ",".join([f"{quote(key)}:{compact(item)}" for key, item in value.items]) + "}"
    return "null" if value is None else "true" if value else "false"
