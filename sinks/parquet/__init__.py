"""Write blocks as Parquet files, into a directory or an object store: one file for each range of offsets.

    ROOT/_schema.arrow                                               what every file of the root agrees on
    ROOT/{topic}+{partition:05d}+{first:020d}-{last:020d}.parquet    or below COLUMN=VALUE/ directories
    ROOT/_schema.00002.arrow …                                       the same, since a field had its first value
    ROOT/_tmp/                                                       files of running workers; otherwise empty

With a root for each topic ROOT is `…/{topic}`, and `_tmp` is beside the topics. Readers take `ROOT/**/*.parquet`.
DuckDB and Arrow also take ROOT itself; Polars does not while anything else is in it. A file appears whole or not at
all. A range that is written again replaces its file, so nothing is there twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from sinks.parquet.settings import Parquet

if TYPE_CHECKING:
    from batcher.protocols import Sink
    from sinks.parquet.sink import ParquetSink


@takes(Parquet, section="parquet")
def plugin(options: Parquet | Mapping[str, object], context: PluginContext = PluginContext()) -> Sink:  # noqa: B008
    """Return a Parquet sink that is not open yet: of one root, or of a root for each topic.

    Options are the section, or a mapping with the fields of `ParquetOptions`, of which `path` is required. Raise
    ConfigurationError for what cannot work.
    Nothing heavy is imported before this is called.
    """
    from sinks.parquet.locations import store_for  # noqa: PLC0415 - as said above
    from sinks.parquet.options import ParquetOptions  # noqa: PLC0415 - as said above
    from sinks.parquet.topics import TopicRootsSink  # noqa: PLC0415 - as said above

    given = mapping(options, context) if isinstance(options, Parquet) else options
    settings = ParquetOptions.of(given)
    return TopicRootsSink(settings, store_for(settings)) if settings.by_topic else one_root(given)


def one_root(options: Mapping[str, object]) -> ParquetSink:
    """Return the sink of a root for all topics, that is not open yet. Options and errors are those of `plugin`."""
    from sinks.parquet.locations import store_for  # noqa: PLC0415 - as said above
    from sinks.parquet.options import ParquetOptions  # noqa: PLC0415 - as said above
    from sinks.parquet.sink import ParquetSink  # noqa: PLC0415 - as said above

    settings = ParquetOptions.of(options)
    return ParquetSink(settings, store_for(settings))


def mapping(section: Parquet, context: PluginContext) -> dict[str, object]:
    """Return the section with what the pipeline knows: the topics, and the schema of a file."""
    schema = None if context.schema is None else context.schema()
    twice = sorted({f"_{word}" for word in section.coordinates} & context.decoded_coordinates)
    if twice:
        raise ConfigurationError(f"--parquet.coordinates: {twice[0]} is a column already, with what the format reads")
    named = ",".join(section.coordinates)
    given = {**section.model_dump(), "coordinates": named, "topics": context.topics, "schema": schema}
    return {name: value for name, value in given.items() if value is not None}
