"""The registry as metrics of OpenTelemetry: the same series, the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from batcher.protocols import Distribution, Measure
from batcher.records import Delivered, Partition
from batcher.telemetry.events import BatchWritten, GuaranteeAgreed, RecordsFetched, TimeSpent
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.otel.providers import meters_of
from batcher.telemetry.otel.series import SeriesExporter, SeriesReader, unit_of
from batcher.telemetry.status import PartitionStatus, Status
from batcher.testing.values import make_batch, make_records

EVENTS_0 = Partition("events", 0)
TIMES = Measure(
    "handler_seconds", "Calls.", "histogram", {"done": Distribution((0.5, 2.0), (3, 1, 0), 2.25)}, "outcome"
)


def written(metrics: Metrics, rows: int, write_s: float = 0.3) -> None:
    run = make_records(["1"] * rows)
    metrics(RecordsFetched(run))
    delivered = Delivered(
        rows=rows,
        written=rows,
        suppressed=0,
        dead_lettered=0,
        skipped=0,
        refused_by_sink=0,
        nbytes=run.nbytes,
        decode_s=0.5,
        write_s=write_s,
    )
    metrics(BatchWritten(make_batch(run), delivered))


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics("null")
    status = Status("running", partitions={EVENTS_0: PartitionStatus(lag=41)}, measures=(TIMES,))
    made.watch(lambda: status)
    made(GuaranteeAgreed("exactly-once"))
    written(made, 3)
    written(made, 20_000)
    made(TimeSpent("fetch", 0.25))
    return made


class Kept(MetricExporter):
    """Keep what is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[MetricsData] = []
        self.ended = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.found.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.ended = True


def samples_of(found: Sequence[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return metrics as the lines of a page of Prometheus."""
    lines: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for metric in found:
        for point in metric.data.data_points:
            labels = {str(name): str(value) for name, value in (point.attributes or {}).items()}
            if isinstance(metric.data, Histogram):
                below = 0
                bounds = [*(str(bound) for bound in point.explicit_bounds), "+Inf"]  # type: ignore[union-attr]
                for bound, count in zip(bounds, point.bucket_counts, strict=True):  # type: ignore[union-attr]
                    below += count
                    lines[f"{metric.name}_bucket", frozenset({**labels, "le": bound}.items())] = below
                lines[f"{metric.name}_count", frozenset(labels.items())] = point.count  # type: ignore[union-attr]
                lines[f"{metric.name}_sum", frozenset(labels.items())] = point.sum  # type: ignore[union-attr]
            else:
                lines[metric.name, frozenset(labels.items())] = point.value  # type: ignore[union-attr]
    return lines


def test_every_line_of_the_page_of_metrics_is_exported_with_the_same_number(metrics: Metrics) -> None:
    page = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render())
        for sample in family.samples
        if not sample.name.startswith("process_")
    }
    found = samples_of([one for one in SeriesReader(metrics.registry).read() if not one.name.startswith("process_")])
    assert {_bounds(key): value for key, value in found.items()} == {_bounds(key): value for key, value in page.items()}
    assert len(found) > 100


def _bounds(key: tuple[str, frozenset[tuple[str, str]]]) -> tuple[str, frozenset[tuple[str, object]]]:
    """Return a key with the bound of a bucket as a number: `1.0` and `1` are one bound."""
    return key[0], frozenset((name, float(value) if name == "le" else value) for name, value in key[1])


def test_what_only_grows_is_a_sum_and_what_is_now_a_gauge(metrics: Metrics) -> None:
    found = {one.name: one.data for one in SeriesReader(metrics.registry).read()}
    consumed = found["batcher_records_consumed_total"]
    assert isinstance(consumed, Sum)
    assert consumed.is_monotonic
    assert consumed.aggregation_temporality is AggregationTemporality.CUMULATIVE
    assert isinstance(found["batcher_consumer_lag_records"], Gauge)
    assert isinstance(found["batcher_batch_rows"], Histogram)
    [seconds] = [
        one for one in found["batcher_loop_seconds_total"].data_points if one.attributes == {"phase": "commit"}
    ]
    assert isinstance(seconds.value, float)  # type: ignore[union-attr]


def test_a_measure_of_a_sink_is_exported_as_a_histogram(metrics: Metrics) -> None:
    [found] = [one for one in SeriesReader(metrics.registry).read() if one.name == "batcher_handler_seconds"]
    [point] = found.data.data_points
    assert isinstance(found.data, Histogram)
    assert point.attributes == {"outcome": "done"}
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([3, 1, 0], [0.5, 2.0])  # type: ignore[union-attr]
    assert (point.count, point.sum) == (4, 2.25)  # type: ignore[union-attr]


def test_units_follow_the_names_and_none_is_one(metrics: Metrics) -> None:
    units = {one.name: one.unit for one in SeriesReader(metrics.registry).read()}
    assert units["batcher_records_written_total"] == "{record}"
    assert units["batcher_bytes_written_total"] == "By"
    assert units["batcher_flush_duration_seconds"] == "s"
    assert units["batcher_batches_total"] == "{batch}"
    assert units["batcher_state"] == ""
    assert "1" not in units.values()
    assert unit_of("process_cpu_seconds_total") == "s"


def test_deltas_add_up_to_the_whole(metrics: Metrics) -> None:
    now = [0]
    reader = SeriesReader(metrics.registry, ("counter", "histogram"), lambda: now[0])
    told: list[dict[tuple[str, frozenset[tuple[str, str]]], float]] = []
    spans = []
    for tick in (10, 20, 30):
        now[0] = tick
        found = reader.read()
        told.append(samples_of(found))
        [rows] = [one for one in found if one.name == "batcher_batch_rows"]
        assert isinstance(rows.data, Histogram)
        assert rows.data.aggregation_temporality is AggregationTemporality.DELTA
        spans.append((rows.data.data_points[0].start_time_unix_nano, rows.data.data_points[0].time_unix_nano))
        if tick == 10:
            written(metrics, 5)
    assert spans == [(0, 10), (10, 20), (20, 30)]
    written_rows = ("batcher_records_written_total", frozenset({("sink", "null")}))
    assert [one[written_rows] for one in told] == [20_003, 5, 0]
    assert [one["batcher_batch_rows_count", frozenset()] for one in told] == [2, 1, 0]
    assert [one["batcher_batch_rows_sum", frozenset()] for one in told] == [20_003, 5, 0]
    lag = ("batcher_consumer_lag_records", frozenset({("topic", "events"), ("partition", "0")}))
    assert [one[lag] for one in told] == [41, 41, 41]


def test_the_sdk_comes_round_for_the_series_and_once_more_at_the_end(metrics: Metrics) -> None:
    kept = Kept()
    exporter = SeriesExporter(kept, SeriesReader(metrics.registry))
    meters = meters_of(Resource({"service.name": "loader"}), [PeriodicExportingMetricReader(exporter, 3_600_000)])
    meters.force_flush()
    written(metrics, 7)
    meters.shutdown()
    assert kept.ended
    assert len(kept.found) == 2
    totals = []
    for one in kept.found:
        [of_resource] = one.resource_metrics
        [of_scope] = of_resource.scope_metrics
        assert (of_resource.resource.attributes["service.name"], of_scope.scope.name) == ("loader", "batcher")
        names = [metric.name for metric in of_scope.metrics]
        assert len(set(names)) == len(names)
        totals.append(samples_of(of_scope.metrics)["batcher_records_written_total", frozenset({("sink", "null")})])
    assert totals == [20_003, 20_010]
