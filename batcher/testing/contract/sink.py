"""The laws that every sink keeps, as tests to inherit: `class TestMine(SinkLaws)` with a fixture `case`.

A case is one fresh target: it makes sinks on it, looks into it, and knows a way to break it.

It is long because a sink has many laws.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from operator import itemgetter
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.dataset
import pytest

from batcher.engine.assembly import check_capabilities
from batcher.errors import BatcherError, RowsRejected, SinkMisconfigured, SinkUnavailable
from batcher.protocols import COPIES, Sink, SinkInfo
from batcher.protocols.sink import (
    countable,
    evolvable,
    interruptible,
    measuring,
    pinning,
    queryable,
    removable,
    stoppable,
    topic_pinning,
)
from batcher.records import Block, Partition, RawColumns, write_id
from batcher.testing.values import EVENTS_0, make_block

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("country", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("at", pa.timestamp("ms", "UTC")),
    ]
)
"""What the targets of all cases hold, coordinates beside it."""


AT_ONCE: Final = 4
"""Threads that write to a sink that says it takes several blocks at a time."""

Rows = list[dict[str, Any]]


Result = TypeVar("Result")


class SinkCase(ABC):
    """Own one fresh target, for as long as a test runs.

    `keeps` is False where nothing can be read back. `keeps_schema` is False where any row can be written beside any
    other, so that the target has no schema to hold on to.
    """

    keeps = True
    keeps_schema = True

    @abstractmethod
    def sink(self) -> Sink:
        """Return another sink on the target, not open, as a second process would have."""

    @abstractmethod
    def rows(self) -> Rows:
        """Return all that the target holds."""

    def failing(self, sink: Sink) -> AbstractContextManager[object] | None:
        """Return a context in which `sink` cannot write, or None where that cannot happen."""
        del sink
        return None

    def copy(self, sink: Sink, block: Block) -> None:
        """Put a block into the target although it may have some of its rows.

        A sink that never stores a record twice needs a way around it: another writer could do it.
        """
        sink.write(block)

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]] | None:
        """Return a sink whose target is not there, and what `open` may raise; None where that cannot happen."""
        return None


ROWS = pa.table(
    {
        "id": [1, 2, 3, 4],
        "country": ["DE", None, "a/../b", "DE"],
        "price": [1.5, None, -0.0, 1e300],
        "at": [0, 1_700_000_000_123, None, -1],
    },
    SCHEMA,
)


def opened(sink: Sink) -> tuple[SinkInfo, pa.Schema]:
    """Open a sink, pin its schema where it takes one, and return its `SinkInfo` and the schema."""
    info = sink.open()
    if info.schema is not None:
        return info, info.schema
    return info, pinned(sink, info, SCHEMA)


def pinned(sink: Sink, info: SinkInfo, proposed: pa.Schema) -> pa.Schema:
    """Pin as the pipeline does: for the topic where each has a schema of its own."""
    topics = topic_pinning(sink, info)
    if topics is not None:
        return topics.pin_topic(EVENTS_0.topic, proposed)
    one = pinning(sink, info)
    assert one is not None, "a sink that has no schema has to take one"
    return one.pin(proposed)


def block_for(
    info: SinkInfo,
    schema: pa.Schema,
    table: pa.Table = ROWS,
    first_offset: int = 0,
    partition: Partition = EVENTS_0,
) -> Block:
    """Return a block of rows, with what a sink asks for: coordinates, and the records, which are the rows as JSON."""
    rows = table.select(schema.names).cast(schema)
    block = make_block(rows, partition=partition, first_offset=first_offset, coordinates=info.coordinates)
    return replace(block, raw=_raw(rows)) if info.raw else block


def _raw(rows: pa.Table) -> RawColumns:
    values = [json.dumps(row, default=str).encode() for row in rows.to_pylist()]
    nothing = pa.nulls(len(values), pa.binary())
    return RawColumns(pa.chunked_array([values], pa.binary()), nothing, pa.nulls(len(values), pa.int64()), None)


def elsewhere(call: Callable[[], Result]) -> Result:
    """Call as the pipeline does: not from the thread that opened the sink."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def by_id(rows: Rows, columns: list[str]) -> Rows:
    """Return some columns of rows, in the order of their ids."""
    return sorted(({name: row[name] for name in columns} for row in rows), key=itemgetter("id"))


class SinkLaws:
    """Hold a sink to the laws. A suite inherits from it and has a fixture `case` that returns a `SinkCase`."""

    def test_a_sink_has_the_methods_of_the_capabilities_that_it_names(self, sink: Sink) -> None:
        check_capabilities(sink, sink.open())

    @pytest.fixture
    def sink(self, case: SinkCase) -> Iterator[Sink]:
        """Return a sink of the case, closed at the end."""
        made = case.sink()
        yield made
        made.close()

    def test_what_was_written_is_there_with_values_and_coordinates(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        block = block_for(info, schema)
        elsewhere(lambda: sink.write(block))
        if not case.keeps:
            return
        assert by_id(case.rows(), block.table.column_names) == by_id(block.table.to_pylist(), block.table.column_names)

    def test_blocks_add_up(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        sink.write(block_for(info, schema, ROWS.slice(0, 3)))
        sink.write(block_for(info, schema, ROWS.slice(3), first_offset=3))
        if not case.keeps:
            return
        assert [row["id"] for row in by_id(case.rows(), ["id"])] == [1, 2, 3, 4]

    def test_a_block_of_one_row_is_written(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        sink.write(block_for(info, schema, ROWS.slice(1, 1)))
        if not case.keeps:
            return
        assert by_id(case.rows(), ["id", "country"]) == [{"id": 2, "country": None}]

    def test_the_same_token_again_leaves_one_copy(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        if info.guarantee != "exactly-once":
            return
        block = block_for(info, schema)
        sink.write(block)
        elsewhere(lambda: sink.write(block))
        assert len(case.rows()) == 4

    def test_the_same_token_from_another_process_leaves_one_copy(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        if info.guarantee != "exactly-once":
            return
        sink.write(block_for(info, schema))
        sink.close()
        successor = case.sink()
        try:
            successor_info, successor_schema = opened(successor)
            assert successor_schema.names == schema.names
            successor.write(block_for(successor_info, successor_schema))
        finally:
            successor.close()
        assert len(case.rows()) == 4

    def test_a_failed_write_raises_what_the_contract_knows_and_the_next_one_works(
        self, case: SinkCase, sink: Sink
    ) -> None:
        info, schema = opened(sink)
        block = block_for(info, schema)
        failing = case.failing(sink)
        if failing is None:
            return
        with failing, pytest.raises((SinkUnavailable, SinkMisconfigured)):
            elsewhere(lambda: sink.write(block))
        elsewhere(lambda: sink.write(block))
        if case.keeps and info.guarantee == "exactly-once":
            assert len(case.rows()) == 4

    def test_rejected_rows_leave_nothing_behind_and_the_rest_can_be_written(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        poison = "x" * 10_000
        table = ROWS.set_column(1, SCHEMA.field("country"), pa.array(["DE", poison, "FR", poison]))
        block = block_for(info, schema, table)
        try:
            sink.write(block)
        except RowsRejected as error:
            rejected = error
        else:
            return  # the target takes any text
        assert [rejection.position for rejection in rejected.rejections] == [1, 3]
        assert poison not in str(rejected)
        assert not case.rows()
        good = pa.array([0, 2])
        rest = Block(block.table.take(good).combine_chunks(), block.positions.take(good), "rest", block.ranges)
        sink.write(rest)
        assert [row["id"] for row in by_id(case.rows(), ["id"])] == [1, 3]

    def test_the_first_schema_pinned_holds_for_everybody(self, case: SinkCase, sink: Sink) -> None:
        info = sink.open()
        if info.schema is not None or not case.keeps or not case.keeps_schema:
            return
        first = pinned(sink, info, SCHEMA)
        sink.write(block_for(info, first))
        second = case.sink()
        try:
            second_info = second.open()
            other = pa.schema([("country", pa.string()), ("other", pa.int8())])
            holds = second_info.schema if second_info.schema is not None else pinned(second, second_info, other)
        finally:
            second.close()
        assert holds.equals(first)

    def test_a_pinned_schema_takes_the_types_it_lacks_and_keeps_those_it_has(self, case: SinkCase, sink: Sink) -> None:
        info = sink.open()
        if info.schema is not None or not case.keeps_schema:
            return
        unknown = SCHEMA.set(2, pa.field("price", pa.null()))
        first = pinned(sink, info, unknown)
        assert first.field("price").type == pa.null()
        early = ROWS.select(["id", "country"]).append_column("price", pa.nulls(4)).append_column("at", ROWS["at"])
        sink.write(block_for(info, first, early))
        assert elsewhere(lambda: pinned(sink, info, SCHEMA)).equals(SCHEMA)
        sink.write(block_for(info, SCHEMA, ROWS, first_offset=4))
        other = SCHEMA.set(2, pa.field("price", pa.string()))
        assert pinned(sink, info, other).equals(SCHEMA)

    def test_a_sink_that_takes_columns_keeps_those_it_has_and_blocks_of_before(
        self, case: SinkCase, sink: Sink
    ) -> None:
        info, schema = opened(sink)
        asked = evolvable(sink, info)
        if asked is None:
            return
        topic = EVENTS_0.topic if info.by_topic else None
        sink.write(block_for(info, schema, ROWS.slice(0, 1)))
        new = [pa.field("country", pa.int64()), pa.field("colour", pa.string()), pa.field("size", pa.int64())]
        wider = elsewhere(lambda: asked.evolve(topic, new))
        added = [name for name in wider.names if name not in schema.names]
        assert sorted(added) == ["colour", "size"]
        assert all(wider.field(name).nullable for name in added)
        assert pa.schema([field for field in wider if field.name in schema.names]).equals(schema)
        assert asked.evolve(topic, new).equals(wider)
        sink.write(block_for(info, schema, ROWS.slice(1, 1), first_offset=1))
        table = ROWS.append_column("colour", pa.array(["red"] * 4)).append_column("size", pa.array([7] * 4))
        elsewhere(lambda: sink.write(block_for(info, wider, table.slice(2), first_offset=2)))
        if not case.keeps:
            return
        rows = sorted(case.rows(), key=itemgetter("id"))
        assert [(row["id"], row.get("colour"), row.get("size")) for row in rows] == [
            (1, None, None),
            (2, None, None),
            (3, "red", 7),
            (4, "red", 7),
        ]

    def test_columns_that_one_process_adds_hold_for_another(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        asked = evolvable(sink, info)
        if asked is None or not case.keeps or not case.keeps_schema:
            return
        topic = EVENTS_0.topic if info.by_topic else None
        second = case.sink()
        try:
            second_info, _ = opened(second)
            other = evolvable(second, second_info)
            assert other is not None
            asked.evolve(topic, [pa.field("colour", pa.string())])
            both = other.evolve(topic, [pa.field("size", pa.int64()), pa.field("colour", pa.int8())])
            assert both.field("colour").type == pa.string()
            assert {"colour", "size"} <= set(both.names)
            second.write(block_for(second_info, schema, ROWS.slice(0, 2)))
        finally:
            second.close()
        assert asked.evolve(topic, [pa.field("size", pa.int64())]).equals(both)
        third = case.sink()
        try:
            assert opened(third)[1].equals(both)
        finally:
            third.close()

    def test_a_reconcilable_sink_knows_which_offsets_it_has(self, sink: Sink) -> None:
        info, schema = opened(sink)
        asked = queryable(sink, info)
        if asked is None:
            return
        sink.write(block_for(info, schema, first_offset=10))
        assert asked.present(EVENTS_0, 0, 9).to_pylist() == []
        assert asked.present(EVENTS_0, 11, 100).to_pylist() == [11, 12, 13]
        assert asked.present(EVENTS_0._replace(number=1), 0, 100).to_pylist() == []
        assert asked.present(EVENTS_0, 0, 100).type == pa.int64()

    def test_an_auditable_sink_counts_the_rows_of_each_offset(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        counted = countable(sink, info)
        if counted is None:
            return
        other = EVENTS_0._replace(number=1)
        assert counted.copies(EVENTS_0, 0, 100).equals(COPIES.empty_table())
        for first_offset, rows in ((12, ROWS), (10, ROWS), (40, ROWS.slice(0, 1))):
            case.copy(sink, block_for(info, schema, rows, first_offset))
        found = elsewhere(lambda: counted.copies(EVENTS_0, 0, 100))
        assert found.schema.equals(COPIES)
        assert found["offset"].to_pylist() == [10, 11, 12, 13, 14, 15, 40]
        assert found["copies"].to_pylist() == [1, 1, 2, 2, 1, 1, 1]
        assert counted.copies(EVENTS_0, 11, 13).to_pydict() == {"offset": [11, 12, 13], "copies": [1, 2, 2]}
        assert counted.copies(EVENTS_0, 16, 39).num_rows == counted.copies(other, 0, 100).num_rows == 0

    def test_what_a_sink_removes_is_gone_in_every_copy_and_nothing_else_is(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        removing, counted = removable(sink, info), countable(sink, info)
        if removing is None:
            return
        assert counted is not None, "what is removed has to be counted first"
        block = block_for(info, schema, first_offset=10)
        for one in (
            block,
            replace(block, token=f"{block.token}, again"),
            block_for(info, schema, ROWS.slice(0, 1), first_offset=40),
        ):
            case.copy(sink, one)
        for_another = make_block(
            ROWS.cast(schema), partition=EVENTS_0._replace(number=1), first_offset=10, coordinates=info.coordinates
        )
        sink.write(for_another)

        removing.remove(EVENTS_0, [(11, 11), (13, 13), (20, 30)])

        assert counted.copies(EVENTS_0, 0, 100).to_pydict() == {"offset": [10, 12, 40], "copies": [2, 2, 1]}
        assert counted.copies(EVENTS_0._replace(number=1), 0, 100)["offset"].to_pylist() == [10, 11, 12, 13]

    def test_a_reconcilable_sink_knows_what_it_has_beyond_a_position(self, sink: Sink) -> None:
        info, schema = opened(sink)
        asked = queryable(sink, info)
        if asked is None:
            return
        other, never = EVENTS_0._replace(number=1), EVENTS_0._replace(topic="never")
        assert asked.max_offset_above({EVENTS_0: 0}) == {}
        sink.write(block_for(info, schema, first_offset=10))
        assert asked.max_offset_above({EVENTS_0: 14, other: 0, never: 0}) == {}
        assert asked.max_offset_above({EVENTS_0: 13, other: 0}) == {EVENTS_0: 13}
        assert asked.max_offset_above({EVENTS_0: 0}) == {EVENTS_0: 13}
        assert asked.max_offset_above({}) == {}

    def test_an_interruptible_sink_is_not_at_a_write_that_has_returned(self, sink: Sink) -> None:
        info, schema = opened(sink)
        asked = interruptible(sink, info)
        if asked is None:
            return
        block = block_for(info, schema)
        sink.write(block)
        assert not asked.running(write_id(block.token))
        assert not asked.running(write_id("never written"))

    def test_a_concurrent_sink_takes_blocks_of_several_partitions_at_once(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        if not info.concurrent:
            return
        partitions = [Partition(EVENTS_0.topic, number) for number in range(AT_ONCE)]
        start = threading.Barrier(AT_ONCE)

        def blocks(partition: Partition) -> list[Block]:
            halves = ((ROWS.slice(0, 3), 0), (ROWS.slice(3), 3))
            return [block_for(info, schema, table, first, partition) for table, first in halves]

        def write(partition: Partition) -> None:
            start.wait(60)
            for block in blocks(partition):
                sink.write(block)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(write, partition) for partition in partitions]:
                done.result()
        if case.keeps:
            assert len(case.rows()) == AT_ONCE * ROWS.num_rows
        if info.guarantee == "exactly-once":
            # The same tokens, by another thread.
            for block in blocks(partitions[0]):
                elsewhere(lambda again=block: sink.write(again))  # type: ignore[misc]
            assert len(case.rows()) == AT_ONCE * ROWS.num_rows

    def test_what_a_sink_measures_has_one_name_each_and_can_be_asked_at_any_time(self, sink: Sink) -> None:
        info, schema = opened(sink)
        asked = measuring(sink, info)
        if asked is None:
            return
        before = [one.name for one in asked.measures()]
        sink.write(block_for(info, schema))
        assert [one.name for one in elsewhere(asked.measures)] == before
        assert len(set(before)) == len(before)
        sink.close()
        assert [one.name for one in asked.measures()] == before

    def test_after_an_interrupt_a_sink_defers_every_row(self, case: SinkCase, sink: Sink) -> None:
        info, schema = opened(sink)
        asked = stoppable(sink, info)
        if asked is None:
            return
        asked.interrupt(at_once=False)
        outcome = elsewhere(lambda: sink.write(block_for(info, schema)))
        assert outcome is not None
        assert sorted(one.row for one in outcome.deferred) == [0, 1, 2, 3]
        assert (outcome.rejected, outcome.dropped, case.rows()) == ((), (), [])

    def test_close_is_harmless_twice_and_without_open(self, case: SinkCase) -> None:
        sink = case.sink()
        sink.close()
        sink.open()
        sink.close()
        sink.close()

    def test_a_missing_target_is_said_at_open(self, case: SinkCase) -> None:
        missing = case.missing()
        if missing is None:
            return
        sink, classes = missing
        with pytest.raises(classes):
            sink.open()
        sink.close()
