"""A root for each topic: `ROOT/{topic}/`, each with a schema of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pyarrow as pa

from batcher.errors import SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import COPIES, Sink, SinkCapability, SinkInfo
from batcher.records import Block, Partition
from sinks.parquet import pins
from sinks.parquet.files import topic_name
from sinks.parquet.locations import store_for
from sinks.parquet.options import ParquetOptions
from sinks.parquet.rehearsal import described, scratch_path
from sinks.parquet.sink import ParquetSink
from sinks.parquet.stores import Store, faults

_FIXED: Final[frozenset[SinkCapability]] = frozenset({"query", "count"})
"""What it can do with a given schema, which all topics share: then none of them can have another one."""


class TopicRootsSink:
    """Pass every block to the sink of its topic, which is made when the topic first comes.

    With a given schema there is one for all topics, and only the directories differ.
    """

    def __init__(self, options: ParquetOptions, store: Store) -> None:
        self._options = replace(options, layout="topic")
        self._store = store
        self._sinks: dict[str, ParquetSink] = {}
        # The decode loop pins the schema of a topic while the write loop writes another one.
        self._opening = threading.Lock()

    def open(self) -> SinkInfo:
        try:
            with faults(self._store, "opening"):
                self._store.open()
                return self._looked_into()
        except SinkUnavailable as error:
            self._store.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            self._store.close()
            raise

    def pin_topic(self, topic: str, proposed: pa.Schema) -> pa.Schema:
        """Pin the schema of a topic, or give its schema the types it lacks. Raise as `ParquetSink.pin`."""
        return self._sink(topic).pin(proposed)

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        """Add columns to the schema of a topic's root; see `ParquetSink.evolve`."""
        assert topic is not None, "each topic has a schema of its own"
        return self._sink(topic).evolve(None, fields)

    def schema_of(self, topic: str) -> pa.Schema | None:
        """Return the schema of the topic's root; None where there is none."""
        if self._options.schema is not None:
            return self._options.schema
        return self._sink(topic).schema if self._directory(topic) in self._directories() else None

    def write(self, block: Block) -> None:
        """Put the files of a block in place; see `ParquetSink.write`."""
        self._sink(block.ranges[0].partition.topic).write(block)

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return each offset once, however often it is there. Raise as `copies` does."""
        return self.copies(partition, first, last)["offset"].combine_chunks()

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the offsets that the topic's root has, each with its rows; see `ParquetSink.copies`."""
        if self._directory(partition.topic) not in self._directories():
            return COPIES.empty_table()
        return self._sink(partition.topic).copies(partition, first, last)

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return where positions were passed; one listing for each topic that has a root."""
        there = self._directories()
        found: dict[Partition, int] = {}
        for topic in {partition.topic for partition in positions}:
            if self._directory(topic) in there:
                asked = {partition: at for partition, at in positions.items() if partition.topic == topic}
                found.update(self._sink(topic).max_offset_above(asked))
        return found

    def close(self) -> None:
        with self._opening:
            while self._sinks:
                self._sinks.popitem()[1].close()
        self._store.close()

    def described(self) -> SinkInfo:
        """Return what `open` would find; makes no directory. Raise as `Sink.open`."""
        return described(self, self._options.path, self._store, self._looked_into)

    @contextmanager
    def rehearsal(self, name: str) -> Iterator[Sink]:
        """Make a directory beside the root, on the same file system, and remove it at the end. Raise as `Sink.open`."""
        self.described()
        with scratch_path(self._options.path, name, self._store_at) as path:
            options = replace(self._options, path=path)
            yield TopicRootsSink(options, store_for(options))

    def _looked_into(self) -> SinkInfo:
        self._refuse_flat()
        return self._info()

    def _store_at(self, path: str) -> Store:
        return store_for(replace(self._options, path=path))

    def _info(self) -> SinkInfo:
        return SinkInfo(
            self._store.label,
            self._options.schema,
            self._options.coordinate_columns,
            "replace",
            "a file is named by its range of offsets, so a repeat replaces it",
            _FIXED if self._options.schema is not None else _FIXED | {"pin_topic", "evolve"},
            concurrent=True,
            remote=self._store.remote,
        )

    def _refuse_flat(self) -> None:
        if pins.flat(self._store):
            raise SinkMisconfigured(
                f"{self._store.label} is one root, with one schema for all topics: give --parquet.layout root to go on "
                "so, or choose another --parquet.path for a root for each topic"
            )

    def _directory(self, topic: str) -> str:
        return topic_name(topic, fold=self._store.folds_case)

    def _directories(self) -> set[str]:
        with faults(self._store, "looking for the topics of"):
            return {entry.rstrip("/") for entry in self._store.entries()}

    def _sink(self, topic: str) -> ParquetSink:
        with self._opening:
            sink = self._sinks.get(topic)
            if sink is None:
                sink = ParquetSink(self._options, self._store.below(self._directory(topic)))
                try:
                    sink.open()
                except Unreachable as error:
                    raise SinkUnavailable(str(error)) from error
                self._sinks[topic] = sink
            return sink
