"""Several who write the same records to one Iceberg table at once, each in its own cuts: each record is there once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Barrier
from typing import Final

import pyarrow as pa
import pytest

from batcher.errors import SinkUnavailable
from batcher.protocols import SinkInfo
from batcher.records import Partition
from batcher.testing.values import make_block
from sinks.lake.sink import LakeSink
from tests.harness.iceberg import Lake
from tests.harness.patience import LONG

RACERS: Final = 4
ROUNDS: Final = 8 if LONG else 2
STEPS: Final = 6
SEED: Final = int(os.environ.get("BATCHER_TEST_SEED", "1"))
SCHEMA: Final = pa.schema([("id", pa.int64())])


def race(lake: Lake, number: int, seed: str, start: Barrier) -> int:
    """Write two partitions from 0 on, in steps of this racer's own; return how often another one was first."""
    random, lost = Random(seed), 0
    sink = lake.sink()
    try:
        info, _ = opened(sink)
        start.wait(60)
        nexts = dict.fromkeys((0, 1), 0)
        for _ in range(STEPS):
            partition = random.choice((0, 1))
            first, count = nexts[partition], random.randint(1, 4)
            nexts[partition] += count
            table = pa.table({"id": range(first, first + count)}, SCHEMA)
            block = make_block(
                table, partition=Partition("events", partition), first_offset=first, coordinates=info.coordinates
            )
            while True:
                try:
                    sink.write(block)
                except SinkUnavailable:
                    lost += 1
                    continue
                break
    finally:
        sink.close()
    return lost


def opened(sink: LakeSink) -> tuple[SinkInfo, pa.Schema]:
    info = sink.open()
    return info, info.schema if info.schema is not None else sink.pin(SCHEMA)


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_racers_that_write_the_same_records_leave_each_one_once(turn: int, tmp_path: Path) -> None:
    lake = Lake.in_directory(tmp_path)
    start = Barrier(RACERS)
    with ThreadPoolExecutor(RACERS) as pool:
        racers = [pool.submit(race, lake, number, f"{SEED}/{turn}/{number}", start) for number in range(RACERS)]
        lost = sum(racer.result() for racer in racers)
    assert not LONG or lost
    rows = lake.rows()
    places = list(zip(rows["_partition"].to_pylist(), rows["_offset"].to_pylist(), strict=True))
    assert sorted(set(places)) == sorted(places)
    for partition in (0, 1):
        held = sorted(offset for number, offset in places if number == partition)
        assert held == list(range(len(held)))
    assert len(places) >= STEPS
