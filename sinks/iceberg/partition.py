"""Partitions of a table: the transforms of a new one, and the rows of a block apart.

pyiceberg needs a package of compiled code to compute transforms. Here they are those of the Parquet sink's
directories, which are Iceberg's (table specification, "Partition Transforms").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import (
    PARTITION_FIELD_ID_START,
    PartitionField,
    PartitionFieldValue,
    PartitionKey,
    PartitionSpec,
)
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)

from batcher.errors import SinkMisconfigured
from sinks.parquet.directory import DirectoryRule
from sinks.parquet.function import keys, unscaled, unsuited

_TIMED: Final[dict[str, Any]] = {
    "year": YearTransform,
    "month": MonthTransform,
    "day": DayTransform,
    "hour": HourTransform,
}


MAX_NAME: Final = 200
"""Characters of a directory's name, after it was encoded: file systems take 255."""

MAX_PATH: Final = 600
"""Characters of the path below the data: object stores take 1,024 for the whole."""


@dataclass(frozen=True, slots=True)
class TablePartition:
    """Say what one field of a partition is made of: the name of a column, and a transform."""

    column: str
    name: str
    transform: Transform[Any, Any]


class ShortPathKey(PartitionKey):
    """Name the directory of a partition by a hash where its values make too long a name.

    The table says which files belong to a partition. Their paths are for people.
    """

    def to_path(self) -> str:
        """Return the directory below that of the data."""
        path = super().to_path()
        parts = [part if len(part) <= MAX_NAME else _short(part) for part in path.split("/")]
        short = "/".join(parts)
        return short if len(short) <= MAX_PATH else _short(short)


def _short(name: str) -> str:
    return f"long-{sha256(name.encode()).hexdigest()[:32]}"


def of_rules(rules: Sequence[DirectoryRule]) -> tuple[TablePartition, ...]:
    """Return the fields that rules of `--iceberg.partition-by` mean."""
    return tuple(TablePartition(rule.column, rule.name, _transform(rule)) for rule in rules)


def _transform(rule: DirectoryRule) -> Transform[Any, Any]:
    if rule.function == "bucket":
        return BucketTransform(rule.number)
    if rule.function == "truncate":
        return TruncateTransform(rule.number)
    made: Transform[Any, Any] = _TIMED[rule.function]() if rule.function else IdentityTransform()
    return made


def of_table(spec: PartitionSpec, schema: Schema) -> tuple[TablePartition, ...]:
    """Return the fields of a table's partitions; without those that were removed (void)."""
    return tuple(
        TablePartition(schema.find_column_name(field.source_id) or "", field.name, field.transform)
        for field in spec.fields
        if not isinstance(field.transform, VoidTransform)
    )


def spec_for(fields: Sequence[TablePartition], schema: Schema) -> PartitionSpec:
    """Return the partitions of a table that is made with a schema."""
    return PartitionSpec(
        *(
            PartitionField(
                schema.find_field(one.column).field_id, PARTITION_FIELD_ID_START + n, one.transform, one.name
            )
            for n, one in enumerate(fields)
        )
    )


def problem(fields: Sequence[TablePartition], columns: pa.Schema) -> str | None:
    """Say why a table with these columns cannot have these partitions, or None."""
    seen: set[str] = set()
    for one in fields:
        if one.column not in columns.names:
            return f"there is no column {one.column!r}"
        rule = _rule(one)
        why = "its transform is not known" if rule is None else unsuited(rule, columns.field(one.column).type)
        if why is not None:
            return f"{one.transform} of {one.column!r}: {why}"
        if one.column in seen:
            return f"{one.column!r} is there twice; pyiceberg writes tables with one transform of a column"
        if one.name != one.column and one.name in columns.names:
            return f"{one.name!r} is a column too; name the partition with `as`"
        seen.add(one.column)
    return None


def unwritable(spec: PartitionSpec, schema: Schema, columns: pa.Schema) -> str | None:
    """Say why rows cannot be written into the partitions of a table that is there, or None."""
    for field in spec.fields:
        name = schema.find_column_name(field.source_id) or ""
        if "." in name and name not in columns.names:
            return f"{field.transform} of {name!r}, which is inside of another column"
    return problem(of_table(spec, schema), columns)


def _rule(one: TablePartition) -> DirectoryRule | None:
    transform = one.transform
    if isinstance(transform, BucketTransform):
        return DirectoryRule(one.column, one.name, "bucket", transform.num_buckets)
    if isinstance(transform, TruncateTransform):
        return DirectoryRule(one.column, one.name, "truncate", transform.width)
    if isinstance(transform, IdentityTransform):
        return DirectoryRule(one.column, one.name)
    for function, kind in _TIMED.items():
        if isinstance(transform, kind):
            return DirectoryRule(one.column, one.name, function)
    return None


def parts(rows: pa.Table, spec: PartitionSpec, schema: Schema) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
    """Yield the rows of each partition, in the order in which they come, with what the table calls it.

    Raise SinkMisconfigured for a transform that is not known.
    """
    if spec.is_unpartitioned():
        yield None, rows
        return
    values = [_values(rows, field, schema) for field in spec.fields]
    names = [f"v{n}" for n in range(len(values))]
    # NaN and -0.0 are values of their own for no table, and grouping takes them as they are.
    keyed = pa.table([*values, pa.array(range(rows.num_rows), pa.int64())], [*names, "row"])
    grouped = keyed.group_by(names, use_threads=False).aggregate([("row", "list")])
    for n in range(grouped.num_rows):
        mine = grouped["row_list"][n].values
        found = [grouped[name][n].as_py() for name in names]
        field_values = [PartitionFieldValue(field, value) for field, value in zip(spec.fields, found, strict=True)]
        part = rows if grouped.num_rows == 1 else rows.take(mine)
        yield ShortPathKey(field_values, spec, schema), part


def _values(rows: pa.Table, field: PartitionField, schema: Schema) -> pa.Array:
    name = schema.find_column_name(field.source_id) or ""
    if isinstance(field.transform, VoidTransform):
        return pa.nulls(rows.num_rows, pa.int32())
    rule = _rule(TablePartition(name, field.name, field.transform))
    if rule is None:
        raise SinkMisconfigured(f"the partition {field.name!r} has the transform {field.transform}, which is not known")
    column = rows[name]
    return _transformed(rule, column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())


def _transformed(rule: DirectoryRule, column: pa.Array) -> pa.Array:
    """Return what a transform makes of a column, as the table's metadata has it: numbers since 1970 for times."""
    if not rule.function:
        return column
    if rule.function == "truncate":
        if pa.types.is_decimal(column.type):
            return _by_value(column, lambda value: _cut(value, rule.number), column.type)
        kept = keys(rule, column)
        # The keys of numbers are quotients.
        return pc.multiply(kept, rule.number).cast(column.type) if pa.types.is_integer(column.type) else kept
    found = keys(rule, column)
    if rule.function in ("year", "month"):
        return _by_value(found, _years if rule.function == "year" else _months, pa.int32())
    return found.cast(pa.int32())


def _by_value(column: pa.Array, change: Any, kind: pa.DataType) -> pa.Array:
    encoding = column.dictionary_encode()
    changed = [None if value is None else change(value) for value in encoding.dictionary.to_pylist()]
    return pa.array(changed, kind).take(encoding.indices)


def _months(day: int) -> int:
    year, month = _civil(day)
    return (year - 1970) * 12 + month - 1


def _years(day: int) -> int:
    return _civil(day)[0] - 1970


def _civil(day: int) -> tuple[int, int]:
    """Return year and month of a day since 1970. A timestamp has years that Python's dates end before."""
    # Cycles of 400 years that begin in March, so that a leap day comes last (H. Hinnant, chrono-compatible algorithms).
    cycle, of_cycle = divmod(day + 719_468, 146_097)
    year = (of_cycle - of_cycle // 1_460 + of_cycle // 36_524 - of_cycle // 146_096) // 365
    of_year = of_cycle - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return year + cycle * 400 + (month > 9), month + 3 if month < 10 else month - 9


def _cut(value: Decimal, width: int) -> Decimal:
    # By its digits: arithmetic would round to the 28 digits of the context.
    found, exponent = unscaled(value) // width * width, value.as_tuple().exponent
    assert isinstance(exponent, int)  # columns have no decimal that is not a number
    return Decimal((int(found < 0), tuple(map(int, str(abs(found)))), exponent))
