"""How records get from librdkafka into columns: in Python, by message objects. The native way is in `native_reader.py`.

Both are for the source alone, in its thread, and change nothing but speed.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from confluent_kafka import Consumer, KafkaError, Message

from batcher.records import Partition, Records
from batcher.sources.appetite import Appetite
from batcher.sources.kafka.columns import to_records

LINGER_S: Final = 0.01
"""`consume(n, T)` waits for n or for T, whatever is there. So the first record is waited for alone, and those that are
with it or close behind get this much time. A lone record is late by 10 ms, a trickle costs at most 100 fetches a
second."""


@dataclass(frozen=True, slots=True)
class PartitionEvent:
    """Hold what librdkafka says of a partition, or of the whole client: then topic and offset are empty and None."""

    error: KafkaError
    partition: Partition
    offset: int | None


Fetched = tuple[list[Records], list[PartitionEvent]]
"""Runs, those of a partition ascending, and the events that came with them."""


class RecordReader(Protocol):
    """Take from a consumer what librdkafka has fetched. All calls come from the fetch thread."""

    def expect(self, partitions: Collection[Partition]) -> None:
        """Prepare for partitions that are about to be assigned. May be called again for the same ones."""

    def forget(self, partitions: Collection[Partition]) -> None:
        """Note that partitions were given up: of them, nothing taken so far is returned any more."""

    def read(self, max_records: int, max_bytes: int, timeout_s: float) -> Fetched:
        """Wait for a first record or event and return it with those close behind; callbacks run in this call only.

        It may return nothing before the time is over. `max_bytes` is what the columns may have; the last records may
        overrun it.
        """

    def close(self) -> None:
        """Let go of the consumer, before that is closed."""


class MessageReader:
    """Take message objects and make columns of them (see RecordReader). `topic`: the only one, where it is known."""

    def __init__(self, consumer: Consumer, topic: str | None) -> None:
        self._consumer = consumer
        self._topic = topic
        self._appetite = Appetite()
        # Given up since the first message of the read under way.
        self._gone: set[Partition] = set()

    def expect(self, partitions: Collection[Partition]) -> None:
        pass

    def forget(self, partitions: Collection[Partition]) -> None:
        self._gone.update(partitions)

    def read(self, max_records: int, max_bytes: int, timeout_s: float) -> Fetched:
        count = self._appetite.records(max_records, max_bytes)
        messages = self._consumer.consume(1, timeout_s)
        # Only from here on: an eager rebalance takes a partition and gives it back within the call above, and the
        # record that comes out of it is the first of the new assignment.
        self._gone.clear()
        rest: list[Message] = []
        if not messages:
            return [], []
        if count == 1:
            return self._columns(messages)
        collecting = gc.isenabled()
        # Messages are in no cycle and are dropped below, but the collector visits every one of them. Without it this is
        # 1.3 to 2 times as fast. It runs again with the next allocation, after these few milliseconds.
        gc.disable()
        try:
            rest = self._consumer.consume(count - 1, LINGER_S)
            # librdkafka takes back records of partitions revoked within a call, but not those of the call before.
            if not self._gone or Partition(messages[0].topic() or "", messages[0].partition() or 0) not in self._gone:
                rest = messages + rest
            return self._columns(rest) if rest else ([], [])
        finally:
            del messages, rest
            if collecting:
                gc.enable()

    def close(self) -> None:
        pass

    def _columns(self, messages: Sequence[Message]) -> Fetched:
        runs, events = to_records(messages, self._topic)
        for run in runs:
            self._appetite.learn(run)
        return runs, [event_of(message) for message in events]


def event_of(message: Message) -> PartitionEvent:
    """Return what a message that is an event says."""
    error = message.error()
    assert error is not None
    # Every event about a partition has both. An event about the client has none.
    return PartitionEvent(error, Partition(message.topic() or "", message.partition() or 0), message.offset())
