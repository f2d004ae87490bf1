"""How far a table is behind with its merges."""

from __future__ import annotations

from typing import Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from batcher.errors import SinkUnavailable
from sinks.clickhouse.errors import translated
from sinks.clickhouse.guarantee import Storage

DELAYS_AT: Final = "parts_to_delay_insert"
"""The setting of a table for the number of parts of one partition from which on its server slows inserts down."""

USUAL: Final = "1000"
"""Its default on servers since 23.6."""

_MOST_PARTS: Final = """
SELECT max(parts) FROM (
    SELECT count() AS parts FROM system.parts
    WHERE active AND database = {database:String} AND table = {table:String} GROUP BY partition_id
)
"""


def pressure(client: Client, table: Storage, target: str) -> float:
    """Return the parts of the fullest partition as a share of those at which inserts are delayed.

    Raise SinkUnavailable, or what the error stands for, where the server does not say; `target` is for messages.
    """
    if not table.merges:
        return 0.0
    try:
        names = {"database": table.database, "table": table.name}
        most = client.query(_MOST_PARTS, parameters=names).result_rows[0][0]
    except (Error, OSError) as error:
        ours = translated(error, target, asking=True) or SinkUnavailable(f"{target}: its parts cannot be counted")
        raise ours from error
    limit = int(table.setting(DELAYS_AT, USUAL))
    return int(most or 0) / limit if limit else 0.0
