"""What becomes of fields that no column takes, where they are to be kept: new columns, or one column for them all.

Only fields at the top of a record become columns. What is unknown inside of an object that has a column stays unknown:
neither a Tuple nor a struct can be widened everywhere. A field becomes a column with its first value that has a type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa
import structlog

from batcher.errors import ConfigurationError
from batcher.growth import has_untyped
from batcher.protocols import FieldProposer, Format, Sink, SinkInfo
from batcher.protocols.sink import evolvable
from batcher.records import COORDINATES, RESCUED, Batch, UnknownField

log = structlog.get_logger(__name__)

Call = Callable[..., Any]

MAX_NAME: Final = 64
"""Letters of a name that becomes a column. A longer one is cut in reports, so nobody could tell two of them apart."""

# They stand for levels and lists in the path of a field, and for parts of a Nested in ClickHouse.
MARKS: Final = frozenset(".[]`\"'\\")


@dataclass(frozen=True, slots=True)
class EvolutionPolicy:
    """Say what is done about unknown fields besides counting them; `max_new_columns` holds for a run and a schema."""

    mode: Literal["count", "evolve", "rescue"] = "count"
    max_new_columns: int = 100


MAX_SETTLED: Final = 10_000
"""Names that are remembered. They come from the data: without a bound, made-up ones would fill the memory."""


class _Settled:
    """Know what was decided about the fields of one schema."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.added = 0
        self.full = False

    def add(self, names: set[str]) -> None:
        """Remember that these need not be looked at again, as far as there is room."""
        self.names = self.names | names if len(self.names) < MAX_SETTLED else names


class Evolution:
    """Decide which columns a target is to be given, and give them to it. The caller sees to one thread at a time.

    Raise ConfigurationError where sink or format cannot do what the policy says.
    """

    def __init__(self, sink: Sink, info: SinkInfo, format_: Format, policy: EvolutionPolicy, call: Call) -> None:
        self._sink = evolvable(sink, info)
        self._info = info
        self._format = format_ if isinstance(format_, FieldProposer) else None
        self._policy = policy
        self._call = call
        self._settled: dict[str, _Settled] = {}
        self.evolves = policy.mode == "evolve"
        self.rescues = policy.mode == "rescue"
        if (self.evolves or self.rescues) and self._format is None:
            raise ConfigurationError(
                f"--decode.on-unknown {policy.mode}: does not work with a transform, nor with a format without the "
                "method proposed; choose warn, reject or halt"
            )
        if self.evolves and self._sink is None:
            raise ConfigurationError(
                f"--decode.on-unknown evolve: {info.target} cannot be given columns; choose another"
            )
        if self.rescues and info.schema is not None:
            self._check_rescued(info.schema)

    def pinned(self, proposed: pa.Schema) -> pa.Schema:
        """Return what to pin: the proposed schema, with the column for what no other column takes if there is one."""
        if not self.rescues:
            return proposed
        return pa.schema([*(field for field in proposed if field.name != RESCUED.name), RESCUED])

    def with_rescued(self, topic: str, schema: pa.Schema) -> pa.Schema:
        """Return the schema that holds once the target has the column for what no other column takes."""
        if self.rescues and RESCUED.name not in schema.names:
            self._check_rescued(schema)
            schema = self._evolved(topic, [RESCUED])
        if self.rescues:
            self._check_rescued(schema)
        return schema

    def wider(self, topic: str, schema: pa.Schema, batch: Batch, unknown: Sequence[UnknownField]) -> pa.Schema:
        """Return the schema that holds once the target was given columns for unknown fields; the same one for none."""
        fields = self.candidates(topic, schema, batch, unknown)
        if not fields:
            return schema
        wider = self._evolved(topic, fields)
        added = [name for name in wider.names if name not in schema.names]
        self._settled[topic].added += len(added)
        if added:
            log.info(
                "columns_added",
                target=self._info.target,
                columns=[f"{name}: {wider.field(name).type}" for name in added],
                first_seen=str(batch.ranges[0]),
            )
        return wider

    def candidates(
        self, topic: str, schema: pa.Schema, batch: Batch, unknown: Sequence[UnknownField]
    ) -> Sequence[pa.Field]:
        """Return the columns that a target should be given for unknown fields. What is decided about one is kept."""
        settled = self._settled.setdefault(topic, _Settled())
        if not self.evolves or self._format is None or settled.full:
            return ()
        names = {field.path for field in unknown if becomes_column(field.path)} - settled.names
        if not names:
            return ()
        found = self._format.proposed(batch, names)
        # What has no type yet, an empty list, is asked about again.
        settled.add(names - {one.name for one in found if has_untyped(one.type)})
        fields = [one for one in found if one.name in names - set(schema.names) and not has_untyped(one.type)]
        room = self._policy.max_new_columns - settled.added
        if len(fields) > room:
            self._say_full(settled, topic, batch, [one.name for one in fields[room:]])
        return fields[:room]

    def _evolved(self, topic: str, fields: Iterable[pa.Field]) -> pa.Schema:
        assert self._sink is not None
        nullable = [field.with_nullable(True) for field in fields]
        schema: pa.Schema = self._call(self._sink.evolve, topic or None, nullable)
        return schema

    def _check_rescued(self, schema: pa.Schema) -> None:
        name = RESCUED.name
        pins = self._info.capabilities & {"pin", "pin_topic"}
        if name not in schema.names:
            if pins and self._sink is not None:
                return
            table = self._info.target.rpartition("/")[2]
            raise ConfigurationError(
                f"--decode.on-unknown rescue: {self._info.target} has no column {name} to keep it in; in ClickHouse: "
                f"ALTER TABLE {table} ADD COLUMN {name} Nullable(String)"
            )
        field = schema.field(name)
        if not field.nullable or not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
            raise ConfigurationError(
                f"--decode.on-unknown rescue: column {name} of {self._info.target} is {field.type}"
                f"{'' if field.nullable else ', not nullable'}; it has to be text that may be null (Nullable(String))"
            )

    def _say_full(self, settled: _Settled, topic: str, batch: Batch, names: Sequence[str]) -> None:
        if settled.full:
            return
        settled.full = True
        log.error(
            "columns_not_added",
            target=self._info.target,
            **({"topic": topic} if topic else {}),
            columns=names[:10],
            first_seen=str(batch.ranges[0]),
            hint=f"this run has added --decode.max-new-columns {self._policy.max_new_columns}; further fields are "
            "counted and not stored; raise it and restart if they are meant",
        )


def becomes_column(path: str) -> bool:
    """Return whether the field of a path may become a column: one at the top of a record, with a plain name."""
    reserved = path in COORDINATES.names or path == RESCUED.name
    # A record says "?" for what cannot be printed: such a name is not the one that the field has.
    plain = path.isprintable() and "?" not in path and not MARKS & set(path)
    return 0 < len(path) < MAX_NAME and plain and not reserved and path == path.strip()
