"""Make what the SDK needs: a resource, a provider for each signal, an exporter for each place. It imports the SDK."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from batcher import __version__
from batcher.telemetry.otel.exporter import ExportedPipeline
from batcher.telemetry.otel.series import DRIVER, SeriesExporter, SeriesReader
from batcher.telemetry.otel.spans import BatchSpans, MessagingNames
from batcher.telemetry.otel.variables import ExporterKind, ExportRequest

SERVICE: Final = "batcher"
"""The name of the service, and of the scope of all that is exported."""


@dataclass(frozen=True, slots=True)
class Exporting:
    """Hold what has begun: what hears of events, and what ends it, each of which may hang."""

    spans: BatchSpans | None
    ends: tuple[Callable[[], None], ...]


def exporting(request: ExportRequest, pipeline: ExportedPipeline, flush_s: float) -> Exporting:
    """Begin to export. Raise what the SDK raises for variables that mean nothing."""
    resource = resource_of(pipeline.worker)
    spans, ends = None, list[Callable[[], None]]()
    if request.traces:
        tracers = tracers_of(resource, map(_span_exporter, request.traces))
        names = MessagingNames(pipeline.system, pipeline.group, pipeline.sink)
        spans = BatchSpans(tracers.get_tracer(SERVICE, __version__), names)
        ends.append(tracers.shutdown)
    registry = pipeline.registry
    if request.metrics and registry is not None:
        exporters = [
            SeriesExporter(_metric_exporter(kind), SeriesReader(registry, request.delta if kind == "otlp" else ()))
            for kind in request.metrics
        ]
        meters = meters_of(resource, map(PeriodicExportingMetricReader, exporters))
        ends.append(partial(meters.shutdown, flush_s * 1000))
    return Exporting(spans, tuple(ends))


def resource_of(worker: int | None = None) -> Resource:
    """Return what the telemetry is of, as the variables say it; each of several workers is an instance of its own."""
    found = Resource.create()
    own: dict[str, str | int] = {"service.version": __version__} if "service.version" not in found.attributes else {}
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        own["service.name"] = SERVICE
    given = OTELResourceDetector().detect().attributes.get("service.instance.id")
    if worker is not None:
        own["batcher.worker"] = worker
    if worker is not None and given is not None:
        own["service.instance.id"] = f"{given}-{worker}"
    return found.merge(Resource(own))


def tracers_of(resource: Resource, exporters: Iterable[SpanExporter]) -> TracerProvider:
    """Return what makes spans; they are exported on a thread of the SDK, and dropped where its queue is full."""
    made = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        made.add_span_processor(BatchSpanProcessor(exporter))
    return made


def meters_of(resource: Resource, readers: Iterable[PeriodicExportingMetricReader]) -> MeterProvider:
    """Return what exports metrics, each time a reader comes round on its thread."""
    made = MeterProvider(list(readers), resource, shutdown_on_exit=False)
    meter = made.get_meter(SERVICE, __version__)
    meter.create_observable_gauge(DRIVER, [_always])
    return made


def _always(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(1)]


def _span_exporter(kind: ExporterKind) -> SpanExporter:
    # Standard output is for data.
    return OTLPSpanExporter() if kind == "otlp" else ConsoleSpanExporter(out=sys.stderr)


def _metric_exporter(kind: ExporterKind) -> MetricExporter:
    return OTLPMetricExporter() if kind == "otlp" else ConsoleMetricExporter(out=sys.stderr)
