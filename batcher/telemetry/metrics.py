"""The numbers a pipeline keeps for Prometheus.

What happened is counted here, from events: once a batch or a fetch and never once a record. What *is* comes from the
pipeline's `Status` at the moment of the scrape, so that a partition given up disappears with it. Names have base units,
and `_total` for what only grows. Labels have few values known beforehand: no key, no error text, no file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import accumulate
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from batcher import __version__
from batcher.native import JOBS
from batcher.protocols import Distribution, Guarantee, Measure
from batcher.records import Batch, Delivered, Partition, Records, Stage, Trigger
from batcher.telemetry.events import (
    BatchWritten,
    CommitAnswered,
    CommitOutcome,
    Event,
    GuaranteeAgreed,
    Phase,
    Rebalanced,
    RebalanceKind,
    RecordsFetched,
    TimeSpent,
    WriteRetried,
)
from batcher.telemetry.status import STATES, TARGET_STATES, Status

SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LATENCY_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
ROWS: Final = (1.0, 10.0, 100.0, 1e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6)
BYTES: Final = tuple(float(1 << power) for power in range(10, 30, 2))


class Metrics:
    """Count what the pipeline does. Safe to call from any thread.

    `sink` is the name of the kind of sink. `watch` has to be called before the first scrape for the metrics
    that describe a state.
    """

    def __init__(self, sink: str = "") -> None:
        # Process-wide in the library: a `_created` series for each counter would make the page twice as long.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"batcher_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float]) -> Histogram:
            return Histogram(f"batcher_{name}", text, buckets=tuple(buckets), registry=registry)

        self._sink = sink
        self._consumed = counter("records_consumed", "Records fetched from the source.", "topic", "partition")
        self._consumed_bytes = counter("bytes_consumed", "Bytes of records fetched.", "topic", "partition")
        self._consumed_of: dict[Partition, tuple[Counter, Counter]] = {}
        self._written = counter("records_written", "Records durable in the target.", "sink").labels(sink)
        self._written_bytes = counter("bytes_written", "Raw bytes of the batches written.", "sink").labels(sink)
        letters = counter("records_dead_lettered", "Records put into the dead-letter queue.", "stage")
        self._dead_lettered = {stage: letters.labels(stage) for stage in get_args(Stage)}
        self._reasons = counter("dead_letter_reasons", "Records put into the dead-letter queue, by reason.", "reason")
        self._unknown = counter("unknown_fields", "Records with a value in a field that no column takes.", "field")
        self._skipped = counter("records_skipped", "Records without a row by policy.", "reason")
        self._released = counter("records_released", "Records given back to their queue.", "sink").labels(sink)
        batches = counter("batches", "Batches brought to a durable end.", "sink", "trigger")
        self._batches = {trigger: batches.labels(sink, trigger) for trigger in get_args(Trigger)}
        self._retries = counter("retries", "Times a block was offered to the target again.", "sink", "reason")
        self._suppressed = counter("duplicates_suppressed", "Rows not written a second time.", "sink").labels(sink)
        commits = counter("commits", "Commits of offsets.", "outcome")
        self._commits = {outcome: commits.labels(outcome) for outcome in get_args(CommitOutcome)}
        rebalances = counter("rebalances", "Times partitions came or went.", "kind")
        self._rebalances = {kind: rebalances.labels(kind) for kind in get_args(RebalanceKind)}
        loop = counter("loop_seconds", "Where the time of the threads goes.", "phase")
        self._phases = {phase: loop.labels(phase) for phase in get_args(Phase)}
        self._decode_s = histogram("decode_duration_seconds", "Decoding one batch.", SECONDS)
        self._write_s = histogram("write_duration_seconds", "Writing one batch, with retries and waits.", SECONDS)
        self._flush_s = histogram("flush_duration_seconds", "One batch from sealed to durable.", SECONDS)
        self._rows = histogram("batch_rows", "Records in one batch.", ROWS)
        self._bytes = histogram("batch_bytes", "Raw bytes of one batch.", BYTES)
        self._latency_s = histogram(
            "end_to_end_latency_seconds",
            "From the oldest record's timestamp to its batch being durable.",
            LATENCY_SECONDS,
        )
        self._last_write = Gauge(
            "batcher_last_write_timestamp_seconds",
            "When a batch was last made durable; 0 for never.",
            registry=registry,
        )
        self._last_commit = Gauge(
            "batcher_last_commit_timestamp_seconds", "When a commit last succeeded; 0 for never.", registry=registry
        )
        self._guarantees: set[Guarantee] = set()
        self._delivery = Info("batcher_delivery", "The guarantee in force.", registry=registry)
        Info("batcher_build", "What is running.", registry=registry).info(versions())

    def watch(self, status: Callable[[], Status]) -> None:
        """Take the metrics that describe a state from `status`, which is called once for each scrape. Call it once."""
        self.registry.register(StatusCollector(status))

    def __call__(self, event: Event) -> None:
        """Count an event: metrics are a subscriber of `events.Events`."""
        match event:
            case RecordsFetched(run):
                self._count_fetched(run)
            case BatchWritten(batch, delivered):
                self._count_written(batch, delivered)
            case TimeSpent(phase, seconds):
                self._phases[phase].inc(seconds)
            case CommitAnswered(outcome):
                self._commits[outcome].inc()
                if outcome == "ok":
                    self._last_commit.set_to_current_time()
            case Rebalanced(kind):
                self._rebalances[kind].inc()
            case WriteRetried(error):
                self._retries.labels(self._sink, type(error).__name__).inc()
            case GuaranteeAgreed(guarantee):
                # Several targets keep together what the weakest of them keeps.
                self._guarantees.add(guarantee)
                weakest = guarantee if len(self._guarantees) == 1 else "at-least-once"
                self._delivery.info({"guarantee": weakest, "sink": self._sink})

    def _count_fetched(self, run: Records) -> None:
        counters = self._consumed_of.get(run.partition)
        if counters is None:
            labels = (run.partition.topic, str(run.partition.number))
            counters = self._consumed.labels(*labels), self._consumed_bytes.labels(*labels)
            self._consumed_of[run.partition] = counters
        counters[0].inc(len(run))
        counters[1].inc(run.nbytes)

    def _count_written(self, batch: Batch, delivered: Delivered) -> None:
        self._batches[batch.trigger].inc()
        self._written.inc(delivered.written)
        self._written_bytes.inc(delivered.nbytes)
        self._dead_lettered["decode"].inc(delivered.dead_lettered - delivered.refused_by_sink)
        self._dead_lettered["sink"].inc(delivered.refused_by_sink)
        for reason, count in delivered.reasons.items():
            self._reasons.labels(reason).inc(count)
        for path, count in delivered.unknown_fields.items():
            self._unknown.labels(path).inc(count)
        other = delivered.dropped + delivered.filtered + delivered.paused
        self._skipped.labels("tombstone").inc(delivered.skipped - other)
        if delivered.filtered:
            self._skipped.labels("filtered").inc(delivered.filtered)
        if delivered.dropped:
            self._skipped.labels("dropped").inc(delivered.dropped)
        if delivered.paused:
            self._skipped.labels("paused").inc(delivered.paused)
        self._released.inc(delivered.released)
        self._suppressed.inc(delivered.suppressed)
        self._rows.observe(delivered.rows)
        self._bytes.observe(delivered.nbytes)
        self._decode_s.observe(delivered.decode_s)
        self._write_s.observe(delivered.write_s)
        self._flush_s.observe(delivered.decode_s + delivered.write_s)
        latency_s = _age_s(batch)
        if latency_s is not None:
            # Producers' clocks may be ahead of ours.
            self._latency_s.observe(max(latency_s, 0.0))
        self._last_write.set_to_current_time()

    def render(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()


class StatusCollector(Collector):
    """Turn a `Status` into metrics, anew for each scrape."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """Return the names without asking for a status: the pipeline may not have one yet."""
        return _families(Status("starting"))

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of this moment."""
        return _families(self._status())


def versions() -> dict[str, str]:
    """Return the versions of batcher and of the libraries it uses; empty for what is not installed."""
    found = {"version": __version__}
    for name in ("confluent-kafka", "clickhouse-connect", "pyarrow", "chdb"):
        try:
            found[name.replace("-", "_")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name.replace("-", "_")] = ""
    return found


def _age_s(batch: Batch) -> float | None:
    # The first record of each partition is as good as its oldest: producers' timestamps ascend, except for jitter.
    firsts = [first for run in batch.runs if (first := run.timestamps_ms[0].as_py()) is not None]
    return time.time() - min(firsts) / 1000 if firsts else None


def _families(status: Status) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"batcher_{name}", text, value=value)

    state = GaugeMetricFamily("batcher_state", "1 for the state the pipeline is in.", labels=["state"])
    for name in STATES:
        state.add_metric([name], float(name == status.state))
    yield state
    lag = GaugeMetricFamily(
        "batcher_consumer_lag_records", "Records in the log that are not committed.", labels=["topic", "partition"]
    )
    for partition, one in sorted(status.partitions.items()):
        if one.lag is not None:
            lag.add_metric([partition.topic, str(partition.number)], one.lag)
    yield lag
    buffer = status.buffer
    yield gauge("buffer_rows", "Records that wait in memory.", buffer.rows)
    yield gauge("buffer_bytes", "Bytes that wait in memory.", buffer.bytes)
    yield gauge("buffer_limit_bytes", "Bytes that may wait in memory; 0 if not known.", buffer.limit_bytes or 0)
    yield gauge("buffer_age_seconds", "Age of the oldest record that waits; 0 for none.", buffer.age_s or 0.0)
    yield gauge("inflight_batches", "Batches being written.", float(len(status.writing)))
    yield gauge("concurrent_batches", "Batches of different partitions that may be written at once.", status.writers)
    yield gauge("assigned_partitions", "Partitions this process owns.", len(status.partitions))
    paused = sum(one.paused for one in status.partitions.values())
    yield gauge("paused_partitions", "Partitions not read because the buffer is full.", paused)
    yield gauge("off_switch_state", "1 while the off switch holds everything, or drops it.", bool(status.off_switch))
    stopped = sum(bool(one.stopped) for one in status.partitions.values())
    yield gauge("stopped_partitions", "Partitions not read because of their intent, or without a target.", stopped)
    native = GaugeMetricFamily(
        "batcher_native_state", "1 for a job that the native extension does, 0 where Python does it.", labels=["job"]
    )
    for job in JOBS:
        native.add_metric([job], float(job in status.native))
    yield native
    yield from _target_families(status)
    yield from map(_measure_family, status.measures)


def _measure_family(measure: Measure) -> Metric:
    """Return what a sink measures of itself."""
    name, labels = f"batcher_{measure.name}", [measure.label] if measure.label else []
    if measure.kind == "histogram":
        histogram = HistogramMetricFamily(name, measure.text, labels=labels)
        for label, value in measure.values.items():
            assert isinstance(value, Distribution)
            counts = accumulate(value.counts)
            bounds = [*(str(bound) for bound in value.bounds), "+Inf"]
            histogram.add_metric([label] if labels else [], list(zip(bounds, counts, strict=True)), value.total)
        return histogram
    kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    family = kind(name, measure.text, labels=labels)
    for label, value in measure.values.items():
        assert not isinstance(value, Distribution)
        family.add_metric([label] if labels else [], value)
    return family


def _target_families(status: Status) -> Iterator[Metric]:
    """Yield what there is to say of each target, where there are several."""
    counts = {
        "records_written": "Records durable in one of several targets.",
        "records_dead_lettered": "Records of one of several targets put into the dead-letter queue.",
        "records_skipped": "Records of one of several targets without a row by policy.",
        "records_released": "Records of one of several targets given back to their queue.",
        "duplicates_suppressed": "Rows of one of several targets not written a second time.",
        "retries": "Times a block was offered to one of several targets again.",
    }
    for name, text in counts.items():
        family = CounterMetricFamily(f"batcher_target_{name}", text, labels=["target"])
        for target, one in status.targets.items():
            family.add_metric([target], getattr(one, name.removeprefix("records_")))
        yield family
    waiting = GaugeMetricFamily(
        "batcher_target_buffer_bytes", "Bytes that wait in memory for one of several targets.", labels=["target"]
    )
    state = GaugeMetricFamily(
        "batcher_target_state", "1 for the state that one of several targets is in.", labels=["target", "state"]
    )
    for target, one in status.targets.items():
        waiting.add_metric([target], one.buffer.bytes)
        for name in TARGET_STATES:
            state.add_metric([target, name], float(name == one.state))
    yield waiting
    yield state
