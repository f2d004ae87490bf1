"""Values that are no record: they count as a record with a single field, which is marked where columns are inferred."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

FIELD: Final = "value"
"""The name of the field."""

_MARK: Final = b"batcher.whole"


def marked(field: pa.Field) -> pa.Field:
    """Return the field of a whole value with the mark that says so."""
    return field.with_metadata({**(field.metadata or {}), _MARK: b"1"})


def is_whole(field: pa.Field) -> bool:
    """Return whether a field is marked."""
    return _MARK in (field.metadata or {})


def unmarked(field: pa.Field) -> pa.Field:
    """Return a field without the mark."""
    return field.with_metadata({name: text for name, text in (field.metadata or {}).items() if name != _MARK} or None)
