"""Fields that the schema does not know are counted, wherever they are, and never silently left behind."""

from __future__ import annotations

import pyarrow as pa
import pytest

pytest.importorskip("ptars", reason="needs the extra [protobuf]")

from batcher.formats.framing import Framing
from batcher.formats.json.limits import JsonOptions, OnUnknown
from batcher.formats.protobuf.codec import CODEC
from batcher.formats.writer_schema import SchemaKey, WriterSchema
from batcher.formats.written import WrittenFormat
from batcher.records import Decoded
from batcher.testing.values import make_batch, make_records
from tests.harness.protobuf import held, number, read, reader, tag

BODY = (
    'import "google/protobuf/wrappers.proto"; import "google/protobuf/struct.proto"; '
    'import "google/protobuf/timestamp.proto"; '
    "message I { int32 a = 1; } message N { N n = 1; } message M { int32 i = 1; I in = 2; repeated I ins = 3; "
    "map<string, I> m = 4; google.protobuf.Int64Value w = 5; google.protobuf.Struct st = 6; N n = 7; "
    "repeated google.protobuf.Timestamp ts = 8; map<string, string> mt = 9; }"
)
STRANGE = number(77, 1)


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (STRANGE, "#77"),
        (held(77, b"x"), "#77"),
        (tag(77, 3) + number(1, 1) + tag(77, 4), "#77"),
        (held(1, b"a text where a number should be"), "#1"),
        (held(2, STRANGE), "in.#77"),
        (held(3, b"") + held(3, STRANGE), "ins[].#77"),
        (held(4, held(1, b"k") + held(2, STRANGE)), "m[].#77"),
        (held(4, held(1, b"k") + STRANGE), "m[].#77"),
        (held(5, STRANGE), "w.#77"),
        (held(6, STRANGE), "st.#77"),
        (held(7, held(1, held(1, STRANGE))), "n.n.n.#77"),
        (held(8, STRANGE), "ts[].#77"),
        (held(9, STRANGE), "mt[].#77"),
    ],
)
def test_a_field_that_the_schema_does_not_know_is_named_by_its_number(payload: bytes, path: str) -> None:
    found = read(reader(BODY), b"", payload, number(1, 5))

    assert {one: rows.to_pylist() for one, rows in found.unread.items()} == {path: [1]}
    assert found.rows.to_pylist() == [0, 1, 2]


def test_groups_and_extensions_have_no_column_and_are_counted() -> None:
    body = (
        "message M { optional int32 i = 1; optional group G = 2 { optional int32 q = 1; } "
        "repeated group H = 3 { optional int32 q = 1; } extensions 100 to 200; } extend M { optional int32 e = 100; }"
    )
    given = reader(body, syntax="proto2")
    group = tag(2, 3) + number(1, 5) + tag(2, 4)
    found = read(given, group + number(1, 1), tag(3, 3) + tag(3, 4), number(100, 5), number(1, 2))

    assert given.schema.names == ["i"]
    assert found.table["i"].to_pylist() == [1, None, None, 2]
    assert {path: rows.to_pylist() for path, rows in found.unread.items()} == {"g": [0], "h": [1], "#100": [2]}


class OnlySchema:
    """Answer with one schema."""

    def __init__(self, body: str) -> None:
        self._schema = WriterSchema("protobuf", f'syntax = "proto3"; {body}', {}, "M")

    def get(self, key: SchemaKey) -> WriterSchema:
        del key
        return self._schema


def decode(body: str, on_unknown: OnUnknown, *payloads: bytes) -> Decoded:
    format_ = WrittenFormat(CODEC, Framing("none"), OnlySchema(body), JsonOptions(on_unknown=on_unknown))
    batch = make_batch(make_records(list(payloads)))
    return format_.decoder(pa.schema([("i", pa.int32())])).decode(batch)


def test_the_pipeline_hears_of_them_with_the_records_that_became_rows() -> None:
    decoded = decode(BODY, "warn", number(1, 1), STRANGE, b"\xff", STRANGE + held(2, b""), held(2, STRANGE))

    assert {(one.path, one.records, one.position) for one in decoded.unknown} == {
        ("#77", 2, 1),
        ("in", 2, 3),
        ("in.#77", 1, 4),
        *((path, 4, 0) for path in ("ins", "m", "ts", "mt")),
    }


@pytest.mark.parametrize("on_unknown", ["reject", "halt"])
def test_they_refuse_their_record_where_that_is_wanted(on_unknown: OnUnknown) -> None:
    payloads = (number(1, 1), held(80, b"") + STRANGE, STRANGE, number(1, 4))
    decoded = decode("message M { int32 i = 1; }", on_unknown, *payloads)

    assert decoded.table["i"].to_pylist() == [1, 4]
    assert [(one.position, one.reason, one.path) for one in decoded.rejections] == [
        (1, "unknown_field", "#77"),
        (2, "unknown_field", "#77"),
    ]
    assert not decoded.unknown
