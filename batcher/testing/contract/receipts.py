"""The laws of a queue with receipts behind its gateway, as tests to inherit: `class TestMine(ReceiptLaws)`.

A case is one queue: it publishes messages, makes gateways that read it, and lets leases run out.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import pytest

from batcher.engine.assembly import check_capabilities
from batcher.records import Partition, Position, Records
from batcher.sources.receipts.gateway import Gateway
from batcher.sources.receipts.source import ReceiptSource
from batcher.testing.listener import RecordingListener

PATIENCE_S: Final = 20.0
FETCH_S: Final = 0.05


class ReceiptCase(ABC):
    """Own a queue that is empty."""

    clock: Callable[[], float] = staticmethod(time.monotonic)
    """What the source counts leases by."""
    sleep: Callable[[float], None] = staticmethod(time.sleep)
    """Let time pass, as this clock and the queue count it."""
    delays: bool = True
    """A release can ask for a delay."""
    counts_attempts: bool = True
    """The queue says how often it has delivered a message."""
    knows_depth: bool = True
    """The queue says how many messages it has."""
    extends: bool = True
    """A lease can be begun anew."""
    bounded: bool = True
    """It is the reader's choice how many messages are held."""

    @abstractmethod
    def publish(self, bodies: Sequence[bytes]) -> None:
        """Add messages."""

    @abstractmethod
    def gateway(self, *, max_held: int = 1000, long: bool = False) -> Gateway:
        """Return another gateway to the queue, not open, with the shortest lease that tests can wait for.

        With `long` with one that does not end while a law reads, of more than PATIENCE_S.
        """

    @property
    @abstractmethod
    def lease_s(self) -> float:
        """Return how long a lease lasts."""


class Reader:
    """A source with its listener, as a test reads it."""

    def __init__(self, source: ReceiptSource, clock: Callable[[], float]) -> None:
        self.source = source
        self.clock = clock
        self.listener = RecordingListener()
        self.info = source.open(self.listener)

    def read(self, count: int) -> list[Records]:
        """Return the runs of at least so many messages; fewer when they do not come in time."""
        runs: list[Records] = []
        deadline = self.clock() + PATIENCE_S
        while sum(map(len, runs)) < count and self.clock() < deadline:
            runs += self.source.fetch(1000, 1 << 24, FETCH_S)
        return runs

    def read_for(self, seconds: float) -> list[Records]:
        """Return what comes within a time."""
        runs: list[Records] = []
        deadline = self.clock() + seconds
        while self.clock() < deadline:
            runs += self.source.fetch(1000, 1 << 24, FETCH_S)
        return runs

    @property
    def partition(self) -> Partition:
        [partition] = self.listener.owned
        return partition

    def saturated(self) -> bool:
        """Return whether the source says that nothing more comes."""
        return self.source.saturated

    def exhausted(self) -> bool:
        """Return whether the source says that this is the end."""
        return self.source.exhausted

    def commit(self, next_offset: int) -> None:
        """Make everything below a number durable."""
        self.source.commit({self.partition: Position(next_offset)}, 5.0)

    def release(self, offsets: Sequence[int], delay_s: float = 0.0) -> None:
        """Give some messages back."""
        self.source.release({self.partition: dict.fromkeys(offsets, delay_s)})


Readers = Callable[..., Reader]


def bodies(runs: Sequence[Records]) -> list[bytes]:
    """Return the messages of some runs, sorted: a queue keeps no order."""
    return sorted(value for run in runs for value in run.values.to_pylist())


def names(runs: Sequence[Records]) -> dict[bytes, str]:
    """Return the queue's name of each message, by its body."""
    return {
        value: name
        for run in runs
        if run.ids is not None
        for value, name in zip(run.values.to_pylist(), run.ids.to_pylist(), strict=True)
    }


def numbered(count: int) -> list[bytes]:
    """Return bodies that sort as they count."""
    return [b"%06d" % number for number in range(count)]


class ReceiptLaws:
    """Hold a gateway to the laws. A suite inherits from it and has a fixture `case` that returns a `ReceiptCase`."""

    @pytest.fixture
    def reader(self, case: ReceiptCase) -> Iterator[Readers]:
        """Open readers of the queue, and close them at the end."""
        with ExitStack() as stack:

            def make(*, max_held: int = 1000, until_eof: bool = False, long: bool = False) -> Reader:
                gateway = case.gateway(max_held=max_held, long=long)
                source = ReceiptSource(gateway, until_eof=until_eof, clock=case.clock, sleep=case.sleep)
                stack.callback(source.close)
                return Reader(source, case.clock)

            yield make

    def test_a_queue_says_at_open_what_it_keeps_and_its_source_has_the_methods_for_it(self, reader: Readers) -> None:
        one = reader()

        check_capabilities(one.source, one.info)
        assert one.info.guarantee == "at-least-once"
        assert one.listener.assigned == []

    def test_every_message_comes_once_with_a_name_and_numbers_ascend(self, case: ReceiptCase, reader: Readers) -> None:
        case.publish(numbered(120))
        one = reader()
        runs = one.read(120) + one.read_for(0.2)

        assert bodies(runs) == numbered(120)
        assert len(set(names(runs).values())) == 120
        offsets = [offset for run in runs for offset in run.offsets.to_pylist()]
        assert offsets == sorted(set(offsets))

    def test_what_is_acknowledged_never_comes_again_and_the_rest_does_under_its_name(
        self, case: ReceiptCase, reader: Readers
    ) -> None:
        case.publish(numbered(30))
        first = reader()
        runs = first.read(30)
        offsets = [offset for run in runs for offset in run.offsets.to_pylist()]
        values = [value for run in runs for value in run.values.to_pylist()]
        first.commit(offsets[20])
        # Like a reader that dies: it takes nothing more, and nobody extends its leases.
        first.source.pause([first.partition])
        case.sleep(case.lease_s * 1.3)
        second = reader()
        again = second.read(10) + second.read_for(0.2)

        assert bodies(again) == sorted(values[20:])
        assert all(names(again)[value] == names(runs)[value] for value in values[20:])
        if case.counts_attempts:
            assert {attempt for run in again if run.attempts is not None for attempt in run.attempts.to_pylist()} == {2}
        # The first reader learns that they are no longer its own, and that is no error.
        first.commit(offsets[-1] + 1)
        assert first.source.lapsed == 10

    def test_leases_are_extended_as_long_as_the_source_is_asked_also_while_it_is_paused(
        self, case: ReceiptCase, reader: Readers
    ) -> None:
        if not case.extends:
            return
        case.publish(numbered(10))
        holder, other = reader(), reader()
        runs = holder.read(10)
        holder.source.pause([holder.partition])
        came: list[Records] = []
        deadline = case.clock() + case.lease_s * 2.5
        while case.clock() < deadline:
            assert holder.source.fetch(1000, 1 << 24, FETCH_S) == []
            came += other.source.fetch(1000, 1 << 24, FETCH_S)
        holder.commit(runs[-1].next_offset)

        assert came == []
        assert holder.source.lapsed == 0

    def test_a_released_message_comes_again_and_is_not_acknowledged_with_its_neighbours(
        self, case: ReceiptCase, reader: Readers
    ) -> None:
        case.publish(numbered(6))
        one = reader()
        runs = one.read(6)
        by_body = {
            value: offset
            for run in runs
            for value, offset in zip(run.values.to_pylist(), run.offsets.to_pylist(), strict=True)
        }
        one.release([by_body[b"000001"], by_body[b"000004"]])
        one.commit(runs[-1].next_offset)
        again = one.read(2)
        one.commit(again[-1].next_offset)

        assert bodies(again) == [b"000001", b"000004"]
        assert one.source.lapsed == 0
        assert one.read_for(case.lease_s * 1.3) == []

    def test_a_release_keeps_its_delay(self, case: ReceiptCase, reader: Readers) -> None:
        if not case.delays:
            return
        case.publish([b"later"])
        one = reader()
        [run] = one.read(1)
        one.release([run.first_offset], 1.0)
        began = case.clock()
        assert one.read_for(0.4) == []
        again = one.read(1)

        assert bodies(again) == [b"later"]
        assert case.clock() - began >= 0.9

    def test_a_source_that_closes_gives_back_at_once_what_it_holds(self, case: ReceiptCase, reader: Readers) -> None:
        case.publish(numbered(40))
        first = reader(max_held=25, long=True)
        runs = first.read(25)
        first.source.close()
        again = reader().read(40)

        assert len(bodies(runs)) >= 25
        assert bodies(again) == numbered(40), "in less time than a lease lasts"

    def test_no_more_is_held_than_may_be_and_then_the_source_is_saturated(
        self, case: ReceiptCase, reader: Readers
    ) -> None:
        case.publish(numbered(50))
        one = reader(max_held=20)
        runs = one.read(20) + one.read_for(0.3)

        assert sum(map(len, runs)) == (20 if case.bounded else 50)
        assert one.saturated()
        one.commit(runs[-1].next_offset)
        assert not one.saturated()
        if case.bounded:
            assert sum(map(len, one.read(20))) == 20

    def test_a_paused_source_is_silent_and_goes_on_when_it_is_resumed(self, case: ReceiptCase, reader: Readers) -> None:
        case.publish(numbered(5))
        one = reader()
        runs = one.read(5)
        one.commit(runs[-1].next_offset)
        one.source.pause([one.partition])
        case.publish([b"x"])
        silent = one.read_for(0.3)
        one.source.resume([one.partition])

        assert silent == []
        assert bodies(runs + one.read(1)) == [*numbered(5), b"x"]

    def test_the_end_is_an_empty_queue_of_which_nothing_is_held(self, case: ReceiptCase, reader: Readers) -> None:
        case.publish(numbered(3))
        one = reader(until_eof=True)
        runs = one.read(3)
        assert one.read_for(1.5) == []
        assert not one.exhausted(), "what is held is not done"
        one.commit(runs[-1].next_offset)
        deadline = case.clock() + PATIENCE_S
        while not one.exhausted() and case.clock() < deadline:
            assert list(one.source.fetch(1000, 1 << 24, FETCH_S)) == []

        assert one.exhausted()
        if case.knows_depth:
            assert one.source.lag() == {one.partition: 0}

    def test_two_readers_never_give_two_messages_the_same_number(self, case: ReceiptCase, reader: Readers) -> None:
        case.publish(numbered(10))
        one = reader()
        runs = one.read(10)
        one.commit(runs[-1].next_offset)
        one.source.close()
        case.publish(numbered(10))
        runs += reader().read(10)

        offsets = [offset for run in runs for offset in run.offsets.to_pylist()]
        assert len(set(offsets)) == 20
