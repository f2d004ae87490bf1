"""The laws that every source keeps, as tests to inherit: `class TestMine(SourceLaws)` with a fixture `case`.

A case is a log with two partitions: it appends records, and makes sources of one group that read them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from batcher.engine.assembly import check_capabilities
from batcher.errors import CommitRefused
from batcher.protocols import SOURCE_METHODS, Offering, Source
from batcher.protocols.source import offering
from batcher.records import Partition, Position
from batcher.testing.listener import RecordingListener, numbered, offsets, read, read_for, read_until, values
from batcher.testing.values import make_position

QUIET_S: Final = 0.4
"""Long enough to see records that must not come, because the source has them at hand."""


class SourceCase(ABC):
    """Own a log with two partitions."""

    partitions: tuple[Partition, Partition] = (Partition("topic", 0), Partition("topic", 1))

    @abstractmethod
    def produce(self, partition: Partition, values: Sequence[bytes]) -> None:
        """Append records."""

    @abstractmethod
    def source(self, *, until_eof: bool = False) -> Source:
        """Return another source of the same group, not open."""


Opened = Callable[..., tuple[Source, RecordingListener]]


class SourceLaws:
    """Hold a source to the laws. A suite inherits from it and has a fixture `case` that returns a `SourceCase`."""

    @pytest.fixture
    def opened(self, case: SourceCase) -> Iterator[Opened]:
        """Open sources that have their partitions when they are returned, and close them at the end."""
        with ExitStack() as stack:

            def make(*, until_eof: bool = False) -> tuple[Source, RecordingListener]:
                source, listener = case.source(until_eof=until_eof), RecordingListener()
                source.open(listener)
                stack.callback(source.close)
                return source, listener

            yield make

    def test_a_source_says_at_open_what_it_keeps_and_has_the_methods_for_it(self, case: SourceCase) -> None:
        source = case.source()
        try:
            info = source.open(RecordingListener())
        finally:
            source.close()
        check_capabilities(source, info)

    def test_no_partition_is_given_before_the_first_fetch(self, case: SourceCase) -> None:
        source, listener = case.source(), RecordingListener()
        try:
            source.open(listener)
            assert listener.assigned == []
        finally:
            source.close()

    def test_everything_is_fetched_once_and_in_order(self, case: SourceCase, opened: Opened) -> None:
        a, b = case.partitions
        case.produce(a, numbered(0, 500))
        case.produce(b, numbered(1000, 300))
        source, _ = opened()

        runs = read(source, 800) + read_for(source, QUIET_S)

        assert values(runs) == {a: numbered(0, 500), b: numbered(1000, 300)}
        assert all(found == sorted(set(found)) for found in offsets(runs).values())

    def test_records_that_arrive_while_waiting_are_fetched(self, case: SourceCase, opened: Opened) -> None:
        a, _ = case.partitions
        source, listener = opened()
        read_until(source, lambda _: len(listener.owned) == 2)

        case.produce(a, [b"late"])

        assert values(read(source, 1)) == {a: [b"late"]}

    def test_no_more_records_are_returned_than_asked_for(self, case: SourceCase, opened: Opened) -> None:
        a, b = case.partitions
        case.produce(a, numbered(0, 50))
        case.produce(b, numbered(0, 50))
        source, _ = opened()

        sizes: list[int] = []
        while sum(sizes) < 100:
            sizes.append(sum(map(len, source.fetch(7, 1 << 24, 0.1))))

        assert max(sizes) <= 7

    def test_a_paused_partition_is_silent_and_goes_on_where_it_stopped(self, case: SourceCase, opened: Opened) -> None:
        a, b = case.partitions
        case.produce(a, numbered(0, 200))
        source, listener = opened()
        runs = list(read_until(source, lambda _: len(listener.owned) == 2))
        while not runs:
            runs += source.fetch(50, 1 << 24, 0.1)

        source.pause([a])
        case.produce(a, numbered(200, 100))
        case.produce(b, numbered(0, 10))
        meanwhile = read(source, 10) + read_for(source, QUIET_S)
        source.resume([a])
        before = sum(map(len, runs))
        runs += read(source, 300 - before) if before < 300 else []

        assert values(meanwhile) == {b: numbered(0, 10)}
        assert values(runs)[a] == numbered(0, 300)

    def test_a_successor_starts_at_the_commit_and_is_given_its_intents(self, case: SourceCase, opened: Opened) -> None:
        a, b = case.partitions
        case.produce(a, numbered(0, 100))
        case.produce(b, numbered(0, 10))
        first, _ = opened()
        read(first, 110)
        first.commit({a: make_position(a, 40), b: Position(10)}, 20.0)
        first.close()

        second, listener = opened()
        runs = read(second, 60) + read_for(second, QUIET_S)

        assert listener.assigned[-1][a] == make_position(a, 40)
        assert offsets(runs) == {a: list(range(40, 100))}

    def test_closing_commits_nothing(self, case: SourceCase, opened: Opened) -> None:
        a, _ = case.partitions
        case.produce(a, numbered(0, 10))
        first, _ = opened()
        read(first, 10)
        first.close()

        second, _ = opened()

        assert values(read(second, 10)) == {a: numbered(0, 10)}

    def test_partitions_are_given_back_through_the_listener_while_commits_still_work(
        self, case: SourceCase, opened: Opened
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
        self, case: SourceCase, opened: Opened
    ) -> None:
        a, b = case.partitions
        foreign = Partition(a.topic, 77)
        case.produce(a, numbered(0, 10))
        source, listener = opened()
        read_until(source, lambda _: len(listener.owned) == 2)

        with pytest.raises(CommitRefused) as refusal:
            source.commit({a: Position(5, (), "kept"), foreign: Position(1)}, 20.0)
        source.close()
        successor, after = opened()
        read_until(successor, lambda _: len(after.owned) == 2)

        assert set(refusal.value.reasons) == {foreign}
        assert after.assigned[-1][a] == Position(5, (), "kept")
        assert after.assigned[-1][b].next_offset == 0

    def test_a_commit_after_close_stores_nothing(self, case: SourceCase, opened: Opened) -> None:
        a, _ = case.partitions
        case.produce(a, numbered(0, 10))
        source, _ = opened()
        read(source, 10)
        source.close()

        with pytest.raises(CommitRefused):
            source.commit({a: Position(10)}, 5.0)

    def test_closing_twice_and_without_opening_is_harmless(self, case: SourceCase, opened: Opened) -> None:
        case.source().close()
        source, listener = opened()
        read_until(source, lambda _: len(listener.owned) == 2)
        source.close()

        source.close()

        assert listener.owned == {}
        assert len(listener.revoked) == 1

    def test_exhausted_comes_with_the_last_record_that_was_there_at_the_start(
        self, case: SourceCase, opened: Opened
    ) -> None:
        a, _ = case.partitions
        case.produce(a, numbered(0, 120))
        source, _ = opened(until_eof=True)
        early = source.exhausted

        runs = read_until(source, lambda _: source.exhausted)

        assert not early
        assert values(runs) == {a: numbered(0, 120)}

    def test_an_empty_log_is_exhausted_once_the_partitions_are_there(self, case: SourceCase, opened: Opened) -> None:
        source, listener = opened(until_eof=True)

        read_until(source, lambda _: source.exhausted)

        assert set(listener.owned) == set(case.partitions)

    def test_a_source_that_goes_on_is_never_exhausted(self, case: SourceCase, opened: Opened) -> None:
        a, _ = case.partitions
        case.produce(a, numbered(0, 5))
        source, _ = opened()
        read(source, 5)

        read_for(source, QUIET_S)

        assert not source.exhausted

    def test_what_was_reached_is_what_was_delivered(self, case: SourceCase, opened: Opened) -> None:
        a, b = case.partitions
        case.produce(a, numbered(0, 30))
        source, listener = opened()
        before = source.reached
        runs = list(read_until(source, lambda _: len(listener.owned) == 2))
        while sum(map(len, runs)) < 20:
            runs += source.fetch(7, 1 << 24, 0.1)
            assert source.reached == {a: sum(map(len, runs)), b: 0}

        source.close()

        assert before == source.reached == {}

    def test_partitions_that_are_not_taken_are_left_alone(self, case: SourceCase, opened: Opened) -> None:
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

    def test_partitions_that_were_not_taken_are_offered_again(self, case: SourceCase, opened: Opened) -> None:
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

    def test_partitions_that_were_not_taken_can_be_offered_to_the_same_listener(
        self, case: SourceCase, opened: Opened
    ) -> None:
        a, b = case.partitions
        case.produce(a, numbered(0, 10))
        case.produce(b, numbered(0, 10))
        source, listener = opened()
        selective = self._offering(source)
        listener.refusing = frozenset({a})
        runs = read(source, 10) + read_for(source, QUIET_S)
        listener.refusing = frozenset()

        selective.offer([a, Partition(a.topic, 77)])
        later = read(source, 10) + read_for(source, QUIET_S)
        source.commit({a: Position(10), b: Position(10)}, 20.0)

        assert offsets(runs) == {b: list(range(10))}
        assert listener.assigned[-1] == {a: Position(0)}
        assert offsets(later) == {a: list(range(10))}

    def test_partitions_that_are_ignored_deliver_nothing_and_do_not_keep_the_end_back(
        self, case: SourceCase, opened: Opened
    ) -> None:
        a, b = case.partitions
        case.produce(a, numbered(0, 10))
        case.produce(b, numbered(0, 10))
        source, listener = opened(until_eof=True)
        selective = self._offering(source)
        read_until(source, lambda _: len(listener.owned) == 2)
        source.commit({a: Position(4)}, 20.0)
        source.pause([b])

        selective.ignore([a])
        source.resume([b])
        runs = read_until(source, lambda _: source.exhausted)
        with pytest.raises(CommitRefused) as refusal:
            source.commit({a: Position(9), b: Position(10)}, 20.0)
        source.close()
        second, listener = opened()
        read_until(second, lambda _: len(listener.owned) == 2)

        assert a not in offsets(runs)
        assert set(refusal.value.reasons) == {a}
        assert listener.assigned[-1][a].next_offset == 4
        assert listener.assigned[-1][b].next_offset == 10

    def _offering(self, source: Source) -> Offering:
        """Return a source of these tests as one that offers partitions, or skip where it has not said that it does."""
        if not all(callable(getattr(source, name, None)) for name in SOURCE_METHODS["offer"]):
            pytest.skip("the source has no capability offer")
        return offering(source)
