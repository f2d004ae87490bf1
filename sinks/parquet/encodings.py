"""How each column of a Parquet file is encoded, told from some of its rows.

A dictionary pays where values come again often enough within a file, and where it stays small. Elsewhere it is built,
written, and of no use: a file of 4,000 orders takes half as long again and is a third larger with one for every column.
`python -m benchmarks.bench_parquet` measures files of several sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

Encodings = Literal["v1", "v2"]
"""`v2` stores whole numbers and times as differences. Readers older than Spark 3.3 know only the encodings of `v1`."""

ENCODINGS: Final[tuple[Encodings, ...]] = get_args(Encodings)

# A column falls back to plain pages when its dictionary grows beyond this. With Arrow's 1 MiB, ids, amounts and
# offsets first build a dictionary that no reader gains from: 1.9 M rows/s and 2.6 MB, against 3.2 M and 1.8 MB.
DICTIONARY_BYTES: Final = 128 << 10

SAMPLE: Final = 500
"""Rows that are looked at. By these a column of 16,000 different values is told from one without repeats."""

_DICE: Final = Random(1)  # noqa: S311  # nothing secret
# The same every time, so the same table becomes the same bytes; at random, so sorted values and cycles do not mislead.
_SHARES: Final = tuple(sorted(_DICE.random() for _ in range(SAMPLE)))

FEW: Final = 200
"""In a file of fewer rows nothing is gained that is worth the look: compression finds what comes again."""

MANY: Final = 300
"""Columns, those inside others counted, that are looked at. Of more, most are empty, and the look took a fifth of the
time of writing them."""

REPEATS: Final = 3
"""How often each value has to come in a file. From three times on a dictionary is smaller, and from four times on
faster as well, for whole numbers, names and UUIDs."""

Encoding = Literal["DELTA_BINARY_PACKED"]

DIFFERENCES: Final[Encoding] = "DELTA_BINARY_PACKED"


@dataclass(frozen=True, slots=True)
class ColumnEncodings:
    """Hold the paths of the columns that get a dictionary, or True for all, and the encodings of others by path."""

    dictionaries: Sequence[str] | bool
    others: Mapping[str, Encoding]


def encodings_of(table: pa.Table, encodings: Encodings, row_group_rows: int) -> ColumnEncodings:
    """Return how the columns of a table are encoded; the same table has the same answer, whenever it is asked."""
    rows = min(table.num_rows, row_group_rows)
    if next(islice(_plain_types(field.type for field in table.schema), MANY, None), None) is not None:
        return ColumnEncodings(True, {})
    try:
        leaves = list(_leaves(table, rows))
        # A value that comes often is best kept once, whatever its type.
        repeating = [leaf.path for leaf in leaves if leaf.repeats] if rows >= FEW else []
    except pa.ArrowNotImplementedError:  # a type that Parquet stores and Arrow cannot count: views, JSON
        return ColumnEncodings(True, {})
    whole = [leaf.path for leaf in leaves if leaf.whole and leaf.path not in repeating]
    return ColumnEncodings(repeating, dict.fromkeys(whole if encodings == "v2" else [], DIFFERENCES))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """Hold some values of a column, nulls too; `count` is about how many it has in a row group."""

    path: str
    values: pa.Array
    count: float

    @property
    def whole(self) -> bool:
        """Return whether these are whole numbers or times."""
        kind = self.values.type
        return bool(pa.types.is_integer(kind) or pa.types.is_temporal(kind))

    @property
    def repeats(self) -> bool:
        """Return whether values come again often enough, and fit into a dictionary."""
        seen = len(self.values) - self.values.null_count
        if not seen:
            return True
        count = self.count * seen / len(self.values)
        different = pc.count_distinct(self.values, mode="only_valid").as_py()
        known: float = different
        if 2 * different > seen and seen < count:
            # Of D different ones, n drawn at random have about n² / 2D repeats, as in the birthday problem.
            known = seen * seen / (2 * (seen - different)) if different < seen else count
        return bool(REPEATS * known <= count and known * self._width <= DICTIONARY_BYTES)

    @property
    def _width(self) -> float:
        try:
            return float(self.values.type.bit_width) / 8
        except ValueError:
            return 4 + float(self.values.nbytes) / len(self.values)


def _plain_types(kinds: Iterable[pa.DataType]) -> Iterator[pa.DataType]:
    """Yield the types of the columns of values."""
    for kind in kinds:
        if kind.num_fields:
            yield from _plain_types(kind.field(index).type for index in range(kind.num_fields))
        else:
            yield kind


def _leaves(table: pa.Table, rows: int) -> Iterator[_Leaf]:
    """Yield each column of values, those inside other columns too, by the path that Parquet has for it."""
    some = table
    if table.num_rows > SAMPLE:
        some = table.take(pa.array([int(share * table.num_rows) for share in _SHARES]))
    for name, column in zip(some.column_names, some.columns, strict=True):
        yield from _inside(name, column.chunk(0) if column.num_chunks == 1 else column.combine_chunks(), rows)


def _inside(path: str, values: pa.Array, count: float) -> Iterator[_Leaf]:
    kind = values.type
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _inside(f"{path}.{kind.field(index).name}", values.field(index), count)
    elif pa.types.is_map(kind):
        first, end = values.offsets[0].as_py(), values.offsets[-1].as_py()
        for name, each in (("key", values.keys), ("value", values.items)):
            yield from _items(f"{path}.key_value.{name}", values, each.slice(first, end - first), count)
    elif pa.types.is_nested(kind):
        yield from _items(f"{path}.list.element", values, values.flatten(), count)
    else:
        yield _Leaf(path, values, count)


def _items(path: str, lists: pa.Array, items: pa.Array, count: float) -> Iterator[_Leaf]:
    each = len(items) / len(lists) if len(lists) else 0.0
    yield from _inside(path, items.slice(0, SAMPLE), count * each)
