"""What becomes of a row depends on nothing but the row, and is what the JSON format makes of the same values."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import event, example, given, settings

from batcher.formats.fit import Fitted, fit
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.formats.writer_schema import SchemaKey
from batcher.records import RESCUED
from batcher.testing.values import make_batch, make_records

KEY = SchemaKey(7)

INTEGERS = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**24, 2**31, 2**53, 10**11, 10**14, 10**17]).flatmap(
        lambda n: st.integers(-2, 2).map(lambda d: n + d)
    ),
)
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2.0**128 - 2.0**103, 2.0**128 - 2.0**104, 1e39, -1e39, 0.1]),
)
TEXTS = st.one_of(
    st.text(max_size=4),
    st.sampled_from(
        ["1.5", "-2.25", "1e2", "2024-05-06", "2024-05-06T01:02:03.123456789Z", "1700000000", 'a"\\\n\x01']
    ),
    INTEGERS.map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9).map(str),
)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
POINTS = st.one_of(st.integers(-(2**62), 2**62), st.integers(-(10**10), 10**10).map(lambda n: n * 10**6))
TIMES = st.integers(-11_676_096 * 10**9, 13_569_465_600 * 10**6).map(
    lambda us: dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=us)
)
DAYS = st.dates()

Kind = tuple[pa.DataType, Any]
"""A type of a writer, and values of it."""

LEAVES: list[Kind] = [
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), INTEGERS),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), FLOATS),
    (pa.string(), TEXTS),
    (pa.dictionary(pa.int32(), pa.string()), TEXTS),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(20, 3), DECIMALS),
    (pa.timestamp("us", "UTC"), TIMES),
    (pa.date32(), DAYS),
]
BARE: list[Kind] = [
    (pa.binary(), st.binary(max_size=3)),
    (pa.binary(2), st.binary(min_size=2, max_size=2)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.timestamp("ms"), POINTS),
    (pa.time64("us"), st.integers(0, 86_399_999_999)),
    (pa.large_string(), TEXTS),
    (pa.decimal256(50, 5), DECIMALS),
]
"""Those of which some values have no JSON, or no Python value."""


def nested(kind: Kind) -> st.SearchStrategy[Kind]:
    of, values = kind
    held = st.one_of(values, values, st.none())
    return st.sampled_from(
        [
            kind,
            (pa.list_(of), st.lists(held, max_size=3)),
            (
                pa.map_(pa.string(), of),
                st.dictionaries(st.sampled_from("abc"), held, max_size=3).map(dict.items).map(list),
            ),
            (pa.struct([("a", of), ("x", pa.int64())]), st.fixed_dictionaries({"a": held, "x": st.none() | INTEGERS})),
            (
                pa.list_(pa.struct([("a", of)])),
                st.lists(st.one_of(st.fixed_dictionaries({"a": held}), st.none()), max_size=3),
            ),
        ]
    )


TARGETS = [
    pa.int8(),
    pa.int64(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
    pa.decimal128(10, 2),
    pa.decimal256(60, 5),
    pa.string(),
    pa.binary(),
    pa.bool_(),
    pa.date32(),
    pa.timestamp("s", "UTC"),
    pa.timestamp("ns"),
]


@st.composite
def columns(draw: Any, targets: list[pa.DataType] = TARGETS) -> pa.Field:
    name = draw(st.sampled_from(["a", "a", "a", "A", "b"]))
    leaf = draw(st.sampled_from(targets))
    inner = pa.field("a", leaf, nullable=draw(st.booleans()) or leaf == pa.null())
    kind = draw(
        st.sampled_from(
            [
                leaf,
                leaf,
                pa.list_(pa.field("item", leaf, nullable=inner.nullable)),
                pa.map_(pa.string(), pa.field("value", leaf, nullable=inner.nullable)),
                pa.struct([inner]),
                pa.list_(pa.struct([inner])),
            ]
        )
    )
    return pa.field(name, kind, nullable=draw(st.booleans()) or kind == pa.null())


def array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_temporal(kind) and any(isinstance(value, int) for value in values):
        return pa.array(values, pa.int64()).view(kind)
    return pa.array(values, kind)


@st.composite
def tables(draw: Any, kinds: list[Kind], *, deep: bool = True) -> pa.Table:
    rows = draw(st.integers(1, 6))
    held = {}
    for name in draw(st.permutations(["a", "b"])):
        kind = draw(st.sampled_from(kinds))
        of, values = draw(nested(kind)) if deep else kind
        held[name] = array(draw(st.lists(st.one_of(values, values, st.none()), min_size=rows, max_size=rows)), of)
    return pa.table(held)


OPTIONS = st.builds(
    JsonOptions,
    on_unknown=st.sampled_from(["warn", "ignore", "reject", "halt", "evolve", "rescue", "rescue"]),
    match=st.sampled_from(["exact", "exact", "insensitive"]),
    text=st.sampled_from([frozenset(), frozenset("*")]),
    epoch=st.sampled_from([{}, {"*": "ms"}]),
)


def outcomes(fitted: Fitted, count: int) -> list[Any]:
    """Return what became of each row; texts of values, because NaN is not equal to itself."""
    found: dict[int, Any] = {
        row: repr(values) for row, values in zip(fitted.rows.to_pylist(), rows_of(fitted.table), strict=True)
    }
    found |= {one.position: (one.reason, one.message, one.path) for one in fitted.rejections}
    assert sorted(found) == list(range(count))
    return [found[row] for row in range(count)]


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    listed = [numbers(column.combine_chunks()).to_pylist() for column in table.columns]
    return list(zip(*listed, strict=True))


def numbers(column: pa.Array) -> pa.Array:
    """Return a column without times, which Python cannot all hold."""
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        return column.view(pa.int64())
    if pa.types.is_date32(kind):
        return column.view(pa.int32())
    if pa.types.is_struct(kind):
        parts = [numbers(part) for part in column.flatten()]
        return pa.StructArray.from_arrays(parts, names=[one.name for one in kind], mask=column.is_null())
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(column.offsets, numbers(column.values), mask=column.is_null())
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(column.offsets, column.keys, numbers(column.items), mask=column.is_null())
    return column


@given(tables(LEAVES + BARE), st.data(), OPTIONS)
@settings(max_examples=200, deadline=None)
def test_a_row_fares_the_same_alone_and_among_others_wherever_it_stands(
    table: pa.Table, data: st.DataObject, options: JsonOptions
) -> None:
    more = [pa.time32("s"), pa.time64("ns"), pa.binary(2), pa.null()]
    target = wanted(pa.schema([data.draw(columns(TARGETS + more))]), options)
    # Rows around those that are looked at: slices share their buffers with them.
    whole = pa.concat_tables([table, table, table]).combine_chunks().slice(1, table.num_rows * 2)
    together = fit(whole, target, key=KEY, options=options)
    together.table.validate(full=True)
    assert together.table.schema.equals(target, check_metadata=True)
    among = outcomes(together, whole.num_rows)
    for row in range(whole.num_rows):
        alone = fit(whole.slice(row, 1), target, key=KEY, options=options)
        assert outcomes(alone, 1) == [among[row]]
        event(among[row][0] if isinstance(among[row], tuple) else "fits")
    own = pa.Table.from_pylist(whole.to_pylist(), schema=table.schema) if representable(table.schema) else whole
    assert outcomes(fit(own, target, key=KEY, options=options), whole.num_rows) == among


def representable(schema: pa.Schema) -> bool:
    return not any("timestamp" in str(kind) or "time64" in str(kind) for kind in schema.types)


@given(tables(LEAVES), st.data(), OPTIONS)
@settings(max_examples=300, deadline=None)
@example(pa.table({"a": [1], "b": [1]}), None, JsonOptions())
def test_what_fits_is_what_the_json_format_makes_of_the_same_values(
    table: pa.Table, data: st.DataObject | None, options: JsonOptions
) -> None:
    column = pa.field("a", pa.int8()) if data is None else data.draw(columns())
    target = wanted(pa.schema([column]), options)
    if any(differs(one.type, column.type) for one in table.schema):
        event("documented to differ")
        return
    documents = [document(row, column.name, options) for row in rows_as_json(table)]
    decoded = JsonFormat(options).decoder(target).decode(make_batch(make_records(documents)))
    by_json: dict[int, Any] = dict(zip(decoded.positions.to_pylist(), map(told, rows_of(decoded.table)), strict=True))
    by_json |= {one.position: (one.reason, one.path) for one in decoded.rejections}
    fitted = fit(table, target, key=KEY, options=options)
    by_fit: dict[int, Any] = dict(zip(fitted.rows.to_pylist(), map(told, rows_of(fitted.table)), strict=True))
    by_fit |= {one.position: (one.reason, one.path) for one in fitted.rejections}
    for row in range(table.num_rows):
        event(f"fits {column.type}" if isinstance(by_fit[row], str) else f"refused: {by_fit[row][0]}")
        assert by_fit[row] == by_json[row], documents[row]
    if options.on_unknown in ("warn", "evolve"):
        assert sorted((one.path, one.records) for one in fitted.unknown) == sorted(
            (one.path, one.records) for one in decoded.unknown
        )


def wanted(target: pa.Schema, options: JsonOptions) -> pa.Schema:
    """Return the target with the column for what no other column takes, where it is to be filled."""
    return target.insert(0, RESCUED) if options.on_unknown == "rescue" else target


def told(row: tuple[Any, ...]) -> str:
    """Return a row as a text; of what no column takes the values count, however they are written."""
    if len(row) == 1:
        return repr(row)
    return repr((None if row[0] is None else json.loads(row[0], parse_float=Decimal), row[1]))


def differs(source: pa.DataType, to: pa.DataType) -> bool:
    """Return whether a pair of types, or one inside, is among those that the docstring of the package names."""
    for kind in (pa.types.is_struct, pa.types.is_map, pa.types.is_list):
        if kind(to) and kind(source):
            return differs(held_by(source), held_by(to))
    if pa.types.is_nested(source):
        return pa.types.is_struct(to) or pa.types.is_map(to) or to in (pa.string(), pa.binary())
    if pa.types.is_float64(source):
        return pa.types.is_integer(to) or pa.types.is_decimal(to) or to in (pa.string(), pa.binary())
    # A decimal without fraction is written without one in JSON: an integer that has to be exact.
    return bool(
        (pa.types.is_timestamp(source) and to == pa.date32())
        or (pa.types.is_decimal(source) and pa.types.is_floating(to))
    )


def held_by(kind: pa.DataType) -> pa.DataType:
    return kind.item_type if pa.types.is_map(kind) else kind.field(0).type


def document(row: dict[str, Any], column: str, options: JsonOptions) -> bytes:
    """Return a record; where fields are refused, without those of which only the null would be refused."""
    if options.on_unknown in ("reject", "halt"):
        column = column.lower() if options.match == "insensitive" else column
        row = {name: without_nulls(value) for name, value in row.items() if name == column or value is not None}
    return written(row)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict) and "x" in value:
        return {name: item for name, item in value.items() if name != "x" or item is not None}
    return value


def written(value: Any) -> bytes:
    text: str = json.dumps(value, default=plain, ensure_ascii=False)
    return text.replace('"\ud800', "").replace('\ud801"', "").encode()


def plain(value: Any) -> Any:
    """Return a number with a fraction as a text that is freed of its quotes afterwards."""
    assert isinstance(value, Decimal)
    return f"\ud800{value}\ud801"


def rows_as_json(table: pa.Table) -> list[dict[str, Any]]:
    kinds = dict(zip(table.schema.names, table.schema.types, strict=True))
    return [{name: as_json(value, kinds[name]) for name, value in row.items()} for row in table.to_pylist()]


def as_json(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_map(kind):
        return {key: as_json(item, kind.item_type) for key, item in value}
    if pa.types.is_list(kind):
        return [as_json(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {field.name: as_json(value[field.name], field.type) for field in kind}
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, dt.date) else value
