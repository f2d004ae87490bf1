"""What source and sink keep together, and parts that do not have what they say."""

from dataclasses import replace
from typing import Any

import pytest

from batcher.core.buffer import FlushPolicy
from batcher.engine.assembly import PipelineOptions, agreed, check_capabilities
from batcher.errors import ConfigurationError
from batcher.protocols import Guarantee, Repeats, SinkInfo, SourceInfo
from batcher.testing.formats import NUMBERS
from batcher.testing.sinks import MemorySink, TableSink
from batcher.testing.sources import MemoryLog, MemorySource

KEEPS = SourceInfo(keeps_intents=True, reason="")
OPTIONS = PipelineOptions("group")


def sink(repeats: Repeats = "token", **changes: Any) -> SinkInfo:
    return replace(SinkInfo("the table", NUMBERS, repeats=repeats, reason="because of the sink"), **changes)


@pytest.mark.parametrize(
    ("source", "repeats", "guarantee", "reason"),
    [
        (KEEPS, "token", "exactly-once", "because of the sink"),
        (KEEPS, "replace", "exactly-once", "because of the sink"),
        (KEEPS, "query", "exactly-once", "because of the sink"),
        (KEEPS, "merge", "exactly-once", "because of the sink"),
        (KEEPS, "none", "at-least-once", "because of the sink"),
        (replace(KEEPS, replayable=False, reason="a queue"), "query", "at-least-once", "a queue"),
        (replace(KEEPS, ordered=False, reason="in any order"), "query", "at-least-once", "in any order"),
        (SourceInfo(reason="no intents"), "token", "at-least-once", "no intents"),
        (SourceInfo(reason="no intents"), "none", "at-least-once", "because of the sink"),
    ],
)
def test_the_guarantee_is_that_of_the_weaker_of_source_and_sink_with_its_reason(
    source: SourceInfo, repeats: Repeats, guarantee: Guarantee, reason: str
) -> None:
    found = agreed(source, sink(repeats), OPTIONS)
    assert (found.guarantee, found.reason) == (guarantee, reason)


def test_less_may_be_asked_for_and_more_is_refused_with_what_cannot_keep_it() -> None:
    assert agreed(KEEPS, sink(), replace(OPTIONS, delivery="at-least-once")).guarantee == "at-least-once"
    once = replace(OPTIONS, delivery="exactly-once")
    with pytest.raises(ConfigurationError, match="the table cannot keep it: because of the sink"):
        agreed(KEEPS, sink("none"), once)
    with pytest.raises(ConfigurationError, match="the source cannot keep it: no intents"):
        agreed(SourceInfo(reason="no intents"), sink(), once)


@pytest.mark.parametrize(
    ("repeats", "delivery", "merges"),
    [("none", "auto", True), ("token", "auto", False), ("token", "at-least-once", True), ("replace", "auto", False)],
)
def test_partitions_share_a_batch_where_no_replay_has_to_be_told_by_its_token(
    repeats: Repeats, delivery: Any, merges: bool
) -> None:
    assert agreed(KEEPS, sink(repeats), replace(OPTIONS, delivery=delivery)).merges_partitions is merges
    assert not agreed(KEEPS, sink("none", capabilities=frozenset({"pin_topic"})), OPTIONS).merges_partitions


def test_what_only_a_sink_that_can_be_asked_can_do_is_refused_for_others() -> None:
    with pytest.raises(ConfigurationError, match=r"--batch\.merge-partitions: the table cannot be asked"):
        agreed(KEEPS, sink(), replace(OPTIONS, merge_partitions=True))
    with pytest.raises(ConfigurationError, match="--on-existing skip: the table cannot be completed row by row"):
        agreed(KEEPS, sink(), replace(OPTIONS, on_existing="skip"))
    assert agreed(KEEPS, sink("query"), replace(OPTIONS, merge_partitions=True, on_existing="skip")).merges_partitions


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"capabilities": frozenset({"pin", "remove"})},
            r"the sink MemorySink has no remove\(\) \(capability remove\)",
        ),
        ({"capabilities": frozenset({"pin", "query"})}, r"has no max_offset_above\(\)|has no present\(\)"),
        ({"capabilities": frozenset({"pin", "fly"})}, "has no fly .there is no such capability; known are count, "),
        (
            {"capabilities": frozenset()},
            "the sink MemorySink has no schema and cannot take one: name the capability pin",
        ),
        ({"repeats": "query"}, "the sink MemorySink says that it can be asked .* lacks the capability query"),
    ],
)
def test_a_sink_without_what_it_says_it_has_is_refused_by_name_with_what_to_do(
    changes: dict[str, Any], said: str
) -> None:
    made = MemorySink()
    with pytest.raises(ConfigurationError, match=said):
        check_capabilities(made, replace(made.open(), **changes))


def test_parts_that_have_what_they_say_pass() -> None:
    table = TableSink(NUMBERS)
    check_capabilities(table, table.open())
    check_capabilities(MemorySource(MemoryLog([])), KEEPS)
    with pytest.raises(ConfigurationError, match=r"the source MemorySource has no lag\(\)"):
        check_capabilities(MemorySource(MemoryLog([])), replace(KEEPS, capabilities=frozenset({"lag"})))


@pytest.mark.parametrize(
    "changes", [{"stop_timeout_s": 0}, {"max_records": 0}, {"memory_bytes": 1, "flush": FlushPolicy(max_bytes=2)}]
)
def test_options_that_cannot_work_are_refused_before_anything_is_opened(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must"):
        PipelineOptions("group", **changes)
