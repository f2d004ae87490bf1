"""ClickHouse types in Arrow: what the decoder has to produce for a column, and how it goes over the wire.

ClickHouse changes values silently: 300 becomes 44 in a UInt8, the year 1960 becomes 1970 in a DateTime, 1.256 becomes
1.25 in a Decimal(9, 2), a null list becomes an empty one. So every value is checked here, in whole columns, before the
server sees it, and a row with a bad one is named.

The decoder's types follow the column's type and not the engine's own Arrow output. That says uint32 for DateTime and
IPv4, int8 for an Enum, and forgets which parts of a Map may be null. Where text is decoded (UUID, addresses, enums,
FixedString) it is sent as the bytes or numbers that ClickHouse stores. As text a missing value could not become the
column's DEFAULT, and parsing would be left to the server.

It is long because it has one rule for each type of column.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.datatypes.base import TypeDef
from clickhouse_connect.datatypes.registry import parse_name

from batcher.records import COLUMN_TYPE, RAW_JSON
from sinks.clickhouse.faults import Faults, UnsupportedType
from sinks.clickhouse.json_paths import DAY_S, FIRST_DAY, LAST_DAY
from sinks.clickhouse.json_text import json_text

_INT64_MAX: Final = 2**63 - 1

_PLAIN: Final[dict[str, pa.DataType]] = {
    "Int8": pa.int8(),
    "Int16": pa.int16(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "UInt8": pa.uint8(),
    "UInt16": pa.uint16(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "Bool": pa.bool_(),
    "String": pa.string(),
}
_UNITS: Final = {0: "s", 3: "ms", 6: "us", 9: "ns"}
_PER_SECOND: Final[dict[str, int]] = {unit: 10**digits for digits, unit in _UNITS.items()}
_UUID: Final = "^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$"
_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = rf"^{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}$"


class ColumnCodec(Protocol):
    """Know one ClickHouse type: `decoded` is what comes from the decoder, `encode` makes what is sent."""

    @property
    def decoded(self) -> pa.DataType:
        """Return the Arrow type of the decoded values."""

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        """Return the values as they are sent, and record those that the type cannot hold exactly.

        Where any are recorded the result must not be sent.
        """


@dataclass(frozen=True, slots=True)
class Slot:
    """Name a place for values: a column, a part of a tuple, an element."""

    name: str
    codec: ColumnCodec
    nullable: bool
    raw_json: bool = False
    type_name: str = ""

    @property
    def field(self) -> pa.Field:
        """Return the field that the decoder has to fill; it has ClickHouse's name for its type."""
        metadata = {RAW_JSON: b"1"} if self.raw_json else {}
        if self.type_name:
            metadata[COLUMN_TYPE] = self.type_name.encode()
        return pa.field(self.name, self.codec.decoded, nullable=self.nullable, metadata=metadata)

    def encode(self, values: pa.Array, faults: Faults, owners: pa.Array | None = None) -> pa.Array:
        """Encode values; a null where none may be is a fault, unless its owner (a struct) is null itself."""
        if values.null_count and not self.nullable:
            missing = values.is_null()
            if owners is not None and owners.null_count:
                missing = pc.and_(missing, owners.is_valid())
            faults.add(missing, "null", "has no value and the column needs one")
        return self.codec.encode(values, faults)


@dataclass(frozen=True, slots=True)
class Plain:
    """Send values as they are decoded: the Arrow type holds exactly what the column holds."""

    decoded: pa.DataType

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:  # noqa: ARG002 - the contract's
        return values


@dataclass(frozen=True, slots=True)
class Ranged:
    """Send dates and times within the column's range and at its precision.

    `low` and `high` are in the unit of the Arrow type; `step` is the precision in that unit.
    """

    decoded: pa.DataType
    low: int
    high: int
    step: int = 1

    @property
    def milliseconds(self) -> tuple[int, int]:
        """Return the first and the last millisecond that lie in a time of this type."""
        per_second = _PER_SECOND[self.decoded.unit]
        return -(-self.low * 1000 // per_second), ((self.high + 1) * 1000 - 1) // per_second

    @property
    def step_ms(self) -> int:
        """Return the precision in milliseconds; 1 where it is finer."""
        return max(1, self.step * 1000 // _PER_SECOND[self.decoded.unit])

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        numbers = values.cast(pa.int32() if pa.types.is_date32(self.decoded) else pa.int64())
        outside = pc.or_(pc.less(numbers, self.low), pc.greater(numbers, self.high))
        faults.add(outside, "range", "is outside the range of the column's type")
        if self.step > 1:
            whole = pc.multiply(pc.divide(numbers, self.step), self.step)
            faults.add(pc.not_equal(whole, numbers), "precision", "is more precise than the column's type")
        return values


@dataclass(frozen=True, slots=True)
class WideInt:
    """Send 128 and 256 bit integers as decimals of 38 digits, the most that Arrow's decoders know."""

    signed: bool
    decoded: pa.DataType = field(default_factory=lambda: pa.decimal128(38, 0))

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        if not self.signed:
            faults.add(pc.less(values, pa.scalar(0, self.decoded)), "overflow", "is negative and the column unsigned")
        return values


@dataclass(frozen=True, slots=True)
class FixedText:
    """Send text of at most `size` bytes; ClickHouse pads what is shorter with NUL bytes."""

    size: int
    decoded: pa.DataType = field(default_factory=pa.string)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        faults.add(pc.greater(pc.binary_length(values), self.size), "length", f"is longer than {self.size} bytes")
        return values


@dataclass(frozen=True, slots=True)
class UuidText:
    """Send UUIDs, written with or without hyphens, as their 16 bytes."""

    decoded: pa.DataType = field(default_factory=pa.string)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        if faults.add(pc.invert(pc.match_substring_regex(values, _UUID)), "type", "is not a UUID"):
            return pa.nulls(len(values), pa.binary(16))
        # Now all digits are side by side in one buffer: a single call converts the column.
        digits = pc.fill_null(pc.replace_substring(values, "-", ""), "0" * 32)
        text = "".join(digits.to_pylist()) if digits.offset else _text_of(digits)
        packed = pa.Array.from_buffers(pa.binary(16), len(values), [None, pa.py_buffer(bytes.fromhex(text))])
        return packed if not values.null_count else pc.if_else(values.is_valid(), packed, None)


@dataclass(frozen=True, slots=True)
class Ipv4Text:
    """Send IPv4 addresses as numbers."""

    decoded: pa.DataType = field(default_factory=pa.string)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        if faults.add(pc.invert(pc.match_substring_regex(values, _IPV4)), "type", "is not an IPv4 address"):
            return pa.nulls(len(values), pa.uint32())
        octets = pc.split_pattern(values, ".")
        number = pc.cast(pc.list_element(octets, 0), pa.uint32())
        for place in (1, 2, 3):
            number = pc.add(pc.multiply(number, 256), pc.cast(pc.list_element(octets, place), pa.uint32()))
        return pc.cast(number, pa.uint32())


@dataclass(frozen=True, slots=True)
class Ipv6Text:
    """Send IPv6 addresses as their 16 bytes; an IPv4 address is sent as ClickHouse maps it (`::ffff:…`)."""

    decoded: pa.DataType = field(default_factory=pa.string)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        # Arrow cannot parse these; distinct addresses are few compared with the rows.
        distinct = values.dictionary_encode()
        packed = pa.array([_packed(text) for text in distinct.dictionary.to_pylist()], pa.binary(16))
        result = packed.take(distinct.indices)
        faults.add(pc.and_(values.is_valid(), result.is_null()), "type", "is not an IPv6 address")
        return result


@dataclass(frozen=True, slots=True)
class EnumText:
    """Send the names of an enum as their numbers; ClickHouse would store a number that has no name."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    sent: pa.DataType
    decoded: pa.DataType = field(default_factory=pa.string)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        places = pc.index_in(values, value_set=pa.array(self.names, values.type))
        faults.add(pc.and_(values.is_valid(), places.is_null()), "enum", "is not a name of the column's enum")
        return pa.array(self.numbers, self.sent).take(places)


@dataclass(frozen=True, slots=True)
class Listed:
    """Send arrays. They are never null: a null would silently become an empty one, so a `Slot` refuses it."""

    element: Slot

    @property
    def decoded(self) -> pa.DataType:
        return pa.list_(self.element.field)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        offsets = pc.subtract(values.offsets, values.offsets[0])
        inner = values.values.slice(values.offsets[0].as_py(), offsets[len(offsets) - 1].as_py())
        part = Faults(faults.path)
        sent = self.element.encode(inner, part)
        faults.take(part, offsets)
        return pa.ListArray.from_arrays(offsets, sent)


@dataclass(frozen=True, slots=True)
class Mapped:
    """Send maps. Like arrays they are never null."""

    key: Slot
    value: Slot

    @property
    def decoded(self) -> pa.DataType:
        return pa.map_(self.key.field, self.value.field)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        offsets = pc.subtract(values.offsets, values.offsets[0])
        start, length = values.offsets[0].as_py(), offsets[len(offsets) - 1].as_py()
        sent = []
        for slot, inner in ((self.key, values.keys), (self.value, values.items)):
            part = Faults(faults.path)
            sent.append(slot.encode(inner.slice(start, length), part))
            faults.take(part, offsets)
        return pa.MapArray.from_arrays(offsets, *sent)


@dataclass(frozen=True, slots=True)
class Tupled:
    """Send tuples as structs. The parts of a tuple without names are called `1`, `2` and so on."""

    parts: tuple[Slot, ...]

    @property
    def decoded(self) -> pa.DataType:
        return pa.struct([part.field for part in self.parts])

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        sent = []
        for slot, inner in zip(self.parts, values.flatten(), strict=True):
            part = faults.part(slot.name)
            sent.append(slot.encode(inner, part, values))
            faults.take(part)
        fields = [pa.field(slot.name, array.type) for slot, array in zip(self.parts, sent, strict=True)]
        return pa.StructArray.from_arrays(sent, fields=fields, mask=values.is_null())


def slot_for(name: str, type_name: str) -> Slot:
    """Return the place for a column, or part of one, of a ClickHouse type; raise UnsupportedType."""
    base, _, definition = parse_name(type_name)
    if base == "SimpleAggregateFunction":
        return slot_for(name, definition.values[1])
    if base in _PLAIN:
        codec: ColumnCodec = Plain(_PLAIN[base])
    elif base in _MADE:
        codec = _MADE[base](definition)
    else:
        raise UnsupportedType(f"values of type {type_name} cannot be made")
    return Slot(name, codec, "Nullable" in definition.wrappers, raw_json=base == "JSON", type_name=type_name)


def _decimal(digits: int, scale: int) -> pa.DataType:
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _instant(scale: int) -> Ranged:
    digits = next(known for known in _UNITS if known >= scale)
    per_second = 10**digits
    return Ranged(
        pa.timestamp(_UNITS[digits], "UTC"),
        FIRST_DAY * DAY_S * per_second,
        min((LAST_DAY + 1) * DAY_S * per_second - 1, _INT64_MAX),
        10 ** (digits - scale),
    )


def _text_of(digits: pa.StringArray) -> str:
    return str(digits.buffers()[2].to_pybytes()[: 32 * len(digits)], "ascii")


def _packed(text: str | None) -> bytes | None:
    for family, prefix in ((socket.AF_INET6, b""), (socket.AF_INET, b"\0" * 10 + b"\xff\xff")):
        try:
            return prefix + socket.inet_pton(family, text or "")
        except (OSError, ValueError):
            continue
    return None


def _tuple(definition: TypeDef) -> Tupled:
    names = definition.keys or [str(number) for number in range(1, len(definition.values) + 1)]
    return Tupled(tuple(slot_for(name, text) for name, text in zip(names, definition.values, strict=True)))


def _enum(sent: pa.DataType) -> Callable[[TypeDef], ColumnCodec]:
    return lambda definition: EnumText(tuple(definition.keys), tuple(definition.values), sent)


def _wide(*, signed: bool) -> Callable[[TypeDef], ColumnCodec]:
    return lambda _: WideInt(signed)


def _fixed_digits(digits: int) -> Callable[[TypeDef], ColumnCodec]:
    return lambda definition: Plain(_decimal(digits, definition.values[0]))


_MADE: Final[dict[str, Callable[[TypeDef], ColumnCodec]]] = {
    "Array": lambda definition: Listed(slot_for("item", definition.values[0])),
    "Map": lambda definition: Mapped(slot_for("key", definition.values[0]), slot_for("value", definition.values[1])),
    "Tuple": _tuple,
    "Int128": _wide(signed=True),
    "Int256": _wide(signed=True),
    "UInt128": _wide(signed=False),
    "UInt256": _wide(signed=False),
    "Decimal": lambda definition: Plain(_decimal(definition.values[0], definition.values[1])),
    "Decimal32": _fixed_digits(9),
    "Decimal64": _fixed_digits(18),
    "Decimal128": _fixed_digits(38),
    "Decimal256": _fixed_digits(76),
    "Date": lambda _: Ranged(pa.date32(), 0, 2**16 - 1),
    "Date32": lambda _: Ranged(pa.date32(), FIRST_DAY, LAST_DAY),
    "DateTime": lambda _: Ranged(pa.timestamp("s", "UTC"), 0, 2**32 - 1),
    "DateTime64": lambda definition: _instant(definition.values[0]),
    "FixedString": lambda definition: FixedText(definition.values[0]),
    "UUID": lambda _: UuidText(),
    "IPv4": lambda _: Ipv4Text(),
    "IPv6": lambda _: Ipv6Text(),
    "Enum8": _enum(pa.int8()),
    "Enum16": _enum(pa.int16()),
    "JSON": json_text,
}
"""How types with a rule of their own are made from the arguments of their name."""
