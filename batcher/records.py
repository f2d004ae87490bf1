"""The values that travel through the pipeline, from a fetched record to a written block.

Records live in Arrow columns from the moment they are fetched; a Python object for each record exists
only on the rare paths (dead letters, messages to people). All classes are frozen: a value handed to
another thread never changes behind its back.

It is long because every other module needs several of these values, and they refer to each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa

Headers = tuple[tuple[str, bytes | None], ...]
"""The headers of one record, in order; names may repeat."""

HEADERS_TYPE: Final = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
"""The Arrow type of `Records.headers`."""

COORDINATES: Final = pa.schema(
    [
        pa.field("_topic", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("_timestamp", pa.timestamp("ms", "UTC")),
        pa.field("_key", pa.binary()),
        pa.field("_headers", HEADERS_TYPE),
        pa.field("_message_id", pa.string()),
        pa.field("_attempt", pa.int32()),
        pa.field("_value", pa.binary()),
    ]
)
"""The coordinate columns a target may have, with the types in which they are handed to a sink.

`_value` is the whole message as it came, for targets that keep it beside its fields. `_headers` is null for a record
without any. `_message_id` and `_attempt` are null where the source knows neither (see `Records`).
"""

RESCUED: Final = pa.field("_rescued", pa.string())
"""The column that `--decode.on-unknown rescue` fills: compact JSON of what no column takes, or null."""

PLACEHOLDER: Final = pa.schema([pa.field("nothing", pa.string())])
"""The schema for a batch of which no record can be read: a decoder needs one, and no row will have it."""

RAW_JSON: Final = b"batcher.raw_json"
"""Field metadata key: this string column takes any JSON value as its text (ClickHouse `JSON`)."""

COLUMN_TYPE: Final = b"batcher.type"
"""Field metadata key: the target's own name for the type of this column (`DateTime`), for messages to people."""

SORTED: Final = b"batcher.sorted"
"""Field metadata key: the target keeps its rows in the order of this column, with others or alone. Rows that are equal
there may be one row to it."""

Trigger = Literal["rows", "bytes", "age", "memory", "end", "stop", "range", "saturated", "asked"]
"""Why a batch was sealed. `memory`: the buffer was full and nothing else was due. `range`: a range that an intent
announces was read to its end. `saturated`: the source hands out nothing more until something is committed."""

Stage = Literal["decode", "sink"]
"""Where a record was refused."""


class Partition(NamedTuple):
    """Name one partition of one topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


Releases = Mapping[Partition, Mapping[int, float]]
"""Records that are given back to their queue: for each offset, the seconds until it comes again."""


class Range(NamedTuple):
    """Name a run of offsets of one partition, both ends included; offsets inside may be missing."""

    partition: Partition
    first: int
    last: int

    @property
    def next_offset(self) -> int:
        """Return the next offset to read after this range."""
        return self.last + 1

    def __str__(self) -> str:
        return f"{self.partition} {self.first}-{self.last}"


class Intent(NamedTuple):
    """Name a range of offsets that is written as one, fixed before its first byte is written and kept at every replay.

    The intents of a partition touch: each begins where the one before it ended, whatever offsets the log really has,
    because compaction may remove the first or the last record between a write and its replay. `first_ms` is the
    timestamp that the first record had when the range was sealed. `write_id` is empty, or names the write (see
    `write_id`) of a batch that held several partitions.
    """

    range: Range
    first_ms: int | None = None
    write_id: str = ""


MAX_INTENTS: Final = 8
"""The most ranges that one commit announces. As JSON each takes at most 80 bytes, so all of them stay below 1 KB;
Kafka's brokers take 4,096 bytes of metadata."""


class Position(NamedTuple):
    """Say where to read next, with what a commit announces about the records behind it.

    `next_offset` is the first offset that is not durable yet. `intents` are the ranges about to be written, ascending,
    each beginning where the one before it ended; how they are stored is left to the source. `mark` is empty, or says
    who announced them: no two commits of different processes or ownerships have the same mark. `unreadable` says why
    what was stored with the offset cannot be understood, where that is so.
    """

    next_offset: int
    intents: tuple[Intent, ...] = ()
    mark: str = ""
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """Hold one record as Python values: for dead letters and messages to people, never where speed matters."""

    partition: Partition
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Records:
    """Hold a run of raw records of one partition in columns, offsets strictly ascending.

    All arrays have the same length, which is at least 1. Offsets may have gaps (compaction, control records). A null
    value is a tombstone; a null timestamp means that the broker had none.
    """

    partition: Partition
    offsets: pa.Int64Array
    timestamps_ms: pa.Int64Array
    keys: pa.BinaryArray
    values: pa.BinaryArray | pa.ChunkedArray
    """In chunks where runs were joined: copying them into one would cost more than anything else done with them."""
    headers: pa.ListArray | None = None
    """`HEADERS_TYPE`, or None where no record of the run has headers."""
    ids: pa.StringArray | None = None
    """The queue's own name of each message, the same at each delivery; None where the source has none."""
    attempts: pa.Int32Array | None = None
    """How often the queue has delivered each message, this delivery included: 1 for the first."""
    nbytes: int = field(init=False, compare=False)
    """The bytes of the columns, for the memory bound. Computed once, because Arrow needs 5 us a column for it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nbytes", sum(column.nbytes for column in self._columns() if column is not None))

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def first_offset(self) -> int:
        """Return the offset of the first record."""
        return int(self.offsets[0].as_py())

    @property
    def last_offset(self) -> int:
        """Return the offset of the last record."""
        return int(self.offsets[len(self.offsets) - 1].as_py())

    @property
    def next_offset(self) -> int:
        """Return the next offset to read after this run."""
        return self.last_offset + 1

    def filter(self, mask: pa.BooleanArray) -> Records | None:
        """Return the rows where the mask is true; None where it is true nowhere."""
        found = mask.true_count
        if found in (0, len(self)):
            return self if found else None
        return self._each(lambda column: column.filter(mask))

    def slice(self, start: int, length: int | None = None) -> Records:
        """Return rows `start` to `start + length` without copying; raise ValueError if that is no row."""
        stop = len(self) if length is None else min(start + length, len(self))
        if not 0 <= start < stop:
            raise ValueError(f"slice {start}:{stop} of {len(self)} records is empty")
        return self._each(lambda column: column.slice(start, stop - start))

    def record(self, index: int) -> Record:
        """Return one record as Python values."""
        headers = None if self.headers is None else self.headers[index].as_py()
        return Record(
            self.partition,
            self.offsets[index].as_py(),
            self.timestamps_ms[index].as_py(),
            self.keys[index].as_py(),
            self.values[index].as_py(),
            tuple((header["key"], header["value"]) for header in headers or ()),
        )

    @staticmethod
    def concat(runs: Sequence[Records]) -> Records:
        """Join runs of one partition, in ascending order of offsets, into one; values become chunks, not copies."""
        if len(runs) == 1:
            return runs[0]
        partition = runs[0].partition
        if any(run.partition != partition for run in runs):
            raise ValueError("only runs of one partition can be joined")
        return Records(
            partition,
            pa.concat_arrays([run.offsets for run in runs]),
            pa.concat_arrays([run.timestamps_ms for run in runs]),
            pa.concat_arrays([run.keys for run in runs]),
            pa.chunked_array([chunk for run in runs for chunk in chunks_of(run.values)], pa.binary()),
            headers_of(runs),
            ids_of(runs),
            attempts_of(runs),
        )

    def _columns(self) -> tuple[Any, ...]:
        return (
            self.offsets,
            self.timestamps_ms,
            self.keys,
            self.values,
            self.headers,
            self.ids,
            self.attempts,
        )

    def _each(self, change: Callable[[Any], Any]) -> Records:
        return Records(self.partition, *(None if column is None else change(column) for column in self._columns()))


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold what is written together: runs of one or more partitions, and why they were sealed.

    Sealed batches hold the runs as they were fetched. `joined` has one for each partition, in ascending order, and
    everything after the seal works on that one. A *position* is a row's number in a joined batch, from 0.
    """

    runs: tuple[Records, ...]
    trigger: Trigger
    number: int = 0
    """Counts the batches of this process; for logs only, never part of a token."""
    intents: tuple[Intent, ...] = ()
    """One for each partition, in ascending order, given by the core when the batch is begun. Until then they are made
    from the runs."""
    replayed: bool = False
    """It was announced before, and some or all of it may already be written."""
    token: str = ""
    """The name of these rows for the target, given with the intents."""
    nbytes: int = -1
    """The bytes of the raw records. Fixed when it is sealed, so that the memory bound counts the same when runs are
    joined."""

    def __post_init__(self) -> None:
        if not self.intents:
            object.__setattr__(self, "intents", tuple(_intent(runs) for runs in by_partition(self.runs)))
        if self.nbytes < 0:
            object.__setattr__(self, "nbytes", sum(run.nbytes for run in self.runs))

    @property
    def rows(self) -> int:
        """Return the number of records."""
        return sum(len(run) for run in self.runs)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Return the range of offsets of each partition."""
        return tuple(intent.range for intent in self.intents)

    def joined(self) -> Batch:
        """Return the batch with one run for each partition; offsets, times and keys are copied, values are not.

        Sorted too where each partition has one run: they were fetched in any order.
        """
        return replace(self, runs=merged(self.runs))

    def values(self) -> pa.ChunkedArray:
        """Return the values of all records, in order of position; nothing is copied."""
        return pa.chunked_array([chunk for run in self.runs for chunk in chunks_of(run.values)], pa.binary())

    def coordinate(self, name: str) -> pa.Array:
        """Return one of the columns of `COORDINATES` for all records, in order of position."""
        kind = COORDINATES.field(name).type
        columns: dict[str, Callable[[Records], list[pa.Array]]] = {
            "_topic": lambda run: [pa.repeat(pa.scalar(run.partition.topic, kind), len(run))],
            "_partition": lambda run: [pa.repeat(pa.scalar(run.partition.number, kind), len(run))],
            "_offset": lambda run: [run.offsets],
            "_timestamp": lambda run: [run.timestamps_ms.cast(kind)],
            "_key": lambda run: [run.keys],
            "_headers": lambda run: [pa.nulls(len(run), kind) if run.headers is None else run.headers],
            "_message_id": lambda run: [pa.nulls(len(run), kind) if run.ids is None else run.ids],
            "_attempt": lambda run: [pa.nulls(len(run), kind) if run.attempts is None else run.attempts],
            "_value": lambda run: chunks_of(run.values),
        }
        # All chunks of all runs at once: values are large, and each step in between would copy them again.
        parts = [part for run in self.runs for part in columns[name](run)]
        return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)

    def record(self, position: int) -> Record:
        """Return the record at a position; raise IndexError if there is no such record."""
        run, row = self._row(position)
        return run.record(row)

    def place(self, position: int) -> tuple[Partition, int]:
        """Return partition and offset of the record at a position; raise IndexError if there is no such record."""
        run, row = self._row(position)
        return run.partition, run.offsets[row].as_py()

    def _row(self, position: int) -> tuple[Records, int]:
        for run in self.runs:
            if position < len(run):
                return run, position
            position -= len(run)
        raise IndexError("position is beyond the batch")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Say which row cannot be loaded and why.

    `position` is the row's position in the batch. Inside `RowsRejected`, raised by a sink, it is the row's number in
    the block. `reason` is one word for counting (`syntax`, `overflow`, `null`, …). `message` is one line for people
    that names the field and quotes no value. `path` is the field (`a.b`).
    """

    position: int
    reason: str
    message: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class UnknownField:
    """Say that rows of a batch had a value in a field that no column takes.

    `path` is the field (`a.b`), `records` is how many rows had it, `position` is one of the first of them. A field that
    is null is not counted: nothing is lost with it.
    """

    path: str
    records: int
    position: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """Hold the outcome of decoding a batch: each position is in exactly one of the three places.

    `table` has one row for each entry of `positions` (ascending int64) and exactly the decoder's schema.
    `skipped` are positions without a row by policy (tombstones, rows that a transform filtered), ascending int64;
    `filtered` are the latter alone. `unknown` are the fields of the rows that are not in the table; with `estimated`
    their counts were scaled up from a sample of the batch. With `outgrown` a row has the first value of a field that
    had none when the schema was made (its type is null there). Then the outcome must not be used, and the batch has to
    be decoded again with a schema that has the field's type. `notes` are lines for people about columns, each given
    once by a decoder. `transform_s` are the seconds that a transform took.
    """

    table: pa.Table
    positions: pa.Int64Array
    rejections: tuple[Rejection, ...] = ()
    skipped: pa.Int64Array = field(default_factory=lambda: pa.array([], pa.int64()))
    unknown: tuple[UnknownField, ...] = ()
    estimated: bool = False
    outgrown: bool = False
    notes: tuple[str, ...] = ()
    filtered: pa.Int64Array = field(default_factory=lambda: pa.array([], pa.int64()))
    transform_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RawColumns:
    """Hold the records behind the rows of a block as they came, for a sink that asks for them.

    Row i belongs to row i of the block's table. `values` and `keys` are binary, `timestamps_ms` int64, `headers` is
    `HEADERS_TYPE`; `ids` are strings and `attempts` int32, as in `Records`. The last three are None where no record of
    the batch has any.
    """

    values: pa.ChunkedArray
    keys: pa.BinaryArray
    timestamps_ms: pa.Int64Array
    headers: pa.ListArray | None
    ids: pa.StringArray | None = None
    attempts: pa.Int32Array | None = None

    def take(self, rows: pa.Int64Array) -> RawColumns:
        """Return some rows."""
        columns: tuple[Any, ...] = (self.values, self.keys, self.timestamps_ms, self.headers, self.ids, self.attempts)
        return RawColumns(*(None if column is None else column.take(rows) for column in columns))


@dataclass(frozen=True, slots=True)
class Block:
    """Hold what a sink writes in one go.

    `table` is one contiguous record batch (`len(table.to_batches()) == 1`, at least one row): the decoded columns, then
    the coordinate columns the sink asked for. Row i is the record at `positions[i]` of the batch. `token` is the same
    for the same rows, in every process and on every attempt; that of a part of a batch is the whole's, followed by `|`
    and 16 hexadecimal digits, once or more often. `ranges` are those of the whole batch, rejected rows included.
    `replayed` says that an earlier attempt may have written some of it already, perhaps under other rules. Only then a
    block may have no rows (`to_batches()` is empty), where the sink is not queried. `raw` has the records as they came,
    where the sink asked for them (`SinkInfo.raw`).
    """

    table: pa.Table
    positions: pa.Int64Array
    token: str
    ranges: tuple[Range, ...]
    replayed: bool = False
    raw: RawColumns | None = None

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return int(self.table.num_rows)


@dataclass(frozen=True, slots=True)
class Deferral:
    """Say that a row of a block could not be written yet, and after how many seconds to offer it again."""

    row: int
    delay_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say what became of the rows of a block that was written in part; rows that are not named are durable.

    `rejected` rows can never be written, and go to the dead-letter queue. `deferred` rows come again after their delay:
    a queue that takes them back delivers them again (capability `release` of a source), else they come as a smaller
    block under a token derived from this one. `dropped` rows are dropped without a trace by the sink's own rule, and
    are counted as skipped. Rows are numbers in the block; a row is named at most once.
    """

    rejected: tuple[Rejection, ...] = ()
    deferred: tuple[Deferral, ...] = ()
    dropped: tuple[int, ...] = ()

    def named(self) -> tuple[int, ...]:
        """Return the rows that are not durable."""
        return (
            *(rejection.position for rejection in self.rejected),
            *(deferral.row for deferral in self.deferred),
            *self.dropped,
        )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Hold a record that was refused, with where and why it was refused (see `Rejection` for the fields)."""

    record: Record
    stage: Stage
    reason: str
    message: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Hold a batch with what decoding made of it, ready to be written."""

    batch: Batch
    decoded: Decoded
    decode_s: float
    schema: pa.Schema | None = None
    """The schema it was decoded for; None where no record could be read and the target has no schema yet."""
    dropped: bool = False
    """It was not decoded: its records came while the off switch dropped what came."""
    ready_at: float | None = None
    """When decoding had ended, by `time.perf_counter`."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Say what became of a batch: `rows == written + suppressed + dead_lettered + skipped + released`."""

    rows: int
    written: int
    suppressed: int
    """Rows that the target already had, from an earlier attempt that was never committed."""
    dead_lettered: int
    skipped: int
    refused_by_sink: int
    """The dead letters that the sink refused; the others could not be decoded."""
    nbytes: int
    decode_s: float
    write_s: float
    """Seconds in the sink, with retries and waits."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """The dead letters, by reason."""
    unknown_fields: Mapping[str, int] = field(default_factory=dict)
    """Rows that had a value in a field that no column takes, by the field's path."""
    unknown_estimated: bool = False
    """The counts of unknown fields were scaled up from a sample of the batch."""
    dropped: int = 0
    """The skipped rows that the sink dropped by a rule of its own; the others are skipped by policy."""
    filtered: int = 0
    """The skipped rows that a transform filtered."""
    paused: int = 0
    """The skipped rows that came while the off switch dropped records."""
    transform_s: float = 0.0
    """The seconds of `decode_s` that a transform took."""
    waited_s: float = 0.0
    """Seconds between decoding and writing, in which others were written."""
    releases: Releases = field(default_factory=dict)
    """The rows that the sink deferred and that are given back to their queue."""

    @property
    def released(self) -> int:
        """Return how many rows are given back to their queue."""
        return sum(map(len, self.releases.values()))


def write_id(token: str) -> str:
    """Return a short name for the writes under a token, fit for a query id: 32 hexadecimal digits.

    The parts of a batch share it: a process that replays the batch knows neither which parts there were nor which of
    them a server is still writing.
    """
    return hashlib.sha256(whole_token(token).encode()).hexdigest()[:32]


def whole_token(token: str) -> str:
    """Return the token of the batch that a token was derived from; itself where it is one."""
    return _PARTS.sub("", token)


_PARTS: Final = re.compile(r"(\|[0-9a-f]{16})+\Z")


def headers_of(runs: Sequence[Records]) -> pa.ListArray | None:
    """Return the headers of some runs as one column, or None where no record of them has any."""
    return _joined([run.headers for run in runs], runs, HEADERS_TYPE)


def ids_of(runs: Sequence[Records]) -> pa.StringArray | None:
    """Return the names of the messages of some runs as one column, or None where no run has any."""
    return _joined([run.ids for run in runs], runs, pa.string())


def attempts_of(runs: Sequence[Records]) -> pa.Int32Array | None:
    """Return how often each message of some runs was delivered as one column, or None where no run says it."""
    return _joined([run.attempts for run in runs], runs, pa.int32())


def _joined(columns: Sequence[Any], runs: Sequence[Records], kind: pa.DataType) -> Any:
    if all(column is None for column in columns):
        return None
    parts = [pa.nulls(len(run), kind) if one is None else one for one, run in zip(columns, runs, strict=True)]
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


def chunks_of(values: pa.BinaryArray | pa.ChunkedArray) -> list[pa.BinaryArray]:
    """Return the arrays of a column that may be in chunks."""
    return values.chunks if isinstance(values, pa.ChunkedArray) else [values]


def as_one(values: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, which is a copy unless there is one chunk."""
    return values.chunk(0) if values.num_chunks == 1 else pa.concat_arrays(values.chunks)


def by_partition(runs: Iterable[Records]) -> list[list[Records]]:
    """Return runs grouped by partition, partitions in ascending order, the runs of each in the order they came."""
    groups: dict[Partition, list[Records]] = {}
    for run in runs:
        groups.setdefault(run.partition, []).append(run)
    return [groups[partition] for partition in sorted(groups)]


def merged(runs: Iterable[Records]) -> tuple[Records, ...]:
    """Join runs so that each partition has one run, partitions in ascending order."""
    return tuple(Records.concat(group) for group in by_partition(runs))


def _intent(runs: Sequence[Records]) -> Intent:
    first = runs[0]
    first_ms: int | None = first.timestamps_ms[0].as_py()
    return Intent(Range(first.partition, first.first_offset, runs[-1].last_offset), first_ms)
