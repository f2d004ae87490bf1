"""Values in a JSON column whose path has no type: what the engine would store as something else.

An integer beyond 64 bits becomes text. The items of a list, and of lists side by side in one, are brought to one type
where they have one in common: booleans beside numbers become numbers, beside text they become text. An integer beside
fractions becomes the nearest double. A null beside lists becomes an empty list. Where a list or an object is beside
other values all of them stay what they are. A text that looks like a date or a time becomes one, and one that does not
exist becomes another: 2026-02-30 the second of March. Settings do not prevent it, because the reader of Arrow ignores
them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import date
from typing import Any, Final, NamedTuple


class JsonNumber(str):
    """Hold a number as it was written."""

    __slots__ = ()


class JsonRefusal(NamedTuple):
    """Say why a value cannot be stored as it is: a word for counting, and a message."""

    reason: str
    message: str


_EXACT: Final = 2**53
"""Up to here every integer is a double too."""

_MONTHS: Final = 12
_DAYS: Final = 31
_HOURS: Final = 24
_MINUTES: Final = 60
_NANOSECONDS: Final = 9

_MIXED: Final = JsonRefusal("mixed", "the list has booleans beside other values, which the column would change")
_ROUNDED: Final = JsonRefusal("precision", "the list has fractions beside an integer that the column would round")
_NULL: Final = JsonRefusal("null", "the list has a null beside lists, which the column would make an empty list")
_LONG: Final = JsonRefusal("overflow", "the integer has more than 64 bits, and the column would make text of it")


_MOMENT: Final = re.compile(r"(\d{4})[-/:](\d{1,2})[-/:](\d{1,2})(?:[ T](\d\d):(\d\d):(\d\d)(?:\.(\d*))?)?", re.ASCII)
_NO_MOMENT: Final = JsonRefusal(
    "timestamp", "the text looks like a time that does not exist, and the column would move it"
)
_FINE: Final = JsonRefusal(
    "precision", "the text looks like a time finer than nanoseconds, and the column would cut it"
)

_SPACE: Final = r"[ \t\r\n]*"
_DAY: Final = r"[0-9]{4}[-/:][0-9]{1,2}[-/:][0-9]{1,2}"
SUSPECT: Final = "|".join(
    (
        rf"[:\[,]{_SPACE}-?[0-9]{{19}}",
        rf"[\[,]{_SPACE}-?[0-9]{{16}}",
        rf"[\[,]{_SPACE}(?:true|false|null){_SPACE}[,\]]",
        r'"[0-9]{4}[-/:](?:0?2[-/:](?:29|3[01])|(?:0?[469]|11)[-/:]31)[" T]',
        rf'"{_DAY}[ T](?:2[4-9]|[3-9][0-9]|[0-9]{{2}}:[6-9]|[0-9]{{2}}:[0-9]{{2}}:(?:[6-9]|[0-9]{{2}}\.[0-9]{{10}}))',
    )
)
"""A pattern for Arrow that matches every document in which something is changed, and few others."""


def bent(value: Any, path: str = "", apart: Collection[str] = ()) -> Iterator[tuple[str, JsonRefusal]]:
    """Yield the paths of what the engine would change, and why; paths in `apart` have a type of their own."""
    if path in apart:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from bent(item, f"{path}.{key}" if path else key, apart)
    elif isinstance(value, list):
        yield from _bent_items(value, path, apart)
    elif type(value) is str:
        moved = _moved(value)
        if moved is not None:
            yield path, moved
    elif type(value) is JsonNumber and _whole(value) and not -(2**63) <= int(value) < 2**64:
        yield path, _LONG


def _bent_items(items: list[Any], path: str, apart: Collection[str]) -> Iterator[tuple[str, JsonRefusal]]:
    """Yield what is changed among items that the engine brings to one type: of a list, or of lists side by side."""
    there = [item for item in items if item is not None]
    if there and all(isinstance(item, list) for item in there):
        if len(there) < len(items):
            yield path, _NULL
        yield from _bent_items([item for part in there for item in part], path, apart)
        return
    if not any(isinstance(item, (dict, list)) for item in there):
        if 0 < sum(isinstance(item, bool) for item in there) < len(there):
            yield path, _MIXED
        elif all(type(item) is JsonNumber for item in there):
            whole = [_whole(item) for item in there]
            if not all(whole) and any(
                known and abs(int(item)) > _EXACT for known, item in zip(whole, there, strict=True)
            ):
                yield path, _ROUNDED
    for item in there:
        yield from bent(item, path, apart)


def _whole(number: JsonNumber) -> bool:
    return number.lstrip("-").isdigit()


def _moved(text: str) -> JsonRefusal | None:
    """Return why a text that the engine takes for a time would not be that time."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    year, month, day = map(int, found.group(1, 2, 3))
    if not (1 <= month <= _MONTHS and 1 <= day <= _DAYS):
        # The engine leaves it as text.
        return None
    try:
        date(year, month, day)
    except ValueError:
        return _NO_MOMENT
    hours, minutes, seconds = (int(part or 0) for part in found.group(4, 5, 6))
    if hours >= _HOURS or minutes >= _MINUTES or seconds >= _MINUTES:
        return _NO_MOMENT
    return _FINE if len(found.group(7) or "") > _NANOSECONDS else None
