"""A table like another one, for the time of a measurement."""

from __future__ import annotations

import re
from typing import Final

from clickhouse_connect.driver.client import Client

from batcher.errors import SinkMisconfigured
from sinks.clickhouse.catalog import Catalog
from sinks.clickhouse.guarantee import Storage
from sinks.clickhouse.schema import quoted

# A copy of another kind is not a table of its own: it would write into the tables behind a Distributed table, or
# announce itself to Keeper as a replica of the real one.
_COPIED: Final = re.compile(r"(Shared)?[A-Za-z]*MergeTree|Null")
_NOT_COPIED: Final = re.compile(r"Replicated")

_RIGHTS: Final = ("CREATE TABLE", "INSERT", "DROP TABLE")


def made_like(client: Client, table: Storage, name: str, target: str) -> str:
    """Create an empty table like another one, in its database, and return its name.

    Raise SinkMisconfigured for an engine without copies and for missing rights; else what the driver raises.
    """
    if _COPIED.fullmatch(table.engine) is None or _NOT_COPIED.match(table.engine):
        raise SinkMisconfigured(
            f"{target}: a table of engine {table.engine} cannot be made a second time to write to; measure without "
            "--target scratch, or with --clickhouse.table and a MergeTree of the same columns"
        )
    scratch = f"{quoted(table.database)}.{quoted(name)}"
    catalog = Catalog(client)
    lacking = [right for right in _RIGHTS if not catalog.granted(f"{right} ON {scratch}")]
    if lacking:
        raise SinkMisconfigured(
            f"{target}: --target scratch needs a table of its own, and the user lacks {', '.join(lacking)} on it; "
            f"GRANT {', '.join(_RIGHTS)} ON {quoted(table.database)}.* to it, or measure without --target scratch"
        )
    client.command(f"CREATE TABLE {scratch} AS {table.quoted}")
    return name


def dropped(client: Client, table: Storage, name: str) -> None:
    """Drop what `made_like` made; raise what the driver raises."""
    # SYNC: the next table must not share the disk with the rest of this one.
    client.command(f"DROP TABLE IF EXISTS {quoted(table.database)}.{quoted(name)} SYNC")
