"""Read the JSON text of an Avro schema into its tree of types.

It follows the specification where records could be read wrongly, and is lax where a name is merely unusual: writers in
the field have hyphens in names. Nothing is guessed: what is not understood is an error, but for logical types, which
are then their base type, as the specification wants it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeGuard, TypeVar

from batcher.formats.avro.types import (
    PRIMITIVES,
    ArrayType,
    AvroSchema,
    AvroType,
    EnumType,
    FieldType,
    FixedType,
    LogicalType,
    MapType,
    NamedType,
    PrimitiveType,
    RecordType,
    RecursiveType,
    UnionType,
)

MAX_LEVELS: Final = 64
"""Records, lists, maps and unions inside each other. Reading takes a few Python calls for each."""

MAX_PRECISION: Final = 76
"""The digits of Arrow's widest decimal."""

_LOGICAL: Final[Mapping[str, str]] = {
    "date": "int",
    "time-millis": "int",
    "time-micros": "long",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "timestamp-nanos": "long",
    "local-timestamp-millis": "long",
    "local-timestamp-micros": "long",
    "local-timestamp-nanos": "long",
    "uuid": "string",
}
"""The primitive that each logical type stands on; those on fixed are settled by their size."""


_Base = TypeVar("_Base", PrimitiveType, FixedType)


class AvroSchemaBroken(Exception):
    """Say that a text is no Avro schema, or one whose records cannot become columns.

    The message is one line that names the field.
    """


def parse(text: str, references: Mapping[str, str] | None = None) -> AvroSchema:
    """Return the schema that a text means; `references` are texts it refers to, each after those it needs itself.

    Raise AvroSchemaBroken when it cannot be understood.
    """
    parser = _Parser()
    for name, reference in (references or {}).items():
        parser.parse(reference, f"the schema {name} that it refers to")
    return AvroSchema(parser.parse(text, "the schema"), parser.named)


class _Parser:
    def __init__(self) -> None:
        self.named: dict[str, NamedType] = {}
        self._open: dict[str, int] = {}
        """The records that are being read, with the level at which each began."""
        self._level = 0
        self._escape = 0
        """The level of the innermost union, list or map: below it, a value can end."""

    def parse(self, text: str, called: str) -> AvroType:
        try:
            declared = json.loads(text)
        except (ValueError, RecursionError) as error:
            # A bare name is what registries and people write for a primitive type.
            if text.strip() not in PRIMITIVES:
                raise AvroSchemaBroken(f"{called} is not JSON: {str(error).partition(chr(10))[0]}") from error
            declared = text.strip()
        self._level = self._escape = 0
        return self._type(declared, "", "")

    def _type(  # noqa: PLR0911 - one for each kind of type
        self, declared: Any, namespace: str, path: str
    ) -> AvroType:
        if isinstance(declared, str):
            return self._by_name(declared, namespace, path)
        if isinstance(declared, list):
            return self._inside(lambda: self._union(declared, namespace, path), path, escape=True)
        if not isinstance(declared, dict):
            raise _broken(path, "a type is a name, an object or a list")
        kind = declared.get("type")
        match kind:
            case "record" | "error":
                return self._inside(lambda: self._record(declared, namespace, path), path)
            case "array" | "map":
                read = self._array if kind == "array" else self._map
                return self._inside(lambda: read(declared, namespace, path), path, escape=True)
            case "enum":
                return self._enum(declared, namespace, path)
            case "fixed":
                return self._fixed(declared, namespace, path)
            case str() if kind in PRIMITIVES:
                return _logical(declared, PrimitiveType(PRIMITIVES[kind]))
            case None:
                raise _broken(path, "its type is missing")
            case _:
                # A type in a type: {"type": {"type": "string"}} and {"type": "name.of.a.record"}.
                return self._inside(lambda: self._type(kind, namespace, path), path)

    def _by_name(self, name: str, namespace: str, path: str) -> AvroType:
        if name in PRIMITIVES:
            return PrimitiveType(PRIMITIVES[name])
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        # A name without a dot that its namespace does not have is looked for outside of any, as Java's parser does.
        for known in (full, name):
            if known in self._open:
                if self._escape <= self._open[known]:
                    raise _broken(path, f"{_shown(known)} holds itself without an end")
                return RecursiveType(known)
            if known in self.named:
                return self.named[known]
        raise _broken(path, f"there is no type {_shown(name)}")

    def _union(self, declared: list[Any], namespace: str, path: str) -> UnionType:
        if not declared:
            raise _broken(path, "a union has no types")
        branches = tuple(self._type(one, namespace, path) for one in declared)
        if any(isinstance(branch, UnionType) for branch in branches):
            raise _broken(path, "a union has a union as its type")
        twice = _twice([_union_kind(branch) for branch in branches])
        if twice is not None:
            raise _broken(path, f"a union has {_shown(twice)} twice")
        return UnionType(branches)

    def _record(self, declared: dict[str, Any], namespace: str, path: str) -> NamedType:
        name, inner = self._name(declared, namespace, path)
        listed = declared.get("fields")
        if not isinstance(listed, list):
            raise _broken(path, f"the record {_shown(name)} has no list of fields")
        self._open[name] = self._level
        fields = tuple(self._field(one, inner, path, name) for one in listed)
        del self._open[name]
        twice = _twice([field.name for field in fields])
        if twice is not None:
            raise _broken(path, f"the record {_shown(name)} has the field {_shown(twice)} twice")
        record = RecordType(name, fields, self._aliases(declared, inner, path), _doc(declared))
        return self._define(name, record, path)

    def _field(self, declared: Any, namespace: str, path: str, record: str) -> FieldType:
        if not isinstance(declared, dict) or not isinstance(declared.get("name"), str) or not declared["name"]:
            raise _broken(path, f"a field of the record {_shown(record)} has no name")
        name = declared["name"]
        inner = f"{path}.{name}" if path else name
        if "type" not in declared:
            raise _broken(inner, "its type is missing")
        default = json.dumps(declared["default"]) if "default" in declared else None
        kind = self._type(declared["type"], namespace, inner)
        return FieldType(name, kind, default, _texts(declared, "aliases", inner), _doc(declared))

    def _array(self, declared: dict[str, Any], namespace: str, path: str) -> ArrayType:
        if "items" not in declared:
            raise _broken(path, "the type of its items is missing")
        return ArrayType(self._type(declared["items"], namespace, f"{path}[]"))

    def _map(self, declared: dict[str, Any], namespace: str, path: str) -> MapType:
        if "values" not in declared:
            raise _broken(path, "the type of its values is missing")
        return MapType(self._type(declared["values"], namespace, f"{path}[]"))

    def _enum(self, declared: dict[str, Any], namespace: str, path: str) -> NamedType:
        name, inner = self._name(declared, namespace, path)
        symbols = _texts(declared, "symbols", path)
        if not symbols or len(set(symbols)) < len(symbols):
            raise _broken(path, f"the enum {_shown(name)} has no symbols, or one of them twice")
        default = declared.get("default")
        if default is not None and default not in symbols:
            raise _broken(path, f"the default of the enum {_shown(name)} is not one of its symbols")
        enum = EnumType(name, symbols, default, self._aliases(declared, inner, path), _doc(declared))
        return self._define(name, enum, path)

    def _fixed(self, declared: dict[str, Any], namespace: str, path: str) -> NamedType:
        name, inner = self._name(declared, namespace, path)
        size = declared.get("size")
        if not _whole(size) or not 0 <= size < 2**31:
            raise _broken(path, f"the size of {_shown(name)} is not a number of bytes")
        fixed = FixedType(name, size, self._aliases(declared, inner, path), _doc(declared))
        return self._define(name, _logical(declared, fixed), path)

    def _name(self, declared: dict[str, Any], namespace: str, path: str) -> tuple[str, str]:
        """Return the full name of a declared type and the namespace inside it."""
        name, own = declared.get("name"), declared.get("namespace")
        if not isinstance(name, str) or not name or not (own is None or isinstance(own, str)):
            raise _broken(path, f"the name of its {declared['type']} is missing or no text")
        if "." not in name:
            space = namespace if own is None else own
            name = f"{space}.{name}" if space else name
        if name in PRIMITIVES or name in self._open:
            raise _broken(path, f"the name {_shown(name)} is taken")
        return name, name.rpartition(".")[0]

    def _aliases(self, declared: dict[str, Any], namespace: str, path: str) -> tuple[str, ...]:
        aliases = _texts(declared, "aliases", path)
        return tuple(one if "." in one or not namespace else f"{namespace}.{one}" for one in aliases)

    def _define(self, name: str, defined: NamedType, path: str) -> NamedType:
        # A schema may bring along what it refers to; then both say the same.
        known = self.named.setdefault(name, defined)
        if known != defined:
            raise _broken(path, f"the type {_shown(name)} is defined twice")
        return known

    def _inside(self, read: Callable[[], AvroType], path: str, *, escape: bool = False) -> AvroType:
        outer = self._escape
        self._level += 1
        if self._level > MAX_LEVELS:
            raise _broken(path, f"it is nested deeper than {MAX_LEVELS} levels")
        if escape:
            self._escape = self._level
        found = read()
        self._level -= 1
        self._escape = outer
        return found


def _logical(declared: Mapping[str, Any], base: _Base) -> _Base | LogicalType:
    """Return the logical type that is declared on a base, or the base where there is none or it does not fit."""
    kind = declared.get("logicalType")
    if not isinstance(kind, str):
        return base
    if kind == "decimal":
        return _decimal(declared, base)
    if isinstance(base, FixedType):
        return LogicalType(kind, base) if (kind, base.size) in (("uuid", 16), ("duration", 12)) else base
    return LogicalType(kind, base) if _LOGICAL.get(kind) == base.kind else base


def _decimal(declared: Mapping[str, Any], base: _Base) -> _Base | LogicalType:
    precision, scale = declared.get("precision"), declared.get("scale", 0)
    if not _whole(precision) or not _whole(scale) or not 0 <= scale <= precision or precision < 1:
        return base
    if isinstance(base, FixedType):
        # The specification's rule: all numbers of so many digits fit the bytes.
        fits = base.size > 0 and precision <= math.floor((8 * base.size - 1) * math.log10(2))
    else:
        fits = base.kind == "bytes"
    return LogicalType("decimal", base, precision, scale) if fits and precision <= MAX_PRECISION else base


def _union_kind(branch: AvroType) -> str:
    """Return what may be only once in a union: a kind, or a name."""
    match branch:
        case LogicalType():
            return _union_kind(branch.base)
        case PrimitiveType():
            return branch.kind
        case ArrayType():
            return "array"
        case MapType():
            return "map"
        case UnionType():
            return "union"
        case _:
            return branch.name


def _texts(declared: Mapping[str, Any], key: str, path: str) -> tuple[str, ...]:
    texts = declared.get(key)
    if texts is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(one, str) and one for one in texts):
        raise _broken(path, f"its {key} are no list of names")
    return tuple(texts)


def _doc(declared: Mapping[str, Any]) -> str:
    doc = declared.get("doc")
    return doc if isinstance(doc, str) else ""


def _whole(number: Any) -> TypeGuard[int]:
    return isinstance(number, int) and not isinstance(number, bool)


def _twice(names: Iterable[str]) -> str | None:
    """Return a name that occurs twice, None where there is none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _shown(name: str) -> str:
    """Make a name fit for a log line."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80])


def _broken(path: str, what: str) -> AvroSchemaBroken:
    return AvroSchemaBroken(f"field {_shown(path)}: {what}" if path else f"the schema: {what}")
