"""What the pipeline asks of a sink.

It is long because it is the contract: most of it is what each call means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, cast, runtime_checkable

import pyarrow as pa

from batcher.protocols.guarantee import Guarantee
from batcher.protocols.measure import Measure
from batcher.records import Block, Outcome, Partition

Repeats = Literal["none", "token", "replace", "query", "merge"]
"""What a sink does with a range that it is given a second time.

* `none`: it does not know, and stores the rows again.
* `token`: it knows the token and leaves the rows as they are.
* `replace`: the rows take the place of those that are there. Then every block holds one partition.
* `query`: it can be asked which rows it has, and is asked before a block that may be there is written.
* `merge`: it stores the rows again, and shows one of each to readers that ask for that (`SinkInfo.condition`).
"""

SinkCapability = Literal[
    "pin",
    "pin_topic",
    "evolve",
    "query",
    "messages",
    "count",
    "remove",
    "running",
    "pressure",
    "interrupt",
    "measure",
]
"""What a sink may be able to do besides writing."""

SINK_METHODS: Final[Mapping[SinkCapability, tuple[str, ...]]] = {
    "pin": ("pin",),
    "pin_topic": ("pin_topic", "schema_of"),
    "evolve": ("evolve",),
    "query": ("present", "max_offset_above"),
    "messages": ("stored",),
    "count": ("copies",),
    "remove": ("remove",),
    "running": ("running",),
    "pressure": ("pressure",),
    "interrupt": ("interrupt",),
    "measure": ("measures",),
}
"""The methods that a sink has to have for each capability that it names."""

COPIES: Final = pa.schema(
    [pa.field("offset", pa.int64(), nullable=False), pa.field("copies", pa.int64(), nullable=False)]
)
"""The columns of what `Auditable.copies` answers."""


@dataclass(frozen=True, slots=True)
class SinkInfo:
    """Say what a sink found when it opened.

    `schema` is what the decoder has to produce, without coordinate columns: a field with `nullable=False` must be there
    in every record. It is None when the sink takes its schema from the first batch (capability `pin`), or one for each
    topic from the first of that topic (`pin_topic`).
    `coordinates` are the names from `records.COORDINATES` that the target has. They are appended to each block.
    `repeats` is what the sink does with the same range a second time. `reason` is one sentence why it is not more.
    `capabilities` are what else it can do; it has the methods of `SINK_METHODS` for each. With `raw` each block comes
    with the raw values, keys, times and headers of its rows. With `discards` it keeps nothing, and larger batches make
    it no faster. With `acts` it does something with each record, and a person may have it done again. `condition` says
    how a target whose `repeats` is `merge` has to be read, such as `under FINAL`. With `once` it stores no record a
    second time, whatever it is told. With `concurrent` several write loops call it at the same time, see `Sink`; with
    `remote` they wait for a network most of that time, so there are more of them. With `tokens` a target whose
    `repeats` is `query` recognises tokens as well: then blocks of one partition each keep more than blocks of several,
    of which no token comes a second time.
    """

    target: str
    schema: pa.Schema | None
    coordinates: tuple[str, ...] = ()
    repeats: Repeats = "none"
    reason: str = ""
    capabilities: frozenset[SinkCapability] = frozenset()
    raw: bool = False
    discards: bool = False
    acts: bool = False
    condition: str = ""
    once: bool = False
    concurrent: bool = False
    remote: bool = False
    tokens: bool = False

    @property
    def guarantee(self) -> Guarantee:
        """Return the strongest guarantee that a pipeline into this sink can keep."""
        return "at-least-once" if self.repeats == "none" else "exactly-once"

    @property
    def by_topic(self) -> bool:
        """Return whether each topic has a schema of its own. Then every block holds one topic."""
        return "pin_topic" in self.capabilities

    @property
    def mixes_partitions(self) -> bool:
        """Return whether a block may hold several partitions."""
        return self.repeats != "replace" and not self.by_topic


class Sink(Protocol):
    """Write blocks to a target: three methods, all called by a write loop except as said.

    `open` comes first, on a thread of its own before any other is started, and again as long as it raises Unreachable.
    Then comes `write`, as often as there are blocks. `close` comes last, also after a failure, unless a call hangs.

    There is one write loop, and one call at a time, unless the sink says `SinkInfo.concurrent`. Then there may be
    several (`--batch.writers`). Each calls `write`, and the methods of its capabilities that are said to be the write
    loop's, while others are inside of them; no two calls at the same time are for the same partition. What one call
    returns or raises says nothing of another: a block is durable, refused or to come again by itself. Blocks of one
    partition come in the order of their offsets, one after the other, whatever thread brings them.
    """

    def open(self) -> SinkInfo:
        """Connect, check the target, and say what was found.

        Raise Unreachable when it does not answer. Raise SinkMisconfigured when it is there and cannot work (no such
        table, no rights, wrong kind of path). May prepare the target (a directory), but writes no rows.
        """

    def write(self, block: Block) -> Outcome | None:
        """Write a block. Returning None means that every row is durable: the offsets below it may be committed.

        An `Outcome` names the rows for which that is not so; all others are durable. When the same token comes again,
        after a crash, it has to name those that are still not there. A sink whose `repeats` is `replace` must not
        return one: a part of a block would take the place of the whole.

        It neither retries nor sleeps. It tries once and says by the exception what should happen to all of the block.

        * SinkUnavailable: not now, or the outcome is unknown. The same block with the same token comes again.
        * RowsRejected: these rows can never be written, and nothing of the block was. They go to the dead-letter
          queue. The rest comes again as a smaller block under a token derived from this one.
        * BlockRejected: some row is to blame, which one is unknown, and nothing of the block was written. The block
          comes again in halves, under derived tokens, until the row stands alone. The halves have the `ranges` of the
          whole, so this is not for a sink that names what it writes by its range.
        * SinkMisconfigured: no row is to blame (table dropped, rights taken). Reading pauses, and the same block comes
          again later; nothing is dead-lettered.
        * SchemaChanged: the target has other columns than when it was opened, and nothing of the block was written.
          The same records come again at once, decoded for the new columns, under the same token.

        Any other exception is a bug and stops the process without a commit.

        `block.token` names these rows: writing the same token again must leave no second copy where the sink promised
        so in `SinkInfo.repeats`, also when the first attempt ended in an error or in another process. A block may hold
        fewer rows than an earlier one had under the same token and `ranges`: of a replay only what the target was
        found to lack (`repeats` is `query`), or what other columns still take. Parts that are written instead of a
        whole (the rest beside refused rows, halves) have tokens derived from it.
        """

    def close(self) -> None:
        """Release connections and temporary files. A second call is harmless."""


@runtime_checkable
class SchemaPinning(Protocol):
    """Fix the schema of a target that had none when it was opened (capability `pin`). Decode loop, before any write.

    A field of the schema whose type is null, or that holds such a field, has been seen only without a value.
    """

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Give the target the proposed schema, without coordinates, and return the schema that holds.

        When another process was first, its schema is returned. It is called again, between writes too, with a schema
        that gives types to fields that had none: the one that holds has them. Raise SinkUnavailable or
        SinkMisconfigured.
        """


@runtime_checkable
class TopicPinning(Protocol):
    """Fix one schema for each topic, as `SchemaPinning` does one for all (capability `pin_topic`). Decode loop."""

    def pin_topic(self, topic: str, proposed: pa.Schema) -> pa.Schema:
        """Give a topic the proposed schema, unless it has one, and return the schema that holds; see `pin`."""

    def schema_of(self, topic: str) -> pa.Schema | None:
        """Return the schema that holds for a topic; None where nothing of it was loaded. Raise as `write`.

        It makes no schema: `verify` calls it, on the main thread.
        """


@runtime_checkable
class Evolvable(Protocol):
    """Take further columns (capability `evolve`). Decode loop, while the write loop may be writing.

    It is asked before the first write of the batch that has values for them. So whatever is written again later, by
    whichever process, meets a target that is at least as wide.
    """

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        """Give the target nullable columns for fields that it lacks, and return the schema that holds afterwards.

        `topic` is None where all topics have one schema. A column that is there already stays what it is, whatever its
        type. A field that no nullable column of the target can hold is left out: its values stay unknown. Several
        processes may ask at once, for the same fields or for others. From then on `write` takes blocks of the schema
        returned, and blocks of those before it, which have no value for what is new. Raise SinkUnavailable or
        SinkMisconfigured; it is called again.
        """


@runtime_checkable
class Reconcilable(Protocol):
    """Answer which records a target already has (capability `query`): a replay and `verify` need it. Write loop.

    Both raise SinkUnavailable and SinkMisconfigured, as `write` does.
    """

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return the offsets from `first` to `last`, both included, that the target holds, ascending."""

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return the highest offset held of each partition that has one at or above its position.

        In good order nothing is there, because what is written is announced or committed first. So it means that
        offsets expired or were reset, that a topic was made anew, or that something else writes there.
        """


@runtime_checkable
class MessageIndex(Protocol):
    """Answer which messages of a queue a target already has (capability `messages`). Write loop.

    A message that a queue delivers again has another offset, and its old name. So the target is asked by names, before
    each block of a source that has them.
    """

    def stored(self, ids: pa.StringArray, times_ms: tuple[int, int] | None) -> pa.StringArray:
        """Return those of the names that the target has rows of. Raise as `write` does.

        `ids` are without nulls, each once. `times_ms` are the first and the last of their times (`_timestamp`), which
        are the same with each delivery; None where one has no time.
        """


@runtime_checkable
class Auditable(Protocol):
    """Count what a target holds: `verify` and `repair` need it (capability `count`). Main thread.

    It raises SinkUnavailable and SinkMisconfigured, as `write` does.
    """

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the offsets from `first` to `last`, both included, with how many rows the target holds of each.

        The columns are `COPIES`: offsets ascending, each once, copies at least 1. Raise SinkMisconfigured where nothing
        says from which record a row was made.
        """


@runtime_checkable
class Removable(Protocol):
    """Remove rows from a target: `repair` does it to duplicates (capability `remove`). Main thread."""

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        """Remove every row of the offsets in the spans, both ends included. Returning means they are gone.

        Raise SinkUnavailable when it is not known whether they are, SinkMisconfigured when that cannot be done.
        """


@runtime_checkable
class Interruptible(Protocol):
    """Know which writes still run in a server after their process died (capability `running`). Write loop."""

    def running(self, write_id: str) -> bool:
        """Return whether a write of this name (`records.write_id` of its token) still runs.

        Raise as `write` does. It is asked before `present`, because what is still being written is not yet there.
        """


@runtime_checkable
class Pressured(Protocol):
    """Know how close the target is to more writes than it can bear (capability `pressure`).

    Write loop, between two writes of its own.
    """

    def pressure(self) -> float:
        """Return the load as a share of that at which the target begins to slow writes down.

        Raise SinkUnavailable or SinkMisconfigured where that is not known; this has no consequence.
        """


@runtime_checkable
class Stoppable(Protocol):
    """Bring a write that takes long to an early end (capability `interrupt`).

    What is buffered for such a sink is not written when the pipeline stops, but given back to the source.
    """

    def interrupt(self, *, at_once: bool) -> None:
        """Let the write that goes on return early, and those after it at once, with an `Outcome` that defers the rest.

        What has begun comes to its end, unless it has to be `at_once`. Main thread, while the write loop may be
        writing; it returns without waiting. Called when the pipeline stops and the source takes single records back,
        and `at_once` when there is no time left.
        """


@runtime_checkable
class Measuring(Protocol):
    """Measure something that only this sink knows (capability `measure`), for the metrics and the status."""

    def measures(self) -> Sequence[Measure]:
        """Return what was measured so far. Any thread, also while the sink writes; it returns at once."""


@runtime_checkable
class Rehearsable(Protocol):
    """Be measured without being touched: `bench` asks this of a sink that is not open. Main thread."""

    def described(self) -> SinkInfo:
        """Return what `open` would find. Change nothing, not even what `open` may prepare. Raise as `open`."""

    def rehearsal(self, name: str) -> AbstractContextManager[Sink]:
        """Make an empty target like the real one, yield a sink for it that is not open, and remove it at the end.

        `name` is part of the name of what is made. Raise as `open`; SinkMisconfigured where it may not be made.
        """


def lacking(part: object, methods: Mapping[Any, tuple[str, ...]], capabilities: Collection[str]) -> str:
    """Return the first method that a part names a capability for and does not have; empty where it has them all."""
    for capability in sorted(capabilities):
        if capability not in methods:
            return f"{capability} (there is no such capability; known are {', '.join(sorted(methods))})"
        for method in methods[capability]:
            # A property is not read: what it answers before the part is open means nothing.
            if not isinstance(getattr(type(part), method, None), property) and not callable(
                getattr(part, method, None)
            ):
                return f"{method}() (capability {capability})"
    return ""


def queryable(sink: Sink, info: SinkInfo) -> Reconcilable | None:
    """Return the sink as one that can be asked which rows it has; None where it cannot."""
    return cast("Reconcilable", sink) if "query" in info.capabilities else None


def message_index(sink: Sink, info: SinkInfo) -> MessageIndex | None:
    """Return the sink as one that knows messages by their names; None where it does not."""
    return cast("MessageIndex", sink) if "messages" in info.capabilities else None


def countable(sink: Sink, info: SinkInfo) -> Auditable | None:
    """Return the sink as one that counts its rows; None where it does not."""
    return cast("Auditable", sink) if "count" in info.capabilities else None


def removable(sink: Sink, info: SinkInfo) -> Removable | None:
    """Return the sink as one that rows can be removed from; None where they cannot."""
    return cast("Removable", sink) if "remove" in info.capabilities else None


def interruptible(sink: Sink, info: SinkInfo) -> Interruptible | None:
    """Return the sink as one that knows which writes go on; None where it does not."""
    return cast("Interruptible", sink) if "running" in info.capabilities else None


def pressured(sink: Sink, info: SinkInfo) -> Pressured | None:
    """Return the sink as one that knows how loaded its target is; None where it does not."""
    return cast("Pressured", sink) if "pressure" in info.capabilities else None


def stoppable(sink: Sink, info: SinkInfo) -> Stoppable | None:
    """Return the sink as one whose writes can be interrupted; None where they cannot."""
    return cast("Stoppable", sink) if "interrupt" in info.capabilities else None


def measuring(sink: Sink, info: SinkInfo) -> Measuring | None:
    """Return the sink as one that measures something; None where it does not."""
    return cast("Measuring", sink) if "measure" in info.capabilities else None


def pinning(sink: Sink, info: SinkInfo) -> SchemaPinning | None:
    """Return the sink as one that takes one schema; None where it does not."""
    return cast("SchemaPinning", sink) if "pin" in info.capabilities and not info.by_topic else None


def evolvable(sink: Sink, info: SinkInfo) -> Evolvable | None:
    """Return the sink as one that takes further columns; None where it does not."""
    return cast("Evolvable", sink) if "evolve" in info.capabilities else None


def topic_pinning(sink: Sink, info: SinkInfo) -> TopicPinning | None:
    """Return the sink as one that takes a schema for each topic; None where it does not."""
    return cast("TopicPinning", sink) if info.by_topic else None
