"""What the pipeline asks of a format."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable

import pyarrow as pa

from batcher.records import Batch, Decoded


class Decoder(Protocol):
    """Turn raw values into columns of one schema.

    Called by the decode loop. Also by the write loop, with a decoder of its own, where a target changed its columns.
    """

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of every decoded table."""

    def decode(self, batch: Batch) -> Decoded:
        """Return every position of the batch as a row, a rejection or a skip; never raise because of a record."""


class Format(Protocol):
    """Make decoders for one encoding of records, such as JSON. Called by the decode loop, and by the write loop.

    Each method may raise SchemasUnavailable where it has to ask a registry that is down. It is called again later.
    """

    def infer(self, batch: Batch) -> pa.Schema | None:
        """Return a schema that fits the readable records of the batch; None when none is readable."""

    def decoder(self, schema: pa.Schema) -> Decoder:
        """Return a decoder for a schema. Raise ConfigurationError for a type the encoding cannot fill."""

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        """Return the schema with types for those of its null fields that have a value in the batch."""


@runtime_checkable
class FieldProposer(Protocol):
    """Propose types for fields that a target has no column for: `--decode.on-unknown evolve` needs it of a format.

    Called by the decode loop, and by the write loop. Such a format counts unknown fields exactly where its settings say
    `evolve`: no field of a row goes unnoticed because it is rare.
    """

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        """Return those of the named fields, at the top of records, that have a value, with types that hold it.

        All records of the batch count. May raise SchemasUnavailable.
        """
