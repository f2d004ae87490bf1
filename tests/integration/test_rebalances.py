"""Partitions that come and go on Apache Kafka: nothing is skipped, stays stuck, or is committed for somebody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping

import pytest

from batcher.errors import CommitRefused, ConfigurationError, SourceLost
from batcher.records import Partition, Position
from batcher.sources.kafka.commit import Committed, store
from batcher.sources.kafka.metadata import StoredPosition, pack
from batcher.sources.kafka.source import KafkaSource
from batcher.testing.kafka import Broker
from batcher.testing.listener import RecordingListener, numbered, offsets, read, read_until, values
from batcher.testing.values import make_position
from tests.harness.readers import PROTOCOLS, Opened, Readers, share, until

pytestmark = pytest.mark.broker

BY_PROTOCOL = pytest.mark.parametrize("properties", PROTOCOLS.values(), ids=PROTOCOLS)
CLASSIC = pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])

NewTopic = Callable[..., str]

STALL_S = 1.0
"""Longer than the poll interval by this much: librdkafka looks once a second."""


def committing(source: KafkaSource, done: Callable[[Partition], Position]) -> Callable[[Collection[Partition]], None]:
    return lambda partitions: source.commit({one: done(one) for one in partitions}, 20.0)


@BY_PROTOCOL
def test_a_partition_moves_to_a_second_member_with_its_commit_and_intents_of_full_size(
    broker: Broker, new_topic: NewTopic, reader: Readers, properties: dict[str, str]
) -> None:
    topic = new_topic(2)
    broker.produce(topic, numbered(0, 100), partition=0)
    broker.produce(topic, numbered(0, 100), partition=1)
    first, old = reader(topic, properties=properties)
    done = {Partition(topic, number): make_position(Partition(topic, number), 60 + number) for number in (0, 1)}
    old.revoking = committing(first, done.__getitem__)
    read(first, 200)

    second, new = reader(topic, properties=properties)
    share((first, old), (second, new), 1)

    [moved] = new.owned
    assert set(old.owned) == {Partition(topic, 1 - moved.number)}
    assert new.owned[moved] == done[moved]
    with pytest.raises(CommitRefused) as refusal:
        first.commit({moved: Position(99)}, 5.0)
    assert set(refusal.value.reasons) == {moved}
    assert broker.committed(reader.group, [moved]) == {moved: done[moved]}


@BY_PROTOCOL
def test_a_partition_that_comes_while_everything_is_paused_is_read_at_once(
    broker: Broker, new_topic: NewTopic, reader: Readers, properties: dict[str, str]
) -> None:
    topic = new_topic(2)
    first, old = reader(topic, properties=properties)
    read_until(first, lambda _: len(old.owned) == 2)
    first.pause(list(old.owned))
    second, new = reader(topic, properties=properties)
    share((first, old), (second, new), 1)
    [moved] = new.owned
    second.close()
    broker.produce(topic, numbered(0, 5), partition=moved.number)

    runs = read_until(first, lambda _: moved in old.owned)
    runs += read(first, 5 - sum(map(len, runs)), timeout_s=5.0)

    assert values(runs) == {moved: numbered(0, 5)}


def test_the_first_record_after_partitions_were_taken_and_given_back_within_one_call_is_not_swallowed(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(2)
    first, old = reader(topic, properties=PROTOCOLS["range"])
    read_until(first, lambda _: len(old.owned) == 2)

    def join_and_fill() -> None:
        second, new = reader(topic, properties=PROTOCOLS["range"])
        read_until(second, lambda _: len(new.owned) == 1)
        for number in (0, 1):
            broker.produce(topic, numbered(0, 5), partition=number)

    other = threading.Thread(target=join_and_fill)
    other.start()
    runs = list(first.fetch(1000, 1 << 24, 60.0))
    other.join()
    [kept] = old.owned

    assert old.revoked == [frozenset({Partition(topic, 0), Partition(topic, 1)})]
    assert offsets(runs)[kept][0] == 0


@pytest.mark.parametrize("protocol", ["cooperative-sticky", "kip848"])
def test_after_max_poll_was_exceeded_everything_is_lost_and_read_again_from_the_commit(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str
) -> None:
    topic = new_topic(2)
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 10), partition=0)
    source, listener = reader(topic, properties=reader.short_poll(protocol))
    read(source, 10)
    source.commit({part: Position(4, (), "note")}, 10.0)

    time.sleep(reader.poll_s + STALL_S)
    runs = read(source, 6, 60.0)

    assert listener.lost == [frozenset({Partition(topic, 0), Partition(topic, 1)})]
    assert listener.revoked == []
    assert listener.assigned[-1][part] == Position(4, (), "note")
    assert offsets(runs) == {part: [4, 5, 6, 7, 8, 9]}


@CLASSIC
def test_partitions_that_others_own_by_the_time_they_are_revoked_are_given_up_without_harm(
    broker: Broker, new_topic: NewTopic, reader: Readers, strategy: str
) -> None:
    topic = new_topic(2)
    parts = [Partition(topic, 0), Partition(topic, 1)]
    for part in parts:
        broker.produce(topic, numbered(0, 10), partition=part.number)
    properties = reader.short_poll(strategy)
    first, old = reader(topic, properties=properties)
    refused: list[CommitRefused] = []

    def commit(partitions: Collection[Partition]) -> None:
        stale = {one: Position(1, (), "late") for one in partitions if old.owned[one] == Position(0)}
        try:
            first.commit(stale, 20.0)
        except CommitRefused as refusal:
            refused.append(refusal)

    old.revoking = commit
    read(first, 20)

    second, new = reader(topic, properties=properties)
    until(lambda: len(new.owned) == 2, second)
    second.commit({part: Position(9, (), "theirs") for part in parts}, 20.0)
    share((first, old), (second, new), 1)

    [back] = old.owned
    assert old.owned[back] == Position(9, (), "theirs")
    assert set(broker.committed(reader.group, parts).values()) == {Position(9, (), "theirs")}
    assert refused or old.lost


@pytest.mark.parametrize("protocol", ["range", "kip848"])
def test_two_processes_of_one_instance_do_not_both_read_and_the_message_names_the_setting(
    broker: Broker, new_topic: NewTopic, reader: Readers, protocol: str
) -> None:
    topic = new_topic(1)
    one = reader(topic, properties=PROTOCOLS[protocol], instance="worker-1")
    read_until(one[0], lambda _: bool(one[1].owned))
    other = reader(topic, properties=PROTOCOLS[protocol], instance="worker-1")

    with pytest.raises(SourceLost, match=r"--kafka\.instance worker-1 is also that of another process") as raised:
        until(lambda: False, one[0], other[0])

    # With the newer protocol it is the newcomer that has to go.
    assert raised.value.exit_code == 75
    victim, survivor = (other, one) if protocol == "kip848" else (one, other)
    assert _fails(victim)
    until(lambda: bool(survivor[1].owned), survivor[0])
    survivor[0].commit({Partition(topic, 0): Position(0, (), "alive")}, 20.0)


def _fails(opened: Opened) -> bool:
    try:
        opened[0].fetch(1, 1 << 24, 0.05)
    except SourceLost:
        return True
    return False


def test_an_exception_of_the_listener_stops_the_source_and_a_successor_misses_nothing(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(2)
    for number in (0, 1):
        broker.produce(topic, numbered(0, 10), partition=number)
    source, listener = reader(topic)
    fault = RuntimeError("seeded")

    def fail(positions: Mapping[Partition, Position]) -> Collection[Partition]:
        raise fault

    listener.on_assigned = fail  # type: ignore[method-assign]

    for _ in range(2):
        with pytest.raises(RuntimeError) as raised:
            read(source, 1)
        assert raised.value is fault
    listener.owned = {Partition(topic, number): Position(0) for number in (0, 1)}
    source.close()
    assert listener.revoked == []
    successor, _ = reader(topic)
    assert offsets(read(successor, 20)) == {Partition(topic, number): list(range(10)) for number in (0, 1)}


def test_a_commit_that_fails_for_one_partition_is_not_taken_for_a_commit_of_it(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(1)
    there, missing = Partition(topic, 0), Partition(topic, 7)
    source, listener = reader(topic)
    read_until(source, lambda _: bool(listener.owned))
    assert source._consumer is not None

    refused = store(
        source._consumer,
        {there: Committed(0, pack(StoredPosition(Position(0, (), "note")))), missing: Committed(3)},
        20.0,
    )

    assert set(refused) == {missing}
    assert broker.committed(reader.group, [there, missing]) == {there: Position(0, (), "note")}


def test_metadata_that_the_broker_does_not_take_are_a_fault_that_names_the_partition(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(1)
    source, listener = reader(topic)
    read_until(source, lambda _: bool(listener.owned))

    with pytest.raises(ConfigurationError, match=rf"{topic}\[0\] at 0 refused: .*METADATA_TOO_LARGE"):
        source.commit({Partition(topic, 0): Position(0, (), "x" * 4097)}, 20.0)


def test_a_partition_that_is_not_taken_is_offered_again_when_it_comes_back(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(2)
    for number in (0, 1):
        broker.produce(topic, numbered(0, 10), partition=number)
    parts = frozenset({Partition(topic, 0), Partition(topic, 1)})
    first, old = reader(topic, properties=PROTOCOLS["range"])
    old.refusing = parts
    read_until(first, lambda _: bool(old.assigned))
    old.owned.clear()
    old.refusing = frozenset()

    second, new = reader(topic, properties=PROTOCOLS["range"])
    share((first, old), (second, new), 1)

    assert old.revoked == old.lost == []
    assert len(old.assigned) == 2
    [back] = old.owned
    until(lambda: first.reached[back] == 10, first)


def test_listeners_are_never_asked_about_nothing(new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic(1)
    first, second = reader(topic), reader(topic)
    until(lambda: bool(first[1].owned or second[1].owned), first[0], second[0])

    for source, _ in (first, second):
        source.close()

    heard: list[RecordingListener] = [first[1], second[1]]
    assert [len(one.revoked) for one in heard if one.revoked] == [1]
    assert all(partitions for one in heard for partitions in (*one.revoked, *one.lost))
