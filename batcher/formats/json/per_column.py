"""Options that name columns (`--decode.text`, `--decode.epoch`), looked up in a schema.

A column inside an object is named by its path (`a.b`); a list or a map stands for what it holds (`tags`, `tags[]`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.formats.json.limits import Epoch, JsonOptions
from batcher.formats.json.shape import inner_path, is_raw, is_text, item_path
from batcher.records import COLUMN_TYPE, COORDINATES, PLACEHOLDER

ALL: Final = "*"
_TEXT_TYPE: Final = re.compile(rb"(?:\w+\()*(?:String|FixedString\(\d+\))\)*")
_LISTED: Final = 20
"""The most columns that a message names."""


@dataclass(frozen=True, slots=True)
class PerColumn:
    """Hold what the options say about each column, by its path."""

    texts: frozenset[str]
    """The text columns that take any JSON value."""
    epochs: Mapping[str, Epoch]
    """The unit of numbers in each timestamp column."""


def per_column(schema: pa.Schema, options: JsonOptions) -> PerColumn:
    """Look the named columns up; raise ConfigurationError for one that is not there or is of another kind."""
    if schema.equals(PLACEHOLDER):
        # No record of the batch can be read, so nothing is known of the columns yet.
        return PerColumn(frozenset(), {})
    paths = dict(walk(schema))
    texts = [path for path, field in paths.items() if holds_text(field) and not is_raw(field)]
    timestamps = [path for path, field in paths.items() if pa.types.is_timestamp(field.type)]
    for name in options.text - {ALL}:
        if any(plain(path) == plain(name) and is_raw(field) for path, field in paths.items()):
            raise ConfigurationError(f"--decode.text {name}: the column keeps JSON and takes any value already")
        _known("--decode.text", name, paths, texts, "text column")
    for name in options.epoch.keys() - {ALL}:
        _known("--decode.epoch", name, paths, timestamps, "timestamp column")
    named = {plain(name): unit for name, unit in options.epoch.items()}
    rest = options.epoch.get(ALL, "auto")
    return PerColumn(
        frozenset(path for path in texts if _is_named(path, options.text)),
        {path: named.get(plain(path), rest) for path in timestamps},
    )


def known_options(schema: pa.Schema, options: JsonOptions) -> JsonOptions:
    """Return the options without the columns that they name and a schema does not have, or has of another type."""
    paths = dict(walk(schema))
    texts = {plain(path) for path, field in paths.items() if holds_text(field) and not is_raw(field)}
    times = {plain(path) for path, field in paths.items() if pa.types.is_timestamp(field.type)}
    return replace(
        options,
        text=frozenset(name for name in options.text if name == ALL or plain(name) in texts),
        epoch={name: unit for name, unit in options.epoch.items() if name == ALL or plain(name) in times},
    )


def holds_text(field: pa.Field) -> bool:
    """Return whether a column takes any text; one that the target calls a UUID or an enum only looks like it."""
    own = (field.metadata or {}).get(COLUMN_TYPE)
    return is_text(field.type) and (own is None or _TEXT_TYPE.fullmatch(own) is not None)


def with_texts(schema: pa.Schema, options: JsonOptions) -> pa.Schema:
    """Return an inferred schema changed by `--decode.text`.

    A named column is text, whatever its values were so far. A column that would have been JSON kept as text because its
    values contradict each other is text as well where all columns take any value.
    """
    fields = [as_text(field, field.name, options.text) for field in schema]
    missing = [
        name
        for name in sorted(options.text - {ALL} - set(COORDINATES.names))
        if "." not in name and plain(name) not in schema.names
    ]
    return pa.schema([*fields, *(pa.field(plain(name), pa.string()) for name in missing)], metadata=schema.metadata)


def as_text(field: pa.Field, path: str, chosen: frozenset[str]) -> pa.Field:
    """Return an inferred field, and what is in it, as `--decode.text` wants it."""
    kind = field.type
    if path in chosen or plain(path) in chosen or (ALL in chosen and is_raw(field)):
        return pa.field(field.name, pa.string())
    if pa.types.is_list(kind):
        return field.with_type(pa.list_(as_text(kind.value_field, item_path(path), chosen)))
    if pa.types.is_struct(kind):
        return field.with_type(pa.struct([as_text(child, inner_path(path, child.name), chosen) for child in kind]))
    return field


def walk(fields: Iterable[pa.Field], path: str = "") -> Iterator[tuple[str, pa.Field]]:
    """Yield each field with its path, however deep; an object before what is in it."""
    for field in fields:
        yield from _walk(field, inner_path(path, field.name))


def _walk(field: pa.Field, path: str) -> Iterator[tuple[str, pa.Field]]:
    yield path, field
    kind = field.type
    if pa.types.is_struct(kind):
        yield from walk(kind, path)
    elif pa.types.is_list(kind):
        yield from _walk(kind.value_field, item_path(path))
    elif pa.types.is_map(kind):
        yield from _walk(kind.item_field, item_path(path))


def plain(path: str) -> str:
    """Return a path as people write it: without the marks of lists and maps."""
    return path.replace("[]", "")


def _is_named(path: str, chosen: frozenset[str]) -> bool:
    return ALL in chosen or plain(path) in {plain(name) for name in chosen}


def _known(flag: str, name: str, paths: Collection[str], fitting: Collection[str], kind: str) -> None:
    if plain(name) in map(plain, fitting):
        return
    what = f"is no {kind}" if plain(name) in map(plain, paths) else "is no column"
    there = [plain(path) for path in fitting]
    listed = ", ".join(there[:_LISTED]) + (", …" if len(there) > _LISTED else "") if there else "none"
    raise ConfigurationError(f"{flag} {name}: {what}; {kind}s there are: {listed}")
