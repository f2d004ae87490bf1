"""`batcher bench` without a broker: made-up records, what it refuses, and targets that stay as they were."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import KafkaError
from pyarrow import fs

from batcher.bench import passes
from batcher.bench.interrupts import Interrupts
from batcher.bench.readers import Replayed, Watched, generated
from batcher.cli import main as cli
from batcher.cli.support import measurement
from batcher.cli.verbs import bench
from batcher.core.buffer import FlushPolicy
from batcher.errors import DrainTimeout, SinkMisconfigured
from batcher.generate.events import ORDERS
from batcher.protocols import Rehearsable
from batcher.records import Partition, Position, Records
from batcher.sources.kafka.detached import DetachedSource
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.records_reader import PartitionEvent
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block, make_records
from sinks.clickhouse import plugin as clickhouse
from sinks.clickhouse.guarantee import Storage
from sinks.clickhouse.rehearsal import made_like
from sinks.parquet import one_root as parquet
from sinks.parquet import rehearsal
from sinks.parquet.arrow_store import ArrowStore
from sinks.parquet.local import LocalStore
from tests.harness.object_store import Objects
from tests.harness.targets import ORDER_COLUMNS

TINY = ("--records", "3000", "--quiet")


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "tune_collector", lambda: None)
    monkeypatch.setattr(bench, "tune_memory", lambda: None)


@pytest.fixture
def measured(capsys: pytest.CaptureFixture[str]) -> Callable[..., Mapping[str, Any]]:
    def measure(*flags: str, code: int = 0) -> Mapping[str, Any]:
        assert cli.main(["bench", *TINY, *flags, "--json"]) == code
        found: Mapping[str, Any] = json.loads(capsys.readouterr().out)
        assert found["exit"] == code
        return found

    return measure


def tree(root: Path) -> Mapping[str, bytes | None]:
    return {str(one.relative_to(root)): one.read_bytes() if one.is_file() else None for one in root.rglob("*")}


def test_made_up_records_go_through_the_pipeline_and_nowhere(measured: Callable[..., Mapping[str, Any]]) -> None:
    found = measured()
    assert [run["rows"] for run in found["pipeline"]["runs"]] == [3000] * 3
    assert found["stages"].keys() == {"decode"}
    assert found["stages"]["decode"]["rows"] == 3000
    assert found["pipeline"]["of_consume"] is None
    assert found["bottleneck"]["stage"] == "decode"
    assert found["versions"]["pyarrow"] == pa.__version__


def test_people_get_a_table_and_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--records", "4_000"]) == 0
    out, err = capsys.readouterr()
    assert "4,000 generated records, 4 partitions" in out
    # Which stage it is depends on the machine, and on whether the extension decodes.
    assert re.search(r"\nbottleneck \w+: ", out)
    assert "fetching is not measured" in out
    assert "batcher: pipeline 3 of 3: 4,000 records" in err


def test_a_template_makes_the_records_and_the_bad_ones_are_counted(
    measured: Callable[..., Mapping[str, Any]], tmp_path: Path
) -> None:
    pa.ipc.new_file(str(tmp_path / "s.arrow"), pa.schema([("n", pa.int8())])).close()
    template = '{"n":{{choice 1 1 1 \'"x"\'}}}'
    found = measured("--template", template, "--sink", "null", "--decode.schema", str(tmp_path / "s.arrow"))
    for run in found["pipeline"]["runs"]:
        assert run["rows"] == 3000
        assert 500 < sum(run["refused"].values()) < 1000


def test_a_topic_of_nothing_but_bad_records_is_said_and_no_success(
    measured: Callable[..., Mapping[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *TINY, "--template", "not json"]) == 78
    assert "null has no schema yet, and not one of the first 2,000 records can be read" in capsys.readouterr().err
    pa.ipc.new_file(str(tmp_path / "s.arrow"), pa.schema([("n", pa.int8())])).close()
    flags = ("--template", "not json", "--sink", "null", "--decode.schema", str(tmp_path / "s.arrow"))
    found = measured(*flags, code=78)
    assert [run["refused"] for run in found["pipeline"]["runs"]] == [{"syntax": 3000}] * 3
    assert any(one["text"].startswith("most records do not fit the target") for one in found["advice"])


def test_a_root_is_not_even_opened_for_its_schema(
    measured: Callable[..., Mapping[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(_: object) -> None:
        raise AssertionError("opening makes directories, and removes what dead processes left")

    monkeypatch.setattr(LocalStore, "open", opened)
    assert measured("--sink", "parquet", "--parquet.path", str(tmp_path / "root"))["setup"]["sink"] == "parquet"


@pytest.mark.parametrize("target", ["null", "scratch"])
def test_a_parquet_root_is_measured_and_stays_as_it_was(
    target: str, measured: Callable[..., Mapping[str, Any]], tmp_path: Path
) -> None:
    flags = ("--sink", "parquet", "--parquet.path", str(tmp_path / "data" / "root"), "--target", target)
    found = measured(*flags)
    assert tree(tmp_path) == {}
    assert found["setup"]["delivery"] == "exactly-once"
    assert ("write" in found["stages"]) == (target == "scratch")
    sink = parquet({"path": str(tmp_path / "data" / "root")})
    sink.open()
    sink.pin(pa.schema([("id", pa.int64())]))
    sink.close()
    before = tree(tmp_path)
    assert measured(*flags)["pipeline"]["runs"][0]["rows"] == 3000
    assert tree(tmp_path) == before


def test_a_copy_of_a_root_has_its_schema_and_is_gone_after_a_failure(tmp_path: Path) -> None:
    root = parquet({"path": str(tmp_path / "root"), "compression": "lz4"})
    root.open()
    root.pin(pa.schema([("id", pa.int64())]))
    root.close()
    real = parquet({"path": str(tmp_path / "root"), "compression": "lz4"})
    seen: dict[str, bytes | None] = {}

    def rehearse() -> None:
        with real.rehearsal("copy_1") as copy:
            assert copy.open().schema == pa.schema([("id", pa.int64())])
            table = pa.table({"id": pa.array([1, 2], pa.int64())})
            copy.write(make_block(table, coordinates=("_partition", "_offset", "_timestamp")))
            seen.update(tree(tmp_path / ".copy_1"))
            file = next(tmp_path.joinpath(".copy_1").glob("*.parquet"))
            assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "LZ4"
            raise KeyboardInterrupt

    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        rehearse()
    assert "_schema.arrow" in seen
    assert tree(tmp_path) == before


def test_a_directory_that_nothing_can_be_made_in_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = parquet({"path": str(tmp_path / "file" / "root")})
    with pytest.raises(SinkMisconfigured, match=r"looking into .*: a file is where"), sink.rehearsal("copy"):
        pass


class _Bucket(Objects):
    def delete_dir(self, *paths: object) -> None:
        for name in [one for one in self.content if one.startswith(f"{paths[0]}/")]:
            self.delete_file(name)


@pytest.mark.parametrize(
    ("uri", "copy"),
    [
        ("s3://bucket/a/b/?region=x", "s3://bucket/a/b-copy?region=x"),
        ("s3://bucket/a", "s3://bucket/a-copy"),
        ("s3://bucket", "s3://bucket/copy"),
    ],
)
def test_a_remote_root_is_copied_beside_it_and_the_copy_removed(uri: str, copy: str) -> None:
    bucket = _Bucket("bucket")
    bucket.content = {"bucket/a/b/real": b"", "bucket/a/real": b"", "bucket/real": b""}
    before = dict(bucket.content)

    def below(text: str) -> str:
        return text.removeprefix("s3://").partition("?")[0]

    def store_at(text: str) -> ArrowStore:
        return ArrowStore(lambda: (fs.PyFileSystem(bucket), below(text)), text)

    with rehearsal.scratch_path(uri, "copy", store_at) as path:
        assert path == copy
        bucket.content[f"{below(path)}/file"] = b""
    assert bucket.content == before
    bucket.no_removal = True
    with pytest.raises(SinkMisconfigured, match="cannot be removed; remove the prefix that ends in"):  # noqa: SIM117
        with rehearsal.scratch_path(uri, "copy", store_at) as path:
            bucket.content[f"{below(path)}/file"] = b""


@pytest.mark.parametrize("target", ["null", "scratch"])
def test_a_table_is_measured_and_stays_as_it_was(
    target: str,
    measured: Callable[..., Mapping[str, Any]],
    chdb_engine: EmbeddedEngine,
    new_table: Callable[[], str],
) -> None:
    name = new_table()
    chdb_engine.execute(
        f"CREATE TABLE {name} ({ORDER_COLUMNS}, raw JSON DEFAULT '{{}}') ENGINE = MergeTree ORDER BY id"
    )
    flags = ("--sink", "clickhouse", "--clickhouse.dsn", chdb_engine.dsn, "--clickhouse.table", name)
    found = measured(*flags, "--target", target)
    assert [run["rows"] for run in found["pipeline"]["runs"]] == [3000] * 3
    assert found["setup"]["slow_columns"] == ["raw"]
    assert chdb_engine.rows(f"SELECT count() FROM {name}") in ([(0,)], [("0",)])
    assert chdb_engine.rows("SELECT name FROM system.tables WHERE name LIKE 'batcher_bench%'") == []


def test_a_copy_of_a_table_takes_rows_and_is_gone_after_a_failure(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    name, scratch = new_table(), new_table()
    chdb_engine.execute(f"CREATE TABLE {name} (id UInt8) ENGINE = MergeTree ORDER BY id")
    real = clickhouse({"dsn": chdb_engine.dsn, "table": name})
    assert isinstance(real, Rehearsable)

    def rehearse() -> None:
        with real.rehearsal(scratch) as copy:
            copy.open()
            copy.write(make_block(pa.table({"id": pa.array([1, 2], pa.uint8())})))
            copy.close()
            assert [int(row[0]) for row in chdb_engine.rows(f"SELECT count() FROM {scratch}")] == [2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearse()
    assert [int(row[0]) for row in chdb_engine.rows(f"SELECT count() FROM {name}")] == [0]
    assert chdb_engine.rows(f"SELECT name FROM system.tables WHERE name = '{scratch}'") == []


@pytest.mark.parametrize("engine", ["Distributed", "ReplicatedMergeTree", "Buffer", "MaterializedView", "Kafka", "Log"])
def test_a_table_whose_copy_would_reach_the_real_one_is_not_copied(engine: str) -> None:
    table = Storage("default", "events", engine, "", "", {})
    with pytest.raises(SinkMisconfigured, match=f"engine {engine} cannot be made a second time"):
        made_like(None, table, "copy", "here/default.events")  # type: ignore[arg-type]


class _Rights:
    def __init__(self, lacking: str) -> None:
        self.lacking = lacking
        self.commands: list[str] = []

    def query(self, text: str, **_: object) -> Any:
        granted = not text.startswith(f"CHECK GRANT {self.lacking} ON `d`.`copy`")
        return SimpleNamespace(result_rows=[(int(granted),)])

    def command(self, text: str) -> None:
        self.commands.append(text)


@pytest.mark.parametrize("lacking", ["CREATE TABLE", "INSERT", "DROP TABLE"])
def test_nothing_is_made_without_the_right_to_remove_it_again(lacking: str) -> None:
    client = _Rights(lacking)
    table = Storage("d", "events", "MergeTree", "", "", {})
    with pytest.raises(SinkMisconfigured, match=f"the user lacks {lacking} on it"):
        made_like(client, table, "copy", "here/d.events")  # type: ignore[arg-type]
    assert client.commands == []


def test_flags_of_run_are_taken_and_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for flags, text in (
        (("-b", "k:1"), "--kafka.topics: which topic?"),
        (("-t", "events"), "--kafka.brokers: which brokers?"),
        (("-b", "k:1", "-t", "events", "--template", "x"), "--template: makes records up"),
        (("--sink", "clickhouse"), "--clickhouse.table: which table?"),
        (("--sink", "parquet"), "--parquet.path: which directory?"),
        (("--template", "{{nothing}}"), "--template: {{nothing}}: no such field"),
        (("--for", "10"), "--for: needs a number and a unit"),
        (("--for", "0s"), "--for: is a time above 0"),
        (("--records", "0"), "--records: is a whole number from 1 on"),
    ):
        assert cli.main(["bench", *flags]) == 2, flags
        assert text in capsys.readouterr().err


def test_a_sink_that_has_no_copies_is_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *TINY, "--target", "scratch"]) == 78
    assert "--target scratch: the sink null cannot make a target like its own" in capsys.readouterr().err


def test_a_broker_that_does_not_answer_is_69(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.sources.kafka.detached.OPEN_TIMEOUT_S", 0.5)
    assert cli.main(["bench", "-b", "127.0.0.1:1", "-t", "events"]) == 69
    assert "broker 127.0.0.1:1 does not answer" in capsys.readouterr().err


def test_the_first_advice_is_tried_with_the_flags_it_names(measured: Callable[..., Mapping[str, Any]]) -> None:
    sink = "tests.harness.targets:keeping"
    found = measured("--template", ORDERS, "--batch.max-rows", "100", "--try", "--sink", sink)
    assert [one["flags"] for one in found["advice"] if one["flags"]] == [["--batch.max-rows", "100000"]]
    assert found["tried"]["flags"] == ["--batch.max-rows", "100000"]
    assert found["pipeline"]["runs"][0]["batches"] == 30
    assert found["tried"]["run"]["batches"] == 1


def test_a_signal_ends_the_measuring_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measurement.Subject, "say", lambda _self, _text: signal.raise_signal(signal.SIGINT))
    assert cli.main(["bench", "--records", "3000"]) == 130
    assert capsys.readouterr().out == ""


def test_what_could_not_be_removed_is_said_also_after_a_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_self: object, _called: str) -> None:
        signal.raise_signal(signal.SIGINT)
        raise failure

    monkeypatch.setattr(measurement.Subject, "run", run)
    failure: Exception = SinkMisconfigured("table copy could not be dropped; drop it")
    assert cli.main(["bench", "--records", "10"]) == 130
    assert "batcher: table copy could not be dropped; drop it" in capsys.readouterr().err
    failure = DrainTimeout("stopped before everything was durable")
    assert cli.main(["bench", "--records", "10"]) == 130
    assert capsys.readouterr().err == ""


def test_a_signal_stops_the_pipeline_under_way_and_the_second_one_breaks_it_off() -> None:
    interrupts, seen = Interrupts(), []

    class Stopped:
        def stop(self) -> None:
            seen.append("stop")

        def abort(self) -> None:
            seen.append("abort")

    old = signal.getsignal(signal.SIGUSR1)
    with interrupts.running(Stopped()):  # type: ignore[arg-type]
        interrupts.listen(signal.SIGUSR1, None)
        interrupts.listen(signal.SIGUSR1, None)
    signal.signal(signal.SIGUSR1, old)
    with interrupts.running(Stopped()):  # type: ignore[arg-type]
        pass
    assert seen == ["stop", "abort", "stop"]
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


def test_generated_records_are_the_same_each_time_and_offsets_have_no_holes() -> None:
    one, other = (generated(ORDERS, 5500, lambda: False) for _ in range(2))
    assert one == other
    assert sum(map(len, one)) == 5500
    for number in range(4):
        offsets = Records.concat([run for run in one if run.partition.number == number]).offsets.to_pylist()
        assert offsets == list(range(len(offsets)))
    assert generated(ORDERS, 5500, lambda: True) == []


def test_replayed_records_come_in_order_in_the_amounts_asked_for_and_not_while_paused() -> None:
    partition = Partition("events", 0)
    source = Replayed([make_records([b"{}"] * 5), make_records([b"{}"] * 2, first_offset=5)])
    assert [len(run) for run in source.fetch(3, 1 << 24, 0.0)] == [3]
    source.pause([partition])
    assert source.fetch(3, 1 << 24, 0.0) == []
    source.resume([partition])
    assert [run.first_offset for run in source.fetch(3, 1 << 24, 0.0)] == [3, 5]
    assert not source.exhausted
    assert source.reached == {partition: 6}
    assert [run.first_offset for run in source.fetch(3, 1 << 24, 0.0)] == [6]
    assert source.exhausted


def test_no_commit_ever_reaches_a_source_that_is_watched() -> None:
    class Strict(Replayed):
        def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
            raise AssertionError("a commit")

    watched = Watched(Strict([make_records([b"{}"])]))
    watched.commit({Partition("events", 0): Position(1)}, 1.0)
    assert watched.commits == 1


def test_an_onlooker_neither_commits_nor_minds_rights_on_its_group() -> None:
    denied = PartitionEvent(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), Partition("", 0), None)
    source = DetachedSource(KafkaOptions(brokers="k:1", topics=("events",), group="g"))
    source.commit({Partition("events", 0): Position(1)}, 1.0)
    source._on_event(denied)


def test_batches_are_cut_as_the_pipeline_cuts_them() -> None:
    runs = [
        make_records([b"{}"] * 30, partition=Partition("t", number), first_offset=first)
        for first in (0, 30)
        for number in range(2)
    ]
    policy = FlushPolicy(max_rows=50)
    apart = [(batch.rows, len(batch.intents), batch.trigger) for batch in passes.cut(runs, policy, mixes=False)]
    assert apart == [(50, 1, "rows"), (50, 1, "rows"), (10, 1, "end"), (10, 1, "end")]
    together = [(batch.rows, batch.trigger) for batch in passes.cut(runs, policy, mixes=True)]
    assert together == [(50, "rows"), (50, "rows"), (20, "end")]
