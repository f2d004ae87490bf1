"""The registry of `metrics.py` as metrics of OpenTelemetry, under the same names.

Nothing is counted twice: when the SDK's reader comes round, the registry is asked as by a scrape of `/metrics`. The SDK
knows no histogram that is read from elsewhere, so its exporters are given the data points ready made. Names keep
`_total` and `_seconds`: what turns OTLP into Prometheus's series adds no suffix that is there already, so a dashboard
for one fits the other. The unit of a gauge is never `1`, for which `_ratio` would be added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

DRIVER: Final = "batcher_build_info"
"""The only instrument that the SDK has; without one it would never come round."""

_UNITS: Final = (
    ("timestamp_seconds", "s"),
    ("seconds", "s"),
    ("bytes", "By"),
    ("records", "{record}"),
    ("rows", "{record}"),
    ("duplicates", "{record}"),
    ("dead_letter_reasons", "{record}"),
    ("unknown_fields", "{record}"),
    ("batches", "{batch}"),
    ("partitions", "{partition}"),
)
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_DELTA: Final = AggregationTemporality.DELTA

Labels = frozenset[tuple[str, str]]
Grown = Literal["counter", "histogram"]


def unit_of(name: str) -> str:
    """Return the unit of a series by its name, as UCUM writes it; empty where it counts something else."""
    return next((unit for part, unit in _UNITS if part in name), "")


class SeriesReader:
    """Read the series of a registry as metrics. `delta` has the kinds that are told as what was added since before."""

    def __init__(
        self,
        registry: Collector,
        delta: Iterable[Grown] = (),
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._registry = registry
        self._delta = frozenset(delta)
        self._clock_ns = clock_ns
        self._began_ns = clock_ns()
        self._told_ns = self._began_ns
        self._told: dict[tuple[str, Labels], NumberDataPoint | HistogramDataPoint] = {}

    def read(self) -> list[Metric]:
        """Return all series as they are now. One thread at a time."""
        now_ns = self._clock_ns()
        found = [self._metric(family, now_ns) for family in self._registry.collect()]
        self._told_ns = now_ns
        return [metric for metric in found if metric.data.data_points]

    def _metric(self, family: Family, now_ns: int) -> Metric:
        data: Sum | Gauge | Histogram
        name = family.name
        if family.type == "histogram":
            points = self._since("histogram", name, _histograms(family, self._began_ns, now_ns))
            data = Histogram(points, self._temporality("histogram"))
        elif family.type == "counter":
            name = f"{name}_total"
            counts = self._since("counter", name, _numbers(family, name, self._began_ns, now_ns))
            data = Sum(counts, self._temporality("counter"), is_monotonic=True)
        else:
            name = f"{name}_info" if family.type == "info" else name
            data = Gauge(_numbers(family, name, self._began_ns, now_ns))
        return Metric(name, family.documentation, unit_of(name), data)

    def _temporality(self, kind: Grown) -> AggregationTemporality:
        return _DELTA if kind in self._delta else _CUMULATIVE

    def _since(self, kind: Grown, name: str, points: Sequence[Any]) -> list[Any]:
        """Return points as they are, or less what was told of them before."""
        if kind not in self._delta:
            return list(points)
        added = []
        for point in points:
            key = (name, frozenset(point.attributes.items()))
            added.append(_less(point, self._told.get(key), self._told_ns))
            self._told[key] = point
        return added


def _less(point: Any, before: Any, since_ns: int) -> Any:
    if isinstance(point, NumberDataPoint):
        value = point.value - (before.value if before is not None else 0)
        return replace(point, value=value, start_time_unix_nano=since_ns)
    if before is None:
        return replace(point, start_time_unix_nano=since_ns)
    counts = [now - then for now, then in zip(point.bucket_counts, before.bucket_counts, strict=True)]
    return replace(
        point,
        count=point.count - before.count,
        sum=point.sum - before.sum,
        bucket_counts=counts,
        start_time_unix_nano=since_ns,
    )


def _numbers(family: Family, name: str, began_ns: int, now_ns: int) -> list[NumberDataPoint]:
    samples = (sample for sample in family.samples if sample.name == name)
    # A series is of one kind: seconds are fractions, also when there happen to be none.
    number = float if unit_of(name) == "s" else _number
    return [NumberDataPoint(dict(one.labels), began_ns, now_ns, number(one.value)) for one in samples]


def _histograms(family: Family, began_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    """Return a point for each set of labels; Prometheus's buckets hold those below them too, OpenTelemetry's do not."""
    series: dict[Labels, dict[str, Any]] = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        bound = labels.pop("le", "")
        one = series.setdefault(frozenset(labels.items()), {"bounds": [], "below": [], "sum": 0.0})
        if sample.name.endswith("_bucket"):
            one["bounds"].append(float(bound))
            one["below"].append(int(sample.value))
        elif sample.name.endswith("_sum"):
            one["sum"] = sample.value
    unknown = cast("float", None)  # the protocol has them as optional, and Prometheus does not know them
    return [
        HistogramDataPoint(
            dict(labels),
            began_ns,
            now_ns,
            count=one["below"][-1],
            sum=one["sum"],
            bucket_counts=[now - then for now, then in zip(one["below"], [0, *one["below"]], strict=False)],
            explicit_bounds=one["bounds"][:-1],
            min=unknown,
            max=unknown,
        )
        for labels, one in series.items()
    ]


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


class SeriesExporter(MetricExporter):
    """Export the series of a reader through another exporter, each time the SDK comes round."""

    def __init__(self, exporter: MetricExporter, series: SeriesReader) -> None:
        super().__init__()
        self._exporter = exporter
        self._series = series

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Pass on the series under the resource and scope of what the SDK has."""
        [of_resource] = metrics_data.resource_metrics
        [of_scope] = of_resource.scope_metrics
        scope = ScopeMetrics(of_scope.scope, self._series.read(), of_scope.schema_url)
        whole = MetricsData([replace(of_resource, scope_metrics=[scope])])
        return self._exporter.export(whole, timeout_millis=timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis, **kwargs)
