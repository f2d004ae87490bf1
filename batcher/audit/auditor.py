"""Compare log, target and dead letters, a window at a time.

read = written + dead-lettered + skipped, and what a transform filters is skipped. What is in a window of the log and in
none of the three is missing. What the target has more than once is a duplicate. What is only in the target
(its record expired, or was compacted away since) is counted and is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from batcher.audit.ranges import NONE, WINDOW, Runs, Span, common, inside, less, place, union, windows
from batcher.audit.scope import Scope
from batcher.protocols import Auditable
from batcher.records import Partition, Range

log = structlog.get_logger(__name__)

Letters = Mapping[Partition, pa.Int64Array]
"""The offsets of the dead letters of each partition, ascending, each once."""


class AuditedLog(Protocol):
    """Say which records a range of a log has."""

    def offsets(self, asked: Range) -> tuple[pa.Int64Array, pa.BooleanArray]:
        """Return the offsets of the records that can be read, ascending, and which of them have no value."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what became of the records of one window. Columns of offsets are int64, ascending, each once."""

    range: Range
    records: int
    """Records in the log. Where it was not read, because the target has every offset of the window: the offsets."""
    inferred: bool
    """The log was not read."""
    written: int
    """Records of the log that the target has."""
    only_written: int
    """Offsets that the target has and the log does not, or no longer."""
    dead_lettered: int
    """Records of the log that are a dead letter and not in the target."""
    tombstones: int
    """Records without a value, skipped by policy: in neither place."""
    only_dead_letters: int
    """Offsets of dead letters that neither the log nor the target has. Not known where the log was not read."""
    missing: pa.Int64Array
    duplicated: pa.Int64Array
    copies_too_many: int
    both: pa.Int64Array
    """In the target and a dead letter."""
    held: pa.Int64Array
    """All offsets of the window that the target has."""
    among: pa.Int64Array
    """All offsets of the window that the log or the target has."""
    filtered: int = 0
    """Records that a transform leaves out: in neither place."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Hold what is reported of one kind of offsets: how many, in how many runs, and the first of these."""

    offsets: int
    ranges: int
    spans: tuple[Span, ...]

    @staticmethod
    def of(runs: Runs) -> Kept:
        """Return what has been gathered."""
        return Kept(runs.offsets, runs.ranges, runs.kept)


@dataclass(frozen=True, slots=True)
class Account:
    """Say what became of the records of one partition.

    `records == written + dead_lettered + tombstones + filtered + missing`.
    """

    scope: Scope
    records: int
    inferred: int
    """Those of `records` in windows that the target has without a hole, so that the log was not read."""
    written: int
    only_written: int
    dead_lettered: int
    tombstones: int
    gaps: int
    """Offsets at which the log has no record for readers: compacted away, aborted, control records."""
    copies_too_many: int
    missing: Kept
    duplicated: Kept
    both: Kept
    only_dead_letters: int = 0
    """Offsets that are a dead letter and that the log does not have, or no longer."""
    beyond: int | None = None
    """The highest offset that the target holds at or above the end of what was checked."""
    letters_beyond: Span | None = None
    """The dead letters at or above the log's end."""
    filtered: int = 0
    """Records that a transform leaves out."""

    @property
    def rows_beyond(self) -> bool:
        """Return whether the target holds an offset that the log never had."""
        return self.beyond is not None and self.beyond >= self.scope.log_next

    @property
    def adds_up(self) -> bool:
        """Return whether every record is accounted for, once, and the log is the one that was loaded from."""
        return not (self.missing.offsets or self.duplicated.offsets or self.scope.expired or self.of_another_log)

    @property
    def of_another_log(self) -> bool:
        """Return whether something is committed, stored or refused that lies after the log's end."""
        return bool(self.scope.cut or self.rows_beyond or self.letters_beyond)


def examine(
    window: Range,
    copies: pa.Table,
    read: Callable[[Range], tuple[pa.Int64Array, pa.BooleanArray]],
    letters: pa.Int64Array,
    *,
    skips_tombstones: bool = True,
) -> Finding:
    """Return what became of a window.

    `copies` is what `Auditable.copies` answers for it. `read` is called for the log (see `AuditedLog`), unless the
    target has every offset: then nothing can be missing, whatever the log says.
    """
    held: Any = copies["offset"].combine_chunks()
    times: Any = copies["copies"].combine_chunks()
    several = pc.greater(times, 1)
    letters = inside(letters, window.first, window.last)
    if len(held) == window.last - window.first + 1:
        offsets, filtered, inferred = held, NONE, True
    else:
        offsets, nulls = read(window)
        filtered, inferred = offsets.filter(nulls) if skips_tombstones else NONE, False
    absent = less(offsets, held)
    refused = common(absent, letters)
    unrefused = less(absent, letters)
    missing = less(unrefused, filtered)
    written = len(offsets) - len(absent)
    return Finding(
        range=window,
        records=len(offsets),
        inferred=inferred,
        written=written,
        only_written=len(held) - written,
        dead_lettered=len(refused),
        tombstones=len(unrefused) - len(missing),
        only_dead_letters=len(less(less(letters, offsets), held)),
        missing=missing,
        duplicated=held.filter(several),
        copies_too_many=(pc.sum(times).as_py() or 0) - len(held),
        both=common(held, letters),
        held=held,
        # Nearly always the log has all that the target has.
        among=offsets if written == len(held) else union(offsets, held),
    )


class Auditor:
    """Check partitions. `attempt` calls what asks the target, with its arguments, and may repeat the call.

    `filtered` returns those of some offsets, ascending, whose records a transform leaves out; None without a transform.
    """

    def __init__(
        self,
        log: AuditedLog,
        target: Auditable,
        letters: Letters,
        *,
        skips_tombstones: bool = True,
        window: int = WINDOW,
        kept: int = 1000,
        attempt: Callable[..., Any] = lambda ask, *arguments: ask(*arguments),
        filtered: Callable[[Partition, pa.Int64Array], pa.Int64Array] | None = None,
    ) -> None:
        self._filtered = filtered
        self._log = log
        self._target = target
        self._letters = letters
        self._skips_tombstones = skips_tombstones
        self._window = window
        self._kept = kept
        self._attempt = attempt

    def findings(self, scope: Scope) -> Iterator[Finding]:
        """Yield what is found in each window of a scope, ascending. Raise what log and target raise."""
        for window in windows(scope.partition, scope.first, scope.next_offset, self._window):
            yield self.look(window)

    def look(self, window: Range) -> Finding:
        """Return what is found in one window."""
        copies = self._attempt(self._target.copies, *window)
        letters = self._letters.get(window.partition, NONE)
        found = examine(window, copies, self._log.offsets, letters, skips_tombstones=self._skips_tombstones)
        if self._filtered is not None and len(found.missing):
            gone = self._filtered(window.partition, found.missing)
            found = replace(found, filtered=len(gone), missing=less(found.missing, gone))
        log.debug(
            "window_examined",
            range=str(window),
            records=found.records,
            written=found.written,
            missing=len(found.missing),
            duplicated=len(found.duplicated),
        )
        return found

    def account(self, scope: Scope) -> Account:
        """Return what became of a scope, and log it."""
        missing, duplicated, both = Runs(self._kept), Runs(self._kept), Runs(self._kept)
        records = inferred = written = only_written = dead_lettered = tombstones = only_letters = too_many = 0
        filtered = 0
        for one in self.findings(scope):
            records += one.records
            inferred += one.records if one.inferred else 0
            written += one.written
            only_written += one.only_written
            dead_lettered += one.dead_lettered
            tombstones += one.tombstones
            filtered += one.filtered
            only_letters += one.only_dead_letters
            too_many += one.copies_too_many
            for runs, offsets in ((missing, one.missing), (duplicated, one.duplicated), (both, one.both)):
                runs.add(offsets, one.among)
        log.info("partition_verified", partition=str(scope.partition), records=records, missing=missing.offsets)
        return Account(
            scope=scope,
            records=records,
            inferred=inferred,
            written=written,
            only_written=only_written,
            dead_lettered=dead_lettered,
            tombstones=tombstones,
            filtered=filtered,
            gaps=scope.next_offset - scope.first - records,
            copies_too_many=too_many,
            missing=Kept.of(missing),
            duplicated=Kept.of(duplicated),
            both=Kept.of(both),
            only_dead_letters=only_letters,
        )

    def letters_from(self, partition: Partition, offset: int) -> Span | None:
        """Return the dead letters of a partition at an offset and above it; None where there are none."""
        found = self._letters.get(partition, NONE)
        found = found.slice(place(found, offset))
        return Span(found[0].as_py(), found[-1].as_py(), len(found)) if len(found) else None
