"""One MessagePack document as JSON text.

msgspec transcodes what has nothing that JSON lacks. Whether that is so is seen from what it read: a document that is
written back to the same bytes had no key twice, and a look at each value tells the rest. Everything else is read here
byte by byte, which keeps the pairs of maps and numbers as they are, and refuses by name:

* Bytes are text where they are UTF-8 (`encoding` else); JSON has no bytes.
* Timestamps (extension -1) are ISO 8601 with all digits, years 1 to 9999 (`timestamp` else). Other extensions refuse
  with `type`.
* Keys are text, or integers as their digits; others refuse with `type`.
* NaN and infinities refuse with `syntax`, as in JSON.
"""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from batcher.formats.json.limits import Refused
from batcher.formats.json.syntax import quote

_CUT: Final = "the MessagePack document is cut: its end is missing"

_FIXED: Final[dict[int, str]] = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
"""Numbers, by their first byte."""

_SIZED: Final[dict[int, tuple[str, str]]] = {
    0xC4: ("bin", ">B"),
    0xC5: ("bin", ">H"),
    0xC6: ("bin", ">I"),
    0xC7: ("ext", ">B"),
    0xC8: ("ext", ">H"),
    0xC9: ("ext", ">I"),
    0xD9: ("str", ">B"),
    0xDA: ("str", ">H"),
    0xDB: ("str", ">I"),
    0xDC: ("array", ">H"),
    0xDD: ("array", ">I"),
    0xDE: ("map", ">H"),
    0xDF: ("map", ">I"),
}
"""What has its length in front, and how that is written, by the first byte."""

_CONSTANTS: Final = {0xC0: "null", 0xC2: "false", 0xC3: "true"}
_SCALARS: Final = frozenset({type(None), bool, int, str})
_FAILURES: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_BILLION: Final = 10**9

_decode: Final = msgspec.msgpack.Decoder().decode
_encode: Final = msgspec.msgpack.Encoder().encode
_json: Final = msgspec.json.Encoder().encode


def to_json(raw: bytes, max_depth: int) -> bytes:
    """Return the document as JSON text; raise Refused with the reason."""
    try:
        value = _decode(raw)
        if _is_plain(value) and _encode(value) == raw:
            return _json(value)
    except _FAILURES:
        pass  # the reader below says why
    return _Reader(raw, max_depth).document().encode()


def _is_plain(value: Any) -> bool:
    """Return whether a value and all that is in it are what JSON has."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return kind is list and all(map(_is_plain, value))


class _Reader:
    """Read one document byte by byte."""

    def __init__(self, raw: bytes, max_depth: int) -> None:
        self._raw = raw
        self._at = 0
        self._max_depth = max_depth

    def document(self) -> str:
        if not self._raw:
            raise Refused("empty", "the message is empty")
        text = self._value(0)
        if self._at < len(self._raw):
            raise Refused("trailing_data", f"more data after the document, at byte {self._at}")
        return text

    def _value(self, depth: int) -> str:
        kind, content = self._next()
        if kind == "plain":
            return str(content)
        if kind == "ext":
            return self._extension(content)
        if kind == "array":
            self._enter(depth)
            return "[" + ",".join([self._value(depth + 1) for _ in range(content)]) + "]"
        if kind == "map":
            self._enter(depth)
            return "{" + ",".join([f"{self._key()}:{self._value(depth + 1)}" for _ in range(content)]) + "}"
        return self._text(content)

    def _enter(self, depth: int) -> None:
        if depth >= self._max_depth:
            raise Refused("too_deep", f"nested deeper than {self._max_depth} levels")

    def _key(self) -> str:
        start = self._at
        kind, content = self._next()
        if kind in ("str", "bin"):
            return self._text(content)
        if kind == "plain" and content.lstrip("-").isdigit():
            return quote(content)
        raise Refused("type", f"the key at byte {start} is neither text nor an integer")

    def _next(self) -> tuple[str, Any]:  # noqa: PLR0911 - one for each kind of first byte
        """Return what comes next: the JSON text of a number or constant, the length of an array or map, or bytes."""
        first = self._take(1)[0]
        if first <= 0x7F or first >= 0xE0:
            return "plain", str(first if first <= 0x7F else first - 0x100)
        if first <= 0x9F:
            return ("map" if first <= 0x8F else "array"), first & 0x0F
        if first <= 0xBF:
            return "str", self._take(first & 0x1F)
        if first in _CONSTANTS:
            return "plain", _CONSTANTS[first]
        if first in _FIXED:
            return "plain", self._number(_FIXED[first])
        if 0xD4 <= first <= 0xD8:
            return "ext", self._take(1 + (1 << (first - 0xD4)))
        if first not in _SIZED:
            raise Refused("syntax", f"not MessagePack at byte {self._at - 1}")
        kind, form = _SIZED[first]
        length = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return kind, length if kind in ("array", "map") else self._take(length + (kind == "ext"))

    def _number(self, form: str) -> str:
        number = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        if type(number) is int:
            return str(number)
        if not math.isfinite(number):
            raise Refused("syntax", "NaN and infinities are not JSON")
        return repr(number)

    def _extension(self, content: bytes) -> str:
        code = content[0] - 0x100 if content[0] > 0x7F else content[0]
        if code != -1 or len(content) not in (5, 9, 13):
            raise Refused("type", f"a value is of extension type {code}, which has no meaning here")
        if len(content) == 5:
            seconds, nanoseconds = struct.unpack(">I", content[1:])[0], 0
        elif len(content) == 9:
            both = struct.unpack(">Q", content[1:])[0]
            seconds, nanoseconds = both & (2**34 - 1), both >> 34
        else:
            nanoseconds, seconds = struct.unpack(">Iq", content[1:])
        if nanoseconds >= _BILLION:
            raise Refused("timestamp", "a timestamp has more nanoseconds than a second")
        return f'"{_iso(seconds)}.{nanoseconds:09d}Z"'

    def _text(self, content: bytes) -> str:
        try:
            return quote(content.decode())
        except UnicodeDecodeError as error:
            where = self._at - len(content) + error.start
            raise Refused("encoding", f"invalid UTF-8 at byte {where}; bytes have to be text here") from error

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > len(self._raw):
            raise Refused("syntax", _CUT)
        return self._raw[start : self._at]


def _iso(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise Refused("timestamp", "a timestamp is outside the years 1 to 9999") from error
