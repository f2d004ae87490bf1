"""Base64 and big-endian numbers in whole columns, with what the standard library does in one call for many values."""

from __future__ import annotations

import binascii
from decimal import Decimal
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_BASE64: Final = r"\A(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\z"

_SIGNS: Final = bytes(0 if byte < 0x80 else 0xFF for byte in range(256))
"""For each first byte of a number in two's complement, the bytes before it."""


def from_base64(texts: pa.StringArray) -> tuple[pa.BinaryArray, pa.BooleanArray]:
    """Return the bytes that texts stand for, and where a text is no Base64; there the bytes mean nothing."""
    good = pc.fill_null(pc.match_substring_regex(texts, _BASE64), fill_value=False)
    bad = pc.and_(texts.is_valid(), pc.invert(good))
    sound = pc.if_else(good, texts, pa.scalar("", pa.string()))
    # Padding in the middle would end the whole. As A it is a bit pattern of zeros, which is cut off again.
    joined = _data_of(pc.replace_substring(sound, "=", "A"))
    padding = pc.add(pc.ends_with(sound, "=").cast(pa.int32()), pc.ends_with(sound, "==").cast(pa.int32()))
    lengths = pc.multiply(pc.divide(pc.binary_length(sound), 4), 3)
    padded = pa.BinaryArray.from_buffers(
        pa.binary(), len(texts), [None, _offsets(lengths), pa.py_buffer(binascii.a2b_base64(joined))]
    )
    found = padded
    for count in (1, 2):
        mine = pc.equal(padding, count)
        if pc.any(mine).as_py():
            found = pc.if_else(mine, pc.binary_slice(padded, 0, -count), found)
    return pc.if_else(good, found, pa.scalar(None, pa.binary())), bad


def from_twos_complement(numbers: pa.BinaryArray, to: pa.DataType) -> tuple[pa.Array, pa.BooleanArray]:
    """Return unscaled numbers, big-endian and in two's complement, as decimals of a type, and where one does not fit.

    There the decimals mean nothing. Bytes of length 0 are no number.
    """
    width = to.byte_width
    lengths = pc.fill_null(pc.binary_length(numbers), 0)
    fitting = pc.and_(pc.greater(lengths, 0), pc.less_equal(lengths, width))
    parts: list[pa.Array] = []
    rows: list[pa.Array] = []
    for length in pc.unique(lengths.filter(fitting)).to_pylist():
        mine = pc.equal(lengths, length)
        data = _data_of(numbers.filter(mine))
        count = len(data) // length
        out = bytearray(width * count)
        for place in range(length):
            out[place::width] = data[length - 1 - place :: length]
        signs = data[::length].translate(_SIGNS)
        for place in range(length, width):
            out[place::width] = signs
        parts.append(pa.Array.from_buffers(to, count, [None, pa.py_buffer(bytes(out))]))
        rows.append(pc.indices_nonzero(mine).cast(pa.int64()))
    if not parts:
        return pa.nulls(len(numbers), to), numbers.is_valid()
    found = pa.concat_arrays(parts).take(pc.index_in(pa.arange(0, len(numbers)), value_set=pa.concat_arrays(rows)))
    bad = pc.and_(numbers.is_valid(), pc.invert(fitting))
    # Bytes have room for more digits than the type has.
    limit = pa.scalar(_nines(to), to)
    least, most = pc.min_max(found).as_py().values()
    if most is not None and (most > limit.as_py() or least < limit.as_py().copy_negate()):
        bad = pc.or_(bad, pc.fill_null(_beyond(found, limit), fill_value=False))
    return found, bad


def _beyond(numbers: pa.Array, limit: pa.Scalar) -> pa.BooleanArray:
    return pc.or_(pc.greater(numbers, limit), pc.less(numbers, pc.negate(limit)))


def _nines(to: pa.DataType) -> Decimal:
    # Made of digits: arithmetic would round to the 28 digits of the context.
    return Decimal((0, (9,) * to.precision, -to.scale))


def _data_of(values: pa.Array) -> bytes:
    """Return the bytes of all values, one behind the other. Null values have none."""
    whole = pa.concat_arrays([values]) if values.offset or values.null_count else values
    _, offsets, data = whole.buffers()
    if data is None or not len(whole):
        return b""
    last = memoryview(offsets).cast("i")
    return bytes(memoryview(data)[last[0] : last[len(whole)]])


def _offsets(lengths: pa.Array) -> pa.Buffer:
    ends = pc.cumulative_sum(lengths.cast(pa.int32()))
    return pa.concat_arrays([pa.array([0], pa.int32()), ends]).buffers()[1]
