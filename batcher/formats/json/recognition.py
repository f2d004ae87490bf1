"""What a message that is no JSON looks like: a table with an entry for each thing that is often found in its place.

It is used only once a message has been refused, so nothing here decides whether a record is loaded. It gives the
refusal a better word and says what to do. An entry names its marks in the first bytes, or tests the whole. The first
entry that fits is taken, so certain ones come before guesses. No entry may fit JSON that is merely broken.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from batcher.formats.json.limits import Refused

_LOOKED_AT: Final = frozenset({"syntax", "encoding", "trailing_data", "not_object"})
"""The reasons behind which there may be something other than JSON."""

_HEAD: Final = 512
"""Bytes that are checked for the kinds of text."""

Test = Callable[[bytes], str | None]
"""Return what the message looks like, to stand behind "looks", or None."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """Say how one thing is recognised, the word it is counted under, and what to do about it."""

    reason: str
    test: Test
    advice: str


def recognised(raw: bytes, refusal: Refused) -> Refused:
    """Return the refusal of a message, in better words where it looks like something known; never quotes it."""
    if refusal.reason not in _LOOKED_AT or refusal.path is not None:
        return refusal
    # A value that is no object is JSON all the same.
    for likeness in () if refusal.reason == "not_object" else TABLE:
        looks = likeness.test(raw)
        if looks is not None:
            return Refused(likeness.reason, f"the message looks {looks}; {likeness.advice}")
    hint = _hint(raw, refusal)
    return refusal if hint is None else Refused(refusal.reason, f"{refusal.message}; {hint}")


def _starts(looks: str, *marks: bytes) -> Test:
    return lambda raw: looks if raw.startswith(marks) else None


def _utf_16_or_32(raw: bytes) -> str | None:
    marks = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
    for mark, name in marks:
        if raw.startswith(mark):
            return f"like text in {name} with a byte order mark"
    # Without a mark: JSON begins with a character of ASCII, and so does what follows, in most documents.
    for size, name, places in ((4, "UTF-32", (0, 3)), (2, "UTF-16", (0, 1))):
        if len(raw) < 2 * size or len(raw) % size:
            continue
        for place in places:
            head = raw[:_HEAD]
            letters = head[place::size][:4]
            if letters[0] in b'{["' and letters.isascii() and b"\0" not in letters and _only_zeros(head, place, size):
                return f"like text in {name}"
    return None


def _only_zeros(head: bytes, place: int, size: int) -> bool:
    return not any(any(head[other::size][:4]) for other in range(size) if other != place)


def _framed(raw: bytes) -> str | None:
    if len(raw) < 6 or raw[0]:
        return None
    if len(raw) > 9 and raw[1:5] == b"\0\0\0\0":
        number, body, length = int.from_bytes(raw[1:9]), raw[9:], 9
    else:
        number, body, length = int.from_bytes(raw[1:5]), raw[5:], 5
    # No registry begins at 0, and greater numbers are some other kind of bytes.
    if not 0 < number < 1 << 31:
        return None
    return f"framed by a schema registry (schema id {number}, {length} bytes): {_behind(body)}"


def _behind(body: bytes) -> str:
    what = "look like JSON" if _json_of(body) is not None else "are not JSON"
    return f"the bytes behind the frame {what}"


def _framed_otherwise(raw: bytes) -> str | None:
    if len(raw) > 18 and raw[0] == 3 and raw[1] in (0, 5):
        return "framed by AWS Glue's schema registry"
    if len(raw) > 17 and raw[0] == 1 and raw[7] >> 4 in (1, 4, 7) and raw[9] >> 6 == 2:
        return f"framed by a schema registry (schema id as a UUID): {_behind(raw[17:])}"
    return None


def _zlib(raw: bytes) -> str | None:
    if len(raw) < 8 or raw[0] != 0x78 or int.from_bytes(raw[:2]) % 31:
        return None
    try:
        zlib.decompressobj().decompress(raw[:_HEAD], 64)
    except zlib.error:
        return None
    return "compressed with zlib"


def _message_pack(raw: bytes) -> str | None:
    # Maps only: nearly any byte is a number or a short text in MessagePack.
    if not raw or not (0x81 <= raw[0] <= 0x8F or raw[0] in (0xDE, 0xDF)):
        return None
    try:
        msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None
    return "like MessagePack"


def _bson(raw: bytes) -> str | None:
    fits = len(raw) > 5 and int.from_bytes(raw[:4], "little") == len(raw) and raw[-1] == 0
    return "like BSON" if fits else None


_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _protobuf(raw: bytes) -> str | None:
    """Recognise fields of low numbers from the first byte to the last; text that happens to fit is text."""
    if _CONTROL.search(raw[:_HEAD]) is None and _is_text(raw):
        return None
    at = fields = 0
    while at < len(raw) and fields < 1000:
        tag, at = _varint(raw, at)
        if not 0 < tag >> 3 < 1000:
            return None
        match tag & 7:
            case 0:
                value, at = _varint(raw, at)
                if value < 0:
                    return None
            case 1:
                at += 8
            case 2:
                length, at = _varint(raw, at)
                if length < 0:
                    return None
                at += length
            case 5:
                at += 4
            case _:
                return None
        fields += 1
    return "like Protobuf" if fields and at == len(raw) else None


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends; -1 where there is none."""
    value = 0
    for count, byte in enumerate(raw[at : at + 10]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, at + count + 1
    return -1, len(raw)


def _text(raw: bytes) -> str | None:
    """Return the beginning of the message, where that is text that does not begin like JSON."""
    if not _is_text(raw):
        return None
    head = raw[:_HEAD].decode(errors="ignore").lstrip()
    return head if head and head[0] not in "{[" and _CONTROL.search(raw[:_HEAD]) is None else None


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


_MARKUP: Final = re.compile(r"<(?:[A-Za-z_][\w.:-]*[\s/>]|\?xml|!doctype|!--)", re.IGNORECASE)
_SYSLOG: Final = re.compile(r"<\d{1,3}>\S")
_BASE64_OF_OBJECT: Final = re.compile(r"(?:eyJ|ewog|e30)[A-Za-z0-9+/_-]{4,}={0,2}[.A-Za-z0-9_-]*\s*", re.ASCII)
_PAIRS: Final = re.compile(r"[\w.-]+=(?:\"[^\"]*\"|[^\s&]*)(?:[ &][\w.-]+=|\s*\Z)")
_YAML: Final = re.compile(r"(?:---\s|[A-Za-z_][\w-]*:(?:[ \t][^\n]*)?\n\s*[\w-]+:?[\s])")


def _pattern(looks: str, pattern: re.Pattern[str]) -> Test:
    def test(raw: bytes) -> str | None:
        head = _text(raw)
        return looks if head is not None and pattern.match(head) else None

    return test


def _csv(raw: bytes) -> str | None:
    head = _text(raw)
    if head is None:
        return None
    line = head.splitlines()[0]
    # A space after it makes it prose.
    fits = any(line.count(mark) >= 2 and f"{mark} " not in line.rstrip() for mark in ",;\t|")
    return "like CSV" if fits and not line.startswith("<") else None


_UNPACKED: Final = "let the producer's client compress instead (compression.type), which is undone on reading"
_AS_JSON: Final = "only JSON is read, so produce JSON"
_UNFRAMED: Final = "only plain JSON is read, so let the producer write it without a frame"

TABLE: Final[tuple[Likeness, ...]] = (
    Likeness("encoding", _utf_16_or_32, "JSON is read in UTF-8 only, so let the producer write that"),
    Likeness("syntax", _starts("like JSON behind a byte order mark", b"\xef\xbb\xbf"), "remove the mark (EF BB BF)"),
    Likeness("compressed", _starts("compressed with gzip", b"\x1f\x8b"), _UNPACKED),
    Likeness("compressed", _starts("compressed with zstd", b"\x28\xb5\x2f\xfd"), _UNPACKED),
    Likeness("compressed", _starts("compressed with snappy", b"\xff\x06\0\0sNaPpY", b"\x82SNAPPY\0"), _UNPACKED),
    Likeness("compressed", _starts("compressed with lz4", b"\x04\x22\x4d\x18"), _UNPACKED),
    Likeness("compressed", _starts("compressed with bzip2", b"BZh"), _UNPACKED),
    Likeness("compressed", _starts("compressed with xz", b"\xfd7zXZ\0"), _UNPACKED),
    Likeness("compressed", _starts("like a zip archive", b"PK\x03\x04"), _AS_JSON),
    Likeness("compressed", _zlib, _UNPACKED),
    Likeness("binary", _starts("like an Avro file", b"Obj\x01"), _AS_JSON),
    Likeness("binary", _starts("like Avro with the fingerprint of a schema", b"\xc3\x01"), _AS_JSON),
    Likeness("binary", _starts("like a Parquet file", b"PAR1"), _AS_JSON),
    Likeness("binary", _starts("like Arrow", b"ARROW1", b"\xff\xff\xff\xff"), _AS_JSON),
    Likeness("binary", _starts("like a serialised Java object", b"\xac\xed\0\x05"), _AS_JSON),
    Likeness("binary", _bson, _AS_JSON),
    Likeness("framed", _framed, _UNFRAMED),
    Likeness("framed", _framed_otherwise, _UNFRAMED),
    Likeness("binary", _message_pack, _AS_JSON),
    Likeness("binary", _protobuf, _AS_JSON),
    Likeness("other_format", _pattern("like XML or HTML", _MARKUP), _AS_JSON),
    Likeness("other_format", _pattern("like a syslog line", _SYSLOG), _AS_JSON),
    Likeness("other_format", _pattern("like base64 of JSON, or a web token", _BASE64_OF_OBJECT), _AS_JSON),
    Likeness("other_format", _pattern("like pairs of key=value", _PAIRS), _AS_JSON),
    Likeness("other_format", _pattern("like YAML", _YAML), _AS_JSON),
    Likeness("other_format", _csv, _AS_JSON),
)
"""In the order in which they are tried."""


def _hint(raw: bytes, refusal: Refused) -> str | None:
    """Say what is the matter with a text that is nearly JSON."""
    if not _is_text(raw):
        return "let the producer write UTF-8; this may be Latin-1" if raw.lstrip().startswith(b"{") else None
    text = raw.decode()
    match refusal.reason:
        case "not_object":
            return _of_value(text)
        case "trailing_data":
            return _of_rest(text)
        case "syntax":
            return _of_fault(text)
    return None


def _of_value(text: str) -> str | None:
    value = _json_of(text)
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") and _json_of(value) is not None:
        return "the string holds JSON, so it was encoded twice: let the producer encode it once"
    if isinstance(value, list):
        return "produce what is in the list one by one"
    return None


def _of_rest(text: str) -> str | None:
    try:
        _, end = json.JSONDecoder().raw_decode(text.lstrip(_BLANK))
    except (ValueError, RecursionError):
        return None
    rest = text.lstrip(_BLANK)[end:].lstrip(_BLANK + "\x1e,")
    return "the message holds several documents: produce them one by one" if rest[:1] in ("{", "[") else None


_BLANK: Final = " \t\r\n"
_CONSTANTS: Final = re.compile(r"(?:True|False|None|nan|undefined)\b")
_NAME: Final = re.compile(r"[A-Za-z_$][\w$]*\s*:", re.ASCII)

_FAULTS: Final[tuple[tuple[Callable[[str, str], bool], str], ...]] = (
    (
        lambda _, found: found.startswith("'"),
        "strings stand in single quotes, as Python prints them: let the producer write JSON, with double ones",
    ),
    (lambda _, found: found.startswith(("//", "/*", "#")), "JSON has no comments: remove them"),
    (
        lambda before, found: found[:1] in ("}", "]") and before.endswith(","),
        "there is a comma behind the last item, which JSON does not have",
    ),
    (
        lambda before, found: before.endswith(("{", ",")) and _NAME.match(found) is not None,
        "names have to stand in double quotes",
    ),
    (lambda _, found: _CONSTANTS.match(found) is not None, "JSON has true, false and null, spelled so"),
)
"""Patterns for the text before and after the place where reading stopped, and what they mean."""


def _of_fault(text: str) -> str | None:
    try:
        json.loads(text, parse_constant=_constant)
    except json.JSONDecodeError as error:
        return _at(text, error)
    except _Constant:
        return "write null where there is no number"
    except (ValueError, RecursionError):
        pass
    return None


def _at(text: str, error: json.JSONDecodeError) -> str | None:
    if error.pos >= len(text.rstrip(_BLANK)) or error.msg.startswith("Unterminated"):
        return "the document is cut short"
    if error.msg.startswith("Invalid control character"):
        return "a control character, such as a line end, stands in a string: it has to be escaped"
    before, found = text[: error.pos].rstrip(_BLANK), text[error.pos :].lstrip(_BLANK)
    if error.msg.startswith("Illegal trailing comma"):
        before, found = before + ",", found.removeprefix(",").lstrip(_BLANK)
    return next((hint for fits, hint in _FAULTS if fits(before, found)), None)


class _Constant(Exception):
    """Say that there is a NaN or an Infinity."""


def _constant(_: str) -> None:
    raise _Constant


def _json_of(document: bytes | str) -> object | None:
    """Return the value that a document holds; None where it is none, or null."""
    try:
        value: object = json.loads(document)
    except (ValueError, RecursionError):
        return None
    return value
