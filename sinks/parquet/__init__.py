"""Write blocks as Parquet files, into a directory or an object store: one file for each range of offsets.

    ROOT/_schema.arrow                                               what every file of the root agrees on
    ROOT/{topic}+{partition:05d}+{first:020d}-{last:020d}.parquet    or below COLUMN=VALUE/ directories
    ROOT/_tmp/                                                       of running workers; empty otherwise

Readers take `ROOT/**/*.parquet`. DuckDB and Arrow also take ROOT itself; Polars does not while anything else is in it.
A file appears whole or not at all. A range that is written again replaces its file, so nothing is doubled.
"""

from __future__ import annotations

from collections.abc import Mapping

from sinks.parquet.options import ParquetOptions
from sinks.parquet.sink import ParquetSink, store_for


def plugin(options: Mapping[str, object]) -> ParquetSink:
    """Return a Parquet sink that is not open yet.

    Options: `path` (required), `compression`, `partition_by`, `coordinates`, `schema`; see `ParquetOptions`.
    Raise ConfigurationError for options that cannot work.
    """
    settings = ParquetOptions.of(options)
    return ParquetSink(settings, store_for(settings.path))
