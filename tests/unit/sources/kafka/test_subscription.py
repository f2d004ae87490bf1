"""One meaning of expressions for all protocols, and a list of topics that follows what there is."""

import pytest

from batcher.errors import ConfigurationError
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.subscription import compiled, matches
from batcher.sources.kafka.topics import GONE_AFTER_S, Absence, Topics
from batcher.testing.clock import ManualClock

NAMES = ["orders", "orders.eu", "orders-dlq", "pre-orders", "__consumer_offsets", "Orders"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("^orders", ["orders", "orders.eu"]),
        ("^orders$", ["orders"]),
        ("^(?!pre-).*orders", ["orders", "orders.eu"]),
        (r"^\w+$", ["Orders", "orders"]),
        ("^(?i:orders)$", ["Orders", "orders"]),
        ("^.*", ["Orders", "orders", "orders.eu", "pre-orders"]),
        ("^__", []),
        ("^nothing", []),
    ],
)
def test_an_expression_is_pythons_and_never_stands_for_internal_topics_or_the_dead_letters(
    wanted: str, found: list[str]
) -> None:
    assert matches(wanted, NAMES, frozenset({"orders-dlq"})) == found


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("^a(b", r"missing \), unterminated subpattern \(at character 3\)"),
        ("^[", r"unterminated character set \(at character 2\)"),
        ("^*a", r"nothing to repeat|multiple repeat"),
        ("^a{99999999999999999999}", "too large"),
        ("^" + "(" * 20_000 + ")" * 20_000, "too deep"),
        ("^(?P<a", r"\(at character \d+\)"),
    ],
)
def test_a_mistake_in_an_expression_is_a_setting_that_cannot_work_and_says_where(wanted: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        compiled(wanted)


def topics(clock: ManualClock, **changes: object) -> Topics:
    made = Topics(KafkaOptions("b:1", ("^orders",), "g", **changes), clock)  # type: ignore[arg-type]
    made.begin(["orders.a"])
    return made


def test_topics_are_looked_for_now_and_then_and_new_ones_are_added() -> None:
    clock = ManualClock()
    found = topics(clock)
    assert not found.due()

    clock.advance(10)

    assert found.due()
    assert found.changed(["orders.a", "orders.b"])
    assert not found.due()
    assert found.names == ("orders.a", "orders.b")
    assert not found.changed(["orders.a", "orders.b"])


def test_a_topic_leaves_when_it_is_missing_twice() -> None:
    found = topics(ManualClock())

    assert not found.changed([])
    assert list(found.names) == ["orders.a"]
    assert found.changed([])
    assert not found.names


def test_a_topic_that_comes_back_has_not_left() -> None:
    found = topics(ManualClock())

    assert [found.changed([]), found.changed(["orders.a"]), found.changed([])] == [False, False, False]


def test_with_an_end_to_come_to_nothing_new_is_looked_for() -> None:
    clock = ManualClock()
    found = topics(clock, until_eof=True)
    clock.advance(1000)

    assert not found.due()


def test_a_named_topic_is_gone_when_a_look_some_seconds_later_misses_it_too() -> None:
    clock = ManualClock()
    absence = Absence(clock)

    assert [absence.in_doubt, absence.lasts(), absence.in_doubt] == [False, False, True]
    clock.advance(GONE_AFTER_S)

    assert [absence.in_doubt, absence.lasts()] == [False, True]


def test_a_named_topic_that_is_there_again_is_not_gone() -> None:
    clock = ManualClock()
    absence = Absence(clock)
    assert not absence.lasts()

    absence.found()
    clock.advance(GONE_AFTER_S)

    assert [absence.in_doubt, absence.lasts()] == [False, False]
