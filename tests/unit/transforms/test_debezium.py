"""Change events of Debezium: the row that each makes, or why it makes none."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.cli.support import wiring
from batcher.errors import ConfigurationError
from batcher.protocols import Format
from batcher.protocols.proposal import Proposal
from batcher.protocols.transform import Proposing
from batcher.records import COLUMN_TYPE, RAW_JSON, SORTED, Batch, Decoded
from batcher.settings import Settings
from batcher.settings.model import Decode, TransformSection
from batcher.testing.contract.format import check_places
from batcher.testing.values import make_batch, make_records
from batcher.transforms.debezium import Debezium
from batcher.transforms.debezium.defaults import default_of
from tests.harness.source_table import (
    UNAVAILABLE,
    Event,
    Form,
    SourceTable,
    avro_value,
    bare_json,
    embedded_json,
    for_avro,
)

UTC = dt.UTC

TARGET: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False, metadata={SORTED: b"1"}),
        pa.field("customer", pa.string(), nullable=False),
        pa.field("amount", pa.decimal128(10, 2), nullable=False),
        pa.field("day", pa.date32(), nullable=False),
        pa.field("made", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("seen", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("zoned", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("paid", pa.bool_(), nullable=False),
        pa.field("note", pa.string()),
        pa.field("_op", pa.string(), nullable=False),
        pa.field("_version", pa.uint64(), nullable=False),
        pa.field("_deleted", pa.uint8(), nullable=False),
    ]
)
UNITS: Final = ("us", "seen=ms")

ROW: Final[Mapping[str, Any]] = {
    "id": 1,
    "customer": "Ann",
    "amount": Decimal("12.34"),
    "day": dt.date(2020, 1, 1),
    "made": dt.datetime(2020, 1, 1, 0, 0, 0, 1, UTC),
    "seen": dt.datetime(2020, 1, 1, 0, 0, 0, 1000, UTC),
    "zoned": dt.datetime(2020, 1, 1, tzinfo=UTC),
    "paid": True,
    "note": None,
}


def debezium(decode: Mapping[str, Any] | None = None, **options: Any) -> Format:
    given: dict[str, Any] = {"decode": Decode(**(decode or {})), "debezium": Debezium(**options)}
    return wiring.format_of(Settings(transform=TransformSection(kind="debezium"), **given))


def bare(**options: Any) -> Format:
    return debezium({"epoch": UNITS}, **options)


def event(op: Any, before: Mapping[str, Any] | None = None, after: Mapping[str, Any] | None = None) -> Event:
    key = after or before
    return Event(
        op,
        None if key is None else {"id": key["id"]},
        None if before is None else dict(before),
        None if after is None else dict(after),
        4711,
    )


def batch_of(*values: bytes | None, first_offset: int = 100) -> Batch:
    return make_batch(make_records(values, first_offset=first_offset)).joined()


def json_of(*events: Event, form: Form = bare_json()) -> Batch:  # noqa: B008 - never changed
    return batch_of(*(form.value(one) for one in events))


def decode(form: Format, batch: Batch, target: pa.Schema = TARGET) -> Decoded:
    decoder = form.decoder(target)
    decoded = decoder.decode(batch)
    check_places(decoded, decoder, batch)
    return decoded


def told(decoded: Decoded) -> list[tuple[int, str, str | None]]:
    return [(one.position, one.reason, one.path) for one in decoded.rejections]


def writer(tmp_path: Path) -> tuple[Callable[[Event], bytes | None], Mapping[str, Any]]:
    """Return what writes events in Avro, and the settings that read them."""
    fastavro = pytest.importorskip("fastavro")
    schema = json.loads(json.dumps(avro_value()))
    (tmp_path / "envelope.avsc").write_text(json.dumps(schema))
    parsed = fastavro.parse_schema(schema)

    def write(one: Event) -> bytes | None:
        found = for_avro(one)
        if found is None:
            return None
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, found)
        return out.getvalue()

    return write, {"format": "avro", "writer_schema": str(tmp_path / "envelope.avsc")}


def final(decoded: Decoded) -> dict[int, dict[str, Any]]:
    """Return what a reader with FINAL sees."""
    rows: dict[int, dict[str, Any]] = {}
    for row in decoded.table.to_pylist():
        if row["id"] not in rows or rows[row["id"]]["_version"] <= row["_version"]:
            rows[row["id"]] = row
    return {
        number: {name: value for name, value in row.items() if not name.startswith("_")}
        for number, row in rows.items()
        if not row["_deleted"]
    }


@pytest.mark.parametrize("version", ["offset", "lsn"])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("kind", ["bare", "embedded", "avro"])
def test_the_newest_versions_are_the_source_table(kind: str, full: bool, version: str, tmp_path: Path) -> None:
    table = SourceTable(11, full)
    table.snapshot(20)
    table.change(300)
    table.message()
    table.truncate()
    table.change(50)
    values, given_settings = bare_json().value, {"epoch": UNITS}
    if kind == "embedded":
        values, given_settings = embedded_json().value, {}
    elif kind == "avro":
        values, given_settings = writer(tmp_path)  # type: ignore[assignment]
    decoded = decode(debezium(given_settings, version=version), batch_of(*map(values, table.events)))
    assert final(decoded) == table.rows
    assert {(reason, path) for _, reason, path in told(decoded)} == {("operation", "op")}
    assert not decoded.unknown


def test_each_operation_makes_a_row_with_what_it_was_and_which_version_it_is() -> None:
    new, old = ROW, {**ROW, "customer": "Bob"}
    events = [event("r", None, ROW), event("c", None, ROW), event("u", old, new), event("d", old)]
    rows = decode(bare(), json_of(*events)).table.to_pylist()
    assert [(row["_op"], row["_version"], row["_deleted"], row["customer"]) for row in rows] == [
        ("r", 100, 0, "Ann"),
        ("c", 101, 0, "Ann"),
        ("u", 102, 0, "Ann"),
        ("d", 103, 1, "Bob"),
    ]


def test_a_deleted_row_has_the_defaults_of_types_where_only_its_key_is_told() -> None:
    before = {name: value if name == "id" else None for name, value in ROW.items()}
    [row] = decode(bare(), json_of(event("d", before))).table.to_pylist()
    assert row == {
        "id": 1,
        "customer": "",
        "amount": Decimal("0.00"),
        "day": dt.date(1970, 1, 1),
        "made": dt.datetime(1970, 1, 1, tzinfo=UTC),
        "seen": dt.datetime(1970, 1, 1, tzinfo=UTC),
        "zoned": dt.datetime(1970, 1, 1, tzinfo=UTC),
        "paid": False,
        "note": None,
        "_op": "d",
        "_version": 100,
        "_deleted": 1,
    }


def test_no_other_row_ever_has_a_default_and_no_key_is_made_up() -> None:
    nothing = dict.fromkeys(ROW)
    events = [event("d", nothing), event("c", None, {**ROW, "customer": None}), event("u", ROW, {**ROW, "id": None})]
    decoded = decode(bare(), json_of(*events))
    assert told(decoded) == [(0, "null", "id"), (1, "null", "customer"), (2, "null", "id")]


def test_without_a_key_nothing_is_made_up() -> None:
    target = pa.schema([field.remove_metadata() for field in TARGET])
    before = {name: value if name == "id" else None for name, value in ROW.items()}
    assert told(decode(bare(), json_of(event("d", before)), target)) == [(0, "null", "customer")]
    assert decode(bare(key=("id",)), json_of(event("d", before)), target).table["_deleted"].to_pylist() == [1]
    with pytest.raises(ConfigurationError, match=r"--debezium\.key nobody"):
        bare(key=("nobody",)).decoder(target).decode(json_of(event("d", before)))


def test_what_says_nothing_about_a_row_is_skipped_or_refused_by_policy() -> None:
    batch = json_of(event("t"), event("m"), event(""))
    decoded = decode(bare(), batch)
    assert told(decoded) == [(0, "operation", "op")]
    assert decoded.skipped.to_pylist() == [1, 2]
    assert not len(decoded.filtered)
    decoded = decode(bare(truncates="skip", messages="reject"), batch)
    assert (told(decoded), decoded.skipped.to_pylist()) == ([(1, "operation", "op")], [0, 2])


def test_what_is_no_event_is_refused_with_the_reason() -> None:
    values = [
        b'{"id":1}',
        b'{"op":"x"}',
        b'{"op":"c","after":null}',
        b'{"op":"d"}',
        b'{"op":"u","before":{"id":1}}',
        b"{",
    ]
    decoded = decode(bare(), batch_of(*values))
    assert [reason for _, reason, _ in told(decoded)] == ["envelope", "operation", "image", "image", "image", "syntax"]


def test_a_value_that_was_not_sent_is_refused_null_or_kept() -> None:
    batch = json_of(event("u", None, {**ROW, "note": UNAVAILABLE}), event("u", None, ROW))
    decoded = decode(bare(), batch)
    assert told(decoded) == [(0, "unavailable", "note")]
    assert decoded.positions.to_pylist() == [1]
    assert decode(bare(unavailable="null"), batch).table["note"].to_pylist() == [None, None]
    assert decode(bare(unavailable="keep"), batch).table["note"].to_pylist() == [UNAVAILABLE, None]
    needed = json_of(event("u", None, {**ROW, "customer": UNAVAILABLE}))
    assert told(decode(bare(unavailable="null"), needed)) == [(0, "null", "customer")]


def test_bytes_lists_and_json_that_were_not_sent_are_found() -> None:
    raw = {RAW_JSON: b"1", COLUMN_TYPE: b"JSON"}
    target = pa.schema([("b", pa.binary()), ("l", pa.list_(pa.string())), pa.field("j", pa.string(), metadata=raw)])
    placeholder = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="
    images = [{"b": placeholder}, {"l": [UNAVAILABLE]}, {"j": UNAVAILABLE}, {"b": "AQ==", "l": ["a"], "j": '{"a":1}'}]
    values = [json.dumps({"op": "c", "after": image}).encode() for image in images]
    decoded = decode(debezium(), batch_of(*values), target)
    assert told(decoded) == [(0, "unavailable", "b"), (1, "unavailable", "l"), (2, "unavailable", "j")]
    assert decoded.table.to_pylist() == [{"b": b"\x01", "l": ["a"], "j": '{"a":1}'}]


def test_a_number_without_a_stated_unit_is_no_time() -> None:
    decoded = decode(debezium(), json_of(event("c", None, ROW)))
    assert told(decoded) == [(0, "timestamp", "made")]
    assert "--decode.epoch made=ms" in decoded.rejections[0].message


def test_a_decimal_is_never_the_number_that_its_text_looks_like() -> None:
    target = pa.schema([("amount", pa.decimal128(10, 2))])
    values = [b'{"op":"c","after":{"amount":%s}}' % text for text in (b'"1234"', b'"12.34"', b"12.34", b'"BNI="')]
    decoded = decode(debezium(), batch_of(*values), target)
    assert decoded.table["amount"].to_pylist() == [Decimal("-26588.24"), Decimal("12.34")]
    assert [(position, path) for position, _, path in told(decoded)] == [(1, "amount"), (2, "amount")]

    plain = decode(debezium(decimals=("plain",)), batch_of(*values), target)
    assert [str(value) for value in plain.table["amount"].to_pylist()] == ["1234.00", "12.34", "12.34"]
    variable = b'{"op":"c","after":{"amount":{"scale":1,"value":"BNI="}}}'
    found = decode(debezium(decimals=("amount=variable",)), batch_of(variable), target)
    assert found.table["amount"].to_pylist() == [Decimal("123.40")]


def test_a_day_is_a_number_and_never_a_text() -> None:
    target = pa.schema([("day", pa.date32())])
    values = [b'{"op":"c","after":{"day":%s}}' % text for text in (b"1", b'"2020-01-01"', b"-2147472692", b"1e10")]
    decoded = decode(debezium(), batch_of(*values), target)
    assert decoded.table["day"].cast(pa.int32()).to_pylist() == [1, -2147472692]
    assert [(position, path) for position, _, path in told(decoded)] == [(1, "day"), (3, "day")]


def test_fields_of_rows_that_no_column_takes_are_named_as_such_and_those_of_events_are_no_loss() -> None:
    updated = event("u", {**ROW, "extra": 1}, {**ROW, "extra": 2})
    decoded = decode(bare(), json_of(updated, event("d", {**ROW, "gone": 1}), event("c", None, ROW)))
    assert {(one.path, one.records, one.position) for one in decoded.unknown} == {("extra", 1, 0), ("gone", 1, 1)}


def test_to_refuse_unknown_fields_takes_a_schema(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="on-unknown reject"):
        debezium({"on_unknown": "reject"})
    write, from_file = writer(tmp_path)
    batch = batch_of(write(event("c", None, ROW)))
    narrow = pa.schema([field for field in TARGET if field.name != "paid"])
    assert told(decode(debezium({**from_file, "on_unknown": "reject"}), batch, narrow)) == [
        (0, "unknown_field", "paid")
    ]
    assert [one.path for one in decode(debezium(from_file), batch, narrow).unknown] == ["paid"]


def test_a_version_that_is_not_there_is_not_made_up() -> None:
    values = [
        b'{"op":"c","after":{"id":1},"source":%s}' % text
        for text in (b'{"lsn":5}', b'{"lsn":null}', b"null", b'{"lsn":-1}')
    ]
    target = pa.schema([("id", pa.int64()), ("_version", pa.uint64())])
    decoded = decode(debezium(version="lsn"), batch_of(*values), target)
    assert decoded.table["_version"].to_pylist() == [5]
    assert told(decoded) == [(number, "version", "source.lsn") for number in (1, 2, 3)]


def test_before_without_any_row_in_the_first_batch_pins_no_type() -> None:
    form = bare()
    schema = form.infer(json_of(event("c", None, {**ROW, "note": None}), event("r", None, ROW)))
    assert schema is not None
    assert schema.field("note").type == pa.null()
    assert schema.names == [*ROW, "_op", "_version", "_deleted"]
    later = json_of(event("d", {**ROW, "note": "x"}))
    grown = form.grow(schema, later) if form.decoder(schema).decode(later).outgrown else schema
    assert grown.field("note").type == pa.string()
    assert decode(form, later, grown).table["note"].to_pylist() == ["x"]


def test_with_a_schema_the_columns_for_a_target_without_any_are_what_is_meant(tmp_path: Path) -> None:
    wanted = pa.schema([field.with_nullable(True).remove_metadata() for field in TARGET])
    kinds = {field.name: field.type for field in wanted} | {"seen": pa.timestamp("ms", "UTC")}
    write, from_file = writer(tmp_path)
    for form, batch in (
        (debezium(), json_of(event("c", None, ROW), form=embedded_json())),
        (debezium(from_file), batch_of(write(event("c", None, ROW)))),
    ):
        schema = form.infer(batch)
        assert schema is not None
        assert {field.name: field.type for field in schema} == kinds
        [row] = decode(form, batch, schema).table.to_pylist()
        assert {name: row[name] for name in ROW} == ROW


def test_first_records_that_are_no_events_are_said_to_be_none() -> None:
    with pytest.raises(ConfigurationError, match="no change events"):
        bare().infer(batch_of(b'{"id":1}'))


def test_a_stated_schema_says_how_events_without_one_are_read(tmp_path: Path) -> None:
    file = tmp_path / "row.arrow"
    stated = pa.schema([("id", pa.int64()), ("amount", pa.decimal128(10, 2)), ("day", pa.date32())])
    with file.open("wb") as out, pa.ipc.new_stream(out, stated):
        pass
    form = debezium({"schema": str(file)})
    batch = batch_of(b'{"op":"c","after":{"id":1,"amount":"BNI=","day":1}}')
    schema = form.infer(batch)
    assert schema is not None
    assert schema.field("amount").type == pa.decimal128(10, 2)
    [row] = decode(form, batch, schema).table.to_pylist()
    assert (row["amount"], row["day"]) == (Decimal("12.34"), dt.date(1970, 1, 2))


def test_columns_of_the_key_stand_beside_those_of_the_row() -> None:
    target = pa.schema([("_key.id", pa.int64()), ("id", pa.int64()), ("_deleted", pa.uint8())])
    values, keys = [b'{"op":"d","before":{"id":1}}', b'{"op":"c","after":{"id":2}}'], [b'{"id":1}', b'{"id":2}']
    batch = make_batch(make_records(values, keys=keys)).joined()
    decoded = decode(debezium({"key_format": "json"}), batch, target)
    assert decoded.table.to_pylist() == [
        {"_key.id": 1, "id": 1, "_deleted": 1},
        {"_key.id": 2, "id": 2, "_deleted": 0},
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Settings(decode=Decode(format="csv"), transform=TransformSection(kind="debezium")), "json or avro"),
        (Settings(debezium=Debezium(decimals=("a=b",)), transform=TransformSection(kind="debezium")), "a=b"),
    ],
)
def test_what_cannot_work_is_refused_before_a_record_is_read(wrong: Settings, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        wiring.format_of(wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (pa.field("x", pa.string()), ""),
        (pa.field("x", pa.string(), metadata={COLUMN_TYPE: b"UUID"}), "00000000-0000-0000-0000-000000000000"),
        (pa.field("x", pa.string(), metadata={COLUMN_TYPE: b"LowCardinality(IPv4)"}), "0.0.0.0"),
        (pa.field("x", pa.string(), metadata={COLUMN_TYPE: rb"Enum8('it\'s' = 1, 'b' = 2)"}), "it's"),
        (pa.field("x", pa.string(), metadata={RAW_JSON: b"1"}), "{}"),
        (pa.field("x", pa.list_(pa.int8())), []),
        (pa.field("x", pa.map_(pa.string(), pa.int8())), []),
        (pa.field("x", pa.decimal256(50, 3)), Decimal("0.000")),
        (pa.field("x", pa.struct([pa.field("a", pa.int8(), nullable=False), ("b", pa.int8())])), {"a": 0, "b": None}),
    ],
)
def test_the_default_of_a_type_is_what_the_column_takes(field: pa.Field, value: Any) -> None:
    found = default_of(field)
    assert found is not None
    assert (found.type, found.as_py()) == (field.type, value)


@pytest.mark.parametrize(
    ("keys", "columns", "order"),
    [
        ([None, b'{"id":1}'], ["id", "name"], ("id",)),
        ([b'{"schema":{},"payload":{"b":1,"a":2}}'], ["a", "b"], ("b", "a")),
        ([b"\xff"], ["_key.id", "id"], ("id",)),
    ],
)
def test_a_table_is_sorted_by_the_fields_of_the_key(
    keys: Sequence[bytes | None], columns: Sequence[str], order: tuple[str, ...]
) -> None:
    transform = wiring.transform_of(Settings(transform=TransformSection(kind="debezium")))
    assert transform is not None
    assert isinstance(transform, Proposing)
    batch = make_batch(make_records([b"{}"] * len(keys), keys=keys))
    given_columns = pa.schema([(name, pa.int64()) for name in columns])
    found = transform.proposal(Proposal(given_columns, 1), batch)
    assert (found.order_by, found.version, found.deleted) == (order, "_version", "_deleted")


def test_a_key_that_nobody_tells_has_to_be_given() -> None:
    transform = wiring.transform_of(Settings(transform=TransformSection(kind="debezium")))
    assert transform is not None
    assert isinstance(transform, Proposing)
    batch = make_batch(make_records([b"{}"], keys=[b'{"other":1}']))
    with pytest.raises(ConfigurationError, match="--order-by"):
        transform.proposal(Proposal(pa.schema([("id", pa.int64())]), 1), batch)
    asked = transform.proposal(Proposal(pa.schema([("id", pa.int64())]), 1, order_by=("id",)), batch)
    assert asked.order_by == ("id",)


def test_a_transform_behind_it_sees_rows_and_not_events() -> None:
    pytest.importorskip("duckdb", reason="needs the extra [sql]")
    chained = Settings(
        decode=Decode(epoch=UNITS), transform=TransformSection(kind="debezium", where="_op <> 'd' AND customer = 'Ann'")
    )
    form = wiring.format_of(chained)
    events = [event("c", None, ROW), event("c", None, {**ROW, "customer": "Bob"}), event("d", ROW)]
    batch = json_of(*events, form=embedded_json())
    schema = form.infer(batch)
    assert schema is not None
    decoded = decode(form, batch, schema)
    assert [{name: row[name] for name in ROW} for row in decoded.table.to_pylist()] == [ROW]
    assert decoded.filtered.to_pylist() == [1, 2]


SOME_ROW = st.fixed_dictionaries(
    {
        "id": st.none() | st.integers(1, 3),
        "amount": st.none() | st.sampled_from(["BNI=", "1234", "x", "", 5]),
        "day": st.none() | st.sampled_from([0, -1, "x", 2**40]),
        "made": st.none() | st.sampled_from([0, 10**15, "2020-01-01T00:00:00Z", "x"]),
        "note": st.none() | st.sampled_from(["", UNAVAILABLE, 5, "text"]),
    }
)
SOME_EVENT = st.fixed_dictionaries(
    {"op": st.sampled_from([*"crudtm", "x", None, 5])},
    optional={"before": st.none() | SOME_ROW, "after": st.none() | SOME_ROW, "source": st.just({"lsn": 5})},
)
NARROW: Final = pa.schema(
    [TARGET.field(name) for name in ("id", "amount", "day", "made", "note", "_op", "_version", "_deleted")]
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(SOME_EVENT, st.booleans()), min_size=1, max_size=8),
    st.sampled_from([{}, {"version": "lsn"}, {"unavailable": "null", "truncates": "skip"}]),
)
def test_an_event_fares_the_same_alone_and_among_others(
    events: list[tuple[Mapping[str, Any], bool]], options: Mapping[str, Any]
) -> None:
    schema = embedded_json().value(event("c", None, ROW))
    assert schema is not None
    values = [
        json.dumps({**json.loads(schema), "payload": one} if embedded else one, separators=(",", ":")).encode()
        for one, embedded in events
    ]
    form = debezium({"epoch": ("us",)}, **options)
    whole = decode(form, batch_of(*values, first_offset=0), NARROW)
    rows = dict(zip(whole.positions.to_pylist(), whole.table.to_pylist(), strict=True))
    reasons = {one.position: (one.reason, one.message) for one in whole.rejections}
    for position, value in enumerate(values):
        alone = decode(form, batch_of(value, first_offset=position), NARROW)
        assert alone.table.to_pylist() == ([rows[position]] if position in rows else [])
        found = [(one.reason, one.message) for one in alone.rejections]
        assert found == ([reasons[position]] if position in reasons else [])
