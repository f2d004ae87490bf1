import json
import re
import uuid
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.generate import events
from batcher.generate.events import ORDERS, POISON, EventGenerator, Poison


def readable(event: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(event), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def one(template: str) -> str:
    return EventGenerator(template, seed=1).take(1)[0].decode()


def test_the_default_event_is_an_order_of_about_180_bytes() -> None:
    made = EventGenerator(seed=1).take(100)

    orders = [json.loads(event) for event in made]
    assert 165 < sum(map(len, made)) / 100 < 195
    assert [order["id"] for order in orders] == list(range(100))
    assert orders[0]["ts"] == "2026-01-01T00:00:00.000Z"
    assert all(1 <= order["quantity"] <= 9 and isinstance(order["paid"], bool) for order in orders)


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        ("{{seq 5}}", "5"),
        ("{{int 3 3}}", "3"),
        ("{{ int -2 -2 }}", "-2"),
        ("{{int 0 99999999999999999999}}", r"\d{1,20}"),
        ("{{float 1 2 1}}", r"[12]\.\d"),
        ("{{float 0 1}}", r"[01]\.\d{3}"),
        ('{{choice "a b"}}', "a b"),
        ("{{bool 1}}", "true"),
        ("{{bool 0}}", "false"),
        ("{{now}}", "2026-01-01T00:00:00.000Z"),
        ("{{now ms}}", "1767225600000"),
        ("{{now s}}", "1767225600"),
        ("{{hex 3}}", "[0-9a-f]{3}"),
        ('{"a":{"b":{{seq}}}}', r'\{"a":\{"b":0\}\}'),
        ("100 %s", "100 %s"),
        ("", ""),
    ],
)
def test_each_field_is_filled_in(template: str, pattern: str) -> None:
    assert re.fullmatch(pattern, one(template))


def test_uuids_are_random_ones_of_version_4() -> None:
    made = {uuid.UUID(event.decode()) for event in EventGenerator("{{uuid}}", seed=1).take(100)}

    assert len(made) == 100
    assert {one.version for one in made} == {4}
    assert {one.variant for one in made} == {uuid.RFC_4122}


@pytest.mark.parametrize(
    "field", ["bogus", "", "int", "int 1", "int 5 1", "int a b", "choice", "now us", "hex x", 'choice "a', "bool x y z"]
)
def test_a_field_that_cannot_be_read_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{{{{{field}}}}}")):
        EventGenerator(f"x {{{{{field}}}}}")


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=20), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_with_a_seed_the_events_are_the_same_however_many_are_taken_at_a_time(cuts: list[int], poison: float) -> None:
    template = ORDERS.replace('"{{hex', '"{{uuid}}{{hex')
    whole = EventGenerator(template, seed=7, poison=poison).take(sum(cuts)) if cuts else []
    pieces = EventGenerator(template, seed=7, poison=poison)

    assert [event for cut in cuts for event in pieces.take(cut)] == whole


def test_another_seed_makes_other_events_and_none_makes_new_ones() -> None:
    assert EventGenerator(seed=1).take(5) != EventGenerator(seed=2).take(5)
    assert EventGenerator("{{hex 16}}").take(1) != EventGenerator("{{hex 16}}").take(1)


def test_without_a_seed_the_time_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.generate.events.time.time_ns", lambda: 1_700_000_000_123_456_789)

    assert EventGenerator("{{now}} {{now ms}}").take(1) == [b"2023-11-14T22:13:20.123Z 1700000000123"]


@settings(deadline=None)
@given(
    st.sampled_from([0.0, 0.001, 0.003, 0.01, 0.1, 1 / 3, 0.5, 0.7, 0.9, 1.0]),
    st.lists(st.integers(0, 700), max_size=8),
)
def test_the_share_of_poison_is_exact_over_any_run(share: float, cuts: list[int]) -> None:
    poison = Poison(share)
    spoiled = 0
    for cut in cuts:
        chunk = [b'{"n":1}'] * cut
        poison.spoil(chunk)
        spoiled += sum(event != b'{"n":1}' for event in chunk)

    assert poison.seen == sum(cuts)
    assert spoiled == poison.spoiled
    assert abs(spoiled - share * sum(cuts)) < 1


def test_a_thousandth_of_a_million_is_a_thousand() -> None:
    poison = Poison(0.001)
    for _ in range(1000):
        poison.spoil([b"{}"] * 1000)

    assert poison.spoiled == 1000


@pytest.mark.parametrize(("name", "spoil"), POISON, ids=[name for name, _ in POISON])
def test_every_kind_of_poison_is_unreadable_or_of_the_wrong_type(name: str, spoil: Callable[[bytes], bytes]) -> None:
    spoiled = spoil(EventGenerator(seed=1).take(1)[0])

    if name == "wrong_type":
        assert json.loads(spoiled)["id"] == "many"
    else:
        assert not readable(spoiled)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        EventGenerator(poison=share)


def test_iterating_goes_on_without_end() -> None:
    stream = iter(EventGenerator("{{seq}}"))

    assert [next(stream) for _ in range(events.CHUNK + 1)][-1] == str(events.CHUNK).encode()


def test_fields_are_drawn_independently_of_each_other() -> None:
    pairs = [event.split() for event in EventGenerator("{{int 1 1000}} {{int 1 1000}}", seed=1).take(100)]

    assert sum(left == right for left, right in pairs) < 5
