"""Records fetched by the native extension and by Python are the same records, whatever they hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batcher.embedded.mock_cluster import MockCluster
from batcher.records import Headers, Partition, Records
from batcher.sources.kafka.detached import DetachedSource
from batcher.sources.kafka.headers import UNREADABLE
from batcher.sources.kafka.options import KafkaOptions
from batcher.testing.kafka import Broker, produce
from batcher.testing.listener import RecordingListener, read
from tests.harness.fetch_paths import NEEDS_EXTENSION, Path

pytestmark = NEEDS_EXTENSION

PARTITIONS: Final = 3
LAST_MS: Final = 1_700_000_000_000
COMPRESSIONS: Final = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class Sent:
    """Hold what a producer sends to one partition in one go, so that it may become one compressed batch."""

    partition: int
    compression: str
    records: Sequence[tuple[bytes | None, bytes | None, Headers, int]]
    """Key, value, headers, timestamp."""

    def to(self, bootstrap: str, topic: str) -> None:
        keys, values, headers, times = zip(*self.records, strict=True)
        produce(
            bootstrap,
            topic,
            values,
            partition=self.partition,
            keys=keys,
            headers=headers,
            timestamps_ms=times,
            compression=self.compression,
        )


pieces = st.none() | st.just(b"") | st.binary(max_size=30) | st.integers(1, 4000).map(lambda size: b"ab" * size)
# The client crashes on a name that is a lone surrogate.
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
headers = st.lists(st.tuples(names, pieces), max_size=3).map(tuple)
# 0 is no time to a producer, and brokers refuse negative ones and those to come.
times = st.integers(1, LAST_MS)
records = st.tuples(pieces, pieces, st.just(()) | headers, times)
sent = st.builds(Sent, st.integers(0, PARTITIONS - 1), st.sampled_from(COMPRESSIONS), st.lists(records, min_size=1))


@contextmanager
def source_of(bootstrap: str, topic: str, path: Path, **changes: Any) -> Iterator[DetachedSource]:
    """Open a source that reads a topic from its beginning, on one of the two paths."""
    source = DetachedSource(KafkaOptions(bootstrap, (topic,), "unused", native=path, **changes))
    source.open(RecordingListener())
    try:
        yield source
    finally:
        source.close()


def told(runs: Sequence[Records]) -> dict[Partition, list[tuple[Any, ...]]]:
    """Return all that records say, by partition."""
    found: dict[Partition, list[tuple[Any, ...]]] = {}
    for run in runs:
        for column in (run.offsets, run.timestamps_ms, run.keys, run.values):
            column.validate(full=True)
        if run.headers is not None:
            run.headers.validate(full=True)
        columns = (run.offsets, run.timestamps_ms, run.keys, run.values)
        rows = list(zip(*(column.to_pylist() for column in columns), strict=True))
        names = [run.record(row).headers for row in range(len(run))]
        found.setdefault(run.partition, []).extend((*row, *name) for row, name in zip(rows, names, strict=True))
    return found


def both(bootstrap: str, topic: str, count: int) -> list[dict[Partition, list[tuple[Any, ...]]]]:
    found = []
    for path in ("off", "require"):
        with source_of(bootstrap, topic, path) as source:
            runs = read(source, count)
            types = {(run.offsets.type, run.keys.type, run.values.type) for run in runs}
            assert len(types) == 1
            found.append(told(runs))
    return found


@pytest.mark.broker
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(sent, min_size=1, max_size=5))
def test_the_same_topic_gives_the_same_records_on_both_paths(
    broker: Broker, new_topic: Callable[..., str], drawn: list[Sent]
) -> None:
    topic = new_topic(PARTITIONS)
    for one in drawn:
        one.to(broker.bootstrap, topic)

    python, native = both(broker.bootstrap, topic, sum(len(one.records) for one in drawn))

    assert native == python


def test_records_without_times_and_names_that_are_no_text_are_the_same_on_both_paths(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("t")
    names = [
        b"plain",
        b"\xff\xfe",
        b"line\r\n",
        b"caf\xe9",
        "läuft".encode(),
        b"\xed\xa0\x80",
        b"",
        b"\xf0\x9f\x98\x80",
    ]
    for name in names:
        mock_cluster.produce_raw("t", b"{}", [(b"first", b"1"), (name, b"\x00\xff"), (b"last", b"3")])
        mock_cluster.produce_raw("t", b"", [])

    python, native = both(mock_cluster.bootstrap, "t", 2 * len(names))

    assert native == python
    assert str(native).count(UNREADABLE[0][0]) == 3


def test_a_fetch_keeps_to_its_bytes_where_batches_of_a_megabyte_hold_much_more(mock_cluster: MockCluster) -> None:
    # 400 records of 100 kB, which compress to next to nothing: one fetch of the client has them all.
    mock_cluster.create_topic("t")
    values = [bytes([number % 7]) * 100_000 for number in range(400)]
    produce(mock_cluster.bootstrap, "t", values, compression="zstd", properties={"batch.size": "100000000"})
    most = 1 << 20

    with source_of(mock_cluster.bootstrap, "t", "require") as source:
        sizes: list[int] = []
        while sum(sizes) < sum(map(len, values)):
            sizes += [sum(run.nbytes for run in source.fetch(10_000, most, 1.0))]

    # The first one does not know yet how large records are.
    assert max(sizes[1:]) < most + 110_000


def test_pauses_at_any_moment_neither_repeat_nor_skip_a_record(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("t", PARTITIONS)
    count = 5_000
    for number in range(PARTITIONS):
        produce(mock_cluster.bootstrap, "t", [b"%d" % index for index in range(count)], partition=number)
    draw = random.Random(7)
    parts = [Partition("t", number) for number in range(PARTITIONS)]
    seen = dict.fromkeys(parts, 0)
    paused: set[Partition] = set()

    with source_of(mock_cluster.bootstrap, "t", "require") as source:
        while sum(seen.values()) < count * PARTITIONS:
            one = draw.choice(parts)
            if one in paused:
                source.resume([one])
                paused.discard(one)
            elif len(paused) < PARTITIONS - 1:
                source.pause([one])
                paused.add(one)
            for run in source.fetch(draw.choice([1, 7, 3000]), 1 << 24, 0.05):
                assert run.partition not in paused
                assert run.offsets.to_pylist() == list(range(seen[run.partition], seen[run.partition] + len(run)))
                seen[run.partition] += len(run)

    assert seen == dict.fromkeys(parts, count)
