"""Which records a transform leaves out: those that are in neither place are read and transformed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from batcher.audit.ranges import NONE
from batcher.protocols import Format
from batcher.records import PLACEHOLDER, Batch, Partition, Range, Records

BLOCK: Final = 20_000
"""Records transformed together: enough for a transform whose call has a price, few enough for the memory."""


class FilterSource(Protocol):
    """Read records again."""

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the records of a range, ascending."""


class FilteredRecords:
    """Tell which offsets have no row by the rules of a transform. `schema_of` returns the columns of a topic."""

    def __init__(self, source: FilterSource, format_: Format, schema_of: Callable[[str], pa.Schema | None]) -> None:
        self._source = source
        self._format = format_
        self._schema_of = schema_of

    def among(self, partition: Partition, offsets: pa.Int64Array) -> pa.Int64Array:
        """Return those of some offsets, ascending and at least one. Raise what the source and the transform raise."""
        schema = self._schema_of(partition.topic)
        asked = Range(partition, offsets[0].as_py(), offsets[len(offsets) - 1].as_py())
        found = [NONE]
        for run in self._source.records(asked):
            wanted = run.filter(pc.is_in(run.offsets, value_set=offsets))
            for start in range(0, 0 if wanted is None else len(wanted), BLOCK):
                assert wanted is not None
                found.append(self._left_out(wanted.slice(start, BLOCK), schema))
        return pa.concat_arrays(found)

    def _left_out(self, records: Records, schema: pa.Schema | None) -> pa.Int64Array:
        batch = Batch((records,), "range")
        # A target that took no row yet may have no columns.
        columns = schema or self._format.infer(batch) or PLACEHOLDER
        decoded = self._format.decoder(columns).decode(batch)
        while decoded.outgrown:
            columns = self._format.grow(columns, batch)
            decoded = self._format.decoder(columns).decode(batch)
        return records.offsets.take(decoded.skipped)
