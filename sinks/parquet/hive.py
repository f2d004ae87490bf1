"""Directories from column values, `NAME=VALUE`, as Hive, Spark, DuckDB, Polars and Arrow read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError, RowsRejected
from batcher.records import COORDINATES, Rejection
from sinks.parquet.directory import DirectoryRule, columns_of
from sinks.parquet.files import encoded
from sinks.parquet.function import keys, texts, unsuited

DEFAULT: Final = "__HIVE_DEFAULT_PARTITION__"
"""The value of a directory for rows without a value: null, or the empty text."""

MAX_COMPONENT_BYTES: Final = 255
"""NAME_MAX of the usual file systems."""

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


def unfit(schema: pa.Schema, rules: Sequence[DirectoryRule], coordinates: Sequence[str] = ()) -> str | None:
    """Say why directories cannot be made from a schema by these rules, or None.

    `coordinates` are the columns that the files have besides, in the place of any of that name.
    """
    for rule in rules:
        if rule.column in coordinates and rule.function:
            kind = COORDINATES.field(rule.column).type
        elif rule.column in schema.names:
            kind = schema.field(rule.column).type
        else:
            names = [*schema.names, *(coordinates if rule.function else ())]
            return f"there is no column {rule.column!r}; there are {', '.join(names) or 'none'}"
        problem = unsuited(rule, kind)
        if problem is not None:
            return f"column {rule.column!r} is {kind}; {problem}"
        if rule.function and rule.name in {*schema.names, *coordinates} - set(columns_of(rules)):
            return (
                f"the directory {rule.name!r} would hide the column of that name from readers: "
                f"write `{rule.text.partition(' as ')[0]} as NAME`"
            )
    return None


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
    table: pa.Table, rules: Sequence[DirectoryRule], *, fold: bool = False, most: int = MAX_DIRECTORIES
) -> list[HivePart]:
    """Return a block's table as one part for each directory, without the columns that are directories themselves.

    Raise RowsRejected for values whose directory name would be too long, before anything is written. Raise
    ConfigurationError when the block would spread over more directories than `most`: it comes again with the same rows,
    so that waiting does not help.
    """
    if not rules:
        return [HivePart("", table)]
    codes, directories = grouped(table, rules, fold=fold, most=most)
    rest = table.drop_columns(list(columns_of(rules)))
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


def grouped(table: pa.Table, rules: Sequence[DirectoryRule], *, fold: bool, most: int) -> tuple[pa.Array, list[str]]:
    """Return for each row the number of its directory, and the directories."""
    codes = pa.array([0], pa.int32()).take(pa.repeat(0, table.num_rows))
    directories = [""]
    rejections: dict[int, Rejection] = {}
    for rule in rules:
        name = rule.column
        # A column without a type is not in the table yet: all its values are null.
        there = name in table.column_names
        column = table.column(name).combine_chunks() if there else pa.nulls(table.num_rows)
        encoding = keys(rule, column).dictionary_encode(null_encoding="encode")
        listed, misread = texts(rule, encoding.dictionary)
        components = [component(rule.name, text, fold=fold) for text in listed]
        for unfitting, why in (
            ([len(one) > MAX_COMPONENT_BYTES for one in components], f"of more than {MAX_COMPONENT_BYTES} bytes"),
            (misread, "that readers do not take for it, because its year has not four digits"),
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
                f"would spread over {len(pairs.dictionary)} directories or more by {rule.text!r}: raise "
                f"--parquet.max-directories, which is {most} (this range is announced and comes again as it is); for "
                "later batches lower --batch.max-rows, or choose a coarser --parquet.partition-by and another root"
            )
        directories = [
            f"{directories[pair // width]}/{names[pair % width]}".lstrip("/") for pair in pairs.dictionary.to_pylist()
        ]
    if rejections:
        raise RowsRejected([rejections[row] for row in sorted(rejections)])
    return codes, directories
