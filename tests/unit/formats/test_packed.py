"""Messages that are compressed or framed: what is in them is read as if it had come bare."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.compression import Compression
from batcher.formats.framing import Framing, FramingKind
from batcher.formats.json.format import JsonFormat
from batcher.formats.packed import PackedFormat
from batcher.records import Batch, Decoded, Partition
from batcher.testing.values import make_batch, make_records

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False)])
FRAME = b"\0\0\0\0\7"


def document(number: int, **more: Any) -> bytes:
    return json.dumps({"id": number, **more}).encode()


def batch_of(*values: bytes | None) -> Batch:
    runs = [make_records([value], partition=Partition("events", 0), first_offset=at) for at, value in enumerate(values)]
    return make_batch(*runs).joined()


def packed(kind: FramingKind = "none", compression: Compression = "none", *, reject: bool = False) -> PackedFormat:
    framing = Framing(kind, tombstones="reject" if reject else "skip", max_message_bytes=1000)
    return PackedFormat(JsonFormat(), framing, compression)


def reasons(decoded: Decoded) -> list[tuple[int, str]]:
    return [(one.position, one.reason) for one in decoded.rejections]


def test_framed_json_is_read_without_its_frames_and_in_its_order() -> None:
    other = b"\0\0\0\0\x09"
    values = [
        FRAME + document(0),
        other + document(1),
        None,
        document(3),
        FRAME + b"nonsense",
        FRAME + document(5, x=1),
    ]
    decoded = packed("confluent").decoder(SCHEMA).decode(batch_of(*values))

    assert decoded.table["id"].to_pylist() == [0, 1, 5]
    assert decoded.positions.to_pylist() == [0, 1, 5]
    assert decoded.skipped.to_pylist() == [2]
    assert reasons(decoded) == [(3, "unframed"), (4, "syntax")]
    assert [(one.path, one.position) for one in decoded.unknown] == [("x", 5)]


@pytest.mark.parametrize("kind", ["none", "confluent"])
def test_what_cannot_be_decompressed_is_refused_once_and_is_no_tombstone(kind: FramingKind) -> None:
    frame = FRAME if kind == "confluent" else b""
    values = [gzip.compress(frame + document(0)), b"plain", None, gzip.compress(frame + document(3))[:-3]]
    values += [gzip.compress(frame + document(4)), gzip.compress(b" " * 5000)]
    decoded = packed(kind, "gzip").decoder(SCHEMA).decode(batch_of(*values))

    assert decoded.table["id"].to_pylist() == [0, 4]
    assert decoded.positions.to_pylist() == [0, 4]
    assert decoded.skipped.to_pylist() == [2]
    assert [position for position, _ in reasons(decoded)] == [1, 3, 5]
    assert reasons(decoded)[2] == (5, "too_large")


@pytest.mark.parametrize("kind", ["none", "confluent"])
def test_a_batch_of_which_nothing_can_be_unpacked_has_no_rows(kind: FramingKind) -> None:
    form = packed(kind, "gzip")

    decoded = form.decoder(SCHEMA).decode(batch_of(b"plain", b"bare"))
    assert (decoded.table.schema, decoded.table.num_rows) == (SCHEMA, 0)
    assert [position for position, _ in reasons(decoded)] == [0, 1]
    assert form.infer(batch_of(b"plain")) is None
    assert form.grow(SCHEMA, batch_of(b"plain")) == SCHEMA


def test_a_schema_comes_from_what_is_in_the_messages() -> None:
    assert packed("confluent").infer(batch_of(FRAME + document(1), b"bare")) == pa.schema([("id", pa.int64())])


def test_tombstones_are_refused_where_they_are_to_be() -> None:
    decoded = packed("confluent", reject=True).decoder(SCHEMA).decode(batch_of(None, FRAME + document(1)))

    assert reasons(decoded) == [(0, "tombstone")]
