"""Bring one batch to a durable end: every record written, or in the dead-letter queue, or skipped by policy.

    decode ─► rows ─► Sink.write ──────────────────────────────► durable
       │       │ what may be there already: only the rows that the target lacks
       │                 │  SinkUnavailable     same block, same token, again (retry.py)
       │                 │  SinkMisconfigured   the same, with an alarm; nothing is dead-lettered
       │                 │  SchemaChanged       the same records, decoded for the target's new columns (decoding.py)
       │                 │  RowsRejected        those rows are dead letters, the rest is written
       │                 │  BlockRejected       halves, until the row stands alone
       └► rejections ────┴──────────────────────► dead letters, awaited; the same, again, until they are stored

Decoding runs one batch ahead, on a thread of its own; the rest on the flusher thread. Whatever else is raised stops
the process without a commit.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from tenacity import Retrying

from batcher.blocks import block_of, halves_of, part_of
from batcher.decoding import Decoding
from batcher.errors import (
    BatchSuperseded,
    BlockRejected,
    DataGap,
    PoisonLimitExceeded,
    RowsRejected,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.poison import PoisonLimit
from batcher.protocols import (
    DeadLetterQueue,
    Format,
    Interruptible,
    Reconcilable,
    Sink,
    SinkInfo,
)
from batcher.records import (
    Batch,
    Block,
    DeadLetter,
    Delivered,
    Partition,
    Prepared,
    Rejection,
    Stage,
    write_id,
)
from batcher.retry import RetryPolicy

log = structlog.get_logger(__name__)

T = TypeVar("T")

OnExisting = Literal["halt", "skip", "write"]
"""What to do where the target holds records that were never announced nor committed."""


class Delivery:
    """Prepare and write batches, each one at a time. `abort` ends retries at once."""

    def __init__(
        self,
        sink: Sink,
        info: SinkInfo,
        format_: Format,
        *,
        dead_letters: DeadLetterQueue | None,
        poison: PoisonLimit,
        retry: RetryPolicy,
        abort: threading.Event,
        name: str,
        on_retry: Callable[[BaseException], None] = lambda _: None,
        on_existing: OnExisting = "halt",
    ) -> None:
        self._sink = sink
        self._info = info
        self._dead_letters = dead_letters
        self._poison = poison
        self._name = name
        self._on_retry = on_retry
        self._on_existing = on_existing
        # The highest offset the target was found to hold beyond the commit, for each partition where it did.
        self._existing: dict[Partition, int] = {}
        self._held: Callable[[], bool] = lambda: True
        self._retrying: Retrying = retry.retrying(abort, self._waiting)
        self.decoding = Decoding(sink, info, format_, self._retrying)

    def prepare(self, batch: Batch) -> Prepared:
        """Decode a batch, see `Decoding.prepare`. Decoder thread."""
        return self.decoding.prepare(batch)

    def beyond(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return the highest offset that the target holds of each partition where it has one at or above its position.

        Nobody has announced or committed anything there. Flusher thread, as `judge`.
        """
        if not isinstance(self._sink, Reconcilable):
            return {}
        found: Mapping[Partition, int] = self._retrying(self._sink.beyond, positions)
        return found

    def judge(self, positions: Mapping[Partition, int], found: Mapping[Partition, int]) -> None:
        """Raise DataGap for what `beyond` found, or note that it has to be looked at row by row.

        Loading those records again would double them, and a topic that was made anew has other records there.
        """
        if not found:
            return
        partition, last = max(found.items(), key=lambda one: one[1] - positions[one[0]])
        if self._on_existing == "halt":
            choices = "skip to load only what is missing" if self._info.verifies_replays else "write to load them again"
            raise DataGap(
                f"{self._info.target} holds records of {partition} up to offset {last}, but the group goes on at "
                f"{positions[partition]}: its offsets expired or were reset, the topic was made anew, or another "
                f"group loads it too; commit offset {last + 1} to go on behind them, or give --on-existing {choices}"
            )
        log.warning("existing_rows", highest={str(part): offset for part, offset in sorted(found.items())})
        self._existing.update(found)

    def write(self, prepared: Prepared, held: Callable[[], bool] = lambda: True) -> Delivered:
        """Return when every record of the batch is durable; raise when that cannot be reached. Flusher thread.

        `held` is asked before each attempt whether the batch is still ours; it may wait for the answer.
        Raise BatchSuperseded when it is not, PoisonLimitExceeded, DeadLetterFailed, or the sink's last error when
        retrying ended.
        """
        batch, decoded = prepared.batch, prepared.decoded
        self._held = held
        started = time.perf_counter()
        refused = [(rejection.position, _letter(batch, rejection, "decode")) for rejection in decoded.rejections]
        self._require_queue([letter for _, letter in refused])
        self._poison.observe(batch.rows, refused)
        letters = [letter for _, letter in refused]
        refused_by_sink = suppressed = 0
        block: Block | None = None
        # A replay without a row may have to take away what an earlier attempt wrote under other rules.
        if decoded.table.num_rows or (batch.replayed and not self._info.verifies_replays):
            block = block_of(self._name, self._info.coordinates, batch, decoded)
        if block is not None and self._may_be_there(batch):
            rows = block.rows
            missing = self._attempted(self._missing, batch, block)
            suppressed = rows - (missing.rows if missing is not None else 0)
            # Under the block's own token: what a frozen process sends late is known by it then.
            block = None if missing is None else replace(missing, token=block.token)
        if block is not None:
            for letter in self._write(batch, block):
                refused_by_sink += 1
                letters.append(letter)
        if letters and self._dead_letters is not None:
            self._attempted(self._dead_letters.send, letters)
        return Delivered(
            rows=batch.rows,
            written=len(decoded.positions) - refused_by_sink - suppressed,
            suppressed=suppressed,
            dead_lettered=len(letters),
            skipped=len(decoded.skipped),
            refused_by_sink=refused_by_sink,
            nbytes=batch.nbytes,
            decode_s=prepared.decode_s,
            write_s=time.perf_counter() - started,
            reasons=Counter(letter.reason for letter in letters),
            unknown_fields=self.decoding.counted(decoded),
            unknown_estimated=decoded.estimated,
        )

    def _attempted(self, action: Callable[..., T], *arguments: Any) -> T:
        """Do something with the target until it works, as long as the batch is ours."""

        def attempt() -> T:
            if not self._held():
                raise BatchSuperseded("a partition of the batch changed hands")
            return action(*arguments)

        result: T = self._retrying(attempt)
        return result

    def _may_be_there(self, batch: Batch) -> bool:
        if batch.replayed and self._info.verifies_replays:
            return True
        return any(self._existing.get(span.partition, -1) >= span.first for span in batch.ranges)

    def _missing(self, batch: Batch, block: Block) -> Block | None:
        """Return the rows of a block that the target lacks, under a token of their own; None when it has them all."""
        sink = self._sink
        if not isinstance(sink, Reconcilable):
            raise SinkMisconfigured(f"{self._info.target} cannot be asked for the rows it has")
        if isinstance(sink, Interruptible):
            names = {claim.write_id for claim in batch.claims if claim.write_id} | {write_id(block.token)}
            if any(sink.running(name) for name in sorted(names)):
                raise SinkUnavailable(f"{self._info.target} is still at an earlier insert of {batch.ranges[0]}")
        there = [
            pc.is_in(run.offsets, value_set=sink.present(span.partition, span.first, span.last))
            for run, span in zip(batch.runs, batch.ranges, strict=True)
        ]
        mask = pa.concat_arrays(there).take(block.positions)
        found = mask.true_count
        log.info("rows_found", ranges=[str(span) for span in batch.ranges[:8]], rows=block.rows, there=found)
        return part_of(batch, block, pc.indices_nonzero(pc.invert(mask)))

    def _write(self, batch: Batch, block: Block, *, last: bool = False) -> Iterator[DeadLetter]:
        """Write a block in as many parts as it takes, and yield the rows that the sink refused.

        Where it may be a repeat the target is asked afterwards: a server that died in the middle of the first attempt
        may remember the token and not have the rows (seen with a plain MergeTree), and then drops them as
        known. What is missing is written under another token, the `last` one.
        """
        try:
            repeated = self._offered(block)
        except RowsRejected as error:
            letters = [
                _letter(batch, rejection, "sink", position=block.positions[rejection.position].as_py())
                for rejection in error.rejections
            ]
            yield from self._refuse(letters)
            refused = {rejection.position for rejection in error.rejections}
            rest = part_of(batch, block, [row for row in range(block.rows) if row not in refused])
            if rest is not None:
                yield from self._write(batch, rest)
        except BlockRejected as error:
            if block.rows > 1:
                if self._dead_letters is None:
                    # Looking for the row would write its neighbours, again after every restart.
                    spans = ", ".join(str(span) for span in block.ranges)
                    raise PoisonLimitExceeded(
                        f"{self._info.target} refused a record of {spans}: {error}; nothing of it is committed. "
                        f"Give --dlq.topic or --dlq.path to have the record found and put aside"
                    ) from error
                self._poison.bisect(str(batch.ranges[0]), error)
                for half in halves_of(batch, block):
                    yield from self._write(batch, half)
                return
            rejection = Rejection(0, error.reason, str(error))
            yield from self._refuse([_letter(batch, rejection, "sink", position=block.positions[0].as_py())])
        else:
            if not last and self._info.verifies_replays and (repeated or self._may_be_there(batch)):
                rest = self._attempted(self._missing, batch, block)
                if rest is not None:
                    log.warning("rows_missing", ranges=[str(span) for span in batch.ranges[:8]], rows=rest.rows)
                    yield from self._write(batch, rest, last=True)

    def _offered(self, block: Block) -> bool:
        """Write a block and tell whether that took more than one attempt."""
        attempts = 0

        def write() -> None:
            nonlocal attempts
            attempts += 1
            self._sink.write(block)

        self._attempted(write)
        return attempts > 1

    def _refuse(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        self._require_queue(letters)
        self._poison.refuse(letters)
        return letters

    def _require_queue(self, letters: Sequence[DeadLetter]) -> None:
        if letters and self._dead_letters is None:
            first = letters[0]
            raise PoisonLimitExceeded(
                f"{first.record.partition} offset {first.record.offset} cannot be loaded: {first.message} "
                f"({first.reason}); nothing from there on is committed. "
                f"Give --dlq.topic or --dlq.path to put such records aside"
            )

    def _waiting(self, attempt: int, wait_s: float, error: BaseException) -> None:
        self._on_retry(error)
        # An alarm: these do not pass by themselves.
        alarms = {"SinkMisconfigured": "sink_refused", "DeadLetterFailed": "dead_letters_refused"}
        alarm = alarms.get(type(error).__name__)
        (log.error if alarm else log.warning)(
            alarm or "sink_unavailable",
            target=self._info.target,
            attempt=attempt,
            wait_s=round(wait_s, 3),
            error=str(error),
            cause=type(error.__cause__ or error).__name__,
        )


def _letter(batch: Batch, rejection: Rejection, stage: Stage, *, position: int | None = None) -> DeadLetter:
    record = batch.record(rejection.position if position is None else position)
    return DeadLetter(record, stage, rejection.reason, rejection.message, rejection.path)
