"""A private directory for unfinished files, and the removal of directories that dead processes left."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Final
from uuid import uuid4

import pyarrow as pa

from sinks.parquet.durable import DirectorySync, flush

TEMPORARY: Final = "_tmp"
"""The directory in the root; readers of datasets skip names with `_`."""

# Not `.parquet`: globs such as `**/*.parquet` do look into directories with `_`.
TEMPORARY_SUFFIX: Final = ".part"

LOCK_SUFFIX: Final = ".lock"

OPEN_AT_ONCE: Final = 32
"""Files of a block that are open at the same time: a process may have 1,024 by default."""

INSTANCE: Final = re.compile(r"[0-9a-f]{32}")

# Some network file systems have no locks. Then dead processes cannot be told from living ones, and nothing is removed.
NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Workspace:
    """Own `_tmp/<id>/` below a root, for as long as the lock on `_tmp/<id>.lock` is held.

    The lock tells living processes from dead ones: the kernel drops it with the process, however that ends. The lock
    file is there before the directory and goes after it, so a directory without one has no owner either.
    """

    def __init__(self, root: Path) -> None:
        self._parent = root / TEMPORARY
        self._id = ""
        self._lock: int | None = None
        self._numbers = count()
        self.names = DirectorySync()

    @property
    def directory(self) -> Path:
        """Return the directory of this instance."""
        return self._parent / self._id

    def open(self) -> None:
        """Take a directory of its own, then remove those of dead owners."""
        while self._lock is None:
            # A worker that ends at this moment may remove the empty directory, and with it a root it had made.
            self._parent.mkdir(parents=True, exist_ok=True)
            self._id = uuid4().hex
            with suppress(FileNotFoundError):
                self._lock = claimed(self._parent / (self._id + LOCK_SUFFIX), os.O_CREAT | os.O_EXCL)
        self.restore()
        for entry in sorted({path.name.removesuffix(LOCK_SUFFIX) for path in self._parent.iterdir()}):
            if INSTANCE.fullmatch(entry) and entry != self._id:
                self._remove_orphan(entry)

    def restore(self) -> None:
        """Make the directory, again if it was removed while it was empty."""
        self._parent.mkdir(exist_ok=True)
        self.directory.mkdir(mode=0o700, exist_ok=True)

    def stage(self, content: pa.Buffer | bytes) -> Path:
        """Write a new file, flushed to the disk, and return its path; on failure nothing is left. See `stage_all`."""
        [path] = self.stage_all([content])
        return path

    def stage_all(self, contents: Iterable[pa.Buffer | bytes]) -> list[Path]:
        """Write new files, flushed to the disk, and return their paths; on failure nothing is left. Any thread.

        They have the permissions of finished ones, since they are going to be some. The directory around them (0700)
        keeps them private. Where a flush fails the block comes again from memory: see `durable.flush`.
        """
        paths: list[Path] = []
        try:
            every = iter(contents)
            while some := list(islice(every, OPEN_AT_ONCE)):
                self._write(some, paths)
        except BaseException:
            for path in paths:
                with suppress(OSError):
                    path.unlink()
            raise
        return paths

    def _write(self, contents: Sequence[pa.Buffer | bytes], paths: list[Path]) -> None:
        descriptors: list[int] = []
        try:
            for content in contents:
                path = self.directory / f"{next(self._numbers)}{TEMPORARY_SUFFIX}"
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptors.append(os.open(path, flags, 0o666))
                paths.append(path)
                rest = memoryview(content).cast("B")
                while rest:
                    rest = rest[os.write(descriptors[-1], rest) :]
            flush(descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        """Remove the directory and release the lock. A second call is harmless."""
        if self._lock is None:
            return
        descriptor, self._lock = self._lock, None
        shutil.rmtree(self.directory, ignore_errors=True)
        with suppress(OSError):
            (self._parent / (self._id + LOCK_SUFFIX)).unlink()
        os.close(descriptor)
        with suppress(OSError):  # another process is at work in it
            self._parent.rmdir()

    def _remove_orphan(self, instance: str) -> None:
        path = self._parent / (instance + LOCK_SUFFIX)
        try:
            lock = claimed(path, 0)
        except FileNotFoundError:
            shutil.rmtree(self._parent / instance, ignore_errors=True)
            return
        except OSError:
            return  # another user's, perhaps: it does no harm
        if lock is None:
            return  # alive
        try:
            if locked(lock):  # and not None: without locks nothing is known
                shutil.rmtree(self._parent / instance, ignore_errors=True)
                with suppress(OSError):
                    path.unlink()
        finally:
            os.close(lock)


def claimed(path: Path, flags: int) -> int | None:
    """Return a descriptor that holds the lock of a file, or None when another process has it or removed the file."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        if locked(descriptor) is False or not same_file(descriptor, path):
            os.close(descriptor)
            return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def locked(descriptor: int) -> bool | None:
    """Take the lock of an open file: True when ours, False when another's, None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def same_file(descriptor: int, path: Path) -> bool:
    """Return whether a path still names the file that is open: between open and lock it may have been removed."""
    try:
        named = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))
