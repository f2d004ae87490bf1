"""What a record holds, read on its own by Google's own library (upb): whether it is Protobuf, and what it means.

Nearly all records never come here. Those that do are what ptars refused, what it did not read completely, and what is
ambiguous for it. They leave in the plain form that upb writes, in which nothing is ambiguous, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from batcher.formats.fault import RecordFault
from batcher.formats.protobuf.locate import locate
from batcher.formats.protobuf.schema import pooled
from batcher.formats.protobuf.steps import MessageStep
from batcher.formats.protobuf.unread import finder

_NOT_UTF8: Final = "UTF-8"
"""What upb says of a text that is none, among other words; of anything else it says that it is corrupt."""


class Settled(NamedTuple):
    """Hold what a record turned out to be: its plain form, or why it is refused, and the paths of what is not read."""

    payload: bytes = b""
    fault: RecordFault | None = None
    unread: AbstractSet[str] = frozenset()


class Arbiter:
    """Settle records of one message type, each on its own. `step` is that of the twin."""

    def __init__(self, files: Iterable[FileDescriptorProto], descriptor: Descriptor, step: MessageStep) -> None:
        self._wide = pooled(_wide(file) for file in files).pool.FindMessageTypeByName(descriptor.full_name)
        self._message = GetMessageClass(self._wide)
        self._find = finder(step)
        self._broken = RecordFault("syntax", f"the message is not a valid {descriptor.full_name}", None)
        self._not_utf8 = RecordFault("utf8", f"a text in the message ({descriptor.full_name}) is not UTF-8", None)

    def refuses(self, payload: bytes) -> bool:
        """Return whether a payload is no message of this type."""
        try:
            self._message.FromString(payload)
        except DecodeError:
            return True
        return False

    def settle(self, payload: bytes) -> Settled:
        """Return what becomes of a payload."""
        try:
            message = self._message.FromString(payload)
        except DecodeError as error:
            words = self._not_utf8 if _NOT_UTF8 in str(error) else self._broken
            return Settled(fault=locate(payload, self._wide) or words)
        unread: set[str] = set()
        self._find(message, unread)
        return Settled(message.SerializePartialToString(), None, unread)

    def refused_by_reader(self, payload: bytes, *, utf8: bool) -> RecordFault:
        """Return the fault of what upb takes and ptars does not: in proto2 a text may be anything."""
        return locate(payload, self._wide) or (self._not_utf8 if utf8 else self._broken)


def _wide(file: FileDescriptorProto) -> FileDescriptorProto:
    """Return a file whose messages keep all that is written, in the order in which it is written.

    Enums are numbers, so that none is unknown; maps are lists of entries, so that none is dropped; extensions are
    unknown, as nothing reads them.
    """
    wide = FileDescriptorProto()
    wide.CopyFrom(file)
    wide.ClearField("extension")
    wide.ClearField("service")
    for message in wide.message_type:
        _widen(message)
    return wide


def _widen(message: DescriptorProto) -> None:
    message.ClearField("extension")
    message.options.ClearField("map_entry")
    for field in message.field:
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            field.type = FieldDescriptorProto.TYPE_INT32
            field.ClearField("type_name")
            field.ClearField("default_value")
    for inner in message.nested_type:
        _widen(inner)
