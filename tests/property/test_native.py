"""With the native extension and without it, every message has the same outcome, whatever stands beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from batcher.formats.json.format import JsonDecoder, JsonFormat, JsonOptions
from batcher.generate.events import POISON, EventGenerator
from batcher.records import RAW_JSON, Decoded
from batcher.testing.values import make_batch, make_records
from benchmarks import hooks
from tests.harness.mutated import OPTIONS, SCHEMA, messages, outcome
from tests.harness.patience import LONG
from tests.property import test_decode_laws as laws
from tests.unit.formats.json import test_hostile as hostile

pytest.importorskip("batcher_native", reason="the native extension is not built")

MORE = pa.schema(
    [
        *laws.MAPPED,
        pa.field("other", pa.string(), metadata={RAW_JSON: b"1"}),
        pa.field("lists", pa.list_(pa.field("item", pa.large_string(), metadata={RAW_JSON: b"1"}))),
        ("large", pa.large_string()),
        ("large_bytes", pa.large_binary()),
        *((f"{kind}", kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.int32())),
        ("hundreds", pa.decimal128(10, -2)),
        ("fraction", pa.decimal128(38, 38)),
        ("long", pa.decimal256(76, 0)),
        ("nothing", pa.null()),
        ("maps", pa.map_(pa.string(), pa.map_(pa.large_string(), pa.timestamp("us")))),
        ("objects", pa.list_(pa.struct([("d", pa.date32()), ("m", pa.map_(pa.string(), pa.string()))]))),
    ]
)
"""Each type that a column of JSON may have."""

NAMES = st.sampled_from(['"a"', '"b"', r'"\u0061"'])
TIMES = st.one_of(laws.TIMES.map(laws.quoted), laws.NUMBERS)
FITTING: dict[str, Any] = laws.FITTING | {
    "lists": laws.listed(laws.ANYTHING),
    "large": laws.QUOTED,
    "large_bytes": laws.QUOTED,
    **dict.fromkeys(["uint8", "uint16", "uint32", "int32", "hundreds", "long"], laws.NUMBERS),
    "fraction": st.one_of(laws.NUMBERS, laws.TEXTS.map(laws.quoted)),
    "nothing": st.one_of(st.just("null"), laws.ANYTHING),
    "maps": laws.objects(laws.objects(TIMES, NAMES), NAMES),
    "objects": laws.listed(
        laws.objects(st.one_of(TIMES, laws.objects(laws.QUOTED)), st.sampled_from(['"d"', '"m"', '"more"']))
    ),
}


@st.composite
def records(draw: Any) -> bytes:
    """Draw a record of several fields, nearly all of which fit their columns."""
    names = draw(st.lists(st.sampled_from(sorted(FITTING)), max_size=4, unique=True))
    pairs = [f'"id":{draw(st.integers(0, 99))}', *(f'"{name}":{draw(FITTING[name])}' for name in names if name != "id")]
    space: str = draw(laws.SPACES)
    return f"{space}{{{space}{f',{space}'.join(pairs)}{space}}}{space}".encode("utf-8", "surrogatepass")


def both(batch: Any, schema: pa.Schema, options: JsonOptions) -> tuple[Decoded, Decoded]:
    made = [JsonFormat(replace(options, native=path)).decoder(schema) for path in ("off", "require")]
    assert type(made[1]) is not JsonDecoder
    python, native = (decoder.decode(batch) for decoder in made)
    return python, native


def settled(decoded: Decoded) -> dict[str, Any]:
    # The Python path may note a column's times before it refuses the record for another column.
    return outcome(decoded) | {"notes": [] if decoded.rejections else sorted(decoded.notes)}


@given(st.lists(st.one_of(records(), laws.MESSAGES, st.none()), min_size=1, max_size=12), laws.OPTIONS, st.data())
@settings(max_examples=1500 if LONG else 150, deadline=None)
@example(
    [b'{"id":1,"at":"\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000"}'], JsonOptions(), None
)
@example([b'{"id":1,"text":"abcdefghijklm', b'nop"}'], JsonOptions(), None)
def test_both_paths_make_the_same_of_every_message(
    values: list[bytes | None], options: JsonOptions, data: st.DataObject | None
) -> None:
    schema = laws.MAPPED if data is None else data.draw(st.sampled_from([laws.SCHEMA, laws.MAPPED, MORE]))
    cut = len(values) // 2
    whole = make_batch(make_records(values))
    parts = make_batch(*(make_records(part) for part in (values[:cut], values[cut:]) if part))
    schema = laws.wanted(schema, options)

    python, native = both(whole, schema, options)

    native.table.validate(full=True)
    assert settled(native) == settled(python)
    # How the values lie in memory is no part of it.
    assert outcome(JsonFormat(replace(options, native="require")).decoder(schema).decode(parts)) == outcome(native)


@given(
    st.lists(st.one_of(records(), laws.MESSAGES), min_size=1, max_size=12), st.sampled_from(["exact", "insensitive"])
)
@settings(max_examples=500 if LONG else 60, deadline=None)
def test_both_paths_count_the_same_unknown_fields(values: list[bytes], match: Any) -> None:
    values = [b"{}", b'{"id":1,"other":1,"other":null}', b'{"id":1,"other":null,"other":1}', *values]

    python, native = both(make_batch(make_records(values)), laws.MAPPED, JsonOptions("evolve", match=match))

    assert not native.estimated
    assert {one.path: one.records for one in native.unknown} == {one.path: one.records for one in python.unknown}
    for one in native.unknown:
        assert one.position in native.positions.to_pylist()


@pytest.mark.parametrize("schema", [hostile.FAST, hostile.SLOW, MORE.remove(0)], ids=["fast", "slow", "more"])
@pytest.mark.parametrize(
    "options", [JsonOptions(), JsonOptions("reject", "insensitive", max_depth=5)], ids=["usual", "strict"]
)
def test_each_case_of_the_corpus_alone_and_all_together_have_the_same_letters(
    schema: pa.Schema, options: JsonOptions
) -> None:
    raw = [case.raw for case in hostile.CORPUS]
    python, native = both(make_batch(make_records(raw)), schema, options)
    assert settled(native) == settled(python)

    decoder = JsonFormat(replace(options, native="require")).decoder(schema)
    alone = [decoder.decode(make_batch(make_records([one]))) for one in raw]
    letters = [(row, each.reason, each.message, each.path) for row, one in enumerate(alone) for each in one.rejections]
    assert letters == [(one.position, one.reason, one.message, one.path) for one in native.rejections]


@pytest.mark.parametrize(("name", "spoil"), POISON, ids=[name for name, _ in POISON])
def test_every_kind_of_poison_gives_the_same_letters(name: str, spoil: Any) -> None:
    events = EventGenerator(seed=3).take(40)
    events[5::7] = [spoil(event) for event in events[5::7]]
    schema = JsonFormat(JsonOptions(native="off")).infer(make_batch(make_records(EventGenerator(seed=3).take(40))))

    python, native = both(make_batch(make_records(events)), schema, JsonOptions())

    assert settled(native) == settled(python)
    assert [one.position for one in native.rejections] == list(range(5, 40, 7))


def test_poison_of_all_kinds_at_random_gives_the_same_letters() -> None:
    dice = Random(4)
    events = EventGenerator(seed=3).take(3000)
    schema = JsonFormat(JsonOptions(native="off")).infer(make_batch(make_records(events[:100])))
    events = [dice.choice(POISON)[1](event) if dice.random() < 0.03 else event for event in events]

    python, native = both(make_batch(make_records(events)), schema, JsonOptions())

    assert settled(native) == settled(python)
    assert len({one.reason for one in native.rejections}) > 5


def test_both_paths_make_the_same_of_documents_of_many_kinds() -> None:
    batch = make_batch(make_records(hooks.documents(60)))
    schema = JsonFormat(JsonOptions(native="off")).infer(batch)

    python, native = both(batch, schema, JsonOptions())

    native.table.validate(full=True)
    python.table.validate(full=True)
    assert native.table.equals(python.table)
    assert (native.rejections, native.unknown) == (python.rejections, python.unknown)


def test_documents_broken_at_random_have_the_same_outcome() -> None:
    dice = Random(1)
    reasons: Counter[str] = Counter()
    for schema in (SCHEMA, pa.schema([one for one in SCHEMA if one.name not in ("labels", "doc")])):
        batch = list(messages(20_000 if LONG else 1_000, dice))
        python, native = both(make_batch(make_records(batch)), schema, OPTIONS)
        assert outcome(native) == outcome(python)
        reasons.update(one.reason for one in native.rejections)
    assert len(reasons) > 8
