"""Make one batch durable: every record written, or in the dead-letter queue, or skipped by policy.

    decode ─► rows ─► Sink.write ──────────────────────────────► durable
       │       │ what may be there already: only the rows that the target lacks (reconcile.py)
       │                 │  SinkUnavailable     same block, same token, again (retry.py)
       │                 │  SinkMisconfigured   the same, with an alarm; nothing is dead-lettered
       │                 │  SchemaChanged       the same records, decoded for the target's new columns (decoding.py)
       │                 │  RowsRejected        those rows are dead letters, the rest is written
       │                 │  BlockRejected       halves, until the row stands alone
       │                 │  an Outcome          its rows refused, dropped, offered again later, or given back to a
       │                 │                      queue that takes them; the rest is durable
       └► rejections ────┴──────────────────────► dead letters, awaited; the same, again, until they are stored

Decoding runs ahead, in the decode loop. The rest runs in the write loops (`block_writer.py` has what is done to a
block). Any other error stops the process without a commit.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import structlog
from tenacity import Retrying

from batcher.core.limits import BatchTally, DeadLetterLimit
from batcher.engine.block_writer import BlockWriter, BlockWritten, Held, letter_of
from batcher.engine.blocks import block_of
from batcher.engine.decoding import Decoding
from batcher.engine.evolution import EvolutionPolicy
from batcher.engine.reconcile import OnExisting, Reconcile, Reconciler
from batcher.engine.refusals import Refusals
from batcher.engine.retry import RetryPolicy, in_words
from batcher.engine.shared_limit import SharedLimit
from batcher.errors import (
    BatchSuperseded,
    DeadLetterFailed,
    SchemaChanged,
    SchemasUnavailable,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.protocols import DeadLetterQueue, Format, Sink, SinkInfo
from batcher.records import Batch, Block, DeadLetter, Decoded, Delivered, Partition, Prepared, Range, Releases

log = structlog.get_logger(__name__)

_ALARMS: dict[type[BaseException], str] = {
    SinkMisconfigured: "sink_refused",
    DeadLetterFailed: "dead_letters_refused",
    SchemasUnavailable: "schemas_unavailable",
}
"""A failure that does not pass by itself is an error in the log."""


class Writer:
    """Prepare and write batches. Setting `abort` ends retries at once.

    One thread prepares. One writes, or several where the sink takes several blocks at a time (`SinkInfo.concurrent`);
    each has a batch of its own. What they share is the limit, which counts the refused records of all, the dead-letter
    queue, which is called by one at a time, and the columns. There may be several writers in one process, each with a
    sink of its own. `on_retry` and `on_settled` are told of each failure that is followed by another attempt, and of
    its end, with the first range of the batch, on the thread that met it. With `releases` rows that the sink defers are
    given back to their queue, and nothing waits for them. While `dropping` says so, records are skipped unread.
    """

    def __init__(
        self,
        sink: Sink,
        info: SinkInfo,
        format_: Format,
        *,
        dead_letters: DeadLetterQueue | None,
        limit: DeadLetterLimit,
        retry: RetryPolicy,
        abort: threading.Event,
        on_retry: Callable[[BaseException, Range | None], None] = lambda _, __: None,
        on_settled: Callable[[Range], None] = lambda _: None,
        reconcile: Reconcile = "replays",
        on_existing: OnExisting = "halt",
        halt_on_unknown: bool = False,
        releases: bool = False,
        evolution: EvolutionPolicy = EvolutionPolicy(),  # noqa: B008 - frozen
        dropping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._info = info
        self._dead_letters = dead_letters
        self._sending = threading.Lock()
        self._limit = SharedLimit(limit)
        self._on_retry = on_retry
        self._on_settled = on_settled
        self._under_way = _UnderWay()
        self._dropping = dropping
        self._refusals = Refusals()
        retrying: Retrying = retry.retrying(abort, self._waiting)
        self._changing = retrying.copy()
        # A second one, because `_preparing` is the decode loop's.
        self._preparing = retry.retrying(abort, self._waiting, errors=(SchemasUnavailable,))
        self.decoding = Decoding(sink, info, format_, retrying, evolution)
        self.reconciler = Reconciler(sink, info, retrying, reconcile=reconcile, on_existing=on_existing)
        self._blocks = BlockWriter(
            sink,
            info,
            self.decoding,
            self.reconciler,
            limit=self._limit,
            retrying=retrying,
            abort=abort,
            patience_s=retry.max_elapsed_s,
            refuses=dead_letters is not None,
            halts=halt_on_unknown,
            releases=releases,
        )

    def prepare(self, batch: Batch) -> Prepared:
        """Decode a joined batch, see `Decoding.prepare`, again while the format cannot ask for schemas. Decode loop."""
        # Some of a replay may be in the target already: it is completed.
        if not batch.replayed and self._dropping():
            return Prepared(batch, Decoded(pa.table({}), pa.array([], pa.int64())), 0.0, dropped=True)
        with self._noting(batch):
            prepared: Prepared = self._preparing(self.decoding.prepare, batch)
        return prepared

    def write(self, prepared: Prepared, held: Held = lambda: True) -> Delivered:
        """Return when every record of the batch is durable; raise when that cannot be done. Write loops.

        `held` is the lease on the batch. Raise BatchSuperseded when it is lost, DeadLetterLimitExceeded,
        DeadLetterFailed, or the sink's last error when retries ended.
        """
        started = time.perf_counter()
        if prepared.dropped:
            return _dropped(prepared.batch)
        latest = prepared
        changes = 0

        def attempt() -> Delivered:
            nonlocal latest, changes
            while True:
                if not self.decoding.current(latest):
                    latest = self.decoding.again(latest.batch)
                refused = self._refused(latest)
                tally = self._observed(latest, refused)
                try:
                    delivered = self._delivered(latest, [letter for _, letter in refused], held, tally, started)
                except SchemaChanged as change:
                    self._limit.take_back(tally)
                    self.decoding.adopt(latest.batch, change.schema)
                    changes += 1
                    if changes > 1:
                        raise SinkUnavailable(f"{self._info.target} goes on changing: {change}") from change
                else:
                    self._limit.settle(tally)
                    return delivered

        with self._noting(prepared.batch):
            delivered: Delivered = self._changing(attempt)
        return delivered

    def _refused(self, prepared: Prepared) -> list[tuple[int, DeadLetter]]:
        """Return the dead letters of what cannot be decoded, by position."""
        batch = prepared.batch
        refused = [(one.position, letter_of(batch, one, "decode")) for one in prepared.decoded.rejections]
        self._blocks.require_place([letter for _, letter in refused])
        return refused

    def _observed(self, prepared: Prepared, refused: Sequence[tuple[int, DeadLetter]]) -> BatchTally:
        decoded = prepared.decoded
        skipped = len(decoded.skipped) - len(decoded.filtered)
        return self._limit.observe(prepared.batch.rows, refused, skipped=skipped)

    def _delivered(
        self, prepared: Prepared, letters: list[DeadLetter], held: Held, tally: BatchTally, started: float
    ) -> Delivered:
        batch, decoded = prepared.batch, prepared.decoded
        block = self._block(prepared)
        suppressed = 0
        if block is not None and self.reconciler.may_exist(batch):
            rows, token = block.rows, block.token
            block = self._blocks.missing(batch, block, held)
            suppressed = rows - (block.rows if block is not None else 0)
            # Under the block's own token: then what a frozen process sends late is recognised by it.
            block = None if block is None else replace(block, token=token)
        elif block is not None and self.reconciler.recognises(batch):
            rows = block.rows
            block = self._blocks.unseen(batch, block, held)
            suppressed = rows - (block.rows if block is not None else 0)
        written = BlockWritten([]) if block is None else self._blocks.write(batch, block, held, tally)
        letters += written.letters
        if letters and self._dead_letters is not None:
            self._blocks.attempted(held, self._send, letters)
            with self._sending:
                self._refusals.tell(batch, letters)
        released = len(written.released)
        return Delivered(
            rows=batch.rows,
            written=len(decoded.positions) - len(written.letters) - written.dropped - suppressed - released,
            suppressed=suppressed,
            dead_lettered=len(letters),
            skipped=len(decoded.skipped) + written.dropped,
            refused_by_sink=sum(letter.stage == "sink" for letter in written.letters),
            nbytes=batch.nbytes,
            decode_s=prepared.decode_s,
            write_s=time.perf_counter() - started,
            reasons=Counter(letter.reason for letter in letters),
            unknown_fields=self.decoding.counted(decoded),
            unknown_estimated=decoded.estimated,
            dropped=written.dropped,
            filtered=len(decoded.filtered),
            transform_s=decoded.transform_s,
            # What was decoded again meanwhile was ready after the write had begun.
            waited_s=0.0 if prepared.ready_at is None else max(started - prepared.ready_at, 0.0),
            releases=_by_offset(batch, written.released),
        )

    def _block(self, prepared: Prepared) -> Block | None:
        """Return what is to be written of a batch; None for nothing."""
        batch, decoded = prepared.batch, prepared.decoded
        # A replay without a row may have to remove what an earlier attempt wrote under other rules.
        if decoded.table.num_rows or (batch.replayed and self._info.repeats != "query"):
            return block_of(self._info, batch, decoded)
        return None

    def _send(self, letters: Sequence[DeadLetter]) -> None:
        assert self._dead_letters is not None
        with self._sending:
            self._dead_letters.send(letters)

    @contextmanager
    def _noting(self, batch: Batch) -> Iterator[None]:
        """Say which batch a failure in here is of, and that it has passed where none ends it."""
        under_way = self._under_way
        under_way.range, under_way.failed = batch.ranges[0], False
        passed = True
        try:
            yield
        except BaseException as error:
            passed = isinstance(error, BatchSuperseded)
            raise
        finally:
            if under_way.failed and passed:
                self._on_settled(batch.ranges[0])
            under_way.range = None

    def _waiting(self, attempt: int, wait_s: float, error: BaseException) -> None:
        self._under_way.failed = True
        self._on_retry(error, self._under_way.range)
        alarm = _ALARMS.get(type(error))
        (log.error if alarm else log.warning)(
            alarm or "sink_unavailable",
            target=self._info.target,
            attempt=attempt,
            wait_s=round(wait_s, 3),
            error=str(error),
            **({"cause": in_words(error.__cause__)} if error.__cause__ is not None else {}),
        )


class _UnderWay(threading.local):
    """Know what a thread is at: the first range of its batch, and whether an attempt at it has failed."""

    range: Range | None = None
    failed: bool = False


def _by_offset(batch: Batch, released: Mapping[int, float]) -> Releases:
    """Return rows to give back, named by their positions in a batch, by their partitions and offsets."""
    found: dict[Partition, dict[int, float]] = {}
    for position, delay_s in released.items():
        partition, offset = batch.place(position)
        found.setdefault(partition, {})[offset] = delay_s
    return found


def _dropped(batch: Batch) -> Delivered:
    """Return what became of a batch that was skipped unread."""
    return Delivered(
        rows=batch.rows,
        written=0,
        suppressed=0,
        dead_lettered=0,
        skipped=batch.rows,
        refused_by_sink=0,
        nbytes=batch.nbytes,
        decode_s=0.0,
        write_s=0.0,
        paused=batch.rows,
    )
