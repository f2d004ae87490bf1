"""Places of a schema that have no type yet, as Arrow's reader hands them over."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.testing.values import make_batch, make_records

NULLS = pa.list_(pa.null())


@pytest.mark.parametrize("on_unknown", ["warn", "ignore", "reject"])
@pytest.mark.parametrize(
    ("schema", "messages", "rows"),
    [
        (
            pa.schema([("b", NULLS)]),
            [b'{"b":[null,null]}', b'{"b":[null]}', b"{}", b'{"b":[]}'],
            [[None, None], [None], None, []],
        ),
        (
            pa.schema([("b", pa.list_(NULLS))]),
            [b'{"b":[[null],[null,null]]}', b'{"b":[null,[]]}'],
            [[[None], [None, None]], [None, []]],
        ),
        (
            pa.schema([("b", pa.struct([("c", NULLS)]))]),
            [b'{"b":{"c":[null,null,null]}}', b'{"b":{}}', b'{"b":null}'],
            [{"c": [None, None, None]}, {"c": None}, None],
        ),
    ],
    ids=["list", "list of lists", "list in a struct"],
)
def test_nulls_in_a_list_without_a_type_are_all_kept(
    schema: pa.Schema, messages: list[bytes], rows: list[object], on_unknown: str
) -> None:
    decoder = JsonFormat(JsonOptions(on_unknown=on_unknown)).decoder(schema)  # type: ignore[arg-type]
    decoded = decoder.decode(make_batch(make_records(messages)))
    decoded.table.validate(full=True)
    assert decoded.table["b"].to_pylist() == rows
    assert not decoded.outgrown


@pytest.mark.parametrize("value", [b"true", b"false", b"0", b'"a"', b"[]", b"{}", b"[true]"])
@pytest.mark.parametrize("place", [b'{"b":%s}', b'{"c":[null,%s]}', b'{"d":{"e":%s}}', b'{"f":[{"g":null},{"g":%s}]}'])
def test_one_value_among_many_nulls_outgrows_the_schema_whatever_its_kind(value: bytes, place: bytes) -> None:
    schema = pa.schema(
        [
            ("b", pa.null()),
            ("c", NULLS),
            ("d", pa.struct([("e", pa.null())])),
            ("f", pa.list_(pa.struct([("g", pa.null())]))),
        ]
    )
    form = JsonFormat()
    batch = make_batch(make_records([b'{"b":null,"c":[null],"d":{},"f":[{}]}'] * 200 + [place % value]))
    decoded = form.decoder(schema).decode(batch)
    assert decoded.outgrown
    assert not decoded.rejections
    again = form.decoder(form.grow(schema, batch)).decode(batch)
    assert not again.outgrown
    assert len(again.positions) == batch.rows
