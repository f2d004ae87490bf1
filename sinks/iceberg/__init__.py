"""Write blocks into a table of Apache Iceberg, in any catalog that pyiceberg knows: one commit a block.

How far each partition was loaded is in the snapshot that holds the rows (`offsets.py`). What the sinks of lake tables
have in common is in `sinks.lake`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from sinks.iceberg.settings import Iceberg

if TYPE_CHECKING:
    from batcher.protocols import Sink


@takes(Iceberg, section="iceberg")
def plugin(options: Iceberg, context: PluginContext = PluginContext()) -> Sink:  # noqa: B008
    """Return an Iceberg sink that is not open yet. Raise ConfigurationError for what cannot work.

    Nothing heavy is imported before this is called.
    """
    from sinks.iceberg.options import IcebergOptions  # noqa: PLC0415 - as said above
    from sinks.iceberg.table import IcebergTable  # noqa: PLC0415 - as said above
    from sinks.lake.coordinate import chosen  # noqa: PLC0415 - as said above
    from sinks.lake.sink import LakeOptions, LakeSink  # noqa: PLC0415 - as said above

    chosen_columns = chosen(options.coordinates)
    twice = sorted(set(chosen_columns) & context.decoded_coordinates)
    if twice:
        raise ConfigurationError(f"--iceberg.coordinates: {twice[0]} is a column already, with what the format reads")
    schema = None if context.schema is None else context.schema()
    lake = LakeOptions(chosen_columns, options.lake_id, schema, "--iceberg.table")
    return LakeSink(lake, IcebergTable(IcebergOptions.of(options)))
