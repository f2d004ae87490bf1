import os
import signal
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from rich.console import Console

from batcher.demo import engine, show
from batcher.demo.kafka import BACKLOG, Orders
from batcher.demo.log import PARTITIONS
from batcher.demo.show import PipelineFailed, Show
from batcher.demo.targets import Answer, ParquetTarget
from batcher.demo.view import DemoView
from batcher.embedded.jars import Unavailable
from batcher.embedded.mock_cluster import MockCluster
from batcher.testing.clickhouse import embedded_engine_missing
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess, run

DEMO = ("demo", "--records", "10000")

# Settings of somebody who uses batcher on this machine: none of them is the demo's.
OTHERS = {"BATCHER_SINK": "null", "BATCHER_KAFKA_TOPICS": "theirs", "BATCHER_BATCH_MAX_WAIT": "1h"}


def rows_of_clickhouse(kept: Path) -> int:
    (counted,) = engine.run(kept / "clickhouse", ["SELECT count() AS rows FROM events"])
    return int(counted["rows"][0].as_py())


def rows_of_parquet(kept: Path) -> int:
    return int(ds.dataset(kept / "parquet", format="parquet").count_rows())


@pytest.fixture(autouse=True)
def mock_cluster_there() -> None:
    try:
        MockCluster().stop()
    except Unavailable as error:
        pytest.skip(f"no mock cluster: {error}")


@pytest.mark.parametrize(
    ("source", "sink", "rows"),
    [
        ("kafka", "clickhouse", rows_of_clickhouse),
        ("kafka", "parquet", rows_of_parquet),
        ("queue", "clickhouse", rows_of_clickhouse),
        pytest.param("queue", "parquet", rows_of_parquet, marks=pytest.mark.long),
    ],
)
def test_after_a_kill_in_the_middle_every_order_is_in_the_target_or_a_dead_letter(
    source: str, sink: str, rows: Callable[[Path], int], tmp_path: Path
) -> None:
    if sink == "clickhouse" and (reason := embedded_engine_missing()):
        pytest.skip(reason)
    kept = tmp_path / "kept here"

    done = run(*DEMO, "--json", "--source", source, "--sink", sink, "--keep", str(kept), environment=OTHERS)

    assert done.code == 0, done.stderr
    facts = done.facts
    assert {
        name: facts[name] for name in ("produced", "poison", "written", "dead_lettered", "lost", "duplicated", "kills")
    } == {
        "produced": 10_000,
        "poison": 10,
        "written": 9_990,
        "dead_lettered": 10,
        "lost": 0,
        "duplicated": 0,
        "kills": 1,
    }
    assert facts["exit"] == 0
    assert rows(kept) == facts["written"]
    assert "kill -9" in done.stderr
    assert str(kept) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def _ctrl_c_is_heard() -> Iterator[None]:
    """What is started in the background of a shell script ignores SIGINT, and so does all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_heard")
def test_ctrl_c_ends_the_pipeline_too_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with BatcherProcess(*DEMO, "--sink", "parquet", environment={"TMPDIR": str(tmp_path)}) as running:
        pid = int(running.wait_for_text("Pipeline:").rpartition("pid ")[2])
        running.signal(signal.SIGINT)
        assert running.wait() == 130

    assert running.stdout == ""
    assert "Traceback" not in running.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(tmp_path.iterdir()) == []


class Thief(ParquetTarget):
    """A target in which one file is gone when it is counted."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.files = directory / "parquet"

    def read(self) -> tuple[pa.Table, Answer]:
        next(self.files.glob("*.parquet")).unlink()
        return super().read()


def test_rows_missing_from_the_target_are_counted_as_lost_and_end_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "ParquetTarget", Thief)
    told = StringIO()

    result = Show("parquet", 1000, tmp_path, DemoView(Console(file=told))).play()

    assert result.exit_code == 1
    assert result.sums.lost > 0
    assert result.sums.written + result.sums.dead_lettered + result.sums.lost == 1000
    assert "THE SUMS DO NOT FIT" in told.getvalue()


def test_a_pipeline_that_ends_by_itself_ends_the_demo_with_its_reason_and_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoDirectory(ParquetTarget):
        def prepare(self) -> None:
            super().prepare()
            (tmp_path / "parquet").write_text("a file")

    monkeypatch.setattr(show, "ParquetTarget", NoDirectory)

    with pytest.raises(PipelineFailed, match=r"exit code 78: .*parquet") as caught:
        Show("parquet", 1000, tmp_path, DemoView(Console(file=StringIO()))).play()

    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)


def test_orders_wait_while_nothing_is_committed(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("orders", PARTITIONS)
    committed = [0] * PARTITIONS
    orders = Orders(mock_cluster.bootstrap, 10 * PARTITIONS * BACKLOG, 1e9, lambda: committed)
    orders.start()
    try:
        wait_for(lambda: orders.throttled and orders.made == PARTITIONS * BACKLOG, "a full backlog")
        committed[0] = 100
        wait_for(lambda: orders.made == PARTITIONS * BACKLOG + 100, "a hundred more")
    finally:
        orders.stop()

    assert orders.error == ""
    assert orders.confirmed == orders.made
    assert [list(run) for run in orders.offsets] == [list(range(len(run))) for run in orders.offsets]
