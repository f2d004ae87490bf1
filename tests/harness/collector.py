"""A collector of OpenTelemetry on loopback: it takes OTLP over HTTP and keeps it, or behaves badly."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, NamedTuple, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Manner = Literal["takes", "refuses", "hangs"]

Labels = frozenset[tuple[str, object]]


class CollectedSpan(NamedTuple):
    """Hold a span as it came. `parent` is empty where it begins its trace."""

    name: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    trace: bytes
    span: bytes
    parent: bytes
    links: tuple[bytes, ...]
    """The traces it links to."""
    began_ns: int
    ended_ns: int
    events: tuple[str, ...]
    error: str
    """The message of its status where that is an error; empty else."""


class OtlpCollector:
    """Answer at `endpoint` from `with` to the end of the block."""

    def __init__(self, manner: Manner = "takes") -> None:
        self.spans: list[CollectedSpan] = []
        self.metrics: dict[tuple[str, Labels], float] = {}
        """What each series said last; of a histogram the sum, and the number of its values under `NAME_count`."""
        self.units: dict[str, str] = {}
        self.resources: list[Mapping[str, Any]] = []
        """Those of the metrics."""
        self.headers: list[Mapping[str, str]] = []
        self.asked = 0
        self._manner = manner
        self._ended = threading.Event()
        self._keeping = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                collector.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector._manner == "hangs":
                    collector._ended.wait()
                elif collector._manner == "takes":
                    collector._take(self.path, body, dict(self.headers))
                self.send_response(503 if collector._manner == "refuses" else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint: Final = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def batches(self) -> list[CollectedSpan]:
        """Return the spans that are no part of another one."""
        return [one for one in self.spans if not one.parent]

    def value(self, name: str, **labels: str) -> float:
        """Return what a series said last, in all of those with these labels."""
        wanted = set(labels.items())
        return sum(value for (one, found), value in self.metrics.items() if one == name and wanted <= found)

    def _take(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        with self._keeping:
            self.headers.append(headers)
            if path == "/v1/traces":
                self._take_spans(ExportTraceServiceRequest.FromString(body))
            elif path == "/v1/metrics":
                self._take_metrics(ExportMetricsServiceRequest.FromString(body))

    def _take_spans(self, request: Any) -> None:
        for of_resource in request.resource_spans:
            resource = _plain(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += [_span(one, resource) for one in of_scope.spans]

    def _take_metrics(self, request: Any) -> None:
        for of_resource in request.resource_metrics:
            self.resources.append(_plain(of_resource.resource.attributes))
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    self.units[metric.name] = metric.unit
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        self._keep(metric.name, frozenset(_plain(point.attributes).items()), point)

    def _keep(self, name: str, labels: Labels, point: Any) -> None:
        if hasattr(point, "bucket_counts"):
            self.metrics[name, labels] = point.sum
            self.metrics[f"{name}_count", labels] = point.count
        else:
            self.metrics[name, labels] = getattr(point, point.WhichOneof("value"))


def _span(one: Any, resource: Mapping[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        one.name,
        _plain(one.attributes),
        resource,
        one.trace_id,
        one.span_id,
        one.parent_span_id,
        tuple(link.trace_id for link in one.links),
        one.start_time_unix_nano,
        one.end_time_unix_nano,
        tuple(event.name for event in one.events),
        one.status.message if one.status.code == one.status.STATUS_CODE_ERROR else "",
    )


def _plain(attributes: Iterable[Any]) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
