"""Dead letters of a real pipeline in a real topic: counted, loaded again, sent back, purged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import pytest
from confluent_kafka import Producer

from batcher.dead_letters.kafka import KafkaDeadLetterQueue
from batcher.records import DeadLetter, Headers, Partition, Record
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.processes import Ending, run

pytestmark = pytest.mark.broker

PARTITIONS = 2
TOO_WIDE = 12
UNREADABLE = 5


def batcher(*argv: str) -> Ending:
    """Run a command line with `--json`."""
    return run(*argv, "--json")


def fill(broker: Broker, topic: str) -> set[tuple[int, int]]:
    """Fill a topic with numbers; return partition and offset of those that are too wide for a UInt8."""
    wide = set()
    for number in range(PARTITIONS):
        values = [f'{{"id": {offset}, "n": {offset % 200}}}' for offset in range(400)]
        for offset in range(0, 400, 400 // TOO_WIDE)[:TOO_WIDE]:
            values[offset] = f'{{"id": {offset}, "n": 300}}'
            wide.add((number, offset))
        for offset in range(1, 1 + 10 * UNREADABLE, 10):
            values[offset] = '{"id": '
        broker.produce(topic, values, partition=number)
    return wide


@pytest.mark.timeout(240)
def test_what_a_wider_column_takes_is_loaded_once_and_the_rest_stays_where_it_is(
    broker: Broker,
    new_topic: Callable[..., str],
    new_group: Callable[[], str],
    clickhouse_server: ClickHouseServer,
    new_table: Callable[[], str],
) -> None:
    topic, letters, table = new_topic(PARTITIONS), new_topic(3), new_table()
    wide = fill(broker, topic)
    clickhouse_server.query(
        f"CREATE TABLE {table} (id UInt64, n UInt8, _topic LowCardinality(String), _partition Int32, _offset Int64) "
        "ENGINE = MergeTree ORDER BY id"
    )
    group = ("-b", broker.bootstrap, "-g", new_group(), "--dlq.topic", letters)
    target = ("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", table)
    loaded = batcher(*group, *target, "-t", topic, "--until-eof")
    bad = PARTITIONS * UNREADABLE
    assert loaded.lines[-1]["dead_lettered"] == len(wide) + bad, loaded.stderr
    # What somebody else put into the topic is no letter.
    broker.produce(letters, [b"a note"])

    counts = batcher("dlq", "stats", *group[:2], *group[4:])
    assert counts.code == 0
    assert "1 records that are no dead letters" in counts.stderr
    assert {(row["topic"], row["reason"], row["letters"], row["records"]) for row in counts.lines} == {
        (topic, "syntax", bad, bad),
        (topic, "overflow", len(wide), len(wide)),
    }

    def replayed(*more: str) -> Ending:
        return batcher("dlq", "replay", *group, *target, *more)

    # The column is as narrow as it was: nothing is loaded, and nothing is dead-lettered a second time.
    before = broker.ends(letters)
    assert replayed().lines[-1]["failed_again"] == {"overflow": len(wide), "syntax": bad}
    assert broker.ends(letters) == before

    clickhouse_server.query(f"ALTER TABLE {table} MODIFY COLUMN n UInt16")
    dry = replayed("--dry-run")
    assert (dry.code, dry.lines[-1]["replayed"]) == (1, len(wide))
    first = replayed("--batch.max-rows", "7")
    facts = first.lines[-1]
    assert (first.code, facts["replayed"], facts["already_there"]) == (1, len(wide), 0), first.stderr
    assert facts["failed_again"] == {"syntax": bad}
    rows = clickhouse_server.query(f"SELECT _partition, _offset FROM {table} WHERE n = 300")
    assert sorted((int(number), int(offset)) for number, offset in rows) == sorted(wide)

    second = replayed("--where", "reason=overflow")
    facts = second.lines[-1]
    assert (second.code, facts["replayed"], facts["already_there"]) == (0, 0, len(wide))
    assert "existing_rows" not in second.stderr
    total, unique = clickhouse_server.query(f"SELECT count(), uniqExact(_partition, _offset) FROM {table}")[0]
    assert int(total) == int(unique) == PARTITIONS * 400 - bad
    assert broker.ends(letters) == before


# Times as old as these are what retention takes away: the topics of the tests below have none.


def letter(topic: str, offset: int, value: bytes = b"v", *, headers: Headers = ((("h", b"1")),)) -> DeadLetter:
    record = Record(Partition(topic, 1), offset, 1_700_000_000_000 + offset, b"k", value, headers)
    return DeadLetter(record, "sink", "overflow", "does not fit")


def put_aside(broker: Broker, topic: str, letters: Sequence[DeadLetter]) -> None:
    queue = KafkaDeadLetterQueue(broker.bootstrap, topic, {}, "loaders")
    queue.open()
    queue.send(letters)
    queue.close()


def test_a_record_that_is_sent_back_is_the_original_and_counts_its_attempts(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    topic, letters = new_topic(2, retention_ms="-1"), new_topic(max_message_bytes="20000", retention_ms="-1")
    tried = (("batcher.attempts", b"1"), ("h", b"1"))
    worn_out = (("batcher.attempts", b"3"),)
    put_aside(
        broker,
        letters,
        [letter(topic, 5), letter(topic, 6, headers=tried), letter(topic, 7, headers=worn_out), letter(topic, 5)],
    )
    put_aside(broker, letters, [letter(topic, 8, b"x" * 30_000)])
    argv = ("dlq", "replay", "--to", "topic", "-b", broker.bootstrap, "--dlq.topic", letters)
    assert batcher(*argv, "--dry-run").lines[-1]["replayed"] == 2
    assert sum(broker.ends(topic).values()) == 0

    done = batcher(*argv)
    facts = done.lines[-1]
    assert (done.code, facts["replayed"], facts["failed_again"]) == (1, 2, {})
    assert facts["skipped"] == {"attempts": 1, "not_whole": 1}
    first, second = broker.records(topic)
    assert (first.partition(), first.key(), first.value(), first.timestamp()[1]) == (1, b"k", b"v", 1_700_000_000_005)
    assert first.headers() == [("h", b"1"), ("batcher.attempts", b"1")]
    assert second.headers() == [("h", b"1"), ("batcher.attempts", b"2")]
    assert batcher(*argv, "--max-attempts", "9").lines[-1]["replayed"] == 3


def test_a_record_whose_topic_is_gone_failed_again(broker: Broker, new_topic: Callable[..., str]) -> None:
    letters = new_topic(retention_ms="-1")
    put_aside(broker, letters, [letter("no-such-topic-any-more", 5)])
    # Unless told otherwise, librdkafka takes an unknown topic for one that is being made, for half a minute.
    soon = ("-X", "topic.metadata.propagation.max.ms=500")
    done = batcher("dlq", "replay", "--to", "topic", "-b", broker.bootstrap, "--dlq.topic", letters, *soon)
    assert (done.code, done.lines[-1]["replayed"]) == (1, 0)
    assert [failure["id"] for failure in done.lines[-1]["failed"]] == ["no-such-topic-any-more:1:5"]


def test_old_letters_are_purged_up_to_the_first_newer_one(broker: Broker, new_topic: Callable[..., str]) -> None:
    letters = new_topic(retention_ms="-1")
    put_aside(broker, letters, [letter("t", offset) for offset in range(5)])
    between = letter_time(broker, letters) + timedelta(milliseconds=1)
    put_aside(broker, letters, [letter("t", offset) for offset in range(5, 8)])
    argv = ("dlq", "purge", "-b", broker.bootstrap, "--dlq.topic", letters, "--before", between.isoformat())
    plan = batcher(*argv)
    assert (plan.code, [(row["letters"], row["purged"]) for row in plan.lines]) == (2, [(5, False)])
    listed = ("dlq", "ls", "-b", broker.bootstrap, "--dlq.topic", letters)
    assert len(batcher(*listed).lines) == 8
    assert batcher(*argv, "--yes").lines == [
        {"place": f"{letters}[0]", "letters": 5, "purged": True, "before_offset": 5}
    ]
    assert [row["offset"] for row in batcher(*listed).lines] == [5, 6, 7]


def test_a_topic_that_was_named_by_mistake_is_neither_listed_nor_purged(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    events = new_topic(retention_ms="-1")
    broker.produce(events, ['{"id": 1}', '{"id": 2}'], partition=0)
    place = ("-b", broker.bootstrap, "--dlq.topic", events)
    for command in (("ls",), ("stats",), ("purge", "--before", "2100-01-01", "--yes")):
        done = batcher("dlq", *command, *place)
        assert (done.code, done.lines) == (78, [])
        assert f"--dlq.topic {events}: 2 records, and not one dead letter" in done.stderr
    assert len(list(broker.records(events))) == 2


def letter_time(broker: Broker, topic: str) -> datetime:
    last = max(broker.records(topic), key=lambda message: message.offset() or 0)
    failed_at = dict(last.headers() or [])["batcher.failed_at"]
    assert isinstance(failed_at, bytes)
    return datetime.fromisoformat(failed_at.decode())


def test_a_topic_without_letters_and_one_that_is_not_there(broker: Broker, new_topic: Callable[..., str]) -> None:
    empty = batcher("dlq", "ls", "-b", broker.bootstrap, "--dlq.topic", new_topic(3))
    assert (empty.code, empty.lines) == (0, [])
    missing = batcher("dlq", "ls", "-b", broker.bootstrap, "--dlq.topic", "no-such-dead-letter-topic")
    assert (missing.code, missing.lines) == (78, [])
    assert "no-such-dead-letter-topic" in missing.stderr


def test_a_topic_that_ends_with_the_marker_of_a_transaction_is_read_to_its_end(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    letters = new_topic(2, retention_ms="-1")
    put_aside(broker, letters, [letter("t", offset) for offset in range(3)])
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": letters, "log_level": 3})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(2):
        producer.produce(letters, b"a note", partition=number)
    producer.commit_transaction(30)
    done = batcher("dlq", "ls", "-b", broker.bootstrap, "--dlq.topic", letters)
    assert (done.code, sorted(row["offset"] for row in done.lines)) == (0, [0, 1, 2]), done.stderr
    assert "2 records that are no dead letters" in done.stderr
