"""A table that is altered under a running process: no value is bent and no new column stays empty."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

COORDINATES: Final = "_topic LowCardinality(String), _partition Int32, _offset Int64"


class Live:
    """Own a topic, a table and a process that loads the one into the other."""

    def __init__(self, broker: Broker, server: ClickHouseServer, topic: str, table: str, letters: Path) -> None:
        self.broker, self.server, self.topic, self.table, self.letters = broker, server, topic, table, letters
        server.query(
            f"CREATE TABLE {table} (id UInt32, n UInt16, {COORDINATES}) ENGINE = MergeTree ORDER BY id "
            "SETTINGS non_replicated_deduplication_window = 1000"
        )
        self.process = BatcherProcess(
            *("--sink", "clickhouse", "--clickhouse.dsn", server.dsn, "--clickhouse.table", table),
            *("-b", broker.bootstrap, "-t", topic, "-g", f"{topic}-loader", "--dlq.path", str(letters)),
            *("--batch.max-wait", "100ms", "--json"),
        )

    def send(self, *documents: dict[str, Any]) -> None:
        self.broker.produce(self.topic, [json.dumps(document) for document in documents])

    def alter(self, what: str) -> None:
        self.server.query(f"ALTER TABLE {self.table} {what}")

    def loaded(self, what: str, rows: int) -> list[Any]:
        counted = f"SELECT count() FROM {self.table}"
        wait_for(lambda: int(self.server.query(counted)[0][0]) >= rows, f"{rows} rows")
        return [row[0] for row in self.server.query(f"SELECT {what} FROM {self.table} ORDER BY _offset")]


@pytest.fixture
def live(
    broker: Broker,
    clickhouse_server: ClickHouseServer,
    new_topic: Callable[..., str],
    new_table: Callable[[], str],
    tmp_path: Path,
) -> Iterator[Live]:
    made = Live(broker, clickhouse_server, new_topic(), new_table(), tmp_path / "dead")
    with made.process:
        yield made


def test_a_new_column_is_filled_without_a_restart(live: Live) -> None:
    live.send({"id": 1, "n": 1, "city": "Rome"})
    live.loaded("id", 1)
    live.alter("ADD COLUMN city String")
    live.send({"id": 2, "n": 2, "city": "Oslo"}, {"id": 3, "n": 3, "city": "Bonn"})
    assert live.loaded("city", 3) == ["", "Oslo", "Bonn"]
    live.process.signal(signal.SIGTERM)
    assert live.process.wait() == 0
    assert live.process.summary["unknown_fields"] == {"city": 1}


def test_a_narrower_column_gets_what_fits_and_never_a_bent_value(live: Live) -> None:
    live.send({"id": 1, "n": 300})
    assert live.loaded("n", 1) == [300]
    live.server.query(f"ALTER TABLE {live.table} DELETE WHERE 1 SETTINGS mutations_sync = 2")
    live.alter("MODIFY COLUMN n UInt8")
    live.send({"id": 2, "n": 300}, {"id": 3, "n": 7}, {"id": 4, "n": 8})
    assert live.loaded("n", 2) == [7, 8]
    live.process.wait_for("records_refused")
    live.process.signal(signal.SIGTERM)
    assert live.process.wait() == 0
    assert live.process.summary["dead_letter_reasons"] == {"overflow": 1}
