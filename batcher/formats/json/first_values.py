"""Give types to the places of a schema that have had no value yet, once one comes, and to fields that are not in it.

A place without a type has Arrow's null type: a field that was only ever null, or the items of lists that were only ever
empty. Everything else in the schema stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json.inference import SeenValues
from batcher.formats.json.limits import JsonOptions, Refused
from batcher.formats.json.per_column import as_text
from batcher.formats.json.shape import inner_path, is_raw, item_path
from batcher.formats.json.spelling import folded
from batcher.formats.json.syntax import Pairs, compact, parse_object, quote


def given_types(schema: pa.Schema, texts: pa.Array, options: JsonOptions) -> pa.Schema:
    """Return the schema with types for those of its untyped places that have a value in these messages."""
    places: dict[str, SeenValues] = {}
    insensitive = options.match == "insensitive"
    for text in texts.to_pylist():
        try:
            record = parse_object(text, options.max_depth)
        except Refused:
            continue
        for path, value in _values(record, list(schema), "", insensitive=insensitive):
            places.setdefault(path, SeenValues(insensitive=insensitive)).add(value)
    return pa.schema([_field(field, field.name, places, options) for field in schema], metadata=schema.metadata)


def new_fields(texts: pa.Array, names: Collection[str], options: JsonOptions) -> pa.Schema:
    """Return those of the named fields that have a value at the top of these messages, with types that hold it."""
    insensitive = options.match == "insensitive"
    seen = SeenValues(insensitive=insensitive)
    for text in _with_any(texts, names):
        try:
            record = parse_object(text, options.max_depth)
        except Refused:
            continue
        seen.add(Pairs([(key, value) for key, value in record.items if key in names and _counts(value)]))
    return pa.schema([as_text(one.field(name), name, options.text) for name, one in seen.fields.items()])


def _counts(value: Any) -> bool:
    return value is not None and _unambiguous(value)


def _with_any(texts: pa.Array, names: Collection[str]) -> Iterator[bytes]:
    """Yield the messages that may have one of the fields: in most batches a new field is rare."""
    # A name may also be written with escapes.
    found = pc.match_substring(texts, b"\\u")
    for name in names:
        found = pc.or_(found, pc.match_substring(texts, quote(name).encode()))
    yield from texts.filter(found).to_pylist()


def _values(value: Any, fields: list[pa.Field], path: str, *, insensitive: bool) -> Iterator[tuple[str, Any]]:
    """Yield what an object has at untyped places, as far as the strict reader would take it."""
    if type(value) is not Pairs:
        return
    present = {key for key, _ in value.items}
    for key, item in value.items:
        field = _named(key, fields, present, insensitive=insensitive)
        if field is not None and not is_raw(field):
            yield from _inside(item, field.type, inner_path(path, field.name), insensitive=insensitive)


def _inside(value: Any, kind: pa.DataType, path: str, *, insensitive: bool) -> Iterator[tuple[str, Any]]:
    if pa.types.is_null(kind):
        if value is not None and _unambiguous(value):
            yield path, value
    elif pa.types.is_struct(kind):
        yield from _values(value, list(kind), path, insensitive=insensitive)
    elif pa.types.is_list(kind) and type(value) is list:
        for item in value:
            yield from _inside(item, kind.value_type, item_path(path), insensitive=insensitive)


def _unambiguous(value: Any) -> bool:
    try:
        compact(value)
    except Refused:
        return False
    return True


def _named(key: str, fields: list[pa.Field], present: set[str], *, insensitive: bool) -> pa.Field | None:
    for field in fields:
        if field.name == key:
            return field
    if insensitive:
        for field in fields:
            if folded(field.name) == folded(key) and field.name not in present:
                return field
    return None


def _field(field: pa.Field, path: str, places: dict[str, SeenValues], options: JsonOptions) -> pa.Field:
    kind = field.type
    if pa.types.is_null(kind):
        seen = places.get(path)
        return field if seen is None else as_text(seen.field(field.name), path, options.text)
    if pa.types.is_struct(kind):
        parts = [_field(part, inner_path(path, part.name), places, options) for part in kind]
        return field.with_type(pa.struct(parts))
    if pa.types.is_list(kind):
        return field.with_type(pa.list_(_field(kind.value_field, item_path(path), places, options)))
    return field
