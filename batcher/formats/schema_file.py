"""Schemas from files: what `--decode.schema FILE` reads."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batcher.errors import ConfigurationError
from batcher.records import COORDINATES

_SUFFIXES: Final = (".arrow", ".parquet")


def read_schema(path: Path | str, decoded: Collection[str] = ()) -> pa.Schema:
    """Return the schema of an Arrow IPC file or stream (`.arrow`) or a Parquet file (`.parquet`).

    Coordinate columns are dropped, except for those that are `decoded`: they are filled from where a record stood, not
    from what it says. So is the metadata of the file itself. Raise ConfigurationError when the file cannot be read or
    has no other column.
    """
    path = Path(path)
    flag = f"--decode.schema {path}"
    if path.suffix not in _SUFFIXES:
        raise ConfigurationError(f"{flag}: the name has to end in {' or '.join(_SUFFIXES)}")
    try:
        schema = _arrow_schema(path) if path.suffix == ".arrow" else pq.read_schema(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{flag}: no such file") from error
    except OSError as error:
        raise ConfigurationError(f"{flag}: cannot be read: {error.strerror or _first_line(error)}") from error
    except pa.ArrowException as error:
        raise ConfigurationError(f"{flag}: is not a {path.suffix} file with a schema: {_first_line(error)}") from error
    fields = [field for field in schema if field.name in decoded or field.name not in COORDINATES.names]
    if not fields:
        raise ConfigurationError(f"{flag}: has no columns besides coordinates")
    return pa.schema(fields)


def _arrow_schema(path: Path) -> pa.Schema:
    """Read the file format, the stream format, or a bare serialized schema, which is a stream without an end."""
    with pa.OSFile(str(path), "rb") as file:
        try:
            return pa.ipc.open_file(file).schema
        except pa.ArrowInvalid:
            file.seek(0)
            return pa.ipc.open_stream(file).schema


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
