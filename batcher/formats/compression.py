"""Values that their producers compressed one by one, decompressed within a bound.

Nothing is trusted that a value says about its own size. No more than the bound, and one byte to know that there would
be more, is ever decompressed. What zstd keeps besides is bounded too: a frame may ask for a window of the bound, or of
the 8 MiB that every decompressor should allow, whichever is more.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.records import Rejection

Compression = Literal["none", "gzip", "zstd"]

_GZIP: Final = 16 + zlib.MAX_WBITS
_SMALLEST_WINDOW: Final = 23
"""The window of a zstd frame, as a power of two, that is always allowed."""

_MOST_MEMBERS: Final = 256
"""The most members or frames of a value. Each costs time however short it is, and what is behind it is copied."""

_CHUNK_BYTES: Final = 1 << 28
"""A chunk of the result is closed behind this many bytes: an array of bytes ends at 2 GiB."""


class _Refused(Exception):
    """Carry the reason why a value cannot be decompressed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Decompressed:
    """Hold values row by row as they were given; null where one was null, or is refused.

    `rejections` are ascending.
    """

    values: pa.ChunkedArray
    rejections: tuple[Rejection, ...] = ()


def decompress(values: pa.ChunkedArray, kind: Compression, max_message_bytes: int) -> Decompressed:
    """Decompress each value, which is whole gzip members or zstd frames and nothing else.

    One is refused with `too_large` beyond the bound (bytes), with `compression` where it is damaged, cut, followed by
    anything else or not compressed. Never raises because of a value. Raise ConfigurationError without a zstd library.
    """
    if kind == "none":
        return Decompressed(values)
    unpack = _gunzip if kind == "gzip" else _unzstd(max_message_bytes)
    chunks: list[pa.Array] = []
    found: list[bytes | None] = []
    rejections: list[Rejection] = []
    held = 0
    for position, value in enumerate(value for chunk in values.chunks for value in chunk):
        unpacked = None
        if value.is_valid:
            try:
                unpacked = unpack(value.as_buffer(), max_message_bytes)
            except _Refused as why:
                rejections.append(Rejection(position, why.reason, str(why)))
        size = 0 if unpacked is None else len(unpacked)
        if held + size > _CHUNK_BYTES:
            chunks.append(pa.array(found, pa.binary()))
            found, held = [], 0
        found.append(unpacked)
        held += size
    chunks.append(pa.array(found, pa.binary()))
    return Decompressed(pa.chunked_array(chunks, pa.binary()), tuple(rejections))


def _gunzip(value: Any, bound: int) -> bytes:
    return _members(value, bound, lambda: zlib.decompressobj(_GZIP), zlib.error, "gzip")


def _unzstd(bound: int) -> Callable[[Any, int], bytes]:
    zstd = _zstd()
    window = max(_SMALLEST_WINDOW, (bound - 1).bit_length())
    least, most = zstd.DecompressionParameter.window_log_max.bounds()
    options = {zstd.DecompressionParameter.window_log_max: min(max(window, least), most)}
    return lambda value, bound: _members(
        value, bound, lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError, "zstd"
    )


def _zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ConfigurationError("zstd needs Python 3.14 or the package backports.zstd: pip install backports.zstd")


def _members(value: Any, bound: int, start: Callable[[], Any], failure: type[Exception], kind: str) -> bytes:
    """Decompress one member after the other until nothing is left over."""
    parts: list[bytes] = []
    rest: Any = value
    left = bound
    while len(parts) < _MOST_MEMBERS:
        member = start()
        where = "what follows its first part" if parts else "the value"
        try:
            part = member.decompress(rest, left + 1)
        except failure as error:
            message = f"{where} is damaged, needs too much memory or is not {kind} at all"
            raise _Refused("compression", message) from error
        left -= len(part)
        if left < 0:
            raise _Refused("too_large", f"decompressed from {kind} the message has more than {bound} bytes")
        parts.append(part)
        if not member.eof:
            raise _Refused("compression", f"{where} is cut or not {kind} at all")
        rest = member.unused_data
        if not rest:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise _Refused("compression", f"the value has more than {_MOST_MEMBERS} parts of {kind}")
