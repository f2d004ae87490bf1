"""A transform behind every encoding, made from the settings."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pytest

from batcher.cli.support import wiring
from batcher.errors import ConfigurationError, SettingRefused
from batcher.records import Decoded
from batcher.settings import Settings
from batcher.settings.compose import compose
from batcher.settings.model import Decode, TransformSection
from batcher.testing.contract.format import check_places
from batcher.testing.values import make_batch, make_records
from batcher.transforms.format import TransformedFormat

pytest.importorskip("duckdb", reason="needs the extra [sql]")

TARGET = pa.schema(
    [("id", pa.int64()), ("city", pa.string()), ("amount", pa.decimal128(12, 2)), ("later", pa.string())]
)

HOOKS = """
import pyarrow.compute as pc

def where(rows):
    return rows.filter(pc.greater(rows.column("id"), 1))
"""


def settings_of(decode: dict[str, Any] | None = None, transform: dict[str, Any] | None = None, **more: Any) -> Settings:
    given = {"where": "id > 1"} if transform is None else transform
    return Settings(decode=Decode(**(decode or {})), transform=TransformSection(**given), **more)


def decoded(settings: Settings, values: Sequence[bytes | None], target: pa.Schema = TARGET) -> Decoded:
    decoder = wiring.format_of(settings).decoder(target)
    batch = make_batch(make_records(values))
    found = decoder.decode(batch)
    check_places(found, decoder, batch)
    return found


def rows(count: int = 3) -> list[dict[str, Any]]:
    return [{"id": n, "city": f"c{n}", "amount": 0.1} for n in range(1, count + 1)]


def check(found: Decoded) -> None:
    assert [str(row["id"]) + row["city"] for row in found.table.to_pylist()] == ["2c2", "3c3"]
    assert found.filtered.to_pylist() == [0]
    assert [one.position for one in found.rejections] == [3]
    assert found.skipped.to_pylist() == [0, 4]


def test_json_passes_amounts_exactly() -> None:
    found = decoded(settings_of(), [*(json.dumps(row).encode() for row in rows()), b"junk", None])
    check(found)
    assert str(found.table["amount"][0]) == "0.10"


def test_messagepack() -> None:
    import msgspec

    values = [msgspec.msgpack.encode(row) for row in rows()]
    check(decoded(settings_of({"format": "msgpack"}), [*values, b"\xc1", None]))


def test_csv() -> None:
    from batcher.formats.delimited import CsvSection

    settings = settings_of({"format": "csv"}, csv=CsvSection(columns=("id", "city", "amount")))
    check(decoded(settings, [b"1,c1,0.1", b"2,c2,0.1", b"3,c3,0.1", b"junk", None]))


def test_avro(tmp_path: Path) -> None:
    pytest.importorskip("numpy", reason="needs the extra [avro]")
    fastavro = pytest.importorskip("fastavro")
    schema: Any = {
        "type": "record",
        "name": "Row",
        "fields": [{"name": "id", "type": "long"}, {"name": "city", "type": "string"}],
    }
    (tmp_path / "row.avsc").write_text(json.dumps(schema))

    def written(row: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
        return out.getvalue()

    settings = settings_of({"format": "avro", "writer_schema": str(tmp_path / "row.avsc")})
    check(decoded(settings, [*(written({"id": n, "city": f"c{n}"}) for n in (1, 2, 3)), b"\xff", None]))


def test_raw_messages_are_chosen_by_what_is_in_them() -> None:
    settings = settings_of({"format": "raw"}, {"where": "contains(decode(value), 'x')"})
    found = decoded(settings, [b"ax", b"b", None], pa.schema([("value", pa.binary())]))
    assert found.table["value"].to_pylist() == [b"ax"]
    assert found.skipped.to_pylist() == [1, 2]
    # A table may have nothing but coordinates, among them the whole message.
    assert decoded(settings, [b"ax", b"b"], pa.schema([])).positions.to_pylist() == [0]


def test_packed_messages_keep_their_coordinates() -> None:
    settings = settings_of({"compression": "gzip"}, {"select": "id, _offset AS place", "where": "id > 1"})
    values = [gzip.compress(json.dumps(row).encode()) for row in rows()]
    found = decoded(settings, values, pa.schema([("id", pa.int64()), ("place", pa.int64())]))
    assert found.table.to_pylist() == [{"id": 2, "place": 1}, {"id": 3, "place": 2}]


def test_sql_comes_before_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoding_hooks.py").write_text(HOOKS)
    monkeypatch.syspath_prepend(tmp_path)
    settings = settings_of(transform={"python": "encoding_hooks:where", "select": "id + 1 AS id, city"})
    assert decoded(settings, [json.dumps(row).encode() for row in rows()]).table["id"].to_pylist() == [2, 3, 4]
    assert wiring.transforms(settings) == ["sql", "python"]


def test_the_file_of_a_schema_is_what_the_transform_gets_and_no_business_of_the_target(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("city", pa.string())])
    with pa.ipc.new_stream(tmp_path / "in.arrow", schema):
        pass
    settings = settings_of({"schema": str(tmp_path / "in.arrow")}, {"select": "city"})
    form = wiring.format_of(settings)
    assert form.infer(make_batch(make_records([b"junk"]))) == pa.schema([("city", pa.string())])
    clickhouse = compose(())(
        sink="clickhouse", decode=settings.decode, transform=settings.transform, clickhouse={"table": "t"}
    )
    assert wiring.sink_of(clickhouse) is not None
    wrong = settings_of({"schema": str(tmp_path / "in.arrow")}, {"select": "town"})
    with pytest.raises(SettingRefused, match="no record has a field town"):
        wiring.format_of(wrong)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"where": "now() > 1"}, "--transform.where: now cannot be used"),
        ({"python": "hooks"}, "--transform.python 'hooks' is not of the form module:function"),
        ({"python": "no_such_module:f"}, "there is no module 'no_such_module'"),
        ({"python": "json:nosuch"}, "--transform.python 'json:nosuch': json has no 'nosuch'"),
        ({"python": "json:__doc__"}, "cannot be called"),
        ({"kind": "python"}, "--transform.kind python: which function"),
        ({"kind": "sql"}, "--transform.kind sql: give --transform.select"),
        ({"kind": "nosuch"}, "--transform.kind 'nosuch' is not known"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_opened(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingRefused, match=message):
        wiring.format_of(settings_of(transform=given))


def test_duckdb_is_loaded_only_where_sql_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("batcher.transforms.sql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    wiring.format_of(settings_of(transform={}))
    with pytest.raises(ConfigurationError, match=r"needs the Python module 'duckdb'.*kafka-batcher\[sql\]"):
        wiring.format_of(settings_of())


def test_without_a_transform_nothing_is_wrapped() -> None:
    assert not isinstance(wiring.format_of(settings_of(transform={})), TransformedFormat)
    assert isinstance(wiring.format_of(settings_of()), TransformedFormat)


def test_a_star_beside_a_computed_column_of_the_target_stays_what_it_is() -> None:
    target = pa.schema([("id", pa.int64()), ("city", pa.string()), ("double", pa.int64())])
    settings = settings_of(transform={"select": "*, id * 2 AS double"})
    form = wiring.format_of(settings)
    for given, city in (({"id": 1}, None), ({"id": 1, "city": "c", "double": 7}, "c")):
        decoder = form.decoder(target)
        found = decoder.decode(make_batch(make_records([json.dumps(given).encode()])))
        assert found.table.to_pylist() == [{"id": 1, "city": city, "double": 2}]
