"""The seams: what the pipeline asks of a source, a format, a sink and a dead-letter queue.

Each contract says who calls, from which thread, and what returning means. Implementations may be
written outside this project; `tests/contract` holds the laws they are tested against.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

import pyarrow as pa

from batcher.records import Batch, Block, DeadLetter, Decoded, Partition, Position, Records

COPIES: Final = pa.schema(
    [pa.field("offset", pa.int64(), nullable=False), pa.field("copies", pa.int64(), nullable=False)]
)
"""The columns of what `Auditable.copies` answers."""

Guarantee = Literal["exactly-once", "at-least-once"]


class PartitionListener(Protocol):
    """Hear about partitions coming and going. Called inside `Source.fetch` or `close`, on the consumer thread."""

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        """Take over partitions; reading starts at each position, whose note is the one last committed.

        Return those that are not taken because their note cannot be understood: the source delivers nothing from
        them, and counts them as exhausted.
        """

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Give partitions up. May call `Source.commit` for them until it returns; afterwards they are foreign."""

    def on_lost(self, partitions: Collection[Partition]) -> None:
        """Learn that partitions are already foreign: nothing about them may be committed any more."""


class Source(Protocol):
    """Deliver records. Every method is called from the consumer thread and no other."""

    def open(self, listener: PartitionListener) -> None:
        """Connect and subscribe. Raise Unreachable, and be called again then, or ConfigurationError."""

    def fetch(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        """Return at most `max_records` records that have come in, after at most about `timeout_s` seconds.

        Raise RecordUnreadable for a place that nobody can read, once everything before it was returned; it is called
        again all the same, for its callbacks.

        Several runs of one partition may be returned, ascending. The listener is called inside; records of a
        partition revoked during the call are not returned. Has to be called regularly, also while everything
        is paused: it keeps the membership alive. Raise SourceLost or DataGap when reading on could lose records.
        """

    def pause(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing from these partitions until they are resumed. Newly assigned ones are never paused."""

    def resume(self, partitions: Collection[Partition]) -> None:
        """Deliver from these partitions again, from where delivery stopped."""

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Make the positions the ones a successor starts from. Returning means all of them are stored.

        Retries by itself what is worth a retry, for at most about `timeout_s` seconds.
        Raise CommitRefused with the partitions that are no longer ours, CommitUnconfirmed when the outcome is unknown
        after that time, SourceLost when there is no use in asking again, ConfigurationError when it can never work
        (rights, metadata size).
        """

    @property
    def reached(self) -> Mapping[Partition, int]:
        """Return for each owned partition an offset below which `fetch` has returned all there will ever be.

        At the end of a log it is the log's end, also where the last records were compacted away or are not for
        readers: an announced range may end with such a one, and is complete all the same.
        """

    @property
    def exhausted(self) -> bool:
        """Tell whether everything that was there when reading started has been returned by `fetch`.

        Always False for a source that was not asked to stop at the end.
        """

    def close(self) -> None:
        """Leave the group and let go of everything, without committing. Twice is harmless."""


@runtime_checkable
class LagAware(Protocol):
    """Know how far behind a source is. Called from any thread."""

    def lag(self) -> Mapping[Partition, int]:
        """Return the records in the log that are not committed, for each partition where that is known."""


class Decoder(Protocol):
    """Turn raw values into columns of one schema. Called from the decoder thread."""

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of every decoded table."""

    def decode(self, batch: Batch) -> Decoded:
        """Return every position of the batch as a row, a rejection or a skip; never raise because of a record."""


class Format(Protocol):
    """Make decoders for one encoding of records, such as JSON."""

    def infer(self, batch: Batch) -> pa.Schema | None:
        """Return a schema that fits the readable records of the batch; None when not one is readable."""

    def decoder(self, schema: pa.Schema) -> Decoder:
        """Return a decoder for a schema. Raise ConfigurationError for a type the encoding cannot fill."""

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        """Return the schema with types for those of its null fields that have a value in the batch."""


@dataclass(frozen=True, slots=True)
class SinkInfo:
    """Say what a sink found when it opened.

    `schema` is what the decoder has to produce, without coordinate columns: a field with `nullable=False`
    must be there in every record; None when the sink takes its schema from the first batch
    (it then is a `SchemaPinning`). `coordinates` are the names from `records.COORDINATES` that the
    target has; they are appended to each block. `guarantee` is the strongest the target can keep and
    `reason` one sentence why. With `mixes_partitions` False every block holds one partition only.
    With `verifies_replays` the target is asked, before a block that may be there already is written, which of its
    rows it has (it is `Reconcilable` then); without, a block written again takes the place of the one before it.
    With `by_topic` each topic has a schema of its own: `schema` is None, every block holds one topic, and the sink is
    a `TopicPinning`.
    """

    target: str
    schema: pa.Schema | None
    coordinates: tuple[str, ...] = ()
    guarantee: Guarantee = "at-least-once"
    reason: str = ""
    mixes_partitions: bool = True
    verifies_replays: bool = False
    by_topic: bool = False


class Sink(Protocol):
    """Write blocks to a target: three methods, all called from the flusher thread except as said.

    `open` comes first, on a thread of its own before any other is started, and again as long as it raises
    Unreachable. Then `write`, as often as there are blocks, one call at a time. `close` comes last, also after a
    failure, unless a call hangs.
    """

    def open(self) -> SinkInfo:
        """Connect, check the target, and say what was found.

        Raise Unreachable when it does not answer, SinkMisconfigured when it is there and cannot
        work (no such table, no rights, wrong kind of path). May prepare the target (a directory); writes no rows.
        """

    def write(self, block: Block) -> None:
        """Write a block. Returning means every row is durable: the offsets below it may be committed.

        Neither retries nor sleeps: it tries once and says by the exception what should happen.

        * SinkUnavailable: not now, or nobody knows. The same block with the same token comes again.
        * RowsRejected: these rows can never be written; nothing of the block was. They go to the
          dead-letter queue and the rest comes again as a smaller block under a token derived from this one.
        * BlockRejected: some row is to blame but not known, and nothing of the block was written.
          The block comes again in halves, under derived tokens, until the row stands alone. The halves
          have the `ranges` of the whole: not for a sink that names what it writes by its range.
        * SinkMisconfigured: no row is to blame (table dropped, rights taken). Reading pauses, the
          same block comes again later; nothing is dead-lettered.
        * SchemaChanged: the target has other columns than when it was opened, and nothing of the block was
          written. The same records come again at once, decoded for the new columns, under the same token.

        Anything else is a bug and stops the process without a commit.

        `block.token` names these rows: writing the same token again must leave no second copy where the sink
        promised so in `SinkInfo.guarantee`, also when the first attempt ended in an error or in another process.
        A block may hold fewer rows than an earlier one had under the same token and `ranges`: of a replay only what
        the target was found to lack (`SinkInfo.verifies_replays`), or what other columns still take. Parts that are
        written instead of a whole (the rest beside refused rows, halves) have tokens derived from it.
        """

    def close(self) -> None:
        """Let go of connections and temporary files. Twice is harmless."""


@runtime_checkable
class SchemaPinning(Protocol):
    """Fix the schema of a target that had none when it was opened. Called from the decoder thread, before any write.

    A field of the schema whose type is null, or that holds such a field, was seen without a value so far.
    """

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Make the proposed schema, without coordinates, the target's, and return the one that holds.

        When somebody else was first, theirs is returned. Called again, between writes too, with a schema that gives
        types to fields that had none: the one that holds has them. Raise SinkUnavailable or SinkMisconfigured.
        """


@runtime_checkable
class TopicPinning(Protocol):
    """Fix one schema for each topic, as `SchemaPinning` does one for all. Called from the decoder thread."""

    def pin_topic(self, topic: str, proposed: pa.Schema) -> pa.Schema:
        """Make the proposed schema that of a topic, unless it has one, and return the one that holds; see `pin`."""


@runtime_checkable
class TopicSchemas(Protocol):
    """Know the schema of each topic without making one: what `verify` asks of a `TopicPinning`. Main thread."""

    def schema_of(self, topic: str) -> pa.Schema | None:
        """Return the schema that holds for a topic; None where nothing of it was loaded. Raise as `write` does."""


@runtime_checkable
class Reconcilable(Protocol):
    """Answer which records a target already has: what exactly-once replay and `verify` need. Flusher thread.

    Both raise as `write` does, SinkUnavailable and SinkMisconfigured.
    """

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return the offsets from `first` to `last`, both included, that the target holds, ascending."""

    def beyond(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return the highest offset held of each partition that has one at or above its position.

        Nothing is there in good order: what is written is announced or committed first. So it means that offsets
        expired or were reset, that a topic was made anew, or that somebody else writes there.
        """


@runtime_checkable
class Auditable(Protocol):
    """Count what a target holds: what `verify` and `repair` ask. Main thread.

    Raises as `write` does, SinkUnavailable and SinkMisconfigured.
    """

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the offsets from `first` to `last`, both included, with how many rows the target holds of each.

        The columns are `COPIES`: offsets ascending, each once, copies at least 1. Raise SinkMisconfigured where nobody
        can tell which record a row was made of.
        """


@runtime_checkable
class Removable(Protocol):
    """Take rows out of a target again: what `repair` does to records that are there twice. Main thread."""

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        """Remove every row of the offsets in the spans, both ends included. Returning means they are gone.

        Raise SinkUnavailable when nobody knows whether they are, SinkMisconfigured when that cannot be done.
        """


@runtime_checkable
class Interruptible(Protocol):
    """Know about writes that go on in a server after the process that sent them died. Flusher thread."""

    def running(self, write_id: str) -> bool:
        """Tell whether a write of this name (`records.write_id` of its token) is still under way.

        Raise as `write` does. Asked before `present`, because what is still being written is not yet there.
        """


@runtime_checkable
class Pressured(Protocol):
    """Know how close the target is to more writes than it can bear. Flusher thread, between two writes."""

    def pressure(self) -> float:
        """Return the load as a share of that at which the target begins to slow writes down.

        Raise SinkUnavailable or SinkMisconfigured where that is not known; nothing follows from it.
        """


@runtime_checkable
class Rehearsable(Protocol):
    """Be measured without being touched: what `bench` asks of a sink that is not open. Main thread."""

    def described(self) -> SinkInfo:
        """Return what `open` would find, and change nothing, not even what `open` may prepare. Raise as `open`."""

    def rehearsal(self, name: str) -> AbstractContextManager[Sink]:
        """Make an empty target like the real one, yield a sink of it that is not open, and remove it at the end.

        `name` is in the name of what is made. Raise as `open`; SinkMisconfigured where it may not be made.
        """


class DeadLetterQueue(Protocol):
    """Keep refused records. `open` is called before any thread is started, the rest from the flusher thread."""

    def open(self) -> None:
        """Check that letters can be stored. Raise Unreachable, and be called again then, or ConfigurationError."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Store the letters. Returning means every one of them is durable.

        Raise DeadLetterFailed otherwise: all of them come again, in a while, and nothing of their batch is committed
        before. A repeat may store a letter twice; both carry the same coordinates.
        """

    def close(self) -> None:
        """Let go of everything. Twice is harmless."""
