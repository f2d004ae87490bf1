"""Another log under the same name, on Apache Kafka: never read as if it were the old one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from confluent_kafka import Consumer, TopicPartition

from batcher.errors import DataGap
from batcher.records import Partition, Position
from batcher.sources.kafka.metadata import StoredPosition, pack, unpack
from batcher.testing.kafka import REQUEST_TIMEOUT_S, Broker
from batcher.testing.listener import numbered, read, read_for, values
from tests.harness.processes import BatcherProcess
from tests.harness.readers import PROTOCOLS, Readers, until

pytestmark = pytest.mark.broker

NewTopic = Callable[..., str]
OLD_ID = "A" * 21 + "w"


def raw(broker: Broker, group: str, partition: Partition) -> StoredPosition:
    """Return what a group has committed, as it stands there."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
    try:
        [found] = consumer.committed([TopicPartition(*partition)], REQUEST_TIMEOUT_S)
        return unpack(partition, found.offset, found.metadata)
    finally:
        consumer.close()


def commit_raw(broker: Broker, group: str, partition: Partition, next_offset: int, metadata: str) -> None:
    """Commit for a group, with metadata as they are."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        offsets = [TopicPartition(*partition, next_offset, metadata)]
        consumer.assign(offsets)
        consumer.commit(offsets=offsets, asynchronous=False)
    finally:
        consumer.close()


def test_a_commit_says_for_which_topic_it_is_and_its_intents_come_back_without(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 10))
    first, _ = reader(topic)
    read(first, 10)
    first.commit({part: Position(4, (), "note")}, 20.0)
    first.close()

    second, listener = reader(topic)
    read(second, 6)

    assert raw(broker, reader.group, part).topic_id is not None
    assert listener.assigned == [{part: Position(4, (), "note")}]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_commit_for_another_topic_of_the_name_stops_the_source(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 10))
    commit_raw(broker, reader.group, part, 3, pack(StoredPosition(Position(3, (), "note"), OLD_ID)))

    source, listener = reader(topic, properties=PROTOCOLS[protocol])

    with pytest.raises(DataGap, match=rf"{topic}\[0\]: offset 3 was committed for another topic of this name"):
        read(source, 1)
    assert listener.assigned == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_topic_created_anew_under_a_reader_is_not_committed_as_the_old_one(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 3))
    source, _ = reader(topic, properties=PROTOCOLS[protocol])
    read(source, 3)

    broker.create_anew(topic)
    broker.produce(topic, numbered(100, 10))

    with pytest.raises(DataGap, match=f"topic {topic} was deleted and created anew while it was read"):
        source.commit({part: Position(3)}, 20.0)
    with pytest.raises(DataGap):
        source.fetch(10, 1 << 24, 0.1)
    source.close()
    second, _ = reader(topic, properties=PROTOCOLS[protocol])
    assert values(read(second, 10)) == {part: numbered(100, 10)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_topic_created_anew_under_an_idle_reader_is_told_without_a_commit(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str
) -> None:
    topic = new_topic()
    broker.produce(topic, numbered(0, 3))
    source, _ = reader(topic, properties=PROTOCOLS[protocol])
    read(source, 3)

    broker.create_anew(topic)
    broker.produce(topic, numbered(100, 10))

    # By the ids now and then, or because the partition is taken away and assigned again.
    with pytest.raises(DataGap, match=f"topic {topic} was deleted and created anew while it was read"):
        read(source, 20, 40.0)


def test_a_topic_that_a_look_misses_and_that_is_made_anew_soon_after_is_told_by_that_reason(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    source, listener = reader(
        topic, properties={"group.protocol": "consumer", "topic.metadata.refresh.interval.ms": "300"}
    )
    until(lambda: bool(listener.owned), source)

    broker.delete_topic(topic)
    until(lambda: not listener.owned, source)
    # It looks for the topic when nothing comes, and does not find it.
    read_for(source, 1.0)
    broker.create_topic(topic)

    with pytest.raises(DataGap, match=f"topic {topic} was deleted and created anew while it was read"):
        read(source, 1, 40.0)


@pytest.mark.parametrize(
    ("protocol", "wait_s"),
    [
        *((protocol, 1) for protocol in PROTOCOLS),
        # The ids have been looked at once more by then, which the two classic protocols do alike.
        ("cooperative-sticky", 8),
        pytest.param("range", 8, marks=pytest.mark.long),
        ("kip848", 8),
    ],
)
def test_a_topic_created_anew_ends_a_run_with_the_reason_and_nothing_of_it_is_loaded(
    broker: Broker, new_topic: NewTopic, tmp_path: Path, protocol: str, wait_s: int
) -> None:
    topic = new_topic()
    broker.produce(topic, [b'{"n": %d}' % number for number in range(3)])
    flags = ["-b", broker.bootstrap, "-t", topic, "-g", topic, "--sink", "parquet", "--parquet.path", str(tmp_path)]
    for name, value in PROTOCOLS[protocol].items():
        flags += ["-X", f"{name}={value}"]

    with BatcherProcess(*flags, "--batch.max-wait", "500ms") as running:
        running.wait_for("batch_written")
        time.sleep(wait_s)
        broker.create_anew(topic)
        broker.produce(topic, [b'{"n": %d}' % number for number in range(100, 110)])
        code = running.wait()
    assert code == 78
    [failed] = running.named("pipeline_failed")
    assert f"topic {topic} was deleted and created anew while it was read" in failed["reason"]
    loaded = ds.dataset(tmp_path, format="parquet").to_table()["n"].to_pylist()
    assert sorted(loaded) == [0, 1, 2]
