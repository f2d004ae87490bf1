"""The twin of a schema: descriptors for ptars that read the same bytes and leave nothing to it that it gets wrong.

ptars turns some values into others without a word: a Timestamp before 1677 becomes one of 2262, a Date that is none
becomes 1970-01-01, a map's entry without a message stops everything. So it is not shown what a field means. The twin
has the same fields with the same numbers on the wire, and

* each single value is optional: an absent one is null, and is told apart from a zero that was written;
* enums are numbers, and oneofs are fields like others;
* times, dates and wrappers are messages like others, maps are lists of entries;
* what becomes JSON text is the bytes of its pieces; what has no column (groups) is not there.

Then what was read can be written again, and a record of which all bytes come back was read as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from batcher.formats.fault import fault_at
from batcher.formats.json.shape import inner_path, item_path
from batcher.formats.protobuf.steps import (
    DateStep,
    MessageStep,
    ProtoMember,
    ProtoStep,
    ScalarStep,
    TimestampStep,
    TimeUnit,
    TwinDurationStep,
    TwinEnumStep,
    TwinListStep,
    TwinMapStep,
    TwinTextStep,
    WrapperStep,
)
from batcher.formats.protobuf.words import ProtoWords, enum_names, is_map, is_wrapper
from batcher.formats.written import SchemaBroken

PACKAGE: Final = "batcher.twin"

MAX_LEVELS: Final = 16
"""Messages inside each other that have columns; deeper ones are JSON text. Arrow hands over 64 levels at most, of which
a map takes three."""

MAX_FIELDS: Final = 10_000
"""Places of a schema, each written out: a text of 1 KB can stand for 2^50 of them."""

_SCALARS: Final[Mapping[int, tuple[pa.DataType, object]]] = {
    FieldDescriptor.TYPE_DOUBLE: (pa.float64(), 0.0),
    FieldDescriptor.TYPE_FLOAT: (pa.float32(), 0.0),
    FieldDescriptor.TYPE_INT64: (pa.int64(), 0),
    FieldDescriptor.TYPE_UINT64: (pa.uint64(), 0),
    FieldDescriptor.TYPE_INT32: (pa.int32(), 0),
    FieldDescriptor.TYPE_FIXED64: (pa.uint64(), 0),
    FieldDescriptor.TYPE_FIXED32: (pa.uint32(), 0),
    FieldDescriptor.TYPE_BOOL: (pa.bool_(), False),
    FieldDescriptor.TYPE_STRING: (pa.string(), ""),
    FieldDescriptor.TYPE_BYTES: (pa.binary(), b""),
    FieldDescriptor.TYPE_UINT32: (pa.uint32(), 0),
    FieldDescriptor.TYPE_SFIXED32: (pa.int32(), 0),
    FieldDescriptor.TYPE_SFIXED64: (pa.int64(), 0),
    FieldDescriptor.TYPE_SINT32: (pa.int32(), 0),
    FieldDescriptor.TYPE_SINT64: (pa.int64(), 0),
}

_TEXTS: Final = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue", "Any"))
"""Messages that are JSON text wherever they are."""


class Twin:
    """Hold the twin of one message type: its `file` and `name`, and the `step` that reads its columns.

    `units` says in which unit times are read, by the name of the outermost field; other times are read in
    microseconds. Raise SchemaBroken for a schema that is too large.
    """

    def __init__(self, descriptor: Descriptor, pool: DescriptorPool, units: Mapping[str, TimeUnit]) -> None:
        self.file = FileDescriptorProto(name="twin.proto", package=PACKAGE, syntax="proto2")
        self.times: list[TimestampStep] = []
        self._words = ProtoWords(pool)
        self._units = units
        self._fields = 0
        self.step, self.name = self._message(descriptor, "", ())
        if not self.step.members:
            raise SchemaBroken(f"{descriptor.full_name} has no fields")

    def _message(self, descriptor: Descriptor, path: str, outer: tuple[str, ...]) -> tuple[MessageStep, str]:
        """Return the step of a message and the name of its twin. `outer` are the messages that it is in."""
        name = f"M{len(self.file.message_type)}"
        twin = self.file.message_type.add(name=name)
        outer = (*outer, descriptor.full_name)
        members: list[ProtoMember] = []
        numbers: dict[str, int] = {}
        groups: list[str] = []
        for field in descriptor.fields:
            inner = inner_path(path, field.name)
            if field.type == FieldDescriptor.TYPE_GROUP:
                groups.append(field.name)
                continue
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise SchemaBroken(f"it stands for more than {MAX_FIELDS} fields")
            numbers[field.name] = len(members)
            members.append(self._member(field, inner, outer, twin))
        step = MessageStep(members)
        exclusive = tuple(
            tuple(numbers[one.name] for one in group.fields if one.name in numbers) for group in descriptor.oneofs
        )
        step.exclusive = tuple(group for group in exclusive if len(group) > 1)
        step.groups = tuple(groups)
        return step, name

    def _member(self, field: FieldDescriptor, path: str, outer: tuple[str, ...], twin: DescriptorProto) -> ProtoMember:
        if is_map(field):
            return ProtoMember(field.name, self._map(field, path, outer, twin), nullable=False)
        if field.is_repeated:
            item = self._value(field, item_path(path), outer, twin, repeated=True)
            return ProtoMember(field.name, TwinListStep(item), nullable=False)
        step = self._value(field, path, outer, twin)
        if field.is_required:
            missing = fault_at(path, "missing", "is required and not there")
            return ProtoMember(field.name, step, step.gaps, missing)
        return ProtoMember(field.name, step, field.has_presence and not field.has_default_value)

    def _map(self, field: FieldDescriptor, path: str, outer: tuple[str, ...], twin: DescriptorProto) -> TwinMapStep:
        entry = self.file.message_type.add(name=f"M{len(self.file.message_type)}")
        fields = field.message_type.fields_by_name
        inner = item_path(path)
        key = self._value(fields["key"], inner, outer, entry, default=True)
        value = self._value(fields["value"], inner, outer, entry, default=True)
        self._add(twin, field, FieldDescriptorProto.TYPE_MESSAGE, repeated=True, message=entry.name)
        assert isinstance(key, ScalarStep)
        return TwinMapStep(key, value)

    def _value(
        self,
        field: FieldDescriptor,
        path: str,
        outer: tuple[str, ...],
        twin: DescriptorProto,
        *,
        repeated: bool = False,
        default: bool = False,
    ) -> ProtoStep:
        """Return the step of a field's values, and add the field to the twin of the message that has it.

        With `default` an absent value is that of its type, as in the entry of a map.
        """
        if field.message_type is not None:
            return self._message_value(field, path, outer, twin, repeated=repeated)
        absent = None if repeated or (field.has_presence and not (default or field.has_default_value)) else True
        if field.enum_type is not None:
            self._add(twin, field, FieldDescriptorProto.TYPE_INT32, repeated=repeated)
            return TwinEnumStep(enum_names(field), absent and field.default_value)
        self._add(twin, field, field.type, repeated=repeated)
        kind, zero = _SCALARS[field.type]
        return ScalarStep(kind, absent and (field.default_value if field.has_default_value else zero))

    def _message_value(
        self, field: FieldDescriptor, path: str, outer: tuple[str, ...], twin: DescriptorProto, *, repeated: bool
    ) -> ProtoStep:
        descriptor = field.message_type
        name = descriptor.full_name
        if name in _TEXTS or name in outer or not descriptor.fields or len(outer) >= MAX_LEVELS:
            # Pieces of one message are its bytes one after the other: so says the encoding.
            self._add(twin, field, FieldDescriptorProto.TYPE_BYTES, repeated=True)
            return TwinTextStep(path, descriptor, self._words, whole=repeated)
        step, message = self._message(descriptor, path, outer)
        self._add(twin, field, FieldDescriptorProto.TYPE_MESSAGE, repeated=repeated, message=message)
        return self._meant(descriptor, step, path)

    def _meant(self, descriptor: Descriptor, step: MessageStep, path: str) -> ProtoStep:
        """Return the step of a message that means a single value, or its own."""
        if is_wrapper(descriptor):
            value = step.members[0].step
            assert isinstance(value, ScalarStep)
            return WrapperStep(value)
        match descriptor.full_name:
            case "google.protobuf.Timestamp":
                time = TimestampStep(path, self._units.get(path.partition(".")[0].partition("[")[0], "us"))
                self.times.append(time)
                return time
            case "google.protobuf.Duration":
                return TwinDurationStep(path)
            case "google.type.Date":
                return DateStep(path)
            case _:
                return step

    def _add(
        self, twin: DescriptorProto, field: FieldDescriptor, kind: int, *, repeated: bool, message: str = ""
    ) -> None:
        added = twin.field.add(name=f"f{len(twin.field)}", number=field.number)
        added.type = kind
        added.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if message:
            added.type_name = f".{PACKAGE}.{message}"
        elif repeated and kind not in _UNPACKED:
            added.options.packed = True


_UNPACKED: Final = frozenset((FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES))
"""Besides messages, what is never packed: each item has a tag of its own."""
