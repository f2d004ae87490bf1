"""The types of an Avro schema, as a tree that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Primitive = Literal["null", "boolean", "int", "long", "float", "double", "bytes", "string"]

PRIMITIVES: Final[Mapping[str, Primitive]] = {
    "null": "null",
    "boolean": "boolean",
    "int": "int",
    "long": "long",
    "float": "float",
    "double": "double",
    "bytes": "bytes",
    "string": "string",
}


@dataclass(frozen=True, slots=True)
class PrimitiveType:
    """Stand for a type without a name."""

    kind: Primitive


@dataclass(frozen=True, slots=True)
class FixedType:
    """Stand for values of `size` bytes. Names are full names."""

    name: str
    size: int
    aliases: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True)
class EnumType:
    """Stand for one of some words; `default` is for readers that do not know a word."""

    name: str
    symbols: tuple[str, ...]
    default: str | None = None
    aliases: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True)
class LogicalType:
    """Stand for what the bytes of `base` mean; `precision` and `scale` are those of a decimal."""

    kind: str
    base: PrimitiveType | FixedType
    precision: int = 0
    scale: int = 0


@dataclass(frozen=True, slots=True)
class ArrayType:
    """Stand for any number of items."""

    items: AvroType


@dataclass(frozen=True, slots=True)
class MapType:
    """Stand for any number of values with a string as key."""

    values: AvroType


@dataclass(frozen=True, slots=True)
class UnionType:
    """Stand for a value of one of several types."""

    branches: tuple[AvroType, ...]


@dataclass(frozen=True, slots=True)
class FieldType:
    """Stand for a field of a record; `default` is a JSON text, None where there is no default."""

    name: str
    type: AvroType
    default: str | None = None
    aliases: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True)
class RecordType:
    """Stand for fields in a fixed order."""

    name: str
    fields: tuple[FieldType, ...]
    aliases: tuple[str, ...] = ()
    doc: str = ""


@dataclass(frozen=True, slots=True)
class RecursiveType:
    """Stand for a record inside itself, by its full name."""

    name: str


NamedType = RecordType | EnumType | FixedType | LogicalType
"""What a schema can refer to by name. A logical type is named where its base is."""

AvroType = PrimitiveType | NamedType | ArrayType | MapType | UnionType | RecursiveType


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """Hold a schema, and all types that have a name by that full name."""

    root: AvroType
    named: Mapping[str, NamedType]
