"""The Protobuf reader beside Google's own library: the same values, the same refusals, and no record that depends on
another."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings

from batcher.formats.writer_schema import ReadRows, SchemaKey, WriterSchema
from tests.harness.patience import LONG

pytest.importorskip("ptars", reason="needs the extra [protobuf]")

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from batcher.formats.protobuf.codec import CODEC
from batcher.formats.protobuf.schema import load

EXAMPLES: Final = 1500 if LONG else 150
SCALARS: Final = [
    *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64"),
    *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes"),
]
KNOWN: Final = [
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "google.protobuf.Any",
    "google.protobuf.FieldMask",
    "google.protobuf.Empty",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.BoolValue",
    "google.type.Date",
    "google.type.TimeOfDay",
]
IMPORTS: Final = "\n".join(
    f'import "google/{name}.proto";'
    for name in (
        *(f"protobuf/{one}" for one in ("timestamp", "duration", "struct", "any", "field_mask", "empty", "wrappers")),
        *("type/date", "type/timeofday"),
    )
)


@st.composite
def texts(draw: Any) -> str:
    """Draw the text of a file with some messages, of which the last is that of the records."""
    proto2 = draw(st.booleans())
    messages: list[str] = []
    names: list[str] = []
    for number in range(draw(st.integers(1, 3))):
        name = f"M{number}"
        lines = [
            draw(_fields(f"f{place}", place + 1, [*names, name], proto2)) for place in range(draw(st.integers(1, 5)))
        ]
        if draw(st.booleans()):
            inside = [f"    {draw(_kinds([*names, name]))} o{place} = {place};" for place in (30, 31, 500)]
            lines.append("  oneof choice {\n" + "\n".join(inside) + "\n  }")
        names.append(name)
        messages.append(f"message {name} {{\n" + "\n".join(lines) + "\n}")
    first = "" if proto2 else "ZERO = 0; "
    enum = f"enum Color {{ {first}RED = 1; BLUE = 7; BELOW = -2; {'ZERO = 0; ' if proto2 else ''}}}"
    syntax = "proto2" if proto2 else "proto3"
    return "\n".join([f'syntax = "{syntax}";', "package t;", IMPORTS, enum, *messages])


def _kinds(names: list[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(SCALARS), st.just("Color"), st.sampled_from(names), st.sampled_from(KNOWN))


@st.composite
def _fields(draw: Any, name: str, number: int, names: list[str], proto2: bool) -> str:
    kind = draw(_kinds(names))
    label = draw(st.sampled_from(["", "optional ", "repeated ", "map", "required " if proto2 else ""]))
    # A message that requires itself has no value at all.
    if label == "required " and kind == names[-1]:
        label = "optional "
    if label == "map":
        key = draw(st.sampled_from(["string", "int32", "uint64", "bool", "sfixed32"]))
        # Proto2 wants the zero of an enum to come first, where a map has it.
        return f"  map<{key}, {'int32' if proto2 and kind == 'Color' else kind}> {name} = {number};"
    if proto2 and not label:
        label = "optional "
    options = ""
    if label == "repeated " and kind in SCALARS[:-2]:
        options = draw(st.sampled_from(["", " [packed = false]", " [packed = true]"]))
    elif proto2 and label == "optional " and kind in ("int32", "string", "bool", "Color"):
        default = {"int32": "-5", "string": '"hey"', "bool": "true", "Color": "BLUE"}[kind]
        options = draw(st.sampled_from(["", f" [default = {default}]"]))
    return f"  {label}{kind} {name} = {number}{options};"


BOUNDS: Final = {
    **dict.fromkeys(("int32", "sint32", "sfixed32"), (-(2**31), 2**31 - 1)),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), (-(2**63), 2**63 - 1)),
    **dict.fromkeys(("uint32", "fixed32"), (0, 2**32 - 1)),
    **dict.fromkeys(("uint64", "fixed64"), (0, 2**64 - 1)),
}
TYPE_NAMES: Final = {getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name for name in SCALARS}


def fill(draw: Any, message: Any, depth: int = 3) -> None:
    """Give a message drawn values.

    Below the depth only what is required is filled. That ends: a message requires only messages before it.
    """
    kind = message.DESCRIPTOR.full_name
    if kind == "google.protobuf.Timestamp":
        message.seconds = draw(st.sampled_from([0, -62_135_596_800, 253_402_300_799, 1_700_000_000]))
        message.nanos = draw(st.sampled_from([0, 1_000, 999_999_000, 123_456_789]))
    elif kind == "google.protobuf.Duration":
        message.seconds = draw(st.sampled_from([0, -1, 5, 315_576_000_000, -315_576_000_000]))
        message.nanos = draw(st.sampled_from([0, 1, 999_999_999])) * (-1 if message.seconds < 0 else 1)
    elif kind == "google.type.Date":
        message.year, message.month, message.day = draw(
            st.sampled_from([(1, 1, 1), (9999, 12, 31), (2024, 2, 29), (0, 0, 0)])
        )
    elif kind == "google.protobuf.Value":
        _fill_value(draw, message, depth)
    else:
        for field in message.DESCRIPTOR.fields:
            _fill_field(draw, message, field, depth)


def _fill_value(draw: Any, message: Any, depth: int) -> None:
    name = draw(st.sampled_from(["number_value", "string_value", "bool_value", "null_value", "list_value", None]))
    if name == "list_value":
        message.list_value.SetInParent()
        for _ in range(draw(st.integers(0, 2)) if depth else 0):
            _fill_value(draw, message.list_value.values.add(), _below(depth))
    elif name == "number_value":
        message.number_value = draw(st.sampled_from([0.0, 5.0, -1.5, 1e300, math.inf]))
    elif name:
        setattr(message, name, {"string_value": 'a"b', "bool_value": True, "null_value": 0}[name])


def _fill_field(draw: Any, message: Any, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        held = getattr(message, field.name)
        value = field.message_type.fields_by_name["value"]
        for _ in range(draw(st.integers(0, 2)) if depth else 0):
            key = draw(_scalars(field.message_type.fields_by_name["key"]))
            if value.message_type is not None:
                fill(draw, held[key], _below(depth))
            else:
                held[key] = draw(_scalars(value))
    elif field.is_repeated:
        held = getattr(message, field.name)
        for _ in range(draw(st.integers(0, 3)) if depth else 0):
            if field.message_type is not None:
                fill(draw, held.add(), _below(depth))
            else:
                held.append(draw(_scalars(field)))
    elif field.is_required or draw(st.booleans()):
        if field.message_type is None:
            setattr(message, field.name, draw(_scalars(field)))
        elif depth or field.is_required:
            getattr(message, field.name).SetInParent()
            fill(draw, getattr(message, field.name), _below(depth))


def _below(depth: int) -> int:
    # Never below zero: a required message is filled also there, and -1 would count as deep enough again.
    return max(depth - 1, 0)


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one for each kind
    if field.enum_type is not None:
        unknown = [] if field.enum_type.is_closed else [55]
        return st.sampled_from([*field.enum_type.values_by_number, *unknown])
    name = TYPE_NAMES[field.type]
    if name in BOUNDS:
        low, high = BOUNDS[name]
        return st.one_of(st.sampled_from([low, high, 0]), st.integers(max(low, -300), 300))
    if name == "bool":
        return st.booleans()
    if name == "string":
        return st.sampled_from(["", "a", "ü😀", 'quo"te', "\x00"])
    if name == "bytes":
        return st.sampled_from([b"", b"\xff\x00", b"abc"])
    if name == "float":
        return st.sampled_from([0.0, -0.0, 1.5, math.inf, struct.unpack("<f", struct.pack("<f", 0.1))[0]])
    return st.sampled_from([0.0, -0.0, 1.5, -math.inf, 0.1])


# What follows is the meaning of a message, said again and for one message at a time.

TEXTS: Final = {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Any"}
MISSING: Final = object()


class Missing(Exception):
    """A required field is not there."""


def row_of(message: Any, outer: tuple[str, ...] = ()) -> dict[str, Any]:
    outer = (*outer, message.DESCRIPTOR.full_name)
    return {field.name: _column(message, field, outer) for field in message.DESCRIPTOR.fields}


def _column(message: Any, field: FieldDescriptor, outer: tuple[str, ...]) -> Any:
    if field.is_repeated or not field.has_presence or message.HasField(field.name):
        held = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            return {_key(key): _value(held[key], value, outer) for key in held}
        if field.is_repeated:
            return [_value(one, field, outer) for one in held]
        return _value(held, field, outer)
    if field.is_required:
        raise Missing
    return _value(field.default_value, field, outer) if field.has_default_value else None


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _value(value: Any, field: FieldDescriptor, outer: tuple[str, ...]) -> Any:  # noqa: PLR0911 - one for each kind
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    kind = field.message_type
    if kind is None:
        return value
    if kind.full_name in TEXTS or kind.full_name in outer or not kind.fields:
        text = json_of(value)
        return None if text is None else ("json", text)
    if kind.full_name.endswith("Value") and kind.full_name.startswith("google.protobuf."):
        return value.value
    if kind.full_name == "google.protobuf.Timestamp":
        return _moment(value)
    if kind.full_name == "google.protobuf.Duration":
        return _seconds(value)
    if kind.full_name == "google.type.Date":
        return date(value.year, value.month, value.day) if value.year else None
    return row_of(value, outer)


def _moment(value: Any) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def _seconds(value: Any) -> Decimal:
    return Decimal(value.seconds) + Decimal(value.nanos).scaleb(-9)


def json_of(message: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Return what the JSON text of a message stands for."""
    kind = message.DESCRIPTOR.full_name
    match kind:
        case "google.protobuf.Struct":
            return {key: json_of(message.fields[key]) for key in message.fields}
        case "google.protobuf.ListValue":
            return [json_of(one) for one in message.values]
        case "google.protobuf.Value":
            name = message.WhichOneof("kind")
            if name in (None, "null_value"):
                return None
            held = getattr(message, name)
            return json_of(held) if name in ("struct_value", "list_value") else _json_number(held)
        case "google.protobuf.Any":
            return {"@type": message.type_url, "value": base64.b64encode(message.value).decode()}
        case "google.protobuf.Timestamp":
            text = (datetime(1970, 1, 1) + timedelta(seconds=message.seconds)).isoformat()  # noqa: DTZ001 - text only
            return text + (f".{message.nanos:09}".rstrip("0") if message.nanos else "") + "Z"
        case "google.protobuf.Duration":
            return float(_seconds(message))
        case "google.type.Date":
            return date(message.year, message.month, message.day).isoformat() if message.year else None
    if kind.startswith("google.protobuf.") and kind.endswith("Value"):
        return _json_number(message.value)
    return {field.name: _json_field(message, field) for field in message.DESCRIPTOR.fields}


def _json_field(message: Any, field: FieldDescriptor) -> Any:
    if field.has_presence and not message.HasField(field.name) and not field.has_default_value:
        return None
    held = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {_key(key): _json_one(held[key], value) for key in held}
    return [_json_one(one, field) for one in held] if field.is_repeated else _json_one(held, field)


def _json_one(value: Any, field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return json_of(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return _json_number(value)


def _json_number(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value


def same(got: Any, expected: Any) -> bool:
    """Return whether a value is the one that was expected, NaN and the zeros being told apart."""
    if isinstance(expected, tuple):
        return got is not None and json.loads(got) == expected[1]
    if isinstance(expected, dict):
        if isinstance(got, list):
            got = dict(got)
        return (
            isinstance(got, Mapping) and got.keys() == expected.keys() and all(same(got[k], expected[k]) for k in got)
        )
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, float):
        return isinstance(got, float) and struct.pack("<d", got) == struct.pack("<d", expected)
    return type(got) is type(expected) and bool(got == expected)


def made(text: str) -> tuple[Any, Any]:
    """Return a reader for the last message of a file, and its class."""
    written = WriterSchema("protobuf", text)
    schema = load(written)
    name = f"t.{schema.files[-1].message_type[-1].name}"
    reader = CODEC.reader(WriterSchema("protobuf", text, {}, name), SchemaKey(), None)
    descriptor: Descriptor = schema.pool.FindMessageTypeByName(name)
    return reader, GetMessageClass(descriptor)


def outcomes(read: ReadRows) -> dict[int, Any]:
    """Return what became of each payload."""
    found: dict[int, Any] = {
        row: [values] for row, values in zip(read.rows.to_pylist(), read.table.to_pylist(), strict=True)
    }
    for path, rows in sorted(read.unread.items()):
        for row in rows.to_pylist():
            found[row].append(path)
    return found | {one.position: (one.reason, one.message, one.path) for one in read.rejections}


QUIET: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@QUIET
@given(st.data())
def test_values_are_those_of_googles_own_library(data: st.DataObject) -> None:
    reader, message = made(data.draw(texts()))
    given_ = [message() for _ in range(data.draw(st.integers(1, 5)))]
    for one in given_:
        fill(data.draw, one)
    payloads = [one.SerializePartialToString() for one in given_]
    read = reader.read(pa.array(payloads, pa.binary()))
    read.table.validate(full=True)

    assert not read.unread
    found = outcomes(read)
    for number, payload in enumerate(payloads):
        try:
            expected = row_of(message.FromString(payload))
        except Missing:
            assert found[number][0] == "missing"
        else:
            assert isinstance(found[number], list), found[number]
            assert same(found[number][0], expected), (found[number][0], expected)


@QUIET
@given(st.data())
def test_a_damaged_record_fares_alone_as_it_does_among_others_and_as_googles_library_says(data: st.DataObject) -> None:
    text = data.draw(texts())
    reader, message = made(text)
    good: list[bytes] = []
    for _ in range(4):
        one = message()
        fill(data.draw, one)
        good.append(one.SerializePartialToString())
    payloads = [*good, *(_damaged(data, good) for _ in range(8))]
    payloads = data.draw(st.permutations(payloads))
    whole = outcomes(reader.read(pa.array(payloads, pa.binary())))

    assert sorted(whole) == list(range(len(payloads)))
    for number, payload in enumerate(payloads):
        alone = outcomes(reader.read(pa.array([payload], pa.binary())))[0]
        assert repr(alone) == repr(whole[number])
        try:
            message.FromString(payload)
        except DecodeError:
            event("refused")
            assert isinstance(alone, tuple)
            assert alone[0] in REFUSED
        else:
            event("taken")
            assert isinstance(alone, list) or alone[0] not in REFUSED or _lenient(alone, text), alone


REFUSED: Final = ("syntax", "truncated", "utf8")


def _lenient(refused: tuple[str, str, str | None], text: str) -> bool:
    """Return whether a record is refused for what that library lets pass: texts in proto2, field 0 inside a group."""
    return (refused[0] == "utf8" and "proto2" in text) or "a number that no field can have" in refused[1]


def _damaged(data: st.DataObject, good: list[bytes]) -> bytes:
    payload = bytearray(data.draw(st.sampled_from(good)))
    for _ in range(data.draw(st.integers(1, 3))):
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "join", "group", "drop"]))
        at = data.draw(st.integers(0, len(payload)))
        if how == "flip" and payload:
            payload[at % len(payload)] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del payload[at:]
        elif how == "drop" and payload:
            del payload[at % len(payload)]
        elif how == "join":
            payload += data.draw(st.sampled_from(good))
        elif how == "group":
            payload[at:at] = data.draw(
                st.sampled_from([b"\x0b\x0c", b"\x0b", b"\x0c", b"\x9b\x06\x9c\x06", b"\x0b\x14"])
            )
        else:
            payload[at:at] = data.draw(st.binary(max_size=6))
    return bytes(payload)
