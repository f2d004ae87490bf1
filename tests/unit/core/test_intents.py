import itertools
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from batcher.core.intents import MAX_CLAIMS, MAX_NOTE, IntentUnreadable, parse, render
from batcher.records import Claim, Partition, Range

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
def tiled(draw: st.DrawFn) -> tuple[Claim, ...]:
    ends = sorted(draw(st.sets(offsets, min_size=1, max_size=MAX_CLAIMS)))
    first = draw(st.integers(0, ends[0]))
    claims = []
    for last in ends:
        claims.append(Claim(Range(A, first, last), draw(INT64 | st.none()), draw(write_ids)))
        first = last + 1
    return tuple(claims)


def note(**changes: Any) -> str:
    return json.dumps({"v": 1, "s": 10, "r": [[19, 1_700_000_000_000]], "w": WRITER} | changes)


def unreadable(text: str) -> bool:
    try:
        parse(A, text)
    except IntentUnreadable as error:
        message = str(error)
    else:
        return False
    assert message.isprintable()
    assert len(message) < 120
    return True


@given(tiled())
def test_what_is_announced_is_what_is_read_back(claims: tuple[Claim, ...]) -> None:
    assert parse(A, render(claims, WRITER)) == claims


@given(tiled(), st.integers(0, 10**18))
@example(
    tuple(
        Claim(Range(A, LAST_OFFSET - MAX_CLAIMS + i + 1, LAST_OFFSET - MAX_CLAIMS + i + 1), -(1 << 63), "f" * 32)
        for i in range(MAX_CLAIMS)
    ),
    10**18,
)
def test_a_note_is_smaller_than_any_broker_allows(claims: tuple[Claim, ...], renewals: int) -> None:
    assert len(render(claims, f"abcdef-{renewals}").encode()) < MAX_NOTE


def test_no_note_announces_nothing() -> None:
    assert parse(A, "") == ()


@given(offsets)
def test_a_note_may_say_who_wrote_it_and_announce_nothing(next_offset: int) -> None:
    text = render((), WRITER, next_offset)

    assert parse(A, text) == ()
    assert len(text) < MAX_NOTE


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
    claims = parse(A, text)
    assert len(claims) <= MAX_CLAIMS
    assert all(0 <= claim.range.first <= claim.range.last for claim in claims)
    assert all(one.range.next_offset == two.range.first for one, two in itertools.pairwise(claims))
    assert parse(A, render(claims, WRITER)) == claims


@given(tiled(), st.data())
def test_a_note_that_was_cut_off_is_refused(claims: tuple[Claim, ...], data: st.DataObject) -> None:
    whole = render(claims, WRITER)
    assert unreadable(whole[: data.draw(st.integers(1, len(whole) - 1))])


@pytest.mark.parametrize("version", [0, 2, -1, "1", 1.5, None, [], {}, "\x1b[31m" * 10])
def test_another_version_is_refused_by_its_number(version: object) -> None:
    with pytest.raises(IntentUnreadable, match=r"events\[0\]: the intent has version .+, this is for 1"):
        parse(A, note(v=version))


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
        {"r": [[19 + i, 1] for i in range(MAX_CLAIMS + 1)]},
    ],
)
def test_a_damaged_intent_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IntentUnreadable, match=r"events\[0\]: the intent is damaged"):
        parse(A, note(**changes))


def test_a_note_longer_than_any_of_ours_is_refused() -> None:
    assert unreadable(note(w="x" * MAX_NOTE))


def test_fields_that_came_later_do_not_make_an_intent_unreadable() -> None:
    assert parse(A, note(x="new")) == (Claim(Range(A, 10, 19), 1_700_000_000_000),)


def test_an_unreadable_intent_ends_the_process_as_a_fault_of_the_settings() -> None:
    assert IntentUnreadable.exit_code == 78
