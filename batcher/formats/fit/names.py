"""Which field of a writer fills which column.

The field that is written exactly like the column comes first, then, with `--decode.match insensitive`, one that differs
in the case of ASCII letters, then one that is an alias of the column, in the order in which the aliases are given. Two
fields that differ from the column by case only, with none written like it, are both meant: nobody can tell which one is
right. A field that fills a column by its own name is no other column's alias.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from batcher.formats.json.per_column import plain
from batcher.formats.json.shape import inner_path
from batcher.formats.json.spelling import folded

Aliases = Mapping[str, Sequence[str]]
"""Other names that a writer may have for a column, by the column's path (`a.b`, without the marks of lists)."""


def sources_of(
    columns: Sequence[str], fields: Sequence[str], path: str, aliases: Aliases, *, insensitive: bool
) -> list[list[int]]:
    """Return for each column the numbers of the fields that fill it: none, one, or several that contradict."""
    found = [_spelled(name, columns, fields, insensitive=insensitive) for name in columns]
    used = {number for numbers in found for number in numbers}
    for numbers, name in zip(found, columns, strict=True):
        if not numbers:
            named = (fields.index(other) for other in aliases.get(plain(inner_path(path, name)), ()) if other in fields)
            alias = next((number for number in named if number not in used), None)
            if alias is not None:
                numbers.append(alias)
                used.add(alias)
    return found


def _spelled(name: str, columns: Iterable[str], fields: Sequence[str], *, insensitive: bool) -> list[int]:
    exact = [number for number, field in enumerate(fields) if field == name]
    if exact or not insensitive:
        return exact
    return [number for number, field in enumerate(fields) if folded(field) == folded(name) and field not in columns]
