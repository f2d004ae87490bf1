"""Directories from column values, `COLUMN=VALUE`, as Hive, Spark, DuckDB, Polars and Arrow read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError, RowsRejected
from batcher.records import Rejection
from sinks.parquet.files import encoded

DEFAULT: Final = "__HIVE_DEFAULT_PARTITION__"
"""The value of a directory for rows without a value: null, or the empty text."""

MAX_COMPONENT_BYTES: Final = 255
"""NAME_MAX of the usual file systems."""

_YEAR: Final = re.compile(r"\d{4}-")

# Each directory costs a file, two system calls and two fsyncs per block: a thousand of them take seconds.
MAX_DIRECTORIES: Final = 1_000
"""The default for how many directories one block may spread over."""


@dataclass(frozen=True, slots=True)
class HivePart:
    """Hold the rows of a block that belong in one directory, in their order.

    `directory` is relative to the root, empty for the root itself. `rows` are the rows' numbers in the
    block; None means all of them.
    """

    directory: str
    table: pa.Table
    rows: pa.Array | None = None

    def row(self, index: int) -> int:
        """Return the number in the block of the part's row `index`."""
        return index if self.rows is None else int(self.rows[index].as_py())


def unfit(schema: pa.Schema, partition_by: Sequence[str]) -> str | None:
    """Say why these columns of a schema cannot be directories, or None."""
    for name in partition_by:
        if name not in schema.names:
            return f"there is no column {name!r}; there are {', '.join(schema.names) or 'none'}"
        kind = schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not is_scalar(kind):
            return f"column {name!r} is {kind}; a directory can be a number, a text, a date, a time or a boolean"
    return None


def is_scalar(kind: pa.DataType) -> bool:
    """Return whether values of a type have a text that names a directory."""
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_date(kind)
        or types.is_timestamp(kind)
        or types.is_null(kind)
    )


def texts(values: pa.Array) -> list[str | None]:
    """Return distinct values as texts that readers turn back into them; different values give different texts.

    Timestamps become `2026-01-31 23:59:59`, with a fraction where there is one and with `Z` where they have a zone.
    """
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    listed: list[str | None] = values.cast(pa.string()).to_pylist()
    if not pa.types.is_timestamp(kind):
        return listed
    return [None if text is None else without_zero_fraction(text) for text in listed]


def _misread(listed: Sequence[str | None], kind: pa.DataType) -> list[bool]:
    """Return for each text whether it is not the time it was made of: Arrow writes no year beyond 32767."""
    timed = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return [timed and text is not None and _YEAR.match(text) is None for text in listed]


def without_zero_fraction(text: str) -> str:
    """Return the text of a timestamp without `.000`, which Arrow writes for units below the second."""
    head, dot, fraction = text.partition(".")
    zone = "Z" if fraction.endswith("Z") else ""
    return head + zone if dot and not fraction.removesuffix("Z").strip("0") else text


def component(name: str, text: str | None, *, fold: bool) -> str:
    """Return the directory of one value of a column."""
    if not text:
        return f"{name}={DEFAULT}"
    value = encoded(text, fold=fold)
    if value == DEFAULT:
        # The text itself, not the lack of one: it gets its own directory.
        value = f"%5F{value[1:]}"
    return f"{name}={value}"


def split(
    table: pa.Table, partition_by: Sequence[str], *, fold: bool = False, most: int = MAX_DIRECTORIES
) -> list[HivePart]:
    """Return a block's table as one part for each directory, without the partition columns.

    Raise RowsRejected for values whose directory name would be too long, before anything is written. Raise
    ConfigurationError when the block would spread over more directories than `most`: it comes again with the same rows,
    so that waiting does not help.
    """
    if not partition_by:
        return [HivePart("", table)]
    codes, directories = grouped(table, partition_by, fold=fold, most=most)
    rest = table.drop_columns(list(partition_by))
    if len(directories) == 1:
        return [HivePart(directories[0], rest)]
    order = pc.sort_indices(codes)  # stable: rows of a directory keep their order
    runs = pc.run_end_encode(codes.take(order))
    ordered = rest.take(order)
    parts = []
    start = 0
    for end, code in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
        part = ordered.slice(start, end - start)
        parts.append(HivePart(directories[code], part, order.slice(start, end - start)))
        start = end
    return parts


def grouped(table: pa.Table, partition_by: Sequence[str], *, fold: bool, most: int) -> tuple[pa.Array, list[str]]:
    """Return for each row the number of its directory, and the directories."""
    codes = pa.array([0], pa.int32()).take(pa.repeat(0, table.num_rows))
    directories = [""]
    rejections: dict[int, Rejection] = {}
    for name in partition_by:
        column = table.column(name).combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_null(column.type):
            column = column.cast(pa.string())
        encoding = column.dictionary_encode(null_encoding="encode")
        listed = texts(encoding.dictionary)
        components = [component(name, text, fold=fold) for text in listed]
        for unfitting, why in (
            ([len(one) > MAX_COMPONENT_BYTES for one in components], f"of more than {MAX_COMPONENT_BYTES} bytes"),
            (_misread(listed, column.type), "that readers do not take for it, because its year has not four digits"),
        ):
            message = f"the value of {name!r} makes a directory name {why}"
            for row in pc.indices_nonzero(pa.array(unfitting, pa.bool_()).take(encoding.indices)).to_pylist():
                rejections.setdefault(row, Rejection(row, "path", message, name))
        # Null and "" are different values but one directory. Number by directory, or one file would replace the other.
        distinct = pa.array(components, pa.string()).dictionary_encode()
        inner = distinct.indices.take(encoding.indices).cast(pa.int64())
        width = len(distinct.dictionary)
        pairs = pc.add(pc.multiply(codes.cast(pa.int64()), width), inner).dictionary_encode()
        codes = pairs.indices
        names = distinct.dictionary.to_pylist()
        if len(pairs.dictionary) > most and not rejections:
            raise ConfigurationError(
                f"would spread over {len(pairs.dictionary)} directories or more by {name!r}: raise "
                f"--parquet.max-directories, which is {most} (this range is announced and comes again as it is); for "
                "later batches lower --batch.max-rows, or choose a coarser --parquet.partition-by and another root"
            )
        directories = [
            f"{directories[pair // width]}/{names[pair % width]}".lstrip("/") for pair in pairs.dictionary.to_pylist()
        ]
    if rejections:
        raise RowsRejected([rejections[row] for row in sorted(rejections)])
    return codes, directories
