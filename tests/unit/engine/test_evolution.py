"""What a pipeline promises where unknown fields are kept: in columns of their own, or together in one."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.engine.evolution import EvolutionPolicy, becomes_column
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import ConfigurationError, SinkMisconfigured, SinkUnavailable
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.protocols import SinkInfo
from batcher.records import Batch, Delivered, Partition
from batcher.testing.formats import NumberFormat
from batcher.testing.sinks import MemorySink
from batcher.testing.values import make_batch, make_records

TABLE = pa.schema([("id", pa.int64())])


class Tables(MemorySink):
    """A table that is there before the pipeline: it takes no schema, but columns. `asked` has what it was asked for."""

    def __init__(self, schema: pa.Schema | None = TABLE, *, takes: bool = True, by_topic: bool = False) -> None:
        super().__init__(schema, coordinates=("_offset",))
        self.takes = takes
        self.by_topic = by_topic
        self.asked: list[tuple[str | None, list[str]]] = []
        self.failures: list[Exception] = []
        self.schemas: dict[str | None, pa.Schema] = {}

    def open(self) -> SinkInfo:
        pins = {"pin_topic"} if self.by_topic else {"pin"} if self.schema is None else set()
        return replace(super().open(), capabilities=frozenset(pins | ({"evolve"} if self.takes else set())))  # type: ignore[arg-type]

    def pin_topic(self, topic: str, proposed: pa.Schema) -> pa.Schema:
        return self.schemas.setdefault(topic, proposed)

    def schema_of(self, topic: str) -> pa.Schema | None:
        return self.schemas.get(topic)

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        self.asked.append((topic, [field.name for field in fields]))
        if self.failures:
            raise self.failures.pop()
        if topic is None:
            return super().evolve(topic, fields)
        held = self.schemas[topic]
        self.schemas[topic] = pa.schema([*held, *(field for field in fields if field.name not in held.names)])
        return self.schemas[topic]


class Loader:
    """Load batches one after the other, as the two loops do."""

    def __init__(self, sink: MemorySink, mode: Any = "evolve", most: int = 100, **options: Any) -> None:
        self.sink = sink
        self.writer = Writer(
            sink,
            sink.open(),
            JsonFormat(JsonOptions(mode, **options)),
            dead_letters=None,
            limit=DeadLetterLimit(DeadLetterPolicy()),
            retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001),
            abort=threading.Event(),
            evolution=EvolutionPolicy(mode, most),
        )
        self.next_offset = 0

    def batch(self, *records: dict[str, Any] | str, topic: str = "events") -> Batch:
        values = [one if isinstance(one, str) else json.dumps(one) for one in records]
        made = make_batch(
            make_records([one.encode() for one in values], partition=Partition(topic, 0), first_offset=self.next_offset)
        )
        self.next_offset += len(records)
        return replace(made, token=f"{topic}-{self.next_offset}")

    def load(self, *records: dict[str, Any] | str, topic: str = "events") -> Delivered:
        return self.writer.write(self.writer.prepare(self.batch(*records, topic=topic)))

    def rows(self) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != "_offset"} for row in self.sink.rows()]


def test_a_new_field_is_a_column_before_the_first_batch_that_has_it_is_written() -> None:
    sink = Tables()
    loader = Loader(sink)
    loader.load({"id": 1})
    assert sink.asked == []
    prepared = loader.writer.prepare(loader.batch({"id": 2, "colour": "red"}, {"id": 3}))
    assert sink.asked == [(None, ["colour"])]
    assert len(sink.blocks) == 1
    delivered = loader.writer.write(prepared)
    assert delivered.unknown_fields == {}
    assert loader.rows() == [{"id": 1}, {"id": 2, "colour": "red"}, {"id": 3, "colour": None}]
    assert loader.writer.decoding.columns_without_value == ()


def test_a_batch_that_was_prepared_before_a_column_came_is_written_all_the_same() -> None:
    loader = Loader(Tables())
    first = loader.writer.prepare(loader.batch({"id": 1}))
    second = loader.writer.prepare(loader.batch({"id": 2, "x": 1.5}))
    for prepared in (first, second):
        loader.writer.write(prepared)
    assert loader.rows() == [{"id": 1, "x": None}, {"id": 2, "x": 1.5}]


@pytest.mark.parametrize("position", [0, 5000, 99_999])
def test_one_record_among_many_with_a_new_field_keeps_its_value(position: int) -> None:
    sink = Tables(pa.schema([*TABLE, ("place", pa.struct([("city", pa.string())]))]))
    loader = Loader(sink)
    for _ in range(10):  # more blocks with a field that stays unknown than are looked at whole otherwise
        loader.load(*[{"id": number, "place": {"zip": 1}} for number in range(1100)])
    records: list[dict[str, Any]] = [{"id": number, "place": {"zip": 1}} for number in range(100_000)]
    records[position]["rare"] = "kept"
    loader.load(*records)
    assert [row["id"] for row in loader.rows() if row.get("rare") == "kept"] == [position]


def test_the_target_is_asked_again_while_it_does_not_answer_and_nothing_is_written_before() -> None:
    sink = Tables()
    sink.failures = [SinkMisconfigured("GRANT ALTER ADD COLUMN"), SinkUnavailable("away")]
    loader = Loader(sink)
    with capture_logs() as logged:
        loader.load({"id": 1, "x": 1})
    assert len(sink.asked) == 3
    assert [one["event"] for one in logged] == ["sink_unavailable", "sink_refused", "columns_added"]
    assert loader.rows() == [{"id": 1, "x": 1}]


def test_only_fields_at_the_top_with_plain_names_become_columns_and_the_others_stay_counted() -> None:
    sink = Tables(pa.schema([("id", pa.int64()), ("place", pa.struct([("city", pa.string())]))]))
    loader = Loader(sink)
    record = {"id": 1, "place": {"city": "Rome", "zip": 1}, "a.b": 1, "a`b": 2, "_offset": 3, "_topic": "x", "n\n": 1}
    for _ in range(2):
        delivered = loader.load({**record, "_rescued": "y", "x" * 200: 1})
        assert set(delivered.unknown_fields) == {
            *("place.zip", "a.b", "a`b", "_offset", "_topic", "n?", "_rescued", "x" * 64),
        }
    assert sink.asked == []


def test_a_field_that_is_only_ever_empty_becomes_a_column_with_its_first_value() -> None:
    sink = Tables()
    loader = Loader(sink)
    assert loader.load({"id": 1, "tags": []}, {"id": 2, "tags": None}).unknown_fields == {"tags": 1}
    assert sink.asked == []
    loader.load({"id": 3, "tags": ["a"]})
    assert sink.asked == [(None, ["tags"])]
    assert loader.rows()[-1] == {"id": 3, "tags": ["a"]}


def test_beyond_the_bound_fields_are_counted_and_one_line_says_so() -> None:
    sink = Tables()
    loader = Loader(sink, most=2)
    with capture_logs() as logged:
        delivered = [loader.load({"id": 1, **{f"f{number}": number for number in range(5)}}) for _ in range(3)]
    assert sink.asked == [(None, ["f0", "f1"])]
    assert delivered[-1].unknown_fields == {"f2": 1, "f3": 1, "f4": 1}
    (line,) = [one for one in logged if one["event"] == "columns_not_added"]
    assert line["log_level"] == "error"
    assert line["columns"] == ["f2", "f3", "f4"]
    assert "--decode.max-new-columns 2" in line["hint"]


def test_a_column_that_another_process_added_with_another_type_is_used_as_it_is() -> None:
    sink = Tables()
    loader = Loader(sink)
    loader.load({"id": 1})
    sink.schema = TABLE.append(pa.field("x", pa.string()))
    loader.load({"id": 2, "x": "text"})
    with pytest.raises(Exception, match="field x: expected a string, found a number"):
        loader.load({"id": 3, "x": 3})
    assert loader.rows()[-1] == {"id": 2, "x": "text"}


def test_a_field_that_the_target_leaves_out_is_not_asked_for_again() -> None:
    class Picky(Tables):
        def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
            return super().evolve(topic, [field for field in fields if field.name != "odd"])

    loader = Loader(Picky())
    assert [loader.load({"id": 1, "odd": 1, "x": 1}).unknown_fields for _ in range(2)] == [{"odd": 1}] * 2
    assert loader.sink.asked == [(None, ["x"])]  # type: ignore[attr-defined]


def test_names_that_are_made_up_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Tables):
        def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
            return super().evolve(topic, [])

    monkeypatch.setattr("batcher.engine.evolution.MAX_SETTLED", 50)
    loader = Loader(Full())
    for number in range(0, 1000, 10):
        loader.load({"id": 1, **{f"k{number + key}": 1 for key in range(10)}, "a": {f"x{number}": 1}})
    (settled,) = loader.writer.decoding._evolution._settled.values()
    assert len(settled.names) <= 60


def test_refused_records_make_no_columns() -> None:
    sink = Tables()
    loader = Loader(sink)
    with pytest.raises(Exception, match="expected a number"):
        loader.load({"id": "no number", "junk": 1})
    assert sink.asked == []


def test_names_that_differ_by_case_become_one_column_where_they_are_one() -> None:
    sink = Tables()
    loader = Loader(sink, match="insensitive")
    loader.load({"id": 1, "userId": 7}, {"ID": 2, "userid": 8})
    assert loader.rows() == [{"id": 1, "userId": 7}, {"id": 2, "userId": 8}]


@pytest.mark.parametrize("mode", ["evolve", "rescue"])
def test_each_topic_has_columns_of_its_own_where_it_has_a_schema_of_its_own(mode: str) -> None:
    sink = Tables(None, by_topic=True)
    loader = Loader(sink, mode)
    loader.load({"id": 1}, topic="a")
    loader.load({"id": 1}, topic="b")
    loader.load({"id": 2, "x": 1}, topic="b")
    if mode == "evolve":
        assert sink.asked == [("b", ["x"])]
        assert sink.schemas["a"].names == ["id"]
        assert sink.schemas["b"].names == ["id", "x"]
    else:
        assert sink.asked == []
        assert loader.rows()[-1] == {"id": 2, "_rescued": '{"x":1}'}


def test_what_no_column_takes_is_kept_in_one_column_exactly_as_it_was() -> None:
    sink = Tables(TABLE.append(pa.field("_rescued", pa.string())))
    loader = Loader(sink, "rescue")
    delivered = loader.load('{"id": 1, "price": 1.10, "big": 12345678901234567890123, "_offset": 5}', {"id": 2})
    assert loader.rows() == [
        {"id": 1, "_rescued": '{"price":1.10,"big":12345678901234567890123,"_offset":5}'},
        {"id": 2, "_rescued": None},
    ]
    assert delivered.unknown_fields == {}
    assert loader.writer.decoding.columns_without_value == ()
    assert sink.asked == []


def test_a_root_of_before_gets_the_column_for_the_rest_with_the_next_batch() -> None:
    sink = Tables(None)
    first = Loader(sink, "warn")
    first.load({"id": 1})
    assert sink.schema is not None
    assert sink.schema.names == ["id"]

    class Root(Tables):
        def open(self) -> SinkInfo:
            return replace(super().open(), capabilities=frozenset({"pin", "evolve"}))

    root = Root(sink.schema)
    loader = Loader(root, "rescue")
    loader.load({"id": 2, "x": "y"})
    assert root.asked == [(None, ["_rescued"])]
    assert loader.rows() == [{"id": 2, "_rescued": '{"x":"y"}'}]


def test_a_pinned_schema_has_the_column_for_the_rest_and_not_the_field_of_that_name() -> None:
    sink = Tables(None)
    Loader(sink, "rescue").load({"id": 1, "_rescued": 5})
    assert sink.schema is not None
    assert sink.schema.field("_rescued").type == pa.string()
    assert [row["_rescued"] for row in sink.rows()] == ['{"_rescued":5}']


@pytest.mark.parametrize(
    ("sink", "mode", "message"),
    [
        (Tables(takes=False), "evolve", "memory cannot be given columns"),
        (Tables(), "rescue", "ALTER TABLE memory ADD COLUMN _rescued Nullable(String)"),
        (Tables(TABLE.append(pa.field("_rescued", pa.int64()))), "rescue", "column _rescued of memory is int64"),
        (Tables(TABLE.append(pa.field("_rescued", pa.string(), nullable=False))), "rescue", "not nullable"),
    ],
)
def test_a_target_that_cannot_do_it_is_refused_at_the_start(sink: Tables, mode: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Loader(sink, mode)
    assert message in str(caught.value)


@pytest.mark.parametrize("mode", ["evolve", "rescue"])
def test_a_format_that_proposes_no_columns_is_refused_at_the_start(mode: Any) -> None:
    sink = Tables()
    with pytest.raises(ConfigurationError, match="does not work with a transform, nor with a format without"):
        Writer(
            sink,
            sink.open(),
            NumberFormat(),
            dead_letters=None,
            limit=DeadLetterLimit(DeadLetterPolicy()),
            retry=RetryPolicy(),
            abort=threading.Event(),
            evolution=EvolutionPolicy(mode),
        )


@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("x", True),
        ("größe", True),
        ("_x", True),
        ("", False),
        ("a.b", False),
        ("a[]", False),
        (" x", False),
        ("x?", False),
    ],
)
def test_which_names_become_columns(path: str, becomes: bool) -> None:
    assert becomes_column(path) is becomes
