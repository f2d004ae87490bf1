"""The schema of a root as it is stored there, and how it takes up types that were not known at first.

    _schema.arrow           the newest one
    _schema.00002.arrow …   those that came after the first, each with every type of the one before it and some more,
                            and with columns for fields that came later, where that is wanted

Each number is created exclusively, so that processes that learn different types at the same time end with one schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import structlog

from batcher.errors import SinkMisconfigured, SinkUnavailable
from batcher.growth import grown, stored
from sinks.parquet import hive, schemas
from sinks.parquet.directory import columns_of
from sinks.parquet.files import parsed_name, unreadable, unstorable
from sinks.parquet.options import ParquetOptions
from sinks.parquet.schemas import PIN
from sinks.parquet.stores import Store

log = structlog.get_logger(__name__)


class Pin(NamedTuple):
    """Hold the newest schema of a root, its number, and the number of the one that `_schema.arrow` shows.

    `first` is how many columns the root began with; those behind them were added.
    """

    schema: pa.Schema
    number: int
    shown: int
    first: int


class Pins:
    """Read and extend the schemas of a root. Any method may raise OSError as it is, and SinkMisconfigured."""

    def __init__(self, options: ParquetOptions, store: Store) -> None:
        self._rules = options.directories
        self._coordinates = options.coordinate_columns
        self._store = store
        self._layout = {
            b"batcher.partition_by": ",".join(rule.text for rule in self._rules).encode(),
            b"batcher.coordinates": options.coordinates.encode(),
        }
        if any(rule.timed for rule in self._rules):
            self._layout[b"batcher.partition_zone"] = options.partition_zone.encode()
        self._of_topic = options.layout == "topic"

    def find(self) -> Pin | None:
        """Return the newest pin; None where there is none. Refuse a root with another layout."""
        # Where only the first one was removed, the later ones still hold.
        found = self._read(PIN) or self._read(numbered(2))
        if found is None:
            self._refuse_topic_roots()
            return None
        newest = found
        while (later := self._read(numbered(newest.number + 1))) is not None:
            newest = later
        return newest._replace(schema=self._readable(newest.schema), shown=found.number)

    def settle(self, proposed: pa.Schema, origin: str) -> Pin:
        """Give the root a schema, or give the root's schema the types it lacks; return the one that holds.

        Write nothing that files cannot hold. Raise SinkUnavailable when what was written cannot be found.
        """
        held = self.find()
        if held is None:
            first = self.checked(proposed, origin)
            held = self._created(PIN, first, 1, len(first))
        while not (wider := grown(held.schema, proposed)).equals(held.schema):
            number = held.number + 1
            held = self._created(numbered(number), self.checked(wider, origin), number, held.first)
        self.show(held)
        return held

    def widen(self, fields: Sequence[pa.Field]) -> Pin:
        """Add columns to the schema of the root, except those that files cannot hold; return the one that holds.

        A column that is there stays what it is. Raise SinkUnavailable when what was written cannot be found.
        """
        held = self._found()
        able = [field for field in fields if self._takes(field)]
        while missing := [field for field in able if field.name not in held.schema.names]:
            number = held.number + 1
            wider = self.checked(pa.schema([*held.schema, *missing]), "the schema with further fields")
            held = self._created(numbered(number), wider, number, held.first)
        self.show(held)
        return held

    def _takes(self, field: pa.Field) -> bool:
        taken = {*self._coordinates, *(rule.name for rule in self._rules)}
        return field.name not in taken and unstorable(pa.schema([field])) is None

    def show(self, held: Pin) -> None:
        """Make the newest schema the one that `_schema.arrow` shows; a crash may have come between the two."""
        while held.shown < held.number:
            self._store.replace(PIN, self._bytes(held.schema, held.number, held.first))
            held = self._found()

    def checked(self, schema: pa.Schema, origin: str) -> pa.Schema:
        """Return a schema without coordinates; raise SinkMisconfigured when files cannot hold it."""
        schema = schemas.bare(schema, self._coordinates)
        typed = stored(schema)
        problem = unstorable(typed) or hive.unfit(schema, self._rules, self._coordinates)
        if problem is None and not len(schema):
            problem = "there is no field in it"
        if problem is None and not {*typed.names, *self._coordinates} - set(columns_of(self._rules)):
            problem = "no column is left for the files"
        if problem is not None:
            raise SinkMisconfigured(f"{origin} does not work for {self._store.label}: {problem}")
        return schema

    def _found(self) -> Pin:
        held = self.find()
        if held is None:
            raise SinkUnavailable(f"the schema just written to {self._store.label} is not there")
        return held

    def _warn(self, schema: pa.Schema) -> None:
        found = unreadable(stored(schema))
        if found:
            log.warning(
                "types_not_readable_everywhere",
                target=self._store.label,
                columns=found,
                hint="Spark refuses the whole root: give --decode.schema with microseconds or up to 38 digits for it",
            )

    def _created(self, name: str, schema: pa.Schema, number: int, first: int) -> Pin:
        self._store.create(name, self._bytes(schema, number, first))
        self._warn(schema)
        held = self._found()
        if held.number < number:
            raise SinkUnavailable(f"the schema just written to {self._store.label} is not there")
        return held

    def _bytes(self, schema: pa.Schema, number: int, first: int) -> bytes:
        layout = {**self._layout, b"batcher.pin": str(number).encode()}
        if first < len(schema):
            layout[b"batcher.first_columns"] = str(first).encode()
        if self._of_topic:
            layout[b"batcher.layout"] = b"topic"
        return schemas.to_bytes(schema, layout)

    def _readable(self, schema: pa.Schema) -> pa.Schema:
        if not len(schema):
            raise SinkMisconfigured(
                f"{PIN} in {self._store.label} has no column: an older version made it of records without a field; "
                "remove it, and the next records decide"
            )
        return self.checked(schema, PIN)

    def _read(self, name: str) -> Pin | None:
        """Return a pin as it was written; raise SinkMisconfigured when the root has another layout."""
        content = self._store.read(name)
        if content is None:
            return None
        try:
            schema, layout = schemas.from_bytes(content)
        except pa.ArrowInvalid as error:
            raise SinkMisconfigured(
                f"{name} in {self._store.label} is not an Arrow file: restore it, or choose another --parquet.path"
            ) from error
        for key in self._layout:
            theirs = layout.get(key, self._layout[key])
            if theirs != self._layout[key]:
                flag = key.decode().removeprefix("batcher.").replace("_", "-")
                raise SinkMisconfigured(
                    f"the files in {self._store.label} were written with --parquet.{flag} "
                    f"{theirs.decode() or 'unset'}: set it so, or choose another --parquet.path"
                )
        schema, number = schemas.bare(schema, self._coordinates), int(layout.get(b"batcher.pin", b"1"))
        return Pin(schema, number, number, int(layout.get(b"batcher.first_columns", len(schema))))

    def _refuse_topic_roots(self) -> None:
        if self._of_topic:
            return
        for entry in self._store.entries():
            if not entry.endswith("/") or entry.startswith("_") or "=" in entry:
                continue
            content = self._store.read(entry + PIN)
            if content is not None and schemas.is_topic_root(content):
                raise SinkMisconfigured(
                    f"{self._store.label} has a root for each topic: give --parquet.layout topic, "
                    "or choose another --parquet.path"
                )


def numbered(number: int) -> str:
    """Return the name of a pin that is not the first one."""
    stem, _, suffix = PIN.rpartition(".")
    return f"{stem}.{number:05d}.{suffix}"


def flat(store: Store) -> bool:
    """Return whether the files of all topics are in one root here."""
    # A root has one before its first file, and asking for it takes one request where listing may take a thousand.
    return store.read(PIN) is not None or any(
        entry == PIN or parsed_name(entry) or (entry.endswith("/") and "=" in entry) for entry in store.entries()
    )
