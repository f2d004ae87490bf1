"""What becomes of files when a range is written again: after a crash at any step, and under other rules."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from batcher.errors import SinkMisconfigured, SinkUnavailable
from batcher.records import Block, Range
from batcher.testing.values import EVENTS_0
from sinks.parquet import one_root
from sinks.parquet.arrow_store import ArrowStore
from sinks.parquet.files import file_name
from sinks.parquet.local import LocalStore
from sinks.parquet.options import ParquetOptions
from sinks.parquet.schemas import PIN
from sinks.parquet.sink import ParquetSink
from tests.harness.object_store import Objects

CLAIMED: Final = Range(EVENTS_0, 10, 19)
"""What all blocks here were announced as; neither its first nor its last record need exist."""

NAME: Final = file_name(CLAIMED)

TOKEN: Final = "group|events|0|10-19|1700000000000"

Files = dict[str, list[int]]
"""The offsets in each file, by its directory."""


class Killed(BaseException):
    """End an attempt where a kill would."""


def attempt(
    rows: dict[int, str],
    token: str = TOKEN,
    first_ms: int = 1_700_000_000_000,
    claimed: Range = CLAIMED,
    *,
    replayed: bool = True,
) -> Block:
    """Return a block of a claimed range that somebody may have written already: for each offset its country."""
    offsets = pa.array(rows, pa.int64())
    table = pa.table(
        {
            "country": pa.array(rows.values(), pa.string()),
            "_partition": pa.array([0] * len(rows), pa.int32()),
            "_offset": offsets,
            "_timestamp": pc.add(offsets, first_ms).cast(pa.timestamp("ms", "UTC")),
            "id": offsets,
        }
    ).select(["id", "country", "_partition", "_offset", "_timestamp"])
    return Block(table.combine_chunks(), pa.array(range(len(rows)), pa.int64()), token, (claimed,), replayed)


class Root:
    """Make sinks on one root, each as if by a new process, and look at what they leave."""

    def __init__(self, path: Path, partition_by: Sequence[str]) -> None:
        self.path = path
        self.partition_by = tuple(partition_by)
        self.made: list[ParquetSink] = []

    def sink(self) -> ParquetSink:
        sink = one_root({"path": str(self.path), "partition_by": self.partition_by})
        self.made.append(sink)
        sink.open()
        return sink

    def files(self) -> Files:
        return {
            str(path.parent.relative_to(self.path)): pq.ParquetFile(path).read(["_offset"]).column(0).to_pylist()
            for path in sorted(self.path.rglob("*.parquet"))
        }

    def close(self) -> None:
        for sink in self.made:
            sink.close()


@pytest.fixture
def flat(tmp_path: Path) -> Iterator[Root]:
    root = Root(tmp_path / "root", ())
    yield root
    root.close()


@pytest.fixture
def hive(tmp_path: Path) -> Iterator[Root]:
    root = Root(tmp_path / "root", ("country",))
    yield root
    root.close()


@pytest.fixture
def daily(tmp_path: Path) -> Iterator[Root]:
    root = Root(tmp_path / "root", ("hour(_timestamp) as hour", "bucket(id, 3)"))
    yield root
    root.close()


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each listing of a root."""
    made: list[str] = []
    names = LocalStore.names

    def counted(store: LocalStore) -> Iterator[str]:
        made.append(store.label)
        return names(store)

    monkeypatch.setattr(LocalStore, "names", counted)
    return made


FIRST = {10: "DE", 12: "FR", 13: "DE", 15: "US"}


@pytest.mark.parametrize(
    ("rows", "files"),
    [
        (FIRST, {"country=DE": [10, 13], "country=FR": [12], "country=US": [15]}),
        ({**FIRST, 12: "US"}, {"country=DE": [10, 13], "country=US": [12, 15]}),
        (dict.fromkeys(FIRST, "XX"), {"country=XX": [10, 12, 13, 15]}),
        ({10: "DE", 13: "DE"}, {"country=DE": [10, 13]}),
        ({12: "AT"}, {"country=AT": [12]}),
    ],
    ids=["same", "moved", "all-moved", "refused", "refused-and-moved"],
)
@pytest.mark.parametrize("tokens", [(TOKEN, TOKEN), (TOKEN, f"{TOKEN}|{'ab' * 8}"), (f"{TOKEN}|{'0f' * 8}",) * 2])
def test_a_replay_leaves_its_own_files_and_no_other_of_the_range(
    hive: Root, rows: dict[int, str], files: Files, tokens: tuple[str, str]
) -> None:
    neighbour = attempt({20: "DE"}, "other", claimed=Range(EVENTS_0, 20, 29))
    hive.sink().write(attempt(FIRST, tokens[0]))
    successor = hive.sink()
    successor.write(attempt(rows, tokens[1]))
    assert hive.files() == files
    successor.write(neighbour)
    assert len(list(hive.path.rglob("*.parquet"))) == len(files) + 1


def test_a_replay_of_records_with_directories_by_functions_leaves_its_own_files(daily: Root) -> None:
    rows = dict.fromkeys([10, 12, 13], "DE")
    hour = "hour=2023-11-14-22"
    written = {f"{hour}/id_bucket=0": [13], f"{hour}/id_bucket=1": [12], f"{hour}/id_bucket=2": [10]}
    daily.sink().write(attempt(rows))
    assert daily.files() == written
    daily.sink().write(attempt({10: "DE", 13: "DE"}))
    del written[f"{hour}/id_bucket=1"]
    assert daily.files() == written
    # An hour later: a record that the broker stamped anew is another record, and takes nothing away.
    daily.sink().write(attempt({10: "DE"}, "other", 1_700_003_600_000))
    assert daily.files() == written | {"hour=2023-11-14-23/id_bucket=2": [10]}


def test_parts_of_one_block_that_share_no_row_are_attempts_at_the_same(hive: Root) -> None:
    hive.sink().write(attempt({10: "DE"}, f"{TOKEN}|{'a1' * 8}"))
    hive.sink().write(attempt({12: "FR"}, f"{TOKEN}|{'b2' * 8}"))
    assert hive.files() == {"country=FR": [12]}


def test_another_group_that_loads_the_same_records_takes_the_place_of_their_files(hive: Root) -> None:
    hive.sink().write(attempt(FIRST))
    hive.sink().write(attempt({**FIRST, 12: "DE", 15: "DE"}, "other|events|0|10-19|1700000000000"))
    assert hive.files() == {"country=DE": [10, 12, 13, 15]}


MADE_ANEW: Final = "group|events|0|10-19|1800000000000"


@pytest.mark.parametrize("rows", [{12: "DE"}, {11: "DE"}], ids=["shared-offsets", "none-shared"])
def test_a_topic_made_again_touches_no_file_of_the_old_one(hive: Root, rows: dict[int, str]) -> None:
    hive.sink().write(attempt({12: "FR"}))
    hive.sink().write(attempt(rows, MADE_ANEW, 1_800_000_000_000))
    assert hive.files() == {"country=DE": list(rows), "country=FR": [12]}
    with pytest.raises(SinkMisconfigured, match="with other records"):
        hive.sink().write(attempt(dict.fromkeys(rows, "FR"), MADE_ANEW, 1_800_000_000_000))
    assert hive.files() == {"country=DE": list(rows), "country=FR": [12]}


def test_sixteen_digits_of_a_timestamp_are_not_taken_for_a_part_of_a_block(hive: Root) -> None:
    hive.sink().write(attempt({12: "FR"}, "group|events|0|10-19|1700000000000000"))
    hive.sink().write(attempt({11: "DE"}, "group|events|0|10-19|1800000000000000"))
    assert hive.files() == {"country=DE": [11], "country=FR": [12]}


@pytest.mark.parametrize("content", [b"not a parquet file", None])
def test_a_file_that_batcher_did_not_write_stays_whatever_it_is_named(hive: Root, content: bytes | None) -> None:
    hive.sink().write(attempt({10: "DE"}))
    foreign = hive.path / "country=AT" / NAME
    foreign.parent.mkdir()
    if content is None:
        pq.write_table(attempt({10: "DE"}).table, foreign)
    else:
        foreign.write_bytes(content)
    before = foreign.read_bytes()
    hive.sink().write(attempt({10: "FR"}))
    assert foreign.read_bytes() == before
    foreign.unlink()
    assert hive.files() == {"country=FR": [10]}


def test_only_a_replay_looks_through_the_root(hive: Root, listings: list[str]) -> None:
    sink = hive.sink()
    sink.write(attempt(FIRST, replayed=False))
    assert listings == []
    sink.write(attempt(FIRST))
    assert len(listings) == 1


def test_a_flat_root_is_never_looked_through(flat: Root, listings: list[str]) -> None:
    flat.sink().write(attempt(FIRST))
    flat.sink().write(attempt({10: "DE"}))
    assert flat.files() == {".": [10]}
    assert listings == []


def test_a_replay_after_compaction_has_what_the_log_still_has_under_the_same_name(flat: Root) -> None:
    flat.sink().write(attempt(FIRST))
    flat.sink().write(attempt({13: "DE"}))
    assert [path.name for path in flat.path.rglob("*.parquet")] == [NAME]
    footer = pq.read_metadata(flat.path / NAME).metadata
    assert (footer[b"batcher.first"], footer[b"batcher.last"]) == (b"10", b"19")
    assert flat.files() == {".": [13]}
    assert flat.sink().present(EVENTS_0, 0, 99).to_pylist() == [13]


def test_a_replay_under_another_schema_replaces_the_file(flat: Root) -> None:
    flat.sink().write(attempt(FIRST))
    (flat.path / PIN).unlink()
    whole = attempt(FIRST)
    table = whole.table.set_column(0, "id", whole.table.column("id").cast(pa.string()))
    flat.sink().write(dataclasses.replace(whole, table=table.combine_chunks()))
    assert pq.read_schema(flat.path / NAME).field("id").type == pa.string()


@pytest.mark.parametrize("kind", ["flat", "hive"])
def test_a_block_without_rows_removes_what_an_earlier_attempt_left_and_nothing_else(
    request: pytest.FixtureRequest, kind: str
) -> None:
    root: Root = request.getfixturevalue(kind)
    sink = root.sink()
    sink.write(attempt({5: "DE"}, "before", claimed=Range(EVENTS_0, 0, 9)))
    sink.write(attempt(FIRST))
    root.sink().write(attempt({}))
    assert list(root.files().values()) == [[5]]
    root.sink().write(attempt({}, "another token", claimed=Range(EVENTS_0, 0, 9)))
    assert list(root.files().values()) == [[5]]


STEPS: Final = ((Path, "replace"), (Path, "unlink"), (os, "fsync"), (os, "write"))


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, write: Callable[[], None]) -> bool:
    """Run a write that is ended before one of its steps; tell whether it was, or came to its end."""
    steps = count()

    def until(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            if next(steps) >= after:
                raise Killed
            return call(*arguments, **named)

        return step

    with monkeypatch.context() as patch:
        for owner, name in STEPS:
            patch.setattr(owner, name, until(getattr(owner, name)))
        try:
            write()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("before", [None, dict.fromkeys(FIRST, "XX"), {**FIRST, 12: "DE"}])
def test_a_write_that_ends_at_any_step_is_completed_by_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[int, str] | None
) -> None:
    expected = {"country=DE": [10, 13], "country=FR": [12], "country=US": [15]}
    for after in count():
        root = Root(tmp_path / str(after), ("country",))
        sink = root.sink()
        sink.pin(attempt(FIRST).table.schema)
        if before is not None:
            sink.write(attempt(before))
        victim = root.sink()
        killed = interrupted(monkeypatch, after, lambda victim=victim: victim.write(attempt(FIRST)))  # type: ignore[misc]
        if before is not None and before[10] == "XX":  # no directory in common: the old files go last
            found = {offset for offsets in root.files().values() for offset in offsets}
            assert found == set(FIRST), f"lost between, after step {after}"
        root.sink().write(attempt(FIRST))
        assert root.files() == expected, f"after step {after}"
        root.close()
        assert list(root.path.rglob("*.part")) == []
        if not killed:
            assert after >= 3 * 3 + 3
            return


def test_what_could_not_be_removed_is_removed_by_the_next_attempt(hive: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    hive.sink().write(attempt({10: "DE", 12: "FR"}))
    sink = hive.sink()
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise OSError(5, "country=SECRET")

        patch.setattr(Path, "unlink", fail)
        with pytest.raises(SinkUnavailable, match=r"events\[0\] 10-19") as caught:
            sink.write(attempt({10: "AT", 12: "AT"}))
    assert "SECRET" not in str(caught.value)
    assert {offset for offsets in hive.files().values() for offset in offsets} == {10, 12}
    sink.write(attempt({10: "AT", 12: "AT"}))
    assert hive.files() == {"country=AT": [10, 12]}


@pytest.mark.parametrize("kind", ["flat", "hive"])
def test_a_reader_sees_whole_files_only_while_they_are_replaced(request: pytest.FixtureRequest, kind: str) -> None:
    root: Root = request.getfixturevalue(kind)
    rows = {offset: "DE" if offset % 2 else "FR" for offset in range(5_000)}
    blocks = [
        attempt(rows, claimed=Range(EVENTS_0, 0, 4_999)),
        attempt({offset: rows[offset] for offset in range(0, 5_000, 3)}, claimed=Range(EVENTS_0, 0, 4_999)),
    ]
    sink = root.sink()
    seen_whole: list[set[tuple[int, ...]]] = []
    for block in blocks:
        sink.write(block)
        seen_whole.append({tuple(offsets) for offsets in root.files().values()})
    whole = set.union(*seen_whole)
    stop = threading.Event()
    broken: list[object] = []
    reads = count()

    def read() -> None:
        while not stop.is_set():
            try:
                broken.extend(offsets for offsets in root.files().values() if tuple(offsets) not in whole)
            except (OSError, pa.ArrowInvalid) as error:
                broken.append(error)
            next(reads)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(60):
            sink.write(blocks[turn % 2])
    finally:
        stop.set()
        reader.join()
    assert broken == []
    assert next(reads) > 5


def stored(objects: Objects, **refused: Any) -> ParquetSink:
    store = ArrowStore(lambda: (fs.PyFileSystem(objects), "bucket/events"), "s3://bucket/events")
    sink = ParquetSink(ParquetOptions("s3://bucket/events", partition_by=("country",), **refused), store)
    sink.open()
    return sink


def test_objects_of_an_earlier_attempt_under_other_keys_are_removed_after_the_new_ones_are_there() -> None:
    objects = Objects("bucket")
    stored(objects).write(attempt(FIRST))
    objects.fail_writes = (next(objects.writes) + 1,)
    successor = stored(objects)
    with pytest.raises(SinkUnavailable):
        successor.write(attempt(dict.fromkeys(FIRST, "XX")))
    assert len(objects.content) == 1 + 3
    successor.write(attempt(dict.fromkeys(FIRST, "XX")))
    assert sorted(objects.content) == [f"bucket/events/{PIN}", f"bucket/events/country=XX/{NAME}"]


def test_a_store_that_refuses_to_remove_is_said_and_nothing_is_lost() -> None:
    objects = Objects("bucket")
    stored(objects).write(attempt({10: "DE"}))
    successor = stored(objects)
    objects.no_removal = True
    with pytest.raises(SinkMisconfigured, match="ACCESS_DENIED"):
        successor.write(attempt({10: "FR"}))
    objects.no_removal = False
    successor.write(attempt({10: "FR"}))
    assert successor.present(EVENTS_0, 0, 99).to_pylist() == [10]
    assert [name.split("/")[2] for name in sorted(objects.content)][1:] == ["country=FR"]
