"""Which tables of other writers can be written here.

What delta-rs can write was tried feature by feature (1.6.6). Where it cannot, a commit ends with "Unsupported table
features required". Here it is said at the start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import deltalake

SUPPORTED: Final = frozenset(
    {
        "appendOnly",
        "changeDataFeed",
        "checkConstraints",
        "columnMapping",
        "deletionVectors",
        "generatedColumns",
        "invariants",
        "timestampNtz",
        "v2Checkpoint",
    }
)
"""The features of the protocol that a table may have."""

LAST_PLAIN_VERSION: Final = 5
"""The last version without a list of features that can be written; 6 has identity columns."""

LISTED_VERSION: Final = 7
"""The version in which the table lists its features."""


def unwritable(table: deltalake.DeltaTable) -> str | None:
    """Say why a table cannot be written, as what comes after its name; None where it can."""
    protocol = table.protocol()
    kept = sorted(set(_rules(table)))
    if kept:
        # delta-rs would refuse the whole block without saying which row is to blame.
        return f"has {' and '.join(kept)}, which cannot be kept here row by row: load into a table without them"
    named = {*(protocol.writer_features or ()), *(protocol.reader_features or ())}
    unknown = sorted(named - SUPPORTED)
    version = protocol.min_writer_version
    if not unknown and (version <= LAST_PLAIN_VERSION or version == LISTED_VERSION):
        return None
    what = ", ".join(unknown) or f"writer version {version}"
    return f"has features that cannot be written here ({what}): switch them off, or choose another table"


def _rules(table: deltalake.DeltaTable) -> Iterator[str]:
    """Yield the kinds of rules that the table has for values."""
    configured: Mapping[str, Any] = table.metadata().configuration
    if any(name.startswith("delta.constraints.") for name in configured):
        yield "CHECK constraints"
    for field in json.loads(table.schema().to_json())["fields"]:
        for key in field.get("metadata", {}):
            if key == "delta.generationExpression":
                yield "generated columns"
            elif key == "delta.invariants":
                yield "column invariants"
            elif key.startswith("delta.identity."):
                yield "identity columns"
