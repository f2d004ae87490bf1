"""Names of a directory are durable after an fsync that began when they were there; threads share one."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sinks.parquet import durable
from sinks.parquet.durable import DirectorySync
from sinks.parquet.workspace import OPEN_AT_ONCE, Workspace
from tests.harness.patience import wait_for


class Disk:
    """Hold back each fsync of a directory until it is let go, and count them."""

    def __init__(self) -> None:
        self.under_way = 0
        self.done = 0
        self.go = threading.Semaphore(0)
        self.failing = False

    def sync(self, _: Path) -> None:
        self.under_way += 1
        assert self.go.acquire(timeout=20)
        self.done += 1
        if self.failing:
            raise OSError(5, "broken")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    one = Disk()
    monkeypatch.setattr(durable, "sync_directory", one.sync)
    return one


def comes(count: int, sync: DirectorySync, path: Path) -> Callable[[], bool]:
    return lambda: sync._directories[path].wanted_by == count


def test_who_comes_while_an_fsync_is_under_way_waits_for_the_next_one_which_serves_all(
    disk: Disk, tmp_path: Path
) -> None:
    names = DirectorySync()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(names.sync, tmp_path)
        wait_for(lambda: disk.under_way == 1, "the first fsync")
        others = [pool.submit(names.sync, tmp_path) for _ in range(5)]
        wait_for(comes(6, names, tmp_path), "the others")
        disk.go.release()
        first.result(20)
        wait_for(lambda: disk.under_way == 2, "the second fsync")
        # The first began before they came, so it says nothing of their names.
        assert not any(other.done() for other in others)
        disk.go.release()
        for other in others:
            other.result(20)

    assert disk.done == 2
    assert names._directories == {}


def test_an_fsync_that_fails_fails_for_all_whom_it_was_for_and_for_nobody_after(disk: Disk, tmp_path: Path) -> None:
    names = DirectorySync()
    disk.failing = True
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(names.sync, tmp_path)
        wait_for(lambda: disk.under_way == 1, "the first fsync")
        others = [pool.submit(names.sync, tmp_path) for _ in range(2)]
        wait_for(comes(3, names, tmp_path), "the others")
        disk.go.release(2)
        for one in (first, *others):
            with pytest.raises(OSError, match="broken"):
                one.result(20)
    disk.failing = False
    disk.go.release()
    names.sync(tmp_path)

    assert disk.done == 3


def test_directories_do_not_wait_for_each_other(disk: Disk, tmp_path: Path) -> None:
    names = DirectorySync()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(names.sync, tmp_path / name) for name in "ab"]
        wait_for(lambda: disk.under_way == 2, "both")
        disk.go.release(2)
        for one in both:
            one.result(20)


def test_every_file_of_a_block_is_flushed_before_one_has_its_name_and_a_flush_that_fails_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    original = os.fsync

    def counted(descriptor: int) -> None:
        original(descriptor)
        flushed.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", counted)
    workspace = Workspace(tmp_path)
    workspace.open()
    contents = [b"%d" % number for number in range(OPEN_AT_ONCE + 3)]
    paths = workspace.stage_all(contents)
    assert [path.read_bytes() for path in paths] == contents
    assert {path.stat().st_ino for path in paths} <= set(flushed)

    def broken(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == 7:
            raise OSError(5, "broken")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        workspace.stage_all([*contents, b"seven b"])
    assert sorted(workspace.directory.iterdir()) == sorted(paths)
    workspace.close()
