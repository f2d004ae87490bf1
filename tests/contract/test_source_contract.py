"""The laws every source keeps, the in-memory one included.

A source takes part with a `SourceCase`: a log of two partitions, a way to fill it, and sources that read it for
one group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from batcher.core.intents import MAX_NOTE
from batcher.embedded.mock_cluster import MockCluster
from batcher.errors import CommitRefused
from batcher.protocols import Source
from batcher.records import Partition, Position
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.kafka import Broker, produce
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.listener import RecordingListener, numbered, offsets, read, read_for, read_until, values

A, B = Partition("topic", 0), Partition("topic", 1)

LONG_NOTE: Final = '"é"'.ljust(MAX_NOTE - 1, "x")
"""As long as a note may be, counted in bytes."""

QUIET_S: Final = 0.4
"""Long enough to see records that must not come, because the source has them at hand."""


class SourceCase(ABC):
    """Own a log with two partitions."""

    partitions: tuple[Partition, Partition] = (A, B)

    @abstractmethod
    def produce(self, partition: Partition, values: Sequence[bytes]) -> None:
        """Append records."""

    @abstractmethod
    def source(self, *, until_eof: bool = False) -> Source:
        """Return another source of the same group, not open."""


class MemoryCase(SourceCase):
    def __init__(self) -> None:
        self.log = MemoryLog([A, B])

    def produce(self, partition: Partition, values: Sequence[bytes]) -> None:
        self.log.produce(partition, values)

    def source(self, *, until_eof: bool = False) -> Source:
        return MemorySource(self.log, until_eof=until_eof)


class KafkaCase(SourceCase):
    def __init__(self, bootstrap: str, topic: str, **properties: str) -> None:
        self.bootstrap = bootstrap
        self.properties = {name.replace("_", "."): value for name, value in properties.items()}
        self.partitions = (Partition(topic, 0), Partition(topic, 1))

    def produce(self, partition: Partition, values: Sequence[bytes]) -> None:
        produce(self.bootstrap, partition.topic, values, partition=partition.number)

    def source(self, *, until_eof: bool = False) -> Source:
        topics = (self.partitions[0].topic,)
        return KafkaSource(
            KafkaOptions(self.bootstrap, topics, "group", properties=self.properties, until_eof=until_eof)
        )


def mock_case(request: pytest.FixtureRequest, protocol: str) -> SourceCase:
    cluster: MockCluster = request.getfixturevalue("mock_cluster")
    cluster.create_topic("topic", 2)
    # A member that left a classic group holds up the next one until its session is over.
    timeouts = {} if protocol == "consumer" else {"session_timeout_ms": "2000", "heartbeat_interval_ms": "300"}
    return KafkaCase(cluster.bootstrap, "topic", group_protocol=protocol, **timeouts)


def broker_case(request: pytest.FixtureRequest, **properties: str) -> SourceCase:
    broker: Broker = request.getfixturevalue("broker")
    topic = request.getfixturevalue("new_topic")(2)
    case = KafkaCase(broker.bootstrap, topic, **properties)
    group = request.getfixturevalue("new_group")()
    case.source = lambda *, until_eof=False: KafkaSource(  # type: ignore[method-assign]
        KafkaOptions(broker.bootstrap, (topic,), group, properties=case.properties, until_eof=until_eof)
    )
    return case


Build = Callable[[pytest.FixtureRequest], SourceCase]

CASES: Final[dict[str, Build]] = {
    "memory": lambda _: MemoryCase(),
    "kafka:mock": lambda request: mock_case(request, "classic"),
    "kafka:mock-kip848": lambda request: mock_case(request, "consumer"),
    # Members hear of a rebalance with a heartbeat, every 3 s by default.
    "kafka:cooperative": lambda request: broker_case(request, heartbeat_interval_ms="300"),
    "kafka:range": lambda request: broker_case(
        request, partition_assignment_strategy="range", heartbeat_interval_ms="300"
    ),
    "kafka:kip848": lambda request: broker_case(request, group_protocol="consumer"),
}


@pytest.fixture(
    params=[
        pytest.param(
            name, marks=[pytest.mark.broker] if name in {"kafka:cooperative", "kafka:range", "kafka:kip848"} else []
        )
        for name in CASES
    ]
)
def case(request: pytest.FixtureRequest) -> SourceCase:
    return CASES[request.param](request)


Opened = Callable[..., tuple[Source, RecordingListener]]


@pytest.fixture
def opened(case: SourceCase) -> Iterator[Opened]:
    """Open sources that have their partitions when they are returned, and close them at the end."""
    with ExitStack() as stack:

        def make(*, until_eof: bool = False) -> tuple[Source, RecordingListener]:
            source, listener = case.source(until_eof=until_eof), RecordingListener()
            source.open(listener)
            stack.callback(source.close)
            return source, listener

        yield make


def test_everything_is_fetched_once_and_in_order(case: SourceCase, opened: Opened) -> None:
    a, b = case.partitions
    case.produce(a, numbered(0, 500))
    case.produce(b, numbered(1000, 300))
    source, _ = opened()

    runs = read(source, 800) + read_for(source, QUIET_S)

    assert values(runs) == {a: numbered(0, 500), b: numbered(1000, 300)}
    assert all(found == sorted(set(found)) for found in offsets(runs).values())


def test_records_that_arrive_while_waiting_are_fetched(case: SourceCase, opened: Opened) -> None:
    a, _ = case.partitions
    source, listener = opened()
    read_until(source, lambda _: len(listener.owned) == 2)

    case.produce(a, [b"late"])

    assert values(read(source, 1)) == {a: [b"late"]}


def test_no_more_records_are_returned_than_asked_for(case: SourceCase, opened: Opened) -> None:
    a, b = case.partitions
    case.produce(a, numbered(0, 50))
    case.produce(b, numbered(0, 50))
    source, _ = opened()

    sizes: list[int] = []
    while sum(sizes) < 100:
        sizes.append(sum(map(len, source.fetch(7, 0.1))))

    assert max(sizes) <= 7


def test_a_paused_partition_is_silent_and_goes_on_where_it_stopped(case: SourceCase, opened: Opened) -> None:
    a, b = case.partitions
    case.produce(a, numbered(0, 200))
    source, listener = opened()
    runs = list(read_until(source, lambda _: len(listener.owned) == 2))
    while not runs:
        runs += source.fetch(50, 0.1)

    source.pause([a])
    case.produce(a, numbered(200, 100))
    case.produce(b, numbered(0, 10))
    meanwhile = read(source, 10) + read_for(source, QUIET_S)
    source.resume([a])
    before = sum(map(len, runs))
    runs += read(source, 300 - before) if before < 300 else []

    assert values(meanwhile) == {b: numbered(0, 10)}
    assert values(runs)[a] == numbered(0, 300)


def test_a_successor_starts_at_the_commit_and_is_given_its_note(case: SourceCase, opened: Opened) -> None:
    a, b = case.partitions
    case.produce(a, numbered(0, 100))
    case.produce(b, numbered(0, 10))
    first, _ = opened()
    read(first, 110)
    first.commit({a: Position(40, LONG_NOTE), b: Position(10)}, 20.0)
    first.close()

    second, listener = opened()
    runs = read(second, 60) + read_for(second, QUIET_S)

    assert listener.assigned[-1][a] == Position(40, LONG_NOTE)
    assert offsets(runs) == {a: list(range(40, 100))}


def test_closing_commits_nothing(case: SourceCase, opened: Opened) -> None:
    a, _ = case.partitions
    case.produce(a, numbered(0, 10))
    first, _ = opened()
    read(first, 10)
    first.close()

    second, _ = opened()

    assert values(read(second, 10)) == {a: numbered(0, 10)}


def test_partitions_are_given_back_through_the_listener_while_commits_still_work(
    case: SourceCase, opened: Opened
) -> None:
    a, b = case.partitions
    case.produce(a, numbered(0, 10))
    first, listener = opened()
    listener.revoking = lambda partitions: first.commit({one: Position(7) for one in partitions if one == a}, 20.0)
    read(first, 10)
    first.close()

    second, listener = opened()
    runs = read(second, 3)

    assert offsets(runs) == {a: [7, 8, 9]}
    assert listener.assigned[-1][b].next_offset == 0


def test_a_commit_for_a_foreign_partition_is_refused_and_the_others_are_stored(
    case: SourceCase, opened: Opened
) -> None:
    a, b = case.partitions
    foreign = Partition(a.topic, 77)
    case.produce(a, numbered(0, 10))
    source, listener = opened()
    read_until(source, lambda _: len(listener.owned) == 2)

    with pytest.raises(CommitRefused) as refusal:
        source.commit({a: Position(5, "kept"), foreign: Position(1)}, 20.0)
    source.close()
    successor, after = opened()
    read_until(successor, lambda _: len(after.owned) == 2)

    assert set(refusal.value.reasons) == {foreign}
    assert after.assigned[-1][a] == Position(5, "kept")
    assert after.assigned[-1][b].next_offset == 0


def test_a_commit_after_close_stores_nothing(case: SourceCase, opened: Opened) -> None:
    a, _ = case.partitions
    case.produce(a, numbered(0, 10))
    source, _ = opened()
    read(source, 10)
    source.close()

    with pytest.raises(CommitRefused):
        source.commit({a: Position(10)}, 5.0)


def test_closing_twice_and_without_opening_is_harmless(case: SourceCase, opened: Opened) -> None:
    case.source().close()
    source, listener = opened()
    read_until(source, lambda _: len(listener.owned) == 2)
    source.close()

    source.close()

    assert listener.owned == {}
    assert len(listener.revoked) == 1


def test_exhausted_comes_with_the_last_record_that_was_there_at_the_start(case: SourceCase, opened: Opened) -> None:
    a, _ = case.partitions
    case.produce(a, numbered(0, 120))
    source, _ = opened(until_eof=True)
    early = source.exhausted

    runs = read_until(source, lambda _: source.exhausted)

    assert not early
    assert values(runs) == {a: numbered(0, 120)}


def test_an_empty_log_is_exhausted_once_the_partitions_are_there(case: SourceCase, opened: Opened) -> None:
    source, listener = opened(until_eof=True)

    read_until(source, lambda _: source.exhausted)

    assert set(listener.owned) == set(case.partitions)


def test_a_source_that_goes_on_is_never_exhausted(case: SourceCase, opened: Opened) -> None:
    a, _ = case.partitions
    case.produce(a, numbered(0, 5))
    source, _ = opened()
    read(source, 5)

    read_for(source, QUIET_S)

    assert not source.exhausted


def test_what_was_reached_is_what_was_delivered(case: SourceCase, opened: Opened) -> None:
    a, b = case.partitions
    case.produce(a, numbered(0, 30))
    source, listener = opened()
    before = source.reached
    runs = list(read_until(source, lambda _: len(listener.owned) == 2))
    while sum(map(len, runs)) < 20:
        runs += source.fetch(7, 0.1)
        assert source.reached == {a: sum(map(len, runs)), b: 0}

    source.close()

    assert before == source.reached == {}


def test_partitions_that_are_not_taken_are_left_alone(case: SourceCase, opened: Opened) -> None:
    a, b = case.partitions
    case.produce(a, numbered(0, 10))
    case.produce(b, numbered(0, 10))
    source, listener = opened(until_eof=True)
    listener.refusing = frozenset({a})

    runs = read_until(source, lambda _: source.exhausted)
    source.pause([a, b])
    source.resume([a, b])
    runs += read_for(source, QUIET_S)
    with pytest.raises(CommitRefused) as refusal:
        source.commit({a: Position(3), b: Position(10)}, 20.0)
    reached = source.reached
    source.close()

    assert offsets(runs) == {b: list(range(10))}
    assert set(refusal.value.reasons) == {a}
    assert reached == {b: 10}
    assert listener.revoked == [frozenset({b})]
    assert listener.lost == []


def test_partitions_that_were_not_taken_are_offered_again(case: SourceCase, opened: Opened) -> None:
    a, _ = case.partitions
    case.produce(a, numbered(0, 10))
    first, listener = opened()
    listener.refusing = frozenset({a})
    read_until(first, lambda _: len(listener.assigned) == 1)
    first.close()

    second, listener = opened()
    runs = read(second, 10)

    assert listener.assigned[-1][a] == Position(0)
    assert offsets(runs) == {a: list(range(10))}
