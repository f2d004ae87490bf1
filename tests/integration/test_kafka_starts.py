"""What a source says and does about its subscription, on Apache Kafka, under every protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from batcher.errors import Unreachable
from batcher.records import Partition, Position, Records
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.kafka import Broker
from batcher.testing.listener import RecordingListener, numbered, offsets, read, read_for, read_until, values
from tests.harness.processes import BatcherProcess
from tests.harness.readers import PROTOCOLS, Readers, open_transaction, until

pytestmark = pytest.mark.broker

NewTopic = Callable[..., str]
SOON: Mapping[str, str] = {"topic.metadata.refresh.interval.ms": "500"}


def test_all_records_arrive_beside_those_with_a_negative_timestamp(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(2)
    odd, now = Partition(topic, 0), Partition(topic, 1)
    source, listener = reader(topic)
    read_until(source, lambda _: len(listener.owned) == 2)

    runs: list[Records] = []
    for number in range(10):
        broker.produce(topic, [b"%d" % number], partition=1, timestamps_ms=[int(time.time() * 1000)])
        broker.produce(topic, [b"%d" % number], partition=0, timestamps_ms=[-5])
        runs += source.fetch(1000, 1 << 24, 0.0)
    runs += read(source, 20 - sum(map(len, runs)))

    assert values(runs) == {odd: numbered(0, 10), now: numbered(0, 10)}
    assert {time_ms for run in runs if run.partition == odd for time_ms in run.timestamps_ms.to_pylist()} == {-5}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_expression_means_the_same_and_finds_topics_later_without_losing_or_repeating_a_record(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str
) -> None:
    name = new_topic()
    one, two, other = f"{name}.a", f"{name}.b", f"{name}.dlq"
    for topic in (one, other):
        broker.create_topic(topic)
        broker.produce(topic, numbered(0, 5))
    # A look-ahead, and a beginning that is not the whole name: neither client nor broker would read these so.
    expression = rf"^(?!never){name}\."
    source, listener = reader(
        expression, properties={**PROTOCOLS[protocol], **SOON}, excluded_topics=frozenset({other})
    )
    runs = read(source, 5)
    source.commit({Partition(one, 0): Position(5)}, 20.0)

    broker.create_topic(two)
    broker.produce(two, numbered(10, 5))
    broker.produce(one, numbered(5, 5))
    runs += read(source, 10) + read_for(source, 1.0)

    assert offsets(runs) == {Partition(one, 0): list(range(10)), Partition(two, 0): list(range(5))}
    assert set(listener.owned) == {Partition(one, 0), Partition(two, 0)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_topic_that_an_expression_found_may_go(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str
) -> None:
    name = new_topic()
    one, two = f"{name}.a", f"{name}.b"
    for topic in (one, two):
        broker.create_topic(topic)
        broker.produce(topic, numbered(0, 5))
    source, listener = reader(f"^{name}[.]", properties={**PROTOCOLS[protocol], **SOON})
    read(source, 10)

    broker.delete_topic(two)
    until(lambda: set(listener.owned) == {Partition(one, 0)}, source)
    broker.produce(one, numbered(5, 5))

    assert values(read(source, 5))[Partition(one, 0)][-1] == b"9"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("found", [True, False])
def test_a_run_until_the_end_of_what_an_expression_finds_ends(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str, *, found: bool
) -> None:
    name = new_topic()
    broker.produce(name, numbered(0, 5))
    expression = f"^{name[:-1]}" if found else f"^{name}-nothing"

    source, _ = reader(expression, properties=PROTOCOLS[protocol], until_eof=True)
    runs = read_until(source, lambda _: source.exhausted)

    assert sum(map(len, runs)) == (5 if found else 0)


def test_an_expression_with_nothing_yet_waits_and_reads_what_comes(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    name = new_topic()
    source, _ = reader(f"^{name}[.]x", properties=SOON)
    assert source.fetch(10, 1 << 24, 0.2) == []

    broker.create_topic(f"{name}.x")
    broker.produce(f"{name}.x", numbered(0, 3))

    assert values(read(source, 3)) == {Partition(f"{name}.x", 0): numbered(0, 3)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_restart_after_a_kill_says_what_it_waits_for(
    broker: Broker, new_topic: NewTopic, tmp_path: Path, protocol: str
) -> None:
    topic = new_topic()
    broker.produce(topic, [b'{"n": 1}'])
    flags = ["-b", broker.bootstrap, "-t", topic, "-g", topic, "--sink", "parquet", "--parquet.path", str(tmp_path)]
    for name, value in PROTOCOLS[protocol].items():
        flags += ["-X", f"{name}={value}"]
    with BatcherProcess(*flags, "--batch.max-wait", "500ms") as first:
        first.wait_for("batch_written")
        first.kill()

        with BatcherProcess(*flags, "--until-eof") as second:
            line = second.wait_for("waiting_for_partitions")

    assert line["waited_s"] >= 3
    assert line["at_most_s"] == 45.0
    assert "--kafka.instance" in line["hint"]


def test_records_of_an_open_transaction_at_the_end_are_counted_in_a_warning(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    broker.produce(topic, numbered(0, 2))
    with open_transaction(broker, topic, {b"a": b"", b"b": b""}, commit=False), capture_logs() as lines:
        source, _ = reader(topic, until_eof=True)
        read_until(source, lambda _: source.exhausted)

    [line] = [one for one in lines if one["event"] == "records_not_readable_yet"]
    assert (line["partition"], line["offsets"], line["count"]) == (f"{topic}[0]", "2-3", 2)
    assert line["log_level"] == "warning"


def test_a_log_that_ends_in_an_aborted_transaction_has_nothing_that_is_not_readable_yet(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    with open_transaction(broker, topic, {b"a": b""}, commit=False):
        pass
    with capture_logs() as lines:
        source, _ = reader(topic, until_eof=True)
        read_until(source, lambda _: source.exhausted)

    assert not [one for one in lines if one["event"] == "records_not_readable_yet"]


@pytest.mark.parametrize(
    ("start", "says"), [("latest", (3, "behind the last")), ("earliest", (0, "first record")), (1, (0, "that time"))]
)
def test_a_partition_without_a_commit_says_where_it_starts_and_why(
    broker: Broker, new_topic: NewTopic, reader: Readers, start: str | int, says: tuple[int, str]
) -> None:
    topic = new_topic()
    broker.produce(topic, numbered(0, 3))

    with capture_logs() as lines:
        source, listener = reader(topic, start=start)
        read_until(source, lambda _: bool(listener.owned))

    [line] = [one for one in lines if one["event"] == "start_chosen"]
    assert line["positions"] == {f"{topic}[0]": says[0]}
    assert says[1] in line["reason"]


def test_opening_again_after_nobody_answered_works(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic()
    broker.produce(topic, numbered(0, 3))
    options = KafkaOptions("127.0.0.1:9", (topic,), reader.group)
    source = KafkaSource(options)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 does not answer: .*refused"):
            source.open(RecordingListener())
    assert time.monotonic() - began < 15
    object.__setattr__(options, "brokers", broker.bootstrap)

    source.open(RecordingListener())
    try:
        assert sum(map(len, read(source, 3))) == 3
    finally:
        source.close()
