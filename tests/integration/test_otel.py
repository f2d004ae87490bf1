"""OpenTelemetry from the command line: what a collector gets of a real run, and what a bad one costs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

import pytest

from batcher.testing.kafka import Broker
from tests.harness.collector import OtlpCollector
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess, Ending, run

pytestmark = [pytest.mark.broker]

PARTITIONS = 2
RECORDS = 3_000
TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "canary-9f3a"

BOUND_S = 2.0
MARGIN_S = 3.0
"""What a busy machine may add to the end of a process."""


@pytest.fixture
def source(broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str]) -> Sequence[str]:
    topic = new_topic(PARTITIONS)
    values = [b'{"id": %d}' % number for number in range(RECORDS)]
    for partition in range(PARTITIONS):
        own = values[partition::PARTITIONS]
        traced = (("traceparent", f"00-{TRACE}-b7ad6b716920333{partition}-01".encode()),)
        broker.produce(topic, own, partition=partition, headers=[traced] * len(own))
    return ("-b", broker.bootstrap, "-t", topic, "-g", new_group())


def exported(collector: OtlpCollector, *arguments: str, **variables: str) -> Ending:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **variables}
    return run(*arguments, "--json", "--log.format", "json", environment=environment)


def test_spans_cover_every_record_once_and_metrics_agree_with_the_summary(source: Sequence[str]) -> None:
    with OtlpCollector() as collector:
        done = exported(
            collector,
            *("--sink", "null", "--until-eof", "--batch.max-rows", "500", *source),
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        )
    assert done.code == 0, done.stderr
    facts = done.facts
    assert facts["consumed"] == facts["written"] == RECORDS
    batches = collector.batches
    assert sum(one.attributes["messaging.batch.message_count"] for one in batches) == RECORDS
    assert len(batches) == facts["batches"] > 1
    ranges = [text for one in batches for text in one.attributes["batcher.ranges"]]
    assert len(set(ranges)) == len(ranges)

    topic, group = source[3], source[5]
    for one in batches:
        assert one.name == f"flush {topic}"
        assert one.attributes["messaging.system"] == "kafka"
        assert one.attributes["messaging.destination.name"] == topic
        assert one.attributes["messaging.consumer.group.name"] == group
        assert one.resource["service.name"] == "batcher"
        assert one.resource["deployment.environment.name"] == "test"
        assert set(one.links) == {bytes.fromhex(TRACE)}
        parts = {part.name: part for part in collector.spans if part.parent == one.span}
        assert parts.keys() == {"decode", "write", "commit"}
        assert one.began_ns <= parts["decode"].began_ns <= parts["write"].began_ns <= one.ended_ns
        assert parts["commit"].ended_ns >= one.ended_ns

    assert collector.value("batcher_records_consumed_total", topic=topic) == RECORDS
    assert collector.value("batcher_records_written_total", sink="null") == RECORDS
    assert collector.value("batcher_batches_total") == facts["batches"]
    assert collector.value("batcher_batch_rows") == RECORDS
    assert collector.value("batcher_batch_rows_count") == facts["batches"]
    assert collector.value("batcher_build_info", version=batches[0].resource["service.version"]) == 1


@pytest.mark.parametrize("manner", ["refuses", "hangs"])
def test_a_collector_that_refuses_or_hangs_costs_the_end_no_more_than_the_bound(
    source: Sequence[str], manner: str
) -> None:
    # A tenth of it would be more than the bound.
    arguments = ("--sink", "null", "--stop-timeout", "100s", *source)
    with OtlpCollector("refuses" if manner == "refuses" else "hangs") as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={SECRET}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
        }
        with BatcherProcess(*arguments, environment=variables) as running:
            running.wait_for("batch_written")
            wait_for(lambda: collector.asked > 1, "something exported")
            began = time.monotonic()
            running.signal(signal.SIGTERM)
            assert running.wait() == 0
            took_s = time.monotonic() - began
    assert took_s < BOUND_S + MARGIN_S
    assert running.summary["written"] == RECORDS
    assert len(running.named("otel_not_flushed")) == 1
    assert len(running.named("otel_export_failed")) <= 1
    assert SECRET not in running.stderr


def test_nobody_at_the_endpoint_is_said_once_and_the_run_goes_well(source: Sequence[str]) -> None:
    with OtlpCollector() as gone:
        pass
    done = exported(gone, "--sink", "null", "--until-eof", *source, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="1")
    assert done.code == 0, done.stderr
    assert done.facts["written"] == RECORDS
    assert done.stderr.count('"otel_export_failed"') == 1, done.stderr


def test_each_worker_is_an_instance_of_its_own(source: Sequence[str]) -> None:
    with OtlpCollector() as collector:
        done = exported(
            collector,
            *("--sink", "null", "--until-eof", "--workers", "2", *source),
            OTEL_RESOURCE_ATTRIBUTES="service.instance.id=pod",
            OTEL_SERVICE_NAME="loader",
        )
    assert done.code == 0, done.stderr
    instances = {
        (one["service.name"], one["service.instance.id"], one["batcher.worker"]) for one in collector.resources
    }
    assert instances == {("loader", "pod-0", 0), ("loader", "pod-1", 1)}
    assert sum(one.attributes["messaging.batch.message_count"] for one in collector.batches) == done.facts["written"]


def test_headers_reach_the_collector_and_nothing_else(source: Sequence[str]) -> None:
    with OtlpCollector() as collector:
        done = exported(
            collector,
            *("--sink", "null", "--until-eof", "-v", *source),
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{SECRET},{SECRET}-no-header",
        )
    assert done.code == 0, done.stderr
    assert {one["authorization"] for one in collector.headers} == {f"Bearer {SECRET}"}
    assert SECRET not in done.stdout + done.stderr
