"""Which target a topic goes to."""

import pytest

from batcher.engine.routes import Routes, Target
from batcher.errors import ConfigurationError
from batcher.testing.formats import NumberFormat
from batcher.testing.sinks import MemorySink


def routes(*rules: tuple[str, str]) -> Routes:
    return Routes(rules, lambda _name, _topics: Target(MemorySink(), NumberFormat()))


@pytest.mark.parametrize(
    ("pattern", "name", "topic", "target"),
    [
        ("orders", "shop.orders", "orders", "shop.orders"),
        ("orders-(.*)", "shop.$1", "orders-eu", "shop.eu"),
        ("(.*)-(.*)", "${2}_$1", "orders-eu", "eu_orders"),
        ("(?P<what>.*)-v1", "shop.${what}", "orders-v1", "shop.orders"),
        (".*", "lake/{topic}/data", "a.b-c", "lake/a.b-c/data"),
        ("(.*)", "cost$$1_$1", "x", "cost$1_x"),
        ("a(x)?", "t$1", "a", "t"),
    ],
)
def test_a_topic_leads_to_the_name_with_its_groups_filled_in(pattern: str, name: str, topic: str, target: str) -> None:
    assert routes((pattern, name)).target_of(topic) == target


def test_only_the_whole_name_of_a_topic_matches_and_the_first_rule_that_does_holds() -> None:
    found = routes(("orders", "a"), ("orders.*", "b"), (".*-dead", "c"))
    assert [found.target_of(topic) for topic in ("orders", "orders-dead", "x-dead", "my-orders")] == [
        "a",
        "b",
        "c",
        None,
    ]


@pytest.mark.parametrize(
    ("pattern", "name", "reason"),
    [
        ("orders-(", "t", "no regular expression"),
        ("orders", "t$1", "no group 1"),
        ("(orders)", "${name}", "no group name"),
        ("(orders)", "t$", "number of a group"),
        ("(orders)", "t$x", "number of a group"),
        ("orders", "", "names no target"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_reason(pattern: str, name: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        routes((pattern, name))


def test_no_rule_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no rule"):
        routes()
