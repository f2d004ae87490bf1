"""What a server says about tables: columns, settings, views and where these write. It reads `system` only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from sinks.clickhouse.errors import rule_for
from sinks.clickhouse.guarantee import FedView, Storage
from sinks.clickhouse.schema import Described

_TABLE: Final = """
SELECT database, name, engine, engine_full, sorting_key, create_table_query, toString(uuid) AS uuid,
    dependencies_database, dependencies_table{targets}
FROM system.tables WHERE database = {{database:String}} AND name = {{table:String}}
"""
_TARGETS: Final = ", target_database, target_table"
_KNOWS_TARGETS: Final = (
    "SELECT count() FROM system.columns WHERE database = 'system' AND table = 'tables' AND name = 'target_table'"
)
_COLUMNS: Final = """
SELECT name, type, default_kind, default_expression
FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position
"""
_VERSION: Final = """
SELECT toString(cityHash64(engine_full, toString(dependencies_table), (
        SELECT toString(groupArray((position, name, type, default_kind, default_expression))) FROM system.columns
        WHERE database = {database:String} AND table = {table:String}
    ))) AS hash,
    toUnixTimestamp(metadata_modification_time) AS changed_s,
    toUnixTimestamp(now()) AS now_s
FROM system.tables WHERE database = {database:String} AND name = {table:String}
"""
_SETTINGS: Final = (
    "SELECT name, value FROM system.{kind}merge_tree_settings "
    "WHERE name IN ('async_insert', 'replicated_deduplication_window', 'non_replicated_deduplication_window', "
    "'parts_to_delay_insert')"
)
_NAME: Final = r"(`(?:[^`\\]|\\.|``)+`|\w+)"
_WRITES_TO: Final = re.compile(rf"^CREATE MATERIALIZED VIEW {_NAME}\.{_NAME} TO {_NAME}\.{_NAME}")

Row = Mapping[str, Any]


class Version(NamedTuple):
    """Name what a table is like at a moment: another `hash` means other columns, settings or views.

    `changed_s` is when it was last altered and `now_s` is the moment, in seconds of the server's clock.
    """

    hash: str
    changed_s: int
    now_s: int


class Catalog:
    """Ask one server about its tables. Every method raises what the driver raises."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._columns_known = _TARGETS if single(client, _KNOWS_TARGETS) else ""
        self._defaults: dict[str, dict[str, str]] = {}

    def table(self, database: str, name: str) -> Storage | None:
        """Return a table; None where there is none, or the user may not see it."""
        row = self._row(database, name)
        return None if row is None else self._storage(row)

    def in_memory(self, database: str) -> bool:
        """Return whether a database forgets its tables when the server ends."""
        query = "SELECT engine FROM system.databases WHERE name = {database:String}"
        rows = self._client.query(query, parameters={"database": database}).result_rows
        return bool(rows) and rows[0][0] == "Memory"

    def version(self, database: str, name: str) -> Version | None:
        """Return the version of a table: one small question; None where there is no such table."""
        names = {"database": database, "table": name}
        rows = self._client.query(_VERSION, parameters=names).result_rows
        return Version(str(rows[0][0]), int(rows[0][1]), int(rows[0][2])) if rows else None

    def columns(self, table: Storage) -> list[Described]:
        """Return the columns of a table, in order."""
        names = {"database": table.database, "table": table.name}
        described = []
        for row in self._client.query(_COLUMNS, parameters=names).named_results():
            kind, type_name = str(row["default_kind"]), str(row["type"])
            empty = kind == "DEFAULT" and _is_empty(self._client, str(row["default_expression"]), type_name)
            described.append(Described(str(row["name"]), type_name, kind, empty))
        return described

    def near(self, database: str, name: str) -> Sequence[str]:
        """Return tables with names like a missing one, in this database, and with the same name in others."""
        query = "SELECT database, name FROM system.tables WHERE database = {database:String} OR name = {table:String}"
        rows = self._client.query(query, parameters={"database": database, "table": name}).result_rows
        here = [str(table) for where, table in rows if where == database]
        elsewhere = [f"{where}.{table}" for where, table in rows if where != database]
        return [*get_close_matches(name, here, n=3), *elsewhere[:3]]

    def views(self, table: Storage) -> Sequence[FedView]:
        """Return the views that an insert into the table feeds, those behind other views too, in order of name.

        Views that read the table on a schedule are not among them.
        """
        found: dict[str, FedView] = {}
        reached = {table.quoted}
        waiting = [table]
        while waiting:
            for view in self._fed_by(waiting.pop()):
                found[view.name] = view
                if view.target is not None and view.target.quoted not in reached:
                    reached.add(view.target.quoted)
                    waiting.append(view.target)
        return [found[name] for name in sorted(found)]

    def granted(self, right: str) -> bool:
        """Return whether the user has a right. Servers before 24.10 cannot say; they count as yes."""
        try:
            return bool(single(self._client, f"CHECK GRANT {right}"))
        except Error as error:
            if _may_pass(error):
                raise
            return True

    def _fed_by(self, table: Storage) -> Iterator[FedView]:
        row = self._row(table.database, table.name)
        if row is None:
            return
        for database, name in zip(row["dependencies_database"], row["dependencies_table"], strict=True):
            view = self._row(database, name)
            yield FedView(f"{database}.{name}", None if view is None else self._target(view))

    def _target(self, view: Row) -> Storage | None:
        for database, name in _targets(view):
            target = self.table(database, name)
            if target is not None:
                return target
        return None

    def _row(self, database: str, name: str) -> Row | None:
        query = _TABLE.format(targets=self._columns_known)
        rows = list(self._client.query(query, parameters={"database": database, "table": name}).named_results())
        return rows[0] if rows else None

    def _storage(self, row: Row) -> Storage:
        engine = str(row["engine"])
        kind = "replicated_" if engine.startswith("Replicated") else ""
        if kind not in self._defaults:
            found = self._client.query(_SETTINGS.format(kind=kind)).result_rows
            self._defaults[kind] = {str(name): str(value) for name, value in found}
        return Storage(
            database=str(row["database"]),
            name=str(row["name"]),
            engine=engine,
            engine_full=str(row["engine_full"]),
            sorting_key=str(row["sorting_key"]),
            defaults=self._defaults[kind],
        )


def single(client: Client, query: str) -> Any:
    """Return the one value of a query's one row."""
    return client.query(query).result_rows[0][0]


def _targets(view: Row) -> Iterator[tuple[str, str]]:
    """Return where a view may write; where servers do not say it, it is in the statement that made the view."""
    if view.get("target_table"):
        yield str(view["target_database"]), str(view["target_table"])
        return
    named = _WRITES_TO.match(str(view["create_table_query"]))
    if named is not None:
        yield _unquoted(named[3]), _unquoted(named[4])
        return
    for name in (f".inner_id.{view['uuid']}", f".inner.{view['name']}"):
        yield str(view["database"]), name


def _unquoted(name: str) -> str:
    return re.sub(r"\\(.)|`(`)", r"\1\2", name[1:-1]) if name.startswith("`") else name


def _is_empty(client: Client, expression: str, type_name: str) -> bool:
    """Return whether a DEFAULT is an empty array, map or JSON object, which the engine stores for a null there."""
    if not type_name.startswith(("Array", "Map", "JSON")):
        return False
    value = f"CAST({expression} AS {type_name})"
    query = f"SELECT toJSONString({value}) = '{{}}'" if type_name.startswith("JSON") else f"SELECT empty({value})"
    try:
        return bool(single(client, query))
    except Error as error:
        if _may_pass(error):
            raise
        return False


def _may_pass(error: Error) -> bool:
    """Return whether an error says nothing about what was asked, and the question has to come again."""
    return error.code is None or rule_for(error.code).reaction == "retry"
