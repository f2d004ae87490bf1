"""What a part of a log is, as the client tells it: records, their nulls, and where the log ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from batcher.errors import BatcherError, ConfigurationError, DataGap, SourceLost
from batcher.records import Partition, Range
from batcher.sources.kafka import window
from batcher.sources.kafka.cluster import Cluster
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.window import LogReader

PART = Partition("t", 0)


def message(offset: int, value: bytes | None = b"{}", error: KafkaError | None = None, partition: int = 0) -> Message:
    fields: dict[str, Any] = {"value": value, "timestamp": (1, 1000 + offset), "error": error}
    return Message(topic="t", partition=partition, offset=offset, **fields)


def end(offset: int, partition: int = 0) -> Message:
    return message(offset, error=KafkaError(KafkaError._PARTITION_EOF), partition=partition)


class Client:
    """Hand out prepared answers, and note what is assigned."""

    def __init__(self, *answers: Sequence[Message]) -> None:
        self.answers = list(answers)
        self.assigned: list[tuple[str, int, int] | None] = []
        self.wanted: list[int] = []

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self.assigned += [(one.topic, one.partition, one.offset) for one in places]

    def unassign(self) -> None:
        self.assigned.append(None)

    def consume(self, count: int, _timeout_s: float) -> list[Message]:
        self.wanted.append(count)
        return list(self.answers.pop(0)) if self.answers else []

    def close(self) -> None:
        pass


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a reader whose client gives these answers."""
    made: list[Client] = []

    def make(*answers: Sequence[Message]) -> tuple[LogReader, Client]:
        client = Client(*answers)
        made.append(client)
        monkeypatch.setattr(window, "connect", lambda _: client)
        monkeypatch.setattr(window, "first_look", lambda *_: Cluster((PART.topic,), (PART,), controlled=False))
        reader = LogReader(KafkaOptions("k:1", ("t",), "g"))
        assert list(reader.open()) == [PART]
        return reader, client

    return make


def test_a_part_is_read_from_its_first_offset_to_its_last_and_left_again(reading: Any) -> None:
    reader, client = reading([message(5), message(6, None)], [], [message(7), message(8, b"")])

    offsets, nulls = reader.offsets(Range(PART, 5, 8))

    assert (offsets.to_pylist(), nulls.to_pylist()) == ([5, 6, 7, 8], [False, True, False, False])
    assert client.assigned == [("t", 0, 5), None]
    assert client.wanted == [4, 2, 2]


def test_holes_are_read_over_and_what_comes_behind_the_part_is_not_of_it(reading: Any) -> None:
    reader, _ = reading([message(5), message(9)], [message(10), message(14), message(15)])
    assert reader.offsets(Range(PART, 4, 12))[0].to_pylist() == [5, 9, 10]


def test_the_next_record_behind_the_part_ends_it_also_when_nothing_of_it_is_left(reading: Any) -> None:
    reader, _ = reading([message(50)])
    assert reader.offsets(Range(PART, 4, 12))[0].to_pylist() == []


@pytest.mark.parametrize("together", [True, False])
def test_the_end_of_the_log_ends_a_part_whose_last_records_are_not_there(reading: Any, together: bool) -> None:
    answers = [[message(5), end(9)]] if together else [[message(5)], [end(9)]]
    reader, _ = reading(*answers)
    assert reader.offsets(Range(PART, 5, 8))[0].to_pylist() == [5]


def test_an_end_that_lies_before_the_part_ends_or_is_of_another_partition_ends_nothing(reading: Any) -> None:
    reader, _ = reading([end(7)], [end(99, partition=1)], [message(8)])
    assert reader.offsets(Range(PART, 5, 8))[0].to_pylist() == [8]


def test_whole_records_come_in_runs(reading: Any) -> None:
    reader, client = reading([message(5, b"a"), message(7, None)], [message(9, b"c"), message(20)])
    runs = list(reader.records(Range(PART, 5, 10)))
    assert [(run.offsets.to_pylist(), run.values.to_pylist()) for run in runs] == [
        ([5, 7], [b"a", None]),
        ([9], [b"c"]),
    ]
    assert client.assigned[-1] is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._AUTO_OFFSET_RESET, DataGap),
        (KafkaError.INVALID_MSG, SourceLost),
        (KafkaError._FATAL, SourceLost),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigurationError),
    ],
)
def test_what_reading_on_could_hide_ends_it(reading: Any, code: int, kind: type[BatcherError]) -> None:
    reader, client = reading([message(5)], [message(0, error=KafkaError(code))])
    with pytest.raises(kind):
        reader.offsets(Range(PART, 5, 8))
    assert client.assigned[-1] is None


def test_trouble_that_passes_is_waited_out(reading: Any) -> None:
    reader, _ = reading([message(0, error=KafkaError(KafkaError._TRANSPORT))], [message(5)])
    assert reader.offsets(Range(PART, 5, 5))[0].to_pylist() == [5]


def test_brokers_that_say_nothing_for_long_are_taken_for_gone(reading: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "STALLED_S", 0.0)
    reader, _ = reading([message(5)])
    with pytest.raises(SourceLost, match=r"t\[0\]: nothing came from offset 6 on"):
        reader.offsets(Range(PART, 5, 8))


def test_it_is_no_member_and_commits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[dict[str, Any]] = []

    def connect(given: dict[str, Any]) -> Consumer:
        settings.append(given)
        raise ConfigurationError("enough")

    monkeypatch.setattr(window, "connect", connect)
    with pytest.raises(ConfigurationError):
        LogReader(KafkaOptions("k:1", ("t",), "g", instance="a", properties={"fetch.min.bytes": "5"})).open()
    (given,) = settings
    assert "group.instance.id" not in given
    assert (given["enable.auto.commit"], given["isolation.level"]) == ("false", "read_committed")
    assert (given["auto.offset.reset"], given["enable.partition.eof"]) == ("error", "true")
    assert given["fetch.min.bytes"] == "5"
