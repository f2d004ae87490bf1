"""Which columns of JSON kept as text are read as whole numbers, without being rewritten before.

A number in JSON is kept as it is written, and whole numbers have one spelling, but for zero. So where a column holds
JSON of any kind because one record in a thousand has a text there, the others are read as fast as any number. What a
look at a few messages tells changes the speed, never a result: what is no such number is read in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa

from batcher.formats.json.sample import parsed_sample
from batcher.formats.json.shape import inner_path, is_raw, paths_of
from batcher.formats.json.syntax import NumberText, Pairs

_MOST: Final = 0.75
"""The share of values that have to be whole numbers."""

_WHOLE: Final = re.compile(r"-?[1-9][0-9]{0,17}")
"""Zero has two spellings, so each would have to be looked at."""

_TOO_MANY: Final = 16
"""With one value in so many that is no such number, the others are rewritten as well: it takes as long."""


class KeptNumbers:
    """Know the columns, by path, that are read as whole numbers; none until a block was looked at."""

    def __init__(self, schema: pa.Schema) -> None:
        self._candidates = frozenset(paths_of(schema, is_raw))
        self._looked = not self._candidates
        self._too_many = False
        self.paths: frozenset[str] = frozenset()

    def look(self, texts: pa.Array) -> None:
        """Decide by some of the messages of the first block; later, by what was met. To be called before a block."""
        if self._too_many:
            self.paths = frozenset()
        if self._looked or not len(texts):
            return
        self._looked = True
        whole, other = dict.fromkeys(self._candidates, 0), dict.fromkeys(self._candidates, 0)
        for message in parsed_sample(texts):
            self._count(message, "", whole, other)
        self.paths = frozenset(path for path, count in whole.items() if count > _MOST * (count + other[path]))

    def met(self, others: int, count: int) -> None:
        """Learn how many of some messages did not fit; with too many, all are read as JSON from the next block on."""
        self._too_many |= others * _TOO_MANY > count

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Read all of them as JSON while in the `with` block."""
        paths, self.paths = self.paths, frozenset()
        try:
            yield
        finally:
            self.paths = paths

    def _count(self, message: Pairs, path: str, whole: dict[str, int], other: dict[str, int]) -> None:
        for key, value in message.items:
            inner = inner_path(path, key)
            if inner in whole:
                if value is not None:
                    fits = type(value) is NumberText and _WHOLE.fullmatch(value) is not None
                    (whole if fits else other)[inner] += 1
            elif type(value) is Pairs:
                self._count(value, inner, whole, other)
