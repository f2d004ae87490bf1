"""Write blocks as Parquet files, into a directory or an object store: one file for each range of offsets.

    ROOT/_schema.arrow                                               what every file of the root agrees on
    ROOT/{topic}+{partition:05d}+{first:020d}-{last:020d}.parquet    or below COLUMN=VALUE/ directories
    ROOT/_schema.00002.arrow …                                       the same, since a field had its first value
    ROOT/_tmp/                                                       of running workers; empty otherwise

With a root for each topic ROOT is `…/{topic}`, and `_tmp` is beside the topics. Readers take `ROOT/**/*.parquet`.
DuckDB and Arrow also take ROOT itself; Polars does not while anything else is in it. A file appears whole or not at
all. A range that is written again replaces its file, so nothing is there twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from batcher.protocols import Sink
from sinks.parquet.locations import store_for
from sinks.parquet.options import ParquetOptions
from sinks.parquet.sink import ParquetSink
from sinks.parquet.topics import TopicRootsSink


def plugin(options: Mapping[str, object]) -> Sink:
    """Return a Parquet sink that is not open yet: of one root, or of a root for each topic.

    Options: `path` (required), `compression`, `partition_by`, `coordinates`, `schema`, `layout`, `topics`,
    `max_directories`; see `ParquetOptions`. Raise ConfigurationError for options that cannot work.
    """
    settings = ParquetOptions.of(options)
    return TopicRootsSink(settings, store_for(settings.path)) if settings.by_topic else one_root(options)


def one_root(options: Mapping[str, object]) -> ParquetSink:
    """Return the sink of a root for all topics, that is not open yet. Options and errors are those of `plugin`."""
    settings = ParquetOptions.of(options)
    return ParquetSink(settings, store_for(settings.path))
