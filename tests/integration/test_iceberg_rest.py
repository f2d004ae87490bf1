"""A table in a REST catalog that refuses commits, loses its answers, or is away: each record is there once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pytest

from batcher.errors import SinkUnavailable, Unreachable
from batcher.records import Block
from batcher.testing.contract.sink import ROWS, block_for, opened
from sinks.iceberg import offsets
from sinks.lake.sink import LakeSink
from tests.harness.catalog_proxy import CatalogProxy, Fault
from tests.harness.iceberg import Lake
from tests.harness.iceberg_rest import RestCatalogServer

pytest_plugins = ["tests.harness.iceberg_plugin"]


@pytest.fixture
def proxy(rest_catalog: RestCatalogServer) -> Iterator[CatalogProxy]:
    with CatalogProxy(rest_catalog.uri).running() as running:
        yield running


@pytest.fixture
def sink(rest_lake: Lake, proxy: CatalogProxy) -> Iterator[LakeSink]:
    made = rest_lake.sink(catalog={**rest_lake.catalog, "uri": proxy.uri})
    yield made
    made.close()


def until_written(sink: LakeSink, block: Block) -> list[str]:
    """Offer a block until it is taken, as the engine does; return what was said meanwhile."""
    said = []
    for _ in range(10):
        try:
            sink.write(block)
        except SinkUnavailable as error:
            said.append(str(error))
            continue
        return said
    pytest.fail(f"never written: {said}")


def counted(lake: Lake) -> Sequence[int]:
    found: list[int] = sorted(lake.rows()["_offset"].to_pylist())
    return found


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (["503", "503"], "the catalog is busy"),
        (["reset"], "no connection to the catalog"),
        (["lost"], "no connection to the catalog"),
        (["504"], "gateway timeout"),
        (["stall"], "timed out"),
        (["503", "reset", "504"], "the catalog is busy"),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, list) else "",
)
def test_a_commit_that_is_refused_or_whose_answer_is_lost_leaves_each_record_once(
    faults: list[Fault], words: str, rest_lake: Lake, proxy: CatalogProxy, sink: LakeSink
) -> None:
    info, schema = opened(sink)
    sink.write(block_for(info, schema, ROWS.slice(0, 1)))
    if "stall" in faults:
        # Not from the start: a busy machine may need longer for what is not stalled, and that is not tried again.
        sink._table._catalog._session.request.keywords["timeout"] = (5.0, 2.0)  # type: ignore[attr-defined]
    said = []
    for first in range(1, 4):
        # What was lost after it was applied is found again: no more faults are used up then.
        proxy.faults.extend(faults)
        said += until_written(sink, block_for(info, schema, ROWS.slice(first, 1), first_offset=first))
        proxy.faults.clear()
    assert any(words in line for line in said), said
    assert all("\n" not in line and rest_lake.table in line for line in said)
    assert counted(rest_lake) == [0, 1, 2, 3]
    assert proxy.done


def test_a_process_that_never_had_its_answer_is_followed_by_one_that_finds_the_records(
    rest_lake: Lake, proxy: CatalogProxy, sink: LakeSink
) -> None:
    info, schema = opened(sink)
    block = block_for(info, schema)
    proxy.faults.append("lost")
    with pytest.raises(SinkUnavailable):
        sink.write(block)
    sink.close()
    successor = rest_lake.sink()
    successor.open()
    successor.write(replace(block, replayed=True))
    successor.close()
    assert counted(rest_lake) == [0, 1, 2, 3]


def test_files_of_a_commit_that_lost_a_race_are_removed_and_manifests_too(rest_lake: Lake) -> None:
    first, second = rest_lake.sink(), rest_lake.sink()
    info, schema = opened(first)
    opened(second)
    stale = second._table
    stale.refresh()
    first.write(block_for(info, schema))
    with pytest.raises(SinkUnavailable, match="another writer was first"):
        stale.append(first._conforming(block_for(info, schema).table), {block_for(info, schema).ranges[0].partition: 4})
    first.close()
    second.close()
    with rest_lake.read() as table:
        assert table.scan().to_arrow().num_rows == 4
        held = table.inspect.files()["file_path"].to_pylist()
        listed = pa.fs.FileSelector(table.location().removeprefix("file:"), recursive=True)
        there = {one.path for one in pa.fs.LocalFileSystem().get_file_info(listed) if one.is_file}
    assert {path for path in there if path.endswith(".parquet")} == {path.removeprefix("file:") for path in held}
    assert len([path for path in there if path.endswith(".avro")]) == 2


def test_a_commit_of_other_partitions_in_between_is_no_lost_race(rest_lake: Lake) -> None:
    first, second = rest_lake.sink(), rest_lake.sink()
    info, schema = opened(first)
    opened(second)
    other = block_for(info, schema)
    elsewhere = other.ranges[0]._replace(partition=other.ranges[0].partition._replace(number=1))
    moved = other.table.set_column(
        other.table.schema.get_field_index("_partition"), "_partition", pa.array([1] * 4, pa.int32())
    )
    stale = second._table
    stale.refresh()
    first.write(other)
    stale.append(first._conforming(moved), {elsewhere.partition: elsewhere.next_offset})
    first.close()
    second.close()
    with rest_lake.read() as table:
        assert table.scan().to_arrow().num_rows == 8
        assert set(offsets.read(table.metadata).next_offsets.values()) == {4}
        assert len(offsets.read(table.metadata).next_offsets) == 2


def test_a_catalog_that_is_away_is_said_in_one_line_and_waited_for(rest_catalog: RestCatalogServer) -> None:
    lake = Lake({"type": "rest", "uri": rest_catalog.uri}, "away.orders")
    sink = lake.sink()
    info, schema = opened(sink)
    sink.write(block_for(info, schema, ROWS.slice(0, 2)))
    rest_catalog.kill()
    block = block_for(info, schema, ROWS.slice(2), first_offset=2)
    with pytest.raises(SinkUnavailable, match=r"away\.orders: no connection to the catalog: .*refused"):
        sink.write(block)
    late = lake.sink()
    with pytest.raises(Unreachable, match=r"opening Iceberg table away\.orders: no connection to the catalog"):
        late.open()
    rest_catalog.start()
    sink.write(block)
    sink.close()
    assert counted(lake) == [0, 1, 2, 3]
