"""What the directory of dead letters promises beyond the contract."""

from __future__ import annotations

import errno
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batcher.dead_letters import directory
from batcher.dead_letters.directory import DirectoryDeadLetterQueue, read_letters
from batcher.errors import ConfigurationError, DeadLetterFailed, Unreachable
from batcher.records import DeadLetter, Partition, Record


def letter(offset: int = 1, value: bytes | None = b"{}") -> DeadLetter:
    record = Record(Partition("events", 3), offset, 1_700_000_000_000, b"\xff", value, (("h", b"1"),))
    return DeadLetter(record, "decode", "syntax", "not JSON\x1b[31m", "a.b")


def files(path: Path) -> list[Path]:
    return sorted(path.iterdir())


@pytest.fixture
def queue(tmp_path: Path) -> DirectoryDeadLetterQueue:
    queue = DirectoryDeadLetterQueue(str(tmp_path / "dlq"), "loaders")
    queue.open()
    return queue


def test_a_letter_is_one_json_line_with_every_field(queue: DirectoryDeadLetterQueue, tmp_path: Path) -> None:
    queue.send([letter()])
    (file,) = files(tmp_path / "dlq")
    (line,) = file.read_text().splitlines()
    fields = json.loads(line)
    assert datetime.fromisoformat(fields.pop("failed_at")).utcoffset() == timedelta(0)
    assert fields.pop("version")
    assert fields == {
        "topic": "events",
        "partition": 3,
        "offset": 1,
        "timestamp_ms": 1_700_000_000_000,
        "key": "/w==",
        "key_encoding": "base64",
        "value": "{}",
        "value_encoding": "text",
        "headers": [{"key": "h", "value": "1", "encoding": "text"}],
        "stage": "decode",
        "reason": "syntax",
        "message": "not JSON\\x1b[31m",
        "path": "a.b",
        "group": "loaders",
    }


def test_only_the_owner_may_read_the_letters(queue: DirectoryDeadLetterQueue, tmp_path: Path) -> None:
    queue.send([letter()])
    (file,) = files(tmp_path / "dlq")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_letter_is_synced_before_send_returns(
    queue: DirectoryDeadLetterQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int | str] = []
    sync = os.fsync

    def watched(file: int) -> None:
        found = os.fstat(file)
        sizes.append("directory" if stat.S_ISDIR(found.st_mode) else found.st_size)
        sync(file)

    monkeypatch.setattr(os, "fsync", watched)
    queue.send([letter(1)])
    queue.send([letter(2)])
    (file,) = files(tmp_path / "dlq")
    assert sizes == ["directory", file.stat().st_size // 2, file.stat().st_size]


def test_opening_leaves_no_file_behind(queue: DirectoryDeadLetterQueue, tmp_path: Path) -> None:
    assert files(tmp_path / "dlq") == []


def test_two_queues_never_write_the_same_file(queue: DirectoryDeadLetterQueue, tmp_path: Path) -> None:
    other = DirectoryDeadLetterQueue(str(tmp_path / "dlq"))
    other.open()
    for offset in range(3):
        queue.send([letter(offset)])
        other.send([letter(10 + offset)])
    found = [[fields["offset"] for fields in read_letters(file)] for file in files(tmp_path / "dlq")]
    assert sorted(found) == [[0, 1, 2], [10, 11, 12]]


def test_a_grown_file_is_left_for_a_new_one_sorted_behind_it(tmp_path: Path) -> None:
    queue = DirectoryDeadLetterQueue(str(tmp_path), max_file_bytes=1)
    queue.open()
    for offset in range(12):
        queue.send([letter(offset)])
    assert len(files(tmp_path)) == 12
    assert [fields["offset"] for fields in read_letters(tmp_path)] == list(range(12))


def test_every_day_has_its_own_file(
    queue: DirectoryDeadLetterQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (1, 1, 2):
        monkeypatch.setattr(directory, "now", lambda day=day: datetime(2026, 11, day, 23, 59, tzinfo=UTC))
        queue.send([letter(day)])
    assert [file.name[:16] for file in files(tmp_path / "dlq")] == ["letters-20261101", "letters-20261102"]


def test_a_line_torn_by_a_crash_is_skipped_and_never_continued(queue: DirectoryDeadLetterQueue, tmp_path: Path) -> None:
    queue.send([letter(1), letter(2)])
    queue.close()
    (file,) = files(tmp_path / "dlq")
    file.write_bytes(file.read_bytes()[:-10])
    queue.send([letter(3)])
    assert [fields["offset"] for fields in read_letters(tmp_path / "dlq")] == [1, 3]


def test_a_damaged_line_that_is_not_the_last_is_no_torn_tail(tmp_path: Path) -> None:
    file = tmp_path / "letters.ndjson"
    file.write_bytes(b'{"half": \n{}\n')
    with pytest.raises(ValueError, match=r"letters\.ndjson:1 "):
        list(read_letters(file))


def test_a_full_disk_stores_nothing_and_says_so(
    queue: DirectoryDeadLetterQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send([letter(1)])
    write = os.write

    def half(file: int, content: bytes) -> int:
        if len(content) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content[: len(content) // 2])

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", half)
        with pytest.raises(DeadLetterFailed, match=r"2 dead letters .* events\[3\] offset 2: No space left") as failed:
            queue.send([letter(2), letter(3)])
    assert isinstance(failed.value.__cause__, OSError)
    assert [fields["offset"] for fields in read_letters(tmp_path / "dlq")] == [1]
    queue.send([letter(2)])
    assert [fields["offset"] for fields in read_letters(tmp_path / "dlq")] == [1, 2]


def test_a_sync_that_fails_stores_nothing(
    queue: DirectoryDeadLetterQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send([letter(1)])

    def refuse(_file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", refuse)
        with pytest.raises(DeadLetterFailed, match="Input/output error"):
            queue.send([letter(2)])
    queue.send([letter(2)])
    assert [[fields["offset"] for fields in read_letters(file)] for file in files(tmp_path / "dlq")] == [[1], [2]]


def test_letters_are_not_lost_in_a_file_that_was_removed(queue: DirectoryDeadLetterQueue, tmp_path: Path) -> None:
    queue.send([letter(1)])
    (file,) = files(tmp_path / "dlq")
    file.unlink()
    queue.send([letter(2)])
    assert [fields["offset"] for fields in read_letters(tmp_path / "dlq")] == [2]


def test_missing_parents_are_created(tmp_path: Path) -> None:
    DirectoryDeadLetterQueue(str(tmp_path / "a" / "b")).open()
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("below", ["file", "file/dlq"])
def test_a_file_where_the_directory_should_be_is_a_wrong_setting(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"--dlq\.path .*there is a file"):
        DirectoryDeadLetterQueue(str(tmp_path / below)).open()


def test_a_uri_is_a_wrong_setting_and_creates_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="local directory"):
        DirectoryDeadLetterQueue("s3://bucket/dlq").open()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, Unreachable),
        (errno.EIO, Unreachable),
        (errno.EACCES, ConfigurationError),
        (errno.EROFS, ConfigurationError),
    ],
)
def test_a_directory_that_takes_no_file_is_found_when_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def refuse(_file: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(kind, match=os.strerror(code)):
        DirectoryDeadLetterQueue(str(tmp_path)).open()
