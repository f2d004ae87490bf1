"""Select lists and conditions as plans: which fields pass unchanged, and what DuckDB has to compute.

A field that passes unchanged never goes through DuckDB: its column is taken by `_row`, in the type that it has. Its
type is that of the column it goes to, where the target says it. DuckDB gets the fields that expressions name, and gives
back what they are, with `_row`.
"""

# ruff: noqa: S608 - the parts of the queries were parsed, checked and written anew by DuckDB.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from batcher.core.fields import nearest
from batcher.errors import ConfigurationError
from batcher.formats.json.spelling import folded
from batcher.growth import has_untyped
from batcher.protocols.transform import ROW, Transformed, TransformFailed, TransformPlan
from batcher.records import COORDINATES, Rejection
from batcher.transforms.search import REASON
from batcher.transforms.sql.engine import connected, first_line, require_row
from batcher.transforms.sql.results import result_column, result_field
from batcher.transforms.sql.syntax import SELECT, WHERE, Expression, Node, Query, Star, read, text_of
from batcher.transforms.untyped import plan_untyped

log = structlog.get_logger(__name__)

_TABLE: Final = "given"
_LISTED: Final = 20


class SqlTransform:
    """Evaluate SQL (`protocols.Transform`). Raise ConfigurationError for SQL that cannot stand here."""

    def __init__(
        self, select: str | None, where: str | None, *, match: Literal["exact", "insensitive"] = "exact"
    ) -> None:
        self.name = " and ".join([*([SELECT] if select is not None else []), *([WHERE] if where is not None else [])])
        self._query = read(select, where)
        self._match = match
        self._missed: set[str] = set()
        spelled = {folded(name) for name in self._query.names}
        self.coordinates: Sequence[str] = tuple(name for name in COORDINATES.names if name in spelled)

    def input(self, target: pa.Schema | None, stated: pa.Schema | None) -> pa.Schema | None:  # noqa: ARG002
        return stated

    def inferred(self, target: pa.Schema | None, found: pa.Schema) -> pa.Schema:
        complete = self._completed(found)
        return complete if target is None else self._hinted(target, complete)

    def plan(self, given: pa.Schema) -> TransformPlan:
        return plan_untyped(lambda schema: SqlPlan(self._query, self.name, schema, self.coordinates), given)

    def _completed(self, found: pa.Schema) -> pa.Schema:
        """Return the fields with those that are named and were in no record of the first batch.

        They are null, as they are in a later batch without them. Raise ConfigurationError where none of those that are
        named was there.
        """
        named = [name for name in self._query.names if folded(name) not in self.coordinates]
        missing = [name for name in named if _found(name, found.names) is None]
        for name in missing:
            if name in self._query.values:
                raise ConfigurationError(
                    f"{self.name}: {name} is no field of the records, and as a value of the session it is not the same "
                    "in each run"
                )
        if missing and len(missing) == len(named):
            raise ConfigurationError(f"{self.name}: {_no_field(missing[0], found.names)}")
        for name in missing:
            if name not in self._missed:
                self._missed.add(name)
                log.warning(
                    "transform_field_missing",
                    transform=self.name,
                    field=name,
                    hint=f"{_no_field(name, found.names)}; it counts as null until a record has it",
                )
        dropped = [name for name in self._query.dropped if _found(name, [*found.names, *missing]) is None]
        return pa.schema([*found, *(pa.field(name, pa.null()) for name in dict.fromkeys([*missing, *dropped]))])

    def _hinted(self, target: pa.Schema, found: pa.Schema) -> pa.Schema:
        """Return the fields with the types of the columns to which they pass unchanged."""
        insensitive = self._match == "insensitive"
        columns = {folded(one.name) if insensitive else one.name: one for one in target}
        goals: dict[str, list[pa.Field | None]] = {}
        for output in _outputs(self._query, found.names):
            if output.column is not None:
                name = folded(output.name) if insensitive else output.name
                goals.setdefault(output.column, []).append(columns.get(name))
        return pa.schema([_typed(field, goals.get(field.name, [])) for field in found])


@dataclass(frozen=True, slots=True)
class Output:
    """Hold a column of the result: a field that passes, or an expression."""

    name: str
    column: str | None = None
    node: Node | None = None


class SqlPlan:
    """Evaluate a query for rows of one schema (`protocols.TransformPlan`). Has a connection of its own."""

    def __init__(self, query: Query, name: str, given: pa.Schema, coordinates: Sequence[str]) -> None:
        self._name = name
        fields = [*given, *(COORDINATES.field(one) for one in coordinates)]
        names = [field.name for field in fields]
        outputs = list(_outputs(query, given.names, names))
        twice = next((one for n, one in enumerate(outputs) if one.name in {other.name for other in outputs[:n]}), None)
        if twice is not None:
            raise ConfigurationError(f"{SELECT}: the column {twice.name} is there twice")
        if not outputs:
            raise ConfigurationError(f"{SELECT}: leaves no column")
        self._outputs = outputs
        self._connection = connected()
        self._used: dict[str, str] = {}
        """The fields that DuckDB gets, and what they are called there."""

        def column(field: str) -> str:
            known = _found(field, names)
            if known is None:
                raise ConfigurationError(f"{name}: {_no_field(field, names)}")
            return self._used.setdefault(known, f"_in{len(self._used)}")

        self._computed = [
            (one.name, text_of(self._connection, one.node, column)) for one in outputs if one.node is not None
        ]
        self._where = None if query.where is None else text_of(self._connection, query.where, column)
        made = {field.name: field for field in self._compiled(pa.schema(fields))}
        by_name = {field.name: field for field in fields}
        self.output = pa.schema(
            [made[one.name] if one.column is None else by_name[one.column].with_name(one.name) for one in outputs]
        )

    @property
    def proposed(self) -> pa.Schema:
        return self.output

    def apply(self, rows: pa.RecordBatch) -> Transformed:
        try:
            return Transformed(self._made(rows))
        except duckdb.Error as error:
            require_row(error, self._name)
            bad = self._bad(rows)
            if not bad:
                raise TransformFailed(f"it raises {type(error).__name__}") from error
            clean = rows.filter(pc.invert(pc.is_in(rows.column(ROW), value_set=pa.array(list(bad), pa.int64()))))
            try:
                return Transformed(self._made(clean), [self._refused(row, at) for row, at in bad.items()])
            except duckdb.Error as other:
                require_row(other, self._name)
                raise TransformFailed(f"it raises {type(other).__name__}") from other

    def _made(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the result for some rows. Raise what DuckDB raises."""
        if not self._computed and self._where is None:
            numbers, computed = rows.column(ROW), {}
        else:
            table = self._asked(self._text(), rows)
            numbers = _one(table.column(0))
            computed = {name: _one(table.column(n + 1)) for n, (name, _) in enumerate(self._computed)}
        places = _places(numbers, rows)
        columns = []
        for one, field in zip(self._outputs, self.output, strict=True):
            if one.column is None:
                columns.append(result_column(computed[one.name], field.type))
            else:
                column = rows.column(one.column)
                columns.append(column if places is None else column.take(places))
        schema = self.output.append(pa.field(ROW, pa.int64()))
        return pa.RecordBatch.from_arrays([*columns, numbers], schema=schema)

    def _text(self) -> str:
        columns = [ROW, *(f"({text})" for _, text in self._computed)]
        numbered = ", ".join(f"{text} AS _out{n}" for n, text in enumerate(columns))
        return f"SELECT {numbered} FROM {_TABLE}" + ("" if self._where is None else f" WHERE ({self._where})")

    def _asked(self, query: str, rows: pa.RecordBatch) -> pa.Table:
        given = pa.RecordBatch.from_arrays(
            [*(rows.column(field) for field in self._used), rows.column(ROW)], names=[*self._used.values(), ROW]
        )
        self._connection.register(_TABLE, given)
        try:
            return self._connection.sql(query).to_arrow_table()
        finally:
            self._connection.unregister(_TABLE)

    def _compiled(self, schema: pa.Schema) -> list[pa.Field]:
        """Return the computed columns. Raise ConfigurationError, with DuckDB's line."""
        fields = [*schema, pa.field(ROW, pa.int64())]
        nothing = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in fields], schema=pa.schema(fields))
        parts = [(WHERE, f"SELECT {ROW} FROM {_TABLE} WHERE ({self._where})")] if self._where is not None else []
        parts += [(f"{SELECT}: column {name}", f"SELECT {text} FROM {_TABLE}") for name, text in self._computed]
        made: list[pa.Field] = []
        for what, query in parts:
            try:
                found = self._asked(query, nothing).schema.field(0)
            except duckdb.Error as error:
                raise ConfigurationError(f"{what}: {self._told(error)}") from error
            if what != WHERE:
                made.append(found)
        return [result_field(name, field) for (name, _), field in zip(self._computed, made, strict=True)]

    def _told(self, error: duckdb.Error) -> str:
        """Return DuckDB's line with the names that the user gave."""
        told = first_line(error)
        for field, inner in sorted(self._used.items(), key=lambda one: -len(one[1])):
            told = told.replace(inner, field)
        return told

    def _bad(self, rows: pa.RecordBatch) -> dict[int, int]:
        """Return the rows that fail, each with the number of its first expression that does; -1 is the condition."""
        cases = []
        if self._where is not None:
            cases.append(f"WHEN TRY(({self._where}) IS NULL) IS NULL THEN -1")
            cases.append(f"WHEN NOT coalesce(TRY(CAST(({self._where}) AS BOOLEAN)), false) THEN NULL")
        # Where an expression does not fail, being null or not is what it says of itself.
        cases += [f"WHEN TRY(({text}) IS NULL) IS NULL THEN {n}" for n, (_, text) in enumerate(self._computed)]
        query = f"SELECT {ROW}, CASE {' '.join(cases)} END AS _failed FROM {_TABLE}"
        try:
            found = self._asked(f"SELECT * FROM ({query}) WHERE _failed IS NOT NULL ORDER BY {ROW}", rows)
        except duckdb.Error as error:
            require_row(error, self._name)
            return {}
        return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True))

    def _refused(self, row: int, at: int) -> Rejection:
        if at < 0:
            return Rejection(row, REASON, f"{WHERE} fails for the record; TRY(…) around it filters such records")
        name = self._computed[at][0]
        message = f"field {name}: its expression in {SELECT} fails for the record; TRY(…) around it makes it null"
        return Rejection(row, REASON, message, name)


def _outputs(query: Query, fields: Sequence[str], names: Sequence[str] = ()) -> Iterable[Output]:
    """Yield the columns of the result; `fields` are those of the records, `names` have the coordinates as well.

    What the list makes by itself takes the place of a field of its name that a `*` would pass.
    """
    own = {_name_of(item, names or fields) for item in query.items if isinstance(item, Expression)}
    for item in query.items:
        if isinstance(item, Expression):
            column = None if item.column is None else _found(item.column, names or fields)
            if item.column is not None and column is None and names:
                raise ConfigurationError(f"{SELECT}: {_no_field(item.column, names)}")
            yield Output(_name_of(item, names or fields), column, item.node if column is None else None)
        else:
            yield from (one for one in _expanded(item, fields) if one.name not in own)


def _name_of(item: Expression, names: Sequence[str]) -> str:
    """Return the name of a column: the alias, or that of the field as the records write it."""
    same = item.column is not None and item.name == item.column
    return (_found(item.name, names) if same else None) or item.name


def _expanded(star: Star, fields: Sequence[str]) -> Iterable[Output]:
    without = {_found(name, fields) for name in star.without}
    replaced = {_found(name, fields): node for name, node in star.replaced.items()}
    renamed = {_found(name, fields): other for name, other in star.renamed.items()}
    for name in fields:
        if name in without:
            continue
        if name in replaced:
            yield Output(renamed.get(name, name), node=replaced[name])
        else:
            yield Output(renamed.get(name, name), name)


def _found(name: str, names: Iterable[str]) -> str | None:
    """Return the field that a name in SQL means: the one written like it, else the only one that differs by case."""
    names = list(names)
    if name in names:
        return name
    alike = [other for other in names if folded(other) == folded(name)]
    if len(alike) > 1:
        raise ConfigurationError(f"{SELECT}: {name} may be {' or '.join(alike)}; write it as one of them, in quotes")
    return alike[0] if alike else None


def _no_field(name: str, names: Sequence[str]) -> str:
    close = nearest(name, names)
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return f"no record has a field {name}{f', did you mean {close}?' if close else ''}; there are {listed or 'none'}"


def _typed(field: pa.Field, goals: Sequence[pa.Field | None]) -> pa.Field:
    """Return a field in the type of the columns it passes to, if it is one type."""
    first = goals[0] if goals else None
    if first is None or has_untyped(first.type):
        return field
    if any(one is None or not one.equals(first.with_name(one.name), check_metadata=True) for one in goals):
        return field
    # A row that is filtered may lack what the target needs; those that stay are looked at again behind the transform.
    return first.with_name(field.name).with_nullable(True)


def _places(numbers: pa.Int64Array, rows: pa.RecordBatch) -> pa.Int64Array | None:
    """Return which of the given rows the numbers are; None where they are all, in order."""
    given = rows.column(ROW)
    if len(numbers) == len(given) and numbers.equals(given):
        return None
    count = len(given)
    if count and given[count - 1].as_py() - given[0].as_py() == count - 1:
        return pc.subtract(numbers, given[0])
    return pc.index_in(numbers, value_set=given)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
