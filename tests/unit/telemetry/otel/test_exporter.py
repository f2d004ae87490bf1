"""The life of an export: what begins, what it costs where it fails, and what it never does to a pipeline."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from batcher.records import Delivered
from batcher.telemetry.events import BatchWritten
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.otel import exporter as exporter_module
from batcher.telemetry.otel import providers
from batcher.telemetry.otel.exporter import FLUSH_S, ExportedPipeline, OtelExporter, flush_s
from batcher.telemetry.otel.providers import Exporting, resource_of
from batcher.telemetry.otel.sdk_log import EVERY_S, LOGGER, SdkLogHandler
from batcher.telemetry.otel.variables import ExportRequest
from batcher.testing.values import make_batch, make_records

TRACES = ExportRequest(traces=("otlp",))
DELIVERED = Delivered(
    rows=2,
    written=2,
    suppressed=0,
    dead_lettered=0,
    skipped=0,
    refused_by_sink=0,
    nbytes=100,
    decode_s=0.1,
    write_s=0.1,
)
WRITTEN = BatchWritten(make_batch(make_records(["1", "2"])), DELIVERED)


@pytest.fixture(autouse=True)
def _nothing_heard_of_the_sdk_afterwards() -> Iterator[None]:
    """Take away what an export that was cut short leaves behind."""
    yield
    logger = logging.getLogger(LOGGER)
    logger.handlers[:] = []
    logger.propagate = True


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Return where spans go instead of a collector."""
    kept = InMemorySpanExporter()
    monkeypatch.setattr(providers, "_span_exporter", lambda _: kept)
    return kept


def pipeline(worker: int | None = None) -> ExportedPipeline:
    return ExportedPipeline(Metrics("null").registry, "kafka", "loaders", "null", worker)


def test_spans_are_exported_by_the_end_and_not_before_the_begin(exported: InMemorySpanExporter) -> None:
    exporter = OtelExporter(TRACES, pipeline())
    exporter(WRITTEN)
    with capture_logs() as logged, exporter.running():
        exporter(WRITTEN)
    assert sorted(one.name for one in exported.get_finished_spans()) == ["decode", "flush events", "write"]
    assert [one["event"] for one in logged] == ["otel_exports"]
    assert logging.getLogger(LOGGER).handlers == []


def test_where_the_extra_is_not_installed_one_line_says_so_and_the_pipeline_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "batcher.telemetry.otel.providers")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    exporter = OtelExporter(TRACES, pipeline())
    with capture_logs() as logged, exporter.running():
        exporter(WRITTEN)
    [line] = logged
    assert (line["event"], line["log_level"]) == ("otel_not_exported", "warning")
    assert "pip install 'kafka-batcher[otel]'" in line["reason"]


@pytest.mark.parametrize(("worker", "said"), [(None, 1), (0, 1), (1, 0), (7, 0)])
def test_of_several_workers_the_first_says_for_all_what_cannot_be_done(worker: int | None, said: int) -> None:
    with capture_logs() as logged, OtelExporter(ExportRequest(refused=("no grpc",)), pipeline(worker)).running():
        pass
    assert [one["reason"] for one in logged] == ["no grpc"] * said


def test_a_variable_that_the_sdk_refuses_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with capture_logs() as logged, OtelExporter(TRACES, pipeline()).running():
        pass
    [line] = logged
    assert line["event"] == "otel_not_exported"
    assert "max_queue_size" in line["reason"]


def failing(*_: object) -> None:
    raise RuntimeError("a bug")


def test_a_fault_of_the_export_ends_the_spans_and_not_the_pipeline(
    exported: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.telemetry.otel.spans.BatchSpans._written", failing)
    exporter = OtelExporter(TRACES, pipeline())
    with capture_logs() as logged, exporter.running():
        exporter(WRITTEN)
        exporter(WRITTEN)
    assert [one["event"] for one in logged] == ["otel_exports", "otel_spans_ended"]


def begun(monkeypatch: pytest.MonkeyPatch, *ends: Callable[[], None]) -> None:
    monkeypatch.setattr(providers, "exporting", lambda *_: Exporting(None, ends))


def test_an_end_that_hangs_is_left_behind_with_a_warning_and_still_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    released, ended = threading.Event(), threading.Event()

    def hanging() -> None:
        released.wait()
        ended.set()

    begun(monkeypatch, hanging)
    with capture_logs() as logged:
        with OtelExporter(TRACES, pipeline(), 0.01).running():
            pass
        for _ in range(10):
            logging.getLogger(f"{LOGGER}.sdk").error("Failed to export")
    assert not ended.is_set()
    released.set()
    assert ended.wait(30)
    assert [one["event"] for one in logged] == ["otel_exports", "otel_not_flushed", "otel_export_failed"]


def test_an_end_that_fails_is_one_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun(monkeypatch, failing)
    with capture_logs() as logged, OtelExporter(TRACES, pipeline()).running():
        pass
    assert [one["event"] for one in logged] == ["otel_exports"]


def test_an_error_of_the_pipeline_is_still_the_one_that_comes_out(exported: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError, match="pipeline"), OtelExporter(TRACES, pipeline()).running():
        raise KeyError("pipeline")


@pytest.mark.parametrize(("stop_s", "flush"), [(25.0, FLUSH_S), (5.0, 0.5), (300.0, FLUSH_S)])
def test_the_flush_takes_a_part_of_a_stop_and_two_seconds_at_most(stop_s: float, flush: float) -> None:
    assert flush_s(stop_s) == flush
    assert OtelExporter(TRACES, pipeline(), flush_s(stop_s)).flush_s == flush
    assert OtelExporter(ExportRequest(refused=("no",)), pipeline(), flush_s(stop_s)).flush_s == 0


def test_the_sdk_is_heard_once_a_minute_with_the_number_of_what_was_not_said() -> None:
    now = [0.0]
    handler = SdkLogHandler(lambda: now[0])
    logger = logging.Logger("sdk")  # noqa: LOG001 - of this test alone
    logger.addHandler(handler)
    with capture_logs() as logged:
        for now[0] in (0.0, 1.0, EVERY_S - 1, EVERY_S + 1, EVERY_S + 2):
            logger.warning("no answer at %s", now[0])
            logger.info("nothing of this")
    assert [(one["event"], one["error"], one.get("unsaid")) for one in logged] == [
        ("otel_export_failed", "no answer at 0.0", None),
        ("otel_export_failed", f"no answer at {EVERY_S + 1}", 2),
    ]


def test_an_exception_of_the_sdk_is_named_without_its_traceback() -> None:
    logger = logging.Logger("sdk")  # noqa: LOG001 - as above
    logger.addHandler(SdkLogHandler())
    with capture_logs() as logged:
        try:
            failing()
        except RuntimeError:
            logger.exception("Exception while exporting")
    assert logged[0]["error"] == "Exception while exporting RuntimeError: a bug"


def attributes(worker: int | None = None) -> dict[str, Any]:
    return dict(resource_of(worker).attributes)


def test_the_service_is_batcher_unless_the_variables_say_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attributes()["service.name"] == "batcher"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=one,service.version=9,team=data")
    found = attributes()
    assert (found["service.name"], found["service.version"], found["team"]) == ("one", "9", "data")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "two")
    assert attributes()["service.name"] == "two"


def test_workers_are_told_apart_also_where_the_instance_was_named_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "batcher.worker" not in attributes()
    assert attributes(3)["batcher.worker"] == 3
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7")
    assert attributes()["service.instance.id"] == "pod-7"
    assert [attributes(number)["service.instance.id"] for number in (0, 1)] == ["pod-7-0", "pod-7-1"]


def test_metrics_of_what_has_none_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = ExportedPipeline(None, "sqs")
    assert bare.system == "aws_sqs"
    with capture_logs() as logged, OtelExporter(ExportRequest(metrics=("otlp",)), bare).running():
        pass
    assert [one["event"] for one in logged] == ["otel_exports"]
    assert exporter_module.FLUSH_S == FLUSH_S
