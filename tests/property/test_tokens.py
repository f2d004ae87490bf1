"""A token names exactly one thing: a pipeline, and the ranges of one write of it."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from batcher.core.offsets import named
from batcher.records import Batch, Intent, Partition, Range, write_id

TOPICS = st.text(st.sampled_from(string.ascii_letters + string.digits + "._-"), min_size=1, max_size=6)
"""What Kafka allows in a topic's name."""

# Few and awkward values, so that two draws are nearly the same more often than not.
NAMES = st.one_of(st.sampled_from(["g", "g|t", "g|t|0", "g|2 partitions", ""]), st.text(max_size=5))
PARTITIONS = st.builds(Partition, st.one_of(st.sampled_from(["t", "t-0", "0"]), TOPICS), st.integers(0, 11))


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    first = draw(st.integers(0, 12))
    last = first + draw(st.integers(0, 12))
    first_ms = draw(st.one_of(st.none(), st.integers(-1, 12)))
    return Intent(Range(draw(PARTITIONS), first, last), first_ms)


Write = tuple[str, tuple[Intent, ...]]
WRITES: st.SearchStrategy[Write] = st.tuples(
    NAMES,
    st.lists(intents(), min_size=1, max_size=3, unique_by=lambda intent: intent.range.partition).map(
        lambda found: tuple(sorted(found, key=lambda intent: intent.range.partition))
    ),
)


def token_of(write: Write, *, replayed: bool = False, number: int = 0) -> str:
    name, found = write
    return named(name, Batch((), "range" if replayed else "rows", number, found, replayed)).token


@given(WRITES, WRITES)
def test_two_writes_have_one_token_only_if_they_are_the_same(one: Write, other: Write) -> None:
    assert (token_of(one) == token_of(other)) == (one == other)
    assert (write_id(token_of(one)) == write_id(token_of(other))) == (one == other)


@given(WRITES, st.data())
def test_any_one_difference_makes_another_token(write: Write, data: st.DataObject) -> None:
    name, (intent, *rest) = write
    span = intent.range
    changed = data.draw(
        st.sampled_from(
            [
                intent._replace(first_ms=(intent.first_ms or 0) + 1),
                intent._replace(range=span._replace(first=span.first + 1, last=span.last + 1)),
                intent._replace(range=span._replace(last=span.last + 1)),
                intent._replace(
                    range=span._replace(partition=span.partition._replace(number=span.partition.number + 20))
                ),
                intent._replace(
                    range=span._replace(partition=span.partition._replace(topic=span.partition.topic + "x"))
                ),
            ]
        )
    )
    assert token_of((name, (changed, *rest))) != token_of(write)
    assert token_of((f"{name}-redrive", write[1])) != token_of(write)


@given(WRITES, st.integers(1, 9))
def test_a_replay_has_the_token_of_the_first_attempt(write: Write, number: int) -> None:
    assert token_of(write, replayed=True, number=number) == token_of(write)
