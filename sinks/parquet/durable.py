"""Make files and the names in directories durable, for several threads at a time.

A disk takes as long for one fsync as for several that it is asked for together. So the files of a block are flushed
side by side, and threads that want the names of one directory on the disk share an fsync of it.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SIDE_BY_SIDE: Final = 8
"""Files of one block that are flushed at the same time."""


@dataclass(slots=True)
class _Directory:
    """Count the fsyncs of a directory. Each has a number, and one is under way at most."""

    begun: int = 0
    ended: int = 0
    wanted_by: int = 0
    failures: dict[int, OSError] = field(default_factory=dict)


class DirectorySync:
    """Make the names in directories durable. Any number of threads.

    A name is durable after an fsync that began when the name was there. One that is under way may have passed it over,
    so who comes meanwhile waits for the next, which serves all of them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._directories: dict[Path, _Directory] = {}

    def sync(self, path: Path) -> None:
        """Return when the names that are in a directory now are durable. Raise OSError where that is not certain."""
        with self._changed:
            directory = self._directories.setdefault(path, _Directory())
            directory.wanted_by += 1
            mine = directory.begun + 1
        try:
            failure = self._served(path, directory, mine)
        finally:
            with self._changed:
                directory.wanted_by -= 1
                if not directory.wanted_by:
                    del self._directories[path]
        if failure is not None:
            # Each thread gets an error of its own: it adds to the traceback.
            raise OSError(failure.errno, failure.strerror) from failure

    def _served(self, path: Path, directory: _Directory, mine: int) -> OSError | None:
        with self._changed:
            self._changed.wait_for(lambda: directory.ended >= mine or directory.begun == directory.ended)
            if directory.ended >= mine:
                return directory.failures.get(mine)
            directory.begun = mine
        failure: OSError | None = OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            sync_directory(path)
            failure = None
        except OSError as error:
            failure = error
        finally:
            with self._changed:
                directory.ended = mine
                if failure is not None:
                    directory.failures[mine] = failure
                self._changed.notify_all()
        return failure


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no fsync of directories, and need none
            raise
    finally:
        os.close(descriptor)


def flush(descriptors: Sequence[int]) -> None:
    """Make the content of open files durable. Raise OSError where one is not, when all attempts have ended.

    A failed fsync is not repeated: the kernel may have dropped the pages and would report success.
    """
    if len(descriptors) == 1:
        os.fsync(descriptors[0])
        return
    with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(descriptors)), thread_name_prefix="fsync") as pool:
        for done in [pool.submit(os.fsync, descriptor) for descriptor in descriptors]:
            done.result()
