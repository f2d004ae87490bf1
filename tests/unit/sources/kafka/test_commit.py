"""Commits against the mock cluster, which answers with the error it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError

from batcher.embedded.mock_cluster import DISCONNECT, ApiKey, MockCluster
from batcher.errors import BatcherError, CommitRefused, CommitUnconfirmed, ConfigurationError, SourceLost
from batcher.records import Partition, Position
from batcher.sources.kafka import progress
from batcher.sources.kafka.errors import (
    COMMIT_FENCED,
    COMMIT_NEVER,
    COMMIT_OUTRUN,
    COMMIT_REBALANCING,
    COMMIT_RETRIED,
    FATAL,
)
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.kafka import Broker
from batcher.testing.listener import RecordingListener, offsets, read, read_until

PART = Partition("events", 0)
ALWAYS = 200
"""More answers than a commit can ask for before its time is up."""


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture
def source(mock_cluster: MockCluster, listener: RecordingListener) -> Iterator[KafkaSource]:
    """Return a source that owns PART."""
    mock_cluster.create_topic(PART.topic)
    opened = KafkaSource(KafkaOptions(mock_cluster.bootstrap, (PART.topic,), "g"))
    opened.open(listener)
    read_until(opened, lambda _: bool(listener.owned))
    yield opened
    mock_cluster.clear_errors(ApiKey.OFFSET_COMMIT)
    opened.close()


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.REBALANCE_IN_PROGRESS,
        DISCONNECT,
    ],
)
def test_what_may_pass_is_repeated_until_it_has(mock_cluster: MockCluster, source: KafkaSource, code: int) -> None:
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [code] * 2)

    source.commit({PART: Position(3, (), "note")}, 30.0)

    assert Broker(mock_cluster.bootstrap).committed("g", [PART]) == {PART: Position(3, (), "note")}


def test_the_same_offset_with_another_mark_is_no_proof_of_a_commit(
    mock_cluster: MockCluster, source: KafkaSource
) -> None:
    source.commit({PART: Position(3, (), "before")}, 30.0)
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [KafkaError.REBALANCE_IN_PROGRESS])

    source.commit({PART: Position(3, (), "after")}, 30.0)

    assert Broker(mock_cluster.bootstrap).committed("g", [PART]) == {PART: Position(3, (), "after")}


def test_a_group_that_waits_for_a_partition_to_be_given_up_is_not_waited_for(
    mock_cluster: MockCluster, source: KafkaSource, listener: RecordingListener
) -> None:
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [KafkaError.REBALANCE_IN_PROGRESS] * ALWAYS)
    refused: list[CommitRefused] = []

    def commit(_: object) -> None:
        try:
            source.commit({PART: Position(3)}, 60.0)
        except CommitRefused as refusal:
            refused.append(refusal)

    listener.revoking = commit
    source.close()

    assert [set(one.reasons) for one in refused] == [{PART}]


def test_a_commit_that_never_gets_through_is_unknown(mock_cluster: MockCluster, source: KafkaSource) -> None:
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [KafkaError.REBALANCE_IN_PROGRESS] * ALWAYS)

    with pytest.raises(CommitUnconfirmed, match=r"events\[0\] not confirmed within 0.5 s: .*REBALANCE_IN_PROGRESS"):
        source.commit({PART: Position(3)}, 0.5)


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION])
def test_a_member_that_was_fenced_is_refused(mock_cluster: MockCluster, source: KafkaSource, code: int) -> None:
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [code] * ALWAYS)

    with pytest.raises(CommitRefused) as refusal:
        source.commit({PART: Position(3)}, 20.0)

    assert set(refusal.value.reasons) == {PART}


@pytest.mark.parametrize("code", [KafkaError.STALE_MEMBER_EPOCH, KafkaError.FENCED_MEMBER_EPOCH])
def test_a_member_that_is_refused_and_keeps_its_partition_joins_anew_and_reads_from_the_commit(
    mock_cluster: MockCluster, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(progress, "REJOIN_AFTER_S", 0.0)
    mock_cluster.create_topic(PART.topic)
    Broker(mock_cluster.bootstrap).produce(PART.topic, [b"%d" % number for number in range(10)])
    options = KafkaOptions(mock_cluster.bootstrap, (PART.topic,), "g", properties={"group.protocol": "consumer"})
    source, listener = KafkaSource(options), RecordingListener()
    source.open(listener)
    try:
        read(source, 10)
        source.commit({PART: Position(4, (), "note")}, 20.0)
        mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [code] * ALWAYS)
        with pytest.raises(CommitRefused):
            source.commit({PART: Position(8)}, 20.0)
        mock_cluster.clear_errors(ApiKey.OFFSET_COMMIT)

        runs = read(source, 6)
    finally:
        source.close()

    assert listener.lost == [frozenset({PART})]
    assert listener.assigned[1:] == [{PART: Position(4, (), "note")}]
    assert offsets(runs) == {PART: [4, 5, 6, 7, 8, 9]}


def test_a_commit_outrun_by_a_rebalance_is_repeated(mock_cluster: MockCluster, source: KafkaSource) -> None:
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [KafkaError.STALE_MEMBER_EPOCH] * 2)

    source.commit({PART: Position(3)}, 20.0)


@pytest.mark.parametrize(
    ("code", "reaction", "words"),
    [
        (KafkaError.GROUP_AUTHORIZATION_FAILED, ConfigurationError, "GROUP_AUTHORIZATION_FAILED"),
        (KafkaError.OFFSET_METADATA_TOO_LARGE, ConfigurationError, "OFFSET_METADATA_TOO_LARGE"),
        (KafkaError.FENCED_INSTANCE_ID, SourceLost, "--kafka.instance"),
        (KafkaError.INVALID_PARTITIONS, SourceLost, "INVALID_PARTITIONS"),
    ],
)
def test_what_can_never_work_is_not_repeated(
    mock_cluster: MockCluster, source: KafkaSource, code: int, reaction: type[BatcherError], words: str
) -> None:
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [code] * ALWAYS)

    with pytest.raises(reaction, match=words):
        source.commit({PART: Position(3)}, 20.0)


def test_a_client_that_is_dead_is_not_closed_which_would_never_end(
    mock_cluster: MockCluster, source: KafkaSource, listener: RecordingListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Consumer] = []

    def close_within(consumer: Consumer, _: float) -> bool:
        closed.append(consumer)
        return True

    monkeypatch.setattr("batcher.sources.kafka.source._close_within", close_within)
    mock_cluster.push_errors(ApiKey.OFFSET_COMMIT, [KafkaError.FENCED_INSTANCE_ID] * ALWAYS)
    with pytest.raises(SourceLost):
        source.commit({PART: Position(3)}, 20.0)

    source.close()

    assert closed == []
    assert not listener.owned


def test_no_code_has_two_reactions() -> None:
    classes = [COMMIT_RETRIED, COMMIT_REBALANCING, COMMIT_OUTRUN, COMMIT_FENCED, COMMIT_NEVER, FATAL]

    assert sum(map(len, classes)) == len(frozenset().union(*classes))
