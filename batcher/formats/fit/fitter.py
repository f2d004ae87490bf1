"""Fit whole tables: names, structs, lists and maps, what may be null, and what no column takes.

It is long because a struct, a list and a map are fitted by each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.fit.json_text import json_text
from batcher.formats.fit.names import Aliases, sources_of
from batcher.formats.fit.parts import HeldValues, entries_of, items_of, repeated_keys
from batcher.formats.fit.places import Faults, Place, is_list, mask_of, true_rows
from batcher.formats.fit.rest import list_of, map_of, names_in_json, object_of
from batcher.formats.fit.scalars import Remarks, fitting, never
from batcher.formats.fit.source import plain_column, plain_type
from batcher.formats.fit.targets import validate
from batcher.formats.json.emptiness import empty_lists
from batcher.formats.json.limits import JsonOptions, Refused, shown
from batcher.formats.json.per_column import holds_text, per_column, plain
from batcher.formats.json.shape import inner_path, is_raw, item_path
from batcher.formats.json.spelling import refuse_twins
from batcher.formats.json.times import Times
from batcher.formats.writer_schema import SchemaKey
from batcher.growth import has_untyped
from batcher.records import RESCUED, Rejection, UnknownField

_NEEDED: Final = "the column needs a value (it is not nullable)"


@dataclass(frozen=True, slots=True)
class Fitted:
    """Hold a fitted table: each row of the given one is in `rows` or in `rejections`.

    `table` has exactly the target's schema and a row for each entry of `rows` (ascending int64). The positions of
    `rejections` (ascending) and `unknown` are rows of the given table too. `unknown`, `outgrown` and `notes` are those
    of `records.Decoded`; counts are exact.
    """

    table: pa.Table
    rows: pa.Int64Array
    rejections: tuple[Rejection, ...] = ()
    unknown: tuple[UnknownField, ...] = ()
    outgrown: bool = False
    notes: tuple[str, ...] = ()


class _Mark(NamedTuple):
    """Name something to be counted in the rows that fit: a field that no column takes, or a column without a type."""

    path: str
    untyped: bool = False


Marks = dict[_Mark, pa.BooleanArray]
"""The rows that have a value in it."""


@dataclass(slots=True)
class _Piece:
    """Hold one fitted column, and what was noticed."""

    array: pa.Array
    faults: Faults = field(default_factory=dict)
    marks: Marks = field(default_factory=dict)
    rest: pa.StringArray | None = None
    """What no column takes inside of the values, as JSON, where it is to be kept; null for nothing."""


_Plan = Callable[[pa.Array], _Piece]
"""Fit a column, which may have nulls. Nothing is said of a null."""


@dataclass(frozen=True, slots=True)
class _Context:
    """Hold what is the same for all columns of a target."""

    key: SchemaKey | str
    options: JsonOptions
    aliases: Aliases
    texts: frozenset[str]
    remarks: Remarks
    rescues: bool
    """What no column takes is kept as JSON."""


def fit(
    table: pa.Table,
    target: pa.Schema,
    *,
    key: SchemaKey | str,
    options: JsonOptions = JsonOptions(),  # noqa: B008 - frozen
    aliases: Aliases = MappingProxyType({}),
) -> Fitted:
    """Fit one table (see `Fitter`)."""
    return Fitter(table.schema, target, key=key, options=options, aliases=aliases).fit(table)


class Fitter:
    """Fit tables of one writer to one target. Not for several threads at once.

    `key` names the writer in messages. Of the options `on_unknown`, `match`, `text` and `epoch` are used. `aliases` are
    other names of a column's field.
    Raise ConfigurationError for a target that nothing can fill, and for options that name no column.
    """

    def __init__(
        self,
        writer: pa.Schema,
        target: pa.Schema,
        *,
        key: SchemaKey | str,
        options: JsonOptions = JsonOptions(),  # noqa: B008 - frozen
        aliases: Aliases = MappingProxyType({}),
    ) -> None:
        validate(target)
        self._whole = target
        rescues = options.on_unknown == "rescue" and RESCUED.name in target.names
        if rescues:
            target = target.remove(target.get_field_index(RESCUED.name))
        chosen = per_column(target, options)
        self._target = target
        self._rescues = rescues
        self._untyped = has_untyped(target)
        self._remarks = Remarks(Times(chosen.epochs))
        context = _Context(key, options, aliases, chosen.texts, self._remarks, rescues)
        self._members = _Members(list(writer), list(target), "", context)

    def fit(self, table: pa.Table) -> Fitted:
        """Return the rows that fit, and why the others do not. What becomes of a row never depends on others.

        The table has the writer's schema. Never raises because of a value.
        """
        count = table.num_rows
        arrays, faults, marks, rest = self._members.fit([_one(column) for column in table.columns], None, count)
        rows = pa.arange(0, count)
        fitted = pa.Table.from_arrays(arrays, schema=self._target)
        if self._rescues:
            field = self._whole.field(RESCUED.name)
            kept = pa.nulls(count, field.type) if rest is None else rest.cast(field.type)
            fitted = fitted.add_column(self._whole.get_field_index(field.name), field, kept)
        keep = None
        if faults:
            keep = pc.invert(mask_of(list(faults), count))
            fitted, rows = fitted.filter(keep).combine_chunks(), rows.filter(keep)
        unknown, outgrown = _counted(marks, keep)
        return Fitted(
            fitted,
            rows,
            tuple(Rejection(row, why.reason, why.message, why.path) for row, why in sorted(faults.items())),
            unknown,
            outgrown,
            (*self._remarks.collect(), *(empty_lists(fitted) if self._untyped else ())),
        )


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _counted(marks: Marks, keep: pa.BooleanArray | None) -> tuple[tuple[UnknownField, ...], bool]:
    unknown: list[UnknownField] = []
    outgrown = False
    for mark, mask in marks.items():
        seen = mask if keep is None else pc.and_(mask, keep)
        if not seen.true_count:
            continue
        if mark.untyped:
            outgrown = True
        else:
            unknown.append(UnknownField(mark.path, seen.true_count, pc.index(seen, True).as_py()))
    return tuple(unknown), outgrown


@dataclass(frozen=True, slots=True)
class _Member:
    """Hold one field of the writer: the column it fills, or None, with its plan; `path` is the column's or its own."""

    path: str
    name: str
    column: int | None = None
    fill: tuple[Place, _Plan] | None = None
    refused: Refused | None = None
    """Why any value refuses its record, for a field that no column takes; why any record does, for one that contradicts
    another."""
    kept: _Plan | None = None
    """How a field that no column takes becomes JSON, where it is to be kept."""


class _Members:
    """Fit the fields of a record, or of a struct, in the writer's order: the first fault is the one that is told."""

    def __init__(self, fields: Sequence[pa.Field], columns: Sequence[pa.Field], path: str, context: _Context) -> None:
        names = [column.name for column in columns]
        insensitive = context.options.match == "insensitive"
        if insensitive:
            refuse_twins(names, path)
        sources = sources_of(names, [one.name for one in fields], path, context.aliases, insensitive=insensitive)
        takers = {number: column for column, numbers in enumerate(sources) for number in numbers}
        self._columns = columns
        self._members: list[_Member] = []
        seen: set[int] = set()
        for number, one in enumerate(fields):
            column = takers.get(number)
            if column is None:
                self._members.append(_unknown(inner_path(path, shown(one.name)), one, context))
                continue
            into = inner_path(path, names[column])
            if column in seen:
                twice = Refused("duplicate", f"several fields are meant for it; {context.key} writes them", into)
                self._members.append(_Member(into, one.name, column, None, twice))
            else:
                place = Place(columns[column], into, plain_type(one.type), context.key, is_raw(one))
                self._members.append(_Member(into, one.name, column, (place, _plan(place, context))))
            seen.add(column)
        self._missing = {
            column: Refused("missing", f"{_NEEDED}; {context.key} has no such field", inner_path(path, names[column]))
            for column, one in enumerate(columns)
            if column not in seen and not one.nullable
        }

    def fit(
        self, children: Iterable[pa.Array], present: pa.BooleanArray | None, length: int
    ) -> tuple[list[pa.Array], Faults, Marks, pa.StringArray | None]:
        """Return the columns, and what none of them takes as JSON.

        `present` is where the record itself is not null, None where it never is.
        """
        arrays: list[pa.Array] = [pa.nulls(length, column.type) for column in self._columns]
        faults: Faults = {}
        marks: Marks = {}
        rests: dict[str, pa.StringArray] = {}

        def refuse(new: Mapping[int, Refused]) -> None:
            for row, why in new.items():
                faults.setdefault(row, why)

        everywhere = range(length) if present is None else true_rows(present)
        for member, given in zip(self._members, children, strict=True):
            child = plain_column(given)
            if member.column is None:
                if child.null_count < length:
                    piece = _left_over(member, child)
                    refuse(piece.faults)
                    marks |= piece.marks
                    if piece.rest is not None:
                        rests[member.name] = piece.rest
            elif member.fill is None:
                assert member.refused is not None
                refuse(dict.fromkeys(everywhere, member.refused))
            else:
                place, plan = member.fill
                piece = plan(child)
                arrays[member.column] = piece.array
                refuse(piece.faults)
                refuse(_nulls(child, place, present))
                marks |= piece.marks
                if piece.rest is not None:
                    rests[member.name] = piece.rest
        for why in self._missing.values():
            refuse(dict.fromkeys(everywhere, why))
        return arrays, faults, marks, object_of(rests)


def _left_over(member: _Member, column: pa.Array) -> _Piece:
    """Return what is to be said of a field that no column takes."""
    if member.kept is not None:
        return member.kept(column)
    if member.refused is not None:
        return _Piece(column, dict.fromkeys(true_rows(column.is_valid()), member.refused))
    return _Piece(column, {}, {_Mark(member.path): column.is_valid()})


def _unknown(path: str, one: pa.Field, context: _Context) -> _Member:
    if context.rescues:
        return _Member(path, one.name, kept=_as_json(path, one, context))
    if context.options.on_unknown in ("reject", "halt"):
        what = f"is no column (--decode.on-unknown); {context.key} writes it"
        return _Member(path, one.name, refused=Refused("unknown_field", what, path))
    return _Member(path, one.name)


def _as_json(path: str, one: pa.Field, context: _Context) -> _Plan:
    def plan(column: pa.Array) -> _Piece:
        texts, bad = (column, {}) if is_raw(one) else json_text(column)
        written = f"{RESCUED.name} keeps it as JSON; {context.key} writes it"
        faults = {row: Refused(reason, f"{what}; {written}", path) for row, (reason, what) in bad.items()}
        return _Piece(column, faults, rest=texts)

    return plan


def _nulls(child: pa.Array, place: Place, present: pa.BooleanArray | None = None) -> Faults:
    if place.field.nullable or not child.null_count:
        return {}
    # A child is null wherever its parent is; only a null of its own counts.
    absent = child.is_null() if present is None else pc.and_(child.is_null(), present)
    return place.faults(absent, "null", f"{_NEEDED}; the record has null")


def _plan(place: Place, context: _Context) -> _Plan:
    source, to, path = place.source, place.to, place.path
    if not is_raw(place.field):
        if pa.types.is_null(to):
            return lambda given: _Piece(pa.nulls(len(given), to), {}, {_Mark(path, untyped=True): given.is_valid()})
        if pa.types.is_struct(to) and pa.types.is_struct(source):
            return _struct(place, context)
        if pa.types.is_map(to) and pa.types.is_map(source):
            return _map(place, context)
        if pa.types.is_list(to) and is_list(source):
            return _list(place, context)
    known = fitting(place, context.remarks, any_text=path in context.texts)
    advice = f"; --decode.text {plain(path)} takes any value" if holds_text(place.field) else ""
    convert = known or never(place, context.remarks, advice=advice)
    return lambda given: _Piece(*convert(given))


def _struct(place: Place, context: _Context) -> _Plan:
    to = place.to
    members = _Members(list(place.source), list(to), place.path, context)

    def plan(column: pa.Array) -> _Piece:
        present = column.is_valid() if column.null_count else None
        arrays, faults, marks, rest = members.fit(column.flatten(), present, len(column))
        mask = None if present is None else pc.invert(present)
        return _Piece(pa.StructArray.from_arrays(arrays, fields=list(to), mask=mask), faults, marks, rest)

    return plan


def _list(place: Place, context: _Context) -> _Plan:
    to = place.to
    held = place.source.value_field
    item = Place(to.value_field, item_path(place.path), plain_type(held.type), context.key, is_raw(held))
    fit_items = _plan(item, context)

    def plan(column: pa.Array) -> _Piece:
        parts = items_of(column)
        piece = _held(fit_items, parts, parts.values, item)
        mask = column.is_null() if column.null_count else None
        array = pa.ListArray.from_arrays(parts.offsets, piece.array, type=to, mask=mask)
        return replace(piece, array=array, rest=None if piece.rest is None else list_of(piece.rest, parts))

    return plan


def _map(place: Place, context: _Context) -> _Plan:
    to = place.to
    held = place.source.item_field
    item = Place(to.item_field, item_path(place.path), plain_type(held.type), context.key, is_raw(held))
    fit_values = _plan(item, context)
    key = Place(to.key_field, place.path, plain_type(place.source.key_type), context.key)
    fit_keys = fitting(key, context.remarks, any_text=True)
    assert fit_keys is not None
    twice = place.refused("duplicate", "a key occurs twice in one map")

    def plan(given: pa.Array) -> _Piece:
        parts, keys, values = entries_of(given)
        keys, wrong = fit_keys(plain_column(keys))
        piece = _held(fit_values, parts, values, item)
        faults = dict.fromkeys(repeated_keys(parts, keys), twice)
        for row, why in (piece.faults | parts.first_of(wrong)).items():
            faults.setdefault(row, why)
        keys = pc.fill_null(keys, pa.scalar("", keys.type)) if keys.null_count else keys
        mask = given.is_null() if given.null_count else None
        maps = pa.MapArray.from_arrays(parts.offsets, keys, piece.array, type=to, mask=mask)
        rest = None if piece.rest is None else map_of(names_in_json(keys), piece.rest, parts)
        return _Piece(maps, faults, piece.marks, rest)

    return plan


def _held(plan: _Plan, parts: HeldValues, values: pa.Array, place: Place) -> _Piece:
    """Fit what lists or maps hold; return faults and marks by the rows of these."""
    values = plain_column(values)
    piece = plan(values)
    faults = piece.faults | _nulls(values, place)
    marks = {mark: parts.any_of(mask) for mark, mask in piece.marks.items()}
    return _Piece(piece.array, parts.first_of(faults), marks, piece.rest)
