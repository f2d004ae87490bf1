"""The first look at a topic that nobody knows: `peek`, `schema --create`, `check`, and then `run`, on a real broker."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batcher.cli import main as cli
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

Say = Callable[..., tuple[int, str]]


def order(number: int) -> str:
    document = {"id": number, "city": "RO"[number % 2] + "slo", "at": f"2026-01-31T12:00:{number % 60:02}Z"}
    return json.dumps(document | ({"note": f"n{number}"} if number % 7 == 0 else {}))


@pytest.fixture
def say(broker: Broker, capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs a verb and returns its exit code and output."""

    def run(verb: str, *more: str) -> tuple[int, str]:
        code = cli.main([verb, "-b", broker.bootstrap, *more])
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def topic(broker: Broker, new_topic: Callable[..., str]) -> str:
    name = new_topic(3)
    broker.produce(name, [order(number) for number in range(300)], partition=0)
    broker.produce(name, [order(number) for number in range(300, 320)], partition=2)
    return name


@pytest.fixture
def target(clickhouse_server: ClickHouseServer, new_table: Callable[[], str]) -> tuple[str, ...]:
    dsn = clickhouse_server.dsn
    return ("--sink", "clickhouse", "--clickhouse.dsn", dsn, "--clickhouse.table", new_table())


def test_a_topic_that_nobody_knows_is_loaded_into_a_table_in_three_commands(
    say: Say, topic: str, target: tuple[str, ...], broker: Broker, clickhouse_server: ClickHouseServer
) -> None:
    code, text = say("schema", "-t", topic, *target, "--create")
    assert code == 0
    assert f"{topic}: 320 of 320 records looked at" in text
    assert "Rslo" not in text
    code, text = say("check", "-t", topic, *target)
    assert (code, "320 fit" in text, "guarantee: exactly-once" in text) == (0, True, True)
    with BatcherProcess(*target, "-b", broker.bootstrap, "-t", topic, "-g", f"{topic}-loader", "--until-eof") as loader:
        assert loader.wait() == 0
    rows = clickhouse_server.query(f"SELECT count(), uniqExact(id), countIf(note = concat('n', id)) FROM {target[-1]}")
    assert [int(one) for one in rows[0]] == [320, 320, 46]

    new = json.dumps(json.loads(order(1)) | {"new": 1})
    broker.produce(topic, ["nonsense", new, '{"id":2}'], partition=1)
    code, text = say("check", "-t", topic, *target, "--json")
    found = json.loads(text)
    assert code == 1
    assert found["unknown_fields"] == {"new": 1}
    assert {(one["reason"], one["first"]) for one in found["refused"]} == {
        ("syntax", f"{topic}[1] 0"),
        ("missing", f"{topic}[1] 2"),
    }
    code, text = say("schema", "-t", topic, *target, "--create")
    assert (code, text) == (78, "")


def test_columns_are_written_to_a_file_that_parquet_is_loaded_with(
    say: Say, topic: str, broker: Broker, new_group: Callable[[], str], tmp_path: Path
) -> None:
    file, root = tmp_path / "orders.arrow", tmp_path / "root"

    assert say("schema", "-t", topic, "--write", str(file))[0] == 0
    assert say("schema", "-t", topic, "--write", str(file))[0] == 78
    given = ("--decode.schema", str(file), "--sink", "parquet", "--parquet.path", str(root))
    code, text = say("check", "-t", topic, *given)
    assert (code, root.exists()) == (0, False), text
    with BatcherProcess(*given, "-b", broker.bootstrap, "-t", topic, "-g", new_group(), "--until-eof") as loader:
        assert loader.wait() == 0
    with pa.OSFile(str(file)) as source:
        assert pa.ipc.open_stream(source).schema.names == ["id", "city", "at", "note"]


def test_a_topic_is_peeked_into_from_its_end_from_an_offset_and_from_a_time(say: Say, topic: str) -> None:
    def records(*more: str) -> list[dict[str, Any]]:
        code, text = say("peek", "-t", topic, "--json", *more)
        assert code == 0
        return [json.loads(line) for line in text.splitlines()]

    newest = records("-n", "2")
    assert [(one["partition"], one["offset"], one["row"]["id"]) for one in newest] == [(2, 18, 318), (2, 19, 319)]
    assert len(records()) == 10
    assert [one["offset"] for one in records("--from", "298", "--partition", "0")] == [298, 299]
    assert len(records("--from", "2020-01-01T00:00:00Z")) == 320
    assert [(one["partition"], one["offset"]) for one in records("--from", "0", "-n", "3", "--raw")] == [
        (0, 0),
        (0, 1),
        (0, 2),
    ]
    assert say("peek", "-t", topic, "--from", "2090-01-01") == (78, "")
    assert say("peek", "-t", topic, "--partition", "9")[0] == 78


def test_keys_headers_and_bytes_are_shown_and_nothing_that_a_terminal_would_obey(
    say: Say, broker: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic()
    broker.produce(topic, [b'{"a":"\x1b[31m"}', b"\xff\x00", None])

    code, text = say("peek", "-t", topic)
    assert code == 0
    assert "\x1b" not in text
    assert "would be refused: " in text
    assert "ff 00" in text
    assert "no value" in text
    assert "7b 22 61" in say("peek", "-t", topic, "--hex")[1]


def test_what_comes_is_followed_until_a_signal(broker: Broker, topic: str) -> None:
    with BatcherProcess("peek", "-b", broker.bootstrap, "-t", topic, "-n", "1", "-f") as process:
        wait_for(lambda: '"offset": 19' in process.stdout or None, "the newest record")
        broker.produce(topic, [order(999)], partition=1)
        wait_for(lambda: '"id": 999' in process.stdout or None, "the record that came")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
