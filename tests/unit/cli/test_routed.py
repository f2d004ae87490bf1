"""Which target a verb looks at where `--route` names several."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.cli.support.routed import all_targets, one_target
from batcher.cli.support.wiring import routes_of
from batcher.settings import Parser, Settings, UsageError, load
from batcher.sources.kafka.settings import Kafka
from sinks.clickhouse.settings import ClickHouse
from sinks.parquet.settings import Parquet


def loaded(*argv: str, **environ: str) -> Settings:
    parser = Parser("batcher")
    parser.add_settings()
    return load(parser, list(argv), environ).settings


def routed(*rules: str, topics: tuple[str, ...] = (), **sections: Any) -> Settings:
    kafka = Kafka(brokers="b:1", topics=topics, group="g")
    return Settings(sink="clickhouse", route=rules, kafka=kafka, **sections)


def test_without_routes_the_settings_stay_what_they_are() -> None:
    settings = Settings(sink="null")
    assert one_target(settings) is settings
    assert all_targets(settings) == [settings]
    assert routes_of(settings) is None


def test_each_target_has_its_table_and_its_topics() -> None:
    found = all_targets(routed("o-(.*)=shop.$1", "(.*)=rest", topics=("o-b", "x", "o-a", "y")))
    assert [(one.section(ClickHouse).table, one.section(Kafka).topics) for one in found] == [
        ("rest", ("x", "y")),
        ("shop.a", ("o-a",)),
        ("shop.b", ("o-b",)),
    ]
    assert all(one.route == () for one in found)


def test_a_verb_for_one_target_takes_topics_that_lead_to_one_and_says_so_of_others() -> None:
    one = one_target(routed("o-(.*)=shop.$1", topics=("o-a",)))
    assert one.section(ClickHouse).table == "shop.a"
    with pytest.raises(UsageError, match=r"lead to 2 targets \(shop.a, shop.b\); name those of one with -t"):
        one_target(routed("o-(.*)=shop.$1", topics=("o-a", "o-b")))
    with pytest.raises(UsageError, match="name the topics of one target with -t"):
        one_target(routed("o-(.*)=shop.$1", topics=("^o-.*",)))
    with pytest.raises(UsageError, match="none is for topic x"):
        one_target(routed("o-(.*)=shop.$1", topics=("x",)))
    assert one_target(routed("o-(.*)=shop.$1"), ["o-c"]).section(ClickHouse).table == "shop.c"


def test_a_table_or_directory_with_topic_in_its_name_is_a_route() -> None:
    settings = Settings(sink="parquet", parquet=Parquet(path="lake/{topic}"), kafka=Kafka(topics=("a", "b")))
    assert [one.section(Parquet).path for one in all_targets(settings)] == ["lake/a", "lake/b"]


def test_rules_are_read_alike_from_flags_variables_and_files() -> None:
    rules = ("a,b{1,2}=x", "(.*)=y.$1")
    flags = loaded("--sink", "clickhouse", "--route", rules[0], "--route", rules[1])
    variable = loaded("--sink", "clickhouse", BATCHER_ROUTE="; ".join(rules))
    assert flags.route == variable.route == rules


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("--sink", "clickhouse", "--route", "orders"), "needs the form PATTERN=TARGET"),
        (("--sink", "null", "--route", "a=b"), "the sink null has one target only"),
        (("--sink", "clickhouse", "--clickhouse.table", "t", "--route", "a=b"), "cannot go with --route"),
    ],
)
def test_routes_that_cannot_be_meant_are_refused(argv: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UsageError) as refusal:
        loaded(*argv)
    assert reason in str(refusal.value)


def test_a_lookahead_does_not_end_the_expression() -> None:
    settings = routed("(?=o)(.*)(?<=a)=shop.$1", topics=("o-a",))
    assert one_target(settings).section(ClickHouse).table == "shop.o-a"
