"""Documents of everyday shapes lose no value in silence: it is stored, or in a dead letter, or its field is named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from batcher.core.buffer import FlushPolicy
from batcher.engine.pipeline import Pipeline
from batcher.engine.report import Summary
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.protocols import Sink
from batcher.records import Partition
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.sources import MemoryLog, MemorySource
from sinks import load
from tests.harness.documents import SHAPES, documents
from tests.harness.leaves import document_of, named, paths_lacking, rows_of

RECORDS = 3000
BATCH = 1000
"""The first batch ends before anything drifts, and every batch is small enough to have its fields counted whole."""

TABLES = {
    "webhooks": """
        action LowCardinality(String), number UInt32, created_at DateTime('UTC'), body Nullable(String),
        sender Tuple(login String, id UInt64, site_admin Bool), assignee Nullable(String), milestone Nullable(String),
        labels Array(Tuple(name String, color FixedString(6), default Bool)),
        repository Tuple(full_name String, private Bool, size Int64), pull_request Nullable(String)""",
    "audit": """
        _id String, eventTime DateTime64(3, 'UTC'), verb String, level LowCardinality(String),
        user Tuple(name String, groups Array(String)), annotations Map(String, String), sourceIPs Array(IPv4),
        responseStatus String, errorCode Nullable(String), requestObject Nullable(String)""",
    "payments": """
        id String, created DateTime('UTC'), livemode Bool, amount Decimal(18, 2), currency LowCardinality(String),
        customer String, metadata Map(String, String), fee Nullable(String), rate Float64, big UInt64,
        refunds Array(Tuple(id String, amount Int64, reason Nullable(String)))""",
    "changes": """
        before Nullable(String), after Nullable(String), op FixedString(1), ts_ms DateTime64(3, 'UTC'),
        source Tuple(db String, "table" String, lsn UInt64, snapshot String, txId Nullable(Int64)),
        transaction Nullable(String)""",
    "telemetry": """
        device String, at DateTime64(9, 'UTC'), received DateTime64(3, 'UTC'),
        seq UInt32, temperature Float64, tags Map(String, String),
        samples Array(UInt16), matrix Array(Array(Float64)), fault Bool, gps Nullable(String),
        alarms Array(Tuple(code Int64, since DateTime('UTC')))""",
    "catalogue": """
        sku String, name Map(String, String), price Float64, stock UInt32, dimensions String, updated Date,
        attributes Array(Tuple(key String, value Nullable(String))),
        variants Array(Tuple(id String, options String, images Array(String))), related Array(String)""",
    "logs": """
        ts DateTime64(3, 'UTC'), level Enum8('info' = 1, 'warn' = 2, 'error' = 3), msg String, logger String,
        duration_ms Float64, http Nullable(String), error Nullable(String), "trace.id" Nullable(String)""",
}
"""The columns of a table that somebody made for each shape before anything drifted."""


PARTITION = Partition("documents", 0)

NOTED = re.compile(r"column ([^:]+): ")


@dataclass
class Load:
    """Load the documents of one shape and keep what came of them."""

    shape: str
    letters: MemoryDeadLetterQueue = field(default_factory=MemoryDeadLetterQueue)

    def __post_init__(self) -> None:
        self.texts = list(documents(self.shape, RECORDS))
        self.noted: set[str] = set()

    def run(self, sink: Sink, options: JsonOptions) -> Summary:
        """Load everything into a sink."""
        log = MemoryLog([PARTITION])
        log.produce(PARTITION, self.texts)
        pipeline = Pipeline(
            MemorySource(log, until_eof=True),
            sink,
            JsonFormat(options),
            name="documents",
            dead_letters=self.letters,
            flush=FlushPolicy(max_rows=BATCH),
        )
        with capture_logs() as events:
            summary = pipeline.run()
        notes = [NOTED.match(event["note"]) for event in events if "note" in event]
        self.noted = {found[1] for found in notes if found}
        return summary

    def check(self, summary: Summary, stored: Iterable[Mapping[str, Any]]) -> None:
        """Account for every value of every document, with what a reader of the target sees."""
        rows = {row["_offset"]: row for row in stored}
        refused = {letter.record.offset for letter in self.letters.letters}
        assert rows.keys() == set(range(RECORDS)) - refused
        lost: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        for offset, row in rows.items():
            paths = set(paths_lacking(document_of(self.texts[offset]), row))
            unknown.update(name for name in summary.unknown_fields if any(named(path, [name]) for path in paths))
            lost.update(path for path in paths if not named(path, {*summary.unknown_fields, *self.noted}))
        assert not lost
        # Every batch is small enough to be counted whole, and what is named as lost is not stored after all.
        assert (unknown, summary.unknown_fields_estimated) == (Counter(summary.unknown_fields), False)
        assert (summary.written, summary.dead_lettered) == (len(rows), len(refused))


MOST = RECORDS * 0.75
"""Fractions in a column that began as integers are refused, one in three from the 1,200th on; little else may be."""


@pytest.mark.parametrize("shape", SHAPES)
def test_no_value_of_a_document_is_lost_in_parquet_without_its_field_being_named(shape: str, tmp_path: Path) -> None:
    root = tmp_path / "out"
    job = Load(shape)
    summary = job.run(load("parquet")({"path": str(root)}), JsonOptions())

    job.check(summary, (row for file in root.glob("*.parquet") for row in rows_of(pq.read_table(file))))
    assert summary.written > MOST


@pytest.mark.parametrize("shape", SHAPES)
def test_no_value_of_a_document_is_lost_in_clickhouse_without_its_field_being_named(
    shape: str, chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    name = new_table()
    chdb_engine.execute(f"CREATE TABLE {name} ({TABLES[shape]}, _offset Int64) ENGINE = MergeTree ORDER BY _offset")
    job = Load(shape)
    sink = load("clickhouse")({"dsn": chdb_engine.dsn, "table": name})
    summary = job.run(sink, JsonOptions(text=frozenset("*")))

    columns = [column for column, *_ in chdb_engine.rows(f"DESCRIBE {name}")]
    rows = chdb_engine.rows(f"SELECT * FROM {name}")
    job.check(summary, (dict(zip(columns, row, strict=True)) for row in rows))
    assert summary.written > MOST
