"""What a refused message looks like: the refusal says it, with a word of its own, and never misnames broken JSON."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import uuid
import zlib

import hypothesis.strategies as st
import msgspec
import pyarrow as pa
import pytest
from hypothesis import given

from batcher.formats.json.format import JsonFormat
from batcher.records import Rejection
from batcher.testing.values import make_batch, make_records

SCHEMA = pa.schema([("id", pa.int64())])
TEXT = '{"id":1,"city":"hunter2"}'
DOCUMENT = TEXT.encode()
ID = uuid.UUID("12345678-1234-4abc-8def-1234567890ab").bytes


def refused(raw: bytes) -> Rejection:
    """Return the one refusal of a message between two good ones."""
    decoded = JsonFormat().decoder(SCHEMA).decode(make_batch(make_records([DOCUMENT, raw, DOCUMENT])))
    assert decoded.positions.to_pylist() == [0, 2]
    (rejection,) = decoded.rejections
    assert "hunter2" not in rejection.message
    assert rejection.message.isprintable()
    return rejection


@pytest.mark.parametrize(
    ("raw", "reason", "words"),
    [
        (b"\0\0\0\0\x11" + DOCUMENT, "framed", "(schema id 17, 5 bytes): the bytes behind the frame look like JSON"),
        (b"\0\0\0\0\x11\x02\x0ehunter2\x80", "framed", "schema id 17, 5 bytes): the bytes behind the frame are not"),
        (b"\0\0\0\0\n" + DOCUMENT, "framed", "schema id 10"),
        (b"\0" + (5).to_bytes(8) + DOCUMENT, "framed", "schema id 5, 9 bytes"),
        (b"\x01" + ID + DOCUMENT, "framed", "schema id as a UUID"),
        (b"\x03\x00" + ID + b"\x02\x0ehunter2", "framed", "AWS Glue"),
        (gzip.compress(DOCUMENT, mtime=0), "compressed", "gzip"),
        (bz2.compress(DOCUMENT), "compressed", "bzip2"),
        (lzma.compress(DOCUMENT), "compressed", "xz"),
        (zlib.compress(DOCUMENT), "compressed", "zlib"),
        (zlib.compress(DOCUMENT, 1), "compressed", "zlib"),
        (pa.compress(DOCUMENT, "zstd", asbytes=True), "compressed", "zstd"),
        (pa.compress(DOCUMENT, "lz4", asbytes=True), "compressed", "lz4"),
        (b"\xff\x06\0\0sNaPpY\x01\x08\0\0abcdabcd", "compressed", "snappy"),
        (b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01abc", "compressed", "snappy"),
        (b"PK\x03\x04\x14\0\0\0", "compressed", "zip"),
        (TEXT.encode("utf-16"), "encoding", "UTF-16 with a byte order mark"),
        (TEXT.encode("utf-16-le"), "encoding", "UTF-16;"),
        ('{"a":"é€"}'.encode("utf-16-be"), "encoding", "UTF-16;"),
        (TEXT.encode("utf-32"), "encoding", "UTF-32 with a byte order mark"),
        (TEXT.encode("utf-32-be"), "encoding", "UTF-32;"),
        (b'{"city":"Orl\xe9ans"}', "encoding", "invalid UTF-8 at byte 12; let the producer write UTF-8"),
        (b"\xef\xbb\xbf" + DOCUMENT, "syntax", "remove the mark"),
        (msgspec.msgpack.encode({"id": 1, "city": "hunter2"}), "binary", "MessagePack"),
        (b"\x0a\x07hunter2\x10\x01", "binary", "Protobuf"),
        (b"\x08\x96\x01\x12\x07hunter2", "binary", "Protobuf"),
        (b"\x0d\0\0\0\x10a\0\x01\0\0\0\0\0"[:13], "binary", "BSON"),
        (b"Obj\x01\x04\x14avro.codec", "binary", "an Avro file"),
        (b"\xc3\x01" + bytes(range(8)) + b"\x02", "binary", "fingerprint"),
        (b"PAR1\x15\x04", "binary", "Parquet"),
        (b"ARROW1\0\0", "binary", "Arrow"),
        (b"\xff\xff\xff\xff\x10\0\0\0", "binary", "Arrow"),
        (b"\xac\xed\0\x05t\0\x07hunter2", "binary", "Java"),
        (b'<?xml version="1.0"?><a>hunter2</a>', "other_format", "XML"),
        (b"<!DOCTYPE html><p>hunter2", "other_format", "HTML"),
        (b"<34>1 2003-10-11T22:14:15.003Z host hunter2", "other_format", "syslog"),
        (b"1,hunter2,2.5", "other_format", "CSV"),
        (b'"1";"hunter2";"2.5"', "other_format", "CSV"),
        (b"1\thunter2\t2.5", "other_format", "CSV"),
        (base64.b64encode(DOCUMENT), "other_format", "base64"),
        (b"level=info user=hunter2", "other_format", "key=value"),
        (b"id: 1\ncity: hunter2\n", "other_format", "YAML"),
        (json.dumps(TEXT).encode(), "not_object", "encoded twice"),
        (b"[" + DOCUMENT + b"]", "not_object", "one by one"),
        (DOCUMENT + b"\n" + DOCUMENT + b"\n", "trailing_data", "several documents"),
        (b"{'id': 1, 'city': 'hunter2'}", "syntax", "single quotes"),
        (b'{"id":1, // hunter2\n"b":2}', "syntax", "comments"),
        (b'{"id":1,}', "syntax", "comma behind the last item"),
        (b'{"id":[1,2,]}', "syntax", "comma behind the last item"),
        (b'{"id":NaN}', "syntax", "write null"),
        (b'{"id":True}', "syntax", "true, false and null"),
        (b"{id:1}", "syntax", "double quotes"),
        (b'{"city":"hunt\ner2"}', "syntax", "escaped"),
        (DOCUMENT[:-4], "syntax", "cut short"),
        (b'{"id":', "syntax", "cut short"),
    ],
)
def test_a_message_that_is_something_else_is_called_by_its_name(raw: bytes, reason: str, words: str) -> None:
    rejection = refused(raw)
    assert rejection.reason == reason
    assert words in rejection.message
    assert rejection.path is None


@pytest.mark.parametrize(
    "raw",
    [
        *(b'{"a" 1}', b'{"a":1 "b":2}', b'{"a"::1}', b"{]", b'{"a":x}', b"}{", b"hello", b"hello, world, again"),
        *(b"\0\0\0\0\0\0", b"\0", b"\0abcd", b"\xff", b"Error: no such thing", b'{"a":1]', b"x" * 3000),
    ],
)
def test_broken_json_and_plain_text_are_not_given_another_name(raw: bytes) -> None:
    rejection = refused(raw)
    assert rejection.reason in {"syntax", "encoding"}
    assert "looks" not in rejection.message


@pytest.mark.parametrize("raw", [b'"1,2,3"', b'"<a/>"', b'"a=1"', b"12", b"null", b"true"])
def test_json_that_is_no_object_is_not_given_another_name(raw: bytes) -> None:
    rejection = refused(raw)
    assert rejection.reason == "not_object"
    assert "looks" not in rejection.message


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
        max_leaves=6,
    ),
    st.integers(1, 1000),
    st.binary(max_size=3),
    st.integers(0, 3),
)
def test_an_object_that_was_damaged_is_never_taken_for_another_format(
    value: object, at: int, junk: bytes, cut: int
) -> None:
    document = json.dumps({"id": 1, "a": value}, ensure_ascii=False).encode("utf-8", "replace")
    at = 1 + at % len(document)
    raw = document[:at] + junk + document[at + cut :]
    decoded = JsonFormat().decoder(SCHEMA).decode(make_batch(make_records([raw])))
    reasons = {rejection.reason for rejection in decoded.rejections}
    assert not reasons & {"framed", "compressed", "binary", "other_format"}
