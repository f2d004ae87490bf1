"""A format whose records pass through a transform: decoded for its input, fitted to the target by its output.

A transform needs columns of stable types. They are those of `--decode.schema`, those that the transform makes out from
the target, or those that the first batch of a topic holds. The last are kept as long as the process lives, and
said in the log. Each topic has its own, so that what becomes of a record never depends on other topics.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from batcher.formats.fit import Fitted, Fitter, validate
from batcher.formats.json.limits import JsonOptions
from batcher.formats.json.per_column import known_options
from batcher.formats.outcome import by_position, in_order, moved, renumbered, summed, together
from batcher.growth import grown, has_untyped
from batcher.protocols import Decoder, Format
from batcher.protocols.transform import ROW, Transform, TransformPlan
from batcher.records import COORDINATES, PLACEHOLDER, Batch, Decoded, Rejection
from batcher.transforms.search import search
from batcher.transforms.watch import watching

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TransformInput:
    """Hold what records are decoded for, and the part of it that a transform is given.

    The rest are fields that were in no record so far.
    """

    schema: pa.Schema
    seen: pa.Schema

    def same(self, other: TransformInput) -> bool:
        """Return whether nothing is different in another one."""
        return bool(self.schema.equals(other.schema, check_metadata=True) and self.seen.equals(other.seen))


class TransformedFormat:
    """Make decoders that transform what another format reads (`protocols.Format`).

    `stated` is the schema of `--decode.schema`. The options are those of the format; they hold for what the transform
    gives to the target as well. `most` bounds the attempts at finding the rows of a batch that make the transform fail.
    Raise ConfigurationError where the transform cannot work with what is stated.
    """

    def __init__(
        self,
        inner: Format,
        transform: Transform,
        *,
        stated: pa.Schema | None = None,
        options: JsonOptions = JsonOptions(),  # noqa: B008 - frozen
        most: int = 1000,
    ) -> None:
        self.inner = inner
        self.transform = transform
        self._stated = stated
        self.options = options
        self.most = most
        self._lock = threading.Lock()
        self._found: dict[str, pa.Schema] = {}
        """What the first batch of each topic held, with the types that came later for fields without one."""
        self._watched: dict[str, set[str]] = {}
        """Fields of each topic that were in no batch so far, and have a column in the target."""
        if stated is not None:
            transform.plan(self._own(transform.input(None, stated) or stated))

    def infer(self, batch: Batch) -> pa.Schema | None:
        columns: dict[str, pa.Field] = {}
        for topic, _, part in _by_topic(batch):
            given = self.given(topic, part, None)
            if given is not None:
                for field in self.transform.plan(given.seen).proposed:
                    columns.setdefault(field.name, field)
        return pa.schema(columns.values()) if columns else None

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        for topic, _, part in _by_topic(batch):
            self.regrow(topic, part)
            if topic in self._found:
                given = self.given(topic, part, None)
            else:
                # The input is known without a record, and still has fields whose types only records show.
                found = self.inner.infer(part)
                known = None if found is None else self._own(self.transform.inferred(None, found))
                given = None if known is None else TransformInput(known, known)
            if given is not None:
                schema = grown(schema, self.transform.plan(given.seen).proposed)
        return schema

    def decoder(self, schema: pa.Schema) -> TransformedDecoder:
        return TransformedDecoder(self, schema)

    def given(self, topic: str, batch: Batch, target: pa.Schema | None) -> TransformInput | None:
        """Return what the records of a topic are decoded for; None as long as no record says it."""
        known = self.transform.input(target, self._stated)
        if known is not None:
            return TransformInput(self._own(known), self._own(known))
        with self._lock:
            found = self._found.get(topic)
            if found is None:
                inferred = self.inner.infer(batch)
                if inferred is None:
                    return None
                found = self._found[topic] = self._own(self.transform.inferred(None, inferred))
                log.info(
                    "transform_input_inferred",
                    transform=self.transform.name,
                    topic=topic,
                    columns=[f"{field.name}: {field.type}" for field in inferred],
                    hint="the types are those of the first batch; --decode.schema FILE fixes them for every start",
                )
            if target is not None:
                found = self._watching(topic, found, target)
        schema = self._own(self.transform.inferred(target, found))
        return TransformInput(schema, self._seen(topic, schema))

    def _watching(self, topic: str, found: pa.Schema, target: pa.Schema) -> pa.Schema:
        """Return what a topic holds, with fields that come later and that the target has a column for.

        Not those whose columns the transform makes by itself: it would then have them twice.
        """
        wider, watched = watching(found, self._own(target), self.options.match)
        if watched:
            made = set(
                self.transform.plan(self._seen(topic, self._own(self.transform.inferred(target, found)))).output.names
            )
            wider = pa.schema([one for one in wider if one.name not in watched or one.name not in made])
            self._watched.setdefault(topic, set()).update(watched - made)
        self._found[topic] = wider
        return wider

    def _seen(self, topic: str, schema: pa.Schema) -> pa.Schema:
        """Return the fields that were in a record so far, or that the transform has a type for."""
        hidden = self._watched.get(topic, set())
        return pa.schema([one for one in schema if one.name not in hidden or not pa.types.is_null(one.type)])

    def regrow(self, topic: str, batch: Batch) -> None:
        """Give types to those fields of a topic that had no value so far and have one in a batch."""
        with self._lock:
            found = self._found.get(topic)
            if found is not None and has_untyped(found):
                self._found[topic] = self.inner.grow(found, batch)

    def _own(self, schema: pa.Schema) -> pa.Schema:
        """Return the fields of records that a transform can see: the names of its other columns are taken."""
        taken = {ROW, *self.transform.coordinates}
        return pa.schema([field for field in schema if field.name not in taken])


@dataclass(frozen=True, slots=True)
class _TransformLane:
    """Read, transform and fit the records of a topic."""

    given: TransformInput
    decoder: Decoder
    plan: TransformPlan
    fitter: Fitter | None
    """None where the target has no columns."""

    def fit(self, table: pa.Table) -> Fitted:
        """Return what fits the target."""
        if self.fitter is None:
            return Fitted(table.select([]), pa.arange(0, table.num_rows))
        return self.fitter.fit(table)


class TransformedDecoder:
    """Decode, transform and fit (`protocols.Decoder`). Not for several threads at once."""

    def __init__(self, format_: TransformedFormat, schema: pa.Schema) -> None:
        if len(schema):
            # A target may have nothing but coordinates, and a transform still say which records it gets.
            validate(schema)
        self._format = format_
        self._schema = schema
        self._options = known_options(schema, format_.options)
        self._lanes: dict[str, _TransformLane] = {}

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, batch: Batch) -> Decoded:
        parts = list(_by_topic(batch))
        if len(parts) == 1:
            return self._decoded(parts[0][0], batch)
        outcomes = [
            moved(self._decoded(topic, part), pa.arange(start, start + part.rows)) for topic, start, part in parts
        ]
        return together(outcomes, self._schema)

    def _decoded(self, topic: str, batch: Batch) -> Decoded:
        target = None if self._schema is PLACEHOLDER else self._schema
        given = self._format.given(topic, batch, target)
        if given is None:
            return self._unread(batch)
        lane = self._lane(topic, given)
        read = lane.decoder.decode(batch)
        while read.outgrown:
            self._format.regrow(topic, batch)
            latest = self._format.given(topic, batch, target)
            if latest is None or latest.same(given):
                # It is a type of the target that is open: the caller lets it grow.
                return replace(self._empty(batch), outgrown=True)
            given = latest
            lane = self._lane(topic, given)
            read = lane.decoder.decode(batch)
        return self._applied(lane, read, batch)

    def _lane(self, topic: str, given: TransformInput) -> _TransformLane:
        lane = self._lanes.get(topic)
        if lane is None or not lane.given.same(given):
            plan = self._format.transform.plan(given.seen)
            fitter = None
            if len(self._schema):
                fitter = Fitter(plan.output, self._schema, key="the transform", options=self._options)
            lane = self._lanes[topic] = _TransformLane(given, self._format.inner.decoder(given.schema), plan, fitter)
        return lane

    def _applied(self, lane: _TransformLane, read: Decoded, batch: Batch) -> Decoded:
        """Return the outcome of what was read."""
        places = read.positions
        if not len(places):
            return replace(read, table=self._schema.empty_table())
        started = time.perf_counter()
        rows = self._rows(lane, read, batch)
        found = search(
            lane.plan, rows, name=self._format.transform.name, where=str(batch.ranges[0]), most=self._format.most
        )
        fitted = lane.fit(found.table)
        kept = places.take(found.rows)
        skipped = places.take(found.skipped)
        gone = pa.concat_arrays(
            [found.rows, found.skipped, pa.array([one.position for one in found.rejections], pa.int64())]
        )
        numbers = pa.arange(0, len(places))
        filtered = places.filter(pc.invert(pc.is_in(numbers, value_set=gone)))
        rejections = [
            *read.rejections,
            *renumbered(found.rejections, places),
            *renumbered(fitted.rejections, kept),
        ]
        rejections.sort(key=by_position)
        return Decoded(
            fitted.table,
            kept if len(fitted.rows) == len(kept) else kept.take(fitted.rows),
            tuple(rejections),
            in_order([read.skipped, skipped, filtered]),
            summed([*read.unknown, *renumbered(fitted.unknown, kept)]),
            read.estimated,
            outgrown=fitted.outgrown,
            notes=(*read.notes, *fitted.notes),
            filtered=filtered,
            transform_s=time.perf_counter() - started,
        )

    def _rows(self, lane: _TransformLane, read: Decoded, batch: Batch) -> pa.RecordBatch:
        """Return what the transform is given: the columns, the coordinates it asked for, and the hidden one."""
        table = read.table.select(lane.given.seen.names)
        for name in self._format.transform.coordinates:
            table = table.append_column(COORDINATES.field(name), batch.coordinate(name).take(read.positions))
        table = table.append_column(pa.field(ROW, pa.int64()), pa.arange(0, len(read.positions)))
        [rows] = table.combine_chunks().to_batches()
        return rows

    def _unread(self, batch: Batch) -> Decoded:
        """Return the outcome of a batch in which nothing says what the transform would be given."""
        read = self._format.inner.decoder(PLACEHOLDER).decode(batch)
        message = "has no field, and the transform needs to know the fields of the records; see --decode.schema"
        refused = [Rejection(row, "no_column", message) for row in read.positions.to_pylist()]
        rejections = sorted([*read.rejections, *refused], key=by_position)
        return Decoded(self._schema.empty_table(), read.positions.slice(0, 0), tuple(rejections), read.skipped)

    def _empty(self, batch: Batch) -> Decoded:
        return Decoded(self._schema.empty_table(), pa.array([], pa.int64()), skipped=pa.arange(0, batch.rows))


def _by_topic(batch: Batch) -> Iterator[tuple[str, int, Batch]]:
    """Yield the records of each topic: its name, the position of the first one, and the records as a batch."""
    start = 0
    for topic, runs in itertools.groupby(batch.runs, key=lambda run: run.partition.topic):
        part = tuple(runs)
        whole = len(part) == len(batch.runs)
        yield topic, start, batch if whole else Batch(part, batch.trigger, replayed=batch.replayed)
        start += sum(len(run) for run in part)
