"""Dead letters in a directory: one JSON object a line, on the disk before `send` returns.

Each process writes files of its own, so that nothing has to be locked. It starts another file every day (UTC) and every
64 MiB. Sorted by name, the files are in the order of their creation. After a crash the last line of a file may be half
written: that dead letter was never acknowledged, and `read_letters` skips it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import msgspec

from batcher.dead_letters.encoding import coordinates, now, one_line, to_fields
from batcher.disks import passes
from batcher.errors import ConfigurationError, DeadLetterFailed, Unreachable
from batcher.records import DeadLetter

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""After this size another file is begun: an editor still opens it whole, and a bad day makes only a few."""

SUFFIX: Final = ".ndjson"


class DirectoryDeadLetterQueue:
    """Store dead letters as NDJSON files in a local directory, readable by their owner only.

    `path` is created where it is missing. `group` is written beside each dead letter. A file that has grown past
    `max_file_bytes` is left for a new one.
    """

    def __init__(self, path: str, group: str = "", max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = Path(path)
        self._remote = "://" in path
        self._group = group
        self._max_file_bytes = max_file_bytes
        self._file: int | None = None
        self._day: date | None = None
        self._size = 0
        self._count = 0
        self._stamp = f"{os.getpid():07d}-{secrets.token_hex(4)}"

    def open(self) -> None:
        """Create the directory and prove, with a file that is removed again, that it can be written to.

        Raise ConfigurationError for a path that cannot work, Unreachable for a full or failing disk.
        """
        if self._remote:
            raise ConfigurationError(f"--dlq.path {self._path}: dead letters are kept in a local directory, not a URI")
        try:
            _make_directory(self._path)
            with tempfile.TemporaryFile(dir=self._path) as probe:
                probe.write(b"\n")
                probe.flush()
                os.fsync(probe.fileno())
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigurationError(
                f"--dlq.path {self._path}: there is a file where the directory should be; name another path"
            ) from error
        except (OSError, ValueError) as error:
            text = one_line(f"--dlq.path {self._path}: cannot store dead letters there: {_reason(error)}")
            if isinstance(error, OSError) and passes(error):
                raise Unreachable(text) from error
            raise ConfigurationError(text) from error

    def send(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        failed_at = now()
        lines = b"".join(msgspec.json.encode(to_fields(letter, self._group, failed_at)) + b"\n" for letter in letters)
        try:
            if self._file is None or self._day != failed_at.date() or self._size >= self._max_file_bytes:
                self._begin()
                self._day = failed_at.date()
            self._append(lines)
            if self._removed():
                # The directory was cleaned meanwhile: what was just written has no name any more.
                self._begin()
                self._append(lines)
        except OSError as error:
            # The kernel may have dropped pages it could not write, so no other line is written to this file.
            self._leave()
            raise DeadLetterFailed(
                one_line(
                    f"{len(letters)} dead letters could not be stored in {self._path}, the first from"
                    f" {coordinates(letters[0])}: {_reason(error)}; make room or fix --dlq.path, then start again"
                )
            ) from error

    def close(self) -> None:
        self._leave()

    def _begin(self) -> None:
        self._leave()
        _make_directory(self._path)
        self._count += 1
        name = f"letters-{now():%Y%m%dT%H%M%SZ}-{self._stamp}-{self._count:06d}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path / name, flags, 0o600)
        self._size = 0
        _sync_directory(self._path)

    def _append(self, lines: bytes) -> None:
        if self._file is None:
            raise OSError(errno.EBADF, "no file is open")
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            # These dead letters were never reported as stored: take back what was written of them.
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(lines)

    def _removed(self) -> bool:
        return self._file is not None and os.fstat(self._file).st_nlink == 0

    def _leave(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # Everything acknowledged has been synced: an error that comes this late does not matter.
            with contextlib.suppress(OSError):
                os.close(file)


def read_letters(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the dead letters of one file, or of every file of a directory in order of their names.

    A last line that is not whole is skipped. Raise ValueError, naming file and line, for any other line that is no JSON
    object, and OSError when a file cannot be read. `encoding.from_fields` turns what is yielded into a `DeadLetter`.
    """
    path = Path(path)
    for file in sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    yield msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.MsgspecError as error:
                    raise ValueError(f"{file}:{number} is no dead letter") from error


def _make_directory(path: Path) -> None:
    missing = [one for one in (path, *path.parents) if not one.exists()]
    # Dead letters are other people's data: only their owner may read them, whatever the umask says.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in missing:
        _sync_directory(one.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
