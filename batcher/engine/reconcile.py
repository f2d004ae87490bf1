"""Ask a target what it already holds.

Before a replay, where it may hold what nothing has announced, and before each block of a queue that delivers again what
was not acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from batcher.engine.blocks import part_of
from batcher.errors import DataGap, SinkMisconfigured, SinkUnavailable
from batcher.protocols import Sink, SinkInfo
from batcher.protocols.sink import interruptible, message_index, queryable
from batcher.records import Batch, Block, Partition, write_id

log = structlog.get_logger(__name__)

OnExisting = Literal["halt", "skip", "write"]
"""What to do where the target holds records that were never announced nor committed."""

Reconcile = Literal["never", "replays", "always"]
"""The blocks before which the target is asked for the rows it has: none, those that may be there, or each. This needs a
target that can be asked. `always` is for callers who load records that may be there for any reason."""


class Reconciler:
    """Know which blocks may be in the target already, and which of their rows are. Write loop.

    `call` asks the target again for as long as it cannot answer.
    """

    def __init__(
        self,
        sink: Sink,
        info: SinkInfo,
        call: Callable[..., Any],
        *,
        reconcile: Reconcile = "replays",
        on_existing: OnExisting = "halt",
    ) -> None:
        self._info = info
        self._target = queryable(sink, info)
        self._server = interruptible(sink, info)
        self._messages = message_index(sink, info)
        self._call = call
        self._reconcile = reconcile
        self._on_existing = on_existing
        self._existing: dict[Partition, int] = {}
        """The highest offset that the target was found to hold above the commit, for each partition that has one."""

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return the highest offset that the target holds of each partition where it has one at or above its position.

        Nothing was announced or committed there.
        """
        if self._target is None:
            return {}
        found: Mapping[Partition, int] = self._call(self._target.max_offset_above, positions)
        return found

    def check_existing(self, positions: Mapping[Partition, int], found: Mapping[Partition, int]) -> None:
        """Raise DataGap for what `max_offset_above` found, or remember that it has to be checked row by row.

        To load those records again would make duplicates, and a topic that was made anew has other records there.
        """
        if not found:
            return
        partition, last = max(found.items(), key=lambda one: one[1] - positions[one[0]])
        if self._on_existing == "halt":
            queried = self._info.repeats == "query"
            choices = "skip to load only what is missing" if queried else "write to load them again"
            raise DataGap(
                f"{self._info.target} holds records of {partition} up to offset {last}, but the group goes on at "
                f"{positions[partition]}: its offsets expired or were reset, the topic was made anew, or another "
                f"group loads it too; commit offset {last + 1} to go on behind them, or give --on-existing {choices}"
            )
        log.warning("existing_rows", highest={str(part): offset for part, offset in sorted(found.items())})
        self._existing.update(found)

    def may_exist(self, batch: Batch) -> bool:
        """Return whether the target has to be asked for the rows of a batch."""
        if self._reconcile == "never":
            return False
        if self._reconcile == "always":
            return self._target is not None
        if batch.replayed and self._info.repeats == "query":
            return True
        return any(self._existing.get(span.partition, -1) >= span.first for span in batch.ranges)

    def after_repeat(self, batch: Batch, *, repeated: bool) -> bool:
        """Return whether the target has to be asked after a write; `repeated`: it took more than one attempt."""
        return self._info.repeats == "query" and (repeated or self.may_exist(batch))

    def missing(self, batch: Batch, block: Block) -> Block | None:
        """Return the rows of a block that the target lacks, under a token of their own; None when it has them all.

        Raise SinkUnavailable while a server still runs an earlier write of them.
        """
        if self._target is None:
            raise SinkMisconfigured(f"{self._info.target} cannot be asked for the rows it has")
        if self._server is not None:
            names = {intent.write_id for intent in batch.intents if intent.write_id} | {write_id(block.token)}
            if any(self._server.running(name) for name in sorted(names)):
                raise SinkUnavailable(f"{self._info.target} is still at an earlier insert of {batch.ranges[0]}")
        if self.recognises(batch):
            # Names are the queue's own. Two processes that numbered very many messages may have numbers in common.
            return self.unseen(batch, block)
        there = [
            pc.is_in(run.offsets, value_set=self._target.present(run.partition, run.first_offset, run.last_offset))
            for run in batch.runs
        ]
        mask = pa.concat_arrays(there).take(block.positions)
        found = mask.true_count
        log.info("rows_found", ranges=[str(span) for span in batch.ranges[:8]], rows=block.rows, there=found)
        return part_of(batch, block, pc.indices_nonzero(pc.invert(mask)))

    def recognises(self, batch: Batch) -> bool:
        """Return whether the target can be asked which messages of a batch it has, and they have names."""
        return self._messages is not None and any(run.ids is not None for run in batch.runs)

    def unseen(self, batch: Batch, block: Block) -> Block | None:
        """Return the rows of a block whose messages the target lacks, each once; None where it has them all.

        Messages without a name stay. They are asked for at each delivery, not only at a second one: the reader that
        had the first may have been frozen, and write it later than the one that has the second.
        """
        assert self._messages is not None
        ids = batch.coordinate("_message_id").take(block.positions)
        times = batch.coordinate("_timestamp").cast(pa.int64()).take(block.positions)
        bounds = pc.min_max(times)
        within = None if times.null_count else (bounds["min"].as_py(), bounds["max"].as_py())
        there = pc.is_in(ids, value_set=self._messages.stored(pc.unique(ids.drop_null()), within))
        again = pc.or_(there, _repeated(ids))
        found = again.true_count
        if found:
            log.info("redeliveries", ranges=[str(span) for span in batch.ranges[:8]], rows=block.rows, there=found)
        return part_of(batch, block, pc.indices_nonzero(pc.invert(again))) if found else block


def _repeated(ids: pa.StringArray) -> pa.BooleanArray:
    """Return for each name whether it is there before; false for null."""
    if pc.count_distinct(ids, mode="only_valid").as_py() == len(ids) - ids.null_count:
        return pa.repeat(False, len(ids))
    rows = pa.array(range(len(ids)), pa.int64())
    firsts = pa.table({"id": ids, "row": rows}).group_by("id").aggregate([("row", "min")])["row_min"]
    return pc.and_(ids.is_valid(), pc.invert(pc.is_in(rows, value_set=firsts.combine_chunks())))
