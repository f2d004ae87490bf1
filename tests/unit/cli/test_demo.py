import importlib.util
import re
from pathlib import Path

import pytest

from batcher.cli.verbs import demo
from batcher.demo import show
from batcher.demo.kafka import BACKLOG
from batcher.demo.targets import DDL
from batcher.embedded.jars import Unavailable
from batcher.embedded.mock_cluster import RETENTION_BYTES
from batcher.errors import ConfigurationError, Unreachable
from batcher.generate.events import EventGenerator
from batcher.settings import UsageError
from tests.harness.processes import run_code

HELP = """
import sys
from batcher.cli.main import main
assert main(["demo", "--help"]) == 0
print(sorted({"pyarrow", "confluent_kafka", "chdb", "rich"} & set(sys.modules)))
"""


def test_help_loads_nothing_heavy() -> None:
    done = run_code(HELP)

    assert "--sink" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_without_the_engine_the_extra_and_the_other_sink_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    said = r"^the embedded ClickHouse is not installed.*\[embedded\].*--sink parquet"
    with pytest.raises(ConfigurationError, match=said) as caught:
        demo.main([])

    assert caught.value.exit_code == 78
    assert list(tmp_path.iterdir()) == []


def test_a_kafka_that_cannot_start_is_69(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> None:
        raise Unavailable("no librdkafka found")

    monkeypatch.setattr(show, "SmallKafka", missing)

    with pytest.raises(Unreachable, match="no librdkafka found") as caught:
        demo.main(["--sink", "parquet", "--keep", str(tmp_path)])

    assert caught.value.exit_code == 69


def test_a_directory_with_something_in_it_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("data")

    with pytest.raises(UsageError, match=r"--keep .* not empty"):
        demo.main(["--keep", str(tmp_path)])

    assert [file.name for file in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("argv", [["--records", "999"], ["--records", "many"], ["--sink", "null"], ["--keep"]])
def test_a_bad_command_line_is_2(argv: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        demo.main(argv)

    assert caught.value.exit_code == 2


def test_the_table_is_the_shipped_one() -> None:
    shipped = Path(__file__).parents[3].joinpath("deploy/clickhouse/events.sql").read_text(encoding="utf-8")

    def lines(sql: str) -> list[str]:
        words = re.sub(r"--.*", "", sql).replace("IF NOT EXISTS default.", "").replace(";", "")
        return [" ".join(line.split()) for line in words.splitlines() if line.strip()]

    assert lines(DDL) == lines(shipped)


def test_a_backlog_stays_far_below_what_the_mock_cluster_keeps() -> None:
    # Uncompressed, and with the record's own header.
    largest = max(len(event) for event in EventGenerator(seed=1).take(5000)) + 30

    assert BACKLOG * largest < 0.75 * RETENTION_BYTES
