"""Count blocks and forget them, to see what a pipeline costs without a target. It loads nothing before it is made."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

    from batcher.protocols import SinkInfo
    from batcher.records import Block


class NullSink:
    """Take every block at once and keep nothing but the counts.

    With a schema the decoder has to fill it; without one, the first batch decides. It promises at-least-once only: what
    keeps nothing cannot recognise a repeat either.
    """

    def __init__(self, schema: pa.Schema | None = None) -> None:
        self._schema = schema
        self._counting = threading.Lock()
        self.blocks = 0
        self.rows = 0
        self.nbytes = 0

    def open(self) -> SinkInfo:
        from batcher.protocols import SinkInfo  # noqa: PLC0415 - `--help` finds this module without it

        return SinkInfo(
            "null",
            self._schema,
            reason="nothing is kept, so a repeat is not recognised",
            capabilities=frozenset({"pin", "evolve"}),
            discards=True,
            concurrent=True,
        )

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Take the first schema proposed, and later the types that it had none for."""
        from batcher.growth import grown  # noqa: PLC0415 - as above

        self._schema = proposed if self._schema is None else grown(self._schema, proposed)
        return self._schema

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        """Take all fields."""
        import pyarrow as pa  # noqa: PLC0415 - as above

        del topic
        there = self._schema if self._schema is not None else pa.schema([])
        self._schema = pa.schema([*there, *(field for field in fields if field.name not in there.names)])
        return self._schema

    def write(self, block: Block) -> None:
        with self._counting:
            self.blocks += 1
            self.rows += block.rows
            self.nbytes += block.table.nbytes

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def plugin(options: Mapping[str, object]) -> NullSink:
    """Return a null sink. The only option is `schema`; raise ConfigurationError for others."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    unknown = sorted(set(options) - {"schema"})
    if unknown:
        raise ConfigurationError(f"the null sink has no option {unknown[0]!r}")
    schema = options.get("schema")
    if schema is not None and not isinstance(schema, pa.Schema):
        raise ConfigurationError("the null sink's option schema is not an Arrow schema")
    return NullSink(schema)
