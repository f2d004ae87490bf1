"""What a table is partitioned by: columns, and the functions of columns that the Parquet sink makes directories of.

Iceberg has these functions itself. For a table that has none, Delta's, each is a column of its own, computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError, RowsRejected
from batcher.records import Rejection
from sinks.parquet.directory import DirectoryRule, rules_of, separated
from sinks.parquet.function import keys, texts
from sinks.parquet.hive import MAX_COMPONENT_BYTES, component

_WHOLE: Final = {"year": pa.int32(), "month": pa.string(), "day": pa.date32(), "hour": pa.string()}


def lake_rules(given: Sequence[str], flag: str) -> tuple[DirectoryRule, ...]:
    """Return the rules of a table; raise ConfigurationError, naming the flag, for what cannot partition one."""
    try:
        return rules_of(given)
    except ConfigurationError as error:
        # The messages are those of the Parquet sink, which the rules come from.
        raise ConfigurationError(str(error).replace("--parquet.partition-by", flag)) from error


def rules_of_text(text: str, flag: str) -> tuple[DirectoryRule, ...]:
    """Return the rules that a table keeps as text, as `lake_rules` does."""
    given = separated(text)
    assert isinstance(given, tuple)
    return lake_rules(given, flag)


def computed_type(rule: DirectoryRule, kind: pa.DataType) -> pa.DataType:
    """Return the type of the column that a function of a column of this type becomes."""
    if rule.function == "bucket" or (rule.timed and rule.short):
        return pa.int32()
    if rule.timed:
        return _WHOLE[rule.function]
    return kind


def computed(rule: DirectoryRule, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a function of a column; raise RowsRejected for times whose year has not four digits."""
    kind = computed_type(rule, column.type)
    encoding = keys(rule, column.combine_chunks()).dictionary_encode(null_encoding="encode")
    said, misread = texts(rule, encoding.dictionary)
    wrong = pc.indices_nonzero(pa.array(misread, pa.bool_()).take(encoding.indices)).to_pylist()
    if wrong:
        message = f"the value of {rule.column!r} has a year that has not four digits, and makes no partition"
        raise RowsRejected([Rejection(row, "path", message, rule.column) for row in wrong])
    return pa.chunked_array([pa.array(said, pa.string()).cast(kind).take(encoding.indices)], kind)


def check_lengths(name: str, column: pa.ChunkedArray) -> None:
    """Raise RowsRejected for texts of a partition column that make a directory name no file system takes."""
    if not pa.types.is_string(column.type):
        return
    encoding = column.combine_chunks().dictionary_encode(null_encoding="encode")
    said = encoding.dictionary.to_pylist()
    long = [len(component(name, text, fold=False)) > MAX_COMPONENT_BYTES for text in said]
    rows = pc.indices_nonzero(pa.array(long, pa.bool_()).take(encoding.indices)).to_pylist()
    if rows:
        message = f"the value of {name!r} makes a directory name of more than {MAX_COMPONENT_BYTES} bytes"
        raise RowsRejected([Rejection(row, "path", message, name) for row in rows])
