"""Casts in Arrow that change no value, and the rows that cannot be cast.

Decoders produce exactly the types that the sink asked for. Coordinates, and what a transform returns, may come in wider
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from sinks.clickhouse.faults import Faults

_Tests = tuple[Callable[[pa.DataType], bool], ...]
_TEXT: Final[_Tests] = (pt.is_string, pt.is_large_string, pt.is_binary, pt.is_large_binary, pt.is_fixed_size_binary)
_NUMBER: Final[_Tests] = (pt.is_integer, pt.is_floating)
_CASTS: Final[tuple[tuple[_Tests, _Tests], ...]] = (
    (_TEXT, _TEXT),
    (_NUMBER, _NUMBER),
    ((pt.is_decimal,), (pt.is_decimal, pt.is_integer)),
    ((pt.is_timestamp,), (pt.is_timestamp,)),
)
"""Target kinds and the source kinds that are cast to them."""


def same_kind(source: pa.DataType, target: pa.DataType) -> bool:
    """Return whether a cast between the types either keeps every value or raises.

    It is false for what Arrow casts by silently changing values: a timestamp to a date, a float to a decimal.
    """
    if pt.is_dictionary(source):
        return same_kind(source.value_type, target)
    if pt.is_list(target):
        return (pt.is_list(source) or pt.is_large_list(source)) and _same_inside(source.value_type, target.value_type)
    if pt.is_map(target):
        return (
            pt.is_map(source)
            and _same_inside(source.key_type, target.key_type)
            and _same_inside(source.item_type, target.item_type)
        )
    if pt.is_struct(target):
        return pt.is_struct(source) and _same_parts(source, target)
    return bool(source == target or any(_among(target, to) and _among(source, of) for to, of in _CASTS))


def cast_safely(values: pa.Array, target: pa.DataType, faults: Faults) -> pa.Array:
    """Return the values as `target`; record the rows whose value it cannot hold, and return nulls for them."""
    try:
        result = values.cast(target)
    except pa.ArrowInvalid:
        faults.extend(_failing(values, target, 0), "overflow", "does not fit the column's type")
        return pa.nulls(len(values), target)
    if pt.is_floating(target) and pt.is_floating(values.type):
        # Arrow rounds to the nearer Float32, as ClickHouse does, but turns what is too large into infinity.
        lost = pc.and_(pc.is_inf(result), pc.invert(pc.is_inf(values)))
        faults.add(lost, "overflow", "does not fit the column's type")
    return result


def _failing(values: pa.Array, target: pa.DataType, start: int) -> Iterator[int]:
    """Find by halving the rows that cannot be cast: Arrow's error does not say which it was."""
    try:
        # A slice of lists is cast with all their items; in a copy there are only its own.
        pa.concat_arrays([values]).cast(target)
    except pa.ArrowInvalid:
        if len(values) == 1:
            yield start
            return
        middle = len(values) // 2
        yield from _failing(values.slice(0, middle), target, start)
        yield from _failing(values.slice(middle), target, start + middle)


def _among(kind: pa.DataType, tests: _Tests) -> bool:
    return any(test(kind) for test in tests)


def _same_inside(source: pa.DataType, target: pa.DataType) -> bool:
    # `cast_safely` finds a number that became infinite in a column, but not in a list.
    narrower = pt.is_floating(target) and pt.is_floating(source) and target.bit_width < source.bit_width
    return not narrower and same_kind(source, target)


def _same_parts(source: pa.StructType, target: pa.StructType) -> bool:
    parts = list(source)
    wanted = list(target)
    return [part.name for part in parts] == [part.name for part in wanted] and all(
        _same_inside(part.type, want.type) for part, want in zip(parts, wanted, strict=True)
    )
