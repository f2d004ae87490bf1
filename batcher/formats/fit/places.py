"""Where a value comes from and where it goes, in the words of a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json.limits import Refused
from batcher.formats.json.type_names import type_name
from batcher.formats.writer_schema import SchemaKey

Faults = dict[int, Refused]
"""Why rows of a column do not fit, by their number. What stands in the fitted column there means nothing."""

Reasons = Mapping[int, tuple[str, str]]
"""The same as a word for counting and what is wrong, before it is known where the column goes."""

_NESTED: Final = {"struct": pa.types.is_struct, "map": pa.types.is_map}


@dataclass(frozen=True, slots=True)
class Place:
    """Hold a column of a target and the type in which a writer fills it."""

    field: pa.Field
    path: str
    source: pa.DataType
    key: SchemaKey | str
    written_json: bool = False
    """The writer's text is a value of any type, as JSON (`records.RAW_JSON`): of a union, for example."""

    @property
    def to(self) -> pa.DataType:
        """Return the type of the column."""
        return self.field.type

    @property
    def pair(self) -> str:
        """Name both types, and the writer's schema."""
        return f"the column's type is {type_name(self.field)}; {self.key} writes {written_name(self.source)}"

    def refused(self, reason: str, what: str) -> Refused:
        """Return the refusal of a value."""
        return Refused(reason, f"{what}; {self.pair}", self.path)

    def faults(self, rows: pa.BooleanArray, reason: str, what: str) -> Faults:
        """Refuse the rows where a mask is true."""
        return dict.fromkeys(true_rows(rows), self.refused(reason, what))


def written_name(kind: pa.DataType) -> str:
    """Return the name of a writer's type; what is inside of it would make the line too long."""
    for name, test in _NESTED.items():
        if test(kind):
            return name
    return "list" if is_list(kind) else type_name(pa.field("", kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type holds items, of any number or of a fixed one."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def true_rows(mask: pa.BooleanArray) -> list[int]:
    """Return the rows where a mask is true."""
    return pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()  # type: ignore[no-any-return]


def mask_of(rows: list[int], length: int) -> pa.BooleanArray:
    """Return a mask that is true at some rows."""
    return pc.is_in(pa.arange(0, length), value_set=pa.array(rows, pa.int64()))
