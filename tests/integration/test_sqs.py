"""SQS through the whole pipeline, against a real server that is strict about receipts."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from batcher import FlushPolicy, Pipeline, RetryPolicy
from batcher.embedded.elasticmq import ElasticMQ
from batcher.errors import BatcherError, ConfigurationError, SinkUnavailable, Unreachable
from batcher.protocols.publisher import Outgoing
from batcher.records import Block
from batcher.sources.receipts.gateway import QueueInfo
from batcher.sources.receipts.source import ReceiptSource
from batcher.sources.sqs.gateway import SqsGateway
from batcher.sources.sqs.publisher import SqsPublisher
from batcher.sources.sqs.settings import Sqs
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.contract.receipts import Reader, bodies
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.listener import RecordingListener
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sqs import SqsQueue
from tests.harness.kills import letters_in
from tests.harness.patience import LONG, wait_for
from tests.harness.processes import BatcherProcess, run

Queues = Callable[..., SqsQueue]

COUNT = 3000 if LONG else 300
KILLS = 24

WITH_NAMES = "id UInt64, _message_id String, _timestamp DateTime64(3, 'UTC')"
WITHOUT_NAMES = "id UInt64"


def orders(first: int, count: int) -> list[str]:
    return [json.dumps({"id": number}) for number in range(first, first + count)]


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ds.dataset(sorted(path.rglob("*.parquet"))).to_table().to_pylist()
    return found


def to_parquet(tmp_path: Path) -> tuple[str, ...]:
    out, letters = str(tmp_path / "out"), str(tmp_path / "dead")
    return ("--sink", "parquet", "--parquet.path", out, "--dlq.path", letters)


def to_table(server: ClickHouseServer, table: str) -> tuple[str, ...]:
    return ("--sink", "clickhouse", "--clickhouse.dsn", server.dsn, "--clickhouse.table", table)


def made(server: ClickHouseServer, table: str, columns: str) -> str:
    server.query(
        f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    return table


def copies(server: ClickHouseServer, table: str) -> Counter[int]:
    return Counter(
        {int(id_): int(count) for id_, count in server.query(f"SELECT id, count() FROM {table} GROUP BY id")}
    )


def test_a_queue_is_loaded_into_files_and_what_cannot_be_read_is_a_dead_letter(
    new_queue: Queues, tmp_path: Path
) -> None:
    queue = new_queue(max_receives=5)
    queue.send(orders(0, COUNT))
    queue.send(["no json"] * 3)
    queue.send(
        [json.dumps({"id": COUNT})],
        MessageAttributes={"trace": {"DataType": "String", "StringValue": "abc"}},
        MessageGroupId="customer-7",
    )
    words = "key,headers,message_id,attempt"
    done = run(*queue.flags, *to_parquet(tmp_path), "--parquet.coordinates", words, "--until-eof", "--json")
    assert done.code == 0, done.stderr
    rows = parquet_rows(tmp_path / "out")

    assert sorted(row["id"] for row in rows) == list(range(COUNT + 1))
    assert len({row["_message_id"] for row in rows}) == COUNT + 1
    assert {row["_attempt"] for row in rows} == {1}
    [special] = [row for row in rows if row["_key"] is not None]
    assert (special["id"], special["_key"]) == (COUNT, b"customer-7")
    assert special["_headers"] == [{"key": "trace", "value": b"abc"}]
    assert len(letters_in(tmp_path / "dead", "topic", "offset")) == 3
    assert queue.depth == 0
    assert (done.facts["written"], done.facts["dead_lettered"], done.facts["delivery"]) == (
        COUNT + 1,
        3,
        "at-least-once",
    )
    [started] = [one for one in map(json.loads, done.stderr.splitlines()) if one["event"] == "pipeline_started"]
    assert "a queue with receipts" in started["reason"]


def test_a_stop_gives_back_at_once_what_was_not_written(new_queue: Queues, tmp_path: Path) -> None:
    queue = new_queue(visibility_s=600)
    queue.send(orders(0, 200))
    # The target is never there, and so everything is still held at the end.
    (tmp_path / "stuck.py").write_text(
        "from batcher import SinkInfo\nfrom batcher.errors import SinkUnavailable\nimport pyarrow as pa\n"
        "class Stuck:\n"
        "    def __init__(self, options): pass\n"
        "    def open(self): return SinkInfo('stuck', pa.schema([pa.field('id', pa.int64())]))\n"
        "    def write(self, block): raise SinkUnavailable('away')\n"
        "    def close(self): pass\n"
    )
    flags = ("--sink", "stuck:Stuck", "--sqs.visibility", "600s", "--sqs.wait", "1s", "--stop-timeout", "6s")
    with BatcherProcess(*queue.flags, *flags, directory=tmp_path) as process:
        process.wait_for("sink_unavailable")
        wait_for(lambda: queue.invisible == 200, "everything is held")
        process.signal(signal.SIGTERM)
        assert process.wait() == 75

    assert (queue.visible, queue.invisible) == (200, 0)


@pytest.mark.parametrize("heartbeat", [True, False])
def test_messages_that_are_held_longer_than_their_lease_come_again_only_without_a_heartbeat(
    new_queue: Queues, *, heartbeat: bool
) -> None:
    queue = new_queue()
    queue.send([str(number) for number in range(40)])
    options = Sqs.model_validate(
        {"queue": queue.name, "endpoint": queue.server.endpoint, "visibility": "1s", "wait": "0s"}
    )
    gateway = SqsGateway(options) if heartbeat else Forgetful(options)
    sink = ScriptedSink(NUMBERS)
    back_at = time.monotonic() + 3.0

    def away(_: Block) -> None:
        if time.monotonic() < back_at:
            raise SinkUnavailable("away")

    sink.before = away
    summary = Pipeline(
        ReceiptSource(gateway, until_eof=True),
        sink,
        NumberFormat(),
        name="loaders",
        flush=FlushPolicy(max_wait_s=0.2),
        retry=RetryPolicy(wait_s=0.1, max_wait_s=0.1),
    ).run()

    assert {row["n"] for row in sink.rows()} == set(range(40))
    assert (summary.written == 40) is heartbeat
    assert queue.depth == 0


class Forgetful(SqsGateway):
    """Say nothing of the lease, so that nobody extends it."""

    def open(self) -> QueueInfo:
        info = super().open()
        return QueueInfo(info.name, None, info.max_held)


@pytest.mark.parametrize(
    ("columns", "suppressed"), [(WITH_NAMES, True), pytest.param(WITHOUT_NAMES, False, marks=pytest.mark.long)]
)
def test_a_message_whose_deletion_was_lost_is_recognised_where_the_table_has_its_name(
    new_queue: Queues,
    clickhouse_server: ClickHouseServer,
    new_table: Callable[[], str],
    *,
    columns: str,
    suppressed: bool,
) -> None:
    table, queue = made(clickhouse_server, new_table(), columns), new_queue()
    queue.send(orders(0, 50))
    flags = (*queue.flags, *to_table(clickhouse_server, table), "--sqs.visibility", "3s", "--until-eof")
    with BatcherProcess(
        *flags, environment={"CRASH_AT": "before_commit"}, module="tests.harness.crash_points"
    ) as process:
        assert process.wait() == -signal.SIGKILL, process.stderr
    written = sum(copies(clickhouse_server, table).values())
    assert written > 0
    assert queue.depth == 50
    done = run(*flags, "--json")
    assert done.code == 0, done.stderr
    found = copies(clickhouse_server, table)

    assert set(found) == set(range(50))
    assert sum(found.values()) == (50 if suppressed else 50 + written)
    assert done.facts["duplicates_suppressed"] == (written if suppressed else 0)
    assert ("recognised by _message_id" in done.stderr) is suppressed
    assert queue.depth == 0


class Table:
    """A table with the names of messages, or without."""

    def __init__(self, server: ClickHouseServer, name: str, columns: str) -> None:
        self.server, self.name = server, made(server, name, columns)
        self.knows_names = columns == WITH_NAMES
        self.flags = to_table(server, name)

    def copies(self) -> Counter[int]:
        return copies(self.server, self.name)


class Files:
    """A directory of Parquet files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flags = to_parquet(path)

    def copies(self) -> Counter[int]:
        return Counter(row["id"] for row in parquet_rows(self.path / "out"))


@pytest.fixture(params=["table with names", "table without", "files"])
def target(
    request: pytest.FixtureRequest,
    clickhouse_server: ClickHouseServer,
    new_table: Callable[[], str],
    tmp_path: Path,
) -> Table | Files:
    columns = {"table with names": WITH_NAMES, "table without": WITHOUT_NAMES}.get(request.param)
    return Files(tmp_path) if columns is None else Table(clickhouse_server, new_table(), columns)


@pytest.mark.crash
@pytest.mark.long
@pytest.mark.timeout(900)
def test_kills_at_any_moment_lose_nothing_and_a_table_with_names_has_every_message_once(
    new_queue: Queues, target: Table | Files, request: pytest.FixtureRequest
) -> None:
    knows_names = isinstance(target, Table) and target.knows_names
    queue, chance, sent = new_queue(), random.Random("sqs"), 0
    flags = (
        *(*queue.flags, *target.flags, "--sqs.visibility", "3s", "--sqs.max-in-flight", "100", "--sqs.wait", "1s"),
        *("--batch.max-rows", "40", "--batch.max-wait", "200ms"),
    )
    points = ("before_commit", "after_write", "mid_write", "", "before_write", "after_commit")
    for kill in range(KILLS):
        queue.send(orders(sent, 150))
        sent += 150
        point = points[kill % len(points)]
        environment = {"CRASH_AT": f"{point}:{chance.randint(1, 3)}"} if point else {}
        with BatcherProcess(*flags, environment=environment, module="tests.harness.crash_points") as process:
            process.wait_for("crash_point" if point else "batch_written")
            if not point:
                time.sleep(chance.uniform(0.0, 0.2))
            process.kill()
    done = run(*flags, "--until-eof", "--json")
    assert done.code == 0, done.stderr
    found = target.copies()
    # Shown with -rP.
    request.node.add_report_section("call", "score", f"{KILLS} kills, {sent} messages, {found.total()} rows")

    assert set(found) == set(range(sent)), "nothing is lost"
    assert (found.total() == sent) is knows_names, f"{found.total()} rows of {sent} messages"
    assert queue.depth == 0


def reader_of(queue: SqsQueue) -> Reader:
    options = Sqs.model_validate({"queue": queue.url, "wait": "0s"})
    return Reader(ReceiptSource(SqsGateway(options)), time.monotonic)


def test_the_order_of_a_group_is_kept_and_its_key_is_the_group(new_queue: Queues) -> None:
    queue = new_queue(ordered=True)
    publisher = SqsPublisher(Sqs(queue=queue.name, endpoint=queue.server.endpoint), create=False)
    events = [Outgoing(b"%d" % n, key=b"g%d" % (n % 3)) for n in range(60)]
    for start in range(0, 60, publisher.batch):
        assert publisher.publish(events[start : start + publisher.batch], 10.0) == []
    publisher.close()
    reader, found = reader_of(queue), dict[bytes, list[int]]()
    try:
        while sum(map(len, found.values())) < 60:
            for run_ in reader.read(1):
                for key, value in zip(run_.keys.to_pylist(), run_.values.to_pylist(), strict=True):
                    found.setdefault(key, []).append(int(value))
                # Nothing more of a group comes while a message of it is held.
                reader.commit(run_.next_offset)
    finally:
        reader.source.close()

    assert found == {b"g%d" % group: list(range(group, 60, 3)) for group in range(3)}


def test_the_dead_letter_queue_of_a_queue_is_drained_like_any_other(new_queue: Queues) -> None:
    queue = new_queue(visibility_s=0, max_receives=1)
    assert queue.dead is not None
    queue.send(orders(0, 5))
    wait_for(lambda: queue.receive() == [], "the queue moves what was not deleted")
    reader = reader_of(queue.dead)
    runs = reader.read(5)
    reader.commit(runs[-1].next_offset)
    reader.source.close()

    assert bodies(runs) == [body.encode() for body in orders(0, 5)]
    assert (queue.depth, queue.dead.depth) == (0, 0)


@pytest.mark.long
def test_two_workers_share_a_queue_under_numbers_of_their_own(new_queue: Queues, tmp_path: Path) -> None:
    queue = new_queue()
    queue.send(orders(0, 400))
    flags = ("--workers", "2", "--sqs.max-in-flight", "50", "--batch.max-rows", "50", "--until-eof", "--json")
    done = run(*queue.flags, *to_parquet(tmp_path), *flags)
    assert done.code == 0, done.stderr
    rows = parquet_rows(tmp_path / "out")

    assert sorted(row["id"] for row in rows) == list(range(400))
    # The first may have taken all before the second began.
    assert {row["_partition"] for row in rows} <= {0, 1}
    assert len({(row["_partition"], row["_offset"]) for row in rows}) == 400
    assert done.facts["written"] == 400


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"queue": "nobody"}, ConfigurationError, "QueueDoesNotExist: The specified queue does not exist; make the"),
        ({"visibility": "2s"}, ConfigurationError, "--sqs.visibility 2s is shorter than a batch can take"),
        ({"endpoint": "http://127.0.0.1:1"}, Unreachable, "q at http://127.0.0.1:1 does not answer: Could not connect"),
        ({"queue": "http://127.0.0.1:1/0/q"}, Unreachable, "q at http://127.0.0.1:1 does not answer"),
    ],
)
def test_what_cannot_work_is_one_clear_line(
    elasticmq: ElasticMQ, given: dict[str, str], kind: type[BatcherError], said: str
) -> None:
    own = {} if given.get("queue", "").startswith("http") else {"endpoint": elasticmq.endpoint}
    options = Sqs.model_validate({"queue": "q", **own, **given})
    source = ReceiptSource(SqsGateway(options, max_wait_s=1.0))
    with pytest.raises(kind) as caught:
        source.open(RecordingListener())
    source.close()

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_keys_the_start_ends_with_78_and_says_so(
    elasticmq: ElasticMQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    done = run(
        *("--source", "sqs", "--sqs.queue", "q", "--sqs.endpoint", elasticmq.endpoint),
        *to_parquet(tmp_path),
        environment={**nowhere, "AWS_CONFIG_FILE": str(tmp_path / "none")},
    )

    assert done.code == 78
    assert "Unable to locate credentials" in done.stderr


def test_a_publisher_makes_the_queue_and_says_what_it_cannot_send(elasticmq: ElasticMQ, new_queue: Queues) -> None:
    name = new_queue().name + "-made"
    publisher = SqsPublisher(Sqs(queue=name, endpoint=elasticmq.endpoint), create=True)
    messages = [
        Outgoing(b"good", b"k", (("h", b"text"), ("raw", b"\xff"))),
        Outgoing(b"\xff"),
        Outgoing(b""),
        Outgoing(b"urgent", priority=1),
        Outgoing(b"late", delay_s=901.0),
        Outgoing(b"soon", delay_s=0.2),
    ]
    refused = publisher.publish(messages, 10.0)
    publisher.close()
    queue = SqsQueue(elasticmq, name=name)
    received = wait_for(queue.receive, "a message")
    queue.close()

    assert refused == [
        "SQS takes text only, and this is not UTF-8",
        "SQS takes no empty message",
        "SQS knows no priorities",
        "SQS delays a message by 900 s at most",
    ]
    assert received[0]["Body"] == "good"
    assert received[0]["MessageAttributes"]["raw"]["BinaryValue"] == b"\xff"
    assert received[0]["Attributes"]["MessageGroupId"] == "k"


def test_a_table_is_asked_for_many_names_with_any_letters_in_them(
    clickhouse_server: ClickHouseServer, new_table: Callable[[], str]
) -> None:
    from sinks.clickhouse import plugin

    table = made(clickhouse_server, new_table(), WITH_NAMES)
    odd = ["it's", "back\\slash", "tab\t", "ünï", "{x:String}", "?", "%s"]
    names = odd + [f"{number:036}" for number in range(6000)]
    for name in odd:
        text = name.replace("\\", "\\\\").replace("'", "\\'")
        clickhouse_server.query(f"INSERT INTO {table} VALUES (1, '{text}', 1000)")
    clickhouse_server.query(
        f"INSERT INTO {table} SELECT number, leftPad(toString(number), 36, '0'), 1000 FROM numbers(3000)"
    )
    sink: Any = plugin({"dsn": clickhouse_server.dsn, "table": table})
    try:
        assert "messages" in sink.open().capabilities
        found = sink.stored(pa.array(names), (1_000_000, 1_000_000))
        elsewhere = sink.stored(pa.array(names), (2_000_000, 3_000_000))
    finally:
        sink.close()

    assert sorted(found.to_pylist()) == sorted(names[: len(odd) + 3000])
    assert elsewhere.to_pylist() == [], "at another time there are none"


@pytest.mark.parametrize(
    "columns",
    [WITH_NAMES, f"{WITH_NAMES}, _topic String, _partition Int32, _offset Int64"],
    ids=["names", "names and coordinates"],
)
def test_an_insert_whose_answer_was_lost_leaves_one_row_of_each_message(
    new_queue: Queues, clickhouse_server: ClickHouseServer, new_table: Callable[[], str], columns: str
) -> None:
    table, queue = new_table(), new_queue()
    clickhouse_server.query(
        f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 0"
    )
    queue.send(orders(0, 40))
    clickhouse_server.inject("reset_after_apply")
    flags = (*queue.flags, *to_table(clickhouse_server, table), "--retry.wait", "50ms", "--until-eof", "--json")
    done = run(*flags)
    assert done.code == 0, done.stderr

    assert set(copies(clickhouse_server, table).values()) == {1}
    assert copies(clickhouse_server, table).total() == 40
    assert "sink_unavailable" in done.stderr
