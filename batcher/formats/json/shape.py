"""What the wanted columns mean to each reader: Arrow's schema for reading and msgspec's type for sifting.

Arrow's JSON reader knows neither maps nor text for dates. A timestamp column may hold text or numbers, and so may a
text column that takes any value. So columns are read in a *reading type* and finished in `columns.py`. Reading such a
column as numbers is called its form; the set of paths read so (`Numeric`) is part of the reading schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.formats.json import timestamps
from batcher.records import RAW_JSON

Numeric = frozenset[str]
"""The paths of the timestamps and texts that are read as numbers; the others are read as text."""

UNTYPED: Final = pa.bool_()
"""The type in which places without a type are read. Arrow 26 loses count of the nulls in a list of nulls."""

_KEY: Final = "k"
_VALUE: Final = "v"
"""The fields of an entry of a map, which is read as a list of them."""

_INTEGERS: Final = {
    pa.int8(): (-(2**7), 2**7 - 1),
    pa.int16(): (-(2**15), 2**15 - 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint8(): (0, 2**8 - 1),
    pa.uint16(): (0, 2**16 - 1),
    pa.uint32(): (0, 2**32 - 1),
    pa.uint64(): (0, 2**64 - 1),
}


def integer_bounds(kind: pa.DataType) -> tuple[int, int] | None:
    """Return the least and the greatest value of an integer type; None for any other type."""
    return _INTEGERS.get(kind)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a JSON string fills the type as it is: as text, or as its UTF-8 bytes."""
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def is_raw(field: pa.Field) -> bool:
    """Return whether the field takes any JSON value as its text."""
    return field.metadata is not None and RAW_JSON in field.metadata


def item_path(path: str) -> str:
    """Return the path of what a list or map holds."""
    return f"{path}[]"


def inner_path(path: str, name: str) -> str:
    """Return the path of a field of an object; the root has the empty path."""
    return f"{path}.{name}" if path else name


def entry_path(path: str) -> str:
    """Return the path of what a map holds where it is read as a list of entries."""
    return inner_path(item_path(path), _VALUE)


def has_plain_name(name: str) -> bool:
    """Return whether msgspec can look for a field of that name."""
    return name.isprintable() and '"' not in name and "\\" not in name


class Filling(NamedTuple):
    """Say what an encoding can fill: besides the types that JSON fills `more`, and how it is said of others."""

    more: Callable[[pa.DataType], bool]
    keys: str
    otherwise: str


_JSON: Final = Filling(lambda _: False, "JSON has only text", "JSON cannot fill")


def validate(schema: pa.Schema, filling: Filling = _JSON) -> None:
    """Raise ConfigurationError for a schema that JSON, or another encoding, cannot fill."""
    if not len(schema):
        raise ConfigurationError("--decode.schema: has no columns, so no record could be kept in it")
    _validate_fields(schema, "", filling)


def _validate_fields(fields: Iterable[pa.Field], path: str, filling: Filling) -> None:
    seen: set[str] = set()
    for field in fields:
        inner = inner_path(path, field.name)
        if field.name in seen:
            raise ConfigurationError(f"--decode.schema: column {inner} occurs twice")
        seen.add(field.name)
        _validate(field, inner, filling)


def _validate(field: pa.Field, path: str, filling: Filling) -> None:
    kind = field.type
    if is_raw(field):
        if kind not in (pa.string(), pa.large_string()):
            raise ConfigurationError(f"--decode.schema: column {path} takes JSON as text but is {kind}, not string")
    elif pa.types.is_struct(kind) and kind.num_fields:
        _validate_fields(kind, path, filling)
    elif pa.types.is_list(kind):
        _validate(kind.value_field, item_path(path), filling)
    elif pa.types.is_map(kind):
        if not is_text(kind.key_type):
            raise ConfigurationError(f"--decode.schema: column {path} has keys of {kind.key_type}; {filling.keys}")
        _validate(kind.item_field, item_path(path), filling)
    elif not (_fits_json(kind) or filling.more(kind)):
        raise ConfigurationError(f"--decode.schema: column {path} is {kind}, which {filling.otherwise}")


def _fits_json(kind: pa.DataType) -> bool:
    return bool(
        is_text(kind)
        or kind in _INTEGERS
        or kind in (pa.bool_(), pa.float32(), pa.float64(), pa.date32())
        or pa.types.is_timestamp(kind)
        or pa.types.is_decimal128(kind)
        or pa.types.is_decimal256(kind)
        or pa.types.is_null(kind)
    )


def needs_rewriting(fields: Iterable[pa.Field]) -> bool:
    """Return whether some column can only be read from records in which its values are replaced (`rewriter.py`)."""
    return any(_needs_rewriting(field) for field in fields)


def _needs_rewriting(field: pa.Field) -> bool:
    if is_raw(field) or pa.types.is_map(field.type):
        return True
    if pa.types.is_struct(field.type):
        return needs_rewriting(field.type)
    return pa.types.is_list(field.type) and _needs_rewriting(field.type.value_field)


def timestamp_paths(fields: Iterable[pa.Field], path: str = "", *, maps: bool = True) -> Iterator[str]:
    """Yield the path of each timestamp, however deep, in records as they are read; without `maps` none inside those."""
    for field in fields:
        inner = inner_path(path, field.name)
        kind = field.type
        while pa.types.is_list(kind) or (maps and pa.types.is_map(kind)):
            if pa.types.is_list(kind):
                inner, kind = item_path(inner), kind.value_type
            else:
                inner, kind = entry_path(inner), kind.item_type
        if pa.types.is_timestamp(kind):
            yield inner
        elif pa.types.is_struct(kind):
            yield from timestamp_paths(kind, inner, maps=maps)


def plain_paths(fields: Iterable[pa.Field]) -> Iterator[str]:
    """Yield the paths of what is right as it was read, however deep: texts, integers and booleans that may be null."""
    return paths_of(fields, _is_plain)


def paths_of(fields: Iterable[pa.Field], wanted: Callable[[pa.Field], bool], path: str = "") -> Iterator[str]:
    """Yield the paths of the fields that are wanted, and of those inside objects that are not."""
    for field in fields:
        inner = inner_path(path, field.name)
        if wanted(field):
            yield inner
        elif pa.types.is_struct(field.type):
            yield from paths_of(field.type, wanted, inner)


def _is_plain(field: pa.Field) -> bool:
    kind = field.type
    if not field.nullable or field.metadata is not None:
        return False
    if pa.types.is_struct(kind):
        return all(_is_plain(inner) for inner in kind)
    if pa.types.is_list(kind):
        return _is_plain(kind.value_field)
    return is_text(kind) or kind in _INTEGERS or pa.types.is_boolean(kind)


def leaves(fields: Iterable[pa.Field]) -> int:
    """Return how many columns hold values, however deep."""
    count = 0
    for field in fields:
        kind = field.type
        while pa.types.is_list(kind):
            kind = kind.value_type
        count += leaves(kind) if pa.types.is_struct(kind) else 1
    return count


def maps_with_fields(fields: Iterable[pa.Field]) -> Iterator[pa.MapType]:
    """Yield the maps, however deep, that hold objects with fields of their own."""
    for field in fields:
        kind, inside = field.type, None
        while pa.types.is_list(kind) or pa.types.is_map(kind):
            inside = kind if pa.types.is_map(kind) else inside
            kind = kind.item_type if pa.types.is_map(kind) else kind.value_type
        if pa.types.is_struct(kind):
            if inside is not None:
                yield inside
            yield from maps_with_fields(kind)


def kinds(fields: Iterable[pa.Field]) -> Iterator[pa.DataType]:
    """Yield the type of each value, however deep, except of objects and lists themselves."""
    for field in fields:
        kind = field.type
        while pa.types.is_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            yield from kinds(kind)
        else:
            yield kind


def reading_schema(schema: pa.Schema, numeric: Numeric, names: Mapping[str, str] = MappingProxyType({})) -> pa.Schema:
    """Return the schema with which Arrow reads records as they came, or with the values of some columns replaced.

    `names` has the fields, by path, that are written differently from their columns.
    """
    return pa.schema(_reading_fields(schema, "", numeric, names))


def _reading_fields(
    fields: Iterable[pa.Field], path: str, numeric: Numeric, names: Mapping[str, str]
) -> list[pa.Field]:
    paths = [(field, inner_path(path, field.name)) for field in fields]
    return [
        _plain(names.get(inner, field.name), _reading_type(field.type, inner, numeric, names)) for field, inner in paths
    ]


def _reading_type(  # noqa: PLR0911 - one for each kind of type
    kind: pa.DataType, path: str, numeric: Numeric, names: Mapping[str, str]
) -> pa.DataType:
    if pa.types.is_null(kind):
        return UNTYPED
    if pa.types.is_timestamp(kind):
        return timestamps.NUMBER if path in numeric else pa.string()
    if pa.types.is_date32(kind):
        return pa.string()
    if is_text(kind) and path in numeric:
        return pa.int64()
    if pa.types.is_struct(kind):
        return pa.struct(_reading_fields(kind, path, numeric, names))
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_field.name, _reading_type(kind.value_type, item_path(path), numeric, names)))
    if pa.types.is_map(kind):
        return _entries(kind, _reading_type(kind.item_type, entry_path(path), numeric, names))
    return kind


def rewritten_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema with which Arrow reads records that `strict.py` has rewritten."""
    return pa.schema([_plain(field.name, _rewritten_type(field.type)) for field in schema])


def _rewritten_type(kind: pa.DataType) -> pa.DataType:  # noqa: PLR0911 - one for each kind of type
    if pa.types.is_null(kind):
        return UNTYPED
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_date32(kind):
        return pa.int32()
    if pa.types.is_struct(kind):
        return pa.struct([_plain(field.name, _rewritten_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_field.name, _rewritten_type(kind.value_type)))
    if pa.types.is_map(kind):
        return _entries(kind, _rewritten_type(kind.item_type))
    return kind


def _entries(kind: pa.MapType, item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.struct([_plain(_KEY, kind.key_type), _plain(_VALUE, item)]))


def _plain(name: str, kind: pa.DataType) -> pa.Field:
    # Arrow's reader does not look at `nullable=False`; a column that says so and holds a null is invalid.
    return pa.field(name, kind)


def sieve(
    schema: pa.Schema, numeric: Numeric, spelled: Mapping[str, str] = MappingProxyType({}), *, reject_unknown: bool
) -> msgspec.json.Decoder[Any]:
    """Return a msgspec decoder that refuses, fast, nearly all that Arrow cannot read with the reading schema."""
    return msgspec.json.Decoder(_sieve_struct(schema, "", numeric, spelled, reject_unknown=reject_unknown))


def _sieve_struct(
    fields: Iterable[pa.Field], path: str, numeric: Numeric, spelled: Mapping[str, str], *, reject_unknown: bool
) -> Any:
    members: list[tuple[str, Any, None]] = []
    names: dict[str, str] = {}
    for number, field in enumerate(fields):
        if not has_plain_name(field.name):
            continue  # msgspec has no such names; the strict reader settles what is left over
        inner = inner_path(path, field.name)
        kind = _sieve_type(field.type, inner, numeric, spelled, reject_unknown=reject_unknown)
        members.append((f"f{number}", None if kind is None else kind | None, None))
        names[f"f{number}"] = spelled.get(inner, field.name)
    return msgspec.defstruct("Sieve", members, rename=names, forbid_unknown_fields=reject_unknown, gc=False)


def _sieve_type(  # noqa: PLR0911 - one for each kind of type
    kind: pa.DataType, path: str, numeric: Numeric, spelled: Mapping[str, str], *, reject_unknown: bool
) -> Any:
    number: Any = int | float | str
    if pa.types.is_timestamp(kind):
        return int | float | _NUMBER_TEXT if path in numeric else str
    if is_text(kind) and path in numeric:
        return _integer(pa.int64())
    if kind in _INTEGERS:
        return _integer(kind)
    if pa.types.is_struct(kind):
        return _sieve_struct(kind, path, numeric, spelled, reject_unknown=reject_unknown)
    if pa.types.is_list(kind):
        item: Any = _sieve_type(kind.value_type, item_path(path), numeric, spelled, reject_unknown=reject_unknown)
        return list[None if item is None else item | None]  # type: ignore[misc]
    if pa.types.is_map(kind):
        entry = pa.struct([_plain(_KEY, pa.string()), _plain(_VALUE, kind.item_type)])
        return list[_sieve_struct(entry, item_path(path), numeric, spelled, reject_unknown=reject_unknown)]  # type: ignore[misc]
    if pa.types.is_boolean(kind):
        return bool
    if pa.types.is_null(kind):
        return None
    if pa.types.is_floating(kind):
        return float
    return number if pa.types.is_decimal(kind) else str


_NUMBER_TEXT: Final[Any] = Annotated[str, msgspec.Meta(pattern=r"\A[+-]?\d{1,28}(?:\.\d{1,9})?\Z")]
"""Text that Arrow reads as a point in time as it does a number."""


def _integer(kind: pa.DataType) -> Any:
    low, high = _INTEGERS[kind]
    # msgspec takes bounds up to 2^63 - 1.
    return Annotated[int, msgspec.Meta(ge=low, le=high if high < 2**63 else None)]
