"""Watch what is not stored: fields that no column takes, and columns that no field fills.

Pure: no thread, no lock, no clock. The caller (`decoding.py`) guards it. Nothing here is done once a record: the format
delivers unknown fields already counted, and columns are asked for their nulls.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

import pyarrow as pa
import structlog

from batcher.records import Batch, UnknownField

log = structlog.get_logger(__name__)

MAX_NAMES: Final = 100
"""Fields that are named in the log, the summary and the metrics. A field's name comes from the data. Without a bound, a
dictionary in the place of a record would make as many series as it has keys."""

MORE: Final = "(more)"
"""The name for all fields beyond those that are named; their rows are added up."""

MAX_COLUMNS_NAMED: Final = 20
"""Columns without a value that have a line of their own."""

FAIR_BATCHES: Final = 3
FAIR_ROWS: Final = 1000
"""A column that has no value after this many batches or rows is named; before, the field may just be rare."""

_CLOSE: Final = 0.75


class UnknownFields:
    """Name each unknown field once, and bound their number. `coordinates` are those that the target has."""

    def __init__(self, target: str, coordinates: Collection[str]) -> None:
        self._target = target
        self._coordinates = frozenset(coordinates)
        self._named: dict[str, None] = {}
        self._full = False

    @property
    def paths(self) -> Sequence[str]:
        """Return the fields that were named, in the order of naming."""
        return tuple(self._named)

    def name(self, batch: Batch, found: Iterable[UnknownField], *, estimated: bool) -> None:
        """Log the fields that were not there before, each with where it was first seen."""
        for field in found:
            if field.path in self._named:
                continue
            if len(self._named) >= MAX_NAMES:
                self._say_full()
                return
            self._named[field.path] = None
            partition, offset = batch.place(field.position)
            log.warning(
                "unknown_field",
                field=field.path,
                target=self._target,
                topic=partition.topic,
                partition=partition.number,
                offset=offset,
                records=field.records,
                **({"estimated": True} if estimated else {}),
                hint=self._hint(field.path),
            )

    def _hint(self, path: str) -> str:
        if path in self._coordinates:
            return "the column of this name holds where the record stood; the field is not stored"
        if "_value" in self._coordinates:
            return "no column takes it; it is in the whole message in _value, and nowhere else"
        return "no column takes it, so it is not stored; see --decode.on-unknown"

    def counted(self, found: Iterable[UnknownField]) -> Mapping[str, int]:
        """Return rows by field, those beyond the bound together under `MORE`."""
        counts: dict[str, int] = defaultdict(int)
        for field in found:
            counts[field.path if field.path in self._named else MORE] += field.records
        return dict(counts)

    def _say_full(self) -> None:
        if not self._full:
            self._full = True
            log.warning("unknown_fields_unnamed", named=MAX_NAMES, hint=f"further ones are counted as {MORE}")


class ColumnWatch:
    """Know which columns of one schema have no value from any record, parts of structs and lists included."""

    def __init__(self, target: str, schema: pa.Schema) -> None:
        self._target = target
        self._pending = {field.name: dict.fromkeys(_paths(field.name, field.type)) for field in schema}
        self._rows = self._batches = 0
        self._told = False

    def going_on(self, before: ColumnWatch) -> ColumnWatch:
        """Return the watch, which now knows what another one saw of the same columns without the new ones."""
        self._pending |= {name: dict(one) for name, one in before._pending.items() if name in self._pending}
        self._rows, self._batches, self._told = before._rows, before._batches, before._told
        return self

    @property
    def without_value(self) -> tuple[str, ...]:
        """Return the columns that had no value so far; empty before there was a row.

        A struct without a value is named, its parts are not. Columns whose type is null are not named: their field was
        seen without a value.
        """
        if not self._rows:
            return ()
        return tuple(
            path
            for paths in self._pending.values()
            for path in paths
            if not path.endswith("[]") and not any(above in paths for above in _above(path))
        )

    @property
    def matched(self) -> bool:
        """Return whether any column has had a value, or there was nothing to judge by."""
        silent = [name for name, paths in self._pending.items() if name in paths]
        return not self._rows or len(silent) < len(self._pending) or not silent

    def observe(self, table: pa.Table) -> None:
        """Look at the rows of a batch."""
        if not table.num_rows:
            return
        self._rows += table.num_rows
        self._batches += 1
        for name, paths in self._pending.items():
            if paths:
                for chunk in table[name].chunks:
                    self._visit(paths, name, chunk)

    def tell(self, unknown: Sequence[str], *, last: bool = False) -> None:
        """Name the columns without a value, once: when there is enough to judge by, or in any case with `last`."""
        fair = self._rows >= FAIR_ROWS or self._batches >= FAIR_BATCHES
        if self._told or not self._rows or not (fair or last):
            return
        self._told = True
        silent = self.without_value
        for column in silent[:MAX_COLUMNS_NAMED]:
            log.warning("column_without_value", column=column, target=self._target, hint=_advice(column, unknown))
        if len(silent) > MAX_COLUMNS_NAMED:
            log.warning("columns_without_value", target=self._target, columns=len(silent), named=MAX_COLUMNS_NAMED)

    def _visit(self, pending: dict[str, None], path: str, values: pa.Array) -> None:
        if values.null_count == len(values):
            return
        pending.pop(path, None)
        if not any(other.startswith((f"{path}.", f"{path}[")) for other in pending):
            return
        if pa.types.is_struct(values.type):
            for number in range(values.type.num_fields):
                self._visit(pending, f"{path}.{values.type.field(number).name}", values.field(number))
        elif _is_list(values.type):
            self._visit(pending, f"{path}[]", values.flatten())


def nearest(column: str, fields: Sequence[str]) -> str | None:
    """Return the field that a column was most likely meant for, if there is one.

    A name that is equal but for case comes first, then one that is equal but for punctuation, then a similar one.
    Nested fields (`user.id`) are found for a column of their last name, and for one of all names together (`user_id`).
    """
    for simplified in (str.casefold, _letters, _last):
        for field in fields:
            if field != column and simplified(field) == simplified(column):
                return field
    by_letters = {_letters(field): field for field in fields}
    close = get_close_matches(_letters(column), by_letters, n=1, cutoff=_CLOSE)
    return by_letters[close[0]] if close else None


def case_twins(schema: pa.Schema) -> list[tuple[str, ...]]:
    """Return groups of columns whose names differ only in case."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in schema.names:
        groups[name.casefold()].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def mismatch(target: str, columns: Sequence[str], fields: Sequence[str]) -> str:
    """Return the message for a target none of whose columns a record fills."""
    pairs = [(column, nearest(column, fields)) for column in columns[:5]]
    meant = [f"`{field}` for `{column}`" for column, field in pairs if field]
    only_case = any(field is not None and field.casefold() == column.casefold() for column, field in pairs)
    cure = "give --decode.match insensitive, or rename the columns" if only_case else "give the table the columns"
    return (
        f"no field of the records is a column of {target}: its columns are {_listed(columns)}, "
        f"the records have {_listed(fields)}{'; meant: ' + ', '.join(meant) if meant else ''}; nothing was written. "
        f"To go on: {cure}; to load rows without a value: --decode.on-unknown ignore"
    )


def _advice(column: str, unknown: Sequence[str]) -> str:
    meant = nearest(column, unknown)
    return f"no record has it; did you mean `{meant}`?" if meant else "no record has it"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _last(name: str) -> str:
    return _letters(re.split(r"[.\[]", name.removesuffix("[]"))[-1])


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _paths(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_null(kind):
        return
    yield path
    if pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            field = kind.field(number)
            yield from _paths(f"{path}.{field.name}", field.type)
    elif _is_list(kind):
        yield from _paths(f"{path}[]", kind.value_type)


def _above(path: str) -> Iterator[str]:
    for found in re.finditer(r"\.|\[\]", path):
        yield path[: found.start()]
