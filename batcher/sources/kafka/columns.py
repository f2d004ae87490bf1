"""From librdkafka's messages to columns: the hottest Python of this project.

`consume()` costs 0.4-0.5 us a record of 180 bytes, this another 0.27 us; see benchmarks/bench_fetch.py. Two things keep
it that low: no bytecode runs for a record (unbound methods under `map`, then one Arrow call for a column), and what can
be inferred is not asked for. One call of a message's method costs 27 ns, of `timestamp` 70 ns.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from batcher.records import HEADERS_TYPE, Partition, Records
from batcher.sources.kafka.headers import headers_of

NO_EVENT_FROM: Final = 0
"""librdkafka gives -1 for the time of an event, so a fetch whose times are all of this or later has none. Records may
have any time, also a negative one: a time below this only means that each message has to be asked."""

MAX_RUNS_PER_PARTITION: Final = 8
"""With more runs than this for each partition (many partitions with a trickle each), sorting a copy is cheaper than
handing out slices of some records: a slice costs about 10 us."""

OWN_SHARE: Final = 0.5
"""A run that is a smaller share of a fetch than this gets memory of its own. A slice keeps all of the fetch in memory,
and one record of a quiet partition waits for its batch while a busy one has been written many times."""

_second: Final = itemgetter(1)


def to_records(messages: Sequence[Message], topic: str | None = None) -> tuple[list[Records], list[Message]]:
    """Return the records as runs, those of a partition ascending as the messages did, and the events among them.

    `topic` says that all messages are of that topic, which saves a look at each.
    """
    events: list[Message] = []
    timestamps = _timestamps(messages)
    if pc.min(timestamps).as_py() < NO_EVENT_FROM:
        # An event is a message with an error. To ask each message is 5 % of the cost of all this, so only here.
        errors = list(map(Message.error, messages))
        events = [message for message, error in zip(messages, errors, strict=True) if error is not None]
        messages = [message for message, error in zip(messages, errors, strict=True) if error is None]
        if not messages:
            return [], events
        timestamps = _timestamps(messages)
        if pc.min(timestamps).as_py() < NO_EVENT_FROM:
            timestamps = pa.array(list(map(_time, messages)), pa.int64())
    columns = [
        timestamps,
        pa.array(list(map(Message.key, messages)), pa.binary()),
        pa.array(list(map(Message.value, messages)), pa.binary()),
        _headers(messages),
    ]
    numbers = _numbers(messages)
    if topic is not None:
        return _split(messages, lambda number: Partition(topic, number), numbers, columns), events
    names = pa.array(list(map(Message.topic, messages)), pa.string()).dictionary_encode()
    topics = names.dictionary.to_pylist()
    # Topic and partition become one number, so that one pass finds the runs of both.
    codes = pc.add(pc.shift_left(names.indices.cast(pa.int64()), 32), numbers.cast(pa.int64()))
    return _split(messages, lambda code: Partition(topics[code >> 32], code & 0xFFFFFFFF), codes, columns), events


def _split(
    messages: Sequence[Message], name: Callable[[int], Partition], codes: Any, columns: Sequence[Any]
) -> list[Records]:
    encoded = pc.run_end_encode(codes)
    if len(encoded.values) > MAX_RUNS_PER_PARTITION * len(encoded.values.unique()):
        order = pc.sort_indices(codes)
        columns = [column if column is None else column.take(order) for column in columns]
        messages = [messages[index] for index in order.to_pylist()]
        encoded = pc.run_end_encode(codes.take(order))
    runs: list[Records] = []
    start = 0
    for code, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        length = end - start
        sliced = [column if column is None else column.slice(start, length) for column in columns]
        if length < len(messages) * OWN_SHARE:
            sliced = [column if column is None else pa.concat_arrays([column]) for column in sliced]
        runs.append(Records(name(code), _offsets(messages, start, end), *sliced))
        start = end
    return runs


def _offsets(messages: Sequence[Message], start: int, end: int) -> Any:
    first, last = messages[start].offset(), messages[end - 1].offset()
    if first is not None and last == first + (end - start) - 1:
        # Offsets of a partition ascend strictly: with these ends, there is only one way to fill the middle.
        return pa.arange(first, last + 1)
    return _integers(list(map(Message.offset, messages[start:end])))  # type: ignore[arg-type]


def _numbers(messages: Sequence[Message]) -> Any:
    try:
        # Half the cost of an integer array; partitions beyond 255 are rare.
        small = bytes(map(Message.partition, messages))  # type: ignore[arg-type]
    except ValueError:
        return pa.array(list(map(Message.partition, messages)), pa.int32())
    return pa.Array.from_buffers(pa.uint8(), len(small), [None, pa.py_buffer(small)])


def _timestamps(messages: Sequence[Message]) -> Any:
    return _integers(list(map(_second, map(Message.timestamp, messages))))


def _time(message: Message) -> int | None:
    kind, milliseconds = message.timestamp()
    # The kind says that there is no time; -1 is also the time of a record made a millisecond before 1970.
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds


def _integers(found: list[int]) -> Any:
    # Arrow takes 0.2 us to look at each Python integer, this 0.06.
    return pa.Array.from_buffers(pa.int64(), len(found), [None, pa.py_buffer(array("q", found))])


def _headers(messages: Sequence[Message]) -> Any:
    found = headers_of(messages)
    if found is None:
        return None
    return pa.array([None if headers is None else _pairs(headers) for headers in found], HEADERS_TYPE)


def _pairs(headers: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in headers]
