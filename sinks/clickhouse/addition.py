"""Give a table columns for fields that it lacks.

They are added before the first block that has a value for them is written: a server that knows a token drops the block
whole, so that a column that is added between two attempts would stay NULL in its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from batcher.errors import SinkMisconfigured, SinkUnavailable
from sinks.clickhouse.catalog import Catalog
from sinks.clickhouse.ddl import added_column
from sinks.clickhouse.guarantee import Storage
from sinks.clickhouse.schema import TableShape, quoted

RIGHT = "ALTER ADD COLUMN"


def widens(table: Storage) -> bool:
    """Return whether a table can be given columns: others only pass rows on to tables that would lack them."""
    return table.engine.endswith("MergeTree")


def with_columns(
    client: Client, table: Storage, fields: Sequence[pa.Field], target: str, decoded: Collection[str] = ()
) -> TableShape:
    """Add nullable columns for the fields that a table lacks, and return what it looks like afterwards.

    `decoded` are the coordinates that the format reads, as `TableShape.read` takes them.

    A column that is there keeps its type: the server says nothing about another one, so that all are read again. Raise
    SinkMisconfigured where the user may not add columns, SinkUnavailable where an added one does not show yet, and what
    the driver raises.
    """
    catalog = Catalog(client)
    there = {column.name for column in catalog.columns(table)}
    missing = {field.name: added_column(field) for field in fields if field.name not in there}
    added = [f"ADD COLUMN IF NOT EXISTS {quoted(name)} {kind}" for name, kind in missing.items() if kind is not None]
    if added:
        if not catalog.granted(f"{RIGHT} ON {table.quoted}"):
            raise SinkMisconfigured(
                f"{target}: the user may not add columns for new fields (--decode.on-unknown evolve); "
                f"GRANT {RIGHT} ON {table.quoted} to it"
            )
        client.command(f"ALTER TABLE {table.quoted} {', '.join(added)}", settings=dict(_awaited(client, table)))
    columns = catalog.columns(table)
    late = {name for name, kind in missing.items() if kind is not None} - {column.name for column in columns}
    if late:
        raise SinkUnavailable(f"{target}: {len(late)} added columns do not show yet")
    return TableShape.read(columns, target, decoded, table.sorted_by)


def _awaited(client: Client, table: Storage) -> Mapping[str, str]:
    """Let the statement return when all replicas have the columns: the next insert may meet any of them."""
    if not table.engine.startswith(("Replicated", "Shared")):
        return {}
    # Servers before 23.7 know the old name only.
    known = "alter_sync" in client.server_settings
    return {"alter_sync" if known else "replication_alter_partitions_sync": "2"}
