"""Values as a ClickHouse table has them in the end: text columns that take anything, times in a unit that is set."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batcher.core.offsets import named
from batcher.engine.blocks import block_of
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_batch, make_records
from sinks.clickhouse import plugin

pytest_plugins = ["batcher.testing.clickhouse_plugin"]


@pytest.mark.parametrize("kind", ["String", "Nullable(String)", "LowCardinality(String)"])
def test_an_id_here_and_an_object_there_fit_a_string_column(
    kind: str, chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    name = new_table()
    chdb_engine.execute(
        f"CREATE TABLE {name} (_id {kind}, born DateTime64(3, 'UTC'), tags Array(String)) "
        "ENGINE = MergeTree ORDER BY born"
    )
    sink = plugin({"dsn": chdb_engine.dsn, "table": name})
    try:
        info = sink.open()
        assert info.schema is not None
        options = JsonOptions(text=frozenset("*"), epoch={"born": "ms"})
        batch = make_batch(
            make_records(
                [
                    '{"_id":"65f0","born":1000,"tags":["a"]}',
                    '{"_id":{ "$oid" : "65f0" },"born":"2000","tags":[1.50,{"b":null}]}',
                    '{"_id":9007199254740993,"born":86400000,"tags":[]}',
                    '{"_id":-0,"born":99999999999,"tags":[true]}',
                ]
            )
        )
        decoded = JsonFormat(options).decoder(info.schema).decode(batch)
        assert decoded.rejections == ()
        sink.write(block_of(info, named("values", batch), decoded))
    finally:
        sink.close()
    assert chdb_engine.rows(f"SELECT _id, toString(born), tags FROM {name} ORDER BY born") == [
        ("65f0", "1970-01-01 00:00:01.000", ["a"]),
        ('{"$oid":"65f0"}', "1970-01-01 00:00:02.000", ["1.50", '{"b":null}']),
        ("9007199254740993", "1970-01-02 00:00:00.000", []),
        ("-0", "1973-03-03 09:46:39.999", ["true"]),
    ]
