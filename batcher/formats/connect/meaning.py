"""What the names of Connect's types mean: days, microseconds, decimals in bytes, JSON in text.

Columns of named types become columns of the type that is meant. Sources: the classes in `io.debezium.time`,
`io.debezium.data` and `org.apache.kafka.connect.data`, each with its name and base type in its documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.connect.octets import from_base64, from_twos_complement
from batcher.formats.fit.parts import items_of
from batcher.formats.fit.places import Faults, true_rows
from batcher.formats.json import timestamps
from batcher.formats.json.limits import Refused
from batcher.formats.json.shape import inner_path, item_path
from batcher.records import RAW_JSON

DATE: Final = "io.debezium.time.Date"
DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
VARIABLE: Final = "io.debezium.data.VariableScaleDecimal"
JSON: Final = "io.debezium.data.Json"

SCALE: Final = "scale"
PRECISION: Final = "connect.decimal.precision"
"""The parameters of a decimal. The second one is Debezium's, and optional."""

_DIGITS: Final = 38

VARIABLE_TYPE: Final = pa.decimal256(2 * _DIGITS, _DIGITS)
"""What numbers of any scale become: 38 digits before the point and 38 behind it, or they are refused."""


@dataclass(frozen=True, slots=True)
class Named:
    """Hold what a schema says of a type: its name, with parameters, and the same of what is in it.

    `base64` says that bytes are written as text.
    """

    name: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, Named] = field(default_factory=dict)
    item: Named | None = None
    base64: bool = False

    @property
    def plain(self) -> bool:
        """Return whether values are what they look like, with all that is in them."""
        inner = [*self.children.values(), *((self.item,) if self.item is not None else ())]
        return not self.name and not self.base64 and all(one.plain for one in inner)


@dataclass(frozen=True, slots=True)
class Meaning:
    """Turn one column as it was read into the column that is meant."""

    field: pa.Field
    convert: Callable[[pa.Array], tuple[pa.Array, Faults]]


def meaning_of(given: pa.Field, named: Named | None, path: str = "") -> Meaning:
    """Return what a field means; itself where its type has no name that says otherwise."""
    path = inner_path(path, given.name)
    return _meaning(given, named, path)


def _meaning(given: pa.Field, named: Named | None, path: str) -> Meaning:
    if named is None or named.plain:
        return Meaning(given, lambda column: (column, {}))
    if named.name == VARIABLE and pa.types.is_struct(given.type):
        return _variable(given, named, path)
    if pa.types.is_struct(given.type):
        return _struct(given, named, path)
    if pa.types.is_list(given.type):
        return _list(given, named, path)
    decoded = Meaning(given, lambda column: (column, {}))
    if named.base64 and pa.types.is_string(given.type):
        decoded = _base64(given, path)
    return _then(decoded, _leaf(decoded.field, named, path))


def _then(first: Meaning, second: Meaning) -> Meaning:
    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        found, faults = first.convert(column)
        found, more = second.convert(found)
        return found, more | faults

    return Meaning(second.field, convert)


def _leaf(  # noqa: PLR0911 - one for each kind of type
    given: pa.Field, named: Named, path: str
) -> Meaning:
    kind, name = given.type, named.name
    if name in _DAYS and pa.types.is_integer(kind):
        return Meaning(given.with_type(pa.date32()), lambda column: (column.cast(pa.int32()).cast(pa.date32()), {}))
    if name in _TIMESTAMPS and pa.types.is_integer(kind):
        to = pa.timestamp(_TIMESTAMPS[name], "UTC")
        return Meaning(given.with_type(to), lambda column: (column.cast(pa.int64()).cast(to), {}))
    if name in _TIMES and pa.types.is_integer(kind):
        return _time(given, _TIMES[name], path)
    if name == _ZONED and pa.types.is_string(kind):
        return _zoned(given, path)
    if name == DECIMAL and pa.types.is_binary(kind):
        return _decimal(given, decimal_type(named.parameters), path)
    if name == JSON and pa.types.is_string(kind):
        return Meaning(given.with_metadata({**(given.metadata or {}), RAW_JSON: b"1"}), lambda column: (column, {}))
    return Meaning(given, lambda column: (column, {}))


_DAYS: Final = frozenset({DATE, "org.apache.kafka.connect.data.Date"})
_TIMESTAMPS: Final = {
    "io.debezium.time.Timestamp": "ms",
    "io.debezium.time.MicroTimestamp": "us",
    "io.debezium.time.NanoTimestamp": "ns",
    "org.apache.kafka.connect.data.Timestamp": "ms",
}
_TIMES: Final = {
    "io.debezium.time.Time": pa.time32("ms"),
    "io.debezium.time.MicroTime": pa.time64("us"),
    "io.debezium.time.NanoTime": pa.time64("ns"),
    "org.apache.kafka.connect.data.Time": pa.time32("ms"),
}
_ZONED: Final = "io.debezium.time.ZonedTimestamp"
_PER_DAY: Final = {pa.time32("ms"): 86_400_000, pa.time64("us"): 86_400_000_000, pa.time64("ns"): 86_400_000_000_000}


def decimal_type(parameters: Mapping[str, str]) -> pa.DataType:
    """Return the type of decimals with these parameters; ValueError where they say nothing that can be."""
    scale, precision = int(parameters.get(SCALE, "0")), int(parameters.get(PRECISION, "0"))
    if not precision:
        precision = 38 if 0 <= scale <= 38 else 76
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _refuse(rows: pa.BooleanArray, reason: str, message: str, path: str) -> Faults:
    return dict.fromkeys(true_rows(rows), Refused(reason, message, path))


def _base64(given: pa.Field, path: str) -> Meaning:
    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        found, bad = from_base64(column)
        return found, _refuse(bad, "base64", "is not Base64, in which Connect writes bytes and decimals", path)

    return Meaning(given.with_type(pa.binary()), convert)


def _decimal(given: pa.Field, to: pa.DataType, path: str) -> Meaning:
    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        found, bad = from_twos_complement(column, to)
        return found, _refuse(bad, "overflow", f"the number does not fit {to}", path)

    return Meaning(given.with_type(to), convert)


def _time(given: pa.Field, to: pa.DataType, path: str) -> Meaning:
    stored, day = (pa.int32() if pa.types.is_time32(to) else pa.int64()), _PER_DAY[to]

    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        bad = pc.or_(pc.less(column, 0), pc.greater_equal(column, day))
        sound = pc.if_else(bad, pa.scalar(0, column.type), column)
        return sound.cast(stored).cast(to), _refuse(bad, "overflow", "is no time of a day", path)

    return Meaning(given.with_type(to), convert)


def _zoned(given: pa.Field, path: str) -> Meaning:
    to = pa.timestamp("us", "UTC")

    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        found, left = timestamps.column_of_text(column, to)
        faults: Faults = {}
        if left:
            points = found.cast(pa.int64()).to_pylist()
            for row in left:
                text = column[row].as_py()
                points[row] = None if timestamps.decimal(text) is not None else timestamps.of_text(text, "us")
                if points[row] is None:
                    faults[row] = Refused("timestamp", "is no time in ISO 8601 that microseconds can hold", path)
            found = pa.array(points, pa.int64()).cast(to)
        return found, faults

    return Meaning(given.with_type(to), convert)


def _variable(given: pa.Field, named: Named, path: str) -> Meaning:
    held = given.type.field("value")
    numbers = _meaning(held, named.children.get("value"), path)
    wide = pa.decimal256(76, 0)

    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        octets, faults = numbers.convert(pc.struct_field(column, "value"))
        scales = pc.struct_field(column, "scale")
        unscaled, bad = from_twos_complement(octets, wide)
        present = pc.and_(scales.is_valid(), octets.is_valid())
        bad = pc.or_(bad, pc.and_(column.is_valid(), pc.invert(present)))
        found = pa.nulls(len(column), VARIABLE_TYPE)
        for scale in pc.unique(scales.drop_null()).to_pylist():
            mine = pc.fill_null(pc.and_(pc.equal(scales, scale), unscaled.is_valid()), fill_value=False)
            if 0 <= scale <= _DIGITS:
                limit = pa.scalar(10 ** (_DIGITS + scale) - 1, wide)
                small = pc.and_(pc.less_equal(unscaled, limit), pc.greater_equal(unscaled, pc.negate(limit)))
                fitting = pc.and_(mine, pc.fill_null(small, fill_value=False))
                found = pc.replace_with_mask(found, fitting, _scaled(unscaled.filter(fitting), scale))
                mine = pc.and_not(mine, fitting)
            bad = pc.or_(bad, mine)
        message = f"the number has more than {_DIGITS} digits before or behind the point"
        return found, _refuse(bad, "overflow", message, path) | faults

    return Meaning(given.with_type(VARIABLE_TYPE), convert)


def _scaled(unscaled: pa.Array, scale: int) -> pa.Array:
    """Return whole numbers as decimals of a scale, in the common type."""
    whole = pa.concat_arrays([unscaled])
    return pa.Array.from_buffers(pa.decimal256(76, scale), len(whole), whole.buffers()).cast(VARIABLE_TYPE)


def _struct(given: pa.Field, named: Named, path: str) -> Meaning:
    parts = [_meaning(child, named.children.get(child.name), inner_path(path, child.name)) for child in given.type]
    fields = [part.field for part in parts]

    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        faults: Faults = {}
        children = []
        for part, child in zip(parts, column.flatten(), strict=True):
            found, more = part.convert(child)
            children.append(found)
            for row, why in more.items():
                faults.setdefault(row, why)
        mask = column.is_null() if column.null_count else None
        return pa.StructArray.from_arrays(children, fields=fields, mask=mask), faults

    return Meaning(given.with_type(pa.struct(fields)), convert)


def _list(given: pa.Field, named: Named, path: str) -> Meaning:
    part = _meaning(given.type.value_field, named.item, item_path(path))
    to = pa.list_(part.field)

    def convert(column: pa.Array) -> tuple[pa.Array, Faults]:
        held = items_of(column)
        found, faults = part.convert(held.values)
        mask = column.is_null() if column.null_count else None
        return pa.ListArray.from_arrays(held.offsets, found, type=to, mask=mask), held.first_of(faults)

    return Meaning(given.with_type(to), convert)
