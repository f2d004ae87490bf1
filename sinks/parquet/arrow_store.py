"""Parquet files in a file system of `pyarrow.fs` that is neither local nor an object store: HDFS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from batcher.disks import passes
from batcher.errors import SettingRefused, SinkMisconfigured, SinkUnavailable
from sinks.parquet.files import HIDDEN, SUFFIX
from sinks.parquet.stores import Fault

# What S3 answers when waiting does not help (its error codes, as Arrow spells them in the text of its OSError).
# Expired credentials count: they need a pause with an alarm, and the sink keeps asking.
REFUSALS: Final = frozenset(
    {
        "ACCESS_DENIED",
        "ACCOUNT_PROBLEM",
        "EXPIRED_TOKEN",
        "INVALID_ACCESS_KEY_ID",
        "INVALID_CLIENT_TOKEN_ID",
        "INVALID_SIGNATURE",
        "MISSING_AUTHENTICATION_TOKEN",
        "NO_SUCH_BUCKET",
        "SIGNATURE_DOES_NOT_MATCH",
        "UNRECOGNIZED_CLIENT",
    }
)

SCHEMES: Final = ("s3", "gs", "abfs", "hdfs", "file")
"""The schemes with which a URI may begin, for messages; some have a second spelling."""

# Arrow's messages for what it does not know of a URI. Its other messages quote values, which may be secrets.
NO_SCHEME: Final = re.compile(r"Unrecognized filesystem type")
NO_PARAMETER: Final = re.compile(r"Unexpected query parameter in .*: '([A-Za-z][A-Za-z0-9_.-]*)'")

AWS_ERROR: Final = re.compile(r"AWS Error (\w+)")

MAX_KEY_BYTES: Final = 1_024
"""The length of a key that S3 and Google Cloud Storage take."""


class ArrowStore:
    """Upload each file whole, in one call, from memory: a file that was not closed is not there.

    Several files of one block are several uploads. An interruption leaves the first ones, and the same block replaces
    them when it comes again. `create` is not exclusive here, since `pyarrow.fs` has no conditional upload: of two
    workers that pin a schema in the same instant the later one's stays.
    """

    def __init__(self, connect: Callable[[], tuple[fs.FileSystem, str]], label: str) -> None:
        """Take a function that returns a file system and the root in it. It may use the network, so `open` calls it."""
        self._connect = connect
        self._label = label
        self._fs: Any = None
        self._base = ""

    @staticmethod
    def at(uri: str) -> ArrowStore:
        """Return the store that a URI names. Credentials in it are never shown."""
        parts = urlsplit(uri)
        # As it was written: Arrow knows s3, but not S3.
        scheme = uri[: len(parts.scheme)]
        label = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

        def connect() -> tuple[fs.FileSystem, str]:
            try:
                found, base = fs.FileSystem.from_uri(uri)
            except pa.ArrowNotImplementedError as error:
                raise SinkMisconfigured(
                    f"--parquet.path {label}: this pyarrow was built without {scheme}://"
                ) from error
            except ValueError as error:
                raise SettingRefused(f"--parquet.path {label}{_unopened(scheme, str(error))}") from error
            return found, base

        return ArrowStore(connect, label)

    @property
    def label(self) -> str:
        return self._label

    @property
    def remote(self) -> bool:
        return True

    @property
    def folds_case(self) -> bool:
        return False

    def below(self, name: str) -> ArrowStore:
        return ArrowStore(lambda: (self._fs, f"{self._base}/{name}"), f"{self._label.rstrip('/')}/{name}")

    def open(self) -> None:
        self._fs, base = self._connect()
        self._base = base.rstrip("/")
        # The right to list a bucket is often missing where the right to write below a prefix is there.
        with suppress(PermissionError), self._understood():
            kind = self._info(self._base)
            if kind == fs.FileType.File:
                raise SinkMisconfigured(f"--parquet.path {self._label} is an object, not a prefix: choose another")
            bucket = self._base.partition("/")[0]
            if kind == fs.FileType.NotFound and bucket != self._base and self._info(bucket) == fs.FileType.NotFound:
                raise SinkMisconfigured(f"--parquet.path {self._label}: there is no such bucket")

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Turn what Arrow does not take for a fault of network or URI into a refusal: an account that is no name."""
        try:
            yield
        except pa.ArrowException as error:
            if isinstance(error, OSError):
                raise
            raise SinkMisconfigured(
                f"--parquet.path {self._label} cannot be opened: the store refuses the account or the address in it"
            ) from error

    def close(self) -> None:
        self._fs = None

    def read(self, name: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(self._path(name)) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            return None
        return content

    def create(self, name: str, content: bytes) -> None:
        if self.read(name) is None:
            self._put(name, pa.py_buffer(content))

    def replace(self, name: str, content: bytes) -> None:
        self._put(name, pa.py_buffer(content))

    def refused(self, directories: Sequence[str], name: str) -> list[str]:
        return [one for one in directories if len(self._path(f"{one}/{name}").encode()) > MAX_KEY_BYTES]

    def publish(self, files: Iterable[tuple[str, pa.Buffer]]) -> None:
        for name, content in list(files):
            self._put(name, content)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self._fs.delete_file(self._path(name))

    def present(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self._fs.get_file_info(self._path(name)).type == fs.FileType.File]

    def between(self, spans: Sequence[tuple[str, str]]) -> None:
        """Return None: there is no listing that begins somewhere."""
        del spans

    def opened(self, name: str) -> BinaryIO | None:
        try:
            file: BinaryIO = self._fs.open_input_file(self._path(name))
        except FileNotFoundError:
            return None
        return file

    def names(self) -> Iterator[str]:
        for info in self._fs.get_file_info(fs.FileSelector(self._base, allow_not_found=True, recursive=True)):
            name = info.path.removeprefix(self._base).lstrip("/")
            hidden = any(part.startswith(HIDDEN) for part in name.split("/")[:-1])
            if info.type == fs.FileType.File and name.endswith(SUFFIX) and not hidden:
                yield name

    def entries(self) -> Iterator[str]:
        for info in self._fs.get_file_info(fs.FileSelector(self._base, allow_not_found=True)):
            name = info.path.removeprefix(self._base).strip("/")
            yield f"{name}/" if info.type == fs.FileType.Directory else name

    def clear(self) -> None:
        if self._info(self._base) != fs.FileType.NotFound:
            self._fs.delete_dir(self._base)

    def fault(self, error: OSError, doing: str) -> Fault:
        # The text of the error may hold the key, and with it the value of a partition column: only its code is shown.
        match = AWS_ERROR.search(str(error))
        code = match[1] if match else type(error).__name__
        what = f"{doing} {self._label}: {code}"
        if code in REFUSALS or not passes(error):
            return SinkMisconfigured(f"{what}: check bucket, credentials and rights")
        return SinkUnavailable(what)

    def _put(self, name: str, content: pa.Buffer) -> None:
        # No `with`: leaving it because of an error would close the stream, and closing publishes what there is
        # (arrow#40502). One write hands over all bytes, so a stream dropped after a failed one has failed as a whole.
        stream = self._fs.open_output_stream(self._path(name), compression=None)
        stream.write(content)
        stream.close()

    def _path(self, name: str) -> str:
        return f"{self._base}/{name.lstrip('/')}"

    def _info(self, path: str) -> fs.FileType:
        try:
            return self._fs.get_file_info(path).type
        except OSError as error:
            match = AWS_ERROR.search(str(error))
            if match and match[1] == "ACCESS_DENIED":
                raise PermissionError(str(error)) from error
            raise


def _unopened(scheme: str, said: str) -> str:
    """Return why a URI cannot be opened, from what Arrow said about it; no value of a parameter."""
    if NO_SCHEME.search(said):
        known = ", ".join(f"{one}://" for one in SCHEMES)
        return f": {scheme}:// is no scheme that can be opened: give one of {known}, or a directory"
    found = NO_PARAMETER.search(said)
    if found is not None:
        return f": {scheme}:// has no parameter {found[1]}: check how it is spelled, or leave it out"
    return " is not a URI that this pyarrow can open: check how it and its parameters are written"
