"""The Kafka source against Apache Kafka: what the mock cluster cannot say."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.errors import ConfigurationError, SourceLost, Unreachable
from batcher.records import Partition, Position
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.kafka import Broker
from batcher.testing.listener import RecordingListener, numbered, offsets, read, read_until, values
from batcher.testing.real_broker import RealBroker
from tests.harness.processes import BatcherProcess
from tests.harness.readers import PROTOCOLS, Readers

pytestmark = pytest.mark.broker

NewTopic = Callable[..., str]
NewGroup = Callable[[], str]


def owns(listener: RecordingListener, count: int) -> Callable[[object], bool]:
    return lambda _: len(listener.owned) == count


def test_earliest_starts_at_the_first_record_and_is_committed_at_once(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 10))
    broker.delete_records(part, 4)

    source, listener = reader(topic)
    read_until(source, owns(listener, 1))

    assert listener.owned == {part: Position(4)}
    assert broker.committed(reader.group, [part]) == {part: Position(4)}


def test_latest_starts_behind_the_last_record_and_a_restart_does_not_move_it(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 10))
    first, listener = reader(topic, start="latest")
    read_until(first, owns(listener, 1))
    first.close()
    broker.produce(topic, numbered(10, 5))

    second, listener = reader(topic, start="latest")
    runs = read(second, 5)

    assert listener.assigned == [{part: Position(10)}]
    assert offsets(runs) == {part: [10, 11, 12, 13, 14]}


def test_a_time_starts_at_the_first_record_that_is_not_older(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(2)
    broker.produce(topic, numbered(0, 5), partition=0, timestamps_ms=[1000, 2000, 3000, 4000, 5000])
    broker.produce(topic, numbered(0, 2), partition=1, timestamps_ms=[1000, 2000])

    source, listener = reader(topic, start=2500)
    read_until(source, owns(listener, 2))

    assert listener.owned == {Partition(topic, 0): Position(2), Partition(topic, 1): Position(2)}


def test_a_regular_expression_finds_topics_now_and_later(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    name = new_topic()
    broker.create_topic(f"{name}.a", 2)
    broker.produce(f"{name}.a", numbered(0, 4), partition=1)
    source, listener = reader(f"^{name}\\..*", properties={"topic.metadata.refresh.interval.ms": "500"})
    runs = read(source, 4)

    broker.create_topic(f"{name}.b", 1)
    broker.produce(f"{name}.b", numbered(0, 3))
    runs += read(source, 3)

    assert values(runs) == {Partition(f"{name}.a", 1): numbered(0, 4), Partition(f"{name}.b", 0): numbered(0, 3)}
    assert set(listener.owned) == {Partition(f"{name}.a", 0), Partition(f"{name}.a", 1), Partition(f"{name}.b", 0)}


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_partitions_added_while_running_are_read_from_their_first_record(
    broker: Broker, new_topic: NewTopic, reader: Readers, start: str
) -> None:
    topic = new_topic()
    source, listener = reader(topic, start=start, properties={"topic.metadata.refresh.interval.ms": "2000"})
    read_until(source, owns(listener, 1))

    broker.add_partitions(topic, 2)
    broker.produce(topic, numbered(0, 6), partition=1)

    assert values(read(source, 6)) == {Partition(topic, 1): numbered(0, 6)}


def test_partitions_added_while_nobody_read_are_read_from_their_first_record(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    first, listener = reader(topic, start="latest")
    read_until(first, owns(listener, 1))
    first.close()
    broker.add_partitions(topic, 2)
    broker.produce(topic, numbered(0, 6), partition=1)

    second, _ = reader(topic, start="latest")

    assert values(read(second, 6)) == {Partition(topic, 1): numbered(0, 6)}


def test_what_a_producer_sent_comes_out_as_it_was(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic()
    broker.produce(
        topic,
        [b"\x00binary", None, "text ü"],
        keys=[None, b"key", b""],
        headers=[None, (("a", b"1"), ("a", None)), (("ü", b""),)],
        timestamps_ms=[1, 1_700_000_000_000, 2],
    )

    source, _ = reader(topic)
    runs = read(source, 3)
    records = [run.record(index) for run in runs for index in range(len(run))]

    assert [record.value for record in records] == [b"\x00binary", None, "text ü".encode()]
    assert [record.key for record in records] == [None, b"key", b""]
    assert [record.headers for record in records] == [(), (("a", b"1"), ("a", None)), (("ü", b""),)]
    assert [record.timestamp_ms for record in records] == [1, 1_700_000_000_000, 2]


def test_the_lag_is_what_is_not_yet_committed(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 30))
    source, _ = reader(topic, properties={"statistics.interval.ms": "200"})
    read(source, 30)
    source.commit({part: Position(10)}, 10.0)

    read_until(source, lambda _: source.lag() == {part: 20})


def test_a_lone_record_does_not_wait_for_company(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic()
    source, listener = reader(topic)
    read_until(source, owns(listener, 1))
    broker.produce(topic, [b"alone"])

    runs = source.fetch(10_000, 1 << 24, 20.0)

    assert len(runs) == 1


def test_before_a_damaged_batch_everything_is_loaded_and_committed_and_then_it_ends_naming_the_offset(
    own_broker: RealBroker, tmp_path: Path
) -> None:
    part = Partition("damaged", 0)
    own_broker.create_topic(part.topic)
    for first in (0, 10, 20):
        own_broker.produce(part.topic, [b'{"n": %d}' % number for number in range(first, first + 10)])
    [segment] = own_broker.segments(part)
    segment.write_bytes(segment.read_bytes().replace(b'"n": 15', b'"n": 1X'))
    flags = ("--sink", "parquet", "--parquet.path", str(tmp_path), "-b", own_broker.bootstrap, "-t", part.topic)

    with BatcherProcess(*flags, "-g", part.topic, "--until-eof") as running:
        assert running.wait() == 78

    [failed] = running.named("pipeline_failed")
    assert "damaged[0]: the record at offset 10 cannot be read: " in failed["reason"]
    assert "commit offset 11 for group damaged" in failed["reason"]
    assert running.summary["written"] == 10
    assert own_broker.committed(part.topic, [part])[part].next_offset == 10


def test_a_deleted_topic_stops_the_source_by_name(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic()
    source, listener = reader(
        topic, properties={"topic.metadata.refresh.interval.ms": "500", "topic.metadata.propagation.max.ms": "500"}
    )
    read_until(source, owns(listener, 1))

    broker.delete_topic(topic)

    with pytest.raises(SourceLost, match=f"topic {topic} does not exist"):
        read(source, 1)


def test_a_topic_that_is_not_there_is_refused_by_name(broker: Broker, reader: Readers) -> None:
    with pytest.raises(ConfigurationError, match=f"topic nowhere does not exist on {broker.bootstrap}"):
        reader("nowhere")


def test_a_regular_expression_that_matches_nothing_yet_is_accepted(reader: Readers) -> None:
    source, _ = reader("^nothing-like-this-.*")

    assert source.fetch(10, 1 << 24, 0.2) == []


def test_a_broker_that_does_not_answer_is_named(reader: Readers) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"

        with pytest.raises(Unreachable, match=f"broker {address} does not answer"):
            reader("events", brokers=address)


@pytest.mark.parametrize(
    ("name", "value"), [("fetch.max.bites", "1"), ("session.timeout.ms", "soon"), ("security.protocol", "magic")]
)
def test_a_property_librdkafka_does_not_take_is_named(reader: Readers, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"-X {name}:"):
        reader("events", properties={name: value})


@pytest.mark.parametrize("properties", [PROTOCOLS["range"], PROTOCOLS["kip848"]], ids=["classic", "kip848"])
def test_a_commit_and_a_close_end_in_time_when_the_broker_is_frozen_or_gone(
    own_broker: RealBroker, new_group: NewGroup, properties: dict[str, str]
) -> None:
    part = Partition(f"frozen-{new_group()}", 0)
    own_broker.create_topic(part.topic)
    own_broker.produce(part.topic, numbered(0, 10))
    source, listener = (
        KafkaSource(KafkaOptions(own_broker.bootstrap, (part.topic,), part.topic, properties=properties)),
        RecordingListener(),
    )
    source.open(listener)
    read(source, 10)

    own_broker.suspend()
    started = time.monotonic()
    with pytest.raises(SourceLost, match=r"\[0\] not confirmed within 2 s"):
        source.commit({part: Position(5)}, 2.0)
    own_broker.resume()
    source.commit({part: Position(6, (), "again")}, 30.0)
    own_broker.kill()
    with pytest.raises(SourceLost, match=r"\[0\] not confirmed within 2 s"):
        source.commit({part: Position(7)}, 2.0)
    source.close()

    # Both commits, the wait for the thaw and the close: librdkafka's own bounds alone would be 60 s and 45 s.
    assert time.monotonic() - started < 40
