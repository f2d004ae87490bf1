"""JSON that need not be an object: text, a number, true, false or null is read as an object with one field."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.policy import with_values
from batcher.formats.whole import FIELD, marked
from batcher.protocols import Decoder, Format
from batcher.records import Batch, Decoded

# RFC 8259: what matches is one value to its end, so that an object around it holds nothing else.
_SCALAR: Final = (
    r'\A[ \t\r\n]*(?:"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"'
    r"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)[ \t\r\n]*\z"
)
_BEFORE: Final = b'{"%s":' % FIELD.encode()
_BEHIND: Final = b"}"


class ScalarFormat:
    """Make decoders for JSON of any kind but arrays (`protocols.Format`), with a format for objects."""

    def __init__(self, objects: Format) -> None:
        self._objects = objects

    def infer(self, batch: Batch) -> pa.Schema | None:
        rewritten, scalars = _wrapped(batch)
        found = self._objects.infer(rewritten)
        if found is None or not scalars:
            return found
        return pa.schema([marked(field) if field.name == FIELD else field for field in found])

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return self._objects.grow(schema, _wrapped(batch)[0])

    def decoder(self, schema: pa.Schema) -> ScalarDecoder:
        return ScalarDecoder(self._objects.decoder(schema))


class ScalarDecoder:
    """Decode JSON of any kind but arrays (`protocols.Decoder`)."""

    def __init__(self, objects: Decoder) -> None:
        self._objects = objects

    @property
    def schema(self) -> pa.Schema:
        return self._objects.schema

    def decode(self, batch: Batch) -> Decoded:
        return self._objects.decode(_wrapped(batch)[0])


def _wrapped(batch: Batch) -> tuple[Batch, bool]:
    """Return the batch with an object around each scalar, and whether there is one."""
    values = batch.values()
    scalar = pc.fill_null(pc.match_substring_regex(values, _SCALAR), fill_value=False)
    if not pc.any(scalar).as_py():
        return batch, False
    wrapped = pc.binary_join_element_wise(
        pa.scalar(_BEFORE, pa.binary()), values, pa.scalar(_BEHIND, pa.binary()), pa.scalar(b"", pa.binary())
    )
    return with_values(batch, pc.if_else(scalar, wrapped, values)), True
