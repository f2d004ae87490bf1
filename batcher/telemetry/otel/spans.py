"""Batches as spans: one for each, from the begin of its decoding to its last record being durable.

    flush events        every record of a batch once; a `retry` event for each try that failed
    ├── decode          the transform included
    ├── write           the target and the dead-letter queue, with retries and waits
    └── commit          the commit that covers it, when there was one; it may be that of several batches

A span is made when its batch is durable, because only then there is something to say. Batches that were tried and are
not durable at the end get one as well, with the error. A batch begins a trace of its own: it is none of the traces
that its records belong to, and links to some of them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from batcher.records import Batch, Delivered, Partition, Position, Range
from batcher.telemetry.events import (
    BatchWritten,
    CommitAnswered,
    Event,
    GuaranteeAgreed,
    Rebalanced,
    RetriesEnded,
    WriteRetried,
)

MAX_LINKS: Final = 32
"""Records of a batch that are looked at for a trace to link to. It does not grow with the batch."""

MAX_RETRIES: Final = 32
"""Failed tries that a span has as events; a target that is away for a night has thousands. The rest is counted."""

MAX_RANGES: Final = 8

MAX_OPEN: Final = 256
"""Batches whose commit is waited for, and those that fail. More are forgotten: what is never committed has no end."""

Attributes = dict[str, AttributeValue]

_PROPAGATOR: Final = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class MessagingNames:
    """Say what the spans of a pipeline have in common, in OpenTelemetry's words."""

    system: str
    group: str = ""
    sink: str = ""

    def attributes(self, operation: str, kind: str) -> Attributes:
        """Return what a span of an operation has."""
        found: Attributes = {
            "messaging.system": self.system,
            "messaging.operation.name": operation,
            "messaging.operation.type": kind,
        }
        if self.group:
            found["messaging.consumer.group.name"] = self.group
        return found


@dataclass(slots=True)
class _Failures:
    """Count the tries at a batch that failed, the first of them with their times."""

    events: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0
    last: str = ""
    over: bool = False
    """The last of them was followed by one that did not fail, or the batch has another owner."""

    def add(self, at_ns: int, kind: str) -> None:
        self.count += 1
        self.last = kind
        self.over = False
        if len(self.events) < MAX_RETRIES:
            self.events.append((at_ns, kind))


class BatchSpans:
    """Make a span of each batch: a subscriber of `events.Events`. Any thread."""

    def __init__(self, tracer: Tracer, names: MessagingNames, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._tracer = tracer
        self._names = names
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._targets: dict[str, str] = {}
        self._failing: dict[tuple[str, Range], _Failures] = {}
        self._uncommitted: deque[tuple[Sequence[Range], SpanContext]] = deque(maxlen=MAX_OPEN)
        self._committed: dict[Partition, int] = {}

    def __call__(self, event: Event) -> None:
        """Take note of an event, and end the span that it ends."""
        match event:
            case BatchWritten(batch, delivered, target):
                self._written(batch, delivered, target)
            case WriteRetried(error, target, span) if span is not None:
                self._retried(error, target, span)
            case CommitAnswered("ok", positions, seconds):
                self._committed_to(positions, seconds)
            case RetriesEnded(span, target):
                with self._lock:
                    if (target, span) in self._failing:
                        self._failing[target, span].over = True
            case Rebalanced("lost"):
                with self._lock:  # others commit what follows
                    self._uncommitted.clear()
            case GuaranteeAgreed(_, target, described):
                self._targets[target] = described
            case _:
                pass

    def close(self) -> None:
        """Make the spans of the batches that still fail, at the end of the pipeline."""
        with self._lock:
            failing, self._failing = self._failing, {}
        for (target, span), failures in failing.items():
            if failures.over:
                continue
            made = self._started(self._attributes([span], target), failures.events[0][0])
            _fail(made, failures)
            made.end(self._clock_ns())

    def _retried(self, error: BaseException, target: str, span: Range) -> None:
        now_ns = self._clock_ns()
        with self._lock:
            found = self._failing.setdefault((target, span), _Failures())
            found.add(now_ns, type(error).__name__)
            if len(self._failing) > MAX_OPEN:
                del self._failing[next(iter(self._failing))]

    def _written(self, batch: Batch, delivered: Delivered, target: str) -> None:
        end_ns = self._clock_ns()
        with self._lock:
            failures = self._failing.pop((target, batch.ranges[0]), None)
        write_ns = end_ns - _ns(delivered.write_s)
        decoded_ns = write_ns - _ns(delivered.waited_s)
        decode_ns = decoded_ns - _ns(delivered.decode_s)
        # Where a registry of schemas did not answer, it failed before the decoding that succeeded.
        began_ns = min(decode_ns, failures.events[0][0]) if failures is not None else decode_ns
        span = self._started(self._attributes(batch.ranges, target) | _counts(batch, delivered), began_ns)
        context = set_span_in_context(span, Context())
        if span.is_recording():
            for link in links_of(batch):
                span.add_link(link)
            decode = self._tracer.start_span("decode", context, start_time=decode_ns)
            if delivered.transform_s:
                decode.set_attribute("batcher.transform_seconds", delivered.transform_s)
            decode.end(decoded_ns)
            write = self._tracer.start_span("write", context, SpanKind.CLIENT, start_time=write_ns)
            if failures is not None:
                _fail(span, failures)
                write.set_status(Status(StatusCode.ERROR, failures.last))
            write.end(end_ns)
            with self._lock:
                self._uncommitted.append((batch.ranges, span.get_span_context()))
        span.end(end_ns)

    def _committed_to(self, positions: Mapping[Partition, Position], seconds: float) -> None:
        end_ns = self._clock_ns()
        with self._lock:
            self._committed.update({partition: at.next_offset for partition, at in positions.items()})
            done = [one for one in self._uncommitted if self._covers(one[0])]
            for one in done:
                self._uncommitted.remove(one)
        for _, context in done:
            span = self._tracer.start_span(
                "commit",
                set_span_in_context(NonRecordingSpan(context), Context()),
                SpanKind.CLIENT,
                self._names.attributes("commit", "settle"),
                start_time=end_ns - _ns(seconds),
            )
            span.end(end_ns)

    def _covers(self, ranges: Sequence[Range]) -> bool:
        return all(self._committed.get(one.partition, -1) >= one.next_offset for one in ranges)

    def _started(self, attributes: Attributes, began_ns: int) -> Span:
        topic = attributes.get("messaging.destination.name")
        name = f"flush {topic}" if topic else "flush"
        # A context of its own: a program around this pipeline may have a span open, which is not a part of it.
        return self._tracer.start_span(name, Context(), SpanKind.CONSUMER, attributes, start_time=began_ns)

    def _attributes(self, ranges: Sequence[Range], target: str) -> Attributes:
        found = self._names.attributes("flush", "process")
        topics = {one.partition.topic for one in ranges}
        if len(topics) == 1:
            found["messaging.destination.name"] = topics.pop()
        if len(ranges) == 1:
            found["messaging.destination.partition.id"] = str(ranges[0].partition.number)
        found["batcher.partitions"] = len(ranges)
        found["batcher.ranges"] = [str(one) for one in ranges[:MAX_RANGES]]
        said = {
            "batcher.sink": self._names.sink,
            "batcher.target": self._targets.get(target, ""),
            "batcher.route": target,
        }
        return found | {name: text for name, text in said.items() if text}


def links_of(batch: Batch) -> Iterator[SpanContext]:
    """Yield the traces that records of a batch belong to, each once: of up to MAX_LINKS records, evenly spread."""
    step = max(-(-batch.rows // MAX_LINKS), 1)
    seen = set()
    skip = 0
    for run in batch.runs:
        rows = range(skip, len(run), step)
        skip = (skip - len(run)) % step
        if run.headers is None or not rows:
            continue
        for headers in run.headers.take(pa.array(rows, pa.int64())).to_pylist():
            context = _trace_of(headers or ())
            name = context.trace_id, context.span_id
            if context.is_valid and name not in seen:
                seen.add(name)
                yield context


def _trace_of(headers: Sequence[Mapping[str, bytes | str | None]]) -> SpanContext:
    carrier: dict[str, str] = {}
    for header in headers:
        name, value = header["key"], header["value"]
        if name in ("traceparent", "tracestate") and isinstance(value, bytes):
            carrier.setdefault(str(name), value.decode("ascii", "replace"))
    return get_current_span(_PROPAGATOR.extract(carrier, Context())).get_span_context()


def _counts(batch: Batch, delivered: Delivered) -> Attributes:
    return {
        "messaging.batch.message_count": delivered.rows,
        "batcher.batch": batch.number,
        "batcher.trigger": batch.trigger,
        "batcher.replayed": batch.replayed,
        "batcher.bytes": delivered.nbytes,
        "batcher.written": delivered.written,
        "batcher.dead_lettered": delivered.dead_lettered,
        "batcher.skipped": delivered.skipped,
        "batcher.duplicates_suppressed": delivered.suppressed,
        "batcher.released": delivered.released,
    }


def _fail(span: Span, failures: _Failures) -> None:
    for at_ns, kind in failures.events:
        span.add_event("retry", {"error.type": kind}, at_ns)
    span.set_attribute("error.type", failures.last)
    span.set_attribute("batcher.retries", failures.count)
    span.set_status(Status(StatusCode.ERROR, failures.last))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
