from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sinks
from batcher.errors import ConfigurationError
from batcher.protocols import SchemaPinning
from batcher.testing.values import make_block
from tests.harness.processes import run_code

TYPING = Path(__file__).parents[2] / "typing"


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace what installed packages announce."""

    def install(**points: str) -> None:
        found = [EntryPoint(name, value, sinks.registry.group) for name, value in points.items()]
        monkeypatch.setattr(
            "batcher.plugins.entry_points", lambda group: found if group == sinks.registry.group else []
        )

    return install


def test_the_built_in_sinks_are_there_when_nothing_is_installed(announce: Any) -> None:
    announce()
    assert sinks.names() == ["clickhouse", "delta", "handler", "iceberg", "null", "parquet"]
    assert sinks.load("null")({}).open().target == "null"
    assert {description.origin for description in sinks.describe()} == {"kafka-batcher"}


def test_the_fallback_is_what_the_distribution_announces() -> None:
    announced = {point.name: point.value for point in entry_points(group=sinks.registry.group)}
    if not announced:
        pytest.skip("kafka-batcher is not installed here")
    assert announced.items() >= dict(sinks.registry.built_in).items()


def test_naming_sinks_imports_none_of_them() -> None:
    code = (
        "import sys, sinks; sinks.names(); sinks.describe(); print([m for m in sys.modules if m.startswith('sinks.')])"
    )
    done = run_code(code)
    assert done.stdout == "[]\n", done.stderr


def test_an_installed_sink_is_found_by_its_name(announce: Any) -> None:
    announce(mine="sinks.null:NullSink")
    assert "mine" in sinks.names()
    assert sinks.load("mine").__name__ == "NullSink"
    assert ("mine", "sinks.null:NullSink", "?") in sinks.describe()


def test_a_built_in_name_cannot_be_taken_over(announce: Any) -> None:
    announce(null="json:dumps")
    assert sinks.load("null")({}).open().target == "null"


def test_a_name_announced_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("mine", "sinks.null:plugin", sinks.registry.group),
        EntryPoint("mine", "json:dumps", sinks.registry.group),
    ]
    monkeypatch.setattr("batcher.plugins.entry_points", lambda group: points)
    with pytest.raises(ConfigurationError, match=r"announced by json:dumps and sinks\.null:plugin"):
        sinks.load("mine")


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(
        ConfigurationError, match=r"did you mean 'parquet'.*clickhouse, delta, handler, iceberg, null, parquet"
    ):
        sinks.load("parqet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Sink", "no module 'no_such_module'"),
        ("json:NoSuchSink", "json has no 'NoSuchSink'"),
        ("json:__doc__", "cannot be called"),
        ("json:", "not of the form module:attribute"),
        (":Sink", "not of the form module:attribute"),
    ],
)
def test_a_wrong_import_path_says_which_part_is_wrong(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        sinks.load(name)


def test_a_missing_dependency_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announce: Any
) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "needs_chdb.py").write_text("raise ModuleNotFoundError(name='chdb')\n")
    monkeypatch.syspath_prepend(tmp_path)
    announce(more="needs_more:plugin")
    with pytest.raises(ConfigurationError, match="pip install 'not_installed_anywhere'"):
        sinks.load("more")
    with pytest.raises(ConfigurationError, match="pip install 'not_installed_anywhere'"):
        sinks.load("needs_more:plugin")
    monkeypatch.setattr(sinks.registry, "built_in", {"clickhouse": "needs_chdb:plugin"})
    with pytest.raises(ConfigurationError, match=r"pip install 'kafka-batcher\[embedded\]'"):
        sinks.load("clickhouse")


def test_a_module_that_breaks_while_imported_is_a_configuration_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_on_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="ZeroDivisionError"):
        sinks.load("breaks_on_import:plugin")


def test_a_sink_in_the_working_directory_is_found_as_with_python_m(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lies_beside_me.py").write_text("def plugin(options):\n    return options\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    assert callable(sinks.load("lies_beside_me:plugin"))


def test_a_class_written_outside_is_a_plugin_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TYPING)
    sink = sinks.load("sink_author:LinesSink")({"path": tmp_path / "lines"})
    sink.close()
    info = sink.open()
    assert isinstance(sink, SchemaPinning)
    table = pa.table({"id": [1, 2]})
    sink.write(make_block(table.cast(sink.pin(table.schema)), first_offset=7, coordinates=info.coordinates))
    sink.close()
    assert [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()] == [
        {"id": 1, "_partition": 0, "_offset": 7},
        {"id": 2, "_partition": 0, "_offset": 8},
    ]


def test_the_null_sink_counts_and_refuses_options_it_does_not_have() -> None:
    sink = sinks.load("null")({})
    block = make_block(pa.table({"id": [1, 2]}))
    sink.write(block)
    sink.write(block)
    assert (sink.blocks, sink.rows, sink.nbytes) == (2, 4, 2 * block.table.nbytes)  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="no option 'path'"):
        sinks.load("null")({"path": "x"})
    with pytest.raises(ConfigurationError, match="schema"):
        sinks.load("null")({"schema": "id int"})
