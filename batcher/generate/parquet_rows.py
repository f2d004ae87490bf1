"""Rows of a Parquet file as JSON objects that say exactly what the file holds.

Integers and decimals keep all their digits. Times are ISO 8601 to the last digit of their unit, in UTC with a `Z` where
the file has a zone. Binary is base64. A float that is no number is the text `NaN`, `Infinity` or `-Infinity`, as
Protobuf writes it: JSON has no other word for it, and null would be another value.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batcher.generate.inputs import BrokenInput
from batcher.generate.lines import Chunk
from batcher.generate.skipped import SkipReason

ROWS: Final = 1000
"""The most rows that are read at a time."""

_ROUGH_BYTES: Final = 8 << 20
"""How much of a file is read at a time, by the size that it states for its rows."""


class _Repeated(Exception):
    """Report a map that has a key twice: a JSON object would lose one of the two."""


def parquet_chunks(source: str) -> Iterator[Chunk]:
    """Yield the rows of a file, in bounded pieces. Raise BrokenInput where it cannot be read on."""
    number = 1
    try:
        with pq.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False) as file:
            names = file.schema_arrow.names
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise BrokenInput(f"--from {source}: it has the column {twice!a} twice")
            for batch in file.iter_batches(batch_size=_at_a_time(file.metadata), use_threads=False):
                items = _rows(batch)
                yield Chunk(items, range(number, number + len(items)), source)
                number += len(items)
    except OSError as error:
        why = error.strerror or _first_line(error)
        raise BrokenInput(f"--from {source}: it is damaged or no Parquet file ({why})") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BrokenInput(f"--from {source}: it is damaged or no Parquet file ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _at_a_time(metadata: Any) -> int:
    rows = max(metadata.num_rows, 1)
    nbytes = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return int(max(1, min(ROWS, _ROUGH_BYTES * rows // max(nbytes, 1))))


_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


def _rows(batch: Any) -> list[bytes | SkipReason]:
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    if not columns:
        return [b"{}"] * batch.num_rows
    return [_row(names, cells) for cells in zip(*columns, strict=True)]


def _row(names: Sequence[str], cells: Sequence[Any]) -> bytes | SkipReason:
    for cell in cells:
        if cell is _TWICE:
            return SkipReason.REPEATED_KEY
    return _encode(dict(zip(names, cells, strict=True)))


_TWICE: Final = object()


def _values(column: Any) -> list[Any]:
    """Return the values of a column as JSON has them, None for null, `_TWICE` for what an object cannot hold."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return (
            [None if one is None else str(one) for one in column.to_pylist()]
            if _is_uuid(kind)
            else _values(column.storage)
        )
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    for fits, convert in _CONVERTED:
        if fits(kind):
            return convert(column)
    return column.to_pylist()  # type: ignore[no-any-return]  # bool, integers, decimals, text, null


def _is_uuid(kind: Any) -> bool:
    return bool(kind.extension_name == "arrow.uuid")


def _floats(column: Any) -> list[Any]:
    found: list[Any] = column.to_pylist()
    if pc.all(pc.is_finite(column)).as_py() is not False:
        return found
    return [one if one is None or math.isfinite(one) else _NOT_FINITE[str(one)] for one in found]


_NOT_FINITE: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _binary(column: Any) -> list[Any]:
    return [None if one is None else b64encode(one).decode() for one in column.to_pylist()]


def _moments(column: Any) -> list[Any]:
    kind = column.type
    texts = column.cast(pa.timestamp(kind.unit, kind.tz and "UTC")).view(pa.timestamp(kind.unit)).cast(pa.string())
    end = "Z" if kind.tz else ""
    return [None if one is None else f"{one.replace(' ', 'T')}{end}" for one in texts.to_pylist()]


def _dates(column: Any) -> list[Any]:
    return column.cast(pa.date32()).cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _texts(column: Any) -> list[Any]:
    return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _counts(column: Any) -> list[Any]:
    return column.cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]


def _lists(column: Any) -> list[Any]:
    return _cut(_values(column.flatten()), pc.list_value_length(column).to_pylist())


def _cut(inner: Sequence[Any], lengths: Sequence[int | None]) -> list[Any]:
    found: list[Any] = []
    at = 0
    for length in lengths:
        part = None if length is None else list(inner[at : at + length])
        found.append(_TWICE if part is not None and any(one is _TWICE for one in part) else part)
        at += length or 0
    return found


def _structs(column: Any) -> list[Any]:
    names = [column.type.field(index).name for index in range(column.type.num_fields)]
    fields = [_values(one) for one in column.flatten()]
    valid = column.is_valid().to_pylist()
    rows = zip(*fields, strict=True) if fields else ((),) * len(column)
    return [_struct(names, cells) if there else None for cells, there in zip(rows, valid, strict=True)]


def _struct(names: Sequence[str], cells: Sequence[Any]) -> Any:
    found = dict(zip(names, cells, strict=True))
    return _TWICE if len(found) < len(names) or any(one is _TWICE for one in cells) else found


def _maps(column: Any) -> list[Any]:
    kind = column.type
    entry = pa.struct([pa.field("key", kind.key_type, nullable=False), pa.field("value", kind.item_type)])
    pairs = column.cast(pa.list_(entry))
    return [one if one is None or one is _TWICE else _map(one) for one in _lists(pairs)]


def _map(pairs: Sequence[dict[str, Any]]) -> Any:
    found = {one["key"] if isinstance(one["key"], str) else _encode(one["key"]).decode(): one["value"] for one in pairs}
    return found if len(found) == len(pairs) else _TWICE


_CONVERTED: Final[Sequence[tuple[Callable[[Any], bool], Callable[[Any], list[Any]]]]] = (
    (pa.types.is_floating, _floats),
    (pa.types.is_binary, _binary),
    (pa.types.is_large_binary, _binary),
    (pa.types.is_binary_view, _binary),
    (pa.types.is_fixed_size_binary, _binary),
    (pa.types.is_timestamp, _moments),
    (pa.types.is_date, _dates),
    (pa.types.is_time, _texts),
    (pa.types.is_duration, _counts),
    (pa.types.is_map, _maps),
    (pa.types.is_list, _lists),
    (pa.types.is_large_list, _lists),
    (pa.types.is_fixed_size_list, _lists),
    (pa.types.is_struct, _structs),
)
