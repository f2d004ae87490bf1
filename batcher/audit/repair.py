"""Load again what is missing, through the code that a run loads with; remove duplicates and load them again.

The target is asked before each block and afterwards. So a repair makes no duplicates, also when a write was cut off in
the middle. Everything works below the commit, where no pipeline writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from batcher.audit.auditor import Finding
from batcher.audit.ranges import NONE, Runs, Span, less, spans
from batcher.core.offsets import named
from batcher.engine.writer import Writer
from batcher.protocols import Auditable, DeadLetterQueue, Removable
from batcher.records import Batch, DeadLetter, Partition, Range, Records

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 5
"""The number of names under which rows are offered: a table drops rows whose token it remembers, though they were
deleted since."""


class RepairSource(Protocol):
    """Read records again."""

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the records of a range, ascending."""


class NotingQueue:
    """Pass dead letters on and record where they came from."""

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue
        self.offsets: list[int] = []

    def open(self) -> None:
        """See `DeadLetterQueue`."""
        self._queue.open()

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Record the offsets once the dead letters are durable."""
        self._queue.send(letters)
        self.offsets += [letter.record.offset for letter in letters]

    def close(self) -> None:
        """See `DeadLetterQueue`."""
        self._queue.close()


@dataclass(frozen=True, slots=True)
class Repaired:
    """Say what was done: records loaded, dead-lettered, and removed before; and what could not be done."""

    loaded: int = 0
    dead_lettered: int = 0
    removed: int = 0
    refused: tuple[tuple[Partition, Span], ...] = ()
    """Duplicates that stay, because the log no longer has their records; the first run of each window."""
    refused_offsets: int = 0

    def plus(self, other: Repaired) -> Repaired:
        """Return both together."""
        return Repaired(
            self.loaded + other.loaded,
            self.dead_lettered + other.dead_lettered,
            self.removed + other.removed,
            self.refused + other.refused,
            self.refused_offsets + other.refused_offsets,
        )


class Repairer:
    """Repair one finding after the other.

    `writer` asks the target first what it has (`reconcile` is `always`), and its dead letters go to `queue`. Each
    attempt has a name of its own that begins with `name`. A batch has at most about `max_rows` records and `max_bytes`
    bytes. With `whole_ranges` no batch spans an offset that the target holds: for a target
    whose blocks replace others by their range. `attempt` calls what asks or changes the target, and may repeat the
    call.
    """

    def __init__(
        self,
        source: RepairSource,
        target: Auditable,
        writer: Writer,
        queue: NotingQueue | None,
        *,
        name: str,
        max_rows: int,
        max_bytes: int,
        whole_ranges: bool,
        attempt: Callable[..., Any] = lambda ask, *arguments: ask(*arguments),
    ) -> None:
        self._source = source
        self._target = target
        self._writer = writer
        self._queue = queue
        self._name = name
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._whole_ranges = whole_ranges
        self._attempt = attempt

    def load(self, finding: Finding) -> Repaired:
        """Load what is missing. Raise as `Writer.write` does, and what the source raises."""
        done = Repaired()
        apart = finding.held if self._whole_ranges else NONE
        for records in self._batches(finding.range.partition, finding.missing, apart):
            done = done.plus(self._deliver(records))
        return done

    def replace_duplicates(self, finding: Finding, target: Removable) -> Repaired:
        """Remove every copy of the duplicate records and load them again; those that the log lacks stay.

        Records are in memory before their rows are removed. Raise as `load` does.
        """
        partition = finding.range.partition
        done, left = Repaired(), finding.duplicated
        for records in self._batches(partition, finding.duplicated, NONE):
            left = less(left, records.offsets)
            runs = spans(records.offsets, finding.among).listed()
            log.warning("removing_duplicates", partition=str(partition), records=len(records), ranges=len(runs))
            self._attempt(target.remove, partition, [(run.first, run.last) for run in runs])
            done = done.plus(replace(self._deliver(records), removed=len(records)))
        if len(left):
            kept = Runs(1)
            kept.add(left, finding.among)
            done = done.plus(Repaired(refused=((partition, kept.kept[0]),), refused_offsets=len(left)))
        return done

    def _batches(self, partition: Partition, wanted: pa.Int64Array, apart: pa.Int64Array) -> Iterator[Records]:
        """Yield wanted records, ascending, in runs of a batch's size that span none of the offsets `apart`."""
        if not len(wanted):
            return
        gathered: list[Records] = []
        rows = nbytes = before = 0
        asked = Range(partition, wanted[0].as_py(), wanted[len(wanted) - 1].as_py())
        for place, run in self._pieces(asked, wanted, apart):
            full = rows + len(run) > self._max_rows or nbytes + run.nbytes > self._max_bytes
            if gathered and (full or place != before):
                yield Records.concat(gathered)
                gathered, rows, nbytes = [], 0, 0
            gathered.append(run)
            rows, nbytes, before = rows + len(run), nbytes + run.nbytes, place
        if gathered:
            yield Records.concat(gathered)

    def _pieces(self, asked: Range, wanted: pa.Int64Array, apart: pa.Int64Array) -> Iterator[tuple[int, Records]]:
        """Yield the wanted records in small runs, each with the number of offsets `apart` below it."""
        for run in self._source.records(asked):
            picked = run.filter(pc.is_in(run.offsets, value_set=wanted))
            if picked is None:
                continue
            places = pc.run_end_encode(pc.search_sorted(apart, picked.offsets, side="left"), run_end_type=pa.int64())
            start = 0
            for place, end in zip(places.values.to_pylist(), places.run_ends.to_pylist(), strict=True):
                for first in range(start, end, self._max_rows):
                    yield place, picked.slice(first, min(self._max_rows, end - first))
                start = end

    def _deliver(self, records: Records) -> Repaired:
        """Load records until the target has them or they are dead letters; each is counted once."""
        done = Repaired()
        left: Records | None = records
        for attempt in range(ATTEMPTS):
            if left is None:
                break
            if self._queue is not None:
                self._queue.offsets.clear()
            prepared = self._writer.prepare(named(f"{self._name}|{attempt}", Batch((left,), "end")))
            skipped = left.offsets.take(prepared.decoded.skipped)
            delivered = self._writer.write(prepared)
            refused = pa.array([] if self._queue is None else self._queue.offsets, pa.int64())
            there = self._attempt(self._target.copies, left.partition, left.first_offset, left.last_offset)
            settled = pa.concat_arrays([skipped, refused, there["offset"].combine_chunks()])
            rest = left.filter(pc.invert(pc.is_in(left.offsets, value_set=settled)))
            lost = 0 if rest is None else len(rest)
            done = done.plus(Repaired(max(0, delivered.written - lost), delivered.dead_lettered))
            left = rest
        return done
