"""What happens to files in a local directory when disks fill, processes die and paths are wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.errors import BatcherError, RowsRejected, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.records import Block
from batcher.testing.values import make_block
from sinks.parquet import one_root
from sinks.parquet import workspace as workspace_module
from sinks.parquet.schemas import PIN
from sinks.parquet.sink import ParquetSink
from sinks.parquet.workspace import Workspace

TABLE = pa.table({"id": [1, 2, 3], "country": ["DE", "FR", "DE"]})

TRANSIENT = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ESTALE, errno.ENOMEM]
LASTING = [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EXDEV, errno.EPERM, errno.ENOENT, errno.EISDIR]


def block(**arguments: Any) -> Block:
    return make_block(TABLE, coordinates=("_partition", "_offset", "_timestamp"), **arguments)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def sink(root: Path) -> Iterator[ParquetSink]:
    made = one_root({"path": str(root)})
    made.open()
    yield made
    made.close()


def finished(root: Path) -> list[Path]:
    return sorted(root.rglob("*.parquet"))


def unfinished(root: Path) -> list[Path]:
    return sorted(root.rglob("*.part"))


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), "country=SECRET/name.parquet")

    return fail


@pytest.mark.parametrize("call", ["os.write", "os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("number", TRANSIENT)
def test_what_may_pass_is_reported_as_unavailable_and_leaves_nothing(
    root: Path, sink: ParquetSink, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    sink.pin(TABLE.schema)
    with monkeypatch.context() as patch:
        patch.setattr(call, failing(number))
        with pytest.raises(SinkUnavailable, match=r"events\[0\] 0-2") as caught:
            sink.write(block())
    assert "SECRET" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert (finished(root), unfinished(root)) == ([], [])
    sink.write(block())
    assert len(finished(root)) == 1


@pytest.mark.parametrize("number", LASTING)
def test_what_does_not_pass_is_reported_as_misconfigured(
    root: Path, sink: ParquetSink, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sink.pin(TABLE.schema)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", failing(number))
        with pytest.raises(SinkMisconfigured):
            sink.write(block())
    assert (finished(root), unfinished(root)) == ([], [])


def test_a_full_disk_recovers_when_space_returns(root: Path) -> None:
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    sink = one_root({"path": str(root)})
    try:
        sink.open()
        sink.pin(TABLE.schema)
        ballast = root / "_ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(SinkUnavailable, match="No space left"):
            sink.write(block())
        assert (finished(root), unfinished(root)) == ([], [])
        ballast.unlink()
        sink.write(block())
        assert pq.read_table(finished(root)[0]).num_rows == 3
    finally:
        sink.close()
        subprocess.run(["umount", root], check=True)


def test_a_failed_fsync_is_followed_by_a_new_file_and_not_by_another_fsync(
    root: Path, sink: ParquetSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.pin(TABLE.schema)
    synced: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        if len(synced) == 1:
            raise OSError(errno.EIO, "lost pages")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    with pytest.raises(SinkUnavailable):
        sink.write(block())
    assert len(synced) == 1
    sink.write(block())
    assert synced[1] != synced[0]
    assert synced[1].endswith(".part")


def test_the_file_is_durable_before_its_name_and_every_directory_above_before_write_returns(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = one_root({"path": str(root), "partition_by": ("country", "id"), "coordinates": "default"})
    sink.open()
    sink.pin(TABLE.schema)
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("fsync file" if path.suffix == ".part" else f"fsync {path.relative_to(root)}")
        fsync(descriptor)

    def recorded_replace(path: Path, target: Path) -> Path:
        events.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    sink.write(block())
    sink.close()
    assert events[:6] == ["fsync file"] * 3 + ["replace"] * 3
    assert sorted(events[6:]) == [
        "fsync .",
        "fsync country=DE",
        "fsync country=DE/id=1",
        "fsync country=DE/id=3",
        "fsync country=FR",
        "fsync country=FR/id=2",
    ]


def test_an_unfinished_block_in_several_directories_leaves_no_temporary_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = one_root({"path": str(root), "partition_by": ("country",)})
    sink.open()
    replace = Path.replace

    def second_fails(path: Path, target: Path) -> Path:
        return failing(errno.EIO)() if "country=FR" in str(target) else replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", second_fails)
        with pytest.raises(SinkUnavailable):
            sink.write(block())
    assert unfinished(root) == []
    sink.write(block())
    assert [path.parent.name for path in finished(root)] == ["country=DE", "country=FR"]
    sink.close()


def test_unfinished_files_are_private_and_finished_ones_are_like_any_other(
    root: Path, sink: ParquetSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    umask = os.umask(0o022)
    try:
        with monkeypatch.context() as patch:
            seen: list[int] = []
            replace = Path.replace

            def recorded(path: Path, target: Path) -> Path:
                seen.append(path.parent.stat().st_mode & 0o777)
                return replace(path, target)

            patch.setattr(Path, "replace", recorded)
            sink.write(block())
        assert seen == [0o700]
        assert finished(root)[0].stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(umask)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_place_of_a_directory_is_misconfigured(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    with pytest.raises(SinkMisconfigured, match="a file is where a directory should be"):
        one_root({"path": str(file / below)}).open()
    assert file.read_bytes() == b"precious"


def test_a_file_in_the_place_of_a_hive_directory_is_misconfigured(root: Path) -> None:
    sink = one_root({"path": str(root), "partition_by": ("country",)})
    sink.open()
    (root / "country=DE").write_bytes(b"")
    with pytest.raises(SinkMisconfigured, match="a file is where a directory should be"):
        sink.write(block())
    sink.close()


def test_a_directory_in_the_place_of_a_file_is_misconfigured(root: Path, sink: ParquetSink) -> None:
    sink.write(block())
    (path,) = finished(root)
    path.unlink()
    path.mkdir()
    with pytest.raises(SinkMisconfigured):
        sink.write(block())


def test_a_full_disk_at_the_start_is_unreachable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(errno.ENOSPC))
    with pytest.raises(Unreachable):
        one_root({"path": str(root)}).open()


def test_a_temporary_directory_on_another_file_system_is_found_at_open(root: Path) -> None:
    shm = Path("/dev/shm")
    root.mkdir()
    if not shm.is_dir() or shm.stat().st_dev == root.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    other = shm / f"batcher-test-{os.getpid()}"
    other.mkdir()
    (root / "_tmp").symlink_to(other)
    try:
        with pytest.raises(SinkMisconfigured, match="one file system"):
            one_root({"path": str(root)}).open()
        assert list(other.iterdir()) == []
    finally:
        other.rmdir()


def test_a_root_that_goes_away_is_not_made_anew_and_is_used_when_it_is_back(root: Path) -> None:
    sink = one_root({"path": str(root), "partition_by": ("country",)})
    sink.open()
    sink.write(block())
    root.rename(root.with_name("unmounted"))
    with pytest.raises(SinkMisconfigured, match="no longer mounted"):
        sink.write(block(first_offset=3))
    assert not root.exists()
    root.mkdir()
    with pytest.raises(SinkMisconfigured, match="no longer mounted"):
        sink.write(block(first_offset=3))
    root.rmdir()
    root.with_name("unmounted").rename(root)
    sink.write(block(first_offset=3))
    assert len(finished(root)) == 4
    sink.close()


def test_a_tidied_temporary_directory_is_made_again(root: Path, sink: ParquetSink) -> None:
    sink.write(block())
    for path in sorted((root / "_tmp").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (root / "_tmp").rmdir()
    sink.write(block(first_offset=3))
    assert len(finished(root)) == 2


def test_a_hive_directory_that_leads_out_of_the_root_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    sink = one_root({"path": str(root), "partition_by": ("country",)})
    sink.open()
    (root / "country=DE").symlink_to(outside)
    with pytest.raises(SinkMisconfigured, match="link to somewhere else"):
        sink.write(block())
    assert list(outside.iterdir()) == []
    sink.close()


@pytest.mark.parametrize("room", [-1_000, 20])  # for the name of the file, which has 70 bytes
def test_a_path_too_long_by_its_values_rejects_their_rows_before_anything_is_written(root: Path, room: int) -> None:
    names = [f"c{number:02d}" for number in range(20)]
    length = (4_095 - room - len(str(root))) // len(names) - len("/c00=")
    table = pa.table({name: ["x", "y" * length, "x"] for name in names} | {"id": [1, 2, 3]})
    sink = one_root({"path": str(root), "partition_by": names})
    sink.open()
    with pytest.raises(RowsRejected) as caught:
        sink.write(make_block(table, coordinates=("_partition", "_offset", "_timestamp")))
    assert [one.position for one in caught.value.rejections] == [1]
    assert "yyy" not in str(caught.value)
    assert finished(root) == []
    sink.close()


def test_a_file_system_with_shorter_names_rejects_the_rows_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = one_root({"path": str(root), "partition_by": ("country",)})
    sink.open()
    sink.pin(TABLE.schema)
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: Any, **named: Any) -> None:
        if path.name == "country=FR":
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        mkdir(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RowsRejected) as caught:
        sink.write(block())
    assert [one.position for one in caught.value.rejections] == [1]
    assert finished(root) == []
    sink.close()


def test_a_topic_with_a_name_too_long_for_a_file_is_no_records_fault(sink: ParquetSink) -> None:
    with pytest.raises(SinkMisconfigured, match="199 bytes"):
        sink.write(block(partition=block().ranges[0].partition._replace(topic="t" * 249)))


def test_nothing_is_left_of_a_check_or_a_run_without_records(tmp_path: Path) -> None:
    sink = one_root({"path": str(tmp_path / "a" / "b")})
    sink.open()
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_close_keeps_what_was_there_and_what_was_written(root: Path) -> None:
    root.mkdir()
    sink = one_root({"path": str(root)})
    sink.open()
    sink.close()
    assert root.is_dir()
    sink = one_root({"path": str(root)})
    sink.open()
    sink.write(block())
    sink.close()
    assert min(path.name for path in root.iterdir()) == PIN
    assert len(list(root.iterdir())) == 2


CRASH = """
import os, sys
from pathlib import Path
from sinks.parquet.workspace import Workspace
space = Workspace(Path(sys.argv[1]))
space.open()
space.stage(b"half of a file")
print("ready", flush=True)
sys.stdin.readline()
os._exit(9)
"""


def test_files_of_dead_processes_are_removed_at_open_and_those_of_live_ones_are_not(root: Path) -> None:
    root.mkdir()
    command = [sys.executable, "-c", CRASH, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        sink = one_root({"path": str(root)})
        sink.open()
        assert len(unfinished(root)) == 1
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == 9
    assert len(unfinished(root)) == 1
    second = one_root({"path": str(root)})
    second.open()
    assert unfinished(root) == []
    assert len(list((root / "_tmp").glob("*.lock"))) == 2
    sink.write(block())
    second.close()
    sink.close()


def test_files_in_the_temporary_directory_that_are_not_ours_stay(root: Path) -> None:
    (root / "_tmp").mkdir(parents=True)
    (root / "_tmp" / "notes.txt").write_text("mine")
    (root / "_tmp" / "0123").mkdir()
    sink = one_root({"path": str(root)})
    sink.open()
    sink.close()
    assert sorted(path.name for path in (root / "_tmp").iterdir()) == ["0123", "notes.txt"]


def test_a_lock_that_was_cleaned_away_before_it_was_taken_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir()
    locked = workspace_module.locked
    taken: list[int] = []

    def cleaned_first(descriptor: int) -> bool | None:
        taken.append(descriptor)
        if len(taken) == 1:
            next((root / "_tmp").glob("*.lock")).unlink()
        return locked(descriptor)

    monkeypatch.setattr(workspace_module, "locked", cleaned_first)
    space = Workspace(root)
    space.open()
    assert len(taken) == 2
    assert len(list((root / "_tmp").glob("*.lock"))) == 1
    space.close()


def test_without_locks_nothing_is_cleaned_and_everything_else_works(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "_tmp" / ("a" * 32)).mkdir(parents=True)
    (root / "_tmp" / ("a" * 32 + ".lock")).touch()
    monkeypatch.setattr("fcntl.flock", failing(errno.ENOLCK))
    sink = one_root({"path": str(root)})
    sink.open()
    sink.write(block())
    sink.close()
    assert (root / "_tmp" / ("a" * 32)).is_dir()


def test_a_schema_is_pinned_whole_or_not_at_all_and_by_one_of_two(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = one_root({"path": str(root)}), one_root({"path": str(root)})
    first.open()
    second.open()
    link = Path.hardlink_to

    def beaten(path: Path, target: Path) -> None:
        monkeypatch.setattr(Path, "hardlink_to", link)
        second.pin(pa.schema([("theirs", pa.int64())]))
        link(path, target)

    monkeypatch.setattr(Path, "hardlink_to", beaten)
    assert first.pin(pa.schema([("ours", pa.int64())])).names == ["theirs"]
    assert unfinished(root) == []
    first.close()
    second.close()


def test_a_file_system_without_hard_links_can_be_pinned(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", failing(errno.EPERM))
    sink = one_root({"path": str(root)})
    sink.open()
    assert sink.pin(TABLE.schema).equals(TABLE.schema)
    assert (root / PIN).exists()
    sink.close()


def test_writing_before_open_or_after_close_is_an_error_of_the_contract(root: Path) -> None:
    sink = one_root({"path": str(root)})
    with pytest.raises(BatcherError):
        sink.write(block())
    sink.open()
    sink.close()
    with pytest.raises(BatcherError):
        sink.write(block())
    assert not root.exists()
