"""Which fields of the records have no column in the target, and which of its columns no record fills.

Offsets prove that a record has a row. They do not say what is in it. So records of the scope are decoded again, for the
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
"""A partition with at most this many offsets is checked as a whole: half a second, with the reading."""

PLACES: Final = 128
"""Places at which records are checked in larger scopes, in all partitions together; each costs a fetch."""

EACH: Final = 64
"""Records checked in each of them."""

BLOCK: Final = 1000
"""Records decoded together: few enough for the decoder to look at each."""


class SurveySource(Protocol):
    """Read records again."""

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the records of a range, ascending."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Say what is not stored. With `estimated` counts are scaled up, and a rare field may be missing."""

    looked_at: int = 0
    """Records that were decoded again."""
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Records that have a value in a field that no column takes, by field, the most frequent first."""
    estimated: bool = False
    empty_columns: tuple[str, ...] = ()
    """Columns for which no checked record has a value."""


@dataclass(frozen=True, slots=True)
class _SurveyLane:
    """Hold what is used to decode the records of a topic, or all records."""

    decoder: Decoder
    columns: ColumnWatch


class Survey:
    """Decode records of scopes again.

    `schema_of` returns the columns of a topic. With `by_topic` the topic is part of each name. `places` is how many
    places of each scope are checked.
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
        """Check a scope, which has `records` records in the log. Raise what the source raises."""
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
    """Return the ranges of a scope that are checked: all of a small scope, else `places` small ones all over it."""
    size = scope.next_offset - scope.first
    if size <= 0:
        return []
    if size <= max(WHOLE, places * EACH):
        return [Range(scope.partition, scope.first, scope.next_offset - 1)]
    # The last range ends where the scope does: what is new is found there first.
    step = (size - EACH) / max(1, places - 1)
    firsts = [scope.next_offset - EACH - round(number * step) for number in range(places)]
    return [Range(scope.partition, first, first + EACH - 1) for first in reversed(firsts)]


def _unknown(lane: _SurveyLane, batch: Batch) -> Mapping[str, int]:
    decoded = lane.decoder.decode(batch)
    if decoded.outgrown:
        # None of these was loaded yet, or the schema would have the types that they need.
        return {}
    lane.columns.observe(decoded.table)
    return {one.path: one.records for one in decoded.unknown}
