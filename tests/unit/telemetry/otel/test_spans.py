"""What becomes of a batch as a span: its times, its words, its failures, its links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NoReturn

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from batcher.errors import SchemasUnavailable, SinkMisconfigured, SinkUnavailable
from batcher.records import Delivered, Headers, Partition, Position, Range, Records
from batcher.telemetry.events import (
    BatchWritten,
    CommitAnswered,
    GuaranteeAgreed,
    Rebalanced,
    RecordsFetched,
    RetriesEnded,
    WriteRetried,
)
from batcher.telemetry.otel.spans import MAX_LINKS, MAX_OPEN, MAX_RETRIES, BatchSpans, MessagingNames, links_of
from batcher.testing.values import make_batch, make_records

EVENTS_0, EVENTS_1, ORDERS_0 = Partition("events", 0), Partition("events", 1), Partition("orders", 0)
SECOND = 10**9
NAMES = MessagingNames("kafka", "loaders", "null")


def traced(trace: int, span: int = 1) -> Headers:
    return (("other", b"\xff"), ("traceparent", f"00-{trace:032x}-{span:016x}-01".encode()))


def delivered(rows: int = 2, **changed: Any) -> Delivered:
    found = Delivered(
        rows=rows,
        written=rows,
        suppressed=0,
        dead_lettered=0,
        skipped=0,
        refused_by_sink=0,
        nbytes=100,
        decode_s=1.0,
        write_s=3.0,
        waited_s=2.0,
    )
    return replace(found, **changed)


class Recorded:
    """Spans as they were exported, by a clock that a test sets."""

    def __init__(self, names: MessagingNames = NAMES, *, sampled: bool = True) -> None:
        self.now_s = 100.0
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False) if sampled else TracerProvider(ALWAYS_OFF)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.hear = BatchSpans(provider.get_tracer("batcher"), names, lambda: int(self.now_s * SECOND))

    def written(self, *runs: Records, target: str = "", **changed: Any) -> None:
        batch = make_batch(*(runs or [make_records(["1", "2"])]))
        self.hear(BatchWritten(batch, delivered(batch.rows, **changed), target))

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [one for one in self.all if one.name == name]

    @property
    def batches(self) -> list[ReadableSpan]:
        return [one for one in self.all if one.parent is None]

    @property
    def batch(self) -> ReadableSpan:
        [found] = self.batches
        return found


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def times(span: ReadableSpan) -> tuple[float, float]:
    return (span.start_time or 0) / SECOND, (span.end_time or 0) / SECOND


def test_a_batch_is_one_span_from_its_decoding_to_its_end_with_its_stages_in_it(recorded: Recorded) -> None:
    recorded.written()
    [decode], [write], batch = recorded.named("decode"), recorded.named("write"), recorded.batch
    assert (times(batch), times(decode), times(write)) == ((94.0, 100.0), (94.0, 95.0), (97.0, 100.0))
    assert decode.parent is not None
    assert write.parent is not None
    assert batch.context is not None
    assert {decode.parent.span_id, write.parent.span_id} == {batch.context.span_id}
    assert (batch.kind, write.kind) == (SpanKind.CONSUMER, SpanKind.CLIENT)
    assert batch.status.status_code is StatusCode.UNSET


def test_a_batch_of_one_partition_has_the_words_of_opentelemetry(recorded: Recorded) -> None:
    recorded.hear(GuaranteeAgreed("exactly-once", "", "table default.events"))
    recorded.written(make_records(["1", "2"], first_offset=7), dead_lettered=1, written=1)
    assert recorded.batch.name == "flush events"
    assert dict(recorded.batch.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "flush",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "loaders",
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "0",
        "messaging.batch.message_count": 2,
        "batcher.partitions": 1,
        "batcher.ranges": ("events[0] 7-8",),
        "batcher.sink": "null",
        "batcher.target": "table default.events",
        "batcher.batch": 0,
        "batcher.trigger": "rows",
        "batcher.replayed": False,
        "batcher.bytes": 100,
        "batcher.written": 1,
        "batcher.dead_lettered": 1,
        "batcher.skipped": 0,
        "batcher.duplicates_suppressed": 0,
        "batcher.released": 0,
    }


def test_a_batch_of_several_topics_names_none_of_them_as_its_destination(recorded: Recorded) -> None:
    runs = [make_records(["1"], partition=one) for one in (EVENTS_0, EVENTS_1, ORDERS_0)]
    recorded.written(*runs)
    found = recorded.batch.attributes or {}
    assert recorded.batch.name == "flush"
    assert not {"messaging.destination.name", "messaging.destination.partition.id"} & found.keys()
    assert found["batcher.ranges"] == ("events[0] 0-0", "events[1] 0-0", "orders[0] 0-0")


def test_a_topic_of_a_thousand_partitions_makes_no_long_span(recorded: Recorded) -> None:
    recorded.written(*(make_records(["1"], partition=Partition("events", number)) for number in range(1000)))
    found = recorded.batch.attributes or {}
    assert (found["batcher.partitions"], len(found["batcher.ranges"])) == (1000, 8)  # type: ignore[arg-type]


def test_each_failed_try_is_an_event_at_its_time_and_the_last_is_the_error(recorded: Recorded) -> None:
    span = Range(EVENTS_0, 0, 1)
    for at_s, error in ((97.5, SinkUnavailable("away")), (98.5, SinkMisconfigured("no table"))):
        recorded.now_s = at_s
        recorded.hear(WriteRetried(error, "", span))
    recorded.hear(RetriesEnded(span))
    recorded.now_s = 100.0
    recorded.written()
    batch, [write] = recorded.batch, recorded.named("write")
    assert [(one.name, one.timestamp / SECOND, (one.attributes or {})["error.type"]) for one in batch.events] == [
        ("retry", 97.5, "SinkUnavailable"),
        ("retry", 98.5, "SinkMisconfigured"),
    ]
    assert (batch.status.status_code, batch.status.description) == (StatusCode.ERROR, "SinkMisconfigured")
    assert write.status.status_code is StatusCode.ERROR
    assert (batch.attributes or {})["error.type"] == "SinkMisconfigured"
    assert "no table" not in batch.to_json()
    recorded.written()
    assert recorded.batches[1].status.status_code is StatusCode.UNSET


def test_a_batch_that_could_not_be_decoded_at_first_begins_with_that_failure(recorded: Recorded) -> None:
    recorded.now_s = 50.0
    recorded.hear(WriteRetried(SchemasUnavailable("away"), "", Range(EVENTS_0, 0, 1)))
    recorded.now_s = 100.0
    recorded.written()
    assert times(recorded.batch) == (50.0, 100.0)


def test_a_night_of_failures_makes_few_events_and_a_count(recorded: Recorded) -> None:
    for _ in range(5000):
        recorded.hear(WriteRetried(SinkUnavailable("away"), "", Range(EVENTS_0, 0, 1)))
    recorded.written()
    assert len(recorded.batch.events) == MAX_RETRIES
    assert (recorded.batch.attributes or {})["batcher.retries"] == 5000


def test_a_failure_is_that_of_its_target_and_range(recorded: Recorded) -> None:
    recorded.hear(WriteRetried(SinkUnavailable("away"), "a", Range(EVENTS_0, 0, 1)))
    recorded.hear(WriteRetried(SinkUnavailable("away"), "b", Range(EVENTS_1, 0, 1)))
    recorded.hear(WriteRetried(SinkUnavailable("away")))
    recorded.written(target="b")
    recorded.written(target="a")
    found = [((one.attributes or {})["batcher.route"], one.status.status_code) for one in recorded.batches]
    assert found == [("b", StatusCode.UNSET), ("a", StatusCode.ERROR)]


def test_a_batch_that_still_fails_at_the_end_has_a_span_that_counts_no_record(recorded: Recorded) -> None:
    recorded.now_s = 90.0
    recorded.hear(WriteRetried(SinkUnavailable("away"), "", Range(EVENTS_0, 5, 9)))
    recorded.hear(WriteRetried(SinkUnavailable("away"), "", Range(EVENTS_1, 0, 3)))
    recorded.hear(RetriesEnded(Range(EVENTS_1, 0, 3)))
    recorded.now_s = 95.0
    recorded.hear.close()
    batch = recorded.batch
    assert (times(batch), batch.status.description) == ((90.0, 95.0), "SinkUnavailable")
    assert (batch.attributes or {})["batcher.ranges"] == ("events[0] 5-9",)
    assert "messaging.batch.message_count" not in (batch.attributes or {})


def test_a_batch_that_failed_passed_and_fails_again_still_fails(recorded: Recorded) -> None:
    span = Range(EVENTS_0, 5, 9)
    for event in (WriteRetried(SchemasUnavailable("away"), "", span), RetriesEnded(span)):
        recorded.hear(event)
    recorded.hear(WriteRetried(SinkUnavailable("away"), "", span))
    recorded.hear.close()
    assert recorded.batch.status.description == "SinkUnavailable"


def test_a_commit_is_a_part_of_each_batch_that_it_covers_and_of_no_other(recorded: Recorded) -> None:
    recorded.written(make_records(["1", "2"]))
    recorded.written(make_records(["3"], first_offset=2), make_records(["4"], partition=EVENTS_1))
    recorded.now_s = 101.0
    recorded.hear(CommitAnswered("refused"))
    assert recorded.named("commit") == []
    recorded.hear(CommitAnswered("ok", {EVENTS_0: Position(3)}, 0.5))
    [first] = recorded.named("commit")
    assert times(first) == (100.5, 101.0)
    recorded.hear(CommitAnswered("ok", {EVENTS_1: Position(1)}, 0.5))
    recorded.hear(CommitAnswered("ok", {EVENTS_1: Position(1)}, 0.5))
    parents = [one.parent.span_id for one in recorded.named("commit") if one.parent is not None]
    assert parents == [one.context.span_id for one in recorded.batches if one.context is not None]
    assert (first.attributes or {})["messaging.operation.type"] == "settle"


def test_what_was_lost_to_another_owner_is_not_taken_for_committed_here(recorded: Recorded) -> None:
    recorded.written()
    recorded.hear(Rebalanced("lost"))
    recorded.hear(CommitAnswered("ok", {EVENTS_0: Position(9)}, 0.5))
    assert recorded.named("commit") == []


def test_what_is_never_committed_and_never_written_takes_no_memory_for_ever(recorded: Recorded) -> None:
    for number in range(3 * MAX_OPEN):
        recorded.written(make_records(["1"], first_offset=number))
        recorded.hear(WriteRetried(SinkUnavailable("away"), "", Range(EVENTS_1, number, number)))
    recorded.hear(CommitAnswered("ok", {EVENTS_0: Position(3 * MAX_OPEN)}, 0.0))
    assert len(recorded.named("commit")) == MAX_OPEN
    recorded.hear.close()
    assert len(recorded.batches) == 3 * MAX_OPEN + MAX_OPEN


def test_a_batch_links_to_each_trace_of_its_records_once(recorded: Recorded) -> None:
    headers = [traced(1), None, traced(2), traced(1), (("traceparent", b"none"),), ()]
    recorded.written(make_records(["1"] * 6, headers=headers), make_records(["1"], partition=EVENTS_1))
    assert [link.context.trace_id for link in recorded.batch.links] == [1, 2]
    assert list(links_of(make_batch(make_records(["1"] * 6, headers=[headers[1], *headers[4:], *[None] * 3])))) == []
    assert recorded.batch.context is not None
    assert recorded.batch.context.trace_id not in (1, 2)


def test_links_are_bounded_and_spread_over_a_batch() -> None:
    runs = [
        make_records(
            ["1"] * 1000,
            partition=Partition("events", number),
            headers=[traced(number * 1000 + row + 1) for row in range(1000)],
        )
        for number in range(10)
    ]
    found = [one.trace_id for one in links_of(make_batch(*runs))]
    assert MAX_LINKS - 2 <= len(found) <= MAX_LINKS
    steps = {after - before for before, after in pairwise(found)}
    assert len(steps) == 1
    assert found[-1] > 9000


def test_what_the_sampler_drops_costs_no_link_and_waits_for_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_: object) -> NoReturn:
        pytest.fail("looked for links")

    monkeypatch.setattr("batcher.telemetry.otel.spans.links_of", asked)
    recorded = Recorded(sampled=False)
    recorded.written(make_records(["1"], headers=[traced(1)]))
    recorded.hear(CommitAnswered("ok", {EVENTS_0: Position(1)}, 0.5))
    assert recorded.all == ()


def test_events_that_are_of_no_batch_make_no_span(recorded: Recorded) -> None:
    recorded.hear(RecordsFetched(make_records(["1"])))
    recorded.hear.close()
    assert recorded.all == ()
