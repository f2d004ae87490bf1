"""What the comparison says of the promised ratios, and what it takes for a rival's turn to count."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batcher.embedded.jars import Unavailable
from benchmarks import bench_compare, contenders
from benchmarks.bench_compare import available, failed_of_ours, verdicts
from benchmarks.compare import rivals, turn
from benchmarks.compare.environments import REQUIREMENTS, is_ready
from benchmarks.compare.files import Files, check_files
from benchmarks.compare.rivals import RIVALS
from benchmarks.compare.turn import Turn
from benchmarks.harness import Measured, TurnFailed, in_rounds, reason_of, table

ORDER = {
    "ts": "2026-01-01T00:00:00.001Z",
    "user_id": 1,
    "country": "DE",
    "product": "lungo",
    "quantity": 1,
    "price": 1.5,
    "paid": True,
    "session": "a",
}


def turns(contender: str, *rates: float) -> list[Measured]:
    return [Measured(contender, 1000, 1000 / rate, rate, 1.0, 100.0) for rate in rates]


def test_a_ratio_to_consume_is_judged_by_the_best_round() -> None:
    results = [*turns("consume", 1000, 1000, 500), *turns("parquet", 300, 400, 300)]

    assert verdicts(results) == ["parquet / consume: 0.60 in the best round, at least 0.55 wanted: met"]


def test_a_ratio_to_a_rival_is_judged_by_the_medians() -> None:
    results = [*turns("parquet", 300, 350, 900), *turns("quix", 100, 100, 100)]

    assert verdicts(results) == ["parquet / quix: 3.50 by the medians, at least 3.50 wanted: met"]


def test_a_missed_ratio_says_by_how_much() -> None:
    results = [*turns("clickhouse", 300), *turns("kafka-engine-best", 200)]

    (line,) = verdicts(results)
    assert line == "clickhouse / kafka-engine-best: 1.50 by the medians, at least 1.70 wanted: missed by 0.20"


def test_a_ratio_that_only_rounds_to_what_is_wanted_is_missed() -> None:
    (line,) = verdicts([*turns("parquet", 349.9), *turns("arroyo", 100)])

    assert line == "parquet / arroyo: 3.49 by the medians, at least 3.50 wanted: missed by 0.01"


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ("parquet", ["naive-parquet", "quix", "arroyo", "bytewax"]),
        ("clickhouse", ["naive", "naive-columns", "naive-msgspec"]),
    ],
)
def test_every_python_rival_with_the_same_target_is_judged(ours: str, others: list[str]) -> None:
    names = ["naive", "naive-columns", "naive-msgspec", "naive-parquet", "quix", "arroyo", "bytewax"]
    results = [one for name in [ours, *names] for one in turns(name, 100)]

    assert [line.split(": ")[0] for line in verdicts(results)] == [f"{ours} / {name}" for name in others]


def test_nothing_is_said_of_contenders_that_had_no_turn() -> None:
    assert verdicts([*turns("parquet", 100), *turns("naive-columns", 10), *turns("spark", 10)]) == []


def test_a_rival_that_cannot_be_had_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ready(name: str, environments: Path) -> Path:
        if name == "quix":
            raise Unavailable("no network")
        return environments / name

    monkeypatch.setattr(bench_compare, "ready", ready)

    pythons, reasons = available(["consume", "quix", "arroyo"], tmp_path)

    assert pythons == {"arroyo": tmp_path / "arroyo"}
    assert reasons == ["quix is left out: no network"]


def test_a_contender_that_fails_has_a_row_that_says_why_and_the_others_keep_their_figures() -> None:
    took: list[str] = []

    def take(name: str) -> Measured:
        took.append(name)
        if name == "quix" or len(took) == 5:
            raise TurnFailed(f"exit code 1: {name} lost its broker")
        return turns(name, 100)[0]

    failed: dict[str, str] = {}
    results = in_rounds(["consume", "quix", "parquet"], 2, take, failed)

    assert took == ["consume", "quix", "parquet", "consume", "parquet"]
    assert failed == {"quix": "exit code 1: quix lost its broker", "parquet": "exit code 1: parquet lost its broker"}
    shown = table(results, "consume", failed=failed)
    assert "| quix | failed: exit code 1: quix lost its broker |" in shown
    assert [one.contender for one in results] == ["consume", "parquet", "consume"]


def test_only_a_failure_of_batcher_itself_fails_the_run() -> None:
    assert failed_of_ours({"quix": "", "naive": "", "consume": "", "spark": ""}) == []
    assert failed_of_ours({"parquet-python": "", "clickhouse, deep": ""}) == ["parquet-python", "clickhouse, deep"]


def test_what_runs_natively_is_held_to_more() -> None:
    results = [*turns("consume", 1000), *(replace(one, path="decode native") for one in turns("parquet", 900))]

    assert verdicts(results) == ["parquet / consume: 0.90 in the best round, at least 1.00 wanted: missed by 0.10"]


def test_a_process_that_fails_gives_its_last_line_as_the_reason() -> None:
    assert reason_of("Traceback\n  File x\nValueError: no such topic\n\n") == "ValueError: no such topic"
    assert reason_of("") == "no message"


def test_spark_is_left_out_without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rivals, "python_of", lambda name, directory: directory / name)

    assert available(["spark"], tmp_path) == (
        {},
        ["spark is left out: spark needs java, which is not on the PATH"],
    )


def test_the_rivals_know_how_many_partitions_there_are() -> None:
    assert turn.PARTITIONS == contenders.PARTITIONS


def test_every_environment_pins_every_version() -> None:
    for name in {one.environment for one in RIVALS.values() if one.environment}:
        lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        assert lines
        assert all("==" in line for line in lines)


def test_an_environment_of_other_versions_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "quix").mkdir()
    (tmp_path / "quix" / ".ready").write_text("3.11\nquixstreams==1.0\n")

    assert not is_ready("quix", tmp_path)


class TestFiles:
    """A turn counts only if the files hold each record once, with all its values."""

    def checked(self, directory: Path, *batches: list[dict[str, Any]]) -> None:
        files = Files(directory / "out")
        for rows in batches:
            files.write(rows)
        check_files(Turn("", "", 4, directory, ""), directory / "out")

    def test_complete_files_are_accepted(self, tmp_path: Path) -> None:
        self.checked(tmp_path, [{"id": 0, **ORDER}, {"id": 2, **ORDER}], [{"id": 3, **ORDER}, {"id": 1, **ORDER}])

    def test_the_times_are_instants(self, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        Files(tmp_path / "out").write([{"id": 0, **ORDER}])

        (found,) = pq.read_table(tmp_path / "out")["ts"].to_pylist()
        assert found == datetime(2026, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)

    @pytest.mark.parametrize("ids", [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, 3], [0, 1, 2, 4]])
    def test_missing_duplicated_and_foreign_rows_end_the_run(self, tmp_path: Path, ids: list[int]) -> None:
        with pytest.raises(SystemExit, match="incomplete"):
            self.checked(tmp_path, [{"id": number, **ORDER} for number in ids])

    def test_a_missing_value_ends_the_run(self, tmp_path: Path) -> None:
        rows = [{"id": number, **ORDER} for number in range(4)]
        del rows[1]["country"]
        with pytest.raises(SystemExit, match="1 values are null"):
            self.checked(tmp_path, rows)
