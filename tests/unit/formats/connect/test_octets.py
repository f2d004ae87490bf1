"""Base64 and big-endian numbers in whole columns, against the standard library, one by one."""

from __future__ import annotations

import base64
from decimal import Decimal, localcontext

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.formats.connect.octets import from_base64, from_twos_complement

TYPES = [pa.decimal128(10, 2), pa.decimal128(38, 0), pa.decimal256(76, 38)]


def octets(number: int) -> bytes:
    return number.to_bytes(max(1, (number.bit_length() + 8) // 8), "big", signed=True)


@settings(deadline=None)
@given(st.lists(st.none() | st.binary(max_size=20)), st.integers(0, 3))
def test_base64_is_read_as_the_standard_library_reads_it(values: list[bytes | None], start: int) -> None:
    texts = [None if value is None else base64.b64encode(value).decode() for value in values]
    found, bad = from_base64(pa.array(["AAAA"] * start + texts, pa.string()).slice(start))
    assert found.to_pylist() == values
    assert not any(bad.to_pylist())


@pytest.mark.parametrize("text", ["1", "abc", "=", "A===", "AA=A", "12.34", "-_-_", "AAAA ", "AAAA\n", "é==="])
def test_what_is_no_base64_is_found_beside_what_is(text: str) -> None:
    found, bad = from_base64(pa.array(["BNI=", text, None]))
    assert bad.to_pylist() == [False, True, False]
    assert found.to_pylist() == [b"\x04\xd2", None, None]


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(-(2**260), 2**260) | st.integers(-200, 200)), st.sampled_from(TYPES))
def test_a_number_is_exact_or_found_not_to_fit(numbers: list[int | None], to: pa.DataType) -> None:
    given_bytes = pa.array([b"pad", *(None if one is None else octets(one) for one in numbers)], pa.binary()).slice(1)
    found, bad = from_twos_complement(given_bytes, to)
    assert found.type == to
    with localcontext() as context:
        context.prec = 100
        for number, value, wrong in zip(numbers, found.to_pylist(), bad.to_pylist(), strict=True):
            fits = number is not None and abs(number) < 10**to.precision
            assert wrong == (number is not None and not fits)
            if fits:
                assert number is not None
                assert value == Decimal(number).scaleb(-to.scale)


def test_no_bytes_are_no_number() -> None:
    _, bad = from_twos_complement(pa.array([b"", None, b"\x01"], pa.binary()), pa.decimal128(5, 2))
    assert bad.to_pylist() == [True, False, False]
