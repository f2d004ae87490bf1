"""JSON columns: which documents the engine would store as something else, and what becomes of them.

Seen with 26.9 (`docs/clickhouse.md` lists it all). What the text shows cheaply is refused: numbers beyond 64 bits,
lists whose items the engine brings to one type, times that do not exist (`json_values`). Only documents that may have
one are parsed, unless a path of the column has a type of its own (`json_paths`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.datatypes.base import TypeDef
from clickhouse_connect.datatypes.registry import parse_name

from sinks.clickhouse.faults import Faults
from sinks.clickhouse.json_paths import Check, put, typed_paths
from sinks.clickhouse.json_values import SUSPECT, JsonNumber, JsonRefusal, bent


@dataclass(frozen=True, slots=True)
class JsonText:
    """Send JSON objects as text, except for those that the column would change. `typed` are paths with a type."""

    typed: Mapping[str, Check] = field(default_factory=dict)
    decoded: pa.DataType = field(default_factory=pa.string)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        objects = pc.match_substring_regex(values, r"^\s*\{")
        faults.add(pc.invert(objects), "type", "is not a JSON object")
        close = objects if self.typed else pc.and_(objects, pc.match_substring_regex(values, SUSPECT))
        sent: dict[int, str] = {}
        for row in pc.indices_nonzero(pc.fill_null(close, False)).to_pylist():
            found = self._looked_at(values[row].as_py())
            if isinstance(found, str):
                sent[row] = found
            else:
                path, refusal = found
                (faults.part(path) if path else faults).extend_into(faults, row, refusal.reason, refusal.message)
        if not self.typed or not sent:
            return values
        return pa.array([sent.get(row, text) for row, text in enumerate(values.to_pylist())], values.type)

    def _looked_at(self, text: str) -> str | tuple[str, JsonRefusal]:
        """Return a document as it is sent, or the path that is refused and why."""
        try:
            document = json.loads(
                text, parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=_no_number, object_pairs_hook=_object
            )
            refused = next(bent(document, apart=self.typed), None) or put(document, self.typed)
            return refused or (_text(document) if self.typed else text)
        except RecursionError:
            return "", JsonRefusal("depth", "is nested too deeply")
        except ValueError as error:
            known = isinstance(error, _RepeatedKey)
            return "", JsonRefusal("duplicate", "has a key twice") if known else JsonRefusal(
                "json", "is not valid JSON"
            )


class _RepeatedKey(ValueError):
    """Say that an object has a key twice."""


def skipped(type_name: str) -> Sequence[str]:
    """Return the paths that a JSON column drops: `SKIP x`, `SKIP REGEXP '…'`."""
    _, _, definition = parse_name(type_name)
    return [str(value) for key, value in zip(definition.keys, definition.values, strict=True) if key == "SKIP"]


def json_text(definition: TypeDef) -> JsonText:
    """Return the codec of a JSON column; raise UnsupportedType for a path whose values cannot be checked."""
    return JsonText(typed_paths(definition))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKey
    return found


def _no_number(word: str) -> None:
    raise ValueError(word)


def _text(value: Any) -> str:
    """Return a document as JSON, numbers as they were written."""
    if isinstance(value, dict):
        return "{" + ",".join([f"{json.dumps(key)}:{_text(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return value if type(value) is JsonNumber else json.dumps(value)
