"""Twenty kinds of bad records among good ones: each is found, the mendable ones are loaded later, and it all adds up.

`BATCHER_TEST_LONG=1` loads half a million records instead of twenty thousand; one in five hundred is bad.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from batcher.records import Partition
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.patience import LONG
from tests.harness.processes import BatcherProcess, run
from tests.harness.targets import ParquetDirectory

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

RECORDS = 500_000 if LONG else 20_000
EVERY = 500
PARTITIONS = 2

TABLE = """
CREATE TABLE {name} (
    id UInt64, ts DateTime64(3, 'UTC'), amount Decimal(10, 2), n UInt8, status Enum8('new' = 1, 'paid' = 2),
    code FixedString(3), day Date, note String, extra Nullable(String),
    _topic LowCardinality(String), _partition Int32, _offset Int64,
    CONSTRAINT positive CHECK amount >= 0
) ENGINE = MergeTree ORDER BY (_topic, _partition, _offset) SETTINGS non_replicated_deduplication_window = 10000
"""

MENDED = {"violated_constraint", "overflow", "enum"}
"""What loads after the table was altered."""

SERVER_ONLY = {"violated_constraint", "enum", "length", "range"}
"""What only the table minds: files have no such types."""

FLAGS = (
    *("--decode.max-message-bytes", "1KiB", "--decode.on-unknown", "reject", "--decode.tombstones", "reject"),
    *("--batch.max-rows", "10000" if LONG else "4000"),
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.uint64(), nullable=False),
        pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("amount", pa.decimal128(10, 2), nullable=False),
        pa.field("n", pa.uint8(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("day", pa.string(), nullable=False),
        pa.field("note", pa.string(), nullable=False),
        pa.field("extra", pa.string()),
    ]
)


def good(number: int, **changes: object) -> bytes:
    record = {
        "id": number,
        "ts": "2026-01-31T12:00:00.250Z",
        "amount": number % 1000 / 4,
        "n": number % 256,
        "status": "paid" if number % 3 else "new",
        "code": "abc",
        "day": "2026-01-31",
        "note": "as it should be",
        **changes,
    }
    return json.dumps({name: value for name, value in record.items() if value is not ...}).encode()


BAD: Mapping[str, Callable[[int], bytes | None]] = {
    "empty": lambda _: b"",
    "syntax": lambda i: good(i)[:-9],
    "trailing_data": lambda i: good(i) + b"{}",
    "not_object": lambda _: b"[1]",
    "encoding": lambda i: good(i).replace(b"should", b"sh\xffuld"),
    "too_large": lambda i: good(i, note="x" * 1100),
    "too_deep": lambda i: good(i).replace(b'"as it should be"', b"[" * 70 + b"]" * 70),
    "precision": lambda i: good(i, amount=0.125),
    "overflow": lambda i: good(i, n=300),
    "null": lambda i: good(i, id=None),
    "missing": lambda i: good(i, code=...),
    "duplicate": lambda i: good(i).replace(b'{"id"', b'{"id": 1, "id"'),
    "unknown_field": lambda i: good(i, surprise=1),
    "type": lambda i: good(i, id="one"),
    "timestamp": lambda i: good(i, ts="yesterday"),
    "enum": lambda i: good(i, status="lost"),
    "length": lambda i: good(i, code="abcd"),
    "range": lambda i: good(i, day="1800-01-01"),
    "violated_constraint": lambda i: good(i, amount=-1),
    "tombstone": lambda _: None,
}


class Job(NamedTuple):
    """Hold a topic with all of them, and what runs on it."""

    broker: Broker
    topic: str
    group: str
    letters: Path
    kinds: Mapping[str, int]

    @property
    def flags(self) -> tuple[str, ...]:
        source = ("-b", self.broker.bootstrap, "-t", self.topic, "-g", self.group)
        return (*source, "--dlq.path", str(self.letters), *FLAGS)


@pytest.fixture
def job(broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path) -> Job:
    topic = new_topic(PARTITIONS)
    kinds: Counter[str] = Counter()
    names = list(BAD)
    for partition in range(PARTITIONS):
        values = []
        for number in range(partition, RECORDS, PARTITIONS):
            bad = number // 2 % (EVERY // 2) == 0 and partition == 0
            kind = names[sum(kinds.values()) % len(names)] if bad else "good"
            kinds[kind] += bad
            values.append(BAD[kind](number) if bad else good(number))
        broker.produce(topic, values, partition=partition)
    return Job(broker, topic, new_group(), tmp_path / "dead", {kind: count for kind, count in kinds.items() if count})


def batcher(*arguments: str, code: int = 0) -> Mapping[str, Any]:
    """Run a verb with --json and return what its last line says."""
    done = run(*arguments, "--json", timeout_s=600)
    assert done.code == code, done.stderr[-3000:] + done.stdout[-2000:]
    return done.facts if done.stdout else {}


def reasons(job: Job) -> Mapping[str, int]:
    done = run("dlq", "stats", "--dlq.path", str(job.letters), "--json")
    assert done.code == 0, done.stderr
    return {row["reason"]: row["records"] for row in done.lines}


def offsets(kept: Mapping[str, Any], holes: Sequence[int] = ()) -> set[int]:
    """Return the offsets of the runs that a report names, less those that the log or the target has no record at."""
    found = {offset for first, last, *_ in kept["first_ranges"] for offset in range(first, last + 1)}
    return found - set(holes)


def test_in_a_table_every_kind_is_found_and_the_mended_ones_load_and_what_is_lost_by_hand_is_named_and_repaired(
    job: Job, clickhouse_server: ClickHouseServer, new_table: Callable[[], str]
) -> None:
    name, query = new_table(), clickhouse_server.query
    query(TABLE.format(name=name))
    target = ("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", name)

    def count(what: str = "count()") -> int:
        return int(query(f"SELECT {what} FROM {name}")[0][0])

    with BatcherProcess(*target, *job.flags, "--until-eof") as running:
        assert running.wait(600.0) == 0, running.stderr[-2000:]

    bad = sum(job.kinds.values())
    assert len(job.kinds) == len(BAD)
    assert (running.summary["written"], running.summary["dead_lettered"]) == (RECORDS - bad, bad)
    assert count() == count("uniqExact(_partition, _offset)") == RECORDS - bad
    assert reasons(job) == job.kinds

    query(f"ALTER TABLE {name} DROP CONSTRAINT positive")
    query(f"ALTER TABLE {name} MODIFY COLUMN n UInt16, MODIFY COLUMN status Enum8('new' = 1, 'paid' = 2, 'lost' = 3)")
    mendable = sum(job.kinds[kind] for kind in MENDED)
    replayed = batcher("dlq", "replay", *target, "--dlq.path", str(job.letters), *FLAGS[:6], code=1)
    assert replayed["replayed"] == mendable
    others = {kind: found for kind, found in job.kinds.items() if kind not in MENDED | {"tombstone"}}
    assert replayed["failed_again"] == others
    assert count() == count("uniqExact(_partition, _offset)") == RECORDS - bad + mendable
    assert batcher("verify", *target, *job.flags)["adds_up"]

    deleted = {int(row[0]) for row in query(f"SELECT _offset FROM {name} WHERE _partition = 1 ORDER BY 1 LIMIT 1000")}
    query(f"ALTER TABLE {name} DELETE WHERE _partition = 1 AND _offset <= {max(deleted)} SETTINGS mutations_sync = 2")
    twice = {int(row[0]) for row in query(f"SELECT _offset FROM {name} WHERE _partition = 0 ORDER BY 1 LIMIT 10")}
    query(f"INSERT INTO {name} SELECT * FROM {name} WHERE _partition = 0 AND _offset <= {max(twice)}")
    found = batcher("verify", *target, *job.flags, code=1)
    first, second = found["partitions"]
    assert (first["missing"]["offsets"], second["duplicated"]["offsets"]) == (0, 0)
    assert offsets(second["missing"]) == deleted
    assert offsets(first["duplicated"]) & twice == twice
    assert first["duplicated"]["offsets"] == len(twice)

    assert batcher("repair", *target, *job.flags, code=1)["would_load"] == len(deleted)
    assert batcher("verify", *target, *job.flags, code=1)["missing"] == len(deleted)
    mended = batcher("repair", *target, *job.flags, "--yes", code=1)
    assert (mended["missing"], mended["duplicated"], mended["repaired"]["loaded"]) == (0, len(twice), len(deleted))
    assert batcher("repair", *target, *job.flags, "--yes", "--remove-duplicates")["adds_up"]
    assert count() == count("uniqExact(_partition, _offset)") == RECORDS - bad + mendable


def test_nothing_but_poison_stops_within_the_limit_and_nothing_behind_the_last_good_batch_is_committed(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> None:
    topic, group, letters = new_topic(), new_group(), tmp_path / "dead"
    flags = (
        *(
            "--sink",
            "parquet",
            "--parquet.path",
            str(tmp_path / "out"),
            "-b",
            broker.bootstrap,
            "-t",
            topic,
            "-g",
            group,
        ),
        *("--dlq.path", str(letters), "--batch.max-rows", "2000", "--dlq.max-consecutive", "300"),
    )
    broker.produce(topic, [good(number) for number in range(10_000)])
    broker.produce(topic, [b"{" for _ in range(50_000)])

    with BatcherProcess(*flags, "--until-eof") as running:
        assert running.wait(120.0) == 78

    [failed] = running.named("pipeline_failed")
    assert "301 records in a row" in failed["reason"]
    assert f"most of them for syntax, such as {topic}[0] offset 10000" in failed["reason"]
    assert broker.committed(group, [Partition(topic, 0)])[Partition(topic, 0)].next_offset == 10_000
    assert running.summary["dead_lettered"] == 0


def test_in_files_every_good_record_is_there_once_and_a_file_that_was_removed_is_named_and_repaired(
    job: Job, tmp_path: Path
) -> None:
    schema_file = tmp_path / "schema.arrow"
    with pa.OSFile(str(schema_file), "wb") as sink, pa.ipc.new_file(sink, SCHEMA):
        pass
    root = ParquetDirectory(tmp_path / "out")
    target = (*root.arguments, "--decode.schema", str(schema_file))
    with BatcherProcess(*target, *job.flags, "--until-eof") as running:
        assert running.wait(600.0) == 0, running.stderr[-2000:]

    refused = {kind: found for kind, found in job.kinds.items() if kind not in SERVER_ONLY}
    bad = sum(refused.values())
    assert (running.summary["written"], running.summary["dead_lettered"]) == (RECORDS - bad, bad)
    loaded = root.loaded().coordinates
    assert len(loaded) == len(set(loaded)) == RECORDS - bad
    assert reasons(job) == refused
    assert batcher("verify", *target, *job.flags)["adds_up"]

    gone = sorted((tmp_path / "out").rglob("*+00001+*.parquet"))[1]
    gone.unlink()
    lost = set(loaded) - set(root.loaded().coordinates)
    found = batcher("verify", *target, *job.flags, code=1)
    assert {(Partition(job.topic, 1), offset) for offset in offsets(found["partitions"][1]["missing"])} == lost
    assert batcher("repair", *target, *job.flags, "--yes")["repaired"]["loaded"] == len(lost)
    assert sorted(root.loaded().coordinates) == sorted(loaded)
