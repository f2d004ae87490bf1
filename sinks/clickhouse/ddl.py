"""The statement that makes a table for records that nobody described.

Columns are Nullable only where a record had no value: that costs a file of marks a column. Lists cannot be Nullable and
get an empty DEFAULT instead. An object that is always there is a Tuple, any other a JSON column. Text of few values is
LowCardinality. The coordinate columns and the window make exactly-once possible, see `guarantee.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa

from batcher.errors import SinkMisconfigured
from batcher.growth import has_untyped
from batcher.protocols.proposal import Proposal
from batcher.records import RAW_JSON
from sinks.clickhouse.guarantee import ADVISED_WINDOW
from sinks.clickhouse.schema import quoted

_FEW: Final = 10_000
"""A dictionary of more values is no longer faster than the values themselves (the server's own documentation)."""

_REPEATED: Final = 10
"""Each value of a LowCardinality has to come this often: else the sample says nothing, or each value is another one."""

_ORDERED: Final = 1000
"""Text with more values than this sorts too finely to come before the time."""

_PREFIX: Final = 2
"""Columns before the time in a proposed order."""

_COORDINATES: Final = (
    ("_topic", "LowCardinality(String)"),
    ("_partition", "Int32"),
    ("_offset", "Int64"),
    ("_timestamp", "DateTime64(3, 'UTC')"),
)

_PLAIN: Final[dict[pa.DataType, str]] = {
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16",
    pa.uint32(): "UInt32",
    pa.uint64(): "UInt64",
    pa.float32(): "Float32",
    pa.float64(): "Float64",
    pa.bool_(): "Bool",
    pa.date32(): "Date32",
}
_DIGITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_MADE: Final[tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], str]], ...]] = (
    (pa.types.is_string, lambda _: "String"),
    (pa.types.is_large_string, lambda _: "String"),
    (pa.types.is_binary, lambda _: "String"),
    (pa.types.is_fixed_size_binary, lambda kind: f"FixedString({kind.byte_width})"),
    (pa.types.is_timestamp, lambda kind: f"DateTime64({_DIGITS[kind.unit]}, 'UTC')"),
    (pa.types.is_decimal, lambda kind: f"Decimal({kind.precision}, {kind.scale})"),
)


def create_table(table: str, proposal: Proposal) -> str:
    """Return the statement; `table` is quoted already. Raise SinkMisconfigured for a field without a type for it."""
    fields = [field for field in proposal.schema if not pa.types.is_null(field.type)]
    if not fields:
        raise SinkMisconfigured(f"{table}: no field has a value, so there is nothing to make columns of")
    columns = [f"    {quoted(field.name)} {_column(field, proposal)}" for field in fields]
    columns += [f"    `{name}` {kind}" for name, kind in _COORDINATES]
    order = ", ".join(quoted(name) for name in _order(fields, proposal))
    if proposal.version:
        # Without a window: rows that come again are merged, and tokens are never known without their rows.
        versions = ", ".join(map(quoted, (proposal.version, proposal.deleted)))
        engine = f"ENGINE = ReplacingMergeTree({versions})\nORDER BY ({order})"
        return f"CREATE TABLE {table}\n(\n" + ",\n".join(columns) + f"\n)\n{engine}"
    return (
        f"CREATE TABLE {table}\n(\n" + ",\n".join(columns) + "\n)\n"
        "ENGINE = MergeTree\n"
        f"ORDER BY ({order})\n"
        f"SETTINGS non_replicated_deduplication_window = {ADVISED_WINDOW}"
    )


def added_column(field: pa.Field) -> str | None:
    """Return type and default of a column that is added for a field and that older rows lack.

    None where no column can hold all that comes: values of several kinds, a type that ClickHouse does not have.
    """
    if RAW_JSON in (field.metadata or {}) or has_untyped(field.type):
        return None
    try:
        return _column(field.with_nullable(True), Proposal(pa.schema([field]), 0))
    except SinkMisconfigured:
        return None


def _order(fields: list[pa.Field], proposal: Proposal) -> list[str]:
    """Return the columns to sort by: those asked for, or the coarse ones, then a time."""
    able = {field.name for field in fields if not field.nullable and _sorts(field.type)}
    if proposal.order_by:
        known = able | {name for name, _ in _COORDINATES}
        for name in proposal.order_by:
            if name not in known:
                raise SinkMisconfigured(
                    f"--order-by {name}: is no column that can sort rows; those that have a value in every record are "
                    f"{', '.join(sorted(known))}"
                )
        return list(proposal.order_by)
    texts = {field.name for field in fields if field.name in able and pa.types.is_string(field.type)}
    coarse = [
        name
        for name, count in sorted(proposal.distinct.items(), key=lambda one: (one[1], one[0]))
        if name in texts and 1 < count <= min(_ORDERED, proposal.rows // _REPEATED)
    ]
    times = [field.name for field in fields if field.name in able and pa.types.is_timestamp(field.type)]
    return [*coarse[:_PREFIX], *(times[:1] or ["_timestamp"])]


def _sorts(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind) and not pa.types.is_floating(kind)


def _column(field: pa.Field, proposal: Proposal) -> str:
    kind, path = field.type, field.name
    if pa.types.is_struct(kind):
        return "JSON DEFAULT '{}'" if field.nullable or _has_open(kind) else _tuple(kind, path)
    if _is_list(kind) or pa.types.is_map(kind):
        empty = "map()" if pa.types.is_map(kind) else "[]"
        return f"{_type(kind, path)} DEFAULT {empty}" if field.nullable else _type(kind, path)
    count = proposal.distinct.get(field.name)
    few = pa.types.is_string(kind) and count is not None and count <= min(_FEW, proposal.rows // _REPEATED)
    name = f"Nullable({_type(kind, path)})" if field.nullable else _type(kind, path)
    return f"LowCardinality({name})" if few else name


def _type(kind: pa.DataType, path: str) -> str:
    """Return the type that holds every value of an Arrow type; raise SinkMisconfigured."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if pa.types.is_struct(kind):
        return "JSON" if _has_open(kind) else _tuple(kind, path)
    if _is_list(kind):
        return f"Array({_element(kind.value_field.type, path)})"
    if pa.types.is_map(kind):
        return f"Map({_type(kind.key_type, path)}, {_element(kind.item_type, path)})"
    for test, made in _MADE:
        if test(kind):
            return made(kind)
    raise SinkMisconfigured(f"field {path}: ClickHouse has no type for {kind}; leave it out, or load it as text")


def _element(kind: pa.DataType, path: str) -> str:
    """Return the type of an element, which may be null where it can be."""
    if pa.types.is_null(kind):
        return "Nullable(String)"
    name = _type(kind, path)
    return name if pa.types.is_nested(kind) else f"Nullable({name})"


def _tuple(kind: pa.StructType, path: str) -> str:
    def parts() -> Iterator[str]:
        for index in range(kind.num_fields):
            field = kind.field(index)
            yield f"{quoted(field.name)} {_element(field.type, f'{path}.{field.name}')}"

    return f"Tuple({', '.join(parts())})"


def _has_open(kind: pa.DataType) -> bool:
    """Return whether an object has parts that a Tuple cannot have absent, or whose type nobody knows yet."""
    if not pa.types.is_struct(kind):
        return bool(pa.types.is_null(kind))
    parts = [kind.field(index).type for index in range(kind.num_fields)]
    return not parts or any(pa.types.is_nested(part) or pa.types.is_null(part) for part in parts)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
