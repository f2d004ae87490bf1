"""How the data files of a table are written: zstd, with dictionaries where values come again."""

from __future__ import annotations

from typing import Any, Final

import deltalake
import pyarrow as pa

from sinks.parquet.encodings import DICTIONARY_BYTES, Encodings, encodings_of

COMPRESSION: Final[dict[str, Any]] = {
    "compression": "ZSTD",
    "compression_level": 1,
    "dictionary_page_size_limit": DICTIONARY_BYTES,
}


def compressed() -> deltalake.WriterProperties:
    """Return how files are written again of which rows are removed."""
    return deltalake.WriterProperties(**COMPRESSION)


def writer_properties(rows: pa.Table, encodings: Encodings) -> deltalake.WriterProperties:
    """Return how the files of these rows are written."""
    chosen = encodings_of(rows, encodings, rows.num_rows)
    if isinstance(chosen.dictionaries, bool):
        return compressed()
    # Columns inside others cannot be named to delta-rs; they have dictionaries.
    columns = {
        field.name: deltalake.ColumnProperties(dictionary_enabled=False, encoding=chosen.others.get(field.name))
        for field in rows.schema
        if not field.type.num_fields and field.name not in chosen.dictionaries
    }
    return deltalake.WriterProperties(**COMPRESSION, column_properties=columns)
