"""Names of fields that differ from a column's name by case, with `--decode.match insensitive`.

A field that is written exactly like the column wins over others in its object. Of two that are not, neither is certain
to be meant, and the record is refused. Case is that of ASCII letters.

Arrow's reader knows names only as they are written, so a block is read with the spellings that a few messages show.
Messages with any other spelling are *strays* and go to the strict reader, which alone decides.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.formats.json.limits import Refused
from batcher.formats.json.sample import sampled
from batcher.formats.json.shape import inner_path, item_path
from batcher.formats.json.syntax import Pairs, parse_object

Names = Mapping[str, str]
"""How the field of a column is written, by the column's path; missing where it is written like the column."""

_ESCAPED_LETTER: Final = r"\\u00[4-7]"
"""An ASCII letter that was escaped, which is never necessary: it may hide a spelling."""


def folded(name: str) -> str:
    """Return the form that is the same for all spellings of a name."""
    return re.sub("[A-Z]+", lambda found: found[0].lower(), name)


@dataclass(frozen=True, slots=True)
class Spellings:
    """Hold the spellings with which a block can be read, and how to find its strays."""

    names: Names = field(default_factory=dict)
    any_case: str = ""
    as_read: str = ""

    def strays(self, texts: pa.Array) -> pa.BooleanArray:
        """Return for each message whether it may have a column's field in another spelling."""
        every = pc.count_substring_regex(texts, self.any_case)
        read = pc.count_substring_regex(texts, self.as_read)
        return pc.or_(pc.not_equal(every, read), pc.match_substring_regex(texts, _ESCAPED_LETTER))


class Speller:
    """Learn how the fields of a schema are written. Raise ConfigurationError where two columns differ by case only."""

    def __init__(self, schema: pa.Schema, max_depth: int) -> None:
        self._paths = dict(_walk(schema, ""))
        self._max_depth = max_depth

    def learn(self, texts: pa.Array) -> Spellings | None:
        """Return what most of a few messages write; None where one name is written in several ways."""
        votes: dict[str, Counter[str]] = {path: Counter() for path in self._paths}
        for row in sampled(texts):
            try:
                self._vote(parse_object(texts[row].as_py(), self._max_depth), "", votes)
            except Refused:
                continue
        names = {path: votes[path].most_common(1)[0][0] if votes[path] else name for path, name in self._paths.items()}
        spelled: dict[str, str] = {}
        for name in names.values():
            if spelled.setdefault(folded(name), name) != name:
                return None
        changed = {path: name for path, name in names.items() if name != self._paths[path]}
        return Spellings(changed, f"(?i){_keys(spelled)}", _keys(spelled.values()))

    def _vote(self, value: Any, path: str, votes: dict[str, Counter[str]]) -> None:
        if type(value) is list:
            for item in value:
                self._vote(item, item_path(path), votes)
        elif type(value) is Pairs:
            for key, item in value.items:
                column = self._column(path, key)
                if column is not None:
                    votes[column][key] += 1
                    self._vote(item, column, votes)

    def _column(self, path: str, key: str) -> str | None:
        if inner_path(path, key) in self._paths:
            return inner_path(path, key)
        wanted = folded(key)
        for column, name in self._paths.items():
            if folded(name) == wanted and inner_path(path, name) == column:
                return column
        return None


def refuse_twins(names: Iterable[str], path: str) -> None:
    """Raise ConfigurationError where two columns have names that differ by case only."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folded(name), name)
        if other != name:
            raise ConfigurationError(
                f"--decode.match insensitive: columns {inner_path(path, other)} and {inner_path(path, name)} differ by "
                "case only; rename one, or match exactly"
            )


def _walk(fields: Iterable[pa.Field], path: str) -> Iterator[tuple[str, str]]:
    fields = list(fields)
    refuse_twins([one.name for one in fields], path)
    for one in fields:
        inner, kind = inner_path(path, one.name), one.type
        yield inner, one.name
        while pa.types.is_list(kind):
            inner, kind = item_path(inner), kind.value_type
        if pa.types.is_struct(kind):
            yield from _walk(kind, inner)


def _keys(names: Iterable[str]) -> str:
    # As they are in a message: between quotes, in front of a colon.
    return '"(?:' + "|".join(re.escape(json.dumps(name, ensure_ascii=False)[1:-1]) for name in names) + r')"\s*:'
