"""Messages as JSON text: where a column cannot have their type, because it holds itself or is of any type.

The rules are those of Avro's JSON text and not Protobuf's own mapping: numbers are numbers (64 bits too), names are
those of the `.proto` file, a field without a value is null, bytes are Base64, times ISO 8601, durations seconds, enums
names, NaN and the infinities text. Maps are sorted by their keys: the encoding has no order, and a replay has to give
the same text.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from batcher.formats.fault import Faulty, fault_at
from batcher.formats.json.shape import inner_path, item_path
from batcher.formats.protobuf import moments

MAX_ANY: Final = 16
"""The most `Any` inside each other that are opened; deeper ones stay Base64. Each takes a few Python calls."""

_string: Final = json.JSONEncoder(ensure_ascii=False).encode
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_Unread = set[str]


def is_wrapper(descriptor: Descriptor) -> bool:
    """Return whether a message is one of Google's for a value that may be absent."""
    return descriptor.full_name in _WRAPPERS


class ProtoWords:
    """Write messages of a pool as JSON text. What fields are there that the schema does not know is noted by path."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool
        self._special: dict[str, Callable[[Any, str, _Unread, int], str]] = {
            "google.protobuf.Struct": lambda one, path, unread, level: self._object(one.fields, path, unread, level),
            "google.protobuf.Value": self._value,
            "google.protobuf.ListValue": lambda one, path, unread, level: self._array(one.values, path, unread, level),
            "google.protobuf.Timestamp": lambda one, path, *_: _quoted(
                moments.timestamp_text(one.seconds, one.nanos), path, "timestamp", moments.NO_TIMESTAMP
            ),
            "google.protobuf.Duration": lambda one, path, *_: _needed(
                moments.duration_text(one.seconds, one.nanos), path, "duration", moments.NO_DURATION
            ),
            "google.type.Date": lambda one, path, *_: _date(one, path),
            "google.protobuf.Any": self._any,
        }

    def text(self, message: Message, path: str, unread: _Unread) -> str:
        """Return a message as JSON text; raise Faulty for a time that is none."""
        return self._message(message, path, unread, 0)

    def _message(self, message: Any, path: str, unread: _Unread, level: int) -> str:
        descriptor = message.DESCRIPTOR
        for strange in UnknownFieldSet(message):
            unread.add(inner_path(path, f"#{strange.field_number}"))
        special = self._special.get(descriptor.full_name)
        if special is not None:
            return special(message, path, unread, level)
        if is_wrapper(descriptor):
            return self._scalar(message.value, descriptor.fields[0])
        return "{" + ",".join(self._members(message, path, unread, level)) + "}"

    def _members(self, message: Any, path: str, unread: _Unread, level: int) -> Iterable[str]:
        for field in message.DESCRIPTOR.fields:
            yield f"{_string(field.name)}:{self._field(message, field, inner_path(path, field.name), unread, level)}"

    def _field(self, message: Any, field: FieldDescriptor, path: str, unread: _Unread, level: int) -> str:
        if field.has_presence and not message.HasField(field.name) and not field.has_default_value:
            return "null"
        value = getattr(message, field.name)
        if is_map(field):
            held = field.message_type.fields_by_name["value"]
            keys = sorted(value)
            parts = (f"{_string(key_text(key))}:{self._one(value[key], held, path, unread, level)}" for key in keys)
            return "{" + ",".join(parts) + "}"
        if field.is_repeated:
            path = item_path(path)
            return "[" + ",".join(self._one(one, field, path, unread, level) for one in value) + "]"
        return self._one(value, field, path, unread, level)

    def _one(self, value: Any, field: FieldDescriptor, path: str, unread: _Unread, level: int) -> str:
        if field.message_type is not None:
            return self._message(value, path, unread, level)
        return self._scalar(value, field)

    @staticmethod
    def _scalar(value: Any, field: FieldDescriptor) -> str:
        if field.enum_type is not None:
            return _string(enum_name(field, value))
        if isinstance(value, bytes):
            return f'"{base64.b64encode(value).decode()}"'
        if isinstance(value, str):
            return _string(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value) if isinstance(value, int) else _number(value)

    def _object(self, fields: Any, path: str, unread: _Unread, level: int) -> str:
        parts = (f"{_string(key)}:{self._message(fields[key], path, unread, level)}" for key in sorted(fields))
        return "{" + ",".join(parts) + "}"

    def _array(self, values: Any, path: str, unread: _Unread, level: int) -> str:
        return "[" + ",".join(self._message(one, path, unread, level) for one in values) + "]"

    def _value(self, value: Any, path: str, unread: _Unread, level: int) -> str:
        match value.WhichOneof("kind"):
            case "number_value":
                return _number(value.number_value, whole=True)
            case "string_value":
                return _string(value.string_value)
            case "bool_value":
                return "true" if value.bool_value else "false"
            case "struct_value":
                return self._message(value.struct_value, path, unread, level)
            case "list_value":
                return self._message(value.list_value, path, unread, level)
            case _:
                return "null"

    def _any(self, held: Any, path: str, unread: _Unread, level: int) -> str:
        begin = f'{{"@type":{_string(held.type_url)}'
        opened = self._opened(held) if level < MAX_ANY else None
        if opened is None:
            return f'{begin},"value":"{base64.b64encode(held.value).decode()}"}}'
        name = opened.DESCRIPTOR.full_name
        if name in self._special or is_wrapper(opened.DESCRIPTOR):
            return f'{begin},"value":{self._message(opened, path, unread, level + 1)}}}'
        for strange in UnknownFieldSet(opened):
            unread.add(inner_path(path, f"#{strange.field_number}"))
        return ",".join([begin, *self._members(opened, path, unread, level + 1)]) + "}"

    def _opened(self, held: Any) -> Message | None:
        """Return the message that an Any holds; None where its type is not in the schema or its bytes are of none."""
        try:
            descriptor = self._pool.FindMessageTypeByName(held.type_url.rpartition("/")[2])
            return GetMessageClass(descriptor).FromString(held.value)
        except (KeyError, DecodeError):
            return None


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    kind = field.message_type
    return kind is not None and kind.GetOptions().map_entry and field.is_repeated


def enum_name(field: FieldDescriptor, number: int) -> str:
    """Return the name of an enum's number, the first one where it has several; the number where it has none."""
    return enum_names(field).get(number, str(number))


def enum_names(field: FieldDescriptor) -> dict[int, str]:
    """Return the first name of each number of an enum."""
    names: dict[int, str] = {}
    for value in field.enum_type.values:
        names.setdefault(value.number, value.name)
    return names


def key_text(key: Any) -> str:
    """Return the key of a map as text, as JSON has it."""
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _number(number: float, *, whole: bool = False) -> str:
    if not math.isfinite(number):
        return f'"{json.dumps(number)}"'
    return str(int(number)) if whole and number.is_integer() and abs(number) < 1e15 else json.dumps(number)


def _date(one: Any, path: str) -> str:
    if not (one.year or one.month or one.day):
        return "null"
    found = moments.date_of(one.year, one.month, one.day)
    return _quoted(None if found is None else found.isoformat(), path, "date", moments.NO_DATE)


def _quoted(text: str | None, path: str, reason: str, what: str) -> str:
    return f'"{_needed(text, path, reason, what)}"'


def _needed(text: str | None, path: str, reason: str, what: str) -> str:
    if text is None:
        raise Faulty(fault_at(path, reason, what))
    return text
