"""Each benchmark runs with tiny sizes, so that none can rot; no figure is checked. The slow ones are `long`."""

import json
import uuid
from pathlib import Path

import pytest

from batcher.embedded.nsq import Nsqd
from batcher.testing.kafka import Broker
from benchmarks.shapes import SHAPES
from benchmarks.steady import fill
from benchmarks.turn import Turn
from tests.harness.processes import ROOT, run


def bench(name: str, *flags: str, broker: Broker | None = None) -> None:
    environment = {} if broker is None else {"BATCHER_TEST_BROKERS": broker.bootstrap}
    done = run(*flags, environment=environment, directory=ROOT, module=f"benchmarks.bench_{name}", timeout_s=280)
    assert done.code == 0, done.stderr[-2000:]


@pytest.mark.broker
def test_the_pipeline_benchmark_measures_every_contender(broker: Broker, tmp_path: Path) -> None:
    pytest.importorskip("chdb", reason="needs the extra [embedded]")
    for needed in ("numpy", "fastavro", "ptars", "obstore", "deltalake", "pyiceberg", "moto"):
        pytest.importorskip(needed)
    written = tmp_path / "results.json"

    bench("pipeline", "--records", "8000", "--rounds", "1", "--json", str(written), broker=broker)

    results = {one["contender"]: one for one in json.loads(written.read_text())["results"]}
    assert set(results) == {
        "consume",
        "consume-gc",
        "null",
        "null-avro",
        "null-protobuf",
        "parquet",
        "parquet-avro",
        "parquet-protobuf",
        "parquet-at-least-once",
        "parquet-s3",
        "delta",
        "iceberg",
        "clickhouse",
        "clickhouse-http",
        "clickhouse-merged",
        "clickhouse-at-least-once",
        "naive",
    }
    assert all(one["rows_per_second"] > 0 and one["cpu_us_per_row"] > 0 for one in results.values())


@pytest.mark.broker
def test_the_fetch_benchmark_runs(broker: Broker, tmp_path: Path) -> None:
    bench("fetch", "--records", "60000", "--rounds", "1", "--json", str(tmp_path / "fetch.json"), broker=broker)


def test_the_parquet_benchmark_runs(tmp_path: Path) -> None:
    bench("parquet", "--seconds", "0.01", "--dir", str(tmp_path), "--json", str(tmp_path / "parquet.json"))


def test_the_benchmark_of_lake_tables_runs(tmp_path: Path) -> None:
    bench("lake", "--commits", "3", "--dir", str(tmp_path), "--json", str(tmp_path / "lake.json"))
    figures = json.loads((tmp_path / "lake.json").read_text())["figures"]
    assert [one["sink"] for one in figures][:2] == ["parquet", "delta"]


def test_the_benchmark_of_the_embedded_queue_runs(tmp_path: Path) -> None:
    bench("queue", "--records", "2000", "--rounds", "1", "--dir", str(tmp_path), "--json", str(tmp_path / "queue.json"))


def test_the_handler_benchmark_measures_every_way(tmp_path: Path) -> None:
    written = tmp_path / "handler.json"

    bench("handler", "--records", "1000", "--sleeps", "100", "--repeats", "1", "--json", str(written))

    assert len({(one["work"], one["way"]) for one in json.loads(written.read_text())["results"]}) == 9


def test_the_page_benchmark_compares_a_run_alone_with_one_that_is_watched(tmp_path: Path) -> None:
    written = tmp_path / "page.json"

    bench("page", "--records", "4000", "--rounds", "1", "--json", str(written))

    assert {one["contender"] for one in json.loads(written.read_text())["results"]} == {"alone", "watched"}


def test_the_decode_benchmark_runs(tmp_path: Path) -> None:
    bench("decode", "--rows", "400", "--repeats", "1", "--json", str(tmp_path / "decode.json"))


def test_the_formats_benchmark_runs() -> None:
    for needed in ("numpy", "fastavro", "ptars"):
        pytest.importorskip(needed)
    bench("formats", "--rows", "400", "--repeats", "1")


def test_the_clickhouse_benchmark_runs(tmp_path: Path) -> None:
    pytest.importorskip("chdb", reason="needs the extra [embedded]")
    bench("clickhouse", "--rows", "100", "--blocks", "1", "--json", str(tmp_path / "clickhouse.json"))


def test_the_nsq_benchmark_runs(nsqd: Nsqd, tmp_path: Path) -> None:
    flags = ("--records", "500", "--rounds", "1", "--in-flight", "200", "--json", str(tmp_path / "nsq.json"))
    bench("nsq", *flags)


@pytest.mark.broker
def test_the_takeover_benchmark_runs(broker: Broker, tmp_path: Path) -> None:
    written = tmp_path / "takeover.json"

    # A killed static member is back at once; the cases that wait for a session to end are left out.
    flags = ("--protocols", "range", "--cases", "kill-static", "--session-timeout", "6", "--json", str(written))
    bench("takeover", *flags, broker=broker)

    assert json.loads(written.read_text())["seconds"]["kill-static"]["range"] > 0


def test_the_buffer_benchmark_covers_every_way(tmp_path: Path) -> None:
    written = tmp_path / "buffer.json"

    sizes = ("--partitions", "1,3", "--run-rows", "1,50", "--records", "1000", "--runs", "40", "--repeats", "1")
    bench("buffer", *sizes, "--json", str(written))

    results = json.loads(written.read_text())["results"]
    assert {one["way"] for one in results} == {
        "buffer",
        "buffer, shared batches",
        "state",
        "state, shared batches",
    }
    assert all(one["batches"] > 0 and one["seconds"] > 0 for one in results)
    assert "ns a record" in written.with_suffix(".md").read_text()


@pytest.mark.long
@pytest.mark.broker
def test_the_latency_benchmark_measures_every_part(broker: Broker, tmp_path: Path) -> None:
    written = tmp_path / "latency.json"

    load = ("--rates", "200", "--waits", "0.1", "--seconds", "0.5", "--windows", "1")
    others = ("--times", "1", "--idle-seconds", "0.2", "--idle-partitions", "2", "--starts", "1")
    bench("latency", "--sinks", "parquet", *load, *others, "--json", str(written), broker=broker)

    results = json.loads(written.read_text())["results"]
    # Never before its time: what is seen is the commit, and the wait comes before it.
    assert all(one["seconds"] > one["max_wait_s"] for one in results["lone"])
    assert all(0 < one["p50_s"] <= one["p99_s"] <= one["max_s"] for one in results["load"])
    assert all(0 < one["opened_s"] < one["assigned_s"] < one["committed_s"] for one in results["start"])
    assert len(results["idle"]) == 1
    assert results["imports"]["parquet"]["pyarrow"] > 0


@pytest.mark.long
@pytest.mark.broker
def test_the_scale_benchmark_measures_every_part(broker: Broker, tmp_path: Path) -> None:
    written = tmp_path / "scale.json"

    sizes = ("--records", "2000", "--rounds", "1", "--partitions", "1,3", "--max-rows", "500", "--waits-ms", "50")
    bench("scale", "--sinks", "null", *sizes, "--workers", "2", "--json", str(written), broker=broker)

    results = json.loads(written.read_text())["results"]
    assert {one["contender"] for one in results["partitions"]} == {"null @ 1", "null @ 3"}
    assert {one["contender"] for one in results["batch"]} == {"null, max-rows 500", "null, max-wait 50 ms"}
    assert {one["contender"] for one in results["workers"]} == {"2 processes"}
    assert {one["contender"] for one in results["shapes"]} == {
        f"{shape}, {sink}" for shape in ("tiny", "standard", "wide") for sink in ("consume", "null")
    }
    assert all(one["rows_per_second"] > 0 for part in results.values() for one in part)


@pytest.mark.broker
def test_wide_records_go_into_a_table_of_their_own_columns(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("chdb", reason="needs the extra [embedded]")
    topic = f"wide-{uuid.uuid4().hex[:12]}"
    broker.create_topic(topic, 2)
    fill(broker, topic, SHAPES["wide"].records(60), 2, block=10)
    monkeypatch.chdir(ROOT)

    result = Turn("wide", "clickhouse", broker.bootstrap, topic, 2, 60, "wide").take()

    # Or it would have ended: every record has to be a row.
    assert result.records == 60


@pytest.mark.long
@pytest.mark.broker
def test_the_memory_benchmark_runs(broker: Broker, tmp_path: Path) -> None:
    written = tmp_path / "memory.json"

    sizes = ("--records", "20000", "--rounds", "1", "--stall", "1", "--seconds", "3", "--rate", "2000")
    bench("memory", *sizes, "--json", str(written), broker=broker)

    assert [one["part"] for one in json.loads(written.read_text())["results"]] == [
        "backlog",
        "packed",
        "stall",
        "steady",
    ]
