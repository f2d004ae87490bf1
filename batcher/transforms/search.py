"""Apply a plan to rows of which some may make it fail: halves are tried until each such row stands alone.

Everything that a plan returns is checked here, so that none can lose a row or make two of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import BatcherError, ConfigurationError
from batcher.formats.outcome import ascending, by_position
from batcher.protocols.transform import ROW, Transformed, TransformFailed, TransformPlan
from batcher.records import Rejection

REASON: Final = "transform"
"""The word for records that a transform cannot take."""


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Hold what became of the rows that a plan was given: `table` has its output, and `rows` the `_row` of each row.

    `rejections` are told by `_row`; they, `rows` (int64) and `skipped` are ascending and share no row.
    """

    table: pa.Table
    rows: pa.Int64Array
    rejections: tuple[Rejection, ...]
    skipped: pa.Int64Array


def search(plan: TransformPlan, given: pa.RecordBatch, *, name: str, where: str, most: int) -> FoundRows:
    """Apply a plan to rows, at least one, whose `_row` counts up by one; to parts of them where it fails.

    `name` is the transform's, `where` the range of records.

    Raise ConfigurationError where the plan breaks its contract, or where `most` attempts at parts do not find all rows
    that make it fail.
    """
    found: list[Transformed] = []
    rejections: list[Rejection] = []
    parts, halved = [given], 0
    while parts:
        part = parts.pop()
        try:
            found.append(checked(plan.apply(part), plan.output, part, name))
        except (BatcherError, MemoryError):
            # Not the fault of a row.
            raise
        except Exception as error:  # whatever the code of somebody else raises
            if part.num_rows == 1:
                rejections.append(_refused(part.column(ROW)[0].as_py(), name, error))
                continue
            halved += 2
            if halved > most:
                tried = f" and are not found with {most} attempts" if most else ""
                raise ConfigurationError(
                    f"{name} fails for records of {where}{tried}: {_told(error)}; nothing of that batch is committed. "
                    "If the transform is right the data is wrong; to have more looked for raise --dlq.max-bisect"
                ) from error
            middle = part.num_rows // 2
            parts += [part.slice(middle), part.slice(0, middle)]
    rejections += [one for part in found for one in part.rejections]
    rejections.sort(key=by_position)
    skipped = pa.array(sorted(row for part in found for row in part.skipped), pa.int64())
    tables = [one.rows for one in found]
    rows = pa.concat_arrays([pa.array([], pa.int64()), *(one.column(ROW) for one in tables)])
    table = pa.Table.from_batches([_without_row(one) for one in tables], plan.output)
    if not ascending(rows):
        order = pc.sort_indices(rows)
        rows, table = rows.take(order), table.take(order)
    return FoundRows(table, rows, tuple(rejections), skipped)


def checked(found: Transformed, output: pa.Schema, given: pa.RecordBatch, name: str) -> Transformed:
    """Return what a plan gave for some rows, its columns in the order of its output.

    `_row` of the given ones ascends. Raise ConfigurationError for what is not so.
    """
    rows = found.rows
    if rows.schema.names.count(ROW) != 1 or rows.column(ROW).type != pa.int64() or rows.column(ROW).null_count:
        raise ConfigurationError(f"{name}: its result has to keep the column {ROW} as it was given: int64, never null")
    names = [one for one in rows.schema.names if one != ROW]
    if sorted(names) != sorted(output.names):
        raise ConfigurationError(
            f"{name}: its result has the columns {_listed(names)}; for no rows it had {_listed(output.names)}"
        )
    columns = [_typed(rows.column(field.name), field, name) for field in output]
    rows = pa.RecordBatch.from_arrays([*columns, rows.column(ROW)], schema=output.append(pa.field(ROW, pa.int64())))
    numbers = list(_named(found))
    first, last = given.column(ROW)[0].as_py(), given.column(ROW)[given.num_rows - 1].as_py()
    named = pa.concat_arrays([rows.column(ROW), pa.array(numbers, pa.int64())]) if numbers else rows.column(ROW)
    if not ascending(named) and pc.count_distinct(named).as_py() != len(named):
        raise ConfigurationError(f"{name}: its result has a row twice ({ROW}); one record makes one row or none")
    inside = pc.min_max(named).as_py()
    known = len(named) == 0 or (first <= inside["min"] and inside["max"] <= last)
    if known and last - first >= given.num_rows:
        known = pc.all(pc.is_in(named, value_set=given.column(ROW))).as_py()
    if not known:
        raise ConfigurationError(f"{name}: its result has a row that it was not given ({ROW})")
    return Transformed(rows, found.rejections, found.skipped)


def _named(found: Transformed) -> Iterator[int]:
    yield from (one.position for one in found.rejections)
    yield from found.skipped


def _typed(column: pa.Array, field: pa.Field, name: str) -> pa.Array:
    if column.type == field.type:
        return column
    if pa.types.is_null(column.type):
        # A column without any value, as some functions make it of rows that have none.
        return pa.nulls(len(column), field.type)
    raise ConfigurationError(
        f"{name}: its column {field.name} is {column.type}; for no rows it was {field.type}; cast it to one type"
    )


def _without_row(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.select([field.name for field in rows.schema if field.name != ROW])


def _refused(row: int, name: str, error: Exception) -> Rejection:
    path = error.path if isinstance(error, TransformFailed) else None
    return Rejection(row, REASON, f"{name}: {_told(error)}" if path is None else f"field {path}: {_told(error)}", path)


def _told(error: Exception) -> str:
    # The text of a foreign exception may quote a value.
    return str(error) if isinstance(error, TransformFailed) else f"it raises {type(error).__name__}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) or "none"
