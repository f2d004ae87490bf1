"""Tables of Iceberg for tests: in a catalog of SQLite in a directory, or in a REST catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from batcher.plugins import PluginContext
from sinks.iceberg import plugin
from sinks.iceberg.append import written
from sinks.iceberg.settings import Iceberg
from sinks.iceberg.types import columns_of
from sinks.lake.sink import LakeSink
from sinks.lake.types import converted
from tests.harness.lakes import loaded_from, unchecked
from tests.harness.targets import ORDER_SCHEMA, Loaded


@dataclass(frozen=True)
class Lake:
    """Say where a table is, and make sinks for it."""

    catalog: Mapping[str, str]
    table: str = "shop.orders"
    flags: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def in_directory(directory: Path, **flags: Any) -> Lake:
        """Return a place in a catalog of SQLite below a directory."""
        directory.mkdir(parents=True, exist_ok=True)
        catalog = {
            "type": "sql",
            "uri": f"sqlite:///{directory}/catalog.db",
            "warehouse": f"file://{directory}/warehouse",
        }
        return Lake(catalog, flags=flags)

    def sink(self, context: PluginContext | None = None, **flags: Any) -> LakeSink:
        """Return a sink that is not open, as a process of its own would have it."""
        given = {"catalog": dict(self.catalog), "table": self.table, **self.flags, **flags}
        made = plugin(Iceberg.model_validate(given), context or PluginContext())
        assert isinstance(made, LakeSink)
        return made

    @property
    def arguments(self) -> Sequence[str]:
        """Return the flags that load into it."""
        catalog = [word for name, value in self.catalog.items() for word in ("--iceberg.catalog", f"{name}={value}")]
        more = [word for name, value in self.flags.items() for word in (f"--iceberg.{name.replace('_', '-')}", value)]
        return ("--sink", "iceberg", *catalog, "--iceberg.table", self.table, *map(str, more))

    @contextmanager
    def opened(self) -> Iterator[Catalog]:
        """Yield the catalog, as a reader would have it."""
        catalog = load_catalog("default", **self.catalog)
        try:
            yield catalog
        finally:
            catalog.close()

    @contextmanager
    def read(self) -> Iterator[Table]:
        """Yield the table, as a reader would have it. Raise NoSuchTableError."""
        with self.opened() as catalog:
            yield catalog.load_table(self.table)

    def append(self, rows: pa.Table) -> None:
        """Append as another writer does, which knows nothing of offsets."""
        with self.read() as table:
            files = written(table, converted(rows, columns_of(table.schema()))) if rows.num_rows else []
            with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
                for file in files:
                    append.append_data_file(file)

    def rows(self) -> pa.Table:
        """Return everything in the table; no column where there is no table."""
        try:
            with self.read() as table:
                return table.scan().to_arrow()
        except NoSuchTableError:
            return pa.table({})

    def loaded(self) -> Loaded:
        """Return which orders it holds, and how often."""
        return loaded_from(self.rows())


class IcebergOrders:
    """Keep orders in a table; `sink` is another one that writes it."""

    def __init__(self, lake: Lake, schema_file: Path, *, sink: str = "iceberg") -> None:
        self.lake = lake
        self._schema_file = schema_file
        self._sink = sink
        with pa.ipc.new_file(str(schema_file), ORDER_SCHEMA):
            pass

    @property
    def arguments(self) -> Sequence[str]:
        _, _, *given = self.lake.arguments
        return ("--sink", self._sink, *given, "--decode.schema", str(self._schema_file))

    def loaded(self) -> Loaded:
        return self.lake.loaded()


def unchecked_iceberg(options: Any, context: PluginContext) -> Any:
    """Return an Iceberg sink that commits what it is given, for a command line: what kills do without the check."""
    return unchecked(plugin(options, context))


for _name in ("options", "section"):
    setattr(unchecked_iceberg, _name, getattr(plugin, _name))
