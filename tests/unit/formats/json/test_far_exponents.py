"""Numbers far below the point, in columns that Arrow reads as decimals: it would shift them beyond its own tables."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.testing.values import make_batch, make_records

KINDS = [pa.decimal128(12, 2), pa.decimal256(50, 9)]
MANTISSAS = ["1", "-5", "12345678901234567890", "1." + "0" * 36 + "1"]

FAR = ["1e-99999999", '"1e-99999999"', r'"\u0031e-99999999"', r'"1\u0065-99999999"', "0.1E-09999999"]


def reasons(values: list[str], kind: pa.DataType) -> list[str]:
    decoder = JsonFormat(JsonOptions(native="off")).decoder(pa.schema([("x", kind)]))
    return [one.reason for one in decoder.decode(make_batch(make_records([f'{{"x":{v}}}' for v in values]))).rejections]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_decimal_becomes_zero_because_its_exponent_is_far_below_the_point(kind: pa.DataType) -> None:
    far = [f"{mantissa}e-{exponent:03d}" for exponent in range(77, 420) for mantissa in MANTISSAS]
    assert reasons(far, kind) == ["precision"] * len(far)
    assert reasons([f'"{value}"' for value in far], kind) == ["precision"] * len(far)
    # One alone is read by Arrow, where that can be.
    assert [reasons([f"1E-{exponent}"], kind) for exponent in range(40, 240)] == [["precision"]] * 200
