"""What becomes of fields and columns between the decoder and the target, with a format of a few lines."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.engine.decoding import Decoding
from batcher.errors import ConfigurationError
from batcher.protocols import SinkCapability, SinkInfo
from batcher.records import Batch, Decoded, Partition, Rejection, UnknownField
from batcher.testing.sinks import MemorySink
from batcher.testing.values import make_batch, make_records

A = Partition("events", 0)


class Fields:
    """Decode objects of texts; a null column is outgrown by a value."""

    def __init__(self, schema: pa.Schema | None = None) -> None:
        self.schema = schema

    def infer(self, batch: Batch) -> pa.Schema | None:
        rows = _objects(batch)
        names = dict.fromkeys(name for row in rows for name in row)
        if not rows:
            return None
        return pa.schema([(name, _type([row.get(name) for row in rows])) for name in names])

    def decoder(self, schema: pa.Schema) -> "Fields":
        return Fields(schema)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        rows = _objects(batch)
        grown = [(f.name, f.type if f.type != pa.null() else _type([row.get(f.name) for row in rows])) for f in schema]
        return pa.schema(grown)

    def decode(self, batch: Batch) -> Decoded:
        assert self.schema is not None
        rows, positions, rejections = [], [], []
        unknown: dict[str, list[int]] = {}
        outgrown = False
        for position, value in enumerate(batch.values().to_pylist()):
            try:
                row = json.loads(value)
            except ValueError:
                rejections.append(Rejection(position, "syntax", "is no JSON"))
                continue
            for name, content in row.items():
                if name not in self.schema.names and content is not None:
                    unknown.setdefault(name, []).append(position)
                elif content is not None and self.schema.field(name).type == pa.null():
                    outgrown = True
            rows.append({name: row.get(name) for name in self.schema.names})
            positions.append(position)
        if outgrown:
            rows, positions = [], []
        return Decoded(
            pa.Table.from_pylist(rows, self.schema),
            pa.array(positions, pa.int64()),
            tuple(rejections),
            unknown=tuple(UnknownField(name, len(where), where[0]) for name, where in unknown.items()),
            outgrown=outgrown,
        )


def _objects(batch: Batch) -> list[dict[str, Any]]:
    found = []
    for value in batch.values().to_pylist():
        try:
            found.append(json.loads(value))
        except ValueError:
            continue
    return found


def _type(values: list[Any]) -> pa.DataType:
    return pa.null() if all(value is None for value in values) else pa.string()


class Growing(MemorySink):
    """Hold a superset of what was pinned, for all or for each topic."""

    def __init__(self, *, by_topic: bool = False, coordinates: tuple[str, ...] = ()) -> None:
        super().__init__(coordinates=coordinates)
        self.pinned: list[tuple[str, pa.Schema]] = []
        self._by_topic = by_topic

    def open(self) -> SinkInfo:
        takes: SinkCapability = "pin_topic" if self._by_topic else "pin"
        return SinkInfo("memory", None, self._coordinates, capabilities=frozenset({takes}))

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        return self.pin_topic("", proposed)

    def pin_topic(self, topic: str, proposed: pa.Schema) -> pa.Schema:
        self.pinned.append((topic, proposed))
        return proposed

    def schema_of(self, topic: str) -> pa.Schema | None:
        raise AssertionError("a pipeline does not ask for it")


def call(action: Callable[..., Any], *arguments: Any) -> Any:
    return action(*arguments)


def decoding(sink: MemorySink) -> Decoding:
    return Decoding(sink, sink.open(), Fields(), call)


def table(*names: str, coordinates: tuple[str, ...] = ()) -> Decoding:
    return decoding(MemorySink(pa.schema([(name, pa.string()) for name in names]), coordinates=coordinates))


def batch(*values: object, topic: str = "events", first: int = 0) -> Batch:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return make_batch(make_records(texts, partition=Partition(topic, 0), first_offset=first))


def test_a_field_that_comes_after_the_schema_was_pinned_is_counted_and_named() -> None:
    desk = decoding(Growing())
    desk.prepare(batch({"id": "1"}))

    with capture_logs() as lines:
        prepared = desk.prepare(batch({"id": "2", "city": "Rome"}, {"id": "3", "city": None}, first=1))

    assert desk.counted(prepared.decoded) == {"city": 1}
    [line] = [line for line in lines if line["event"] == "unknown_field"]
    assert (line["field"], line["offset"]) == ("city", 1)


def test_a_table_that_no_field_matches_stops_before_anything_is_written() -> None:
    desk = table("Id", "Type", "Created_At")
    with pytest.raises(ConfigurationError) as stopped:
        desk.prepare(batch({"id": "1", "type": "push", "created_at": "now"}))
    assert stopped.value.exit_code == 78
    for word in ("Id, Type, Created_At", "id, type, created_at", "`created_at` for `Created_At`"):
        assert word in str(stopped.value)


def test_a_table_that_keeps_the_whole_message_is_loaded_whatever_its_columns_are() -> None:
    prepared = table("Id", coordinates=("_value",)).prepare(batch({"id": "1"}))
    assert prepared.decoded.table.num_rows == 1


def test_records_without_any_field_say_nothing_about_the_columns() -> None:
    assert table("Id").prepare(batch({}, {})).decoded.table.num_rows == 2


def test_what_is_named_like_a_coordinate_of_the_target_is_no_column_of_it() -> None:
    sink = Growing(coordinates=("_offset",))
    desk = decoding(sink)
    prepared = desk.prepare(batch({"id": "1", "_offset": "7", "_key": "k"}))
    assert [schema.names for _, schema in sink.pinned] == [["id", "_key"]]
    assert desk.counted(prepared.decoded) == {"_offset": 1}


def test_records_without_a_field_do_not_fix_a_schema_of_no_columns() -> None:
    sink = Growing()
    desk = decoding(sink)
    first = desk.prepare(batch({}, "x"))
    assert sink.pinned == []
    assert [(one.position, one.reason) for one in first.decoded.rejections] == [(0, "no_column"), (1, "syntax")]
    assert desk.prepare(batch({"id": "1"}, first=2)).decoded.table.to_pylist() == [{"id": "1"}]


def test_a_field_that_was_only_null_gets_its_type_from_its_first_value() -> None:
    sink = Growing()
    desk = decoding(sink)
    desk.prepare(batch({"id": "1", "before": None}))
    assert sink.pinned[-1][1].field("before").type == pa.null()

    prepared = desk.prepare(batch({"id": "2", "before": "b"}, first=1))

    assert prepared.decoded.table.to_pylist() == [{"id": "2", "before": "b"}]
    assert sink.pinned[-1][1].field("before").type == pa.string()
    assert desk.counted(prepared.decoded) == {}
    assert len(sink.pinned) == 2


def test_what_was_decoded_before_a_schema_grew_is_not_current_and_can_be_decoded_again() -> None:
    desk = decoding(Growing())
    ahead = desk.prepare(batch({"id": "1", "before": None}))
    assert desk.current(ahead)
    desk.prepare(batch({"id": "2", "before": "b"}, first=1))
    assert not desk.current(ahead)

    again = desk.again(ahead.batch)

    assert desk.current(again)
    assert again.decoded.table.schema.field("before").type == pa.string()


def test_a_column_without_a_type_of_an_earlier_run_gets_one_with_its_first_value() -> None:
    sink = MemorySink(pa.schema([("id", pa.string()), ("before", pa.null())]))
    desk = decoding(sink)
    desk.prepare(batch({"id": "1"}))
    grown = desk.prepare(batch({"id": "2", "before": "b"}, first=1))
    assert grown.decoded.table.to_pylist() == [{"id": "2", "before": "b"}]


def test_a_column_without_a_type_is_refused_once_it_has_a_value_where_the_target_takes_no_schema() -> None:
    class Fixed:
        def __init__(self, sink: MemorySink) -> None:
            self._info = replace(sink.open(), capabilities=frozenset())
            self.write, self.close = sink.write, sink.close

        def open(self) -> SinkInfo:
            return self._info

    desk = decoding(Fixed(MemorySink(pa.schema([("id", pa.string()), ("before", pa.null())]))))  # type: ignore[arg-type]
    desk.prepare(batch({"id": "1"}))
    with pytest.raises(ConfigurationError, match=r"events\[0\] 1-1: .*before.*--decode.schema"):
        desk.prepare(batch({"id": "2", "before": "b"}, first=1))


def test_a_target_that_takes_no_type_for_a_new_value_stops_instead_of_asking_for_ever() -> None:
    class Stubborn(Growing):
        def pin(self, proposed: pa.Schema) -> pa.Schema:
            self.pinned.append(("", proposed))
            return self.pinned[0][1]

    desk = decoding(Stubborn())
    desk.prepare(batch({"id": "1", "before": None}))
    with pytest.raises(ConfigurationError, match=r"--decode\.schema"):
        desk.prepare(batch({"before": "b"}, first=1))


def test_each_topic_has_a_schema_of_its_own_where_the_target_wants_it() -> None:
    sink = Growing(by_topic=True)
    desk = decoding(sink)

    rome = desk.prepare(batch({"id": "1", "city": "Rome"}, topic="m-a"))
    bob = desk.prepare(batch({"user": "bob"}, topic="m-b"))

    assert [(topic, schema.names) for topic, schema in sink.pinned] == [("m-a", ["id", "city"]), ("m-b", ["user"])]
    assert rome.decoded.table.to_pylist() == [{"id": "1", "city": "Rome"}]
    assert bob.decoded.table.to_pylist() == [{"user": "bob"}]


def test_columns_without_a_value_are_known_at_any_time_and_named_at_the_end() -> None:
    desk = table("id", "City")
    assert list(desk.columns_without_value) == []
    desk.prepare(batch({"id": "1", "city": "Rome"}))
    assert list(desk.columns_without_value) == ["City"]
    with capture_logs() as lines:
        desk.settle()
    assert [line["hint"] for line in lines] == ["no record has it; did you mean `city`?"]


def test_columns_that_differ_in_nothing_but_case_are_warned_about_at_the_start() -> None:
    with capture_logs() as lines:
        table("userId", "userid")
    assert [(line["event"], line["columns"]) for line in lines] == [("columns_differ_by_case", ("userId", "userid"))]


def test_what_the_decoder_has_to_say_about_a_column_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Fields.decode
    note = "at: finer than microseconds, cut"
    monkeypatch.setattr(Fields, "decode", lambda self, batch: replace(decode(self, batch), notes=(note,)))
    desk = table("id")
    with capture_logs() as lines:
        for first in range(3):
            desk.prepare(batch({"id": "1"}, first=first))
    assert [line["note"] for line in lines if line["event"] == "values_decoded_with_a_note"] == [note]
