"""Fields that were in no record so far, for which the target has a column: they are looked for without a type."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from batcher.formats.json.spelling import folded


def watching(
    found: pa.Schema, target: pa.Schema, match: Literal["exact", "insensitive"]
) -> tuple[pa.Schema, frozenset[str]]:
    """Return a schema with the fields that it lacks and a target has, as fields of type null, and their names.

    So too inside the structs of both; the names are those of columns.
    """
    merged = _merged(list(found), list(target), match)
    return pa.schema(merged), frozenset(field.name for field in merged[len(found) :])


def _merged(held: list[pa.Field], wanted: list[pa.Field], match: Literal["exact", "insensitive"]) -> list[pa.Field]:
    def spelled(name: str) -> str:
        return folded(name) if match == "insensitive" else name

    others = {spelled(field.name): field for field in wanted}
    names = {spelled(field.name) for field in held}
    merged = [
        field.with_type(_type(field.type, others[spelled(field.name)].type, match))
        if spelled(field.name) in others
        else field
        for field in held
    ]
    return [*merged, *(pa.field(field.name, pa.null()) for field in wanted if spelled(field.name) not in names)]


def _type(held: pa.DataType, wanted: pa.DataType, match: Literal["exact", "insensitive"]) -> pa.DataType:
    if pa.types.is_struct(held) and pa.types.is_struct(wanted) and held.num_fields:
        return pa.struct(_merged(list(held), list(wanted), match))
    if pa.types.is_list(held) and pa.types.is_list(wanted):
        return pa.list_(held.value_field.with_type(_type(held.value_type, wanted.value_type, match)))
    return held
