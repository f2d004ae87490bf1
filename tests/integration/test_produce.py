import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from batcher.embedded.mock_cluster import MockCluster
from batcher.generate.events import EventGenerator
from batcher.testing.kafka import Broker


def produce(*argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "batcher", "produce", *argv], input=stdin, capture_output=True, check=False, timeout=120
    )


def read(bootstrap: str, topic: str, partitions: int) -> list[tuple[bytes | None, bytes | None]]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        found: list[tuple[bytes | None, bytes | None]] = []
        ends = 0
        while ends < partitions:
            message = consumer.poll(30.0)
            assert message is not None
            if message.error() is not None:
                ends += 1
            else:
                found.append((message.key(), message.value()))
        return found
    finally:
        consumer.close()


def test_exactly_the_seeded_events_arrive_with_their_keys_and_their_poison(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("orders", 3)
    argv = ("-b", mock_cluster.bootstrap, "-t", "orders", "--count", "2500", "--seed", "5", "--poison", "0.01")

    done = produce(*argv, "--key", "id", "--json")

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["delivered"], summary["undelivered"], summary["poison"], summary["exit"]) == (2500, 0, 25, 0)
    arrived = read(mock_cluster.bootstrap, "orders", 3)
    assert Counter(value for _, value in arrived) == Counter(EventGenerator(seed=5, poison=0.01).take(2500))
    by_key = {key: json.loads(value or b"") for key, value in arrived if key is not None and value is not None}
    assert all(str(order["id"]).encode() == key for key, order in by_key.items())
    assert len(by_key) > 2400


def test_lines_of_a_file_and_of_stdin_arrive(mock_cluster: MockCluster, tmp_path: Path) -> None:
    mock_cluster.create_topic("lines")
    file = tmp_path / "lines.ndjson"
    file.write_bytes(b'{"a":1}\n\n{"a":2}')
    argv = ("-b", mock_cluster.bootstrap, "-t", "lines")

    assert produce(*argv, "--from", str(file)).returncode == 0
    assert produce(*argv, "--from", "-", "--count", "1", stdin=b'{"a":3}\n{"a":4}\n').returncode == 0

    assert [value for _, value in read(mock_cluster.bootstrap, "lines", 1)] == [b'{"a":1}', b'{"a":2}', b'{"a":3}']


def test_nothing_to_send_is_no_success_and_fewer_lines_than_asked_for_are_said(
    mock_cluster: MockCluster, tmp_path: Path
) -> None:
    mock_cluster.create_topic("fewer")
    argv = ("-b", mock_cluster.bootstrap, "-t", "fewer")
    (tmp_path / "empty").touch()

    for source, stdin in (("-", b""), (str(tmp_path / "empty"), b"")):
        done = produce(*argv, "--from", source, "--json", stdin=stdin)
        assert (done.returncode, json.loads(done.stdout)["exit"]) == (2, 2)
        assert f"--from {source}: there is no line in it, so nothing was sent" in done.stderr.decode()
    done = produce(*argv, "--from", "-", "--count", "5", stdin=b'{"a":3}\n{"a":4}\n')
    assert done.returncode == 0
    assert "--from - ended after 2 lines, --count asks for 5" in done.stderr.decode()


def test_a_signal_before_the_end_of_a_count_is_75(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("stopped")
    argv = ("-b", mock_cluster.bootstrap, "-t", "stopped", "--rate", "50", "--count", "100000", "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "batcher", "produce", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        consumer = Consumer({"bootstrap.servers": mock_cluster.bootstrap, "group.id": "first"})
        try:
            consumer.assign([TopicPartition("stopped", 0, 0)])
            assert consumer.poll(60.0) is not None
        finally:
            consumer.close()
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=60)
    assert (running.returncode, json.loads(out)["exit"]) == (75, 75)
    assert "of 100,000 events" in errors.decode()


def test_an_endless_run_ends_on_a_signal_with_everything_delivered(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("endless")
    argv = ["-b", mock_cluster.bootstrap, "-t", "endless", "--rate", "500", "--json", "--template", "{{seq}}"]
    process = subprocess.Popen([sys.executable, "-m", "batcher", "produce", *argv], stdout=subprocess.PIPE, text=True)
    reader = Consumer({"bootstrap.servers": mock_cluster.bootstrap, "group.id": "reader"})
    reader.assign([TopicPartition("endless", 0, 0)])
    assert reader.poll(60.0) is not None
    reader.close()

    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)

    summary = json.loads(out)
    assert process.returncode == summary["exit"] == 0
    values = [value for _, value in read(mock_cluster.bootstrap, "endless", 1)]
    assert values == [str(number).encode() for number in range(summary["delivered"])]


def test_what_the_broker_does_not_take_is_told_and_is_75(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("small")
    argv = ("-b", mock_cluster.bootstrap, "-t", "small", "-X", "message.max.bytes=1000", "--template")

    done = produce(*argv, "x" * 2000, "--count", "1", "--json")

    assert done.returncode == 75
    assert json.loads(done.stdout)["undelivered"] == 1
    assert done.stderr == b""


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
        (["-b", "k:1", "-t", "t", "-X", "bogus=1"], 2, "-X bogus: No such configuration property"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_change(argv: list[str], code: int, text: str) -> None:
    done = produce(*argv)

    lines = done.stderr.decode().splitlines()
    assert done.returncode == code
    assert len(lines) == 1
    assert lines[0].startswith(f"batcher: {text}")


def test_a_topic_that_is_not_there_is_78_and_names_the_flag(mock_cluster: MockCluster) -> None:
    done = produce("-b", mock_cluster.bootstrap, "-t", "absent", "--count", "1")

    assert done.returncode == 78
    assert b"--create" in done.stderr


@pytest.mark.broker
def test_a_topic_is_created_with_its_partitions_and_kept_when_it_is_there(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    name = f"{new_topic()}-made"
    argv = ("-b", broker.bootstrap, "-t", name, "--count", "100", "--create", "--partitions", "3")

    assert produce(*argv).returncode == 0
    assert produce(*argv).returncode == 0

    ends = broker.ends(name)
    assert len(ends) == 3
    assert sum(ends.values()) == 200
