"""Bring one block to a durable end in as many parts as it takes, and say which of its rows were refused.

Flusher thread. A part that was written is durable for good: whatever follows, its rows are not offered again under
another token, unless the target was asked and does not have them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from tenacity import Retrying

from batcher.core.limits import PoisonLimit
from batcher.engine.blocks import block_of, halves_of, part_of
from batcher.engine.decoding import Decoding
from batcher.errors import (
    BatchSuperseded,
    BlockRejected,
    PoisonLimitExceeded,
    RowsRejected,
    SchemaChanged,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.protocols import Interruptible, Reconcilable, Sink, SinkInfo
from batcher.records import Batch, Block, DeadLetter, Partition, Rejection, Stage, write_id

log = structlog.get_logger(__name__)

T = TypeVar("T")

FEW: Final = 10
"""A block of at most so many rows may be nothing but bad ones; of more it is not believed."""

SUSPECT_TRIES: Final = 3
"""How often a few rows have to fail, each alone, before they are to blame and not the target."""


@dataclass(slots=True)
class _Search:
    """Note what came of the parts of a block."""

    written: bool = False
    suspects: list[DeadLetter] = field(default_factory=list)
    """Rows that failed alone although no row may be to blame."""
    changes: int = 0


class _NoRowToBlame(Exception):  # no error: it ends a search
    """End the search of a block of which nothing could be written."""


class BlockWriter:
    """Write blocks for a pipeline of some name. `refuses` says whether there is a place for dead letters.

    With `halts` a field that no column takes stops the pipeline where the decoder refused the record for it.
    """

    def __init__(
        self,
        sink: Sink,
        info: SinkInfo,
        decoding: Decoding,
        poison: PoisonLimit,
        retrying: Retrying,
        *,
        name: str,
        refuses: bool,
        halts: bool,
    ) -> None:
        self._sink = sink
        self._info = info
        self._decoding = decoding
        self._poison = poison
        self._retrying = retrying
        self._searching = retrying.copy()
        self._name = name
        self._refuses = refuses
        self._halts = halts
        self._trusted = False
        """The target took rows since rows that failed alone were last blamed."""
        self._tries = 0
        self.held: Callable[[], bool] = lambda: True
        self.existing: dict[Partition, int] = {}
        """The highest offset the target was found to hold beyond the commit, for each partition where it did."""

    def attempted(self, action: Callable[..., T], *arguments: Any) -> T:
        """Do something with the target until it works, as long as the batch is ours."""

        def attempt() -> T:
            if not self.held():
                raise BatchSuperseded("a partition of the batch changed hands")
            return action(*arguments)

        result: T = self._retrying(attempt)
        return result

    def require_place(self, letters: Sequence[DeadLetter]) -> None:
        """Raise PoisonLimitExceeded where a refused record has to stop the pipeline."""
        for letter in letters if self._halts else ():
            if letter.reason == "unknown_field":
                raise PoisonLimitExceeded(
                    f"{letter.record.partition} offset {letter.record.offset} has a field that no column takes: "
                    f"{letter.path or letter.message}; nothing from there on is committed. Give the target the column, "
                    f"or --decode.on-unknown warn to load without it"
                )
        if letters and not self._refuses:
            first = letters[0]
            raise PoisonLimitExceeded(
                f"{first.record.partition} offset {first.record.offset} cannot be loaded: {first.message} "
                f"({first.reason}); nothing from there on is committed. "
                f"Give --dlq.topic or --dlq.path to keep such records and go on"
            )

    def may_be_there(self, batch: Batch) -> bool:
        """Tell whether the target has to be asked for the rows of a batch."""
        if batch.replayed and self._info.verifies_replays:
            return True
        return any(self.existing.get(span.partition, -1) >= span.first for span in batch.ranges)

    def missing(self, batch: Batch, block: Block) -> Block | None:
        """Return the rows of a block that the target lacks, under a token of their own; None when it has them all."""
        return self.attempted(self._missing, batch, block)

    def write(self, batch: Batch, block: Block) -> list[DeadLetter]:
        """Write a block and return the rows that were refused; raise SchemaChanged where all of it can come anew.

        Where each row failed alone and none may be to blame, nothing is refused: the same block again, with an alarm.
        """
        tries = 0

        def search() -> list[DeadLetter]:
            nonlocal tries
            tries += 1
            self._poison.search()
            found = _Search()
            try:
                letters = list(self._write(batch, block, found, whole=True))
            except _NoRowToBlame as end:
                raise self._misconfigured(batch, end) from end.__cause__
            self._trusted |= found.written
            if found.suspects and len(found.suspects) == block.rows:
                if not (self._trusted and block.rows <= FEW and tries >= SUSPECT_TRIES):
                    raise self._misconfigured(batch, found.suspects[0].message)
                # Once, until the target takes rows again: a table that broke meanwhile costs these few and no more.
                self._trusted = False
            return letters + self._refuse(found.suspects)

        found: list[DeadLetter] = self._searching(search)
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

        Where it may be a repeat the target is asked afterwards: a server that died in the middle of the first attempt
        may remember the token and not have the rows (seen with a plain MergeTree), and then drops them as
        known. What is missing is written under another token, the `last` one.
        """
        try:
            self._offer(block)
        except SchemaChanged as change:
            if whole and self._tries == 1:
                raise  # nothing of it can be there
            yield from self._write_changed(batch, block, change, search, last=last)
        except RowsRejected as error:
            letters = [
                letter_of(batch, rejection, "sink", position=block.positions[rejection.position].as_py())
                for rejection in error.rejections
            ]
            yield from self._refuse(letters)
            refused = {rejection.position for rejection in error.rejections}
            rest = part_of(batch, block, [row for row in range(block.rows) if row not in refused])
            if rest is not None:
                yield from self._write(batch, rest, search)
        except BlockRejected as error:
            yield from self._halved(batch, block, error, search)
        else:
            search.written = True
            if not last and self._info.verifies_replays and (self._tries > 1 or self.may_be_there(batch)):
                rest = self.missing(batch, block)
                if rest is not None:
                    log.warning("rows_missing", ranges=[str(span) for span in batch.ranges[:8]], rows=rest.rows)
                    yield from self._write(batch, rest, search, last=True)

    def _halved(self, batch: Batch, block: Block, error: BlockRejected, search: _Search) -> Iterator[DeadLetter]:
        if not self._refuses and (error.suspect or block.rows > 1):
            if error.suspect:
                raise _NoRowToBlame(
                    f"{error} (to have a single record found, give --dlq.topic or --dlq.path)"
                ) from error
            # Looking for the row would write its neighbours, again after every restart.
            spans = ", ".join(str(span) for span in block.ranges)
            raise PoisonLimitExceeded(
                f"{self._info.target} refused a record of {spans}: {error}; nothing of it is committed. "
                f"Give --dlq.topic or --dlq.path to have the record found and kept there"
            ) from error
        if block.rows > 1:
            try:
                self._poison.bisect(str(batch.ranges[0]), error)
            except PoisonLimitExceeded:
                if error.suspect and not search.written:
                    raise _NoRowToBlame(error) from error
                raise
            for half in halves_of(batch, block):
                yield from self._write(batch, half, search)
            return
        rejection = Rejection(0, error.reason, str(error))
        letter = letter_of(batch, rejection, "sink", position=block.positions[0].as_py())
        if error.suspect:
            search.suspects.append(letter)
        else:
            yield from self._refuse([letter])

    def _write_changed(
        self, batch: Batch, block: Block, change: SchemaChanged, search: _Search, *, last: bool
    ) -> Iterator[DeadLetter]:
        """Write the rows of a block, and no others, decoded for new columns, under the token they have."""
        search.changes += 1
        if search.changes > 1:
            self._pause(SinkUnavailable(f"{self._info.target} goes on changing: {change}"))
        uncertain = self._tries > 1
        self._decoding.adopt(batch, change.schema)
        left: Block | None = block
        if uncertain and self._info.verifies_replays:
            left = self.missing(batch, block)
        if left is None:
            return
        decoded = self._decoding.again(batch).decoded
        wanted = set(left.positions.to_pylist())
        yield from self._refuse(
            [letter_of(batch, one, "decode") for one in decoded.rejections if one.position in wanted]
        )
        mine = pc.indices_nonzero(pc.is_in(decoded.positions, value_set=left.positions))
        rows = part_of(batch, block_of(self._name, self._info.coordinates, batch, decoded), mine)
        if rows is not None:
            yield from self._write(batch, replace(rows, token=block.token), search, last=last)

    def _pause(self, error: SinkUnavailable) -> None:
        """Wait as before another try."""
        errors = [error]

        def once() -> None:
            if errors:
                raise errors.pop()

        self.attempted(once)

    def _offer(self, block: Block) -> None:
        self._tries = 0

        def write() -> None:
            self._tries += 1
            self._sink.write(block)

        self.attempted(write)

    def _missing(self, batch: Batch, block: Block) -> Block | None:
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

    def _refuse(self, letters: Collection[DeadLetter]) -> list[DeadLetter]:
        found = list(letters)
        self.require_place(found)
        self._poison.refuse(found)
        return found


def letter_of(batch: Batch, rejection: Rejection, stage: Stage, *, position: int | None = None) -> DeadLetter:
    """Return the dead letter of a rejection; `position` is the row's in the batch where the rejection has another."""
    record = batch.record(rejection.position if position is None else position)
    return DeadLetter(record, stage, rejection.reason, rejection.message, rejection.path)
