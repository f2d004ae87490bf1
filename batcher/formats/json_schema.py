"""Check JSON records against the JSON-Schema that they were written with, before they become columns.

The rules of the schema come first, those of the columns after it: a record has to keep both. What is no JSON at all is
left to the JSON format, which says so in its own words. References lead to schemas of the registry and nowhere else;
nothing is asked of the network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.formats.framing import Group, Split
from batcher.formats.json.limits import shown
from batcher.formats.json.shape import inner_path, item_path
from batcher.formats.outcome import renumbered
from batcher.formats.schema_registry import find_all
from batcher.formats.writer_schema import SchemaKey, SchemaUnknown, WriterSchema, WriterSchemas
from batcher.formats.written import MAX_READERS, UNNAMED, SchemaBroken
from batcher.records import Rejection

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

_NO_JSON: Final = object()
_ABSOLUTE: Final = "json-schema:///"
"""What the validator puts before a reference where the schema has no URI of its own."""


class SchemaCheck:
    """Take the records of a split that break their schema out of it (`packed.Check`)."""

    def __init__(self, schemas: WriterSchemas) -> None:
        self._schemas = schemas
        self._validators: dict[SchemaKey, Validator | Rejection] = {}
        """For each schema what checks it, or the rejection of all its records."""

    def __call__(self, split: Split) -> Split:
        """Return the split without the records that are refused. Raise SchemasUnavailable."""
        found = find_all(self._schemas, sorted({group.key or UNNAMED for group in split.groups}))
        rejections = list(split.rejections)
        groups: list[Group] = []
        for group in split.groups:
            key = group.key or UNNAMED
            refused = list(self._refused(group, self._validator(key, found[key]), key))
            rejections += renumbered(refused, group.positions)
            groups.append(_without(group, [one.position for one in refused]) if refused else group)
        rejections.sort(key=lambda one: one.position)
        return replace(
            split, groups=tuple(group for group in groups if len(group.positions)), rejections=tuple(rejections)
        )

    @staticmethod
    def _refused(group: Group, validator: Validator | Rejection, key: SchemaKey) -> Iterator[Rejection]:
        """Yield the rejections of a group, by the number of the record in it."""
        if isinstance(validator, Rejection):
            yield from (replace(validator, position=row) for row in range(len(group.payloads)))
            return
        for row, payload in enumerate(group.payloads.to_pylist()):
            try:
                record = _record(payload)
                # Most records keep their schema, and to know only that is cheaper.
                if record is not _NO_JSON and not validator.is_valid(record):
                    yield _rejection(row, next(validator.iter_errors(record)), key)
            except ValueError:
                # Such as half a surrogate pair: nobody may get past the check for what cannot be checked.
                yield Rejection(row, "schema", "the record has a number or a text that cannot be checked")

    def _validator(self, key: SchemaKey, written: WriterSchema | SchemaUnknown) -> Validator | Rejection:
        # A schema that was unknown may be registered by now.
        if isinstance(written, SchemaUnknown):
            return Rejection(0, "unknown_schema", str(written))
        held = self._validators.get(key)
        if held is None:
            if len(self._validators) >= MAX_READERS:
                self._validators.clear()
            held = self._validators[key] = _made(key, written)
        return held


def _record(payload: bytes) -> Any:
    """Return what a payload holds, _NO_JSON where that is for the JSON format to refuse; raise ValueError."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        # It is stricter than JSON is: a number may be beyond all floats, a text may hold half of a pair.
        try:
            return json.loads(payload, parse_float=_finite)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            return _NO_JSON


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        # The validator would take it for null.
        raise ValueError(text)
    return number


def _made(key: SchemaKey, written: WriterSchema) -> Validator | Rejection:
    if written.kind != "json":
        return Rejection(0, "schema_kind", f"{key} is {written.kind}, and nothing that JSON could be checked with")
    try:
        return validator_of(written)
    except SchemaBroken as error:
        return Rejection(0, "schema", f"{key} cannot be used: {error}")


def validator_of(written: WriterSchema) -> Validator:
    """Return what checks records; raise SchemaBroken for what is no schema, ConfigurationError without the extra."""
    try:
        from jsonschema_rs import ReferencingError, ValidationError, validator_for  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            "--decode.validate on: jsonschema-rs is not installed: pip install 'kafka-batcher[jsonschema]'"
        ) from error
    schema = _parsed(written.text)
    referred = {name: _parsed(text) for name, text in written.references.items()}
    missing: list[str] = []

    def retrieve(uri: str) -> Any:
        try:
            return _resolved(uri, schema, referred)
        except KeyError:
            missing.append(uri)
            raise

    try:
        return validator_for(schema, retriever=retrieve)
    except (ValidationError, ReferencingError, ValueError) as error:
        what = f"nothing is known of {shown(missing[0])}" if missing else _where(error)
        raise SchemaBroken(what) from error


def _resolved(uri: str, schema: Any, referred: Mapping[str, Any]) -> Any:
    """Return what a reference leads to: names are given as they are written, and asked for as absolute URIs."""
    base = str(schema.get("$id", schema.get("id", ""))) if isinstance(schema, dict) else ""
    for name, found in referred.items():
        own = found.get("$id", found.get("id")) if isinstance(found, dict) else None
        if uri in (name, own, f"{_ABSOLUTE}{name}", urljoin(base, name)):
            return found
    raise KeyError(uri)


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SchemaBroken("it is not JSON") from error


def _where(error: Exception) -> str:
    path = "/".join(str(step) for step in getattr(error, "instance_path", ()))
    return f"at {shown(path)} it is no JSON-Schema" if path else "it is no JSON-Schema, or of a version nobody knows"


def _rejection(row: int, error: ValidationError, key: SchemaKey) -> Rejection:
    """Return why a record is refused. The validator's own message would quote its values."""
    path = ""
    for step in error.instance_path:
        path = item_path(path) if isinstance(step, int) else inner_path(path, shown(step))
    rule = str(error.schema_path[-1]) if error.schema_path else "false"
    what = f"breaks the rule {shown(rule)} of {'its JSON-Schema' if key == UNNAMED else key}"
    absent = getattr(error.kind, "property", None) if rule == "required" else None
    if isinstance(absent, str):
        path = inner_path(path, shown(absent))
        what = f"is not there, and {'its JSON-Schema' if key == UNNAMED else key} requires it"
    extra = getattr(error.kind, "unexpected", None)
    if extra:
        path = inner_path(path, shown(str(extra[0])))
    return Rejection(row, "schema", f"field {path}: {what}" if path else f"the record {what}", path or None)


def _without(group: Group, rows: list[int]) -> Group:
    keep = pc.invert(pc.is_in(pa.arange(0, len(group.positions)), value_set=pa.array(rows, pa.int64())))
    return Group(group.key, group.positions.filter(keep), group.payloads.filter(keep))
