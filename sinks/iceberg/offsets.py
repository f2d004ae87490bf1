"""The offsets that a table has, in the summaries of its snapshots: so a rollback of the table takes them back too.

Each snapshot that batcher makes has the whole map, `{topic: {partition: next offset}}`. Snapshots of others, such as a
compaction, have none: then that of their nearest ancestor holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from batcher.errors import SinkMisconfigured
from batcher.records import Partition

PROPERTY: Final = "batcher.offsets"
"""The property of a snapshot."""


class Held(NamedTuple):
    """Hold the next offset of each partition, by the names that the table knows them by.

    `snapshot` is the id of the snapshot that says so; None where none does. With `lost` the table has rows and nothing
    that says so: they are of others, or the snapshots with offsets were expired. pyiceberg removes even the trace that
    there were ancestors.
    """

    next_offsets: Mapping[Partition, int]
    snapshot: int | None = None
    lost: bool = False


def read(metadata: TableMetadata) -> Held:
    """Return what the newest snapshot and its ancestors say. Raise SinkMisconfigured where it cannot be understood."""
    head = snapshot = metadata.snapshot_by_name(MAIN_BRANCH)
    while snapshot is not None:
        text = text_of(snapshot)
        if text is not None:
            return Held(parsed(text, snapshot.snapshot_id), snapshot.snapshot_id)
        above = snapshot.parent_snapshot_id
        snapshot = None if above is None else metadata.snapshot_by_id(above)
    return Held({}, lost=head is not None)


def text_of(snapshot: Snapshot) -> str | None:
    """Return what a snapshot says about offsets, as it is written there."""
    return None if snapshot.summary is None else snapshot.summary.get(PROPERTY)


def parsed(text: str, snapshot_id: int) -> dict[Partition, int]:
    """Return a map as it is written in a snapshot. Raise SinkMisconfigured for anything else."""
    try:
        return {
            Partition(topic, int(number)): int(next_offset)
            for topic, partitions in json.loads(text).items()
            for number, next_offset in partitions.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise SinkMisconfigured(
            f"snapshot {snapshot_id} has a property {PROPERTY} that batcher did not write: roll the table back to the "
            "snapshot before it"
        ) from error


def written(next_offsets: Mapping[Partition, int]) -> str:
    """Return a map as `parsed` takes it, the same text for the same map."""
    nested: dict[str, dict[str, int]] = {}
    for partition, next_offset in sorted(next_offsets.items()):
        nested.setdefault(partition.topic, {})[str(partition.number)] = next_offset
    return json.dumps(nested, separators=(",", ":"))
