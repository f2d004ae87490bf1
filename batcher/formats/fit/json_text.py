"""Columns as compact JSON text, built a whole column at a time."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.fit.parts import entries_of, items_of, repeated_keys
from batcher.formats.fit.places import Reasons, is_list, true_rows
from batcher.formats.fit.source import plain_column
from batcher.formats.json.shape import integer_bounds, is_raw
from batcher.formats.json.syntax import quote
from batcher.formats.json.timestamps import piecewise
from batcher.formats.quotes import quoted

Texts = tuple[pa.Array, Reasons]
"""A column of strings, null where the given one is, and the rows that have no text."""

_SECONDS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST_DAY, _LAST_DAY = -719_528, 2_932_896
"""The days of 0000-01-01 and 9999-12-31 since 1970: ISO 8601 has four digits for a year."""


def is_text_in_json(kind: pa.DataType) -> bool:
    """Return whether values of a type are strings in JSON."""
    times = pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind)
    return bool(times or is_character(kind) or is_bytes(kind))


def is_character(kind: pa.DataType) -> bool:
    """Return whether a type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a type holds bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _part_text(column: pa.Array, field: pa.Field) -> Texts:
    """Return the values of a field as JSON; a field that is JSON already stays what it is."""
    return (column, {}) if is_raw(field) else json_text(column)


def json_text(column: pa.Array) -> Texts:  # noqa: PLR0911 - one for each kind of type
    """Return values as JSON; a null inside of one is `null`."""
    column = plain_column(column)
    kind = column.type
    if is_text_in_json(kind):
        texts, bad = bare_text(column)
        return quoted(texts), bad
    if integer_bounds(kind) is not None or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string()), {}
    if pa.types.is_floating(kind):
        odd = pc.invert(pc.is_finite(column))
        return column.cast(pa.string()), _bad(odd, "type", "NaN and infinities are not JSON")
    if pa.types.is_struct(kind):
        return _struct(column)
    if pa.types.is_map(kind):
        return _map(column)
    if is_list(kind):
        return _list(column)
    return pa.nulls(len(column), pa.string()), _bad(column.is_valid(), "type", "the type of a value has no JSON")


def bare_text(column: pa.Array) -> Texts:
    """Return values that are strings in JSON as these strings."""
    kind = column.type
    if is_character(kind):
        return column.cast(pa.string()), {}
    if is_bytes(kind):
        texts, bad = piecewise(column.cast(pa.binary()), lambda part: part.cast(pa.string()))
        return texts, dict.fromkeys(bad, ("encoding", "the bytes are not UTF-8"))
    if pa.types.is_timestamp(kind):
        second = _SECONDS[kind.unit]
        return _iso(column.view(pa.timestamp(kind.unit)), second * 86_400, zone="" if kind.tz is None else "Z")
    if pa.types.is_date(kind):
        return _iso(column, 1 if kind == pa.date32() else 86_400_000)
    return column.cast(pa.string()), {}


def _iso(column: pa.Array, day: int, zone: str = "") -> Texts:
    """Write points in time; `day` is the length of a day in their unit."""
    points = column.view(pa.int32() if column.type == pa.date32() else pa.int64()).cast(pa.int64())
    far = pc.or_(
        pc.less(points, max(_FIRST_DAY * day, -(2**63))), pc.greater(points, min((_LAST_DAY + 1) * day - 1, 2**63 - 1))
    )
    texts = pc.if_else(far, pa.scalar(None, column.type), column).cast(pa.string())
    if not pa.types.is_date(column.type):
        texts = pc.binary_join_element_wise(pc.replace_substring(texts, " ", "T"), zone, "")
    return texts, _bad(far, "timestamp", "the year has more than four digits")


def _struct(column: pa.Array) -> Texts:
    parts: list[Any] = []
    bad: dict[int, tuple[str, str]] = {}
    for number, (part, field) in enumerate(zip(column.flatten(), column.type, strict=True)):
        texts, wrong = _part_text(part, field)
        for row, why in wrong.items():
            bad.setdefault(row, why)
        parts += [f"{',' if number else '{'}{quote(field.name)}:", pc.fill_null(texts, "null")]
    texts = _joined(*parts, "}") if parts else pa.repeat("{}", len(column))
    return _where_valid(texts, column), bad


def _list(column: pa.Array) -> Texts:
    items = items_of(column)
    texts, wrong = _part_text(items.values, column.type.value_field)
    lists = pa.ListArray.from_arrays(items.offsets, pc.fill_null(texts, "null"))
    return _where_valid(_joined("[", pc.binary_join(lists, ","), "]"), column), items.first_of(wrong)


def _map(column: pa.Array) -> Texts:
    entries, keys, values = entries_of(column)
    keys = plain_column(keys)
    names, bad_names = bare_text(keys) if is_text_in_json(keys.type) else json_text(keys)
    texts, bad_texts = _part_text(values, column.type.item_field)
    pairs = _joined(quoted(names), ":", pc.fill_null(texts, "null"))
    lists = pa.ListArray.from_arrays(entries.offsets, pc.fill_null(pairs, ""))
    bad = dict.fromkeys(repeated_keys(entries, names), ("duplicate", "a key occurs twice in one map"))
    for row, why in entries.first_of({**bad_texts, **bad_names}).items():
        bad.setdefault(row, why)
    return _where_valid(_joined("{", pc.binary_join(lists, ","), "}"), column), bad


def _joined(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _where_valid(texts: pa.Array, column: pa.Array) -> pa.Array:
    return pc.if_else(column.is_valid(), texts, pa.scalar(None, pa.string())) if column.null_count else texts


def _bad(mask: pa.Array, reason: str, what: str) -> Reasons:
    return dict.fromkeys(true_rows(mask), (reason, what))
