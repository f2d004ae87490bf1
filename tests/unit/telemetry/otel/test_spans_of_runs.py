"""Spans of whole pipelines in memory: every record in one of them, at times that happened, through failures too."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from batcher.core.buffer import FlushPolicy
from batcher.engine.assembly import DeliveryMode
from batcher.engine.pipeline import Pipeline
from batcher.engine.report import Summary
from batcher.engine.retry import RetryPolicy
from batcher.errors import SinkUnavailable
from batcher.records import Block, Partition
from batcher.telemetry.otel.spans import BatchSpans, MessagingNames
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource

A, B = Partition("events", 0), Partition("events", 1)


class Traced:
    """A pipeline that reads a log to its end, with its spans."""

    def __init__(self, delivery: DeliveryMode = "auto", *, max_elapsed_s: float | None = None) -> None:
        self.log = MemoryLog([A, B])
        self.sink = ScriptedSink(NUMBERS)
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = BatchSpans(provider.get_tracer("batcher"), MessagingNames("memory"))
        self._pipeline = Pipeline(
            MemorySource(self.log, until_eof=True),
            self.sink,
            NumberFormat(),
            name="group",
            dead_letters=MemoryDeadLetterQueue(),
            flush=FlushPolicy(max_rows=10, max_wait_s=0.02),
            retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001, max_elapsed_s=max_elapsed_s),
            delivery=delivery,
            subscribers=[self.spans],
        )

    def run(self) -> Summary:
        return self._pipeline.run()

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    @property
    def batches(self) -> list[ReadableSpan]:
        return [one for one in self.all if one.parent is None]

    def parts(self, batch: ReadableSpan) -> dict[str, ReadableSpan]:
        assert batch.context is not None
        found = [one for one in self.all if one.parent is not None and one.parent.span_id == batch.context.span_id]
        assert len({one.name for one in found}) == len(found)
        return {one.name: one for one in found}

    def total(self, name: str) -> int:
        return sum(int(str((one.attributes or {})[name])) for one in self.batches)


def fails_first(sink: ScriptedSink, times: int) -> None:
    """Let the first tries at a sink fail."""
    left = [times]

    def away(_: Block) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise SinkUnavailable("away")

    sink.before = away


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_every_record_is_in_one_span_and_every_span_is_committed(delivery: DeliveryMode) -> None:
    traced = Traced(delivery)
    traced.log.produce(A, [str(number) for number in range(95)])
    traced.log.produce(B, ["1", "x", None])
    fails_first(traced.sink, 2)
    summary = traced.run()
    traced.spans.close()

    assert traced.total("messaging.batch.message_count") == summary.consumed == 98
    assert traced.total("batcher.written") == summary.written
    assert traced.total("batcher.dead_lettered") == summary.dead_lettered == 1
    assert traced.total("batcher.skipped") == summary.skipped == 1
    assert len(traced.batches) == summary.batches
    assert all(traced.parts(one).keys() == {"decode", "write", "commit"} for one in traced.batches)
    [failed] = [one for one in traced.batches if one.status.status_code is StatusCode.ERROR]
    assert [event.name for event in failed.events] == ["retry", "retry"]
    assert (failed.attributes or {})["error.type"] == "SinkUnavailable"
    assert {(one.attributes or {})["batcher.target"] for one in traced.batches} == {"memory"}


def test_the_stages_of_a_batch_follow_each_other_within_the_run() -> None:
    traced = Traced()
    traced.log.produce(A, [str(number) for number in range(40)])
    began_ns = time.time_ns()
    traced.run()
    ended_ns = time.time_ns()
    for batch in traced.batches:
        parts = traced.parts(batch)
        times = [batch.start_time, parts["decode"].start_time, parts["decode"].end_time, parts["write"].start_time]
        times += [parts["write"].end_time, batch.end_time, parts["commit"].end_time]
        known = [one or 0 for one in times]
        assert known == sorted(known)
        # Durations are by a clock that is finer than that of the day, which may be set meanwhile.
        assert began_ns - 1_000_000 <= known[0]
        assert known[-1] <= ended_ns


def test_what_could_not_be_written_at_all_has_a_span_with_its_error() -> None:
    traced = Traced(max_elapsed_s=0.02)
    traced.log.produce(A, ["1", "2"])
    fails_first(traced.sink, 10_000)
    with pytest.raises(SinkUnavailable):
        traced.run()
    assert traced.batches == []
    traced.spans.close()
    [batch] = traced.batches
    assert (batch.status.status_code, batch.status.description) == (StatusCode.ERROR, "SinkUnavailable")
    assert (batch.attributes or {})["batcher.ranges"] == ("events[0] 0-1",)
