"""Which records are shown, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from batcher.formats.json.format import JsonFormat
from batcher.preview.records import CHUNK, decoded, in_order, newest
from batcher.records import Partition, Range, Records
from batcher.testing.values import make_records

A, B = Partition("orders", 0), Partition("orders", 1)


class Log:
    """Records of two partitions: those of B are a little younger."""

    def __init__(self, counts: dict[Partition, int]) -> None:
        self.counts = counts
        self.read: list[Range] = []

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        return 0, self.counts[partition]

    def records(self, asked: Range) -> Iterator[Records]:
        self.read.append(asked)
        count = asked.next_offset - asked.first
        run = make_records(['{"n":1}'] * count, partition=asked.partition, first_offset=asked.first)
        times = [1000 * offset + asked.partition.number for offset in range(asked.first, asked.next_offset)]
        yield replace(run, timestamps_ms=pa.array(times, pa.int64()))


def test_the_newest_records_of_all_partitions_are_shown_by_their_times() -> None:
    log = Log({A: 3, B: 3})
    places = {partition: log.watermarks(partition) for partition in (A, B)}

    assert [(run.partition, run.first_offset) for run in newest(log, places, 3)] == [(B, 1), (A, 2), (B, 2)]
    assert newest(log, {A: (3, 3)}, 3) == []


def test_records_in_order_are_read_piece_by_piece() -> None:
    log = Log({A: 5000})

    assert sum(len(run) for run in in_order(log, A, 10, 10 + 2 * CHUNK + 1)) == 2 * CHUNK + 1
    assert [asked.next_offset - asked.first for asked in log.read] == [CHUNK, CHUNK, 1]


def test_each_record_comes_back_in_its_place_with_its_columns_or_its_reason() -> None:
    runs = [
        make_records(['{"n":1}', "nonsense"], partition=B, first_offset=7),
        make_records([None, '{"n":2}'], partition=A, first_offset=3),
    ]
    shown = decoded(runs, JsonFormat())

    assert [(one.record.partition, one.record.offset) for one in shown] == [(B, 7), (B, 8), (A, 3), (A, 4)]
    assert [one.row for one in shown] == [{"n": 1}, None, None, {"n": 2}]
    assert [one.rejection.reason if one.rejection else None for one in shown] == [None, "syntax", None, None]


def test_records_that_nobody_can_read_are_shown_all_the_same() -> None:
    (one,) = decoded([make_records(["nonsense"], partition=A)], JsonFormat())

    assert (one.record.value, one.row) == (b"nonsense", None)
    assert one.rejection is not None
    assert one.rejection.reason == "syntax"
