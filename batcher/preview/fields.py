"""What the fields of decoded records hold: how often each has a value, of how many kinds, and what one looks like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

EXAMPLE_LENGTH: Final = 32
"""Characters of an example at most."""

_COUNTED: Final = (
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_boolean,
    pa.types.is_temporal,
    pa.types.is_decimal,
    pa.types.is_floating,
    pa.types.is_binary,
    pa.types.is_fixed_size_binary,
)
"""Types whose different values are counted."""

_MASKS: Final = ((re.compile(r"[^\W\d_]"), "x"), (re.compile(r"\d"), "9"))


@dataclass(frozen=True, slots=True)
class FieldProfile:
    """Say what a field holds. A field of an object is named `object.field`."""

    path: str
    kind: pa.DataType
    rows: int
    """Records that could have a value: for a field of an object those that have the object."""
    values: int
    """Records that have one."""
    distinct: int | None
    """Different values; None where they are not counted."""
    example: str = ""
    """A value in which every letter is an x and every digit a 9: nothing of a record is shown."""


def profiles(table: pa.Table) -> list[FieldProfile]:
    """Return what each field of a table holds, objects before their fields."""
    return [one for name in table.column_names for one in _profiles(name, _whole(table[name]))]


def masked(value: Any) -> str:
    """Return what a value looks like without what it says."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    for pattern, stands_for in _MASKS:
        text = pattern.sub(stands_for, text)
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: EXAMPLE_LENGTH + 1])
    return text if len(text) <= EXAMPLE_LENGTH else text[: EXAMPLE_LENGTH - 1] + "…"


def _profiles(path: str, values: pa.Array) -> Iterator[FieldProfile]:
    kind = values.type
    held = len(values) - values.null_count if not pa.types.is_null(kind) else 0
    counted = any(test(kind) for test in _COUNTED)
    distinct = pc.count_distinct(values).as_py() if counted else None
    example = masked(_first(values)) if counted and held else ""
    yield FieldProfile(path, kind, len(values), held, distinct, example)
    if pa.types.is_struct(kind):
        there = values.filter(values.is_valid()) if values.null_count else values
        for index in range(kind.num_fields):
            yield from _profiles(f"{path}.{kind.field(index).name}", pc.struct_field(there, [index]))


def _first(values: pa.Array) -> Any:
    return values[pc.index(values.is_valid(), pa.scalar(value=True)).as_py()].as_py()


def _whole(values: pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
