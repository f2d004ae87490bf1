"""What was measured, as values. Seconds are of the wall clock; CPU seconds are those of all threads of the process."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from batcher.options import Advice
from batcher.records import Trigger

NO_RECORD: Final = 78
"""The exit code where there is no record that could be loaded."""

StageName = Literal["consume", "fetch", "decode", "write"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Hold one stage measured alone: the records, their bytes, and the seconds they took."""

    name: StageName
    rows: int
    nbytes: int
    seconds: float
    cpu_s: float

    @property
    def rows_per_second(self) -> float:
        """Return the rate; 0 where nothing was measured."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def us_per_row(self) -> float:
        """Return the microseconds a record takes."""
        return self.seconds / self.rows * 1e6 if self.rows else 0.0

    @property
    def cpu_us_per_row(self) -> float:
        """Return the microseconds of CPU a record takes."""
        return self.cpu_s / self.rows * 1e6 if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Cut:
    """Say how large a batch was, in records and in bytes, and why it was cut."""

    rows: int
    nbytes: int
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Run:
    """Hold one run of the whole pipeline, from its first records to its last durable batch.

    `fetch_s` and `room_s` (waiting because the buffer was full) are of the fetch loop, `fetch_cpu_s` is its CPU time
    in `fetch_s`; `decode_s` and `write_s` are of the decode loop and the write loop.
    `transform_s` is part of `decode_s`.
    """

    rows: int
    nbytes: int
    seconds: float
    cpu_s: float
    fetch_s: float = 0.0
    fetch_cpu_s: float = 0.0
    room_s: float = 0.0
    decode_s: float = 0.0
    transform_s: float = 0.0
    write_s: float = 0.0
    commits: int = 0
    cuts: Sequence[Cut] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    """Bad records, by the word for their reason."""

    @property
    def rows_per_second(self) -> float:
        """Return the rate; 0 where nothing was measured."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def bytes_per_second(self) -> float:
        """Return the rate in bytes of records; 0 where nothing was measured."""
        return self.nbytes / self.seconds if self.seconds > 0 else 0.0

    def share(self, seconds: float) -> float:
        """Return the share of the run that these seconds were, 1.0 at most."""
        return min(1.0, seconds / self.seconds) if self.seconds > 0 else 0.0

    @property
    def full_cuts(self) -> Sequence[Cut]:
        """Return the batches that were not cut because the run ended; all of them where there is none."""
        return [cut for cut in self.cuts if cut.trigger not in ("end", "stop")] or list(self.cuts)

    @property
    def median_rows(self) -> int:
        """Return the median of the records in a batch; 0 without a batch."""
        return round(statistics.median([cut.rows for cut in self.full_cuts] or [0]))

    @property
    def median_bytes(self) -> int:
        """Return the median of the bytes in a batch; 0 without a batch."""
        return round(statistics.median([cut.nbytes for cut in self.full_cuts] or [0]))

    @property
    def trigger(self) -> Trigger | None:
        """Return why most batches were cut; None without a batch."""
        found = Counter(cut.trigger for cut in self.full_cuts).most_common(1)
        return found[0][0] if found else None


@dataclass(frozen=True, slots=True)
class Setup:
    """Say what was measured: the settings that advice may be about. Values are in bytes and seconds."""

    topics: tuple[str, ...]
    """Empty for generated records."""
    live: bool
    """Whether only what came in meanwhile was read, not what was there."""
    partitions: int
    sink: str
    keeps: bool
    """Whether the target keeps what it is given."""
    scratch: bool
    """Whether rows were written and not thrown away."""
    target: str
    delivery: str
    max_rows: int
    max_bytes: int
    max_wait_s: float
    memory_bytes: int
    merges: bool
    """Whether partitions share a batch."""
    may_merge: bool
    """Whether they could with --batch.merge-partitions."""
    faster: tuple[Advice, ...] = ()
    """The advice about speed from the target's own options."""
    for_large_batches: bool = False
    """Whether the target needs time for each batch."""
    slow_columns: tuple[str, ...] = ()
    """Columns that take several times as long to decode."""
    given: frozenset[str] = frozenset()
    """Properties of librdkafka that the user has set."""
    cores: int = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """Hold everything that was measured."""

    setup: Setup
    stages: Mapping[str, Stage]
    runs: Sequence[Run]
    peak_rss_bytes: int

    @property
    def typical(self) -> Run:
        """Return the run with the median rate."""
        return sorted(self.runs, key=lambda run: run.rows_per_second)[(len(self.runs) - 1) // 2]

    @property
    def exit_code(self) -> int:
        """Return 78 where no record fitted the target, because the speed of refusals is no measure; else 0."""
        return NO_RECORD if all(sum(run.refused.values()) == run.rows for run in self.runs) else 0

    @property
    def of_consume(self) -> float | None:
        """Return the rate of the pipeline over that of the client's own call; None where that was not measured."""
        bare = self.stages.get("consume")
        return self.typical.rows_per_second / bare.rows_per_second if bare and bare.rows_per_second else None

    @property
    def spread(self) -> tuple[float, float]:
        """Return the lowest and the highest rate."""
        rates = [run.rows_per_second for run in self.runs]
        return min(rates), max(rates)
