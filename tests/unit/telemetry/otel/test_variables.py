"""What the variables of OpenTelemetry ask for."""

from __future__ import annotations

import pytest

from batcher.telemetry.otel.variables import ExportRequest, requested, secrets_in

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HERE = "http://localhost:4318"


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, (), ()),
        ({"OTEL_SERVICE_NAME": "loader", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, (), ()),
        ({ENDPOINT: HERE}, ("otlp",), ("otlp",)),
        ({ENDPOINT: " "}, (), ()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": HERE}, ("otlp",), ()),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": HERE}, (), ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": HERE}, (), ()),
        ({ENDPOINT: HERE, "OTEL_TRACES_EXPORTER": "none"}, (), ("otlp",)),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, (), ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console, otlp,console"}, ("console", "otlp"), ()),
        ({ENDPOINT: HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ("otlp",), ("otlp",)),
        ({ENDPOINT: HERE, "OTEL_SDK_DISABLED": "True"}, (), ()),
        ({ENDPOINT: HERE, "OTEL_SDK_DISABLED": "false"}, ("otlp",), ("otlp",)),
    ],
    ids=str,
)
def test_a_signal_is_exported_where_its_exporter_or_an_endpoint_is_named(
    variables: dict[str, str], traces: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    found = requested(variables)
    assert (found.traces, found.metrics, found.refused) == (traces, metrics, ())
    assert bool(found) == bool(traces or metrics)


def test_grpc_is_refused_once_with_what_to_set() -> None:
    found = requested({ENDPOINT: HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert (found.traces, found.metrics) == ((), ())
    [message] = found.refused
    assert message.startswith("OTEL_EXPORTER_OTLP_PROTOCOL=grpc: only http/protobuf")
    assert "4318" in message
    assert found


def test_a_protocol_of_one_signal_is_of_that_signal_alone() -> None:
    found = requested({ENDPOINT: HERE, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"})
    assert (found.traces, found.metrics) == ((), ("otlp",))
    assert found.refused[0].startswith("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json")


def test_an_exporter_that_is_not_there_is_refused_by_its_name() -> None:
    found = requested({"OTEL_TRACES_EXPORTER": "zipkin,console"})
    assert found.traces == ("console",)
    assert found.refused == ("OTEL_TRACES_EXPORTER=zipkin: it can be otlp, console or none",)


@pytest.mark.parametrize(
    ("preference", "delta"),
    [("", set()), ("cumulative", set()), ("DELTA", {"counter", "histogram"}), ("lowmemory", {"histogram"})],
)
def test_the_preference_for_deltas_is_obeyed_as_the_specification_says(preference: str, delta: set[str]) -> None:
    found = requested({ENDPOINT: HERE, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": preference})
    assert found.delta == delta


def test_nothing_that_a_message_could_repeat_of_a_secret_is_left() -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=one%2Btwo, authorization=Bearer%20three",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "four",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://me:fi%20ve@collector:4318",
        "OTEL_SERVICE_NAME": "six",
    }
    found = set(secrets_in(variables))
    assert found >= {"one%2Btwo", "one+two", "Bearer three", "three", "four", "fi%20ve", "fi ve"}
    assert not found & {"six", "Bearer", "me"}


def test_an_endpoint_that_is_no_url_has_no_password() -> None:
    assert list(secrets_in({ENDPOINT: "http://[::1"})) == []


def test_nothing_is_asked_for_by_default() -> None:
    assert not ExportRequest()
