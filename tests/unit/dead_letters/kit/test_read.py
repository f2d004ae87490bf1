"""What is read of a directory, whatever is being done to it meanwhile."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batcher.dead_letters.directory import DirectoryDeadLetterQueue
from batcher.dead_letters.kit.purge import old_files, remove
from batcher.dead_letters.kit.read import Directory
from batcher.errors import ConfigurationError
from batcher.records import DeadLetter, Partition, Record

NOW = datetime.now(UTC)


def letter(offset: int, value: bytes | None = b"{") -> DeadLetter:
    record = Record(Partition("events", 3), offset, 5, b"\xff", value, (("h", b"1"), ("h", None)))
    return DeadLetter(record, "decode", "syntax", "not JSON", "a.b")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Return a directory with letters of the offsets 1, 2 and 3."""
    queue = DirectoryDeadLetterQueue(str(tmp_path / "dead"), "loaders")
    queue.open()
    queue.send([letter(1), letter(2), letter(3)])
    queue.close()
    return tmp_path / "dead"


def the_file(kept: Path) -> Path:
    (file,) = kept.iterdir()
    return file


def offsets(kept: Path) -> list[int]:
    return [stored.letter.record.offset for stored in Directory(str(kept))]


def test_letters_come_back_whole_with_what_is_beside_them(kept: Path) -> None:
    first = next(iter(Directory(str(kept))))
    assert first.letter == letter(1)
    assert (first.group, first.complete, first.attempts) == ("loaders", True, 0)
    assert first.failed_at is not None
    assert NOW - timedelta(seconds=1) < first.failed_at <= datetime.now(UTC)
    assert first.place == f"{the_file(kept).name}:1"


def test_a_line_that_is_being_written_is_not_there_yet(kept: Path) -> None:
    content = the_file(kept).read_bytes()
    for end in range(len(content) - 60, len(content)):
        the_file(kept).write_bytes(content[:end])
        letters = Directory(str(kept))
        assert [stored.letter.record.offset for stored in letters] == [1, 2]
        assert letters.passed_over == 0


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"not JSON\n",
        b"[]\n",
        b'{"topic":"events"}\n',
        b"\xff\n",
        pytest.param(("offset", "7"), id="an offset that is text"),
        pytest.param(("partition", None), id="no partition"),
        pytest.param(("topic", 7), id="a topic that is a number"),
        pytest.param(("headers", None), id="no headers"),
        pytest.param(("headers", [1]), id="a header that is a number"),
        pytest.param(("value", 7), id="a value that is a number"),
        pytest.param(("key", "not base64"), id="a key that is no base64"),
        pytest.param(("stage", "neither"), id="a stage nobody knows"),
        pytest.param(("omitted", 7), id="parts left out that are a number"),
    ],
)
def test_a_line_that_is_no_letter_is_counted_and_passed_over(kept: Path, line: bytes | tuple[str, object]) -> None:
    lines = the_file(kept).read_bytes().splitlines(keepends=True)
    if isinstance(line, tuple):
        line = json.dumps({**json.loads(lines[1]), line[0]: line[1]}).encode() + b"\n"
    the_file(kept).write_bytes(lines[0] + line + lines[2])
    letters = Directory(str(kept))
    assert [stored.letter.record.offset for stored in letters] == [1, 3]
    assert letters.passed_over == 1


def test_a_file_may_be_removed_while_the_directory_is_read(kept: Path) -> None:
    (kept / "letters-9.ndjson").write_bytes(the_file(kept).read_bytes())
    seen = []
    for stored in Directory(str(kept)):
        seen.append(stored.letter.record.offset)
        (kept / "letters-9.ndjson").unlink(missing_ok=True)
    assert seen == [1, 2, 3]


def test_one_file_can_be_read_alone(kept: Path) -> None:
    assert offsets(the_file(kept)) == [1, 2, 3]


def test_a_path_that_is_not_there_is_a_setting_to_correct(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        list(Directory(str(tmp_path / "nowhere")))


def test_an_exported_letter_is_read_back_as_it_was(kept: Path, tmp_path: Path) -> None:
    letters = list(Directory(str(kept)))
    exported = tmp_path / "out.ndjson"
    exported.write_text("".join(json.dumps(one.fields()) + "\n" for one in letters))
    again = list(Directory(str(exported)))
    assert [(one.letter, one.group, one.failed_at, one.version) for one in again] == [
        (one.letter, one.group, one.failed_at, one.version) for one in letters
    ]


def test_what_was_left_out_of_a_letter_is_still_known_after_an_export(kept: Path) -> None:
    lines = the_file(kept).read_bytes().splitlines()
    the_file(kept).write_text(json.dumps({**json.loads(lines[0]), "omitted": ["value"]}) + "\n")
    (one,) = Directory(str(kept))
    assert (one.complete, one.omitted) == (False, ("value",))
    assert one.fields()["omitted"] == ["value"]


def aged(file: Path, begun: str = "20200101T000000Z", *, quiet: bool = True) -> Path:
    """Make a file one of another day that nobody writes to any more."""
    moved = file.rename(file.with_name(f"letters-{begun}-1-1-000001.ndjson"))
    os.utime(moved, (0, 0) if quiet else None)
    return moved


def purged(kept: Path, before: datetime = NOW + timedelta(hours=1)) -> list[tuple[str, int]]:
    plan, _ = old_files(Directory(str(kept)), before, NOW)
    remove(plan)
    return [(part.place, part.letters) for part in plan]


def test_a_file_goes_when_all_of_its_letters_are_older(kept: Path) -> None:
    file = aged(the_file(kept))
    assert purged(kept) == [(str(file), 3)]
    assert list(kept.iterdir()) == []


def test_a_file_stays_whole_when_one_letter_is_not_older(kept: Path) -> None:
    file = aged(the_file(kept))
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    lines[0]["failed_at"] = lines[1]["failed_at"] = "2020-01-01T00:00:00.000+00:00"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(file, (0, 0))
    assert purged(kept, NOW - timedelta(hours=1)) == []
    assert offsets(kept) == [1, 2, 3]


def test_a_file_that_may_still_be_written_to_stays(kept: Path) -> None:
    assert purged(kept) == []
    of_today = aged(the_file(kept), f"{NOW:%Y%m%dT%H%M%SZ}")
    assert purged(kept) == []
    aged(of_today, quiet=False)
    assert purged(kept) == []
    assert offsets(kept) == [1, 2, 3]


def test_a_file_with_something_unknown_in_it_stays(kept: Path) -> None:
    file = aged(the_file(kept))
    file.write_bytes(file.read_bytes() + b"a note\n")
    os.utime(file, (0, 0))
    assert purged(kept) == []
    # Where it stays anyway there is nothing to say.
    for before, named in ((NOW + timedelta(hours=1), [file]), (NOW - timedelta(hours=1), [])):
        assert old_files(Directory(str(kept)), before, NOW) == ([], named)
