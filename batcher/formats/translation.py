"""Formats whose records are turned into JSON text and read by the JSON decoder, so that all its rules hold for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json.limits import JsonOptions, Refused
from batcher.formats.policy import admit, piece_rows, with_values
from batcher.protocols import Decoder
from batcher.records import Batch, Decoded, Rejection, as_one

Translate = Callable[[pa.BinaryArray], tuple[pa.BinaryArray, Mapping[int, Refused]]]
"""Return the JSON text of each value, null for those that are refused, and why these are. It gets no nulls."""


@dataclass(frozen=True, slots=True)
class Translated:
    """Hold a batch with JSON texts as its values, null where a record has none, and what became of these."""

    batch: Batch
    rejections: tuple[Rejection, ...]
    skipped: pa.Int64Array


def inner_options(options: JsonOptions) -> JsonOptions:
    """Return the options for the JSON texts of records that were let in by `options`."""
    # The text may be longer than the record, whose size is what counts.
    return replace(options, max_message_bytes=1 << 29, tombstones="skip")


def translated(batch: Batch, options: JsonOptions, translate: Translate) -> Translated:
    """Return a batch as JSON; of the options the size of a message and the tombstones are kept here."""
    values = batch.values()
    step = piece_rows(values)
    texts: list[pa.Array] = []
    skipped: list[pa.Array] = []
    rejections: list[Rejection] = []
    for start in range(0, len(values), step):
        piece = as_one(values.slice(start, step))
        admitted = admit(piece, max_message_bytes=options.max_message_bytes, tombstones=options.tombstones)
        found, refused = translate(admitted.values)
        # Each position takes the text of its value, and null where it has none.
        places = pc.index_in(pa.arange(0, len(piece)), value_set=admitted.positions)
        texts.append(found.take(places))
        skipped.append(pc.add(admitted.skipped, start))
        rejections += [replace(one, position=one.position + start) for one in admitted.rejections]
        rows = admitted.positions.take(pa.array(list(refused), pa.int64())).to_pylist()
        rejections += [
            Rejection(row + start, why.reason, why.message, why.path)
            for row, why in zip(rows, refused.values(), strict=True)
        ]
    rejections.sort(key=lambda one: one.position)
    joined = pa.chunked_array(texts, pa.binary())
    return Translated(with_values(batch, joined), tuple(rejections), pa.concat_arrays(skipped))


def decoded(given: Translated, decoder: Decoder) -> Decoded:
    """Return the outcome of a translated batch: what the JSON decoder says, and what never came to it."""
    read = decoder.decode(given.batch)
    rejections = sorted((*given.rejections, *read.rejections), key=lambda one: one.position)
    return replace(read, rejections=tuple(rejections), skipped=given.skipped)
