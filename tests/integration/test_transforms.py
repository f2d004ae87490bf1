"""Records transformed on their way, under kills: exactly those that are meant, as they are meant, each once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.kills import letters_in, run_through_kills
from tests.harness.patience import LONG
from tests.harness.processes import run

pytest.importorskip("duckdb", reason="needs the extra [sql]")

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

RECORDS: Final = 1_000_000 if LONG else 10_000
KILLS: Final = 5 if LONG else 1
BATCH: Final = RECORDS // 20

SELECT: Final = "id, md5(email) AS email, amount, CAST(port AS INTEGER) AS port, _offset AS position"
WHERE: Final = "city <> 'Rome'"

HOOK: Final = """
import pyarrow as pa
import pyarrow.compute as pc


def european(rows: pa.RecordBatch, coordinates: pa.RecordBatch) -> pa.RecordBatch:
    rows = rows.append_column("position", coordinates.column("_offset"))
    rows = rows.filter(pc.not_equal(rows.column("city"), "Rome")).drop_columns(["city", "email"])
    ports = rows.column("port").cast(pa.int32())
    return rows.set_column(rows.schema.get_field_index("port"), "port", ports)
"""


def _kind(number: int) -> str:
    if number % 1000 == 500:
        return "junk"
    if number % 3 == 0:
        return "filtered"
    return "failing" if number % 500 == 7 else "row"


KINDS: Final = [_kind(number) for number in range(RECORDS)]


def _value(number: int) -> bytes:
    if KINDS[number] == "junk":
        return b"{junk"
    row = {
        "id": number,
        "email": f"u{number}@example.com",
        "amount": number / 4,
        "city": "Rome" if number % 3 == 0 else "Oslo",
        "port": "none" if number % 500 == 7 else str(number % 60_000),
    }
    return json.dumps(row).encode()


@pytest.fixture
def topic(broker: Broker, new_topic: Callable[..., str]) -> str:
    topic = new_topic(2)
    middle = RECORDS // 2
    broker.produce(topic, [_value(number) for number in range(middle)], partition=0)
    broker.produce(topic, [_value(number) for number in range(middle, RECORDS)], partition=1)
    return topic


def expected_letters() -> list[tuple[int, int, str]]:
    middle = RECORDS // 2
    reasons = {"junk": "syntax", "failing": "transform"}
    return sorted((n // middle, n % middle, reasons[kind]) for n, kind in enumerate(KINDS) if kind in reasons)


def check_verified(flags: tuple[str, ...], directory: Path) -> None:
    done = run("verify", *flags, "--json", directory=directory)
    assert done.code == 0, done.stdout + done.stderr
    counts = {name: sum(part[name] for part in done.facts["partitions"]) for name in ("written", "filtered", "records")}
    assert counts == {"written": KINDS.count("row"), "filtered": KINDS.count("filtered"), "records": RECORDS}


def test_sql_fills_a_table_exactly_once_after_kills(
    broker: Broker, topic: str, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    table = f"transformed_{topic.rpartition('-')[2]}"
    clickhouse_server.query(
        f"CREATE TABLE {table} (id UInt64, email String, amount Decimal(18, 2), port Int32, position Int64, "
        "_topic LowCardinality(String), _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY id"
    )
    flags = (
        *("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", table),
        *("-b", broker.bootstrap, "-t", topic, "-g", f"{topic}-sql", "--batch.max-rows", str(BATCH)),
        *("--transform.select", SELECT, "--transform.where", WHERE, "--dlq.path", str(tmp_path / "dead")),
    )
    summary = run_through_kills(*flags, kills=KILLS, directory=tmp_path).summary
    assert summary["filtered"] == summary["skipped"] > 0
    assert not summary["unknown_fields"]

    count, unique, right = clickhouse_server.query(
        f"SELECT count(), uniqExact(id), countIf(amount = toDecimal64(id, 2) / 4 AND port = id % 60000 "
        f"AND email = lower(hex(MD5(concat('u', toString(id), '@example.com')))) AND position = _offset "
        f"AND id % 3 != 0) FROM {table}"
    )[0]
    assert [int(count), int(unique), int(right)] == [KINDS.count("row")] * 3
    assert letters_in(tmp_path / "dead", "partition", "offset", "reason") == expected_letters()
    check_verified(flags, tmp_path)


def test_a_function_fills_files_exactly_once_after_kills(broker: Broker, topic: str, tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(HOOK)
    root = tmp_path / "root"
    flags = (
        *("--sink", "parquet", "--parquet.path", str(root), "--dlq.path", str(tmp_path / "dead")),
        *("-b", broker.bootstrap, "-t", topic, "-g", f"{topic}-python", "--batch.max-rows", str(BATCH)),
        *("--transform.python", "hooks:european"),
        # Each record that fails is found by halving: some 18 attempts in a batch of the long form, which has 100.
        *("--dlq.max-bisect", "5000"),
    )
    run_through_kills(*flags, kills=KILLS, directory=tmp_path)

    tables = [pq.ParquetFile(file).read() for file in sorted(root.rglob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert {tuple(row) for row in rows} == {("id", "amount", "port", "position", "_partition", "_offset", "_timestamp")}
    good = [number for number, kind in enumerate(KINDS) if kind == "row"]
    assert sorted(row["id"] for row in rows) == good
    assert all(row["port"] == row["id"] % 60_000 and row["position"] == row["_offset"] for row in rows)
    assert letters_in(tmp_path / "dead", "partition", "offset", "reason") == expected_letters()
    check_verified(flags, tmp_path)
    shown = run("check", *flags, "--json", directory=tmp_path)
    assert shown.facts["filtered"] > 0
