"""Steps for what holds other values: records, unions with null, and JSON text for what has no column of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from batcher.formats.avro.cursors import Cursors, Ints, Single
from batcher.formats.avro.step import Step
from batcher.formats.avro.words import json_string
from batcher.formats.fault import Faulty
from batcher.records import RAW_JSON

MAX_DEPTH: Final = 200
"""Levels of records, lists, maps and unions that a recursive value may have. Each takes two Python calls at most."""


class RecordStep(Step):
    """Read fields, one after the other."""

    def __init__(self, path: str, fields: Sequence[tuple[str, Step]]) -> None:
        super().__init__(path)
        self._steps = [step for _, step in fields]
        self.fields = [step.field(name) for name, step in fields]
        self.type = pa.struct(self.fields)
        self._keys = [json_string(name) for name, _ in fields]
        widths = [step.width for step in self._steps]
        self.least = sum(step.least for step in self._steps)
        self.width = None if None in widths else self.least

    def columns(self, cursors: Cursors) -> list[pa.Array]:
        """Return a column for each field, and move the cursors past them."""
        return [step.read(cursors) for step in self._steps]

    def read(self, cursors: Cursors) -> pa.Array:
        if not self._steps:
            return pa.Array.from_buffers(self.type, len(cursors), [None])
        return pa.StructArray.from_arrays(self.columns(cursors), fields=self.fields)

    def skip(self, cursors: Cursors) -> None:
        for step in self._steps:
            step.skip(cursors)

    def skip_one(self, single: Single) -> None:
        for step in self._steps:
            step.skip_one(single)

    def text(self, single: Single) -> str:
        parts = [f"{key}:{step.text(single)}" for key, step in zip(self._keys, self._steps, strict=True)]
        return "{" + ",".join(parts) + "}"


class UnionStep(Step):
    """Read the number of a branch, of which there are `count`."""

    def __init__(self, path: str, count: int) -> None:
        super().__init__(path)
        self._count = count
        self._unknown = self.faults.of("syntax", "there is no such branch of the union")

    def _branches(self, cursors: Cursors) -> Ints:
        branches = cursors.numbers(self.faults)
        if len(branches) and (branches.min() < 0 or branches.max() >= self._count):
            unknown = (branches < 0) | (branches >= self._count)
            cursors.refuse(unknown, self._unknown)
            branches[unknown] = 0
        return branches

    def _branch(self, single: Single) -> int:
        branch = single.number(self.faults)
        if not 0 <= branch < self._count:
            raise Faulty(self._unknown)
        return branch


class OptionalStep(UnionStep):
    """Read a union of one type and null, whose branches are in this order or, with `null_first`, in the other.

    With a `count` of 1 there is no null.
    """

    def __init__(self, path: str, value: Step, *, count: int = 2, null_first: bool = False) -> None:
        super().__init__(path, count)
        self._value = value
        self._some = 1 if null_first else 0
        self.nullable = count > 1 or value.nullable
        self.type = value.type

    def read(self, cursors: Cursors) -> pa.Array:
        present = self._branches(cursors) == self._some
        if present.all():
            return self._value.read(cursors)
        which = np.flatnonzero(present)
        if not len(which):
            return pa.nulls(len(cursors), self.type)
        found = cursors.take(which)
        values = self._value.read(found)
        cursors.at[which] = found.at
        return values.take(pa.array(np.cumsum(present) - 1, mask=~present))

    def skip(self, cursors: Cursors) -> None:
        which = np.flatnonzero(self._branches(cursors) == self._some)
        found = cursors.take(which)
        self._value.skip(found)
        cursors.at[which] = found.at

    def skip_one(self, single: Single) -> None:
        if self._branch(single) == self._some:
            self._value.skip_one(single)

    def text(self, single: Single) -> str:
        return self._value.text(single) if self._branch(single) == self._some else "null"

    def field(self, name: str) -> pa.Field:
        return self._value.field(name).with_nullable(self.nullable)


class TextStep(Step):
    """Read values one by one as JSON text; the text null is a null."""

    type = pa.string()

    def read(self, cursors: Cursors) -> pa.Array:
        texts: list[str | None] = [None] * len(cursors)

        def read_one(which: int, single: Single) -> None:
            text = self.text(single)
            texts[which] = None if text == "null" else text

        _one_by_one(cursors, read_one)
        # A place that is refused has no value, and a column without nulls needs one.
        return pa.array([text if text or self.nullable else "" for text in texts], self.type)

    def skip(self, cursors: Cursors) -> None:
        _one_by_one(cursors, lambda _, single: self.skip_one(single))

    def field(self, name: str) -> pa.Field:
        return super().field(name).with_metadata({RAW_JSON: b"1"})


class AnyStep(TextStep, UnionStep):
    """Read a union of several types, whichever of them a value has; which one it was is not told."""

    def __init__(self, path: str, branches: Sequence[Step]) -> None:
        super().__init__(path, len(branches))
        self._steps = branches
        self.nullable = any(step.nullable for step in branches)

    def skip_one(self, single: Single) -> None:
        self._steps[self._branch(single)].skip_one(single)

    def text(self, single: Single) -> str:
        return self._steps[self._branch(single)].text(single)


class RecursiveStep(TextStep):
    """Read a record inside itself. `target`, the step of the record, is given once it is there.

    `levels` is how many records, lists, maps and unions inside each other are passed from the record to this place.
    """

    target: Step

    def __init__(self, path: str, levels: int) -> None:
        super().__init__(path)
        self._levels = levels
        self._deep = self.faults.of("too_deep", f"the value is nested deeper than {MAX_DEPTH} levels")

    def skip_one(self, single: Single) -> None:
        self._enter(single)
        self.target.skip_one(single)
        single.depth -= self._levels

    def text(self, single: Single) -> str:
        self._enter(single)
        text = self.target.text(single)
        single.depth -= self._levels
        return text

    def _enter(self, single: Single) -> None:
        single.depth += self._levels
        if single.depth > MAX_DEPTH:
            raise Faulty(self._deep)


def _one_by_one(cursors: Cursors, move: Callable[[int, Single], None]) -> None:
    """Move cursors on their own; refuse the records of those that cannot."""
    starts, ends, rows = cursors.at.tolist(), cursors.ends.tolist(), cursors.rows.tolist()
    for which, (start, end, row) in enumerate(zip(starts, ends, rows, strict=True)):
        single = Single(cursors.piece, start, end, row)
        try:
            move(which, single)
        except Faulty as faulty:
            cursors.refuse(np.array([which]), faulty.fault)
        else:
            cursors.at[which] = single.at
