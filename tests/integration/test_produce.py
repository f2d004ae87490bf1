import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

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
