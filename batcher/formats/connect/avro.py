"""The names of Connect's types in an Avro schema: Confluent's AvroConverter writes them as `connect.name`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from batcher.formats.connect.meaning import Named

_MAX_LEVELS: Final = 64
"""A record may be inside itself. What is deeper than this has no name for us."""

_NAMED: Final = frozenset({"record", "error", "enum", "fixed"})


def names_in(text: str, references: Mapping[str, str]) -> Named:
    """Return the names of the types of a schema, which can be read; those it refers to come first."""
    walk = _Walk()
    for reference in references.values():
        walk.collect(json.loads(reference), "")
    schema = json.loads(text)
    walk.collect(schema, "")
    return walk.named(schema, "", 0)


class _Walk:
    def __init__(self) -> None:
        self._types: dict[str, tuple[dict[str, Any], str]] = {}
        """Types by full name, each with the namespace around it."""

    def collect(self, schema: Any, space: str) -> None:
        """Remember the types that a schema gives names to."""
        if isinstance(schema, list):
            for one in schema:
                self.collect(one, space)
        elif isinstance(schema, dict):
            kind = schema.get("type")
            if kind in _NAMED and isinstance(schema.get("name"), str):
                name, space = _full(schema["name"], schema.get("namespace"), space)
                self._types.setdefault(name, (schema, space))
            for part in (kind, schema.get("items"), schema.get("values")):
                if isinstance(part, (dict, list)):
                    self.collect(part, space)
            for field in schema.get("fields") or ():
                self.collect(field.get("type"), space)

    def named(self, schema: Any, space: str, level: int) -> Named:
        """Return the names of a type and of what is in it."""
        if level > _MAX_LEVELS:
            return Named()
        if isinstance(schema, list):
            branches = [one for one in schema if one != "null"]
            return self.named(branches[0], space, level) if len(branches) == 1 else Named()
        if isinstance(schema, str):
            found = self._types.get(schema if "." in schema or not space else f"{space}.{schema}")
            found = found or self._types.get(schema)
            return Named() if found is None else self._of(found[0], found[1], level)
        return self._of(schema, space, level) if isinstance(schema, dict) else Named()

    def _of(self, schema: dict[str, Any], space: str, level: int) -> Named:
        kind = schema.get("type")
        if isinstance(kind, (dict, list)) or (isinstance(kind, str) and kind not in _PLAIN and kind not in _NAMED):
            return self.named(kind, space, level + 1)
        if isinstance(schema.get("name"), str):
            _, space = _full(schema["name"], schema.get("namespace"), space)
        if kind in ("array", "map"):
            return Named(item=self.named(schema.get("items") or schema.get("values"), space, level + 1))
        name, parameters = schema.get("connect.name"), schema.get("connect.parameters")
        return Named(
            name if isinstance(name, str) else "",
            {str(key): str(value) for key, value in parameters.items()} if isinstance(parameters, dict) else {},
            {
                field["name"]: self.named(field.get("type"), space, level + 1)
                for field in schema.get("fields") or ()
                if isinstance(field.get("name"), str)
            },
        )


_PLAIN: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string", "array", "map"})


def _full(name: str, namespace: Any, space: str) -> tuple[str, str]:
    """Return the full name of a type, and the namespace inside it."""
    if "." in name:
        return name, name.rpartition(".")[0]
    inside = namespace if isinstance(namespace, str) else space
    return (f"{inside}.{name}" if inside else name), inside
