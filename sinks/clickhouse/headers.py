"""The headers of records as a table keeps them: a Map has the last of several with one name, an Array has all."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from sinks.clickhouse.columns import ColumnCodec, Listed, Mapped, Plain, Slot, Tupled


def takes_headers(codec: ColumnCodec) -> bool:
    """Return whether a column takes names and values of headers, as a Map or as an Array of Tuples."""
    if isinstance(codec, Mapped):
        parts: tuple[Slot, ...] = (codec.key, codec.value)
    elif isinstance(codec, Listed) and isinstance(codec.element.codec, Tupled):
        parts = codec.element.codec.parts
    else:
        return False
    return [part.codec for part in parts] == [Plain(pa.string())] * 2


def headers_for(values: pa.ListArray, codec: ColumnCodec) -> pa.Array:
    """Return headers as a Map or an Array has them, empty for a record without any; their values stay bytes."""
    pairs = values.flatten()
    names, texts = pc.struct_field(pairs, [0]), pc.struct_field(pairs, [1])
    ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(values), 0).cast(pa.int32()))
    if isinstance(codec, Mapped):
        last = _last_of_each(pc.list_parent_indices(values), names)
        if last is not None:
            kept = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(last.cast(pa.int32()))])
            ends, names, texts = kept.take(ends), names.filter(last), texts.filter(last)
        parts: tuple[Slot, ...] = (codec.key, codec.value)
    else:
        assert isinstance(codec, Listed)
        assert isinstance(codec.element.codec, Tupled)
        parts = codec.element.codec.parts
    columns = [
        column if slot.nullable else pc.fill_null(column, pa.scalar(empty, column.type))
        for column, slot, empty in zip((names, texts), parts, ("", b""), strict=True)
    ]
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    if isinstance(codec, Mapped):
        return pa.MapArray.from_arrays(offsets, *columns)
    fields = [pa.field(slot.name, column.type) for slot, column in zip(parts, columns, strict=True)]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, fields=fields))


def _last_of_each(records: pa.Array, names: pa.Array) -> pa.BooleanArray | None:
    """Return where a name is the last of its kind in its record; None where none comes twice."""
    encoded = names.dictionary_encode()
    place = pc.add(
        pc.multiply(records.cast(pa.int64()), len(encoded.dictionary)),
        pc.fill_null(encoded.indices, 0).cast(pa.int64()),
    )
    if pc.count_distinct(place).as_py() == len(place):
        return None
    rows = pa.table({"place": place, "row": pa.arange(0, len(place))})
    last = rows.group_by("place").aggregate([("row", "max")])["row_max"].combine_chunks()
    return pc.is_in(pa.arange(0, len(place)), last)
