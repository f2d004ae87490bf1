"""Write blocks into a table of Apache Iceberg, in any catalog that pyiceberg knows: one commit a block.

How far each partition was loaded is in the snapshot that holds the rows (`offsets.py`). What the sinks of lake tables
have in common is in `sinks.lake`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batcher.plugins import PluginContext, takes
from sinks.iceberg.settings import Iceberg

if TYPE_CHECKING:
    from batcher.protocols import Sink


@takes(Iceberg, section="iceberg")
def plugin(options: Iceberg | Mapping[str, object], context: PluginContext = PluginContext()) -> Sink:  # noqa: B008
    """Return an Iceberg sink that is not open yet, from its section or a mapping with the fields of it.

    Raise ConfigurationError for what cannot work. Nothing heavy is imported before this is called.
    """
    from sinks.iceberg.options import IcebergOptions  # noqa: PLC0415 - as said above
    from sinks.iceberg.table import IcebergTable  # noqa: PLC0415 - as said above
    from sinks.lake.sink import LakeSink, lake_options  # noqa: PLC0415 - as said above

    section = options if isinstance(options, Iceberg) else Iceberg.model_validate(dict(options))
    return LakeSink(lake_options(section, context, "--iceberg.table"), IcebergTable(IcebergOptions.of(section)))
