"""Which columns a target may have for values that are fitted to it: those that JSON fills, and some more."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from batcher.formats.json import shape


def validate(schema: pa.Schema) -> None:
    """Raise ConfigurationError for a schema with a column that nothing can fill."""
    shape.validate(schema, _FILLING)


def _fits(kind: pa.DataType) -> bool:
    return bool(pa.types.is_time(kind) or pa.types.is_fixed_size_binary(kind))


_FILLING: Final = shape.Filling(_fits, "they have to be text", "no record can fill")
