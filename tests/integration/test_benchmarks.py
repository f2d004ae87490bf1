"""Each benchmark runs with tiny sizes, so that none can rot; no figure is checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batcher.testing.kafka import Broker

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *flags: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.broker
def test_the_pipeline_benchmark_measures_every_contender(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("chdb", reason="needs the extra [embedded]")
    monkeypatch.setenv("BATCHER_TEST_BROKERS", broker.bootstrap)
    written = tmp_path / "results.json"

    run("bench_pipeline", "--records", "8000", "--rounds", "1", "--json", str(written))

    results = {one["contender"]: one for one in json.loads(written.read_text())["results"]}
    assert set(results) == {
        "consume",
        "consume-gc",
        "null",
        "parquet",
        "parquet-at-least-once",
        "clickhouse",
        "clickhouse-merged",
        "clickhouse-at-least-once",
        "naive",
    }
    assert all(one["rows_per_second"] > 0 and one["cpu_us_per_row"] > 0 for one in results.values())


@pytest.mark.broker
def test_the_fetch_benchmark_runs(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHER_TEST_BROKERS", broker.bootstrap)
    run("bench_fetch", "--records", "60000", "--rounds", "1", "--json", str(tmp_path / "fetch.json"))


def test_the_parquet_benchmark_runs(tmp_path: Path) -> None:
    run("bench_parquet", "--seconds", "0.01", "--dir", str(tmp_path))


def test_the_clickhouse_benchmark_runs() -> None:
    pytest.importorskip("chdb", reason="needs the extra [embedded]")
    run("bench_clickhouse", "--rows", "100", "--blocks", "1")


@pytest.mark.broker
def test_the_takeover_benchmark_runs(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHER_TEST_BROKERS", broker.bootstrap)
    written = tmp_path / "takeover.json"

    # A killed static member is back at once; the cases that wait for a session to end are left out.
    flags = ("--protocols", "range", "--cases", "kill-static", "--session-timeout", "6", "--json", str(written))
    run("bench_takeover", *flags)

    assert json.loads(written.read_text())["seconds"]["kill-static"]["range"] > 0
