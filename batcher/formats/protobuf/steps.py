"""From the columns of the twin to those of the schema: defaults, names of enums, times, maps and JSON text.

The twin (`twin.py`) has every value as it stands in the record, null where the record has none. A step gives one place
of the schema its meaning. Steps work on whole columns; only JSON text and dates look at values one by one, at each
different date once.

It is long because there is a class for each kind of place, and they hold each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from batcher.formats.fault import Faulty, RecordFault, fault_at
from batcher.formats.fit.parts import HeldValues, items_of
from batcher.formats.protobuf import moments
from batcher.formats.protobuf.words import ProtoWords
from batcher.records import RAW_JSON

Unread = dict[str, set[int]]
"""Rows that have a field which the schema does not know, by its path."""

TimeUnit = Literal["us", "ns"]


@dataclass(slots=True)
class ProtoColumn:
    """Hold one column, why rows of it are refused, and what was there that the schema does not know.

    `doubts` are rows that the arbiter has to settle, such as those with several members of a oneof: the last one that
    was written counts, and the twin cannot tell which one that is.
    """

    array: pa.Array
    faults: dict[int, RecordFault] = field(default_factory=dict)
    unread: Unread = field(default_factory=dict)
    doubts: set[int] = field(default_factory=set)

    def note(self, other: ProtoColumn) -> None:
        """Add what was noticed in a part of it."""
        for row, why in other.faults.items():
            self.faults.setdefault(row, why)
        for path, rows in other.unread.items():
            self.unread.setdefault(path, set()).update(rows)
        self.doubts |= other.doubts


class ProtoStep(ABC):
    """Read the values at one place of a schema from a column of the twin.

    `raw`: they are JSON text. `gaps`: one may be null though the record has something there.
    """

    type: pa.DataType
    raw: bool = False
    gaps: bool = False

    @abstractmethod
    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        """Return the values; null where the column is, or with `present` the value of an empty message there."""

    def field(self, name: str, *, nullable: bool) -> pa.Field:
        """Return the column, or part of one, that the values make."""
        return pa.field(name, self.type, nullable=nullable, metadata={RAW_JSON: b"1"} if self.raw else None)


class ScalarStep(ProtoStep):
    """Take numbers, texts and bytes as they are; `default` stands where there is none, unless it is None."""

    def __init__(self, kind: pa.DataType, default: Any) -> None:
        self.type = kind
        self._default = None if default is None else pa.scalar(default, kind)

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        del present
        if column.null_count and self._default is not None:
            column = pc.fill_null(column, self._default)
        return ProtoColumn(column)


class TwinEnumStep(ProtoStep):
    """Turn numbers into names; a number without a name becomes its digits. `default` is a number, or None."""

    type = pa.string()

    def __init__(self, names: Mapping[int, str], default: int | None) -> None:
        self._numbers = pa.array(list(names), pa.int32())
        self._names = pa.array(list(names.values()), pa.string())
        self._default = default

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        del present
        if column.null_count and self._default is not None:
            column = pc.fill_null(column, pa.scalar(self._default, pa.int32()))
        named = self._names.take(pc.index_in(column, value_set=self._numbers))
        if named.null_count > column.null_count:
            named = pc.coalesce(named, column.cast(pa.string()))
        return ProtoColumn(named)


@dataclass(frozen=True, slots=True)
class ProtoMember:
    """Hold one field of a message: its name, and the step with which it is read from the twin's column of its place.

    `fault` refuses records in which the field is not there.
    """

    name: str
    step: ProtoStep
    nullable: bool
    fault: RecordFault | None = None


class MessageStep(ProtoStep):
    """Read the fields of a message. `members` are in the order of the twin's columns.

    `exclusive` are numbers of members of which one at most has a value, `groups` the fields that are not read.
    """

    exclusive: tuple[tuple[int, ...], ...] = ()
    groups: tuple[str, ...] = ()

    def __init__(self, members: Sequence[ProtoMember]) -> None:
        self.members = members
        self.fields = [member.step.field(member.name, nullable=member.nullable) for member in members]
        self.type = pa.struct(self.fields)

    def columns(
        self, children: Sequence[pa.Array], there: pa.BooleanArray | None
    ) -> tuple[list[pa.Array], ProtoColumn]:
        """Return a column for each field, and what was noticed; `there` is where the message itself is not null."""
        noticed = ProtoColumn(None)
        arrays: list[pa.Array] = []
        for member, child in zip(self.members, children, strict=True):
            if member.fault is not None and child.null_count:
                absent = child.is_null() if there is None else pc.and_(child.is_null(), there)
                for row in pc.indices_nonzero(absent).to_pylist():
                    noticed.faults.setdefault(row, member.fault)
            found = member.step.read(child)
            arrays.append(found.array)
            noticed.note(found)
        for group in self.exclusive:
            several = pc.greater(_count([_is_there(children[number]) for number in group]), 1)
            if several.true_count:
                noticed.doubts.update(pc.indices_nonzero(several).to_pylist())
        return arrays, noticed

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        there = None if present or not column.null_count else column.is_valid()
        arrays, noticed = self.columns(column.flatten(), there)
        mask = None if there is None else pc.invert(there)
        noticed.array = pa.StructArray.from_arrays(arrays, fields=self.fields, mask=mask)
        return noticed


class WrapperStep(ProtoStep):
    """Read the value of one of Google's wrappers; null where there is no wrapper."""

    def __init__(self, value: ScalarStep) -> None:
        self._value = value
        self.type = value.type

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        values = self._value.read(column.flatten()[0]).array
        if column.null_count and not present:
            values = pc.if_else(column.is_valid(), values, pa.scalar(None, self.type))
        return ProtoColumn(values)


class MomentStep(ProtoStep):
    """Read messages of numbers that mean one value together, such as seconds and nanoseconds."""

    def __init__(self, path: str, reason: str, what: str) -> None:
        self._fault = fault_at(path, reason, what)

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        there = None if present or not column.null_count else column.is_valid()
        parts = [pc.fill_null(part, 0) if part.null_count else part for part in column.flatten()]
        values, wrong = self.values(*parts)
        faults: dict[int, RecordFault] = {}
        wrong = wrong if there is None else pc.and_(wrong, there)
        if wrong.true_count:
            faults = dict.fromkeys(pc.indices_nonzero(wrong).to_pylist(), self._fault)
        if there is not None:
            values = pc.if_else(there, values, pa.scalar(None, self.type))
        return ProtoColumn(values, faults)

    @abstractmethod
    def values(self, *parts: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
        """Return the values of parts without nulls, and where they mean nothing."""


class TimestampStep(MomentStep):
    """Read times in UTC. `cut` is called with the path where digits are finer than the unit."""

    def __init__(self, path: str, unit: TimeUnit) -> None:
        super().__init__(path, "timestamp", moments.NO_TIMESTAMP)
        self._unit = unit
        self.path = path
        self.type = pa.timestamp(unit, "UTC")
        self.cut = False
        """Some time had digits that the unit cannot hold."""
        self._first, self._last = (
            (moments.FIRST_SECOND, moments.LAST_SECOND) if unit == "us" else (_FIRST_NS_SECOND, _LAST_NS_SECOND)
        )
        if unit == "ns":
            self._fault = fault_at(path, "timestamp", f"{moments.NO_TIMESTAMP}, or none that nanoseconds can reach")

    def values(self, *parts: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
        seconds, nanos = parts
        wrong = pc.or_(
            pc.or_(pc.less(seconds, self._first), pc.greater(seconds, self._last)),
            pc.or_(pc.less(nanos, 0), pc.greater_equal(nanos, moments.NANOS)),
        )
        if wrong.true_count:
            seconds, nanos = (pc.if_else(wrong, pa.scalar(0, part.type), part) for part in (seconds, nanos))
        nanos = nanos.cast(pa.int64())
        if self._unit == "ns":
            return pc.add(pc.multiply(seconds, moments.NANOS), nanos).view(self.type), wrong
        micros = pc.divide(nanos, 1000)
        if not self.cut:
            self.cut = bool(pc.any(pc.not_equal(pc.multiply(micros, 1000), nanos)).as_py())
        return pc.add(pc.multiply(seconds, 1_000_000), micros).view(self.type), wrong


class TwinDurationStep(MomentStep):
    """Read durations in seconds."""

    type = pa.decimal128(21, 9)

    def __init__(self, path: str) -> None:
        super().__init__(path, "duration", moments.NO_DURATION)

    def values(self, *parts: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
        seconds, nanos = parts
        opposite = pc.or_(
            pc.and_(pc.less(seconds, 0), pc.greater(nanos, 0)), pc.and_(pc.greater(seconds, 0), pc.less(nanos, 0))
        )
        wrong = pc.or_(opposite, pc.or_(_beyond(seconds, moments.LONGEST_S), _beyond(nanos, moments.NANOS - 1)))
        if wrong.true_count:
            seconds, nanos = (pc.if_else(wrong, pa.scalar(0, part.type), part) for part in (seconds, nanos))
        whole = seconds.cast(pa.decimal128(19, 0)).cast(pa.decimal128(21, 9))
        fraction = pc.multiply(nanos.cast(pa.decimal128(10, 0)), pa.scalar(_NANO, pa.decimal128(10, 9)))
        return pc.add(whole, fraction).cast(self.type), wrong


class DateStep(MomentStep):
    """Read dates; one of which no part is said is null."""

    type = pa.date32()
    gaps = True

    def __init__(self, path: str) -> None:
        super().__init__(path, "date", moments.NO_DATE)

    def values(self, *parts: pa.Array) -> tuple[pa.Array, pa.BooleanArray]:
        wide = pc.binary_join_element_wise(*(part.cast(pa.string()) for part in parts), "/").dictionary_encode()
        days: list[Any] = []
        bad: list[bool] = []
        for text in wide.dictionary.to_pylist():
            year, month, day = map(int, text.split("/"))
            found = moments.date_of(year, month, day)
            days.append(found)
            bad.append(found is None and bool(year or month or day))
        return pa.array(days, self.type).take(wide.indices), pa.array(bad, pa.bool_()).take(wide.indices)


class TwinTextStep(ProtoStep):
    """Read messages as JSON text; the text null is a null.

    In the twin each is a list of its pieces: more than one where a writer cut it up.
    """

    type = pa.string()
    raw = True
    gaps = True

    def __init__(self, path: str, descriptor: Descriptor, words: ProtoWords, *, whole: bool = False) -> None:
        self._path = path
        self._message = GetMessageClass(descriptor)
        self._words = words
        self._whole = whole
        """The column of the twin has one piece for each value, no list of them."""
        self._broken = fault_at(path, "syntax", f"is not a valid {descriptor.full_name}")
        self._not_utf8 = fault_at(path, "utf8", "a text in it is not UTF-8")

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        found = ProtoColumn(None)
        texts: list[str | None] = []
        for row, held in enumerate(column.to_pylist()):
            octets = held if self._whole else b"".join(held) if held else b"" if present else None
            texts.append(None if octets is None else self._text(row, octets, found))
        found.array = pa.array(texts, self.type)
        return found

    def _text(self, row: int, octets: bytes, found: ProtoColumn) -> str | None:
        unread: set[str] = set()
        try:
            text = self._words.text(self._message.FromString(octets), self._path, unread)
        except DecodeError:
            # The arbiter refuses it too, and says where in it.
            found.faults[row] = self._broken
            found.doubts.add(row)
        except UnicodeDecodeError:
            found.faults[row] = self._not_utf8
        except Faulty as faulty:
            found.faults[row] = faulty.fault
        else:
            for path in unread:
                found.unread.setdefault(path, set()).add(row)
            return None if text == "null" else text
        return None


class TwinListStep(ProtoStep):
    """Read repeated fields."""

    def __init__(self, item: ProtoStep) -> None:
        self.item = item
        self.type = pa.list_(item.field("item", nullable=item.gaps))

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        del present
        held = items_of(column)
        found = self.item.read(held.values)
        return _by_list(held, found, pa.ListArray.from_arrays(held.offsets, found.array, type=self.type))


class TwinMapStep(ProtoStep):
    """Read maps, whose entries are messages of a key and a value in the twin. Keys become text."""

    def __init__(self, key: ScalarStep, value: ProtoStep) -> None:
        self._key = key
        self.value = value
        self.type = pa.map_(pa.field("key", pa.string(), nullable=False), value.field("value", nullable=value.gaps))

    def read(self, column: pa.Array, *, present: bool = False) -> ProtoColumn:
        del present
        held = items_of(column)
        keys, values = held.values.flatten()
        keys = self._key.read(keys).array.cast(pa.string())
        found = self.value.read(values, present=True)
        return _by_list(held, found, pa.MapArray.from_arrays(held.offsets, keys, found.array, type=self.type))


_NANO: Final = Decimal("1e-9")
_FIRST_NS_SECOND: Final = -(2**63) // moments.NANOS + 1
_LAST_NS_SECOND: Final = 2**63 // moments.NANOS - 1


def _beyond(numbers: pa.Array, bound: int) -> pa.BooleanArray:
    return pc.or_(pc.less(numbers, -bound), pc.greater(numbers, bound))


def _by_list(held: HeldValues, found: ProtoColumn, array: pa.Array) -> ProtoColumn:
    """Return a column of lists, what was noticed in items being said of their lists."""
    unread = {path: _lists_of(held, items) for path, items in found.unread.items()}
    return ProtoColumn(array, held.first_of(found.faults), unread, _lists_of(held, found.doubts))


def _lists_of(held: HeldValues, items: set[int]) -> set[int]:
    return set(held.rows.take(pa.array(sorted(items), pa.int64())).to_pylist()) if items else set()


def _is_there(column: pa.Array) -> pa.BooleanArray:
    """Return where a column of the twin has a value; pieces of a text are a list, which is never null."""
    return pc.greater(pc.list_value_length(column), 0) if pa.types.is_list(column.type) else column.is_valid()


def _count(masks: Sequence[pa.BooleanArray]) -> pa.Array:
    counts = pc.fill_null(masks[0], False).cast(pa.int32())
    for mask in masks[1:]:
        counts = pc.add(counts, pc.fill_null(mask, False).cast(pa.int32()))
    return counts
