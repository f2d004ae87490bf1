"""Files to send, by the end of their names: lines, CSV and Parquet, packed or not, several after each other."""

from __future__ import annotations

import io
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple

from batcher.errors import ConfigurationError, SettingRefused
from batcher.generate.lines import READ_BYTES, Chunk, available, line_chunks, read_on

Kind = Literal["lines", "csv", "parquet"]
Packing = Literal["", "gz", "zst"]

FORMATS: Final = ("lines", "lines.gz", "lines.zst", "csv", "csv.gz", "csv.zst", "parquet")
"""What an input may be, whatever its name."""

STDIN: Final = "-"

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""A longer line is skipped, and never held whole, unless larger messages are asked for."""


_UNPACKED_BYTES: Final = 1 << 16
"""How much is unpacked at a time. Of the piece in which a cut or damaged file ends, nothing may come out."""


class BrokenInput(ConfigurationError):
    """Report that the rest of an input cannot be read: it is cut short, damaged or not what its name says."""


class Input(NamedTuple):
    """Say what to read and how."""

    name: str
    kind: Kind
    packing: Packing


def input_of(name: str, form: str | None) -> Input:
    """Return how to read a file, by the end of its name or as `form` says; raise SettingRefused where it cannot be."""
    bare, packing = name.lower(), ""
    words = form.split(".") if form is not None else []
    if form is None:
        packing = next((end for end in ("gz", "zst") if bare.endswith(f".{end}")), "")
        inner = bare.removesuffix(f".{packing}") if packing else bare
        kind = next((one for one in ("csv", "parquet") if inner.endswith(f".{one}")), "lines")
    else:
        kind, packing = words[0], "".join(words[1:])
    if kind == "parquet" and packing:
        raise SettingRefused(f"--from {name}: unpack it first, Parquet is read from its end")
    if kind == "parquet" and name == STDIN:
        raise SettingRefused("--from -: Parquet is read from its end, which a pipe does not have; name the file")
    if name != STDIN:
        _require_readable(name)
    return Input(name, kind, packing)  # type: ignore[arg-type]  # the words of both types, as above


def _require_readable(name: str) -> None:
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - `Path` would change the name
        if stat.S_ISREG(mode):
            os.close(os.open(name, os.O_RDONLY))
    except (OSError, ValueError) as error:
        # A name with a NUL in it is a ValueError.
        raise SettingRefused(f"--from {name}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise SettingRefused(f"--from {name}: is a directory; name the files in it: {name.rstrip('/')}/*")


class Reading:
    """Read inputs one after the other, until stopped. For one thread; `stop` may be set by others.

    `most` is the longest line, `numbers` names the columns of CSV that hold numbers. `failure` is why the rest could
    not be read, where it could not. `cut` says that a stop came before the end of a file; a pipe may have none.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        stop: threading.Event,
        *,
        most: int = MAX_LINE_BYTES,
        numbers: frozenset[str] = frozenset(),
    ) -> None:
        self.failure: BrokenInput | None = None
        self.cut = False
        self._inputs = inputs
        self._stop = stop
        self._most = most
        self._numbers = numbers

    def __iter__(self) -> Iterator[Chunk]:
        """Yield what is read as it comes; end where an input is broken."""
        try:
            for one in self._inputs:
                with ExitStack() as stack:
                    self.cut = one.name != STDIN and Path(one.name).is_file()
                    yield from self._read(one, stack)
                    if self._stop.is_set():
                        return
            self.cut = False
        except BrokenInput as failure:
            self.failure = failure

    def _read(self, one: Input, stack: ExitStack) -> Iterator[Chunk]:
        if one.kind == "parquet":
            from batcher.generate.parquet_rows import parquet_chunks  # noqa: PLC0415 - columns only where they are read

            return parquet_chunks(one.name)
        data = self._bytes(one, stack)
        if one.kind == "lines":
            return line_chunks(data, one.name, self._stop.is_set, self._most)
        from batcher.generate.csv_rows import csv_chunks  # noqa: PLC0415 - as above

        return csv_chunks(data, one.name, self._stop.is_set, self._most, self._numbers)

    def _bytes(self, one: Input, stack: ExitStack) -> Iterator[bytes]:
        try:
            descriptor = sys.stdin.fileno() if one.name == STDIN else os.open(one.name, os.O_RDONLY)
        except OSError as error:
            raise BrokenInput(f"--from {one.name}: {error.strerror}") from error
        if one.name != STDIN:
            stack.callback(os.close, descriptor)
        if not one.packing:
            return self._plain(one, descriptor)
        return self._unpacked(one, _Raw(descriptor, self._stop))

    def _plain(self, one: Input, descriptor: int) -> Iterator[bytes]:
        try:
            yield from read_on(descriptor, self._stop)
        except OSError as error:
            raise BrokenInput(f"--from {one.name}: {error.strerror}") from error

    def _unpacked(self, one: Input, raw: _Raw) -> Iterator[bytes]:
        import zlib  # noqa: PLC0415 - only for what is packed

        what = "gzip" if one.packing == "gz" else "zstd"
        try:
            read = _gunzip(raw).read1 if one.packing == "gz" else _unzstd(raw).read
            while data := read(_UNPACKED_BYTES):
                yield data
        except (EOFError, OSError, ValueError, zlib.error) as error:
            if not self._stop.is_set():  # the end that a stop makes is none of the file
                raise BrokenInput(_why(one, what, error)) from error


class _Raw(io.RawIOBase):
    """Give a descriptor to a decompressor, with an end where a stop is asked for."""

    def __init__(self, descriptor: int, stop: threading.Event) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._stop = stop
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what there is."""
        if not self._left:
            self._left = memoryview(available(self._descriptor, self._stop))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _gunzip(raw: _Raw) -> Any:
    import gzip  # noqa: PLC0415 - only for what is packed

    packed: IO[bytes] = io.BufferedReader(raw, READ_BYTES)
    return gzip.GzipFile(fileobj=packed)


def _unzstd(raw: _Raw) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - as above

    return pa.CompressedInputStream(pa.PythonFile(io.BufferedReader(raw, READ_BYTES), mode="r"), "zstd")


def _why(one: Input, what: str, error: Exception) -> str:
    words = str(error)
    if isinstance(error, EOFError) or "truncated" in words.lower():
        return f"--from {one.name}: the file is cut short: its {what} has no end"
    if isinstance(error, OSError) and error.strerror:
        return f"--from {one.name}: {error.strerror}"
    return f"--from {one.name}: it is damaged or no {what} at all ({words}); --format says what it is"
