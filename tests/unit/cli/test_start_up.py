"""What a run loads before its first record: nothing that takes long and is not needed."""

from __future__ import annotations

import pytest

from tests.harness.processes import run_code


def told(program: str) -> str:
    done = run_code(program)
    assert done.code == 0, done.stderr
    return done.stdout.strip()


def test_a_pipeline_without_metrics_loads_no_prometheus() -> None:
    program = """
import sys
import batcher.cli.verbs.run, batcher.cli.support.wiring, batcher.engine.pipeline
import batcher.sources.kafka.source, batcher.formats.json.format
import sinks.parquet
print({"prometheus_client", "pandas", "http.server"} & set(sys.modules) or "none")
"""
    assert told(program) == "none"


def test_a_run_without_variables_of_opentelemetry_loads_nothing_of_it() -> None:
    program = """
import contextlib, io, os, sys
for name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[name]
from batcher.cli.main import main
with contextlib.redirect_stderr(io.StringIO()):
    # It gets as far as to the queue, which is not there.
    assert main(["--source", "queue", "--queue.path", "none.db", "--queue.group", "g", "--sink", "null"]) == 78
heavy = ("opentelemetry", "batcher.telemetry.otel.e", "prometheus_client")
print([name for name in sys.modules if name.startswith(heavy)] or "none")
"""
    assert told(program).splitlines()[-1] == "none"


def test_a_pipeline_of_bare_json_loads_nothing_for_frames_registries_and_compression() -> None:
    program = """
import sys
from batcher.cli.support import wiring
from batcher.settings import Settings
wiring.format_of(Settings())
print([name for name in sys.modules if name.startswith(("batcher.formats.f", "batcher.formats.schema_r",
    "batcher.formats.compr"))] or "none")
"""
    assert told(program) == "none"


def test_the_first_array_loads_no_pandas_and_data_frames_work_all_the_same() -> None:
    pytest.importorskip("pandas", reason="comes with the extra [embedded]")
    program = """
import sys
import pyarrow as pa
from batcher.cli.support.tuning import tune_memory
tune_memory()
numbers = pa.array([1, 2])
print("pandas" in sys.modules, len(pa.table({"n": numbers}).to_pandas()), "pandas" in sys.modules)
"""
    assert told(program) == "False 2 True"


def test_a_sink_that_has_loaded_pandas_keeps_it() -> None:
    pytest.importorskip("pandas", reason="comes with the extra [embedded]")
    program = """
import pandas as pd
import pyarrow as pa
from batcher.cli.support.tuning import tune_memory
tune_memory()
print(pa.array(pd.Series([1.0, float("nan")])).null_count)
"""
    assert told(program) == "1"


def test_numpy_starts_no_threads_unless_the_user_asks_for_them() -> None:
    program = """
import os, sys
os.environ.pop("OPENBLAS_NUM_THREADS", None)
from batcher.cli.support.tuning import spare_threads
spare_threads()
before = os.environ["OPENBLAS_NUM_THREADS"]
os.environ["OPENBLAS_NUM_THREADS"] = "3"
spare_threads()
print("numpy" in sys.modules, before, os.environ["OPENBLAS_NUM_THREADS"])
"""
    assert told(program) == "False 1 3"


def test_the_command_line_has_said_so_before_anything_loads_numpy() -> None:
    program = """
import os, sys
os.environ.pop("OPENBLAS_NUM_THREADS", None)
from batcher import __main__
from batcher.cli import main
def run():
    print("numpy" in sys.modules, os.environ["OPENBLAS_NUM_THREADS"])
    return 0
main.main = run
__main__.main()
"""
    assert told(program) == "False 1"


HEAVY = ("pyarrow", "confluent_kafka", "boto3", "botocore", "clickhouse_connect", "chdb", "numpy", "pandas")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "--help"],
        ["config", "show", "--sink", "parquet"],
        ["plugins"],
        ["run", "--sink", "null"],
        ["produce", "--help"],
    ],
    ids=" ".join,
)
def test_what_only_asks_for_settings_loads_no_library_that_takes_long(words: list[str]) -> None:
    program = f"""
import contextlib, io, sys
from batcher.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main({words!r})
print([name for name in {HEAVY!r} if name in sys.modules] or "none")
"""
    assert told(program) == "none"
