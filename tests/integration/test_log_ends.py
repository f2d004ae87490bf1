"""Where logs begin and end on Apache Kafka: what expired, was cut, compacted away, or is not for readers."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from batcher.errors import DataGap
from batcher.records import Partition, Position
from batcher.sources.kafka.admin import Admin
from batcher.testing.kafka import CLEANED_WITHIN_S, COMPACTED, Broker
from batcher.testing.listener import numbered, offsets, read, read_for, read_until, values
from tests.harness.readers import Readers, open_transaction, transaction, until

pytestmark = pytest.mark.broker

NewTopic = Callable[..., str]


@pytest.fixture
def expired(broker: Broker, new_topic: NewTopic, reader: Readers) -> Partition:
    """Return a partition of 20 records with a commit at 5 and nothing below 12 any more."""
    part = Partition(new_topic(), 0)
    broker.produce(part.topic, numbered(0, 20))
    broker.commit(reader.group, {part: Position(5, (), "intent")})
    broker.delete_records(part, 12)
    return part


def test_records_that_expired_before_they_were_read_stop_the_source_with_the_exact_gap(
    expired: Partition, reader: Readers
) -> None:
    source, listener = reader(expired.topic)

    with pytest.raises(DataGap, match=rf"{expired.topic}\[0\]: offsets 5-11 \(7\) expired"):
        read(source, 1)

    assert listener.assigned == []
    with pytest.raises(DataGap):
        source.fetch(1, 1 << 24, 0.1)


def test_expired_records_can_be_skipped_and_the_mark_of_the_commit_is_kept(expired: Partition, reader: Readers) -> None:
    source, listener = reader(expired.topic, on_gap="skip")
    runs = read(source, 8)

    assert listener.assigned == [{expired: Position(12, (), "intent")}]
    assert offsets(runs) == {expired: list(range(12, 20))}


@pytest.mark.parametrize("on_gap", ["halt", "skip"])
def test_a_commit_beyond_the_end_of_the_log_always_stops_the_source(
    broker: Broker, new_topic: NewTopic, reader: Readers, on_gap: str
) -> None:
    topic = new_topic()
    broker.produce(topic, numbered(0, 3))
    broker.commit(reader.group, {Partition(topic, 0): Position(50)})
    source, _ = reader(topic, on_gap=on_gap)

    with pytest.raises(DataGap, match="next offset to read is 50, but the log ends at 3"):
        read(source, 1)


@pytest.mark.parametrize("on_gap", ["halt", "skip"])
def test_records_that_expire_while_the_source_runs_are_a_gap_too(
    broker: Broker, new_topic: NewTopic, reader: Readers, on_gap: str
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 10))
    source, _ = reader(topic, on_gap=on_gap)
    read(source, 10)
    source.pause([part])
    broker.produce(topic, numbered(10, 10))
    broker.delete_records(part, 15)
    source.resume([part])

    if on_gap == "skip":
        assert offsets(read(source, 5)) == {part: list(range(15, 20))}
    else:
        with pytest.raises(DataGap, match=r"offsets 10-14 \(5\) expired"):
            read(source, 1)


def test_a_topic_created_anew_is_read_from_its_first_record(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 10))
    first, _ = reader(topic)
    read(first, 10)
    first.commit({part: Position(10, (), "note")}, 20.0)
    first.close()

    broker.create_anew(topic)
    broker.produce(topic, numbered(100, 20))
    second, listener = reader(topic)
    runs = read(second, 20)

    assert listener.assigned == [{part: Position(0)}]
    assert values(runs) == {part: numbered(100, 20)}


@pytest.fixture
def _without_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the brokers be such that tell no ids of topics."""
    monkeypatch.setattr(Admin, "topic_ids", lambda *_: {})


@pytest.mark.usefixtures("_without_ids")
def test_a_topic_created_anew_under_a_reader_stops_it(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic()
    broker.produce(topic, numbered(0, 10))
    source, _ = reader(topic)
    read(source, 10)

    broker.create_anew(topic)

    with pytest.raises(DataGap, match=rf"{topic}\[0\]: .* is 10, but the log ends at 0: offsets 0-9 \(10\) are gone"):
        read(source, 1)


@pytest.mark.usefixtures("_without_ids")
def test_a_topic_created_anew_that_has_outgrown_its_reader_stops_it_as_well(
    broker: Broker, new_topic: NewTopic, reader: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = new_topic()
    broker.produce(topic, numbered(0, 10))
    source, _ = reader(topic)
    read(source, 10)
    monkeypatch.setattr(source._offsets, "watermarks", lambda _: (0, 20))

    broker.create_anew(topic)

    with pytest.raises(DataGap, match=r"offset 10 was not in the log, which ends at 20 by now"):
        read(source, 1)


def test_a_compacted_log_is_read_over_its_holes_and_known_to_have_ended_without_its_last_record(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic(1, **COMPACTED)
    part = Partition(topic, 0)
    broker.produce(topic, ["0", "1", "2", "3", None], keys=[b"a", b"b", b"a", b"c", b"d"])
    broker.commit(reader.group, {part: Position(0, (), "announced up to 4")})
    clean(broker, reader, topic, {part: [1, 2, 3]})

    source, listener = reader(topic)
    runs = read(source, 3)
    until(lambda: source.reached[part] > 4, source, timeout_s=5.0)

    assert listener.assigned == [{part: Position(0, (), "announced up to 4")}]
    assert offsets(runs) == {part: [1, 2, 3]}
    assert source.reached == broker.ends(topic)


def clean(broker: Broker, reader: Readers, topic: str, left: dict[Partition, list[int]]) -> None:
    """Wait until no more than this is left of a topic whose last record is a tombstone."""
    deadline = time.monotonic() + CLEANED_WITHIN_S
    found: dict[Partition, list[int]] = {}
    with Readers(broker, f"{reader.group}-watching") as watching:
        while time.monotonic() < deadline:
            # The cleaner leaves the last segment alone, and takes away a tombstone the second time it sees it. Aborted
            # transactions make segments in which nothing is to be read.
            time.sleep(0.15)
            transaction(broker, topic, {b"x": b"x"}, commit=False)
            source, _ = watching(topic, until_eof=True)
            runs = read_until(source, lambda _: source.exhausted)  # noqa: B023  (called here and now)
            source.close()
            found = offsets(runs)
            if found == left:
                return
    pytest.fail(f"not compacted within {CLEANED_WITHIN_S:g} s: {found}")


def test_a_range_that_ends_in_a_control_record_is_complete_without_another_record(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    transaction(broker, topic, {b"%d" % number: b"" for number in range(3)}, commit=True)
    transaction(broker, topic, {b"%d" % number: b"" for number in range(4)}, commit=False)
    source, _ = reader(topic)

    runs = read(source, 3)
    until(lambda: source.reached[part] == 9, source, timeout_s=5.0)
    broker.produce(topic, [b"later"])
    runs += read(source, 1)

    assert offsets(runs) == {part: [0, 1, 2, 9]}
    assert source.reached == {part: 10}


def test_records_of_an_open_transaction_are_not_yet_reached(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    broker.produce(topic, numbered(0, 2))
    source, _ = reader(topic)
    read(source, 2)

    with open_transaction(broker, topic, {b"a": b""}, commit=False):
        read_for(source, 1.0)
        assert source.reached == {part: 2}
    until(lambda: source.reached == {part: 4}, source, timeout_s=5.0)


def test_aborted_records_are_not_read_and_a_log_that_ends_in_them_comes_to_its_end(
    broker: Broker, new_topic: NewTopic, reader: Readers
) -> None:
    topic = new_topic()
    transaction(broker, topic, {b"a": b"", b"b": b"", b"c": b""}, commit=True)
    transaction(broker, topic, {b"a": b"", b"b": b""}, commit=False)

    source, _ = reader(topic, until_eof=True)
    runs = read_until(source, lambda _: source.exhausted)

    assert offsets(runs) == {Partition(topic, 0): [0, 1, 2]}
    assert broker.ends(topic)[Partition(topic, 0)] > 3


def test_the_end_is_found_on_a_partition_that_was_paused(broker: Broker, new_topic: NewTopic, reader: Readers) -> None:
    topic = new_topic()
    part = Partition(topic, 0)
    transaction(broker, topic, {b"a": b""}, commit=False)
    source, listener = reader(topic, until_eof=True)
    read_until(source, lambda _: bool(listener.owned))
    source.pause([part])
    read_for(source, 0.5)
    source.resume([part])

    read_until(source, lambda _: source.exhausted)
    assert source.reached == {part: 2}
