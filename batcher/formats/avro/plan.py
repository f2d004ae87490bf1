"""Make the steps that read a schema."""

from __future__ import annotations

from typing import Final

from batcher.formats.avro.lists import ListStep, MapStep
from batcher.formats.avro.nested import AnyStep, OptionalStep, RecordStep, RecursiveStep
from batcher.formats.avro.numbers import MEANINGS, BooleanStep, EnumStep, FloatStep, IntegerStep, NullStep
from batcher.formats.avro.octets import BytesStep, DecimalStep, DurationStep, StringStep, UuidStep
from batcher.formats.avro.schema import MAX_LEVELS, AvroSchemaBroken
from batcher.formats.avro.step import Step
from batcher.formats.avro.types import (
    ArrayType,
    AvroSchema,
    AvroType,
    EnumType,
    FixedType,
    LogicalType,
    MapType,
    PrimitiveType,
    RecordType,
    RecursiveType,
    UnionType,
)
from batcher.formats.whole import FIELD

MAX_STEPS: Final = 10_000
"""Places of a schema, each name written out: a text of 1 KB can stand for 2^50 of them."""


def plan(schema: AvroSchema) -> Step:
    """Return the step that reads records of a schema; raise AvroSchemaBroken when it is too large or too deep."""
    return _Planner(schema).step(schema.root, "" if isinstance(schema.root, RecordType) else FIELD)


class _Planner:
    def __init__(self, schema: AvroSchema) -> None:
        self._named = schema.named
        self._steps = 0
        self._level = 0
        self._recursive: dict[str, tuple[int, list[RecursiveStep]]] = {}
        """The recursive records that are being planned: the level of each, and who waits for its step."""

    def step(self, kind: AvroType, path: str) -> Step:
        self._steps += 1
        self._level += 1
        if self._steps > MAX_STEPS or self._level > MAX_LEVELS:
            limit = f"{MAX_STEPS:,} types" if self._steps > MAX_STEPS else f"{MAX_LEVELS} levels"
            raise AvroSchemaBroken(f"field {path}: with each name written out, the schema has more than {limit}")
        found = self._step(kind, path)
        self._level -= 1
        return found

    def _step(self, kind: AvroType, path: str) -> Step:  # noqa: PLR0911 - one for each kind of type
        match kind:
            case PrimitiveType():
                return _primitive(kind, path)
            case LogicalType():
                return _logical(kind, path)
            case FixedType():
                return BytesStep(path, kind.size)
            case EnumType():
                return EnumStep(path, kind.symbols)
            case RecordType():
                return RecordStep(path, [(one.name, self.step(one.type, inner(path, one.name))) for one in kind.fields])
            case ArrayType():
                return ListStep(path, self.step(kind.items, f"{path}[]"))
            case MapType():
                return MapStep(path, StringStep(f"{path}[]"), self.step(kind.values, f"{path}[]"))
            case UnionType():
                return self._union(kind, path)
            case RecursiveType():
                return self._recursion(kind.name, path)

    def _union(self, kind: UnionType, path: str) -> Step:
        steps = [self.step(branch, path) for branch in kind.branches]
        nulls = [isinstance(step, NullStep) for step in steps]
        if len(steps) == 1:
            return OptionalStep(path, steps[0], count=1)
        if len(steps) == 2 and any(nulls):
            return OptionalStep(path, steps[nulls.index(False)], null_first=nulls[0])
        return AnyStep(path, steps)

    def _recursion(self, name: str, path: str) -> RecursiveStep:
        if name in self._recursive:
            level, waiting = self._recursive[name]
            found = RecursiveStep(path, self._level - level - 1)
            waiting.append(found)
            return found
        outermost = RecursiveStep(path, 1)
        waiting = [outermost]
        self._recursive[name] = self._level, waiting
        target = self.step(self._named[name], path)
        del self._recursive[name]
        for one in waiting:
            one.target = target
        return outermost


def inner(path: str, name: str) -> str:
    """Return the path of a field; the root has the empty path."""
    return f"{path}.{name}" if path else name


def _primitive(kind: PrimitiveType, path: str) -> Step:  # noqa: PLR0911 - one for each kind of type
    match kind.kind:
        case "null":
            return NullStep(path)
        case "boolean":
            return BooleanStep(path)
        case "int":
            return IntegerStep(path, MEANINGS["int"], long=False)
        case "long":
            return IntegerStep(path, MEANINGS["long"], long=True)
        case "float":
            return FloatStep(path, 4)
        case "double":
            return FloatStep(path, 8)
        case "bytes":
            return BytesStep(path)
        case "string":
            return StringStep(path)


def _logical(kind: LogicalType, path: str) -> Step:
    width = kind.base.size if isinstance(kind.base, FixedType) else None
    match kind.kind:
        case "decimal":
            return DecimalStep(path, width, kind.precision, kind.scale)
        case "uuid":
            # Text is kept as it was written, and whether it is a UUID is for the target to say.
            return StringStep(path) if width is None else UuidStep(path)
        case "duration":
            return DurationStep(path)
        case _:
            return IntegerStep(path, MEANINGS[kind.kind], long=kind.base == PrimitiveType("long"))
