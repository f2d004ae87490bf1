"""The ClickHouse sink: one insert of one record batch for a block, tried once, under the block's token.

clickhouse-connect does the talking. What it would do by itself and must not: re-send an insert after a reset (an
Arrow buffer it never re-sends), lock a session, let progress headers restart the read timeout, share its
connections with other clients, put the server's text, with values of rows in it, into messages.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import Any, Final

import clickhouse_connect
import pyarrow as pa
import pyarrow.compute as pc
import urllib3
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error
from clickhouse_connect.driver.httpclient import HttpClient

from batcher.errors import ConfigurationError, SinkMisconfigured, Unreachable
from batcher.protocols import SinkInfo
from batcher.records import Block, Partition
from sinks.clickhouse.errors import rule_for, translated
from sinks.clickhouse.options import ALWAYS_SENT, PINNED_SETTINGS, ClickHouseOptions
from sinks.clickhouse.schema import IDENTITY, Described, TableShape, promise, quoted

_MEMORY_ENGINES: Final = frozenset({"Buffer"})
"""Engines that acknowledge rows which are nowhere but in memory."""

_TOKENS_KEPT: Final = 1024
"""How many tokens are remembered where the server does not: a repeat follows its failure at once."""

_TABLE: Final = """
SELECT database, name, engine, engine_full, sorting_key
FROM system.tables WHERE database = {database:String} AND name = {table:String}
"""
_COLUMNS: Final = """
SELECT name, type, default_kind, default_expression
FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position
"""
_VIEWS: Final = """
SELECT length(dependencies_table) AS views
FROM system.tables WHERE database = {database:String} AND name = {table:String}
"""
_WINDOWS: Final = (
    "SELECT name, value FROM system.merge_tree_settings WHERE name LIKE '%replicated_deduplication_window'"
)


class ClickHouseSink:
    """Write blocks to one table. Made by `sinks.clickhouse.plugin`.

    One client serves `open` on the main thread and `write` on the flusher's, since only one of them runs at a time and
    no session ties it to a thread. A `write` takes at most about `insert_timeout_s` seconds.
    """

    def __init__(self, options: ClickHouseOptions) -> None:
        self._options = options
        self._client: Client | None = None
        self._shape: TableShape | None = None
        self._database = options.database or ""
        self._settings: dict[str, str] = {}
        self._asks = False
        self._tried: deque[str] = deque(maxlen=_TOKENS_KEPT)

    @property
    def _target(self) -> str:
        database = f"{self._database}." if self._database else ""
        return f"{self._options.address}/{database}{self._options.table}"

    @property
    def _quoted(self) -> str:
        return f"{quoted(self._database)}.{quoted(self._options.table)}"

    def open(self) -> SinkInfo:
        try:
            self._client = _connected(self._options)
            return self._described(self._client)
        except (Error, OSError) as error:
            self.close()
            ours = _open_failure(self._options, error) or translated(error, self._target, opening=True)
            raise ours or SinkMisconfigured(f"{self._target}: cannot be opened") from error
        except BaseException:
            self.close()
            raise

    def write(self, block: Block) -> None:
        """Insert the block. See `Sink.write` for the promise and the exceptions."""
        client, shape = self._opened()
        batches = block.table.to_batches()
        # Two record batches would be two blocks to the server, and a repeat cut otherwise would be stored twice.
        assert len(batches) == 1, "a block is one record batch"
        rows = shape.fit(batches[0])
        if self._asks:
            rows = self._missing(block, rows)
            if rows.num_rows == 0:
                return
        settings = {**self._settings, "insert_deduplication_token": block.token}
        try:
            client.insert_arrow(self._quoted, pa.Table.from_batches([rows]), settings=settings)
        except (Error, OSError) as error:
            ours = translated(error, self._target, has_views=self._poisoned(error) and self._has_views(client))
            if ours is not None:
                raise ours from error

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return the offsets from `first` to `last` that the table holds, ascending, each once.

        Raise SinkMisconfigured where the table lacks the columns, SinkUnavailable where it does not answer.
        """
        client, shape = self._opened()
        if not set(IDENTITY).issubset(shape.coordinates):
            raise SinkMisconfigured(f"{self._target}: has not all of {', '.join(IDENTITY)}")
        query = (
            f"SELECT DISTINCT toInt64(_offset) AS found FROM {self._quoted} "  # noqa: S608 - own quoting, tested
            "WHERE _topic = {topic:String} AND _partition = {number:Int64} "
            "AND _offset >= {first:Int64} AND _offset <= {last:Int64}"
        )
        parameters = {"topic": partition.topic, "number": partition.number, "first": first, "last": last}
        try:
            found = client.query_arrow(query, parameters=parameters)["found"].combine_chunks().cast(pa.int64())
        except (Error, OSError) as error:
            ours = translated(error, self._target, has_views=True)
            raise ours or SinkMisconfigured(f"{self._target}: cannot be asked for offsets") from error
        return found.take(pc.sort_indices(found))

    def _missing(self, block: Block, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a block that the table lacks: all of them unless the token was tried before.

        This is for a table with coordinates that remembers no tokens. The repeat of another process is the
        ledger's to recognise; it asks `present` itself.
        """
        if block.token not in self._tried:
            self._tried.append(block.token)
            return rows
        topics, numbers, offsets = (block.table[name].combine_chunks() for name in IDENTITY)
        there = pa.repeat(False, rows.num_rows)
        for partition, first, last in block.ranges:
            here = pc.and_(pc.equal(topics, partition.topic), pc.equal(numbers, partition.number))
            found = self.present(partition, first, last)
            there = pc.or_(there, pc.and_(here, pc.is_in(offsets, value_set=found)))
        return rows.filter(pc.invert(there))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _opened(self) -> tuple[Client, TableShape]:
        if self._client is None or self._shape is None:
            raise RuntimeError("the sink is not open")
        return self._client, self._shape

    def _described(self, client: Client) -> SinkInfo:
        if not self._database:
            self._database = str(_single(client, "SELECT currentDatabase()"))
        names = {"database": self._database, "table": self._options.table}
        tables = list(client.query(_TABLE, parameters=names).named_results())
        if not tables:
            raise SinkMisconfigured(
                f"{self._target}: the table does not exist, or the user may not see it; "
                "create it or correct --clickhouse.table"
            )
        engine = str(tables[0]["engine"])
        if engine in _MEMORY_ENGINES:
            raise SinkMisconfigured(f"{self._target}: engine {engine} loses rows it has acknowledged; use its target")
        self._check_rights(client)
        self._shape = TableShape.read(self._columns(client, names), self._target)
        self._settings = self._insert_settings(client, self._shape)
        windows = {str(name): str(value) for name, value in client.query(_WINDOWS).result_rows}
        kept = promise(tables[0], self._shape.coordinates, windows)
        self._asks = kept.guarantee == "exactly-once" and not kept.by_token
        return SinkInfo(self._target, self._shape.decoded, self._shape.coordinates, kept.guarantee, kept.reason)

    def _columns(self, client: Client, names: dict[str, str]) -> list[Described]:
        described = []
        for row in client.query(_COLUMNS, parameters=names).named_results():
            kind, type_name = str(row["default_kind"]), str(row["type"])
            empty = kind == "DEFAULT" and _is_empty(client, str(row["default_expression"]), type_name)
            described.append(Described(str(row["name"]), type_name, kind, empty))
        return described

    def _check_rights(self, client: Client) -> None:
        """Refuse a user who may not insert, as far as the server can be asked without inserting."""
        try:
            granted = _single(client, f"CHECK GRANT INSERT ON {self._quoted}")
        except Error as error:
            if error.code is None or rule_for(error.code).reaction == "retry":
                raise
            return  # Servers before 24.10 do not know the statement; the first insert will tell.
        if not granted:
            raise SinkMisconfigured(f"{self._target}: the user may not insert; GRANT INSERT ON {self._quoted} to it")

    def _insert_settings(self, client: Client, shape: TableShape) -> dict[str, str]:
        known = client.server_settings
        pinned = {name: value for name, value in PINNED_SETTINGS.items() if name in known or name in ALWAYS_SENT}
        return {
            **self._options.settings,
            **pinned,
            # Only columns with a DEFAULT can be null when their type is not: `fit` has seen to all others.
            "input_format_null_as_default": "1" if shape.fills_defaults else "0",
            # Progress headers would restart the read timeout, which then bounded nothing.
            "send_progress_in_http_headers": "0",
        }

    @staticmethod
    def _poisoned(error: Error | OSError) -> bool:
        return isinstance(error, Error) and error.code is not None and rule_for(error.code).reaction == "poison"

    def _has_views(self, client: Client) -> bool:
        """Tell whether an insert feeds materialized views; they may come and go, so this is asked when it matters."""
        names = {"database": self._database, "table": self._options.table}
        try:
            rows = client.query(_VIEWS, parameters=names).result_rows
        except (Error, OSError):
            return True
        return not rows or bool(rows[0][0])


def _connected(options: ClickHouseOptions) -> Client:
    # Both warn about every failed request; our exception says it, once, with what to do.
    for name in ("clickhouse_connect.driver._backend.http_sync", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if options.path is not None:
        try:
            return clickhouse_connect.get_client(interface="chdb", path=str(options.path))
        except ImportError as error:
            raise ConfigurationError(
                "--clickhouse.dsn: chdb:// needs the extra: pip install 'kafka-batcher[embedded]'"
            ) from error
    extra: dict[str, Any] = dict(options.tls)
    client = clickhouse_connect.get_client(
        host=options.host,
        port=options.port,
        interface=options.scheme,
        username=options.user,
        password=options.password,
        database=options.database,
        compress=False if options.compression == "none" else options.compression,
        # Whole seconds are all the driver takes here; exact values are set below.
        connect_timeout=math.ceil(options.connect_timeout_s),
        send_receive_timeout=math.ceil(options.insert_timeout_s),
        query_retries=0,
        autogenerate_session_id=False,
        dedicated_pool=True,
        client_name="batcher",
        **extra,
    )
    if isinstance(client, HttpClient):
        client.timeout = urllib3.Timeout(connect=options.connect_timeout_s, read=options.insert_timeout_s)
        client.http_retries = 0
    return client


def _open_failure(options: ClickHouseOptions, error: Error | OSError) -> SinkMisconfigured | Unreachable | None:
    """Explain why an embedded engine did not start: its own text says it only in part."""
    if options.path is None or not isinstance(error, Error) or "Unable to open the chdb engine" not in str(error):
        return None
    text = str(error)
    where = f"--clickhouse.dsn: {options.address}"
    if "already initialized with path" in text:
        return SinkMisconfigured(f"{where}: this process already has chDB open on another path; one is all it can have")
    if options.path.exists() and not options.path.is_dir():
        return SinkMisconfigured(f"{where} is a file; name a directory")
    if "Permission denied" in text or "filesystem error" in text:
        return SinkMisconfigured(f"{where}: the directory cannot be created or written")
    return SinkMisconfigured(
        f"{where} cannot be opened: another process has it, most likely a second batcher; one process is all it takes"
    )


def _is_empty(client: Client, expression: str, type_name: str) -> bool:
    """Tell whether a DEFAULT is an empty array, map or JSON object, which is what the engine makes of a null there."""
    if not type_name.startswith(("Array", "Map", "JSON")):
        return False
    value = f"CAST({expression} AS {type_name})"
    query = f"SELECT toJSONString({value}) = '{{}}'" if type_name.startswith("JSON") else f"SELECT empty({value})"
    try:
        return bool(_single(client, query))
    except Error:
        return False


def _single(client: Client, query: str) -> Any:
    return client.query(query).result_rows[0][0]
