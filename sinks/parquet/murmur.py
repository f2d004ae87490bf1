"""Iceberg's hash for `bucket`: Murmur3, 32 bits, x86, seed 0, over whole columns.

Source: the Iceberg table specification, appendix B, "32-bit Hash Requirements". In Arrow's kernels, so that it needs
nothing that the sink does not: 32-bit arithmetic is done in 64 bits and masked.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

_MASK: Final = 0xFFFFFFFF
_C1: Final = 0xCC9E2D51
_C2: Final = 0x1B873593

# Each step costs a dozen kernels for as long as any value goes on: longer values are better hashed one by one.
LONGEST: Final = 256
"""Bytes up to which values are hashed together."""


def hash_longs(values: pa.Int64Array) -> pa.UInt64Array:
    """Return the hash of each 64-bit number, as its eight bytes, the lowest first; null stays null."""
    bits = _bits(values)
    zeros = pa.repeat(_u64(0), len(values))
    state = _step(_step(zeros, pc.bit_wise_and(bits, _u64(_MASK))), pc.shift_right(bits, _u64(32)))
    hashed = _finished(pc.bit_wise_xor(state, _u64(8)))
    return pc.if_else(values.is_valid(), hashed, pa.scalar(None, pa.uint64()))


def hash_bytes(values: pa.BinaryArray) -> pa.UInt64Array:
    """Return the hash of each value, as its bytes; null stays null."""
    lengths = pc.binary_length(values).cast(pa.int64())
    long = pc.greater(lengths, LONGEST).fill_null(False)
    if not long.true_count:
        return _hash_together(values, lengths)
    rows = pc.indices_nonzero(long)
    one_by_one = pa.array([hash_one(value.as_buffer()) for value in values.take(rows)], pa.uint64())
    blank = pc.if_else(long, pa.scalar(b"", values.type), values)
    return pc.replace_with_mask(_hash_together(blank, pc.binary_length(blank).cast(pa.int64())), long, one_by_one)


def hash_one(value: bytes | pa.Buffer) -> int:
    """Return the hash of one value."""
    content = memoryview(value).cast("B")
    state = 0
    whole = len(content) // 4 * 4
    for word in memoryview(content[:whole]).cast("I"):
        state ^= _scrambled_one(word)
        state = ((state << 13 | state >> 19) * 5 + 0xE6546B64) & _MASK
    state ^= _scrambled_one(int.from_bytes(content[whole:], "little")) ^ (len(content) & _MASK)
    state = ((state ^ state >> 16) * 0x85EBCA6B) & _MASK
    state = ((state ^ state >> 13) * 0xC2B2AE35) & _MASK
    return state ^ state >> 16


def _hash_together(values: pa.BinaryArray, lengths: pa.Int64Array) -> pa.UInt64Array:
    lengths = lengths.fill_null(0)
    order = pc.sort_indices(lengths, sort_keys=[("", "descending")])
    lengths = lengths.take(order)
    words, starts = _words(values.fill_null(b"").take(order), lengths)
    rest = pc.bit_wise_and(lengths, 3)
    wholes = pc.shift_right(lengths, 2)
    state = pa.repeat(_u64(0), len(values))
    done: list[Any] = []
    longest = 0 if not len(wholes) else int(wholes[0].as_py())
    for number in range(longest):
        # The longest come first, so those that go on are a prefix.
        going = pc.greater(wholes, number).true_count
        done.append(state.slice(going))
        state = _step(state.slice(0, going), words.take(pc.add(starts.slice(0, going), number)))
    state = pa.concat_arrays([state, *reversed(done)])
    # Where nothing is left the tail is the last word of anything, times nothing.
    last = pc.min_element_wise(pc.add(starts, wholes), max(len(words) - 1, 0))
    tail = pc.if_else(pc.greater(rest, 0), words.take(last), _u64(0))
    state = pc.bit_wise_xor(pc.bit_wise_xor(state, _scrambled(tail)), lengths.cast(pa.uint64()))
    back = pc.sort_indices(order)
    return pc.if_else(values.is_valid(), _finished(state).take(back), pa.scalar(None, pa.uint64()))


def _words(values: pa.BinaryArray, lengths: pa.Int64Array) -> tuple[pa.UInt64Array, pa.Int64Array]:
    """Return the bytes of all values as numbers of four, each value filled up with zeros, and where each begins."""
    fill = pa.array([b"", b"\0\0\0", b"\0\0", b"\0"], pa.large_binary()).take(pc.bit_wise_and(lengths, 3))
    padded = pc.binary_join_element_wise(values.cast(pa.large_binary()), fill, pa.scalar(b"", pa.large_binary()))
    offsets = pa.Array.from_buffers(pa.int64(), len(padded) + 1, [None, padded.buffers()[1]], offset=padded.offset)
    size = int(offsets[len(padded)].as_py()) // 4
    # One more, so that there is something to take where no value has a byte.
    words = pa.array([0], pa.uint64())
    if size:
        found = pa.Array.from_buffers(pa.uint32(), size, [None, padded.buffers()[2]])
        words = pa.concat_arrays([found.cast(pa.uint64()), words])
    return words, pc.shift_right(offsets.slice(0, len(padded)), 2)


def _step(state: pa.UInt64Array, words: pa.UInt64Array) -> pa.UInt64Array:
    mixed = _rotated(pc.bit_wise_xor(state, _scrambled(words)), 13)
    return pc.bit_wise_and(pc.add(pc.multiply(mixed, _u64(5)), _u64(0xE6546B64)), _u64(_MASK))


def _scrambled(words: pa.UInt64Array) -> pa.UInt64Array:
    return _times(_rotated(_times(words, _C1), 15), _C2)


def _scrambled_one(word: int) -> int:
    word = word * _C1 & _MASK
    return ((word << 15 | word >> 17) & _MASK) * _C2 & _MASK


def _finished(state: pa.UInt64Array) -> pa.UInt64Array:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = _times(pc.bit_wise_xor(state, pc.shift_right(state, _u64(shift))), factor)
    return pc.bit_wise_xor(state, pc.shift_right(state, _u64(16)))


def _times(values: pa.UInt64Array, factor: int) -> pa.UInt64Array:
    # Two numbers of 32 bits: their product fits 64.
    return pc.bit_wise_and(pc.multiply(values, _u64(factor)), _u64(_MASK))


def _rotated(values: pa.UInt64Array, by: int) -> pa.UInt64Array:
    left = pc.bit_wise_and(pc.shift_left(values, _u64(by)), _u64(_MASK))
    return pc.bit_wise_or(left, pc.shift_right(values, _u64(32 - by)))


def _bits(values: pa.Int64Array) -> pa.UInt64Array:
    """Return signed numbers as unsigned ones with the same bits, null as any."""
    return pa.Array.from_buffers(pa.uint64(), len(values), [None, values.buffers()[1]], offset=values.offset)


def _u64(value: int) -> Any:
    return pa.scalar(value, pa.uint64())
