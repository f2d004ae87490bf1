"""Find out where a record is no Protobuf: upb says only that it is not."""

from __future__ import annotations

from typing import Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from batcher.formats.fault import RecordFault, fault_at
from batcher.formats.json.shape import inner_path

MAX_VALUES: Final = 10_000
"""The most values that are looked at: this is for people, and a record may have a million."""

MAX_DEPTH: Final = 100
"""The deepest nesting that upb follows."""

_VARINT, _EIGHT, _LENGTH, _GROUP, _END, _FOUR = range(6)
_PACKED_BYTES: Final = {
    **dict.fromkeys((FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE), 8),
    **dict.fromkeys((FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_FLOAT), 4),
}
_NOT_PACKED: Final = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_TRUNCATED: Final = ("truncated", "the message ends inside the value")
_LONG: Final = ("syntax", "a number has more than 10 bytes")


def locate(payload: bytes, descriptor: Descriptor) -> RecordFault | None:
    """Return what is wrong with a payload and in which field; None where nothing is found."""
    walk = _Walk(payload)
    try:
        walk.message(0, len(payload), _Into(descriptor, "", 0))
    except _Found as found:
        return found.fault
    return None


class _Into(NamedTuple):
    """Say what is walked into: the type, None where it is not known, the path, and the number of a group."""

    kind: Descriptor | None
    path: str
    depth: int
    group: int = 0


class _Found(Exception):
    """Carry what was found out of the walk."""

    def __init__(self, path: str, reason: str, what: str) -> None:
        super().__init__(what)
        self.fault = fault_at(path, reason, what)


class _Walk:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_VALUES

    def message(self, at: int, end: int, into: _Into) -> int:
        """Walk over the fields of a message and return where it ends: a group ends itself."""
        kind, path, group = into.kind, into.path, into.group
        if into.depth > MAX_DEPTH:
            raise _Found(path, "syntax", f"the message is nested deeper than {MAX_DEPTH} levels")
        while at < end and self._left:
            self._left -= 1
            tag, at = self._varint(at, end, path)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise _Found(path, "syntax", "there is a field with a number that no field can have")
            field = None if kind is None else kind.fields_by_number.get(number)
            inner = inner_path(path, f"#{number}" if field is None else field.name)
            if wire == _END:
                if number == group:
                    return at
                raise _Found(path, "syntax", "a group ends that did not begin")
            inside = _Into(
                None if field is None else field.message_type, inner, into.depth + 1, number if wire == _GROUP else 0
            )
            at = self._value(wire, at, end, field, inside)
        if group and at >= end:
            raise _Found(path, "truncated", "the message ends inside a group")
        return at

    def _value(self, wire: int, at: int, end: int, field: FieldDescriptor | None, inside: _Into) -> int:
        path = inside.path
        if wire == _VARINT:
            return self._varint(at, end, path)[1]
        if wire == _GROUP:
            is_group = field is not None and field.type == FieldDescriptor.TYPE_GROUP
            return self.message(at, end, inside if is_group else inside._replace(kind=None))
        if wire == _LENGTH:
            size, at = self._varint(at, end, path)
        elif wire in (_EIGHT, _FOUR):
            size = 8 if wire == _EIGHT else 4
        else:
            raise _Found(path, "syntax", f"there is no wire type {wire}")
        if size > end - at:
            raise _Found(path, *_TRUNCATED)
        if wire == _LENGTH and field is not None:
            self._held(at, at + size, field, inside)
        return at + size

    def _held(self, at: int, end: int, field: FieldDescriptor, inside: _Into) -> None:
        """Look into what stands behind a length."""
        path = inside.path
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            self.message(at, end, inside)
        elif field.type == FieldDescriptor.TYPE_STRING:
            try:
                self._data[at:end].decode()
            except UnicodeDecodeError:
                raise _Found(path, "utf8", "the text is not UTF-8") from None
        elif field.is_repeated and field.type not in _NOT_PACKED:
            width = _PACKED_BYTES.get(field.type)
            if width is not None and (end - at) % width:
                raise _Found(path, *_TRUNCATED)
            while width is None and at < end and self._left:
                self._left -= 1
                at = self._varint(at, end, path)[1]

    def _varint(self, at: int, end: int, path: str) -> tuple[int, int]:
        value = 0
        for place in range(10):
            if at >= end:
                raise _Found(path, *_TRUNCATED)
            octet = self._data[at]
            at += 1
            value |= (octet & 0x7F) << (7 * place)
            if octet < 0x80:
                return value, at
        raise _Found(path, *_LONG)
