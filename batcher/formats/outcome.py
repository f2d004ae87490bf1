"""Put outcomes of decoding together: those of parts of a batch are one of all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from batcher.records import Decoded, Rejection, UnknownField

Placed = TypeVar("Placed", Rejection, UnknownField)


def renumbered(these: Iterable[Placed], positions: pa.Int64Array) -> Iterator[Placed]:
    """Yield rejections, or unknown fields, of records that stand at some positions of a batch, numbered by these."""
    for one in these:
        yield replace(one, position=positions[one.position].as_py())


def moved(one: Decoded, positions: pa.Int64Array) -> Decoded:
    """Return the outcome of records that stand at some positions of a batch, numbered by these."""
    return replace(
        one,
        positions=positions.take(one.positions),
        rejections=tuple(renumbered(one.rejections, positions)),
        skipped=positions.take(one.skipped),
        unknown=tuple(renumbered(one.unknown, positions)),
        filtered=positions.take(one.filtered),
    )


def together(outcomes: Sequence[Decoded], schema: pa.Schema) -> Decoded:
    """Return the outcomes of parts of a batch, numbered by their positions in it, as one in the order of the batch."""
    # An empty chunk beside a full one would be a reason to copy it later.
    table = pa.concat_tables([one.table for one in outcomes if one.table.num_rows] or [schema.empty_table()])
    positions = _joined([one.positions for one in outcomes])
    if not ascending(positions):
        order = pc.sort_indices(positions)
        table, positions = table.take(order), positions.take(order)
    return Decoded(
        table,
        positions,
        tuple(sorted((refused for one in outcomes for refused in one.rejections), key=by_position)),
        in_order([one.skipped for one in outcomes]),
        summed(field for one in outcomes for field in one.unknown),
        any(one.estimated for one in outcomes),
        outgrown=any(one.outgrown for one in outcomes),
        notes=tuple(dict.fromkeys(note for one in outcomes for note in one.notes)),
        filtered=in_order([one.filtered for one in outcomes]),
        transform_s=sum(one.transform_s for one in outcomes),
    )


def summed(fields: Iterable[UnknownField]) -> tuple[UnknownField, ...]:
    """Return unknown fields with one entry for each path."""
    found: dict[str, UnknownField] = {}
    for one in fields:
        held = found.get(one.path)
        if held is not None:
            one = UnknownField(one.path, held.records + one.records, min(held.position, one.position))  # noqa: PLW2901
        found[one.path] = one
    return tuple(found.values())


def in_order(parts: Sequence[pa.Int64Array]) -> pa.Int64Array:
    """Return positions, each part ascending, as one ascending array."""
    joined = _joined(parts)
    return joined if ascending(joined) else joined.take(pc.sort_indices(joined))


def by_position(rejection: Rejection) -> int:
    """Return what rejections are sorted by."""
    return rejection.position


def _joined(parts: Sequence[pa.Int64Array]) -> pa.Int64Array:
    return pa.concat_arrays([pa.array([], pa.int64()), *parts])


def ascending(positions: pa.Int64Array) -> bool:
    """Return whether each position is higher than the one before it."""
    return len(positions) < 2 or bool(pc.all(pc.greater(positions[1:], positions[:-1])).as_py())
