"""Write blocks into a Delta table, on a disk or in an object store: one commit for each block, over all its partitions.

Each commit has, beside its files, a transaction for each partition (`batcher|TOPIC|PARTITION`). Its version is the next
offset to load. So the table itself says what it has, and refuses a process that was taken for dead and wakes up. The
protocol is Delta's own ("Transaction Identifiers"), through delta-rs.

Nothing here forks: delta-rs has threads that a fork would lose. Workers are processes that are started anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batcher.plugins import PluginContext, takes
from sinks.delta.settings import Delta

if TYPE_CHECKING:
    from batcher.protocols import Sink


@takes(Delta, section="delta")
def plugin(options: Delta | Mapping[str, object], context: PluginContext = PluginContext()) -> Sink:  # noqa: B008
    """Return a Delta sink that is not open yet, from its section or a mapping with the fields of it.

    Raise ConfigurationError for what cannot work. Nothing heavy is imported before this is called.
    """
    from sinks.delta.options import DeltaOptions  # noqa: PLC0415 - as said above
    from sinks.delta.table import DeltaLakeTable  # noqa: PLC0415 - as said above
    from sinks.lake.sink import LakeSink, lake_options  # noqa: PLC0415 - as said above

    section = options if isinstance(options, Delta) else Delta.model_validate(dict(options))
    return LakeSink(lake_options(section, context, "--delta.path"), DeltaLakeTable(DeltaOptions.of(section)))
