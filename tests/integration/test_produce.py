import gzip
import json
import signal
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.embedded.mock_cluster import MockCluster
from batcher.generate.events import EventGenerator
from batcher.testing.kafka import Broker
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess, Ending, run


def produce(*argv: str, stdin: str = "") -> Ending:
    return run("produce", *argv, stdin=stdin)


def test_exactly_the_seeded_events_arrive_with_their_keys_and_their_poison(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("orders", 3)
    argv = ("-b", mock_cluster.bootstrap, "-t", "orders", "--count", "2500", "--seed", "5", "--poison", "0.01")

    done = produce(*argv, "--key", "id", "--json")

    assert done.code == 0, done.stderr
    summary = done.facts
    assert (summary["delivered"], summary["undelivered"], summary["poison"], summary["exit"]) == (2500, 0, 25, 0)
    arrived = Broker(mock_cluster.bootstrap).records("orders")
    assert Counter(message.value() for message in arrived) == Counter(EventGenerator(seed=5, poison=0.01).take(2500))
    by_key = {one.key(): json.loads(one.value() or b"") for one in arrived if one.key() and one.value()}
    assert all(str(order["id"]).encode() == key for key, order in by_key.items())
    assert len(by_key) > 2400


def test_lines_of_a_file_and_of_stdin_arrive(mock_cluster: MockCluster, tmp_path: Path) -> None:
    mock_cluster.create_topic("lines")
    file = tmp_path / "lines.ndjson"
    file.write_bytes(b'{"a":1}\n\n{"a":2}')
    argv = ("-b", mock_cluster.bootstrap, "-t", "lines")

    assert produce(*argv, "--from", str(file)).code == 0
    assert produce(*argv, "--from", "-", "--count", "1", stdin='{"a":3}\n{"a":4}\n').code == 0

    arrived = Broker(mock_cluster.bootstrap).records("lines")
    assert [message.value() for message in arrived] == [b'{"a":1}', b'{"a":2}', b'{"a":3}']


def test_nothing_to_send_is_no_success_and_fewer_lines_than_asked_for_are_said(
    mock_cluster: MockCluster, tmp_path: Path
) -> None:
    mock_cluster.create_topic("fewer")
    argv = ("-b", mock_cluster.bootstrap, "-t", "fewer")
    (tmp_path / "empty").touch()

    for source in ("-", str(tmp_path / "empty")):
        done = produce(*argv, "--from", source, "--json")
        assert (done.code, done.facts["exit"]) == (2, 2)
        assert f"--from {source}: there is no line in it, so nothing was sent" in done.stderr
    done = produce(*argv, "--from", "-", "--count", "5", stdin='{"a":3}\n{"a":4}\n')
    assert done.code == 0
    assert "--from - ended after 2 lines, --count asks for 5" in done.stderr


def test_a_signal_before_the_end_of_a_count_is_75(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("stopped")
    argv = ("-b", mock_cluster.bootstrap, "-t", "stopped", "--rate", "50", "--count", "100000")
    broker = Broker(mock_cluster.bootstrap)
    with BatcherProcess("produce", *argv) as running:
        wait_for(lambda: sum(broker.ends("stopped").values()), "a record")
        running.signal(signal.SIGINT)
        assert running.wait() == 75
    assert running.summary["exit"] == 75
    assert "of 100,000 events" in running.stderr


def test_an_endless_run_ends_on_a_signal_with_everything_delivered(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("endless")
    argv = ("-b", mock_cluster.bootstrap, "-t", "endless", "--rate", "500", "--template", "{{seq}}")
    broker = Broker(mock_cluster.bootstrap)
    with BatcherProcess("produce", *argv) as running:
        wait_for(lambda: sum(broker.ends("endless").values()), "a record")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0

    values = [message.value() for message in broker.records("endless")]
    assert values == [str(number).encode() for number in range(running.summary["delivered"])]


def test_what_is_too_large_to_be_sent_is_counted_and_a_person_has_to_look(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("small")
    argv = ("-b", mock_cluster.bootstrap, "-t", "small", "-X", "message.max.bytes=1000", "--template")

    done = produce(*argv, "x" * 2000, "--count", "1", "--json")

    assert done.code == 78
    assert (done.facts["undelivered"], done.facts["skipped"]) == (0, {"too_large": 1})
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["-t", "t"], 2, "--kafka.brokers: "),
        (["-b", "k:1"], 2, "--kafka.topics: "),
        (["-b", "k:1", "-t", "a,b"], 2, "--kafka.topics: "),
        (["-b", "k:1", "-t", "^a"], 2, "--kafka.topics: "),
        (["-b", "k:1", "-t", "t", "--template", "{{bogus}}"], 2, "--template: {{bogus}}"),
        (["-b", "k:1", "-t", "t", "--from", "/nowhere/x"], 2, "--from /nowhere/x: No such file"),
        (["-b", "k:1", "-t", "t", "--count", "0"], 2, "--count: "),
        (["-b", "k:1", "-t", "t", "--poison", "2"], 2, "--poison: "),
        (["-b", "k:1", "-t", "t", "--rate", "x"], 2, "--rate: "),
        (["-b", "k:1", "-t", "t", "--partition", "-1"], 2, "--partition: "),
        (["-b", "k:1", "-t", "t", "--header", "no-value"], 2, "--header: "),
        (["-b", "k:1", "-t", "t", "--key-separator", ":"], 2, "--key-separator: is for files"),
        (["-b", "k:1", "-t", "t", "--from", "-", "--tombstones"], 2, "--tombstones: needs a key"),
        (["-b", "k:1", "-t", "t", "--from", "-", "--numbers", "n"], 2, "--numbers: none of the files is CSV"),
        (["-b", "k:1", "-t", "t", "--from", "-", "-", "--format", "lines"], 2, "--from -: stdin can be read once"),
        (
            ["-b", "k:1", "-t", "t", "--from", "-", "--format", "csv", "--key-separator", ":"],
            2,
            "--key-separator: rows",
        ),
        (["--to", "queue", "--queue.path", "q", "--partition", "1"], 2, "--partition: only Kafka has that"),
        (["-b", "k:1", "-t", "t", "-X", "bogus=1"], 2, "-X bogus: No such configuration property"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_change(argv: list[str], code: int, text: str) -> None:
    done = produce(*argv)

    lines = done.stderr.splitlines()
    assert done.code == code
    assert len(lines) == 1
    assert lines[0].startswith(f"batcher: {text}")


def test_a_topic_that_is_not_there_is_78_and_names_the_flag(mock_cluster: MockCluster) -> None:
    done = produce("-b", mock_cluster.bootstrap, "-t", "absent", "--count", "1")

    assert done.code == 78
    assert "--create" in done.stderr


@pytest.mark.broker
def test_a_topic_is_created_with_its_partitions_and_kept_when_it_is_there(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    name = f"{new_topic()}-made"
    argv = ("-b", broker.bootstrap, "-t", name, "--count", "100", "--create", "--partitions", "3")

    assert produce(*argv).code == 0
    assert produce(*argv).code == 0

    ends = broker.ends(name)
    assert len(ends) == 3
    assert sum(ends.values()) == 200


@pytest.mark.broker
def test_key_value_headers_partition_and_time_are_read_back_as_they_were_given(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(3)
    lines = ['a:{"t":"2026-01-01T12:00:00Z"}', "b:", "", "no key", 'c:{"t":1767268800}', "d:{}"]

    done = produce(
        *("-b", broker.bootstrap, "-t", topic, "--from", "-", "--key-separator", ":", "--tombstones", "--json"),
        *("--header", "source=import", "--header", "note=a=b é", "--header", "none="),
        *("--partition", "2", "--timestamp-field", "t"),
        stdin="\n".join(lines),
    )

    records = broker.records(topic)
    assert [(one.key(), one.value(), one.partition()) for one in records] == [
        (b"a", b'{"t":"2026-01-01T12:00:00Z"}', 2),
        (b"b", None, 2),
        (b"c", b'{"t":1767268800}', 2),
    ]
    assert [one.headers() for one in records] == [
        [("source", b"import"), ("note", "a=b é".encode()), ("none", b"")]
    ] * 3
    times = [one.timestamp()[1] for one in records]
    assert (times[0], times[2]) == (1_767_268_800_000, 1_767_268_800_000)
    assert done.code == 78
    assert done.facts["skipped"] == {"empty": 1, "no_separator": 1, "no_timestamp": 1}
    assert done.facts["skipped_first"] == {"empty": "-:3", "no_separator": "-:4", "no_timestamp": "-:6"}
    assert done.stderr == ""


ROWS = (("007", 'q "x", é\nnew', 2**63 - 1, Decimal("1.50"), None), ("", "", 0, Decimal("-0.01"), b"\xff"))


def written(name: str, directory: Path) -> Path:
    """Return a file of `ROWS` in the format that its name says."""
    file = directory / name
    if name.endswith(".parquet"):
        columns = {
            "id": pa.array([row[0] for row in ROWS]),
            "text": pa.array([row[1] for row in ROWS]),
            "n": pa.array([row[2] for row in ROWS], pa.int64()),
            "d": pa.array([row[3] for row in ROWS], pa.decimal128(10, 2)),
            "b": pa.array([row[4] for row in ROWS], pa.binary()),
        }
        pq.write_table(pa.table(columns), file)
        return file
    if ".csv" in name:
        quoted = [f'"{row[0]}","{row[1].replace(chr(34), chr(34) * 2)}",{row[2]},{row[3]}' for row in ROWS]
        data = "\r\n".join(["id,text,n,d", *quoted]).encode()
    else:
        made = [{"id": row[0], "text": row[1], "n": row[2]} for row in ROWS]
        data = "\n".join(
            json.dumps(one)[:-1] + f',"d":{row[3]}}}' for one, row in zip(made, ROWS, strict=True)
        ).encode()
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    file.write_bytes(data)
    return file


@pytest.mark.broker
@pytest.mark.parametrize("name", ["a.ndjson", "a.gz", "a.zst", "a.csv", "a.csv.gz", "a.csv.zst", "a.parquet"])
def test_a_file_of_each_kind_arrives_value_by_value(
    name: str, broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(1)
    file = written(name, tmp_path)
    extra = ("--numbers", "n,d") if ".csv" in name else ()

    done = produce("-b", broker.bootstrap, "-t", topic, "--from", str(file), "--key", "id", *extra)

    assert done.code == 0, done.stderr
    records = broker.records(topic)
    found = [json.loads(one.value() or b"", parse_float=Decimal) for one in records]
    expected = [{"id": row[0], "text": row[1], "n": row[2], "d": row[3]} for row in ROWS]
    if name.endswith(".parquet"):
        expected = [{**one, "b": b} for one, b in zip(expected, (None, "/w=="), strict=True)]
    assert found == expected
    assert [one.key() for one in records] == [row[0].encode() for row in ROWS]


@pytest.mark.broker
def test_a_file_that_is_cut_short_says_in_one_line_how_many_came_before(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic(1)
    file = tmp_path / "cut.gz"
    file.write_bytes(gzip.compress(b"".join(b'{"n":%d}\n' % n for n in range(50_000)))[:-1000])

    done = produce("-b", broker.bootstrap, "-t", topic, "--from", str(file), "--json")

    delivered = done.facts["delivered"]
    assert (done.code, done.facts["exit"]) == (78, 78)
    assert done.stderr == (
        f"batcher: --from {file}: the file is cut short: its gzip has no end; "
        f"{delivered:,} events were delivered before it\n"
    )
    assert [json.loads(one.value() or b"")["n"] for one in broker.records(topic)] == list(range(delivered))
    assert 0 < delivered < 50_000


@pytest.mark.broker
def test_a_record_that_the_topic_refuses_costs_no_other(broker: Broker, new_topic: Callable[..., str]) -> None:
    topic = new_topic(1, max_message_bytes="20000")
    lines = [f'{{"n":{n}}}' for n in range(1000)]
    stdin = "\n".join([*lines[:500], "x" * 30_000, *lines[500:]])

    done = produce("-b", broker.bootstrap, "-t", topic, "--from", "-", "--compression", "none", "--json", stdin=stdin)

    assert [one.value() for one in broker.records(topic)] == [line.encode() for line in lines]
    assert done.code == 78
    assert (done.facts["delivered"], done.facts["undelivered"]) == (1000, 1)
    [failure] = done.facts["failures"]
    assert (failure["name"], failure["count"]) == ("MSG_SIZE_TOO_LARGE", 1)
    assert done.stderr == ""


@pytest.mark.broker
def test_what_a_topic_demands_of_its_records_is_known_before(broker: Broker, new_topic: Callable[..., str]) -> None:
    compacted = new_topic(1, cleanup_policy="compact")
    stamped = new_topic(1, message_timestamp_type="LogAppendTime")

    done = produce(
        "-b", broker.bootstrap, "-t", compacted, "--from", "-", "--key", "k", stdin='{"k":"a"}\n{"k":null}\n{"k":"b"}\n'
    )
    assert done.code == 78
    assert "1 without a key, which the compacted topic demands (the first: -:2)" in done.stderr
    assert [one.key() for one in broker.records(compacted)] == [b"a", b"b"]

    done = produce("-b", broker.bootstrap, "-t", stamped, "--count", "1", "--timestamp-field", "ts")
    assert done.code == 78
    assert "puts its own time on every record" in done.stderr

    done = produce("-b", broker.bootstrap, "-t", stamped, "--count", "1", "--partition", "1")
    assert done.code == 78
    assert done.stderr == f"batcher: --partition 1: topic {stamped} has the partitions 0 to 0\n"


@pytest.mark.broker
def test_the_client_says_nothing_on_stderr_by_itself(broker: Broker, new_topic: Callable[..., str]) -> None:
    argv = ("-b", f"127.0.0.1:1,{broker.bootstrap}", "-t", f"{new_topic()}-quiet", "--create", "--count", "10")

    done = produce(*argv, "-X", "debug=all", "--json")

    assert (done.code, done.stderr) == (0, "")


def test_a_file_that_a_signal_cuts_is_75(mock_cluster: MockCluster, tmp_path: Path) -> None:
    mock_cluster.create_topic("cut")
    file = tmp_path / "lines"
    file.write_bytes(b"x\n" * 100_000)
    broker = Broker(mock_cluster.bootstrap)
    argv = ("-b", mock_cluster.bootstrap, "-t", "cut", "--rate", "50", "--from", str(file))
    with BatcherProcess("produce", *argv) as running:
        wait_for(lambda: sum(broker.ends("cut").values()), "a record")
        running.signal(signal.SIGINT)
        assert running.wait() == 75
    assert f"before the end of --from {file}" in running.stderr
