"""Bring one batch to a durable end: every record written, or in the dead-letter queue, or skipped by policy.

    decode ─► rows ─► Sink.write ──────────────────────────────► durable
       │       │ what may be there already: only the rows that the target lacks
       │                 │  SinkUnavailable     same block, same token, again (retry.py)
       │                 │  SinkMisconfigured   the same, with an alarm; nothing is dead-lettered
       │                 │  SchemaChanged       the same records, decoded for the target's new columns (decoding.py)
       │                 │  RowsRejected        those rows are dead letters, the rest is written
       │                 │  BlockRejected       halves, until the row stands alone
       └► rejections ────┴──────────────────────► dead letters, awaited; the same, again, until they are stored

Decoding runs one batch ahead, on a thread of its own; the rest on the flusher thread (`block_writer.py` has what is
done to a block). Whatever else is raised stops the process without a commit.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import structlog
from tenacity import Retrying

from batcher.core.limits import PoisonLimit
from batcher.engine.block_writer import BlockWriter, letter_of
from batcher.engine.blocks import block_of
from batcher.engine.decoding import Decoding
from batcher.engine.refusals import Refusals
from batcher.engine.retry import RetryPolicy, in_words
from batcher.errors import DataGap, SchemaChanged, SinkUnavailable
from batcher.protocols import DeadLetterQueue, Format, Reconcilable, Sink, SinkInfo
from batcher.records import Batch, Block, Delivered, Partition, Prepared

log = structlog.get_logger(__name__)

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
        halt_on_unknown: bool = False,
    ) -> None:
        self._sink = sink
        self._info = info
        self._dead_letters = dead_letters
        self._poison = poison
        self._name = name
        self._on_retry = on_retry
        self._on_existing = on_existing
        self._refusals = Refusals()
        self._retrying: Retrying = retry.retrying(abort, self._waiting)
        self._changing = self._retrying.copy()
        self.decoding = Decoding(sink, info, format_, self._retrying)
        self._writer = BlockWriter(
            sink,
            info,
            self.decoding,
            poison,
            self._retrying,
            name=name,
            refuses=dead_letters is not None,
            halts=halt_on_unknown,
        )

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
        self._writer.existing.update(found)

    def write(self, prepared: Prepared, held: Callable[[], bool] = lambda: True) -> Delivered:
        """Return when every record of the batch is durable; raise when that cannot be reached. Flusher thread.

        `held` is asked before each attempt whether the batch is still ours; it may wait for the answer.
        Raise BatchSuperseded when it is not, PoisonLimitExceeded, DeadLetterFailed, or the sink's last error when
        retrying ended.
        """
        self._writer.held = held
        started = time.perf_counter()
        latest = prepared
        changes = 0

        def attempt() -> Delivered:
            nonlocal latest, changes
            while True:
                if not self.decoding.current(latest):
                    latest = self.decoding.again(latest.batch)
                try:
                    return self._delivered(latest, started)
                except SchemaChanged as change:
                    self._poison.take_back()
                    self.decoding.adopt(latest.batch, change.schema)
                    changes += 1
                    if changes > 1:
                        raise SinkUnavailable(f"{self._info.target} goes on changing: {change}") from change

        delivered: Delivered = self._changing(attempt)
        return delivered

    def _delivered(self, prepared: Prepared, started: float) -> Delivered:
        batch, decoded, writer = prepared.batch, prepared.decoded, self._writer
        refused = [(rejection.position, letter_of(batch, rejection, "decode")) for rejection in decoded.rejections]
        letters = [letter for _, letter in refused]
        writer.require_place(letters)
        self._poison.observe(batch.rows, refused, skipped=len(decoded.skipped))
        suppressed = 0
        block: Block | None = None
        # A replay without a row may have to take away what an earlier attempt wrote under other rules.
        if decoded.table.num_rows or (batch.replayed and not self._info.verifies_replays):
            block = block_of(self._name, self._info.coordinates, batch, decoded)
        if block is not None and writer.may_be_there(batch):
            rows = block.rows
            missing = writer.missing(batch, block)
            suppressed = rows - (missing.rows if missing is not None else 0)
            # Under the block's own token: what a frozen process sends late is known by it then.
            block = None if missing is None else replace(missing, token=block.token)
        late = [] if block is None else writer.write(batch, block)
        letters += late
        if letters and self._dead_letters is not None:
            writer.attempted(self._dead_letters.send, letters)
            self._refusals.tell(batch, letters)
        return Delivered(
            rows=batch.rows,
            written=len(decoded.positions) - len(late) - suppressed,
            suppressed=suppressed,
            dead_lettered=len(letters),
            skipped=len(decoded.skipped),
            refused_by_sink=sum(letter.stage == "sink" for letter in late),
            nbytes=batch.nbytes,
            decode_s=prepared.decode_s,
            write_s=time.perf_counter() - started,
            reasons=Counter(letter.reason for letter in letters),
            unknown_fields=self.decoding.counted(decoded),
            unknown_estimated=decoded.estimated,
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
            **({"cause": in_words(error.__cause__)} if error.__cause__ is not None else {}),
        )
