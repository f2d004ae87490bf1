"""What can be set about the table of the Iceberg sink, checked while it is constructed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sinks.iceberg.partition import TablePartition, of_rules
from sinks.iceberg.settings import Iceberg
from sinks.lake.partition import lake_rules


@dataclass(frozen=True, slots=True)
class IcebergOptions:
    """Hold the settings of one table.

    `partition_by` and `properties` are for a table that is made. `snapshots` is how many of its own snapshots the sink
    keeps; 0 for all. `timeout_s` bounds each answer.
    """

    catalog: Mapping[str, str] = field(repr=False)
    table: tuple[str, ...]
    partition_by: tuple[TablePartition, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    snapshots: int = 125
    timeout_s: float = 60.0
    lake_id: str = ""

    @staticmethod
    def of(section: Iceberg) -> IcebergOptions:
        """Return the settings of a section; raise ConfigurationError for partitions that cannot be."""
        return IcebergOptions(
            dict(section.catalog),
            tuple((section.table or "").split(".")),
            of_rules(lake_rules(section.partition_by, "--iceberg.partition-by")),
            dict(section.property),
            section.snapshots,
            section.timeout.total_seconds(),
            section.lake_id,
        )
