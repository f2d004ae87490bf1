"""Read the SQL of a transform by DuckDB's own parser, and refuse what cannot stand between a record and its row.

One record makes one row or none, and a replay makes the same one. So there is no FROM, no subquery, no aggregate, no
window, nothing that makes several rows of one, and no function whose result is not made of its arguments alone. What a
function is, DuckDB's catalog says.

It is long because every shape that DuckDB's tree may have is named, as allowed or with the reason why not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import duckdb

from batcher.errors import ConfigurationError
from batcher.transforms.sql.engine import connected

SELECT: Final = "--transform.select"
WHERE: Final = "--transform.where"

Node = Mapping[str, Any]
"""A part of the syntax tree, as `json_serialize_sql` gives it."""

_EXPRESSIONS: Final = frozenset(
    [
        *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION"),
        *("LAMBDA", "OPERATOR", "TYPE"),
    ]
)

_CALLED: Final = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function, which looks at other rows",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "the number of a column",
    "STAR": "a * inside of an expression",
    "DEFAULT": "DEFAULT",
}

_CLAUSES: Final = {
    "ORDER_MODIFIER": "ORDER BY",
    "LIMIT_MODIFIER": "LIMIT",
    "LIMIT_PERCENT_MODIFIER": "LIMIT",
    "DISTINCT_MODIFIER": "DISTINCT",
}


_KINDS: Final = {
    "scalar": "is not the same in each run, and a replay has to make the same row",
    "aggregate": "is an aggregate, and looks at other rows",
    "window": "is a window function, and looks at other rows",
}
_OTHER: Final = "makes several rows, or reads something else than the record"

_UNSTEADY: Final = frozenset({"current_setting", "getvariable", "vector_type"})
"""Functions that some versions call consistent, and that others rightly do not."""

_ARROW: Final = "SINGLE_ARROW"
_TAKING_LAMBDAS: Final = frozenset(
    f"{kind}{name}" for kind in ("list_", "array_", "") for name in ("transform", "apply", "filter", "reduce")
)

_DEEPEST: Final = 8
"""Macros that may be made of each other."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Hold an expression of the select list; `column` is the field that it passes on, None where it computes."""

    name: str
    node: Node
    column: str | None = None


@dataclass(frozen=True, slots=True)
class Star:
    """Hold a `*`: all fields but some, some of them computed anew or under another name."""

    without: frozenset[str] = frozenset()
    replaced: Mapping[str, Node] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """Hold what was read.

    `names` are the fields that expressions name, `values` those of them that without such a field would be a value of
    the session, such as `user`. `dropped` are named to be left out.
    """

    items: tuple[Expression | Star, ...]
    where: Node | None
    names: tuple[str, ...] = ()
    values: frozenset[str] = frozenset()
    dropped: tuple[str, ...] = ()


@dataclass(slots=True)
class _Catalog:
    """Know what the functions of DuckDB are."""

    connection: duckdb.DuckDBPyConnection
    known: dict[str, list[tuple[str, str | None, str | None]]] = field(default_factory=dict)

    def refusal(self, name: str, depth: int = 0) -> str:
        """Return why a function cannot be used; empty where it can."""
        found = self.known.get(name.lower())
        if not found:
            return "is no function that makes one value of its arguments"
        scalar = any(kind == "scalar" for kind, _, _ in found)
        for kind, stability, macro in found:
            reason = _KINDS.get(kind, _OTHER)
            if kind == "macro":
                inner = self._of_macro(macro or "", depth) if depth < _DEEPEST else "too many others"
                reason = inner and f"is made of {inner}"
            elif name.lower() not in _UNSTEADY and (
                (kind == "scalar" and stability == "CONSISTENT") or (reason == _OTHER and scalar)
            ):
                reason = ""
            if reason:
                return reason
        return ""

    def _of_macro(self, text: str, depth: int) -> str:
        node = _parsed(self.connection, f"SELECT {text}")
        if isinstance(node, str):
            return "what cannot be looked into"
        for part in _parts(node):
            if part["class"] == "FUNCTION" and (refusal := self.refusal(part["function_name"], depth + 1)):
                return f"{part['function_name']}(), which {refusal}"
            if part["class"] in _CALLED:
                return _CALLED[part["class"]]
            if part["class"] == "COLUMN_REF" and _is_value(self.connection, part["column_names"][0]):
                return f"{part['column_names'][0]}, which is not the same in each run"
        return ""


def read(select: str | None, where: str | None) -> Query:
    """Return the query of a transform. Raise ConfigurationError, with DuckDB's line for what is no SQL."""
    connection = connected()
    try:
        rows = connection.sql(
            "SELECT function_name, function_type, stability, macro_definition FROM duckdb_functions()"
        ).fetchall()
        catalog = _Catalog(connection)
        for name, *rest in rows:
            catalog.known.setdefault(name.lower(), []).append(tuple(rest))
        items = (Star(),) if select is None else tuple(_items(_list(connection, select), catalog))
        condition = None if where is None else _condition(connection, where)
        if condition is not None:
            _check(condition, WHERE, catalog)
        nodes = [] if condition is None else [condition]
        nodes += [node for item in items for node in _nodes(item)]
        names = tuple(dict.fromkeys(name for node in nodes for name in names_of(node)))
        dropped = [name for item in items if isinstance(item, Star) for name in (*item.without, *item.replaced)]
        values = frozenset(name for name in names if _is_value(connection, name))
        return Query(items, condition, names, values, tuple(dropped))
    finally:
        connection.close()


def text_of(connection: duckdb.DuckDBPyConnection, node: Node, column: Callable[[str], str]) -> str:
    """Return an expression as SQL, in which `column` says what the fields are called."""
    tree = copy.deepcopy(_template())
    plain = _renamed(node, column, frozenset())
    plain["alias"] = ""
    tree["statements"][0]["node"]["select_list"] = [plain]
    text = connection.sql("SELECT json_deserialize_sql(?)", params=[json.dumps(tree)]).fetchall()[0][0]
    return str(text).removeprefix("SELECT ")


def names_of(node: Node) -> Iterator[str]:
    """Yield the fields that an expression names; those of lambdas are their own."""
    yield from _names(node, frozenset())


@cache
def _template() -> Any:
    with connected() as connection:
        return json.loads(connection.sql("SELECT json_serialize_sql('SELECT 1')").fetchall()[0][0])


def _nodes(item: Expression | Star) -> list[Node]:
    return [item.node] if isinstance(item, Expression) else list(item.replaced.values())


def _list(connection: duckdb.DuckDBPyConnection, text: str) -> list[Node]:
    node = _bare(connection, f"SELECT\n{text}\n", SELECT)
    if node["where_clause"] is not None:
        raise ConfigurationError(f"{SELECT}: a condition goes to {WHERE}")
    found: list[Node] = node["select_list"]
    return found


def _condition(connection: duckdb.DuckDBPyConnection, text: str) -> Node:
    node = _bare(connection, f"SELECT 1 WHERE\n{text}\n", WHERE)
    found: Node | None = node["where_clause"]
    if found is None or len(node["select_list"]) != 1:
        raise ConfigurationError(f"{WHERE}: one condition is due")
    return found


def _bare(connection: duckdb.DuckDBPyConnection, query: str, flag: str) -> Node:
    """Return the node of a query of nothing but a select list and a condition."""
    node = _parsed(connection, query)
    if isinstance(node, str):
        raise ConfigurationError(f"{flag}: {node}")
    if node["type"] != "SELECT_NODE" or node["cte_map"]["map"]:
        raise ConfigurationError(f"{flag}: a list of columns or a condition is due, not a whole query")
    if node["from_table"]["type"] != "EMPTY":
        raise ConfigurationError(f"{flag}: FROM cannot be used: the rows are those of the records")
    for modifier in node["modifiers"]:
        raise ConfigurationError(
            f"{flag}: {_CLAUSES.get(modifier['type'], modifier['type'])} cannot be used: each record stands for itself"
        )
    grouped = node["group_expressions"] or node["group_sets"] or node["aggregate_handling"] != "STANDARD_HANDLING"
    if grouped or node["having"] or node["qualify"] or node["sample"]:
        raise ConfigurationError(
            f"{flag}: GROUP BY, HAVING, QUALIFY and SAMPLE cannot be used: each record stands for itself"
        )
    return node


def _parsed(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any] | str:
    """Return the node of a query, or what is wrong with it."""
    tree = json.loads(connection.sql("SELECT json_serialize_sql(?)", params=[query]).fetchall()[0][0])
    if tree["error"]:
        return f"{tree['error_type']} error: {' '.join(str(tree['error_message']).split())}"
    if len(tree["statements"]) != 1:
        return "one list or condition is due, without a semicolon"
    node: dict[str, Any] = tree["statements"][0]["node"]
    _mark_arrows(node)
    return node


def _mark_arrows(node: Any, *, taken: bool = False) -> None:
    """Say of each `->` that it takes a member of JSON, unless a function takes it for a lambda.

    Newer versions say it themselves; `taken` is whether the node is an argument of such a function.
    """
    if isinstance(node, list):
        for value in node:
            _mark_arrows(value, taken=taken)
    if not isinstance(node, dict):
        return
    if node.get("class") == "LAMBDA" and "syntax_type" not in node and not taken:
        node["syntax_type"] = _ARROW
    takes = node.get("class") == "FUNCTION" and node["function_name"].lower() in _TAKING_LAMBDAS
    for key, value in node.items():
        _mark_arrows(value, taken=takes and key == "children")


def _items(nodes: list[Node], catalog: _Catalog) -> Iterator[Expression | Star]:
    for node in nodes:
        if node["class"] == "STAR":
            yield _star(node, catalog)
            continue
        _check(node, SELECT, catalog)
        path = node.get("column_names") if node["class"] == "COLUMN_REF" else None
        name = node["alias"] or (path[-1] if path else "")
        if not name:
            raise ConfigurationError(f"{SELECT}: {text_of(catalog.connection, node, str)} needs a name: … AS name")
        yield Expression(name, node, path[0] if path and len(path) == 1 else None)


def _star(node: Node, catalog: _Catalog) -> Star:
    if node["columns"] or node["expr"] is not None:
        raise ConfigurationError(f"{SELECT}: COLUMNS(…) cannot be used; name the columns")
    if node["relation_name"] or node.get("qualified_exclude_list"):
        raise ConfigurationError(f"{SELECT}: * takes no name before it, and leaves out whole fields only")
    replaced = {one["key"]: one["value"] for one in node["replace_list"]}
    for expression in replaced.values():
        _check(expression, SELECT, catalog)
    renamed = {one["key"]["column"]: one["value"] for one in node.get("rename_list", ())}
    return Star(frozenset(node["exclude_list"]), replaced, renamed)


def _check(node: Node, flag: str, catalog: _Catalog) -> None:
    """Raise ConfigurationError for what cannot be in an expression."""
    for part in _parts(node):
        kind = part["class"]
        if kind not in _EXPRESSIONS or part.get("type") == "GROUPING_FUNCTION":
            what = _CALLED.get(kind, kind.lower().replace("_", " "))
            raise ConfigurationError(f"{flag}: {what} cannot be used: a row is made of its own record alone")
        if kind != "FUNCTION":
            continue
        name = part["function_name"]
        if refusal := catalog.refusal(name):
            raise ConfigurationError(f"{flag}: {name} cannot be used: it {refusal}")
        if part.get("distinct") or part.get("filter") or (part.get("order_bys") or {}).get("orders"):
            raise ConfigurationError(f"{flag}: {name} cannot have DISTINCT, FILTER or ORDER BY: it is no aggregate")
        # The catalog calls it consistent, and with one argument it counts to the day on which it is asked.
        if name.lower() == "age" and len(part.get("arguments", part.get("children", ()))) == 1:
            raise ConfigurationError(f"{flag}: age of one time cannot be used: it counts to today; give both times")


def _parts(node: Any) -> Iterator[Node]:
    """Yield all expressions of a tree."""
    if isinstance(node, dict):
        if "class" in node:
            yield node
        for value in node.values():
            yield from _parts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _parts(value)


def _names(node: Any, own: frozenset[str]) -> Iterator[str]:
    if isinstance(node, list):
        for value in node:
            yield from _names(value, own)
    if not isinstance(node, dict):
        return
    if node.get("class") == "COLUMN_REF":
        if node["column_names"][0] not in own:
            yield node["column_names"][0]
        return
    if _has_parameters(node):
        yield from _names(node["expr"], own | frozenset(_names(node["lhs"], frozenset())))
        return
    for value in node.values():
        yield from _names(value, own)


def _renamed(node: Any, column: Callable[[str], str], own: frozenset[str]) -> Any:
    """Return a copy of a tree with other names for its fields, but not for the parameters of lambdas."""
    if isinstance(node, list):
        return [_renamed(value, column, own) for value in node]
    if not isinstance(node, dict):
        return node
    if node.get("class") == "COLUMN_REF":
        first, *rest = node["column_names"]
        return {**node, "column_names": [first if first in own else column(first), *rest]}
    if _has_parameters(node):
        inner = own | frozenset(_names(node["lhs"], frozenset()))
        return {**node, "expr": _renamed(node["expr"], column, inner)}
    return {key: _renamed(value, column, own) for key, value in node.items()}


def _has_parameters(node: Node) -> bool:
    # `a -> b` is parsed as a lambda too, and is what takes a member of JSON.
    return node.get("class") == "LAMBDA" and node.get("syntax_type") != _ARROW


def _is_value(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    quoted = '"' + name.replace('"', '""') + '"'
    try:
        # Not fetched as Python values: times would need yet another package.
        connection.sql(f"SELECT {quoted}").to_arrow_table()
    except duckdb.Error:
        return False
    return True
