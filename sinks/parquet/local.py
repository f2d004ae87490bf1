"""Parquet files in a directory of this machine, or in a mounted one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa

from batcher.disks import passes
from batcher.errors import SinkMisconfigured, SinkUnavailable
from sinks.parquet.durable import sync_directory
from sinks.parquet.files import HIDDEN, SUFFIX
from sinks.parquet.stores import Fault
from sinks.parquet.workspace import Workspace

ADVICE: Final = {
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "mount it writable, or choose another --parquet.path",
    errno.ENOTDIR: "a file is where a directory should be; choose another --parquet.path",
    errno.EEXIST: "a file is where a directory should be; choose another --parquet.path",
    errno.EISDIR: "a directory is where the file should be; remove it",
    errno.ENOENT: "it has been removed, or is no longer mounted",
    errno.ELOOP: "untangle the symbolic links",
    errno.EXDEV: "all of the root has to be on one file system; replace the mount or link inside it",
    errno.ENAMETOOLONG: "choose a shorter --parquet.path; names of topics have a limit of 199 bytes here",
    errno.EFBIG: "raise the limit on file sizes, or lower --batch.max-bytes",
    errno.ENODEV: "choose another --parquet.path",
    errno.ENXIO: "choose another --parquet.path",
}
"""What to do about each failure in `disks.LASTING`; any other is worth another try."""

PATH_MAX: Final = 4_096
"""Bytes of a path, with the zero at its end, that the kernel takes."""


class LocalStore:
    """Write each file under a temporary name, fsync it, rename it, and fsync every directory above it.

    Any number of threads may publish at the same time, each its own files.
    """

    def __init__(self, root: Path, workspace: Workspace | None = None) -> None:
        """Take a workspace that the caller opens and closes, or have one of its own in the root."""
        self._root = root.expanduser().absolute()
        self._identity: tuple[int, int] | None = None
        self._made: list[Path] = []
        self._shares = workspace is not None
        self._workspace = workspace or Workspace(self._root)
        self._folds_case = False

    @property
    def label(self) -> str:
        return str(self._root)

    @property
    def remote(self) -> bool:
        return False

    @property
    def folds_case(self) -> bool:
        return self._folds_case

    def below(self, name: str) -> LocalStore:
        return LocalStore(self._root / name, self._workspace)

    def open(self) -> None:
        missing = [path for path in (self._root, *self._root.parents) if not path.exists()]
        self._made = missing
        self._root.mkdir(parents=True, exist_ok=True)
        self._root = self._root.resolve()
        if not self._shares:
            self._workspace = Workspace(self._root)
        for path in missing:
            sync_directory(path.parent)
        with suppress(PermissionError):  # created by another user above a directory that we may not read
            sync_directory(self._root.parent)
        if self._shares:
            self._workspace.restore()
        else:
            self._workspace.open()
        here, there = self._root.stat(), self._workspace.directory.stat()
        if here.st_dev != there.st_dev:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self._identity = (here.st_dev, here.st_ino)
        probe = self._workspace.directory / "a"
        probe.mkdir()
        self._folds_case = probe.with_name("A").exists()
        probe.rmdir()

    def close(self) -> None:
        self._identity = None
        if not self._shares:
            self._workspace.close()
        for path in self._made:  # a check, or a run without a record, leaves no directories behind
            try:
                path.rmdir()
            except OSError:
                break
        self._made = []

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, name: str, content: bytes) -> None:
        self._check_identity()
        self._workspace.restore()
        temporary = self._workspace.stage(content)
        try:
            with suppress(FileExistsError):
                self._link(temporary, self._root / name)
        finally:
            with suppress(OSError):
                temporary.unlink()
        self._workspace.names.sync(self._root)

    def replace(self, name: str, content: bytes) -> None:
        self._check_identity()
        self._workspace.restore()
        self._workspace.stage(content).replace(self._root / name)
        self._workspace.names.sync(self._root)

    def refused(self, directories: Sequence[str], name: str) -> list[str]:
        self._check_identity()
        self._workspace.restore()
        too_long = []
        for directory in directories:
            path = self._root / directory
            if len(os.fsencode(path / name)) >= PATH_MAX:
                too_long.append(directory)
                continue
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                too_long.append(directory)
                continue
            if not path.resolve().is_relative_to(self._root):
                raise SinkMisconfigured(f"a directory in {self.label} is a link to somewhere else: remove the link")
        return too_long

    def publish(self, files: Iterable[tuple[str, pa.Buffer]]) -> None:
        finals: list[Path] = []

        def contents() -> Iterator[pa.Buffer]:
            for name, content in files:
                finals.append(self._root / name)
                yield content

        temporaries = self._workspace.stage_all(contents())
        try:
            for temporary, final in zip(temporaries, finals, strict=True):
                temporary.replace(final)
        except BaseException:
            for temporary in temporaries:
                with suppress(OSError):
                    temporary.unlink()
            raise
        # All the way up each time: a directory that an earlier attempt or process made and did not sync looks old.
        for directory in sorted({above for final in finals for above in self._above(final)}, reverse=True):
            self._workspace.names.sync(directory)

    def remove(self, names: Sequence[str]) -> None:
        paths = [self._root / name for name in names]
        for path in paths:
            path.unlink(missing_ok=True)
        for directory in {path.parent for path in paths}:
            self._workspace.names.sync(directory)

    def present(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if (self._root / name).exists()]

    def opened(self, name: str) -> BinaryIO | None:
        try:
            return (self._root / name).open("rb")
        except FileNotFoundError:
            return None

    def names(self) -> Iterator[str]:
        self._check_identity()
        # Strings, not paths: with them a root of 100,000 files takes a tenth of the time.
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                entries = os.scandir(self._root / prefix)
            except FileNotFoundError:
                if not prefix:
                    raise
                continue  # removed since it was listed
            with entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith(HIDDEN):
                            waiting.append(f"{prefix}{entry.name}/")
                    elif entry.name.endswith(SUFFIX):
                        yield prefix + entry.name

    def between(self, spans: Sequence[tuple[str, str]]) -> None:
        """Return None: a directory is read whole anyway."""
        del spans

    def entries(self) -> Iterator[str]:
        with suppress(FileNotFoundError), os.scandir(self._root) as entries:
            for entry in entries:
                yield f"{entry.name}/" if entry.is_dir() else entry.name

    def clear(self) -> None:
        for entry in self.entries():
            path = self._root / entry
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def fault(self, error: OSError, doing: str) -> Fault:
        number = error.errno or 0
        what = f"{doing} {self.label}: {os.strerror(number) if number else type(error).__name__}"
        if passes(error):
            return SinkUnavailable(what)
        return SinkMisconfigured(f"{what}: {ADVICE.get(number, 'choose another --parquet.path')}")

    def _above(self, path: Path) -> Iterator[Path]:
        while path != self._root:
            path = path.parent
            yield path

    def _check_identity(self) -> None:
        # A root that was unmounted or moved must not be made anew in the place below the mount.
        status = self._root.stat()
        if (status.st_dev, status.st_ino) != self._identity:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    @staticmethod
    def _link(temporary: Path, final: Path) -> None:
        try:
            final.hardlink_to(temporary)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            # No hard links (FAT, some FUSE): two workers that create it in the same instant both believe they did, and
            # the later one's stays.
            if not final.exists():
                temporary.replace(final)
