"""The Avro reader beside fastavro: the same values, the same refusals, and no record that depends on another."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import fastavro
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings

from batcher.formats.avro.reader import AvroReader
from batcher.formats.writer_schema import ReadRows, WriterSchema
from batcher.records import Rejection
from tests.harness.patience import LONG

EXAMPLES = 1500 if LONG else 150

LOGICAL = [
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    *(
        {"type": "long", "logicalType": f"{zone}timestamp-{unit}"}
        for zone in ("", "local-")
        for unit in ("millis", "micros", "nanos")
    ),
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 18},
    {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10},
    {"type": "bytes", "logicalType": "decimal", "precision": 76, "scale": 76},
    # These are what they stand on: the base does not fit, or nobody knows them.
    {"type": "string", "logicalType": "date"},
    {"type": "bytes", "logicalType": "decimal", "precision": 77},
    {"type": "int", "logicalType": "moon-phase"},
]
FIXED = [
    {"size": 0},
    {"size": 3},
    {"size": 300},
    {"size": 16, "logicalType": "uuid"},
    {"size": 12, "logicalType": "duration"},
    {"size": 5, "logicalType": "decimal", "precision": 11, "scale": 3},
    {"size": 16, "logicalType": "decimal", "precision": 38},
    {"size": 33, "logicalType": "decimal", "precision": 70, "scale": 1},
    {"size": 2, "logicalType": "decimal", "precision": 5},
]
PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]


class Names:
    """Give each named type of a schema a name of its own, and remember what can be named again."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def declare(self, kind: str, **rest: Any) -> dict[str, Any]:
        name = f"T{len(self.known)}"
        declared = {"type": kind, "name": name, **rest}
        self.known[name] = declared
        return declared


@st.composite
def schemas(draw: Any, names: Names, depth: int = 3, *, in_union: bool = False) -> Any:  # noqa: C901, PLR0911, PLR0912 - one for each kind of type
    """Draw a type; names are given in the order in which Avro reads them."""
    leaves = ["primitive", "primitive", "logical", "fixed", "enum", "known"]
    inner = ["record", "array", "map", "tree"] + ([] if in_union else ["optional", "union"])
    kind = draw(st.sampled_from(leaves + (inner if depth else [])))
    if kind == "known":
        done = [name for name, one in names.known.items() if one["type"] != "record" or "done" in one]
        kind = "primitive" if not done else kind
        if done:
            return draw(st.sampled_from(done))
    if kind == "primitive":
        return draw(st.sampled_from(PRIMITIVES))
    if kind == "logical":
        return draw(st.sampled_from(LOGICAL))
    if kind == "fixed":
        return names.declare("fixed", **draw(st.sampled_from(FIXED)))
    if kind == "enum":
        return names.declare("enum", symbols=["A", "B", "C"][: draw(st.integers(1, 3))])
    if kind == "record":
        record = names.declare("record", fields=[])
        for number in range(draw(st.integers(0, 3))):
            record["fields"].append({"name": f"f{number}", "type": draw(schemas(names, depth - 1))})
        record["done"] = True
        return record
    if kind == "tree":
        tree = names.declare("record", fields=[{"name": "value", "type": draw(schemas(names, 0))}])
        inside = draw(
            st.sampled_from(
                [["null", tree["name"]], {"type": "array", "items": tree["name"]}, ["int", tree["name"], "null"]]
            )
        )
        tree["fields"].append({"name": "inside", "type": inside})
        tree["done"] = True
        return tree
    if kind == "array":
        return {"type": "array", "items": draw(schemas(names, depth - 1))}
    if kind == "map":
        return {"type": "map", "values": draw(schemas(names, depth - 1))}
    one = draw(schemas(names, depth - 1, in_union=True))
    if kind == "optional":
        if one == "null":
            return draw(st.sampled_from([["null"], ["null", "int"]]))
        return draw(st.sampled_from([["null", one], [one, "null"], [one]]))
    branches = {branch_kind(one): one}
    for _ in range(draw(st.integers(1, 3))):
        before = dict(names.known)
        other = draw(schemas(names, depth - 1, in_union=True))
        if branch_kind(other) in branches:
            names.known = before
        branches.setdefault(branch_kind(other), other)
    return list(branches.values())


def branch_kind(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    return str(kind.get("name", kind["type"]))


@dataclass(frozen=True)
class Case:
    """A schema, and what it and its names mean."""

    schema: Any
    known: dict[str, Any]

    @property
    def text(self) -> str:
        return json.dumps(self.schema)

    @property
    def plain(self) -> Any:
        """The schema without logical types, as fastavro wants it: raw values come out."""
        return fastavro.parse_schema(without_meaning(self.schema))

    def resolved(self, kind: Any) -> Any:
        return (
            {"type": kind}
            if isinstance(kind, str) and kind in PRIMITIVES
            else self.known.get(kind, kind)
            if isinstance(kind, str)
            else kind
        )

    def has_items_of_no_bytes(self) -> bool:
        return any(self._empty(part["items"]) for part in parts(self.schema) if part.get("type") == "array")

    def _empty(self, kind: Any) -> bool:
        kind = self.resolved(kind)
        if isinstance(kind, list):
            return False
        if kind["type"] == "record":
            return all(self._empty(field["type"]) for field in kind["fields"])
        return bool(kind["type"] == "null" or kind.get("size") == 0)


def parts(kind: Any) -> Iterator[dict[str, Any]]:
    if isinstance(kind, list):
        for one in kind:
            yield from parts(one)
    elif isinstance(kind, dict):
        yield kind
        for one in kind.values():
            yield from parts(one) if isinstance(one, list | dict) else ()


def without_meaning(kind: Any) -> Any:
    if isinstance(kind, list):
        return [without_meaning(one) for one in kind]
    if isinstance(kind, dict):
        meaning = ("logicalType", "precision", "scale", "done")
        return {key: without_meaning(value) for key, value in kind.items() if key not in meaning}
    return kind


@st.composite
def cases(draw: Any) -> Case:
    names = Names()
    fields = [{"name": f"c{number}", "type": draw(schemas(names))} for number in range(draw(st.integers(1, 4)))]
    top = names.declare("record", fields=fields)
    other = top if draw(st.integers(0, 9)) else fields[0]["type"]
    return Case(other, names.known)


INTS = st.one_of(st.integers(-70, 70), st.integers(-(2**31), 2**31 - 1), st.sampled_from([-(2**31), 2**31 - 1]))
LONGS = st.one_of(
    INTS, st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1, 2**55, -(2**55) - 1, 2**62])
)


@st.composite
def values(draw: Any, case: Case, kind: Any, depth: int = 4) -> Any:
    """Draw a raw value; that of a union is its branch and the value."""
    kind = case.resolved(kind)
    if isinstance(kind, list):
        # The last branches are those that end a recursion, or the other way round.
        ending = [place for place, one in enumerate(kind) if case.resolved(one).get("type") != "record"]
        branch = draw(st.sampled_from(ending if depth <= 0 and ending else range(len(kind))))
        return branch, draw(values(case, kind[branch], depth - 1))
    match kind["type"]:
        case "record":
            return {field["name"]: draw(values(case, field["type"], depth - 1)) for field in kind["fields"]}
        case "array":
            sizes = st.sampled_from([0, 1, 1, 2, 3, 40]) if depth >= 3 else st.integers(0, 3)
            return [draw(values(case, kind["items"], depth - 1)) for _ in range(draw(sizes) if depth > 0 else 0)]
        case "map":
            keys = draw(st.lists(st.text(max_size=3), max_size=3, unique=True)) if depth > 0 else []
            return {key: draw(values(case, kind["values"], depth - 1)) for key in keys}
    return draw(scalars(kind))


def scalars(kind: dict[str, Any]) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911, PLR0912 - one for each kind of type
    meaning = kind.get("logicalType")
    if meaning == "time-millis":
        return st.integers(0, 86_399_999)
    if meaning == "time-micros":
        return st.integers(0, 86_399_999_999)
    if meaning == "decimal" and (kind["type"] == "bytes" or kind["precision"] < 2.4 * kind["size"]):
        limit = 10 ** kind["precision"] - 1
        unscaled = st.one_of(st.integers(-limit, limit), st.sampled_from([0, limit, -limit, -1, 127, 128, -128, -129]))
        return st.builds(
            lambda number, more: twos(number, kind.get("size") or (number.bit_length() // 8 + 1 + more)),
            unscaled.filter(lambda number: abs(number) <= limit),
            st.sampled_from([0, 0, 1, 30]),
        )
    match kind["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "int":
            return INTS
        case "long":
            return LONGS
        case "float":
            return st.floats(width=32)
        case "double":
            return st.floats()
        case "bytes":
            return st.binary(max_size=20)
        case "string":
            return st.one_of(st.text(max_size=5), st.text(min_size=60, max_size=70))
        case "fixed":
            return st.binary(min_size=kind["size"], max_size=kind["size"])
        case _:
            return st.sampled_from(kind["symbols"])


def twos(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big", signed=True)


def encoded(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


@dataclass
class Writer:
    """Write raw values; `blocks` are the sizes of the blocks of lists by turns, negative ones with their bytes."""

    case: Case
    blocks: list[int]
    turn: int = 0

    def write(self, kind: Any, value: Any) -> bytes:  # noqa: C901, PLR0911, PLR0912 - one for each kind of type
        kind = self.case.resolved(kind)
        if isinstance(kind, list):
            return encoded(value[0]) + self.write(kind[value[0]], value[1])
        match kind["type"]:
            case "null":
                return b""
            case "boolean":
                return bytes([value])
            case "int" | "long":
                return encoded(value)
            case "float":
                return struct.pack("<f", value)
            case "double":
                return struct.pack("<d", value)
            case "bytes":
                return encoded(len(value)) + bytes(value)
            case "string":
                return self.write("bytes", value.encode())
            case "fixed":
                return bytes(value)
            case "enum":
                return encoded(kind["symbols"].index(value))
            case "record":
                return b"".join(self.write(field["type"], value[field["name"]]) for field in kind["fields"])
            case "array":
                return self._blocks([self.write(kind["items"], one) for one in value])
            case _:
                return self._blocks(
                    [self.write("string", key) + self.write(kind["values"], one) for key, one in value.items()]
                )

    def _blocks(self, items: list[bytes]) -> bytes:
        written = b""
        while items:
            size = self.blocks[self.turn % len(self.blocks)]
            self.turn += 1
            block, items = items[: abs(size)], items[abs(size) :]
            joined = b"".join(block)
            written += encoded(len(block)) if size > 0 else encoded(-len(block)) + encoded(len(joined))
            written += joined
        return written + encoded(0)


def without_branches(value: Any) -> Any:
    """Return what fastavro reads: of a union only the value."""
    if isinstance(value, tuple):
        return without_branches(value[1])
    if isinstance(value, list):
        return [without_branches(one) for one in value]
    if isinstance(value, dict):
        return {key: without_branches(one) for key, one in value.items()}
    return value


def for_fastavro(case: Case, kind: Any, value: Any) -> Any:
    """Return a value as fastavro's writer wants it, with the branch of each union named."""
    kind = case.resolved(kind)
    if isinstance(kind, list):
        branch = kind[value[0]]
        named = branch_kind(branch)
        return named, for_fastavro(case, branch, value[1])
    match kind["type"]:
        case "record":
            return {field["name"]: for_fastavro(case, field["type"], value[field["name"]]) for field in kind["fields"]}
        case "array":
            return [for_fastavro(case, kind["items"], one) for one in value]
        case "map":
            return {key: for_fastavro(case, kind["values"], one) for key, one in value.items()}
    return value


@dataclass
class Decoder:
    """Read what a writer wrote, one value at a time, with the branch of each union; not made for damaged bytes."""

    case: Case
    data: bytes
    at: int = 0

    def number(self) -> int:
        value = shift = 0
        while True:
            octet = self.data[self.at]
            self.at += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return (value >> 1) ^ -(value & 1)

    def octets(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def read(self, kind: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 - one for each kind of type
        kind = self.case.resolved(kind)
        if isinstance(kind, list):
            branch = self.number()
            return branch, self.read(kind[branch])
        match kind["type"]:
            case "null":
                return None
            case "boolean":
                return self.octets(1) == b"\1"
            case "int" | "long":
                return self.number()
            case "float":
                return struct.unpack("<f", self.octets(4))[0]
            case "double":
                return struct.unpack("<d", self.octets(8))[0]
            case "bytes":
                return self.octets(self.number())
            case "string":
                return self.octets(self.number()).decode()
            case "fixed":
                return self.octets(kind["size"])
            case "enum":
                return kind["symbols"][self.number()]
            case "record":
                return {field["name"]: self.read(field["type"]) for field in kind["fields"]}
            case "array":
                return [self.read(kind["items"]) for _ in self._items()]
            case _:
                return {self.read("string"): self.read(kind["values"]) for _ in self._items()}

    def _items(self) -> Iterator[None]:
        while count := self.number():
            if count < 0:
                self.number()
            yield from [None] * abs(count)


@dataclass
class Expectation:
    """Say what a raw value is in columns: times as their integers, and JSON text as `Text` of what it says."""

    case: Case

    def of(self, kind: Any, value: Any, inside: frozenset[str] = frozenset()) -> Any:  # noqa: PLR0911 - one for each kind of type
        if kind in inside if isinstance(kind, str) else False:
            return Text(self.in_text(kind, value))
        kind = self.case.resolved(kind)
        if isinstance(kind, list):
            branch = kind[value[0]]
            if len(kind) == 1 or (len(kind) == 2 and "null" in kind) or branch == "null":
                return self.of(branch, value[1], inside)
            return Text(self.in_text(branch, value[1]))
        match kind["type"]:
            case "record":
                inside |= {kind["name"]}
                return {field["name"]: self.of(field["type"], value[field["name"]], inside) for field in kind["fields"]}
            case "array":
                return [self.of(kind["items"], one, inside) for one in value]
            case "map":
                return {key: self.of(kind["values"], one, inside) for key, one in value.items()}
        return meaning(kind, value)

    def in_text(self, kind: Any, value: Any) -> Any:  # noqa: PLR0911 - one for each kind of type
        kind = self.case.resolved(kind)
        if isinstance(kind, list):
            return self.in_text(kind[value[0]], value[1])
        match kind["type"]:
            case "record":
                return {field["name"]: self.in_text(field["type"], value[field["name"]]) for field in kind["fields"]}
            case "array":
                return [self.in_text(kind["items"], one) for one in value]
            case "map":
                return {key: self.in_text(kind["values"], one) for key, one in value.items()}
        value = meaning(kind, value)
        logical = kind.get("logicalType", "")
        if kind["type"] in ("int", "long") and logical and logical != "moon-phase":
            return moment(logical, value)
        if isinstance(value, float) and not math.isfinite(value):
            return json.dumps(value)
        if isinstance(value, dict):
            return {key: Number(str(one)) for key, one in value.items()}
        if isinstance(value, Decimal):
            return Number(f"{value:f}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Number(json.dumps(value))
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value


class Text(NamedTuple):
    """JSON text, by what it says."""

    says: Any


class Number(NamedTuple):
    """A number in JSON text, digit by digit."""

    digits: str


ANY_TIME = Number("any")


def meaning(kind: dict[str, Any], value: Any) -> Any:
    logical, width = kind.get("logicalType"), kind.get("size")
    if logical == "decimal" and kind["precision"] <= 76 and (width is None or kind["precision"] <= 2.4 * width):
        scale = kind.get("scale", 0)
        unscaled = int.from_bytes(value, "big", signed=True)
        return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))
    if logical == "uuid" and width:
        return str(uuid.UUID(bytes=value))
    if logical == "duration":
        return dict(zip(("months", "days", "milliseconds"), struct.unpack("<3I", value), strict=True))
    return value


def moment(logical: str, value: int) -> Any:
    if logical.startswith("time-"):
        digits = 3 if logical.endswith("millis") else 6
        seconds, rest = divmod(value, 10**digits)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:0{digits}d}"
    if value == -(2**63):
        return Number(str(value))
    try:
        if logical == "date":
            return str(date(1970, 1, 1) + timedelta(value))
        unit = logical.rpartition("-")[2]
        digits = {"millis": 3, "micros": 6, "nanos": 9}[unit]
        seconds, rest = divmod(value, 10**digits)
        text = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()  # noqa: DTZ001 - local too
        return f"{text}.{rest:0{digits}d}{'' if logical.startswith('local') else 'Z'}"
    except OverflowError:
        return ANY_TIME


def said(text: str) -> Any:
    return json.loads(text, parse_int=Number, parse_float=Number)


def same(ours: Any, wanted: Any) -> bool:
    if isinstance(wanted, Text):
        return isinstance(ours, str) and same(said(ours), wanted.says)
    if wanted is ANY_TIME:
        return isinstance(ours, str | Number)
    if isinstance(wanted, dict):
        return isinstance(ours, dict) and list(ours) == list(wanted) and all(same(ours[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return isinstance(ours, list) and len(ours) == len(wanted) and all(map(same, ours, wanted))
    return repr(ours) == repr(wanted)


def plain(value: Any) -> Any:
    """Return an Arrow scalar exactly: times as integers, maps as dicts."""
    if not value.is_valid:
        return None
    if pa.types.is_struct(value.type):
        return {field.name: plain(value[place]) for place, field in enumerate(value.type)}
    if pa.types.is_map(value.type):
        return {plain(pair[0]): plain(pair[1]) for pair in value.values} if value.values is not None else {}
    if pa.types.is_list(value.type):
        return [plain(one) for one in value.values]
    return value.value if pa.types.is_temporal(value.type) else value.as_py()


def rows_of(read: ReadRows) -> list[Any]:
    columns = [[plain(one) for one in column] for column in read.table.columns]
    names = read.table.column_names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] or [{}] * len(read.rows)


@contextmanager
def tuned(few: int, piece_bytes: int, piece_rows: int) -> Iterator[None]:
    """Make small batches go the ways of large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batcher.formats.avro.lists.FEW", few)
        patch.setattr("batcher.formats.avro.reader.PIECE_BYTES", piece_bytes)
        patch.setattr("batcher.formats.avro.reader.PIECE_ROWS", piece_rows)
        yield


def payloads(messages: list[bytes], before: int = 0) -> pa.Array:
    """Return a column of messages, cut from a longer one."""
    return pa.array([b"\xff\x02before"] * before + messages + [b"\x04after"] * before, pa.binary()).slice(
        before, len(messages)
    )


def check_whole(read: ReadRows, reader: AvroReader, count: int) -> None:
    read.table.validate(full=True)
    assert read.table.schema.equals(reader.schema, check_metadata=True)
    assert read.table.num_rows == len(read.rows) or not reader.schema.names
    refused = [one.position for one in read.rejections]
    rows = read.rows.to_pylist()
    assert rows == sorted(rows)
    assert refused == sorted(refused)
    assert sorted(rows + refused) == list(range(count))
    for field, column in zip(read.table.schema, read.table.columns, strict=True):
        assert field.nullable or not column.null_count


def wanted_row(case: Case, value: Any) -> Any:
    wanted = Expectation(case).of(case.schema, value)
    kind = case.resolved(case.schema)
    return wanted if isinstance(kind, dict) and kind["type"] == "record" else {"value": wanted}


TUNING = st.tuples(st.sampled_from([0, 0, 2, 32]), st.sampled_from([1, 50, 1 << 21]), st.sampled_from([1, 3, 1 << 15]))
BLOCKS = st.lists(st.sampled_from([1, 2, 1000, 1000, -1, -2, -1000]), min_size=1, max_size=4)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@given(st.data(), cases(), TUNING)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW)
def test_what_fastavro_writes_is_read_as_it_was(data: Any, case: Case, tuning: tuple[int, int, int]) -> None:
    raw = data.draw(st.lists(values(case, case.schema), min_size=0, max_size=6))
    writing = case.plain
    messages = []
    for value in raw:
        to = io.BytesIO()
        fastavro.schemaless_writer(to, writing, for_fastavro(case, case.schema, value))
        messages.append(to.getvalue())
    reader = AvroReader(WriterSchema("avro", case.text))
    with tuned(*tuning):
        read = reader.read(payloads(messages, data.draw(st.integers(0, 3))))
    assert not read.rejections
    check_whole(read, reader, len(raw))
    for ours, value in zip(rows_of(read), raw, strict=True):
        assert same(ours, wanted_row(case, value))


JUNK = [b"\0", b"\1", b"\2", b"\x80", b"\xff" * 10, b"\x01\x02", encoded(2**62), encoded(-(2**63))]


def damaged(draw: Any, message: bytes, other: bytes) -> bytes:  # noqa: PLR0911 - one for each kind of damage
    at: int = draw(st.integers(0, len(message)))
    match draw(st.sampled_from(["whole", "whole", "flip", "blot", "cut", "insert", "drop", "join", "head"])):
        case "flip" if message:
            at %= len(message)
            return message[:at] + bytes([message[at] ^ draw(st.integers(1, 255))]) + message[at + 1 :]
        case "blot" if message:
            at %= len(message)
            return message[:at] + b"\xff" + message[at + 1 :]
        case "cut":
            return message[:at]
        case "insert":
            return b"".join((message[:at], draw(st.sampled_from(JUNK)), message[at:]))
        case "drop":
            return message[:at] + message[at + draw(st.integers(1, 3)) :]
        case "join":
            return message + other
        case "head":
            return b"".join((draw(st.binary(max_size=4)), message[at:]))
    return message


def outcome(reader: AvroReader, message: bytes) -> Any:
    read = reader.read(pa.array([message], pa.binary()))
    if not read.rejections:
        return rows_of(read)[0]
    return read.rejections[0]


def by_fastavro(case: Case, message: bytes) -> tuple[Any, bytes]:
    """Return what fastavro reads and the bytes that it leaves."""
    source = io.BytesIO(message)
    return fastavro.schemaless_reader(source, case.plain, None), source.read()


@given(st.data(), cases(), TUNING, BLOCKS)
@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=SLOW)
def test_a_damaged_record_fares_alone_as_among_others_and_as_with_fastavro(
    data: Any, case: Case, tuning: tuple[int, int, int], blocks: list[int]
) -> None:
    writer = Writer(case, blocks)
    whole = [
        writer.write(case.schema, one) for one in data.draw(st.lists(values(case, case.schema), min_size=1, max_size=5))
    ]
    messages = [damaged(data.draw, one, data.draw(st.sampled_from(whole))) for one in whole]
    reader = AvroReader(WriterSchema("avro", case.text))
    with tuned(*tuning):
        read = reader.read(payloads(messages, data.draw(st.integers(0, 2))))
    check_whole(read, reader, len(messages))
    together: dict[int, Any] = dict(zip(read.rows.to_pylist(), rows_of(read), strict=True))
    together |= {one.position: replace(one, position=0) for one in read.rejections}
    for position, message in enumerate(messages):
        alone = outcome(reader, message)
        event(alone.reason if isinstance(alone, Rejection) else "row")
        assert repr(together[position]) == repr(alone)
        if not case.has_items_of_no_bytes():
            check_by_fastavro(case, message, alone)


def check_by_fastavro(case: Case, message: bytes, alone: Any) -> None:
    """What we read fastavro reads; what we refuse it refuses, or a rule of ours is the reason."""
    try:
        value, left = by_fastavro(case, message)
    except Exception:  # whatever it raises, it refuses
        assert isinstance(alone, Rejection)
        return
    if isinstance(alone, Rejection):
        # It ignores what is behind a record, the sizes of blocks and the number of bits; takes any byte for a boolean
        # and counts negative branches and symbols from the end.
        assert alone.reason in ("trailing", "overflow", "syntax", "too_deep")
        assert alone.reason != "trailing" or left
        return
    decoder = Decoder(case, message)
    ours = decoder.read(case.schema)
    assert (decoder.at, left) == (len(message), b"")
    assert repr(without_branches(ours)) == repr(value)
    assert same(alone, wanted_row(case, ours))
