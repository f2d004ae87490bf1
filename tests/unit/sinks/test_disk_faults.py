"""Whatever number a disk or a store fails with, and wherever: one reaction, nothing half written, and on it goes."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.core.buffer import FlushPolicy
from batcher.dead_letters import directory
from batcher.dead_letters.directory import DirectoryDeadLetterQueue, read_letters
from batcher.disks import LASTING
from batcher.engine.pipeline import Pipeline
from batcher.engine.retry import RetryPolicy
from batcher.errors import (
    BatcherError,
    ConfigurationError,
    DeadLetterFailed,
    SinkMisconfigured,
    SinkUnavailable,
    Unreachable,
)
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import Block, DeadLetter, Partition, Record
from batcher.testing.sources import MemoryLog, MemorySource
from batcher.testing.values import make_block
from sinks.parquet import one_root
from sinks.parquet.arrow_store import REFUSALS, ArrowStore
from sinks.parquet.local import ADVICE, LocalStore

NUMBERS = sorted(errno.errorcode)
"""Every number that this system has."""

SOME = [
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ESTALE, errno.ENOMEM, errno.ETIMEDOUT),
    *(
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.EXDEV,
        errno.ENAMETOOLONG,
    ),
]
"""Those that file systems do fail with."""

SECRET = "country=SECRET/name.parquet"

TABLE = pa.table({"id": [1, 2, 3], "country": ["DE", "FR", "DE"]})

Call = Callable[..., Any]


def block() -> Block:
    return make_block(TABLE, coordinates=("_partition", "_offset", "_timestamp"))


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number), SECRET)


def expected(number: int) -> type[BatcherError]:
    return SinkMisconfigured if number in LASTING else SinkUnavailable


def files(root: Path, suffix: str) -> list[Path]:
    return sorted(path for path in root.rglob(f"*{suffix}") if path.is_file())


# What a number means.


def test_waiting_and_mending_are_told_apart_as_documented() -> None:
    waits = {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EAGAIN,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
        errno.ENOMEM,
    }
    halts = {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.EXDEV,
        errno.ELOOP,
    }
    assert not waits & LASTING
    assert halts <= LASTING
    assert ADVICE.keys() == LASTING


def test_every_number_has_one_reaction_in_every_store_and_none_shows_a_path(tmp_path: Path) -> None:
    for store in (LocalStore(tmp_path / "root"), ArrowStore.at("s3://bucket/events")):
        for number in NUMBERS:
            fault = store.fault(failure(number), "writing events[0] 0-2 to")
            assert type(fault) is expected(number), errno.errorcode[number]
            assert "SECRET" not in str(fault)
            assert str(fault).isprintable()


@pytest.mark.parametrize("kind", [PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError])
def test_a_class_without_a_number_counts_as_much(kind: type[OSError], tmp_path: Path) -> None:
    for store in (LocalStore(tmp_path / "root"), ArrowStore.at("s3://bucket/events")):
        assert type(store.fault(kind(SECRET), "writing")) is SinkMisconfigured
    assert type(ArrowStore.at("s3://bucket/events").fault(OSError(SECRET), "writing")) is SinkUnavailable


@pytest.mark.parametrize(
    "code", [*sorted(REFUSALS), "SLOW_DOWN", "INTERNAL_FAILURE", "REQUEST_EXPIRED", "UNKNOWN", "X"]
)
def test_every_code_of_an_object_store_has_one_reaction(code: str) -> None:
    error = OSError(f"When uploading '{SECRET}': AWS Error {code} during PutObject operation: {SECRET}")
    fault = ArrowStore.at("s3://bucket/events").fault(error, "writing")
    assert type(fault) is (SinkMisconfigured if code in REFUSALS else SinkUnavailable)
    assert code in str(fault)
    assert "SECRET" not in str(fault)


# Parquet in a directory.


@contextmanager
def broken(call: str, number: int, *, calls: int = 1) -> Iterator[None]:
    """Let the first calls of something fail. A file is closed all the same, as the kernel does it."""
    left = [calls]
    with pytest.MonkeyPatch.context() as patch:
        owner, _, name = call.rpartition(".")
        module: Any = {"os": os, "Path": Path}[owner]
        real = getattr(module, name)

        def fail(*arguments: Any, **named: Any) -> Any:
            if left[0] == 0:
                return real(*arguments, **named)
            left[0] -= 1
            if name == "close":
                real(*arguments, **named)
            if name == "write" and len(arguments[1]) > 1:
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise failure(number)

        patch.setattr(module, name, fail)
        yield


SEAMS = ["os.open", "os.write", "os.fsync", "os.close", "Path.replace", "Path.mkdir"]


@pytest.mark.parametrize("call", SEAMS)
@pytest.mark.parametrize("by", [(), ("country",)], ids=["plain", "hive"])
def test_any_number_at_every_step_of_a_write_leaves_nothing_and_the_repeat_works(
    call: str, by: tuple[str, ...], tmp_path: Path
) -> None:
    for number in SOME:
        root = tmp_path / errno.errorcode[number]
        sink = one_root({"path": str(root), "partition_by": by})
        sink.open()
        sink.pin(TABLE.schema)
        with broken(call, number), pytest.raises(BatcherError) as caught:
            sink.write(block())
        assert type(caught.value) is expected(number), errno.errorcode[number]
        assert "SECRET" not in str(caught.value)
        assert (files(root, ".parquet"), files(root, ".part")) == ([], [])
        sink.write(block())
        assert sum(pq.ParquetFile(path).metadata.num_rows for path in files(root, ".parquet")) == 3
        sink.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_a_directory_that_does_not_sync_leaves_a_file_that_the_repeat_replaces(number: int, tmp_path: Path) -> None:
    sink = one_root({"path": str(tmp_path / "root")})
    sink.open()
    sink.pin(TABLE.schema)
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise failure(number)
        fsync(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("reads /proc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(expected(number)):
            sink.write(block())
    sink.write(block())
    (found,) = files(tmp_path, ".parquet")
    assert pq.ParquetFile(found).metadata.num_rows == 3
    sink.close()


@pytest.mark.parametrize("call", ["os.open", "os.write", "os.fsync", "Path.hardlink_to"])
def test_any_number_while_a_schema_is_pinned_leaves_no_half_of_one(call: str, tmp_path: Path) -> None:
    for number in SOME:
        if call == "Path.hardlink_to" and number in {
            errno.EEXIST,
            errno.EPERM,
            errno.ENOTSUP,
            errno.ENOSYS,
            errno.EMLINK,
        }:
            continue  # not failures: somebody else was first, or there are no hard links
        root = tmp_path / errno.errorcode[number]
        sink = one_root({"path": str(root)})
        sink.open()
        with broken(call, number), pytest.raises(expected(number)):
            sink.pin(TABLE.schema)
        assert files(root, ".part") == []
        assert sink.pin(TABLE.schema).equals(TABLE.schema)
        sink.close()


@pytest.mark.parametrize("call", ["os.open", "Path.mkdir"])
def test_any_number_at_the_start_is_unreachable_or_a_wrong_setting(call: str, tmp_path: Path) -> None:
    for number in SOME:
        sink = one_root({"path": str(tmp_path / errno.errorcode[number])})
        with broken(call, number), pytest.raises(SinkMisconfigured if number in LASTING else Unreachable):
            sink.open()
        sink.open()
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_pipeline_waits_for_room_on_the_disk_and_puts_nothing_aside(tmp_path: Path) -> None:
    log = MemoryLog([Partition("events", 0)])
    log.produce(Partition("events", 0), [f'{{"id":{i}}}' for i in range(100)])
    sink = one_root({"path": str(tmp_path / "root")})
    queue = DirectoryDeadLetterQueue(str(tmp_path / "letters"))
    queue.open()
    with broken("os.write", errno.ENOSPC, calls=7):
        summary = Pipeline(
            MemorySource(log, until_eof=True),
            sink,
            JsonFormat(JsonOptions()),
            name="loaders",
            dead_letters=queue,
            flush=FlushPolicy(max_rows=30, max_wait_s=0.02),
            retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001),
        ).run()
    assert (summary.written, summary.dead_lettered) == (100, 0)
    found = [pq.ParquetFile(path).read()["id"] for path in files(tmp_path / "root", ".parquet")]
    assert sorted(one for column in found for one in column.to_pylist()) == list(range(100))
    assert list(read_letters(tmp_path / "letters")) == []


# Dead letters in a directory.


def letter(offset: int) -> DeadLetter:
    return DeadLetter(Record(Partition("events", 3), offset, 0, b"k", b"{}", ()), "decode", "syntax", "not JSON", None)


def stored(path: Path) -> list[int]:
    return [fields["offset"] for fields in read_letters(path)]


@pytest.mark.parametrize(
    ("call", "first"),
    [("os.open", True), ("os.write", True), ("os.write", False), ("os.fsync", True), ("os.fsync", False)],
)
def test_any_number_makes_a_letter_fail_whole_and_the_repeat_stores_it_once(
    call: str, first: bool, tmp_path: Path
) -> None:
    for number in SOME:
        path = tmp_path / errno.errorcode[number]
        queue = DirectoryDeadLetterQueue(str(path))
        queue.open()
        before = [] if first else [0]
        if before:
            queue.send([letter(0)])
        with broken(call, number), pytest.raises(DeadLetterFailed, match=r"2 dead letters .* events\[3\] offset 1"):
            queue.send([letter(1), letter(2)])
        assert stored(path) == before
        queue.send([letter(1), letter(2)])
        assert stored(path) == [*before, 1, 2]
        queue.close()


def test_a_letter_that_cannot_even_be_taken_back_is_still_a_failure(tmp_path: Path) -> None:
    queue = DirectoryDeadLetterQueue(str(tmp_path))
    queue.open()
    queue.send([letter(0)])
    with broken("os.fsync", errno.EIO), pytest.MonkeyPatch.context() as patch:

        def fail(_file: int, _size: int) -> None:
            raise failure(errno.EROFS)

        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(DeadLetterFailed):
            queue.send([letter(1)])
    queue.send([letter(1)])
    # It may be there twice then, with the same coordinates; it is never missing.
    assert set(stored(tmp_path)) == {0, 1}


def test_any_number_at_the_start_of_the_queue_is_unreachable_or_a_wrong_setting(tmp_path: Path) -> None:
    for number in SOME:
        queue = DirectoryDeadLetterQueue(str(tmp_path))
        with broken("os.fsync", number), pytest.raises(ConfigurationError if number in LASTING else Unreachable):
            queue.open()
        queue.open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("linked", [True, False])
def test_a_file_of_somebody_else_is_neither_continued_nor_replaced(
    linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "now", lambda: datetime(2026, 11, 21, tzinfo=UTC))
    queue = DirectoryDeadLetterQueue(str(tmp_path / "letters"))
    queue.open()
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    name = tmp_path / "letters" / f"letters-20261121T000000Z-{queue._stamp}-000001.ndjson"
    name.symlink_to(victim) if linked else name.write_text("precious\n")
    with pytest.raises(DeadLetterFailed, match="exists"):
        queue.send([letter(1)])
    assert name.read_text() == victim.read_text() == "precious\n"
    queue.send([letter(1)])
    assert name.read_text() == "precious\n"
    name.unlink()
    assert stored(tmp_path / "letters") == [1]


def test_a_full_disk_under_the_letters_recovers_when_space_returns(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        queue = DirectoryDeadLetterQueue(str(tmp_path / "letters"))
        queue.open()
        queue.send([letter(1)])
        ballast = tmp_path / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(DeadLetterFailed, match="No space left"):
            queue.send([letter(offset) for offset in range(2, 100)])
        assert stored(tmp_path / "letters") == [1]
        with pytest.raises(Unreachable, match="No space left"):
            DirectoryDeadLetterQueue(str(tmp_path / "letters")).open()
        ballast.unlink()
        queue.send([letter(2)])
        assert stored(tmp_path / "letters") == [1, 2]
        queue.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
