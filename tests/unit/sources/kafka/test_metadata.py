import itertools
import json
import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from batcher.records import MAX_INTENTS, Intent, Partition, Position, Range
from batcher.sources.kafka.metadata import StoredPosition, pack, unpack
from batcher.sources.position_note import MAX_BYTES

A = Partition("events", 0)
LAST_OFFSET = (1 << 63) - 2
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
WRITER = "5e1f09-0"

write_ids = st.just("") | st.text("0123456789abcdef", min_size=32, max_size=32)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
offsets = st.integers(0, LAST_OFFSET)
anything = json_values | offsets
entries = st.tuples(offsets, INT64 | st.none()) | st.tuples(offsets, INT64, write_ids) | st.lists(anything, max_size=4)
near_misses = st.fixed_dictionaries(
    {"v": st.just(1) | anything, "s": offsets | anything, "r": st.lists(entries | json_values, max_size=10) | anything},
    optional={"w": anything, "x": anything},
)


@st.composite
def tiled(draw: st.DrawFn) -> tuple[Intent, ...]:
    ends = sorted(draw(st.sets(offsets, min_size=1, max_size=MAX_INTENTS)))
    first = draw(st.integers(0, ends[0]))
    intents = []
    for last in ends:
        intents.append(Intent(Range(A, first, last), draw(INT64 | st.none()), draw(write_ids)))
        first = last + 1
    return tuple(intents)


def note(**changes: Any) -> str:
    return json.dumps({"v": 1, "s": 10, "r": [[19, 1_700_000_000_000]], "w": WRITER} | changes)


TOPIC_ID = "0SGPdqKs_zSjlJSN-u2IPQ"
BROKERS_TAKE = 4_000


def parse(text: str, next_offset: int = 10) -> Position:
    return unpack(A, next_offset, text).position


def render(intents: tuple[Intent, ...], writer: str, next_offset: int = 0) -> str:
    return pack(StoredPosition(Position(next_offset, intents, writer)))


def unreadable(text: str) -> bool:
    message = parse(text).unreadable
    assert not message or message.isprintable()
    assert len(message) < 120
    return bool(message)


@given(tiled())
def test_what_is_announced_is_what_is_read_back(intents: tuple[Intent, ...]) -> None:
    assert parse(render(intents, WRITER)) == Position(10, intents, WRITER)


@given(tiled(), st.integers(0, 10**18))
@example(
    tuple(
        Intent(Range(A, LAST_OFFSET - MAX_INTENTS + i + 1, LAST_OFFSET - MAX_INTENTS + i + 1), -(1 << 63), "f" * 32)
        for i in range(MAX_INTENTS)
    ),
    10**18,
)
def test_metadata_is_smaller_than_any_broker_allows(intents: tuple[Intent, ...], renewals: int) -> None:
    assert len(render(intents, f"abcdef-{renewals}").encode()) < MAX_BYTES


@pytest.mark.parametrize("text", ["", None])
def test_no_metadata_announce_nothing(text: str | None) -> None:
    assert unpack(A, 7, text) == StoredPosition(Position(7))


@given(offsets)
def test_metadata_may_say_who_wrote_it_and_announce_nothing(next_offset: int) -> None:
    text = render((), WRITER, next_offset)

    assert parse(text, next_offset) == Position(next_offset, (), WRITER)
    assert len(text) < MAX_BYTES


@given(st.text(min_size=1))
@example("[" * 1000)
@example('{"v":' * 200)
@example("1" * 1000)
@example("NaN")
@example("\x00")
@example("\ud800")
def test_text_that_is_no_intent_is_refused_and_nothing_else_happens(text: str) -> None:
    assert unreadable(text)


@given(json_values | near_misses)
def test_a_document_is_either_an_intent_or_refused(document: Any) -> None:
    text = json.dumps(document)
    if unreadable(text):
        return
    intents = parse(text).intents
    assert len(intents) <= MAX_INTENTS
    assert all(0 <= intent.range.first <= intent.range.last for intent in intents)
    assert all(one.range.next_offset == two.range.first for one, two in itertools.pairwise(intents))
    assert not intents or parse(render(intents, WRITER)).intents == intents


@given(tiled(), st.data())
def test_metadata_that_was_cut_off_is_refused(intents: tuple[Intent, ...], data: st.DataObject) -> None:
    whole = render(intents, WRITER)
    assert unreadable(whole[: data.draw(st.integers(1, len(whole) - 1))])


@pytest.mark.parametrize("version", [0, 2, -1, "1", 1.5, None, [], {}, "\x1b[31m" * 10])
def test_another_version_is_refused_by_its_number(version: object) -> None:
    assert re.fullmatch("the intent has version .+, this is for 1", parse(note(v=version)).unreadable)


@pytest.mark.parametrize(
    "changes",
    [
        {"s": None},
        {"s": -1},
        {"s": True},
        {"s": 10.0},
        {"s": 20},
        {"s": 1 << 63},
        {"r": None},
        {"r": {}},
        {"r": [[19]]},
        {"r": [19, 1]},
        {"r": [["19", 1]]},
        {"r": [[19, "1"]]},
        {"r": [[19, 1.5]]},
        {"r": [[19, True]]},
        {"r": [[9, 1]]},
        {"r": [[(1 << 63) - 1, 1]]},
        {"r": [[19, 1], [19, 1]]},
        {"r": [[19, 1], [15, 1]]},
        {"r": [[19, 1, "f" * 33]]},
        {"r": [[19, 1, "'; DROP"]]},
        {"r": [[19, 1, "abc\n"]]},
        {"r": [[19, 1, None]]},
        {"r": [[19, 1, "", 0]]},
        {"r": [[19 + i, 1] for i in range(MAX_INTENTS + 1)]},
    ],
)
def test_a_damaged_intent_is_refused(changes: dict[str, Any]) -> None:
    assert parse(note(**changes)).unreadable == "the intent is damaged"


def test_metadata_longer_than_any_of_ours_is_refused() -> None:
    assert unreadable(note(w="x" * MAX_BYTES))


def test_fields_that_came_later_do_not_make_an_intent_unreadable() -> None:
    assert parse(note(x="new")).intents == (Intent(Range(A, 10, 19), 1_700_000_000_000),)


@pytest.mark.parametrize("topic_id", [TOPIC_ID, None])
@given(tiled())
def test_what_was_committed_is_read_back_with_the_id_of_its_topic(
    topic_id: str | None, intents: tuple[Intent, ...]
) -> None:
    for position in (Position(7), Position(7, (), WRITER), Position(7, intents, WRITER)):
        stored = StoredPosition(position, topic_id)
        assert unpack(A, 7, pack(stored)) == stored


def test_metadata_of_a_version_without_ids_are_intents_alone() -> None:
    assert unpack(A, 10, note()).topic_id is None
    assert unpack(A, 10, note()).position.intents != ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("anything", "the metadata of the committed offset is no intent of batcher"),
        ('{"t":"x"}', "the intent has version None, this is for 1"),
    ],
)
def test_what_other_tools_wrote_is_no_intent(text: str, reason: str) -> None:
    assert unpack(A, 7, text) == StoredPosition(Position(7, unreadable=reason))


def test_the_largest_intents_with_an_id_are_taken_by_brokers() -> None:
    whole = pack(StoredPosition(Position(7, (), "x" * MAX_BYTES), TOPIC_ID))
    assert len(whole) < BROKERS_TAKE
