"""Keys that are read too: each record has the columns of its key and of its value, or is refused for one of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.cli.support import wiring
from batcher.errors import ConfigurationError
from batcher.formats.framing import KEY_HEADER
from batcher.protocols import Format
from batcher.records import PLACEHOLDER, Batch, Decoded, Headers
from batcher.settings import Settings
from batcher.settings.model import Decode
from batcher.testing.contract.format import check_places
from batcher.testing.values import make_batch, make_records

ID = pa.field("id", pa.int64())
KEY_ID = pa.field("_key.id", pa.int64())
AVRO: Any = {"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "string"}]}


def keyed(key_format: str, **decode: Any) -> Format:
    return wiring.format_of(Settings(decode=Decode(key_format=key_format, **decode)))


def batch_of(*keys: bytes | None, values: list[bytes | None] | None = None, headers: Any = None) -> Batch:
    """Return records with these keys, each alone in its run; without `values` the id of each is its position."""
    values = values or [json.dumps({"id": number}).encode() for number in range(len(keys))]
    return make_batch(make_records(values, keys=keys, headers=headers)).joined()


def decode(form: Format, batch: Batch, *fields: pa.Field) -> Decoded:
    decoder = form.decoder(pa.schema(fields))
    decoded = decoder.decode(batch)
    check_places(decoded, decoder, batch)
    return decoded


def told(decoded: Decoded) -> list[tuple[int, str, str | None]]:
    return [(one.position, one.reason, one.path) for one in decoded.rejections]


def avro(schema: Any, value: Any) -> bytes:
    fastavro = pytest.importorskip("fastavro")
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def schema_file(tmp_path: Path, schema: Any) -> str:
    (tmp_path / "key.avsc").write_text(json.dumps(schema))
    return str(tmp_path / "key.avsc")


def test_a_key_is_text_or_its_record_is_refused() -> None:
    form, batch = keyed("text"), batch_of(b"a", None, b"\xff", b"")
    assert form.infer(batch) == pa.schema([ID, ("_key", pa.string())])

    decoded = decode(form, batch, ID, pa.field("_key", pa.string()))
    assert decoded.table["_key"].to_pylist() == ["a", None, ""]
    assert told(decoded) == [(2, "encoding", "_key")]
    assert decoded.rejections[0].message.startswith("field _key: the key is not UTF-8; --decode.key-format bytes")


def test_the_fields_of_a_key_fill_the_columns_that_are_named_after_them() -> None:
    form = keyed("json")
    batch = batch_of(b'{"id":7,"at":{"x":1}}', b'{"id":"seven"}', None, b"\xff", b"[1]", b'{"id":8,"more":1}')
    decoded = decode(form, batch, KEY_ID, ID)

    assert decoded.table.to_pylist() == [
        {"_key.id": 7, "id": 0},
        {"_key.id": None, "id": 2},
        {"_key.id": 8, "id": 5},
    ]
    assert [(position, path) for position, _, path in told(decoded)] == [(1, "_key.id"), (3, "_key"), (4, "_key")]
    assert decoded.rejections[0].message.startswith("field _key.id: ")
    assert [(one.path, one.records, one.position) for one in decoded.unknown] == [
        ("_key.at", 1, 0),
        ("_key.more", 1, 5),
    ]


def test_a_key_that_is_refused_costs_its_record_and_no_other_one() -> None:
    values: list[bytes | None] = [b'{"id":0}', None, b"junk", b'{"id":3}', b'{"id":4}']
    batch = batch_of(b"{}", b"junk", b"junk", b"junk", b'{"id":4}', values=values)
    decoded = decode(keyed("json"), batch, ID, KEY_ID)

    assert decoded.positions.to_pylist() == [0, 4]
    assert decoded.skipped.to_pylist() == [1], "a tombstone is skipped whatever its key is"
    assert [(position, path) for position, _, path in told(decoded)] == [(2, None), (3, "_key")]


def test_a_record_without_a_key_is_refused_where_a_column_of_the_key_needs_a_value() -> None:
    decoded = decode(keyed("json"), batch_of(b'{"id":7}', None, b"{}"), ID, KEY_ID.with_nullable(False))
    assert decoded.table["_key.id"].to_pylist() == [7]
    assert [(position, path) for position, _, path in told(decoded)] == [(1, "_key.id"), (2, "_key.id")]
    assert decoded.rejections[0].message.endswith("the record has no key")


def test_a_batch_without_any_key_has_nulls_in_its_columns() -> None:
    form = keyed("json")
    assert form.infer(batch_of(None, None)) == pa.schema([ID])
    kind = pa.struct([("a", pa.list_(pa.string()))])
    decoded = decode(form, batch_of(None, None), ID, pa.field("_key.x", kind))
    assert decoded.table["_key.x"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"12", 12), (b" -3 ", -3), (b"null", None), (b"1e2", 100), (b"0", 0)],
)
def test_a_key_of_json_need_not_be_an_object(key: bytes, value: int | None) -> None:
    decoded = decode(keyed("json"), batch_of(key), ID, pa.field("_key", pa.int64()))
    assert decoded.table["_key"].to_pylist() == [value]


@pytest.mark.parametrize("key", [b"01", b"1}", b'1,"value":2', b'"a', b'"\n"', b"nul", b"1 2", b"", b"[1]", b'"\xff"'])
def test_what_is_no_json_is_no_key(key: bytes) -> None:
    decoded = decode(keyed("json"), batch_of(key, b'"good"'), ID, pa.field("_key", pa.string()))
    assert decoded.table["_key"].to_pylist() == ["good"]
    assert [(position, path) for position, _, path in told(decoded)] == [(0, "_key")]


def test_text_as_a_key_of_json_is_the_column_of_the_key_where_it_is_inferred() -> None:
    batch = batch_of(b'"a"', b'"\\u00e9"')
    schema = keyed("json").infer(batch)
    assert schema == pa.schema([ID, ("_key", pa.string())])
    assert decode(keyed("json"), batch, *schema).table["_key"].to_pylist() == ["a", "é"]


def test_a_column_of_the_key_gets_its_type_with_its_first_value() -> None:
    form = keyed("json")
    schema = form.infer(batch_of(b'{"id":null,"n":1}'))
    assert schema == pa.schema([ID, ("_key.id", pa.null()), ("_key.n", pa.int64())])
    later = batch_of(b'{"id":"x"}')
    assert form.decoder(schema).decode(later).outgrown
    assert form.grow(schema, later) == pa.schema([ID, ("_key.id", pa.string()), ("_key.n", pa.int64())])


def test_a_field_of_the_value_never_fills_a_column_of_the_key() -> None:
    batch = batch_of(b'{"id":7}', values=[b'{"id":1,"_key.id":99,"_key":98}'])
    decoded = decode(keyed("json"), batch, ID, KEY_ID)
    assert decoded.table.to_pylist() == [{"id": 1, "_key.id": 7}]
    assert {one.path for one in decoded.unknown} == {"_key.id", "_key"}


def test_a_target_may_have_columns_of_the_key_only_or_none() -> None:
    batch = batch_of(b'{"id":7}', b'{"id":8}')
    assert decode(keyed("json"), batch, KEY_ID).table.to_pylist() == [{"_key.id": 7}, {"_key.id": 8}]
    decoded = decode(keyed("json"), batch, ID)
    assert decoded.table.to_pylist() == [{"id": 0}, {"id": 1}]
    assert [(one.path, one.records) for one in decoded.unknown] == [("_key.id", 2)]


def test_options_for_a_column_of_the_key_are_given_by_its_name() -> None:
    at = pa.field("_key.at", pa.timestamp("ms", "UTC"))
    form = keyed("json", epoch=("_key.at=s",), text=("_key.note",))
    batch = batch_of(b'{"at":3,"note":{"a":1}}')
    decoded = decode(form, batch, ID, at, pa.field("_key.note", pa.string()))
    assert decoded.table["_key.at"].cast(pa.int64()).to_pylist() == [3000]
    assert decoded.table["_key.note"].to_pylist() == ['{"a":1}']


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"key_format": "raw"}, ID, "bytes, or text"),
        ({"key_format": "avro"}, ID, "key-format avro: where are the schemas.*key-writer-schema"),
        ({"key_format": "bytes", "key_framing": "confluent"}, ID, "key-framing: keys are not read"),
        ({"key_format": "text", "key_writer_schema": "x"}, ID, "key-writer-schema"),
        ({"key_format": "text"}, pa.field("_key", pa.int64()), "key-format text: column _key is int64"),
        ({"key_format": "json"}, pa.field("_key.a", pa.duration("s")), "key-format json: .*column a"),
    ],
)
def test_what_cannot_work_is_refused_before_a_record_is_read(
    options: dict[str, Any], field: pa.Field, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        wiring.format_of(Settings(decode=Decode(**options))).decoder(pa.schema([field]))


def test_two_columns_for_the_same_part_of_a_key_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"_key and _key\.value"):
        keyed("json").decoder(pa.schema([("_key", pa.int64()), ("_key.value", pa.int64())]))


def test_keys_of_avro_are_read_with_a_schema_of_their_own(tmp_path: Path) -> None:
    form = keyed("avro", key_writer_schema=schema_file(tmp_path, AVRO))
    batch = batch_of(avro(AVRO, {"id": 7, "n": "x"}), None, b"\x80")
    assert form.infer(batch) == pa.schema([ID, KEY_ID, ("_key.n", pa.string())])

    decoded = decode(form, batch, ID, pa.field("_key.id", pa.int32()))
    assert decoded.table.to_pylist() == [{"id": 0, "_key.id": 7}, {"id": 1, "_key.id": None}]
    assert told(decoded) == [(2, "truncated", "_key.id")]
    assert [one.path for one in decoded.unknown] == ["_key.n"]


def test_a_key_of_avro_that_is_no_record_fills_the_column_of_the_key(tmp_path: Path) -> None:
    form = keyed("avro", key_writer_schema=schema_file(tmp_path, "long"))
    batch = batch_of(avro("long", 7), None)
    assert form.infer(batch) == pa.schema([ID, ("_key", pa.int64())])
    assert decode(form, batch, ID, pa.field("_key", pa.int64())).table["_key"].to_pylist() == [7, None]


def test_the_frame_of_a_key_is_in_the_key_or_in_a_header_of_its_own() -> None:
    headers: list[Headers | None] = [None, ((KEY_HEADER, b"\0\0\0\0\7"), ("__value_schema_id", b"\1")), (("a", b""),)]
    keys = [b'\0\0\0\0\7{"id":1}', b'{"id":2}', b'{"id":3}']
    decoded = decode(keyed("json", key_framing="confluent"), batch_of(*keys, headers=headers), ID, KEY_ID)
    assert decoded.table["_key.id"].to_pylist() == [1, 2]
    assert told(decoded) == [(2, "unframed", "_key")]
    assert KEY_HEADER in decoded.rejections[0].message


def test_a_batch_of_which_no_value_can_be_read_has_a_decoder() -> None:
    form, batch = keyed("json"), batch_of(b'{"id":7}', values=[b"junk"])
    assert form.infer(batch) is None
    assert told(form.decoder(PLACEHOLDER).decode(batch))[0][0] == 0


KEYS = st.none() | st.sampled_from(
    [b'{"id":1}', b'{"id":"x"}', b"5", b'"t"', b"{", b"\xff", b"", b'{"id":null,"b":[]}']
)
VALUES = st.sampled_from([b'{"id":1}', None, b"junk", b'{"id":null}', b'{"x":2}'])


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=8), st.sampled_from(["json", "text"]), st.booleans())
def test_a_record_fares_the_same_alone_and_among_others(
    records: list[tuple[bytes | None, bytes | None]], key_format: str, needed: bool
) -> None:
    fields = (ID, pa.field("_key", pa.string())) if key_format == "text" else (ID, KEY_ID.with_nullable(not needed))
    form = keyed(key_format)
    keys, values = [key for key, _ in records], [value for _, value in records]
    whole = decode(form, batch_of(*keys, values=values), *fields)
    rows = dict(zip(whole.positions.to_pylist(), whole.table.to_pylist(), strict=True))
    reasons = {one.position: (one.reason, one.message) for one in whole.rejections}
    for position, (key, value) in enumerate(records):
        alone = decode(form, batch_of(key, values=[value]), *fields)
        assert alone.table.to_pylist() == ([rows[position]] if position in rows else [])
        found = [(one.reason, one.message) for one in alone.rejections]
        assert found == ([reasons[position]] if position in reasons else [])
