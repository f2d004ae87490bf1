"""Dead letters say which records they were, to the group that put them aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from batcher.audit.dead_letters import in_directory, in_topic
from batcher.dead_letters.directory import DirectoryDeadLetterQueue
from batcher.dead_letters.encoding import added_headers, now
from batcher.errors import ConfigurationError
from batcher.records import DeadLetter, Headers, Partition, Range, Record, Records
from batcher.sources.kafka.window import LogReader
from batcher.testing.values import make_records

A, B = Partition("events", 0), Partition("events", 1)


def letter(partition: Partition, offset: int) -> DeadLetter:
    return DeadLetter(Record(partition, offset, 0, None, b"{", (("own", b"1"),)), "decode", "syntax", "not JSON")


def store(path: Path, group: str, *letters: DeadLetter) -> None:
    queue = DirectoryDeadLetterQueue(str(path), group)
    queue.open()
    queue.send(letters)
    queue.close()


def test_letters_in_a_directory_count_once_for_their_own_group(tmp_path: Path) -> None:
    store(tmp_path, "ours", letter(A, 9), letter(A, 3), letter(B, 1))
    store(tmp_path, "ours", letter(A, 3))
    store(tmp_path, "theirs", letter(A, 5))

    found = in_directory(str(tmp_path), "ours")
    assert {partition: offsets.to_pylist() for partition, offsets in found.items()} == {A: [3, 9], B: [1]}


def test_a_directory_that_was_never_made_has_no_letters(tmp_path: Path) -> None:
    assert in_directory(str(tmp_path / "none"), "ours") == {}


@pytest.mark.parametrize("line", ['{"group": "ours"}', "not JSON", '{"group": "ours", "topic": 1, "partition": 0}'])
def test_a_line_that_is_no_letter_stops_it_with_the_flag(tmp_path: Path, line: str) -> None:
    (tmp_path / "letters-0.ndjson").write_text(f"{line}\n")
    with pytest.raises(ConfigurationError, match=r"--dlq\.path.*; move it away"):
        in_directory(str(tmp_path), "ours")


class Topic:
    """Read letters from memory as a reader does from a topic."""

    def __init__(self, partitions: Mapping[int, Sequence[Headers]]) -> None:
        self.partitions = partitions
        self.closed = False

    def open(self) -> Sequence[Partition]:
        return [Partition("letters", number) for number in self.partitions]

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        return 0, len(self.partitions[partition.number])

    def records(self, asked: Range) -> Iterator[Records]:
        headers = self.partitions[asked.partition.number]
        yield make_records([b"{"] * len(headers), partition=asked.partition, headers=headers)

    def close(self) -> None:
        self.closed = True


def headers(one: DeadLetter, group: str) -> Headers:
    return (*one.record.headers, *added_headers(one, group, now()))


def test_letters_in_a_topic_count_once_for_their_own_group_and_other_records_are_passed_over() -> None:
    twice = DeadLetter(Record(A, 7, 0, None, b"{", headers(letter(B, 2), "theirs")), "sink", "null", "no")
    topic = Topic(
        {
            0: [headers(letter(A, 9), "ours"), headers(letter(A, 3), "ours"), (("own", b"1"),), ()],
            1: [headers(letter(A, 3), "ours"), headers(letter(A, 5), "theirs"), headers(twice, "ours")],
            2: [],
        }
    )

    found = in_topic(cast("LogReader", topic), "ours")
    assert {partition: offsets.to_pylist() for partition, offsets in found.items()} == {A: [3, 7, 9]}
    assert topic.closed
