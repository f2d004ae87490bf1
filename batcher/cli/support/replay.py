"""Load dead letters into the target once more, through the same code as live records.

The coordinates of the original records make it safe to do twice, or again after a crash: before anything is written,
the target is asked which of them it has. Two kinds of targets can be asked:

* a table that can be queried: `Writer` asks, and asks again after a write that may have been a repeat;
* files named by their range of offsets. A file of the same name would replace the one that is there. So only runs of
  records are written between whose ends the target holds nothing: no file can have such a name yet.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

import pyarrow as pa

from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.core.offsets import named
from batcher.dead_letters.kit.report import ReplayReport
from batcher.dead_letters.kit.select import StoredLetter
from batcher.engine.evolution import EvolutionPolicy
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import ConfigurationError
from batcher.protocols import Format, Reconcilable, Sink, SinkInfo
from batcher.protocols.sink import queryable, topic_pinning
from batcher.records import HEADERS_TYPE, PLACEHOLDER, Batch, DeadLetter, Partition, Records

MAX_SPAN: Final = 2_000_000
"""Offsets from the first to the last of a run: the target may return every one of them, 8 bytes each."""

EVERYWHERE: Final = (1 << 63) - 1

Run = list[StoredLetter]
"""Dead letters of one partition, ascending by offset, each record once."""


class Loading:
    """Write dead letters to an opened sink and count in `report` what became of each.

    Raise ConfigurationError at once for a target that cannot be asked what it has. With `dry_run` dead letters are
    decoded and the target is asked, and nothing is written. Setting `abort` ends retries.
    """

    def __init__(
        self,
        sink: Sink,
        info: SinkInfo,
        format_: Format,
        report: ReplayReport,
        *,
        retry: RetryPolicy,
        abort: threading.Event,
        name: str,
        dry_run: bool = False,
        evolution: EvolutionPolicy = EvolutionPolicy(),  # noqa: B008 - frozen
    ) -> None:
        self._asked = _that_answers(sink, info)
        self._sink = sink
        self._info = info
        self._format = format_
        self._report = report
        self._dry_run = dry_run
        self._refused: list[DeadLetter] = []
        self._topics: set[str] = set()
        self._retrying = retry.retrying(abort, _waiting)
        # A name other than the pipeline's: a table must not take these rows for a repeat of their old batch, nor files
        # for another attempt at it.
        self._name = f"{name}|letters"
        self._writer = Writer(
            sink,
            info,
            format_,
            dead_letters=self,
            # Here every single record may fail, because each has failed before.
            limit=DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_consecutive=EVERYWHERE, max_bisect=EVERYWHERE)),
            retry=retry,
            abort=abort,
            reconcile="always",
            evolution=evolution,
        )

    def open(self) -> None:
        """Do nothing: as the dead-letter queue of the delivery it is always there."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Take what was refused again; it stays where it is stored."""
        self._refused.extend(letters)

    def close(self) -> None:
        """Do nothing."""

    def take(self, step: Sequence[StoredLetter]) -> None:
        """Load the dead letters of a step. Raise the sink's last error when retries ended."""
        runs: dict[Partition, list[Run]] = {}
        for stored in step:
            if stored.letter.record.value is None:
                self._report.skipped["no_value"] += 1
            else:
                runs.setdefault(stored.letter.record.partition, [[]])[0].append(stored)
        self._topics |= {partition.topic for partition in runs}
        self._refuse_one_schema_for_all()
        for partition, (letters,) in sorted(runs.items()):
            runs[partition] = list(spans(sorted(letters, key=_offset)))
        if self._info.repeats == "query" and not self._dry_run:
            for together in zip_longest(*(runs[partition] for partition in sorted(runs))):
                self._load([run for run in together if run])
            return
        for of_partition in runs.values():
            for run in of_partition:
                self._load_missing(run)

    def _refuse_one_schema_for_all(self) -> None:
        """Raise ConfigurationError where one topic's dead letters would give a new target its schema for all topics."""
        if len(self._topics) > 1 and self._info.schema is None and not (self._info.by_topic or self._info.acts):
            topics = sorted(self._topics)
            raise ConfigurationError(
                f"{self._info.target} has no schema yet, and there are dead letters of {len(topics)} topics "
                f"({', '.join(topics[:3])}): give -t as for run, or one topic at a time with --where topic={topics[0]}"
            )

    def _load_missing(self, run: Run) -> None:
        there = self._there(run)
        missing = [stored for stored in run if _offset(stored) not in there]
        self._report.already_there += len(run) - len(missing)
        if self._dry_run:
            self._try(missing)
            return
        for island in islands(missing, sorted(there)):
            self._load([island])

    def _there(self, run: Run) -> set[int]:
        partition, first, last = run[0].letter.record.partition, _offset(run[0]), _offset(run[-1])
        found: set[int] = set(self._retrying(self._asked.present, partition, first, last).to_pylist())
        return found

    def _load(self, runs: Sequence[Run]) -> None:
        if not self._info.mixes_partitions and len(runs) > 1:
            for run in runs:
                self._load([run])
            return
        batch = named(self._name, batch_of(runs))
        self._refused = []
        done = self._writer.write(self._writer.prepare(batch))
        self._report.replayed += done.written
        self._report.already_there += done.suppressed
        self._report.unknown.update(done.unknown_fields)
        self._skip(done.skipped, done.filtered)
        self._blame([stored for run in runs for stored in run])

    def _skip(self, skipped: int, filtered: int) -> None:
        self._report.skipped["tombstone"] += skipped - filtered
        self._report.skipped["filtered"] += filtered

    def _blame(self, letters: Run) -> None:
        """Count what was refused, unless the target has it all the same: it may have been corrected by hand."""
        by_coordinates = {(stored.letter.record.partition, _offset(stored)): stored for stored in letters}
        refused = [(by_coordinates[one.record.partition, one.record.offset], one) for one in self._refused]
        for partition in sorted({one.record.partition for one in self._refused}):
            here = sorted((pair for pair in refused if pair[1].record.partition == partition), key=_offset_of_pair)
            there = self._there([stored for stored, _ in here])
            for stored, one in here:
                if one.record.offset in there:
                    self._report.already_there += 1
                else:
                    self._report.fail(stored, one.reason, one.message)

    def _try(self, letters: Run) -> None:
        """Decode dead letters as `_load` would, and count."""
        if not letters:
            return
        batch = batch_of([letters])
        schema = self._schema_of(batch)
        decoded = self._format.decoder(schema).decode(batch)
        while decoded.outgrown:
            schema = self._format.grow(schema, batch)
            decoded = self._format.decoder(schema).decode(batch)
        self._report.unknown.update({one.path: one.records for one in decoded.unknown})
        self._report.replayed += len(decoded.positions)
        self._skip(len(decoded.skipped), len(decoded.filtered))
        for rejection in decoded.rejections:
            self._report.fail(letters[rejection.position], rejection.reason, rejection.message)

    def _schema_of(self, batch: Batch) -> pa.Schema:
        """Return the columns for which a batch would be decoded; the target is given none."""
        held = self._info.schema
        topics = topic_pinning(self._sink, self._info)
        if topics is not None:
            held = self._retrying(topics.schema_of, batch.runs[0].partition.topic)
        proposed = self._format.infer(batch) if held is None else held
        return PLACEHOLDER if proposed is None else proposed


class _Forgetful:
    """Answer for a sink that keeps nothing of what it does."""

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:  # noqa: ARG002
        return pa.array([], pa.int64())

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:  # noqa: ARG002
        return {}


def _that_answers(sink: Sink, info: SinkInfo) -> Reconcilable:
    if info.acts:
        return _Forgetful()
    # Files answer where they have offsets. A target with neither a table's promise nor a file's name does not.
    answers = info.repeats == "query" or (info.repeats == "replace" and "_offset" in info.coordinates)
    target = queryable(sink, info)
    if answers and target is not None:
        return target
    raise ConfigurationError(
        f"{info.target} cannot be asked which records it has, so replaying twice would double them: give the table the "
        "columns _topic, _partition and _offset (files: --parquet.coordinates default), or use --to topic"
    )


def batch_of(runs: Sequence[Run]) -> Batch:
    """Return the records of runs, one of each partition, as a batch."""
    return Batch(tuple(_records(run) for run in runs), "end")


def spans(letters: Run, most: int = MAX_SPAN) -> Iterator[Run]:
    """Cut dead letters, ascending, where a run of them would span more than `most` offsets."""
    start = 0
    for index in range(1, len(letters) + 1):
        if index == len(letters) or _offset(letters[index]) - _offset(letters[start]) >= most:
            yield letters[start:index]
            start = index


def islands(letters: Run, there: Sequence[int]) -> Iterator[Run]:
    """Cut dead letters, ascending, wherever an offset of `there`, also ascending, lies between two of them."""
    start = 0
    for index in range(1, len(letters) + 1):
        if index < len(letters):
            following = bisect_left(there, _offset(letters[index - 1]))
            if following == len(there) or there[following] > _offset(letters[index]):
                continue
        yield letters[start:index]
        start = index


def _records(run: Run) -> Records:
    records = [stored.letter.record for stored in run]
    headers = None
    if any(record.headers for record in records):
        listed = [[{"key": name, "value": content} for name, content in record.headers] for record in records]
        headers = pa.array(listed, HEADERS_TYPE)
    return Records(
        records[0].partition,
        pa.array([record.offset for record in records], pa.int64()),
        pa.array([record.timestamp_ms for record in records], pa.int64()),
        pa.array([record.key for record in records], pa.binary()),
        pa.array([record.value for record in records], pa.binary()),
        headers,
    )


def _offset(stored: StoredLetter) -> int:
    return stored.letter.record.offset


def _offset_of_pair(pair: tuple[StoredLetter, DeadLetter]) -> int:
    return pair[1].record.offset


def replay(
    steps: Iterable[list[StoredLetter]],
    take: Callable[[list[StoredLetter]], None],
    passed: Callable[[int], None],
    stop: threading.Event,
) -> bool:
    """Take one step after the other until `stop` is set; return whether all were taken."""
    for step in steps:
        if stop.is_set():
            return False
        take(step)
        passed(len(step))
    return True


def _waiting(attempt: int, wait_s: float, error: BaseException) -> None:
    logging.getLogger(__name__).warning("attempt %d, next in %.1f s: %s", attempt, wait_s, error)


def quiet(record: Any) -> bool:
    """Return whether a log record of the delivery is news.

    Records that are refused again are in the report.
    """
    message = record.msg
    return not (isinstance(message, dict) and message.get("event") == "records_refused")
