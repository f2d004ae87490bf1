import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.generate import parquet_rows
from batcher.generate.inputs import BrokenInput
from batcher.generate.parquet_rows import parquet_chunks
from batcher.generate.skipped import SkipReason

UUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def rows(table: Any, tmp_path: Path, **options: Any) -> list[bytes | SkipReason]:
    file = tmp_path / "x.parquet"
    pq.write_table(table, file, **options)
    return [item for chunk in parquet_chunks(str(file)) for item in chunk.items]


@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        (pa.int64(), [2**63 - 1, None, -(2**63)], ["9223372036854775807", "null", "-9223372036854775808"]),
        (pa.uint64(), [2**64 - 1], ["18446744073709551615"]),
        (pa.decimal128(38, 2), [Decimal("1.50"), Decimal("-" + "9" * 36 + ".99")], ["1.50", "-" + "9" * 36 + ".99"]),
        (pa.decimal256(60, 0), [Decimal("1" * 60)], ["1" * 60]),
        (pa.float64(), [0.1, 1e300, None], ["0.1", "1e300", "null"]),
        (pa.float32(), [0.5, float("nan")], ["0.5", '"NaN"']),
        (pa.float64(), [float("inf"), float("-inf")], ['"Infinity"', '"-Infinity"']),
        (pa.bool_(), [True, None], ["true", "null"]),
        (pa.string(), ['q" \n\u2028é\0'], ['"q\\" \\n\u2028é\\u0000"']),
        (pa.binary(), [b"\xff\x00", b"", None], ['"/wA="', '""', "null"]),
        (pa.binary(2), [b"\xff\x00"], ['"/wA="']),
        (pa.uuid(), [UUID.bytes], [f'"{UUID}"']),
        (pa.date32(), [dt.date(2026, 1, 31)], ['"2026-01-31"']),
        (pa.time64("us"), [1], ['"00:00:00.000001"']),
        (pa.timestamp("ns"), [1], ['"1970-01-01T00:00:00.000000001"']),
        (pa.timestamp("us", "Europe/Rome"), [-1], ['"1969-12-31T23:59:59.999999Z"']),
        (pa.timestamp("ms"), [253_402_300_799_999], ['"9999-12-31T23:59:59.999"']),
        (pa.list_(pa.timestamp("s")), [[0, None], None, []], ['["1970-01-01T00:00:00.000",null]', "null", "[]"]),
        (pa.struct([("a", pa.list_(pa.binary()))]), [{"a": [b"x"]}, None], ['{"a":["eA=="]}', "null"]),
        (pa.map_(pa.string(), pa.decimal128(3, 1)), [[("k", Decimal("1.0"))], None, []], ['{"k":1.0}', "null", "{}"]),
        (pa.map_(pa.int32(), pa.bool_()), [[(1, True)]], ['{"1":true}']),
        (pa.dictionary(pa.int8(), pa.string()), ["a", None, "a"], ['"a"', "null", '"a"']),
        (pa.null(), [None], ["null"]),
    ],
    ids=str,
)
def test_each_type_is_json_that_says_exactly_what_the_file_holds(
    kind: Any, values: list[Any], texts: list[str], tmp_path: Path
) -> None:
    column = pa.array(values, kind)

    assert rows(pa.table({"c": column}), tmp_path) == [f'{{"c":{text}}}'.encode() for text in texts]


def test_parts_of_nested_columns_belong_to_their_rows_whatever_is_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "ROWS", 7)
    values = [None if n % 5 == 0 else [{"n": i, "m": [("k", i)]} for i in range(n % 4)] for n in range(100)]
    kind = pa.list_(pa.struct([("n", pa.int64()), ("m", pa.map_(pa.string(), pa.int64()))]))

    found = rows(pa.table({"c": pa.array(values, kind)}), tmp_path, row_group_size=30)

    expected = [
        None if value is None else [{"n": one["n"], "m": dict(one["m"])} for one in value]  # type: ignore[call-overload]
        for value in values
    ]
    assert [json.loads(row)["c"] for row in found] == expected


def test_a_map_with_a_key_twice_costs_its_row_only(tmp_path: Path) -> None:
    column = pa.array([[("a", 1), ("a", 2)], [("a", 1)]], pa.map_(pa.string(), pa.int64()))

    assert rows(pa.table({"c": [[column[0]], [column[1]]]}), tmp_path) == [
        SkipReason.REPEATED_KEY,
        b'{"c":[{"a":1}]}',
    ]


def test_large_rows_are_read_few_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    texts = [str(number) * 200_000 for number in range(10, 60)]
    pq.write_table(pa.table({"c": texts}), file, use_dictionary=False)

    chunks = [len(chunk.items) for chunk in parquet_chunks(str(file))]

    assert sum(chunks) == 50
    assert max(chunks) <= 25


def test_a_damaged_file_gives_what_comes_before_the_damage(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"c": [f"{n:0100d}" for n in range(4000)]}), file, row_group_size=1000, use_dictionary=False
    )
    data = bytearray(file.read_bytes())
    start = pq.ParquetFile(file).metadata.row_group(2).column(0).data_page_offset
    data[start : start + 2000] = b"\xff" * 2000
    file.write_bytes(data)

    found: list[object] = []
    with pytest.raises(BrokenInput, match="is damaged or no Parquet file"):
        found.extend(item for chunk in parquet_chunks(str(file)) for item in chunk.items)

    assert len(found) == 2000


def test_what_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_text("{}\n")
    with pytest.raises(BrokenInput) as caught:
        list(parquet_chunks(str(file)))
    assert str(caught.value).startswith(f"--from {file}: it is damaged or no Parquet file (")
    assert "\n" not in str(caught.value)
