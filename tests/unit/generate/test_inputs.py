import gzip
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from batcher.errors import SettingRefused
from batcher.generate.inputs import Input, Reading, input_of
from batcher.generate.lines import Chunk
from batcher.generate.skipped import SkipReason

LINES = [b'{"n":%d}' % number for number in range(20_000)]
TEXT = b"\n".join(LINES) + b"\n"


def packed(data: bytes, packing: str) -> bytes:
    return gzip.compress(data) if packing == "gz" else bytes(pa.Codec("zstd").compress(data, asbytes=True))


def read(*names: Path, form: str | None = None, stop: threading.Event | None = None) -> tuple[Reading, list[object]]:
    reading = Reading([input_of(str(name), form) for name in names], stop or threading.Event())
    return reading, [item for chunk in reading for item in chunk.items]


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("x", None, ("lines", "")),
        ("x.ndjson.gz", None, ("lines", "gz")),
        ("X.CSV.ZST", None, ("csv", "zst")),
        ("x.csv", "lines", ("lines", "")),
        ("x.parquet", None, ("parquet", "")),
        ("-", "csv.gz", ("csv", "gz")),
        ("-", None, ("lines", "")),
    ],
)
def test_the_end_of_a_name_says_what_a_file_is_unless_a_format_does(
    name: str, form: str | None, expected: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()

    assert input_of(name, form) == Input(name, *expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "form", "text"),
    [
        ("absent", None, "--from absent: No such file"),
        (".", None, "is a directory"),
        ("a\x00b", None, "--from a"),
        ("x.parquet.gz", None, "unpack it first"),
        ("-", "parquet", "name the file"),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_sent(name: str, form: str | None, text: str) -> None:
    with pytest.raises(SettingRefused, match=text):
        input_of(name, form)


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_a_packed_file_of_several_parts_is_read_whole(packing: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.ndjson.{packing}"
    file.write_bytes(packed(TEXT[:1000], packing) + packed(TEXT[1000:], packing))

    reading, found = read(file)

    assert found == LINES
    assert (reading.failure, reading.cut) == (None, False)


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_of_a_file_that_is_cut_short_the_whole_lines_come_and_no_half_one(packing: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{packing}"
    # What does not repeat has many blocks.
    lines = [json.dumps({"n": hash((number, "x")) % 10**18, "number": number}).encode() for number in range(50_000)]
    file.write_bytes(packed(b"\n".join(lines), packing)[:-50])

    reading, found = read(file)

    assert 0 < len(found) < len(lines)
    assert found == lines[: len(found)]
    assert "is cut short" in str(reading.failure)
    assert str(reading.failure).startswith(f"--from {file}: ")


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_a_file_that_is_not_what_its_name_says_is_named_with_what_to_do(packing: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{packing}"
    file.write_bytes(TEXT)

    reading, found = read(file)

    assert found == []
    assert "--format says what it is" in str(reading.failure)
    assert read(file, form="lines")[1] == LINES


def test_files_follow_each_other_and_the_last_line_of_each_is_whole(tmp_path: Path) -> None:
    for name, text in (("a", b"1\n2"), ("b.csv", b"x\n3\n"), ("c", b""), ("d", b"4")):
        (tmp_path / name).write_bytes(text)

    reading = Reading([input_of(str(tmp_path / name), None) for name in ("a", "b.csv", "c", "d")], threading.Event())

    found = [(Path(chunk.source).name, number, item) for chunk in reading for number, item in numbered(chunk)]
    assert found == [("a", 1, b"1"), ("a", 2, b"2"), ("b.csv", 2, b'{"x":"3"}'), ("d", 1, b"4")]


def numbered(chunk: Chunk) -> Iterator[tuple[int, bytes | SkipReason]]:
    return zip(chunk.numbers, chunk.items, strict=True)


def test_a_stop_inside_a_file_is_known_and_none_of_a_file_that_was_read(tmp_path: Path) -> None:
    file = tmp_path / "x.gz"
    # More than what is read at a time: the stop comes before the end of the packed bytes.
    file.write_bytes(packed(random.Random(1).randbytes(3_000_000), "gz"))
    stop = threading.Event()
    reading = Reading([input_of(str(file), None)], stop)

    chunks = iter(reading)
    next(chunks)
    stop.set()
    list(chunks)

    assert reading.cut
    assert reading.failure is None


def test_a_file_that_went_away_is_told_when_its_turn_comes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1\n")
    second.touch()
    reading = Reading([input_of(str(one), None) for one in (first, second)], threading.Event())
    second.unlink()

    assert [item for chunk in reading for item in chunk.items] == [b"1"]
    assert str(reading.failure) == f"--from {second}: No such file or directory"
