"""Laws for every transform there is: found through `batcher.transforms`, not listed here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batcher.options import Section
from batcher.plugins import PluginContext
from batcher.protocols import Transform, Transformed
from batcher.records import SORTED, Rejection
from batcher.settings.model import Decode, TransformSection
from batcher.testing.contract.transform import TransformCase, TransformLaws
from batcher.testing.transforms import ScriptedTransform
from batcher.transforms import registry
from batcher.transforms.chain import ChainedTransform
from batcher.transforms.debezium import Debezium
from batcher.transforms.debezium.transform import PLACEHOLDER as UNAVAILABLE

GIVEN = pa.schema([("id", pa.int64()), ("text", pa.string()), ("tags", pa.list_(pa.string()))])

ROWS: list[dict[str, Any]] = [
    {
        "id": n if n % 7 else None,
        "text": "no number" if n % 5 == 3 else None if n % 11 == 4 else str(n),
        "tags": None if n % 6 == 5 else ["a"] * (n % 3),
    }
    for n in range(60)
]


def hook(rows: pa.RecordBatch, coordinates: pa.RecordBatch) -> pa.RecordBatch:
    rows = rows.append_column("place", coordinates.column("_offset"))
    rows = rows.filter(pc.not_equal(pc.bit_wise_and(rows.column("id"), 3), 1))
    return rows.set_column(1, "text", rows.column("text").cast(pa.int32()))


def scripted(rows: pa.RecordBatch) -> Transformed:
    numbers, ids = rows.column("_row").to_pylist(), rows.column("id").to_pylist()
    pairs = list(zip(numbers, ids, strict=True))
    kept = pc.and_(pc.is_valid(rows.column("id")), pc.greater(rows.column("id"), 9))
    return Transformed(
        rows.filter(kept),
        [Rejection(number, "no_key", "has no key", "id") for number, one in pairs if one is None],
        [number for number, one in pairs if one is not None and one < 5],
    )


SECTIONS: dict[str, Section] = {
    "debezium": Debezium(),
    "python": TransformSection(python="law_hooks:hook"),
    "sql": TransformSection(
        select="id, CAST(text AS INTEGER) AS n, len(tags) AS tags, _offset AS place", where="id IS NULL OR id % 4 <> 1"
    ),
}
"""Options of each transform. A new one fails here until it has some, and what it is given."""


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("law_hooks")
    module.hook = hook
    monkeypatch.setitem(sys.modules, "law_hooks", module)


def made(name: str) -> Transform:
    pytest.importorskip("duckdb", reason="needs the extra [sql]")
    options = SECTIONS[name]
    return registry.make(registry.find(name), options, PluginContext(sections=(options, Decode())))


def events() -> TransformCase:
    """Return events of every kind, some without a row, for a table sorted by its id."""
    key = pa.field("id", pa.int64(), nullable=False, metadata={SORTED: b"1"})
    transform = made("debezium")
    given = transform.input(pa.schema([key, pa.field("text", pa.string(), nullable=False)]), None)
    assert given is not None
    kinds = ["c", "u", "d", "r", "t", "m", "x", None]
    texts = [None, UNAVAILABLE, "a"]
    images = [None if n % 5 == 4 else {"id": n, "text": texts[n % 3]} for n in range(60)]
    rows = [{"op": kinds[n % 8], "before": image, "after": image} for n, image in enumerate(images)]
    return TransformCase(transform, given, rows)


class TestBuiltIn(TransformLaws):
    @pytest.fixture(params=sorted(registry.built_in))
    def case(self, request: pytest.FixtureRequest, hooks: None) -> TransformCase:
        return events() if request.param == "debezium" else TransformCase(made(request.param), GIVEN, ROWS)


MORE: dict[str, Callable[[], Transform]] = {
    "scripted": lambda: ScriptedTransform(scripted),
    "chained": lambda: ChainedTransform([made("sql"), ScriptedTransform(scripted)]),
}


class TestOthers(TransformLaws):
    @pytest.fixture(params=sorted(MORE))
    def case(self, request: pytest.FixtureRequest) -> TransformCase:
        return TransformCase(MORE[request.param](), GIVEN, ROWS)
