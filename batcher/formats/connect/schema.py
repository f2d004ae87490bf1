"""Read the schema that Connect's JsonConverter puts into each message (`schemas.enable`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from batcher.formats.connect.meaning import DECIMAL, Named, decimal_type
from batcher.formats.written import SchemaBroken

MAX_LEVELS: Final = 64
"""Structs and lists inside each other."""

_PLAIN: Final[Mapping[str, pa.DataType]] = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "string": pa.string(),
}


def parsed(text: str) -> tuple[pa.Schema, Named]:
    """Return the columns of a payload as JSON has them, and the names of their types. Raise SchemaBroken."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaBroken("the embedded schema is no JSON") from error
    kind, named = _type(schema, "", 0)
    if not pa.types.is_struct(kind) or not kind.num_fields:
        raise SchemaBroken("the embedded schema is of no record with fields")
    return pa.schema(list(kind)), named


def _type(schema: Any, path: str, level: int) -> tuple[pa.DataType, Named]:
    if not isinstance(schema, dict) or not isinstance(schema.get("type"), str):
        raise SchemaBroken(f"field {path}: its embedded schema names no type")
    if level > MAX_LEVELS:
        raise SchemaBroken(f"field {path}: the embedded schema has more than {MAX_LEVELS} levels")
    kind = schema["type"]
    if kind in _PLAIN:
        return _PLAIN[kind], _named(schema)
    if kind not in _MADE:
        raise SchemaBroken(f"field {path}: values of type {kind[:20]!r} are not read")
    return _MADE[kind](schema, path, level)


def _named(
    schema: Mapping[str, Any], children: Mapping[str, Named] = MappingProxyType({}), *, base64: bool = False
) -> Named:
    name, given = schema.get("name"), schema.get("parameters")
    parameters = {str(key): str(value) for key, value in given.items()} if isinstance(given, dict) else {}
    return Named(name if isinstance(name, str) else "", parameters, children, base64=base64)


def _bytes(schema: Mapping[str, Any], path: str, level: int) -> tuple[pa.DataType, Named]:
    del level
    named = _named(schema, base64=True)
    if named.name == DECIMAL:
        try:
            decimal_type(named.parameters)
        except (ValueError, pa.ArrowInvalid) as error:
            raise SchemaBroken(f"field {path}: its decimals are of no scale that can be") from error
    return pa.string(), named


def _array(schema: Mapping[str, Any], path: str, level: int) -> tuple[pa.DataType, Named]:
    item, inner = _type(schema.get("items"), f"{path}[]", level + 1)
    return pa.list_(item), Named(item=inner)


def _map(schema: Mapping[str, Any], path: str, level: int) -> tuple[pa.DataType, Named]:
    keys, _ = _type(schema.get("keys"), f"{path}[]", level + 1)
    value, inner = _type(schema.get("values"), f"{path}[]", level + 1)
    if keys != pa.string() or not inner.plain:
        raise SchemaBroken(f"field {path}: of maps only those of plain values by text are read")
    return pa.map_(pa.string(), value), Named()


def _struct(schema: Mapping[str, Any], path: str, level: int) -> tuple[pa.DataType, Named]:
    fields, children = [], {}
    given = schema.get("fields")
    for one in given if isinstance(given, list) else ():
        inside = one.get("field") if isinstance(one, dict) else None
        if not isinstance(inside, str) or inside in children:
            raise SchemaBroken(f"field {path}: its embedded schema has a field without a name of its own")
        below, children[inside] = _type(one, f"{path}.{inside}" if path else inside, level + 1)
        fields.append(pa.field(inside, below))
    return pa.struct(fields), _named(schema, children)


_MADE: Final = {"bytes": _bytes, "array": _array, "map": _map, "struct": _struct}
