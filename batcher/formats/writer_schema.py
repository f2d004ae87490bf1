"""What formats with a schema of the writer share: how a schema is named, where it comes from, and what reads by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pyarrow as pa

from batcher.records import Rejection

SchemaKind = Literal["avro", "protobuf", "json"]


@dataclass(frozen=True, slots=True, order=True)
class SchemaKey:
    """Name the schema that a record was written with, as its frame does: by a number or by a GUID.

    `indexes` lead to the message type inside a Protobuf file, outermost first; empty for other kinds.
    """

    id: int = 0
    guid: str = ""
    indexes: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Name it for people."""
        path = f" message {'.'.join(map(str, self.indexes))}" if self.indexes else ""
        return f"schema {self.guid or self.id}{path}"


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """Hold a schema as its writer registered it.

    `references` are the texts of the schemas that it refers to, however deep, by the names it uses, each after those
    that it refers to itself. `message` is the type of the records inside a Protobuf file, where no frame says it.
    """

    kind: SchemaKind
    text: str
    references: Mapping[str, str] = field(default_factory=dict)
    message: str = ""


class SchemaUnknown(Exception):
    """Say that there is no such schema and that waiting does not help: its records are dead letters.

    The message is one line for people.
    """


class WriterSchemas(Protocol):
    """Find schemas of writers. Called by the decode loop and by the write loop."""

    def get(self, key: SchemaKey) -> WriterSchema:
        """Return a schema; the same question is answered from memory the second time.

        Raise SchemasUnavailable while nobody can say, SchemaUnknown when there is none.
        """


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Hold what was read from payloads of one schema: each payload is in `rows` or in `rejections`.

    `table` has the columns of the writer and a row for each entry of `rows` (ascending int64, numbers of payloads). The
    positions of `rejections` are numbers of payloads too, ascending. `unread` holds the numbers of payloads among
    `rows`, ascending, that have a value which no column of the writer can have, by its path. `notes` are lines for
    people, as often as they are true.
    """

    table: pa.Table
    rows: pa.Int64Array
    rejections: tuple[Rejection, ...] = ()
    unread: Mapping[str, pa.Int64Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class SchemaReader(Protocol):
    """Read payloads that were written with one schema. Made once for a schema; not for several threads at once."""

    @property
    def schema(self) -> pa.Schema:
        """Return the columns of the writer, with the types that hold its values exactly."""

    def read(self, payloads: pa.BinaryArray) -> ReadRows:
        """Read payloads without frame and without nulls. What becomes of one never depends on its neighbours.

        Never raises because of a payload.
        """
