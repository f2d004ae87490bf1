"""A function of the user's own as a transform: `--transform.python module:function`.

The function gets a `pyarrow.RecordBatch` with the fields of the records and the hidden column `_row`, and returns one
with the columns to write and `_row` of the rows that stay. A function with a parameter `coordinates` also gets a batch
that says for each row where it stood. Its columns are found out by calling it with no rows.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.plugins import Registry
from batcher.protocols.transform import ROW, Transformed, TransformFailed, TransformPlan
from batcher.records import COORDINATES
from batcher.transforms.untyped import plan_untyped

FLAG: Final = "--transform.python"

# The whole message is not among them: copying it for each batch costs more than most functions do.
_COORDINATES: Final = tuple(name for name in COORDINATES.names if name != "_value")

_functions: Final[Registry[Any]] = Registry("function", setting="transform.python", group="", built_in={}, methods=())

Function = Callable[..., Any]


def named(reference: str) -> PythonTransform:
    """Return the transform with a function given as `module:function`. Raise ConfigurationError where there is none."""
    if ":" not in reference:
        raise ConfigurationError(f"{FLAG} {reference!r} is not of the form module:function")
    return PythonTransform(_functions.load(reference), f"{FLAG} {reference}")


class PythonTransform:
    """Call a function (`protocols.Transform`). Raise ConfigurationError for one that does not take rows."""

    def __init__(self, function: Function, name: str) -> None:
        self.name = name
        self._function = function
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # some callables written in C have no signature
            parameters = {}  # type: ignore[assignment]
        self._placed = "coordinates" in parameters
        needed = [
            one.name
            for one in parameters.values()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
        if len([one for one in needed if one != "coordinates"]) > 1:
            raise ConfigurationError(
                f"{name}: it is called with rows, and coordinates where it has a parameter of "
                f"that name; it needs {', '.join(needed)}"
            )

    @property
    def coordinates(self) -> Sequence[str]:
        return _COORDINATES if self._placed else ()

    def input(self, target: pa.Schema | None, stated: pa.Schema | None) -> pa.Schema | None:  # noqa: ARG002
        return stated

    def inferred(self, target: pa.Schema | None, found: pa.Schema) -> pa.Schema:  # noqa: ARG002
        return found

    def plan(self, given: pa.Schema) -> TransformPlan:
        return plan_untyped(lambda schema: PythonPlan(self._function, self.name, schema, self.coordinates), given)


class PythonPlan:
    """Call a function with rows of one schema (`protocols.TransformPlan`)."""

    def __init__(self, function: Function, name: str, given: pa.Schema, coordinates: Sequence[str]) -> None:
        self._function = function
        self._name = name
        self._coordinates = coordinates
        fields = [*given, *(COORDINATES.field(one) for one in coordinates), pa.field(ROW, pa.int64(), nullable=False)]
        schema = pa.schema(fields)
        nothing = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in fields], schema=schema)
        try:
            made = self._called(nothing)
        except Exception as error:  # the function is not ours: whatever it raises is its own bug
            if isinstance(error, ConfigurationError):
                raise
            told = " ".join(str(error).split())
            raise ConfigurationError(
                f"{name}: called with no rows of {', '.join(given.names)} it raises {type(error).__name__}: "
                f"{told}{_place(error)}; --decode.schema FILE states which fields there are"
            ) from error
        if ROW not in made.schema.names:
            raise ConfigurationError(f"{name}: its result has to keep the column {ROW}, which tells the rows apart")
        self.output = pa.schema([field for field in made.schema if field.name != ROW])
        if len(set(self.output.names)) < len(self.output):
            raise ConfigurationError(f"{name}: its result has a column twice: {', '.join(self.output.names)}")

    @property
    def proposed(self) -> pa.Schema:
        return self.output

    def apply(self, rows: pa.RecordBatch) -> Transformed:
        try:
            return Transformed(self._called(rows))
        except (ConfigurationError, MemoryError):
            raise
        except Exception as error:
            raise TransformFailed(f"it raises {type(error).__name__}{_place(error)}") from error

    def _called(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if self._coordinates:
            columns = [name for name in rows.schema.names if name not in self._coordinates]
            found = self._function(rows.select(columns), coordinates=rows.select(list(self._coordinates)))
        else:
            found = self._function(rows)
        if isinstance(found, pa.Table):
            found = pa.RecordBatch.from_arrays([_one(column) for column in found.columns], schema=found.schema)
        if not isinstance(found, pa.RecordBatch):
            raise ConfigurationError(f"{self._name}: it returns {type(found).__name__}; a pyarrow.RecordBatch is due")
        return found


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _place(error: Exception) -> str:
    """Name the line that raised, or that called what raised: the last one that is no library's."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.endswith(".py")]
    ours = [one for one in frames if "site-packages" not in one.filename and one.filename != __file__]
    return f" ({Path(ours[-1].filename).name} line {ours[-1].lineno})" if ours and ours[-1].lineno else ""
