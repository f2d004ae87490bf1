"""Protobuf written by hand, for what no serializer makes, and readers of schemas in a line."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from batcher.formats.protobuf.codec import CODEC
from batcher.formats.writer_schema import ReadRows, SchemaKey, SchemaReader, WriterSchema


def varint(number: int) -> bytes:
    written = bytearray()
    number %= 2**64
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def number(field: int, value: int) -> bytes:
    return tag(field, 0) + varint(value)


def held(field: int, octets: bytes) -> bytes:
    """Write a text, bytes, a message or packed numbers."""
    return tag(field, 2) + varint(len(octets)) + octets


def reader(body: str, *, syntax: str = "proto3", message: str = "M", target: pa.Schema | None = None) -> SchemaReader:
    """Return a reader of a message of a file that has this in it."""
    written = WriterSchema("protobuf", f'syntax = "{syntax}"; package t; {body}', {}, message)
    return CODEC.reader(written, SchemaKey(), target)


def read(given: SchemaReader, *payloads: bytes) -> ReadRows:
    found = given.read(pa.array(payloads, pa.binary()))
    found.table.validate(full=True)
    return found


def value(body: str, payload: bytes, **options: Any) -> Any:
    """Return the first column of the one record."""
    found = read(reader(body, **options), payload)
    assert not found.rejections, found.rejections
    return found.table.column(0).to_pylist()[0]
