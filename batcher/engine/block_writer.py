"""Write one block durably, in as many parts as it takes, and say which of its rows were refused.

Called by the write loops. A part that was written is durable for good. Whatever follows, its rows are not offered again
under another token, unless the target was asked and does not have them.

It is long because the ways in which a block may end call each other: a half may be refused in part, a part deferred.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from tenacity import Retrying

from batcher.core.limits import BatchTally
from batcher.engine.blocks import block_of, deferred_of, halves_of, part_of
from batcher.engine.decoding import Decoding
from batcher.engine.reconcile import Reconciler
from batcher.engine.shared_limit import SharedLimit
from batcher.errors import (
    BatcherError,
    BatchSuperseded,
    BlockRejected,
    DeadLetterLimitExceeded,
    DeferredTooLong,
    RowsRejected,
    SchemaChanged,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.protocols import Sink, SinkInfo
from batcher.records import Batch, Block, DeadLetter, Deferral, Outcome, Rejection, Stage

log = structlog.get_logger(__name__)

T = TypeVar("T")

Held = Callable[[], bool]
"""The lease on a batch. It is asked before each attempt whether the batch is ours, and may wait for the answer."""

FEW: Final = 10
"""In a block of at most this many rows all may be bad; of a larger block that is not believed."""

SUSPECT_TRIES: Final = 3
"""How often a few rows have to fail, each alone, before they are blamed and not the target."""


@dataclass(slots=True)
class _Search:
    """Record what became of the parts of a block."""

    held: Held
    tally: BatchTally
    written: bool = False
    suspects: list[DeadLetter] = field(default_factory=list)
    """Rows that failed alone although no row may be to blame."""
    changes: int = 0
    dropped: int = 0
    tries: int = 0
    """How often the last part was offered."""
    deferred: list[tuple[float, int, Block, str]] = field(default_factory=list)
    """Parts that a sink put off, as a heap: when each is due, a number that tells equal ones apart, and why."""
    deferrals: int = 0

    released: dict[int, float] = field(default_factory=dict)
    """Rows that are given back to their queue, by position in the batch, with the seconds until they come again."""

    def defer(self, due_at: float, part: Block, reason: str) -> None:
        self.deferrals += 1
        heapq.heappush(self.deferred, (due_at, self.deferrals, part, reason))


@dataclass(frozen=True, slots=True)
class BlockWritten:
    """Say what became of a block: the rows that were refused, and how many the sink dropped by its own rule.

    `released` are those that are given back to their queue, by position in the batch, with the seconds until they come
    again.
    """

    letters: list[DeadLetter]
    dropped: int = 0
    released: Mapping[int, float] = field(default_factory=dict)


class _NoRowToBlame(Exception):  # not an error: it ends a search
    """End the search of a block of which nothing could be written."""


class BlockWriter:
    """Write blocks. `refuses` says whether there is a place for dead letters.

    With `halts` the pipeline stops where the decoder refused a record for a field that no column takes. Rows that a
    sink defers come again for at most `patience_s` seconds, None for ever; `abort` ends their waits. With `releases`
    the source takes them back, and nothing waits for them.
    """

    def __init__(
        self,
        sink: Sink,
        info: SinkInfo,
        decoding: Decoding,
        reconciler: Reconciler,
        *,
        limit: SharedLimit,
        retrying: Retrying,
        abort: threading.Event,
        patience_s: float | None,
        refuses: bool,
        halts: bool,
        releases: bool = False,
    ) -> None:
        self._sink = sink
        self._info = info
        self._decoding = decoding
        self._reconciler = reconciler
        self._limit = limit
        self._retrying = retrying
        self._searching = retrying.copy()
        self._abort = abort
        self._patience_s = patience_s
        self._refuses = refuses
        self._halts = halts
        self._releases = releases
        self._trusted = False
        """The target has taken rows since rows that failed alone were last blamed."""

    def attempted(self, held: Held, action: Callable[..., T], *arguments: Any) -> T:
        """Call the target until it works, as long as the batch is ours. Raise BatchSuperseded."""

        def attempt() -> T:
            if not held():
                raise BatchSuperseded("a partition of the batch changed hands")
            return action(*arguments)

        result: T = self._retrying(attempt)
        return result

    def require_place(self, letters: Sequence[DeadLetter]) -> None:
        """Raise DeadLetterLimitExceeded where a refused record has to stop the pipeline."""
        for letter in letters if self._halts else ():
            if letter.reason == "unknown_field":
                raise DeadLetterLimitExceeded(
                    f"{letter.record.partition} offset {letter.record.offset} has a field that no column takes: "
                    f"{letter.path or letter.message}; nothing from there on is committed. Give the target the column, "
                    f"or --decode.on-unknown warn to load without it"
                )
        if letters and not self._refuses:
            first = letters[0]
            raise DeadLetterLimitExceeded(
                f"{first.record.partition} offset {first.record.offset} cannot be loaded: {first.message} "
                f"({first.reason}); nothing from there on is committed. "
                f"Give --dlq.topic or --dlq.path to keep such records and go on"
            )

    def missing(self, batch: Batch, block: Block, held: Held) -> Block | None:
        """Return the rows of a block that the target lacks, under a token of their own; None when it has them all."""
        return self.attempted(held, self._reconciler.missing, batch, block)

    def unseen(self, batch: Batch, block: Block, held: Held) -> Block | None:
        """Return the rows of a block whose messages the target lacks, under a token of their own; None for none."""
        return self.attempted(held, self._reconciler.unseen, batch, block)

    def write(self, batch: Batch, block: Block, held: Held, tally: BatchTally) -> BlockWritten:
        """Write a block of a batch that is counted in `tally`; raise SchemaChanged where all of it can be decoded anew.

        Where each row failed alone and none may be to blame, nothing is refused: the same block comes again, with an
        alarm.
        """
        tries = 0

        def search() -> BlockWritten:
            nonlocal tries
            tries += 1
            tally.bisected = 0
            found = _Search(held, tally)
            try:
                letters = [*self._write(batch, block, found, whole=True), *self._write_deferred(batch, found)]
            except _NoRowToBlame as end:
                raise self._misconfigured(batch, end) from end.__cause__
            self._trusted |= found.written
            if found.suspects and len(found.suspects) == block.rows:
                if not (self._trusted and block.rows <= FEW and tries >= SUSPECT_TRIES):
                    raise self._misconfigured(batch, found.suspects[0].message)
                # Once, until the target takes rows again: a table that broke meanwhile costs these few and no more.
                self._trusted = False
            return BlockWritten(letters + self._refuse(found.suspects, found), found.dropped, found.released)

        found: BlockWritten = self._searching(search)
        return found

    def _misconfigured(self, batch: Batch, refusal: object) -> SinkMisconfigured:
        return SinkMisconfigured(
            f"{self._info.target} refuses every record of {batch.ranges[0]}: {refusal}; nothing is dead-lettered, the "
            f"same records come again; look at the table and its expressions"
        )

    def _write(
        self, batch: Batch, block: Block, search: _Search, *, whole: bool = False, last: bool = False
    ) -> Iterator[DeadLetter]:
        """Write a block in as many parts as it takes, and yield the rows that were refused.

        Where it may be a repeat, the target is asked afterwards. A server that died in the middle of the first attempt
        may remember the token and not have the rows (seen with a plain MergeTree), and then drops them as known. What
        is missing is written under another token, the `last` one.
        """
        try:
            outcome = self._offer(block, search)
        except SchemaChanged as change:
            if whole and search.tries == 1:
                raise  # nothing of it can be there
            yield from self._write_changed(batch, block, change, search, last=last)
        except RowsRejected as error:
            yield from self._refuse(_letters_of(batch, block, error.rejections), search)
            rest = _without(batch, block, [rejection.position for rejection in error.rejections])
            if rest is not None:
                yield from self._write(batch, rest, search)
        except BlockRejected as error:
            yield from self._halved(batch, block, error, search)
        else:
            repeated = search.tries > 1
            durable = block if outcome is None else _without(batch, block, self._checked(block, outcome))
            search.written |= durable is not None
            if durable is not None and not last and self._reconciler.after_repeat(batch, repeated=repeated):
                rest = self.missing(batch, durable, search.held)
                if rest is not None:
                    log.warning("rows_missing", ranges=[str(span) for span in batch.ranges[:8]], rows=rest.rows)
                    yield from self._write(batch, rest, search, last=True)
            if outcome is not None:
                yield from self._written_in_part(batch, block, outcome, search)

    def _checked(self, block: Block, outcome: Outcome) -> Sequence[int]:
        """Return the rows that are not durable; raise BatcherError for an outcome that cannot be."""
        named = outcome.named()
        if len(set(named)) < len(named) or any(not 0 <= row < block.rows for row in named):
            raise BatcherError(
                f"{self._info.target}: the outcome of {block.ranges[0]} names a row twice, or one that the block does "
                "not have; correct the sink"
            )
        if named and self._info.repeats == "replace":
            raise BatcherError(
                f"{self._info.target}: a sink that replaces what it has of a range cannot write {block.ranges[0]} in "
                "part; correct the sink, or its SinkInfo.repeats"
            )
        return named

    def _written_in_part(self, batch: Batch, block: Block, outcome: Outcome, search: _Search) -> Iterator[DeadLetter]:
        search.dropped += len(outcome.dropped)
        now = time.monotonic()
        if self._releases:
            for one in outcome.deferred:
                search.released[block.positions[one.row].as_py()] = one.delay_s
            yield from self._refuse(_letters_of(batch, block, outcome.rejected), search)
            return
        for delay_s, together in groupby(sorted(outcome.deferred, key=_delay), key=_delay):
            deferred = list(together)
            rows = sorted(one.row for one in deferred)
            search.defer(now + delay_s, deferred_of(batch, block, rows), deferred[0].reason)
        yield from self._refuse(_letters_of(batch, block, outcome.rejected), search)

    def _write_deferred(self, batch: Batch, search: _Search) -> Iterator[DeadLetter]:
        """Write what was deferred, each part when it is due; one that is deferred again gets another turn here."""
        began = time.monotonic()
        while search.deferred:
            due_at, _, part, reason = heapq.heappop(search.deferred)
            self._wait(began, due_at, part, reason)
            yield from self._write(batch, part, search)

    def _wait(self, began: float, due_at: float, part: Block, reason: str) -> None:
        """Wait until a part is due; raise DeferredTooLong when that is too late or the pipeline ends.

        No error that is tried again: the rows beside these are durable, and would be offered a second time.
        """
        seconds = max(due_at - time.monotonic(), 0.0)
        log.info(
            "rows_deferred",
            target=self._info.target,
            rows=part.rows,
            wait_s=round(seconds, 3),
            reason=reason,
            ranges=[str(span) for span in part.ranges[:8]],
        )
        late = self._patience_s is not None and due_at - began > self._patience_s
        if late or self._abort.wait(seconds):
            raise DeferredTooLong(
                f"{self._info.target} still defers {part.rows} rows of {part.ranges[0]}: {reason}; "
                "nothing of their batch is committed, start again"
            )

    def _halved(self, batch: Batch, block: Block, error: BlockRejected, search: _Search) -> Iterator[DeadLetter]:
        if not self._refuses and (error.suspect or block.rows > 1):
            if error.suspect:
                raise _NoRowToBlame(
                    f"{error} (to have a single record found, give --dlq.topic or --dlq.path)"
                ) from error
            # A search for the row would write its neighbours, again after every restart.
            spans = ", ".join(str(span) for span in block.ranges)
            raise DeadLetterLimitExceeded(
                f"{self._info.target} refused a record of {spans}: {error}; nothing of it is committed. "
                f"Give --dlq.topic or --dlq.path to have the record found and kept there"
            ) from error
        if block.rows > 1:
            try:
                self._limit.bisect(search.tally, str(batch.ranges[0]), error)
            except DeadLetterLimitExceeded:
                if error.suspect and not search.written:
                    raise _NoRowToBlame(error) from error
                raise
            for half in halves_of(batch, block):
                yield from self._write(batch, half, search)
            return
        [letter] = _letters_of(batch, block, [Rejection(0, error.reason, str(error))])
        if error.suspect:
            search.suspects.append(letter)
        else:
            yield from self._refuse([letter], search)

    def _write_changed(
        self, batch: Batch, block: Block, change: SchemaChanged, search: _Search, *, last: bool
    ) -> Iterator[DeadLetter]:
        """Write exactly the rows of a block, decoded for new columns, under the token they have."""
        search.changes += 1
        if search.changes > 1:
            self._pause(SinkUnavailable(f"{self._info.target} goes on changing: {change}"), search.held)
        uncertain = search.tries > 1
        self._decoding.adopt(batch, change.schema)
        left: Block | None = block
        if uncertain and self._info.repeats == "query":
            left = self.missing(batch, block, search.held)
        if left is None:
            return
        decoded = self._decoding.again(batch).decoded
        wanted = set(left.positions.to_pylist())
        yield from self._refuse(
            [letter_of(batch, one, "decode") for one in decoded.rejections if one.position in wanted], search
        )
        mine = pc.indices_nonzero(pc.is_in(decoded.positions, value_set=left.positions))
        rows = part_of(batch, block_of(self._info, batch, decoded), mine)
        if rows is not None:
            yield from self._write(batch, replace(rows, token=block.token), search, last=last)

    def _pause(self, error: SinkUnavailable, held: Held) -> None:
        """Wait as before another attempt."""
        errors = [error]

        def once() -> None:
            if errors:
                raise errors.pop()

        self.attempted(held, once)

    def _offer(self, block: Block, search: _Search) -> Outcome | None:
        search.tries = 0

        def write() -> Outcome | None:
            search.tries += 1
            return self._sink.write(block)

        return self.attempted(search.held, write)

    def _refuse(self, letters: Collection[DeadLetter], search: _Search) -> list[DeadLetter]:
        found = list(letters)
        self.require_place(found)
        self._limit.refuse(search.tally, found)
        return found


def letter_of(batch: Batch, rejection: Rejection, stage: Stage, *, position: int | None = None) -> DeadLetter:
    """Return the dead letter of a rejection; `position` is the row's in the batch where the rejection has another."""
    record = batch.record(rejection.position if position is None else position)
    return DeadLetter(record, stage, rejection.reason, rejection.message, rejection.path)


def _letters_of(batch: Batch, block: Block, rejections: Sequence[Rejection]) -> list[DeadLetter]:
    """Return the dead letters of rows that a sink refused."""
    return [
        letter_of(batch, rejection, "sink", position=block.positions[rejection.position].as_py())
        for rejection in rejections
    ]


def _without(batch: Batch, block: Block, rows: Sequence[int]) -> Block | None:
    """Return a block without some of its rows, under a token of its own; None where none is left."""
    if not rows:
        return block
    gone = pa.array(rows, pa.int64())
    every = pa.array(range(block.rows), pa.int64())
    return part_of(batch, block, every.filter(pc.invert(pc.is_in(every, value_set=gone))))


def _delay(deferral: Deferral) -> float:
    return deferral.delay_s
