"""DuckDB, shut in: no file, no network, no extension, two threads, times in UTC."""

from __future__ import annotations

from typing import Final

import duckdb

from batcher.errors import ConfigurationError

THREADS: Final = 2
"""The decode loop waits meanwhile, and the machine has other work: more of them take cores from the write loop."""

# Faults of DuckDB or of the machine, for which no row is to blame.
_OURS: Final = (duckdb.InternalException, duckdb.FatalException, duckdb.IOException, duckdb.ConnectionException)


def connected() -> duckdb.DuckDBPyConnection:
    """Return a database in memory of its own, whose settings nothing can change any more."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "threads": THREADS,
        },
    )
    connection.sql("SET TimeZone = 'UTC'")
    connection.sql("SET lock_configuration = true")
    return connection


def require_row(error: duckdb.Error, name: str) -> None:
    """Raise ConfigurationError for an error for which no row can be to blame."""
    if isinstance(error, _OURS):
        raise ConfigurationError(f"{name}: DuckDB fails: {first_line(error)}") from error


def first_line(error: duckdb.Error) -> str:
    """Return what is wrong, without the excerpt of the query. Only for queries without rows: it may quote a value."""
    return str(error).partition("\n\n")[0].replace("\n", " ")
