"""Turn batches into columns for what the target has now: pins schemas, lets them grow, and takes changed ones.

The decode loop prepares batches ahead. The write loop decodes again what was prepared for columns that the target no
longer has. There is one schema for all, or one for each topic where the target wants that. Both threads may change a
schema: the lock guards which one holds, and is never held while something is decoded or asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import structlog

from batcher.core.fields import MAX_NAMES, ColumnWatch, UnknownFields, case_twins, mismatch
from batcher.engine.evolution import Evolution, EvolutionPolicy
from batcher.errors import ConfigurationError, SinkMisconfigured
from batcher.growth import has_untyped
from batcher.protocols import Decoder, Format, Sink, SinkInfo
from batcher.protocols.sink import pinning, topic_pinning
from batcher.records import PLACEHOLDER, RESCUED, Batch, Decoded, Prepared, Rejection

log = structlog.get_logger(__name__)

Call = Callable[..., Any]
"""Call a function with arguments, again for as long as the target cannot answer."""


@dataclass(frozen=True, slots=True)
class _SchemaLane:
    """Hold what the batches of a topic, or all batches, are now decoded with."""

    schema: pa.Schema
    decoder: Decoder
    """The decode loop's."""
    columns: ColumnWatch


class Decoding:
    """Prepare batches for a sink. `call` asks the sink again as long as it does not answer.

    `policy` says what becomes of unknown fields. Raise ConfigurationError where sink or format cannot do it.
    """

    def __init__(
        self,
        sink: Sink,
        info: SinkInfo,
        format_: Format,
        call: Call,
        policy: EvolutionPolicy = EvolutionPolicy(),  # noqa: B008 - frozen
    ) -> None:
        self._one = pinning(sink, info)
        self._topics = topic_pinning(sink, info)
        self._info = info
        self._format = format_
        self._call = call
        self._evolution = Evolution(sink, info, format_, policy, call)
        self._lock = threading.Lock()
        self._pinning = threading.Lock()
        self._lanes: dict[str, _SchemaLane] = {}
        self._unknown = UnknownFields(info.target, info.coordinates)
        self._noted: set[str] = set()
        if info.schema is not None:
            self._lanes[""] = self._lane(info.schema)

    def prepare(self, batch: Batch) -> Prepared:
        """Decode a batch; asks the sink only to pin a schema, and for columns. Decode loop.

        Raise ConfigurationError when the target cannot take a schema, or when no column matches any field.
        """
        started = time.perf_counter()
        lane = self._lane_for(batch)
        decoder = self._format.decoder(PLACEHOLDER) if lane is None else lane.decoder
        return self._observed(batch, *self._decoded(batch, lane, decoder), started)

    def again(self, batch: Batch) -> Prepared:
        """Decode a batch for the columns that the target has now, with a decoder of its own. Write loop."""
        started = time.perf_counter()
        lane = self._lanes.get(self._key(batch))
        decoder = self._format.decoder(PLACEHOLDER if lane is None else lane.schema)
        return self._observed(batch, *self._decoded(batch, lane, decoder), started)

    def current(self, prepared: Prepared) -> bool:
        """Return whether a batch was decoded for the columns that the target has now."""
        lane = self._lanes.get(self._key(prepared.batch))
        return prepared.schema is (None if lane is None else lane.schema)

    def adopt(self, batch: Batch, schema: pa.Schema) -> None:
        """Decode all batches for another schema from now on; only those of this one's topic where each has its own."""
        self._replace(self._key(batch), self._lane(schema))
        log.warning("schema_changed", target=self._info.target, columns=_described(schema))

    def counted(self, decoded: Decoded) -> Mapping[str, int]:
        """Return the rows that had each unknown field, with few enough fields for a summary. Write loop."""
        with self._lock:
            return self._unknown.counted(decoded.unknown)

    def settle(self) -> None:
        """Name the columns that never had a value, at the end."""
        with self._lock:
            for lane in self._lanes.values():
                lane.columns.tell(self._unknown.paths, last=True)

    @property
    def columns_without_value(self) -> tuple[str, ...]:
        """Return the columns that no record had a value for so far, with their topic where each has its own."""
        with self._lock:
            return tuple(
                f"{topic}: {column}" if topic else column
                for topic, lane in sorted(self._lanes.items())
                for column in lane.columns.without_value
            )

    def _key(self, batch: Batch) -> str:
        return batch.runs[0].partition.topic if self._info.by_topic else ""

    def _lane(self, schema: pa.Schema, before: _SchemaLane | None = None) -> _SchemaLane:
        for twins in case_twins(schema):
            log.warning(
                "columns_differ_by_case",
                target=self._info.target,
                columns=twins,
                hint="a field fills the one that is written exactly like it",
            )
        watched = pa.schema([field for field in schema if field.name != RESCUED.name])
        columns = ColumnWatch(self._info.target, watched)
        decoder = self._format.decoder(schema)
        return _SchemaLane(schema, decoder, columns if before is None else columns.going_on(before.columns))

    def _replace(self, key: str, lane: _SchemaLane) -> None:
        with self._lock:
            self._lanes[key] = lane

    def _lane_for(self, batch: Batch) -> _SchemaLane | None:
        """Return what to decode with; None while the target has no schema and no record can give it one."""
        key = self._key(batch)
        with self._pinning:
            lane = self._lanes.get(key)
            if lane is None:
                proposed = self._format.infer(batch)
                if proposed is None:
                    return None
                columns = pa.schema([field for field in proposed if field.name not in self._info.coordinates])
                if not len(columns):
                    return None
                lane = self._pinned(key, self._evolution.pinned(columns))
            return self._widened(key, lane, self._evolution.with_rescued(key, lane.schema))

    def _pinned(self, key: str, proposed: pa.Schema) -> _SchemaLane:
        schema: pa.Schema = self._call(self._pin, key, proposed)
        log.info(
            "schema_pinned", target=self._info.target, columns=_described(schema), **({"topic": key} if key else {})
        )
        lane = self._lane(schema)
        self._replace(key, lane)
        return lane

    def _pin(self, topic: str, proposed: pa.Schema) -> pa.Schema:
        try:
            if self._topics is not None:
                return self._topics.pin_topic(topic, proposed)
            if self._one is not None:
                return self._one.pin(proposed)
        except SinkMisconfigured as error:
            if topic in self._lanes:
                raise
            # Nothing was ever written for it: this is a fault of the settings, found as early as possible.
            raise ConfigurationError(str(error)) from error
        raise ConfigurationError(f"{self._info.target} has no schema and cannot take one; give --decode.schema FILE")

    def _decoded(self, batch: Batch, lane: _SchemaLane | None, decoder: Decoder) -> tuple[_SchemaLane | None, Decoded]:
        decoded = decoder.decode(batch)
        if lane is None:
            return None, _without_columns(decoded)
        while True:
            latest = self._grown(batch, lane) if decoded.outgrown else self._evolved(batch, lane, decoded)
            if latest.schema is lane.schema:
                return lane, decoded
            lane = latest
            decoded = self._format.decoder(lane.schema).decode(batch)

    def _grown(self, batch: Batch, lane: _SchemaLane) -> _SchemaLane:
        """Give types to fields that have their first values in this batch."""
        key = self._key(batch)
        with self._pinning:
            latest = self._lanes[key]
            if latest.schema is not lane.schema:
                return latest
            if self._topics is None and self._one is None:
                untyped = ", ".join(field.name for field in lane.schema if has_untyped(field.type))
                raise ConfigurationError(
                    f"{batch.ranges[0]}: a column without a type has its first value: {untyped}; give it one in the "
                    "file of --decode.schema"
                )
            grown = self._format.grow(lane.schema, batch)
            latest = self._pinned(key, grown)
            if latest.schema.equals(lane.schema):
                raise ConfigurationError(
                    f"{self._info.target} does not take the type of a field that has its first value in "
                    f"{batch.ranges[0]}; give --decode.schema FILE"
                )
            return latest

    def _evolved(self, batch: Batch, lane: _SchemaLane, decoded: Decoded) -> _SchemaLane:
        """Give the target columns for the unknown fields of a batch, where that is wanted and can be done."""
        if not self._evolution.evolves or not decoded.unknown:
            return lane
        key = self._key(batch)
        with self._pinning:
            latest = self._lanes[key]
            if latest.schema is not lane.schema:
                return latest
            return self._widened(key, lane, self._evolution.wider(key, lane.schema, batch, decoded.unknown))

    def _widened(self, key: str, lane: _SchemaLane, schema: pa.Schema) -> _SchemaLane:
        if schema.equals(lane.schema):
            return lane
        wider = self._lane(schema, lane)
        self._replace(key, wider)
        return wider

    def _observed(self, batch: Batch, lane: _SchemaLane | None, decoded: Decoded, started: float) -> Prepared:
        with self._lock:
            for note in decoded.notes:
                if note not in self._noted and len(self._noted) < MAX_NAMES:
                    self._noted.add(note)
                    log.warning("values_decoded_with_a_note", note=note, first_seen=str(batch.ranges[0]))
            self._unknown.name(batch, decoded.unknown, estimated=decoded.estimated)
            if lane is not None:
                lane.columns.observe(decoded.table)
                if decoded.unknown and not lane.columns.matched and not self._keeps_all(batch):
                    raise ConfigurationError(mismatch(self._info.target, lane.schema.names, self._unknown.paths))
                lane.columns.tell(self._unknown.paths)
        schema = None if lane is None else lane.schema
        ready_at = time.perf_counter()
        return Prepared(batch, decoded, ready_at - started, schema, ready_at=ready_at)

    def _keeps_all(self, batch: Batch) -> bool:
        # A replay was written before, under rules that may have changed.
        return "_value" in self._info.coordinates or batch.replayed


def _without_columns(decoded: Decoded) -> Decoded:
    """Refuse the readable records of a batch that gave the target no columns."""
    rows = decoded.positions.to_pylist()
    if not rows:
        return decoded
    message = "has no field that can be a column, and the target has none yet"
    refused = [*decoded.rejections, *(Rejection(row, "no_column", message) for row in rows)]
    refused.sort(key=lambda rejection: rejection.position)
    return Decoded(decoded.table.slice(0, 0), decoded.positions.slice(0, 0), tuple(refused), decoded.skipped)


def _described(schema: pa.Schema) -> list[str]:
    return [f"{field.name}: {field.type}" for field in schema]
