"""Read parts of a log again, without joining the group: nothing is committed, and there is no rebalance.

The partition is assigned, not subscribed to. A part is read to its end, also where its last records were compacted
away, aborted or are control records. Then librdkafka says that the log's end was reached, or a later record comes.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import repeat
from operator import is_
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from batcher.errors import DataGap, SourceLost, Unreachable
from batcher.records import Partition, Position, Range, Records
from batcher.sources.kafka.admin import Admin
from batcher.sources.kafka.cluster import ConnectionLog, connect, first_look
from batcher.sources.kafka.columns import to_records
from batcher.sources.kafka.errors import (
    FATAL,
    FORBIDDEN,
    GROUP_UNKNOWN,
    OUT_OF_RANGE,
    PARTITION_EOF,
    STUCK,
    error_of,
    fatal,
    forbidden,
    text_of,
)
from batcher.sources.kafka.identity import Identity
from batcher.sources.kafka.offsets import StartOffsets
from batcher.sources.kafka.options import KafkaOptions

OPEN_TIMEOUT_S: Final = 10.0

FETCH: Final = 10_000
"""Messages taken at a time: enough to make the call's own cost nothing, few enough to need little memory."""

FETCH_S: Final = 0.1
"""For a fetch that does not fill up: only at the end of a part."""

STALLED_S: Final = 60.0
"""Without a record or an end for this long, brokers count as gone; a new leader takes some seconds."""


class LogReader:
    """Read the topics of `options`, whose `start`, `instance` and `until_eof` mean nothing here. One thread only."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._consumer: Consumer | None = None
        self._incidents = ConnectionLog()
        self._admin = Admin(options, able=False)

    def open(self) -> Sequence[Partition]:
        """Connect and return the partitions of the topics, ascending. Raise Unreachable or ConfigurationError."""
        consumer = connect(self._settings())
        try:
            found = first_look(consumer, self._options, self._incidents, OPEN_TIMEOUT_S)
        except BaseException:
            consumer.close()
            raise
        self._consumer = consumer
        self._incidents.started = True
        self._admin = Admin(self._options, able=found.controlled)
        return found.partitions

    def close(self) -> None:
        """Disconnect. A second call is harmless."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        """Return what the group has committed. Raise ConfigurationError or SourceLost.

        Raise DataGap where the commit was for another topic of that name: what was loaded was not read from this one.
        """
        stored = self._places.stored(partitions)
        identity = Identity(self._admin)
        identity.learn({partition.topic for partition in partitions})
        identity.match(stored)
        return {partition: at.position for partition, at in stored.items()}

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of the log and the one after the last that may be read. Raise as `committed`."""
        return self._places.watermarks(partition)

    def at_time(self, partition: Partition, time_ms: int) -> int | None:
        """Return the first offset of this time or later; None where no record is that young. Raise as `committed`."""
        return self._places.at_time(partition, time_ms)

    def members(self) -> int:
        """Return how many members the group has now. Raise ConfigurationError or Unreachable."""
        group = self._options.group
        admin = AdminClient(self._settings())
        try:
            described = admin.describe_consumer_groups([group], request_timeout=OPEN_TIMEOUT_S)
            return len(described[group].result(OPEN_TIMEOUT_S * 2).members)
        except KafkaException as exception:
            error = error_of(exception)
            if error.code() in GROUP_UNKNOWN:
                return 0
            if error.code() in FORBIDDEN:
                raise forbidden(error, f"the members of group {group} cannot be seen") from exception
            raise Unreachable(f"the members of group {group} cannot be asked for: {text_of(error)}") from exception

    def offsets(self, asked: Range) -> tuple[pa.Int64Array, pa.BooleanArray]:
        """Return the offsets of a range that have a record, ascending, and which of the records have no value.

        Raise DataGap when the log's beginning has moved past the range, SourceLost when reading cannot go on.
        """
        numbers: list[Any] = [pa.array([], pa.int64())]
        nulls: list[Any] = [pa.array([], pa.bool_())]
        for messages in self._messages(asked):
            numbers.append(_offsets(messages))
            nulls.append(_nulls(messages))
        return pa.concat_arrays(numbers), pa.concat_arrays(nulls)

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the records of a range, ascending, in runs of at most FETCH. Raise as `offsets` does.

        Closing the iterator stops reading. Only one may be in use.
        """
        for messages in self._messages(asked):
            runs, _ = to_records(messages, asked.partition.topic)
            yield Records.concat(runs)

    @property
    def _open_consumer(self) -> Consumer:
        if self._consumer is None:
            raise SourceLost("the reader is not open")
        return self._consumer

    @property
    def _places(self) -> StartOffsets:
        return StartOffsets(self._open_consumer, self._options)

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self._options.librdkafka()
        # With an instance id the client would join as a static member.
        settings.pop("group.instance.id", None)
        return {
            **settings,
            "statistics.interval.ms": "0",
            "error_cb": self._incidents.on_error,
            "logger": self._incidents.logger,
        }

    def _messages(self, asked: Range) -> Iterator[list[Message]]:
        """Yield the messages of a range that are records, ascending, in lists that are not empty."""
        consumer, partition = self._open_consumer, asked.partition
        consumer.assign([TopicPartition(*partition, asked.first)])
        try:
            reached, heard = asked.first, time.monotonic()
            while reached <= asked.last:
                messages = _consumed(consumer, min(FETCH, asked.next_offset - reached))
                if not messages and time.monotonic() - heard > STALLED_S:
                    raise SourceLost(f"{partition}: nothing came from offset {reached} on for {STALLED_S:.0f} s")
                events: list[Message] = []
                if any(map(Message.error, messages)):
                    events = [message for message in messages if message.error() is not None]
                    messages = [message for message in messages if message.error() is None]
                if messages:
                    heard = time.monotonic()
                    reached = (messages[-1].offset() or 0) + 1
                    if reached > asked.next_offset:
                        # The last records of the range are not there: these come after it.
                        messages = [one for one in messages if (one.offset() or 0) <= asked.last]
                    if messages:
                        yield messages
                for event in events:
                    reached = max(reached, self._ended(event, partition, reached))
        finally:
            if self._consumer is not None:
                consumer.unassign()

    def _ended(self, event: Message, partition: Partition, reached: int) -> int:
        """Return the end of the log where the event says that it was reached, else `reached`; raise what is final."""
        error = event.error()
        assert error is not None
        code = error.code()
        if code == PARTITION_EOF:
            ours = (event.topic(), event.partition()) == partition
            return (event.offset() or 0) if ours else reached
        if error.fatal() or code in FATAL:
            raise fatal(error, None)
        if code in OUT_OF_RANGE:
            raise DataGap(f"{partition}: offset {reached} is no longer in the log: it expired meanwhile; start again")
        if code in STUCK:
            raise SourceLost(f"{partition}: the record at offset {reached} cannot be read: {text_of(error)}")
        if code in FORBIDDEN:
            raise forbidden(error, f"no access to {partition.topic}")
        # librdkafka tries again from the same position.
        self._incidents.on_error(error)
        return reached


def _consumed(consumer: Consumer, count: int) -> list[Message]:
    collecting = gc.isenabled()
    # As in the source: the collector would visit every message, and none of them is in a cycle.
    gc.disable()
    try:
        return consumer.consume(count, FETCH_S)
    except KafkaException as exception:
        raise SourceLost(f"the Kafka client failed: {text_of(error_of(exception))}; start again") from exception
    finally:
        if collecting:
            gc.enable()


def _offsets(messages: Sequence[Message]) -> Any:
    first, last = messages[0].offset() or 0, messages[-1].offset() or 0
    if last == first + len(messages) - 1:
        return pa.arange(first, last + 1)
    return pa.array(list(map(Message.offset, messages)), pa.int64())


def _nulls(messages: Sequence[Message]) -> Any:
    # One byte for each message, made without bytecode for any.
    flags = bytes(map(is_, map(Message.value, messages), repeat(None)))
    return pa.Array.from_buffers(pa.uint8(), len(flags), [None, pa.py_buffer(flags)]).cast(pa.bool_())
