"""What is counted, under which names, and what a status says."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import get_args

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from batcher import __version__
from batcher.errors import SinkUnavailable
from batcher.protocols import Guarantee
from batcher.records import Delivered, Partition, Range, Trigger
from batcher.telemetry.events import (
    BatchWritten,
    CommitAnswered,
    GuaranteeAgreed,
    Rebalanced,
    RecordsFetched,
    TimeSpent,
    WriteRetried,
)
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.status import (
    STATES,
    TARGET_STATES,
    BufferStatus,
    Counts,
    InFlight,
    LastError,
    PartitionStatus,
    State,
    Status,
    TargetStatus,
)
from batcher.testing.values import make_batch, make_records

EVENTS_0, EVENTS_1 = Partition("events", 0), Partition("events", 1)
MS = 1_700_000_000_000


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("parquet")


def written(first_ms: int | None = MS) -> BatchWritten:
    """Return the event of a batch of a hundred records, of which some were not written."""
    run = make_records(["1"], timestamp_ms=first_ms or 0)
    if first_ms is None:
        run = replace(run, timestamps_ms=pa.array([None], pa.int64()))
    delivered = Delivered(
        rows=100,
        written=94,
        suppressed=5,
        dead_lettered=4,
        skipped=5,
        refused_by_sink=1,
        nbytes=18_000,
        decode_s=0.02,
        write_s=0.3,
        dropped=1,
        filtered=2,
    )
    return BatchWritten(make_batch(run, trigger="age"), delivered)


def test_a_delivered_batch_is_counted_where_its_records_went(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.telemetry.metrics.time.time", lambda: MS / 1000 + 1.5)
    for _ in range(2):
        metrics(written())
    assert value(metrics, "batcher_batches_total", sink="parquet", trigger="age") == 2
    assert value(metrics, "batcher_batches_total", sink="parquet", trigger="rows") == 0
    assert value(metrics, "batcher_records_written_total", sink="parquet") == 188
    assert value(metrics, "batcher_bytes_written_total", sink="parquet") == 36_000
    assert value(metrics, "batcher_records_dead_lettered_total", stage="decode") == 6
    assert value(metrics, "batcher_records_dead_lettered_total", stage="sink") == 2
    assert value(metrics, "batcher_records_skipped_total", reason="tombstone") == 4
    assert value(metrics, "batcher_records_skipped_total", reason="dropped") == 2
    assert value(metrics, "batcher_records_skipped_total", reason="filtered") == 4
    assert value(metrics, "batcher_duplicates_suppressed_total", sink="parquet") == 10
    assert value(metrics, "batcher_batch_rows_sum") == 200
    assert value(metrics, "batcher_batch_bytes_sum") == 36_000
    assert value(metrics, "batcher_decode_duration_seconds_sum") == pytest.approx(0.04)
    assert value(metrics, "batcher_write_duration_seconds_sum") == pytest.approx(0.6)
    assert value(metrics, "batcher_flush_duration_seconds_sum") == pytest.approx(0.64)
    assert value(metrics, "batcher_end_to_end_latency_seconds_sum") == pytest.approx(3.0)
    assert (value(metrics, "batcher_last_write_timestamp_seconds") or 0) > 1.7e9


def test_a_producer_whose_clock_is_ahead_makes_no_negative_latency(metrics: Metrics) -> None:
    metrics(written(int(time.time() * 1000) + 3_600_000))
    metrics(written(None))
    assert value(metrics, "batcher_end_to_end_latency_seconds_sum") == 0
    assert value(metrics, "batcher_end_to_end_latency_seconds_count") == 1


def test_fetched_records_are_counted_for_each_partition(metrics: Metrics) -> None:
    counts = ((EVENTS_0, 10), (EVENTS_0, 5), (EVENTS_1, 1))
    runs = [make_records(["1"] * count, partition=part) for part, count in counts]
    for run in runs:
        metrics(RecordsFetched(run))
    assert value(metrics, "batcher_records_consumed_total", topic="events", partition="0") == 15
    assert (
        value(metrics, "batcher_bytes_consumed_total", topic="events", partition="0") == runs[0].nbytes + runs[1].nbytes
    )
    assert value(metrics, "batcher_records_consumed_total", topic="events", partition="1") == 1


def test_events_are_counted_by_what_they_were(metrics: Metrics) -> None:
    metrics(WriteRetried(SinkUnavailable("away")))
    metrics(CommitAnswered("refused"))
    assert value(metrics, "batcher_last_commit_timestamp_seconds") == 0
    metrics(CommitAnswered("ok"))
    metrics(Rebalanced("revoked"))
    metrics(TimeSpent("backpressure", 1.5))
    metrics(GuaranteeAgreed("at-least-once"))
    assert value(metrics, "batcher_retries_total", sink="parquet", reason="SinkUnavailable") == 1
    assert value(metrics, "batcher_commits_total", outcome="ok") == 1
    assert value(metrics, "batcher_commits_total", outcome="refused") == 1
    assert value(metrics, "batcher_rebalances_total", kind="revoked") == 1
    assert value(metrics, "batcher_loop_seconds_total", phase="backpressure") == 1.5
    assert value(metrics, "batcher_delivery_info", guarantee="at-least-once", sink="parquet") == 1
    assert (value(metrics, "batcher_last_commit_timestamp_seconds") or 0) > 1.7e9


def test_the_build_says_what_is_running(metrics: Metrics) -> None:
    (labels,) = [dict(labels) for name, labels in samples(metrics) if name == "batcher_build_info"]
    assert labels["version"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", labels["confluent_kafka"])
    assert labels["pyarrow"]


def test_what_counts_is_there_from_the_start(metrics: Metrics) -> None:
    """A rate over a series that appears with its first increment misses that increment."""
    for trigger in get_args(Trigger):
        assert value(metrics, "batcher_batches_total", sink="parquet", trigger=trigger) == 0
    assert value(metrics, "batcher_records_dead_lettered_total", stage="decode") == 0
    assert value(metrics, "batcher_commits_total", outcome="ok") == 0


def test_a_state_is_read_when_it_is_asked_for_and_a_partition_given_up_is_gone(metrics: Metrics) -> None:
    status = Status(
        "running",
        partitions={EVENTS_0: PartitionStatus(lag=7, paused=True), EVENTS_1: PartitionStatus(lag=None)},
        buffer=BufferStatus(rows=3, bytes=300, limit_bytes=1000, age_s=0.5),
        writing=(InFlight(1, "rows", 10, 100), InFlight(2, "rows", 10, 100)),
        writers=4,
    )
    metrics.watch(lambda: status)
    assert value(metrics, "batcher_consumer_lag_records", topic="events", partition="0") == 7
    assert value(metrics, "batcher_consumer_lag_records", topic="events", partition="1") is None
    assert value(metrics, "batcher_assigned_partitions") == 2
    assert value(metrics, "batcher_paused_partitions") == 1
    assert value(metrics, "batcher_buffer_rows") == 3
    assert value(metrics, "batcher_buffer_bytes") == 300
    assert value(metrics, "batcher_buffer_limit_bytes") == 1000
    assert value(metrics, "batcher_buffer_age_seconds") == 0.5
    assert value(metrics, "batcher_inflight_batches") == 2
    assert value(metrics, "batcher_concurrent_batches") == 4
    assert value(metrics, "batcher_state", state="running") == 1
    assert value(metrics, "batcher_state", state="draining") == 0
    status = Status("draining")
    assert value(metrics, "batcher_consumer_lag_records", topic="events", partition="0") is None
    assert value(metrics, "batcher_state", state="draining") == 1


def test_watching_asks_for_no_status_before_the_first_scrape(metrics: Metrics) -> None:
    def unborn() -> Status:
        raise AssertionError("the pipeline is not there yet")

    metrics.watch(unborn)


def test_names_follow_the_rules_of_prometheus(metrics: Metrics) -> None:
    metrics.watch(lambda: Status("running"))
    units = ("_total", "_seconds", "_bytes", "_records", "_rows", "_batches", "_partitions", "_info", "_state")
    for family in metrics.registry.collect():
        if family.name.startswith("process_"):
            continue
        assert family.name.startswith("batcher_")
        assert family.documentation.endswith(".")
        exposed = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        assert exposed.endswith(units), exposed
    assert "_created" not in metrics.render()


def test_two_pipelines_in_one_process_count_apart() -> None:
    first, second = Metrics("parquet"), Metrics("clickhouse")
    first(CommitAnswered("ok"))
    assert value(second, "batcher_commits_total", outcome="ok") == 0


def test_a_status_says_everything_in_json() -> None:
    status = Status(
        "running",
        delivery="at-least-once",
        delivery_reason="the table has no coordinate columns",
        target="clickhouse default.events",
        group="loaders",
        waiting_for="the target to answer",
        partitions={
            EVENTS_1: PartitionStatus(next_offset=12, committed_offset=10, lag=5),
            EVENTS_0: PartitionStatus(next_offset=1, lag=2, paused=True),
            Partition("other", 0): PartitionStatus(),
        },
        buffer=BufferStatus(rows=3, bytes=300, limit_bytes=1000, age_s=0.51234, due_in_s=0.4877),
        in_flight=InFlight(4, "age", 10, 1000, (Range(EVENTS_1, 2, 11),), age_s=2.0, attempts=3),
        last_error=LastError("SinkUnavailable", "connection refused", since_s=2.0),
        last_commit_age_s=3.25,
        uptime_s=60.0,
        counts=Counts(consumed=100, written=80),
    )
    told = json.loads(json.dumps(status.to_dict()))
    assert [(one["topic"], one["partition"]) for one in told["partitions"]] == [
        ("events", 0),
        ("events", 1),
        ("other", 0),
    ]
    assert told["partitions"][1] == {
        "topic": "events",
        "partition": 1,
        "next_offset": 12,
        "committed_offset": 10,
        "lag": 5,
        "paused": False,
        "stopped": "",
    }
    assert told["lag"] == 7
    assert told["buffer"]["age_s"] == 0.512
    assert told["in_flight"]["ranges"] == [{"topic": "events", "partition": 1, "first": 2, "last": 11}]
    assert told["last_error"] == {
        "kind": "SinkUnavailable",
        "message": "connection refused",
        "since_s": 2.0,
        "recovered": False,
    }
    assert told["counts"]["written"] == 80
    assert told["waiting_for"] == "the target to answer"


@pytest.mark.parametrize("state", STATES)
def test_a_status_needs_no_more_than_a_state(state: State) -> None:
    told = Status(state).to_dict()
    assert (told["state"], told["lag"], told["partitions"]) == (state, None, [])


def test_each_of_several_targets_has_numbers_of_its_own() -> None:
    metrics = Metrics("clickhouse")
    error = LastError("SinkUnavailable", "away", 3.0)
    targets = {
        "a": TargetStatus(
            "table a", "exactly-once", written=5, retries=2, buffer=BufferStatus(bytes=7), last_error=error
        ),
        "b": TargetStatus("table b", "at-least-once", failed="too many dead letters", dead_lettered=4),
        "c": TargetStatus("table c", "exactly-once"),
    }
    metrics.watch(lambda: Status("running", targets=targets))
    assert value(metrics, "batcher_target_records_written_total", target="a") == 5
    assert value(metrics, "batcher_target_records_dead_lettered_total", target="b") == 4
    assert value(metrics, "batcher_target_retries_total", target="a") == 2
    assert value(metrics, "batcher_target_buffer_bytes", target="a") == 7
    states = {
        name: [state for state in TARGET_STATES if value(metrics, "batcher_target_state", target=name, state=state)]
        for name in targets
    }
    assert states == {"a": ["failing"], "b": ["failed"], "c": ["running"]}


def test_the_guarantee_of_several_targets_is_that_of_the_weakest(metrics: Metrics) -> None:
    kept: tuple[Guarantee, ...] = ("exactly-once", "at-least-once", "exactly-once")
    for guarantee in kept:
        metrics(GuaranteeAgreed(guarantee, "target"))
    assert value(metrics, "batcher_delivery_info", guarantee="at-least-once", sink="parquet") == 1
