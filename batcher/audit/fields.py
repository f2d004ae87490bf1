"""Which fields of the records the target has no column for, and which of its columns no record fills.

Offsets prove that a record has a row; they do not say what is in it. So records of the scope are decoded again, for the
columns that the target has now: all of a small scope, else some from all over it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import pyarrow as pa

from batcher.audit.scope import Scope
from batcher.core.fields import MAX_NAMES, MORE, ColumnWatch
from batcher.protocols import Decoder, Format
from batcher.records import Batch, Partition, Range, Records

WHOLE: Final = 10_000
"""Offsets of a partition that are looked at one and all: half a second, with reading them."""

PLACES: Final = 128
"""Places at which records are looked at in larger scopes, in all partitions together; each costs a fetch."""

EACH: Final = 64
"""Records looked at in each of them."""

BLOCK: Final = 1000
"""Records decoded together: few enough for the decoder to look at each of them."""


class SurveySource(Protocol):
    """Deliver records again."""

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the records of a range, ascending."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Say what is not stored. With `estimated` counts are scaled up, and a field that is rare may not be among them."""

    looked_at: int = 0
    """Records that were decoded again."""
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Records that have a value in a field that no column takes, by field, the most frequent first."""
    estimated: bool = False
    empty_columns: tuple[str, ...] = ()
    """Columns for which no record that was looked at has a value."""


@dataclass(frozen=True, slots=True)
class _SurveyLane:
    """Hold what the records of a topic, or all records, are decoded with."""

    decoder: Decoder
    columns: ColumnWatch


class Survey:
    """Decode records of scopes again. `schema_of` returns the columns of a topic; with `by_topic` names get its name.

    `places` is how many places of each scope are looked at.
    """

    def __init__(
        self,
        source: SurveySource,
        format_: Format,
        schema_of: Callable[[str], pa.Schema | None],
        *,
        by_topic: bool = False,
        places: int = PLACES,
    ) -> None:
        self._source = source
        self._format = format_
        self._schema_of = schema_of
        self._by_topic = by_topic
        self._places = places
        self._lanes: dict[str, _SurveyLane | None] = {}
        self._unknown: Counter[str] = Counter()
        self._looked_at = 0
        self._estimated = False

    def look(self, scope: Scope, records: int) -> None:
        """Look at a scope, which has so many records in the log. Raise what the source raises."""
        lane = self._lane(scope.partition.topic)
        if lane is None or not records:
            return
        found: Counter[str] = Counter()
        seen = 0
        for asked in chosen(scope, self._places):
            for run in self._source.records(asked):
                seen += len(run)
                for start in range(0, len(run), BLOCK):
                    found.update(_unknown(lane, Batch((run.slice(start, BLOCK),), "range")))
        factor = max(1.0, records / seen) if seen else 1.0
        self._looked_at += seen
        self._estimated |= seen < records
        for path, count in found.items():
            name = self._named(scope.partition, path)
            known = name in self._unknown or len(self._unknown) < MAX_NAMES
            self._unknown[name if known else MORE] += round(count * factor)

    def fields(self) -> Fields:
        """Return what was found."""
        lanes = [(topic, lane) for topic, lane in sorted(self._lanes.items()) if lane is not None]
        return Fields(
            self._looked_at,
            dict(self._unknown.most_common()),
            self._estimated,
            tuple(
                f"{topic}: {column}" if topic else column
                for topic, lane in lanes
                for column in lane.columns.without_value
            ),
        )

    def _named(self, partition: Partition, path: str) -> str:
        return f"{partition.topic}: {path}" if self._by_topic else path

    def _lane(self, topic: str) -> _SurveyLane | None:
        key = topic if self._by_topic else ""
        if key not in self._lanes:
            schema = self._schema_of(topic)
            made = None if schema is None else _SurveyLane(self._format.decoder(schema), ColumnWatch("", schema))
            self._lanes[key] = made
        return self._lanes[key]


def chosen(scope: Scope, places: int) -> list[Range]:
    """Return the ranges of a scope that are looked at: all of a small one, else so many small ones all over it."""
    size = scope.next_offset - scope.first
    if size <= 0:
        return []
    if size <= max(WHOLE, places * EACH):
        return [Range(scope.partition, scope.first, scope.next_offset - 1)]
    # The last one ends where the scope does: what is new is found there first.
    step = (size - EACH) / max(1, places - 1)
    firsts = [scope.next_offset - EACH - round(number * step) for number in range(places)]
    return [Range(scope.partition, first, first + EACH - 1) for first in reversed(firsts)]


def _unknown(lane: _SurveyLane, batch: Batch) -> Mapping[str, int]:
    decoded = lane.decoder.decode(batch)
    if decoded.outgrown:
        # Nothing of these was loaded yet, or the root would have the types that they need.
        return {}
    lane.columns.observe(decoded.table)
    return {one.path: one.records for one in decoded.unknown}
