"""What a table can promise, by engine, windows, columns, views and rights."""

from __future__ import annotations

import pytest

from sinks.clickhouse.guarantee import FedView, Storage, promise
from sinks.clickhouse.schema import IDENTITY

PLAIN = "non_replicated_deduplication_window"
REPLICATED = "replicated_deduplication_window"
DEFAULTS = {PLAIN: "0", REPLICATED: "10000", "async_insert": "0"}
WINDOW_9 = f"MergeTree ORDER BY id SETTINGS {PLAIN} = 9, index_granularity = 8192"


def storage(
    engine: str = "MergeTree",
    full: str = "",
    *,
    name: str = "t",
    key: str = "id",
    defaults: dict[str, str] | None = None,
) -> Storage:
    return Storage("d", name, engine, full or f"{engine} ORDER BY id", key, defaults or DEFAULTS)


NO_ZERO = f"ReplicatedMergeTree ORDER BY id SETTINGS {REPLICATED} = 0"


@pytest.mark.parametrize(
    ("table", "coordinates", "repeats", "asks"),
    [
        (storage(), (), "none", False),
        (storage(), IDENTITY, "query", True),
        (storage(), IDENTITY[1:], "none", False),
        (storage(full=WINDOW_9), (), "token", False),
        (storage(full=WINDOW_9), IDENTITY, "query", False),
        (storage(defaults={PLAIN: "5"}), (), "token", False),
        (storage(defaults={REPLICATED: "5"}), (), "none", False),
        (storage("ReplicatedMergeTree"), (), "token", False),
        (storage("SharedMergeTree"), IDENTITY, "query", False),
        (storage("ReplicatedMergeTree", NO_ZERO), (), "none", False),
        (storage("SummingMergeTree"), IDENTITY, "none", False),
        (storage("ReplacingMergeTree", key="_topic, _partition, _offset"), IDENTITY, "query", True),
        (storage("Memory"), IDENTITY, "none", False),
        (storage("Distributed"), IDENTITY, "none", False),
    ],
)
def test_the_guarantee_is_the_strongest_the_table_can_keep(
    table: Storage, coordinates: tuple[str, ...], repeats: str, asks: bool
) -> None:
    kept = promise(table, coordinates, [])
    assert (kept.repeats, kept.asks) == (repeats, asks)
    if table.merges and not table.window:
        # Also where the columns are enough for a replay: only a window stops what a worker sends when it is late.
        assert f"ALTER TABLE `d`.`t` MODIFY SETTING {table.window_setting} = 10000" in kept.reason


def test_a_table_that_feeds_views_is_not_asked_because_its_rows_say_nothing_about_theirs() -> None:
    view = FedView("d.v", storage(full=WINDOW_9, name="target"))
    kept = promise(storage(full=WINDOW_9), IDENTITY, [view])
    assert (kept.repeats, kept.asks) == ("token", False)


ALTER = "ALTER TABLE `d`.`{}` MODIFY SETTING non_replicated_deduplication_window = 10000"


@pytest.mark.parametrize(
    ("table", "target", "said"),
    [
        (WINDOW_9, storage(name="target"), ["d.v", ALTER.format("target")]),
        ("", storage(name="target", full=WINDOW_9), [ALTER.format("t")]),
        ("", storage(name="target"), ["d.v", f"{ALTER.format('t')}; {ALTER.format('target')}"]),
        (WINDOW_9, storage("Log", name="target"), ["d.v", "Log"]),
        (WINDOW_9, None, ["d.v", "GRANT SHOW TABLES"]),
    ],
)
def test_what_makes_a_table_with_views_incapable_is_named_with_its_cure(
    table: str, target: Storage | None, said: list[str]
) -> None:
    kept = promise(storage(full=table), IDENTITY, [FedView("d.v", target)])
    assert (kept.repeats, kept.asks) == ("none", False)
    assert [text for text in said if text not in kept.reason] == []


def test_a_target_that_stores_nothing_needs_no_window() -> None:
    views = [FedView("d.v", storage("Null", name="null")), FedView("d.w", storage(full=WINDOW_9, name="target"))]
    assert promise(storage(full=WINDOW_9), (), views).repeats == "token"


def test_without_the_right_to_ask_the_tokens_have_to_carry_it() -> None:
    with_window = promise(storage(full=WINDOW_9), IDENTITY, [], ["SELECT ON system.processes"])
    without = promise(storage(), IDENTITY, [], ["SELECT ON system.processes"])
    assert with_window.repeats == "token"
    assert without.repeats == "none"
    assert "GRANT SELECT ON system.processes" in with_window.reason
    assert "GRANT SELECT ON system.processes" in without.reason


def test_tokens_alone_carry_it_on_a_server_with_a_caveat_and_not_in_an_engine_that_dies_with_batcher() -> None:
    plain, replicated = storage(full=WINDOW_9), storage("ReplicatedMergeTree", full=WINDOW_9)
    on_server, embedded = promise(plain, (), []), promise(plain, (), [], embedded=True)
    assert on_server.repeats == "token"
    assert "crashes inside an insert" in on_server.reason
    assert "crashes" not in promise(replicated, (), []).reason
    assert embedded.repeats == "none"
    assert "ADD COLUMN _topic" in embedded.reason
    assert promise(plain, IDENTITY, [], embedded=True).repeats == "query"


@pytest.mark.parametrize(
    ("full", "defaults", "expected"),
    [
        ("MergeTree ORDER BY id SETTINGS async_insert = 1", DEFAULTS, True),
        ("MergeTree ORDER BY id SETTINGS async_insert = true, index_granularity = 8192", DEFAULTS, True),
        ("MergeTree ORDER BY id SETTINGS async_insert = 0", {"async_insert": "1"}, False),
        ("MergeTree ORDER BY id", {"async_insert": "1"}, True),
        ("MergeTree ORDER BY id SETTINGS storage_policy = 'a, async_insert = 1'", DEFAULTS, False),
    ],
)
def test_a_table_that_collects_inserts_is_known(full: str, defaults: dict[str, str], expected: bool) -> None:
    assert storage(full=full, defaults=defaults).flushes_later is expected


REPLACING = "ReplacingMergeTree(_version, _deleted) ORDER BY id SETTINGS index_granularity = 8192"


@pytest.mark.parametrize(
    ("full", "told", "version", "repeats"),
    [
        (REPLACING, {"id", "_version", "_deleted"}, "_version", "merge"),
        ("ReplacingMergeTree(v) ORDER BY id", {"id", "v"}, "v", "merge"),
        ("ReplacingMergeTree(v) ORDER BY id", {"id"}, "v", "none"),
        ("ReplacingMergeTree ORDER BY (id, other)", {"id", "other"}, "", "none"),
        (f"ReplacingMergeTree(v) ORDER BY id SETTINGS {PLAIN} = 9", {"v"}, "v", "token"),
        ("SummingMergeTree(v) ORDER BY id", {"v"}, "", "none"),
        ("ReplicatedReplacingMergeTree('/a, (b)', '{r}', v, d) ORDER BY id", {"v"}, "v", "token"),
        (f"ReplicatedReplacingMergeTree('/a', 'r', v) ORDER BY id SETTINGS {REPLICATED} = 0", {"v"}, "v", "merge"),
    ],
)
def test_rows_that_replace_each_other_by_a_version_that_records_tell_may_come_again(
    full: str, told: set[str], version: str, repeats: str
) -> None:
    table = storage(full.partition("(")[0].partition(" ")[0], full)
    assert table.version == version
    assert promise(table, (), [], told=told).repeats == repeats


def test_a_view_of_such_a_table_would_get_the_rows_again() -> None:
    table = storage("ReplacingMergeTree", REPLACING)
    assert promise(table, (), [FedView("d.v", storage(name="target"))], told={"_version"}).repeats == "none"


@pytest.mark.parametrize("full", [REPLACING, f"{REPLACING}, {PLAIN} = 9"])
def test_an_embedded_engine_may_die_because_nothing_hangs_on_a_token(full: str) -> None:
    kept = promise(storage("ReplacingMergeTree", full), (), [], told={"_version"}, embedded=True)
    assert kept.repeats == "merge"
    assert "FINAL" in kept.reason
