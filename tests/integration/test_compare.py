"""The comparison and each rival run with tiny sizes, so that none can rot; no figure is checked.

Rivals that need an environment of their own run where it is set up already, or with `BATCHER_TEST_LONG=1`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from batcher.testing.kafka import Broker
from benchmarks.compare.environments import default_directory, is_ready
from benchmarks.compare.rivals import RIVALS
from tests.harness.patience import LONG
from tests.harness.processes import ROOT, run

WITH_ENVIRONMENT = sorted(name for name, one in RIVALS.items() if one.environment)


def compare(broker: Broker, only: str, to: Path) -> dict[str, Any]:
    flags = ("--records", "8000", "--rounds", "1", "--only", only, "--json", str(to))
    brokers = {"BATCHER_TEST_BROKERS": broker.bootstrap}
    done = run(*flags, environment=brokers, directory=ROOT, module="benchmarks.bench_compare", timeout_s=280)
    assert done.code == 0, done.stderr[-2000:]
    written: dict[str, Any] = json.loads(to.read_text())
    return written


@pytest.mark.broker
def test_the_comparison_measures_and_judges(broker: Broker, tmp_path: Path) -> None:
    pytest.importorskip("chdb", reason="needs the extra [embedded]")

    written = compare(
        broker, "consume,parquet,naive-parquet,naive-msgspec,kafka-engine-best", tmp_path / "compare.json"
    )

    results = {one["contender"]: one for one in written["results"]}
    assert set(results) == {"consume", "parquet", "naive-parquet", "naive-msgspec", "kafka-engine-best"}
    assert all(one["rows_per_second"] > 0 and one["cpu_us_per_row"] > 0 for one in results.values())
    assert results["parquet"]["records"] == 8000
    assert results["naive-parquet"]["records"] == 1000
    assert [line.split(": ")[0] for line in written["verdicts"]] == ["parquet / consume", "parquet / naive-parquet"]
    assert written["left out"] == []
    assert "parquet / naive-parquet" in (tmp_path / "compare.md").read_text()


@pytest.mark.broker
@pytest.mark.long
def test_the_usual_shapes_run(broker: Broker, tmp_path: Path) -> None:
    pytest.importorskip("chdb", reason="needs the extra [embedded]")

    written = compare(broker, "kafka-engine-usual,naive-columns", tmp_path / "compare.json")

    assert [one["contender"] for one in written["results"]] == ["kafka-engine-usual", "naive-columns"]


@pytest.mark.broker
@pytest.mark.parametrize("name", WITH_ENVIRONMENT)
def test_the_rival_loads_everything(name: str, broker: Broker, tmp_path: Path) -> None:
    if not (LONG or is_ready(name, default_directory())):
        pytest.skip(f"no environment for {name}: BATCHER_TEST_LONG=1 or `make bench-compare` sets it up")

    written = compare(broker, name, tmp_path / "compare.json")

    assert written["left out"] == []
    assert [one["contender"] for one in written["results"]] == [name]
    assert list(written["environments"]) == [RIVALS[name].environment]
