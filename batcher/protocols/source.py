"""What the pipeline asks of a source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

from batcher.protocols.guarantee import Guarantee
from batcher.records import Partition, Position, Records

SourceCapability = Literal["lag", "lease", "offer", "release", "saturated"]
"""What a source may be able to do besides reading."""

SOURCE_METHODS: Final[Mapping[SourceCapability, tuple[str, ...]]] = {
    "lag": ("lag",),
    "lease": ("extend_leases",),
    "offer": ("offer", "ignore"),
    "release": ("release",),
    "saturated": ("saturated",),
}
"""The methods that a source has to have for each capability that it names."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Say what a source keeps: together with the sink it decides what the pipeline guarantees.

    With `keeps_intents` what `Position` announces is stored with the offset, in one step, and is handed to the next
    owner. With `replayable` the same records come again, under the same offsets, to a reader that starts there.
    `ordered` says that the offsets of a partition ascend. `reason` is one sentence why it is not more.
    `topics` are those that are read, as far as they are known at the start; empty where the source does not know.
    `drain_timeout_s` is how long `PartitionListener.on_revoked` may take before the partitions are taken away all the
    same; None where the source sets no bound.
    """

    keeps_intents: bool = False
    replayable: bool = True
    ordered: bool = True
    reason: str = "the source keeps no intents"
    capabilities: frozenset[SourceCapability] = frozenset()
    topics: tuple[str, ...] = ()
    drain_timeout_s: float | None = None
    overlaps: bool = False

    @property
    def guarantee(self) -> Guarantee:
        """Return the strongest guarantee that a pipeline from this source can keep."""
        return "exactly-once" if self.keeps_intents and self.replayable and self.ordered else "at-least-once"


class PartitionListener(Protocol):
    """Hear about partitions coming and going. Called inside `Source.fetch` or `close`, by the fetch loop."""

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        """Take over partitions; reading starts at each position, with the intents that were last committed.

        Return those that are not taken: what was announced for them cannot be understood, or they have no target yet.
        The source delivers nothing from them, and counts them as exhausted.
        """

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Give partitions up. May call `Source.commit` for them until it returns; afterwards they are not ours."""

    def on_lost(self, partitions: Collection[Partition]) -> None:
        """Learn that partitions are no longer ours: nothing about them may be committed any more."""


class Source(Protocol):
    """Deliver records. `open` is called on a thread of its own before any other is started, all else by the fetch loop.

    Where `SourceInfo.capabilities` names one of the protocols below, the source has its methods too.
    """

    def open(self, listener: PartitionListener) -> SourceInfo:
        """Connect and subscribe, and say what the source keeps.

        Raise ConfigurationError, or Unreachable to be called again. The listener is not called in here: the first
        partitions come inside `fetch`.
        """

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        """Return records that have come in, after at most about `timeout_s` seconds.

        At most `max_records`, of about `max_bytes`, but at least one where there is one.

        Raise RecordUnreadable for a place that cannot be read, once everything before it was returned. It is called
        again all the same, for its callbacks.

        Several runs of one partition may be returned, ascending. The listener is called inside; records of a partition
        revoked during the call are not returned. It has to be called regularly, also while everything is paused: it
        keeps the membership alive. Raise SourceLost or DataGap when reading on could lose records.
        """

    def pause(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing from these partitions until they are resumed. Newly assigned ones are never paused."""

    def resume(self, partitions: Collection[Partition]) -> None:
        """Deliver from these partitions again, from where delivery stopped."""

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Make the positions the ones a successor starts from. Returning means all of them are stored.

        Retries by itself what is worth a retry, for at most about `timeout_s` seconds. Raise CommitRefused with the
        partitions that are no longer ours. Raise CommitUnconfirmed when the outcome is unknown after that time,
        SourceLost when it is useless to ask again, and ConfigurationError when it can never work (rights, metadata
        size).
        """

    @property
    def reached(self) -> Mapping[Partition, int]:
        """Return for each owned partition an offset below which `fetch` has returned all there will ever be.

        At the end of a log it is the log's end, also where the last records were compacted away or are not for readers.
        An announced range may end with such a record, and is complete all the same.
        """

    @property
    def exhausted(self) -> bool:
        """Return whether everything that was there when reading started has been returned by `fetch`.

        Always False for a source that was not asked to stop at the end.
        """

    def close(self) -> None:
        """Leave the group and release everything, without committing. A second call is harmless."""


class LagAware(Protocol):
    """Know how far behind a source is (capability `lag`). Called from any thread."""

    def lag(self) -> Mapping[Partition, int]:
        """Return the records in the log that are not committed, for each partition where that is known."""


class Offering(Protocol):
    """Offer and ignore single partitions (capability `offer`): needed where topics have targets of their own."""

    def offer(self, partitions: Collection[Partition]) -> None:
        """Call `on_assigned` again for those of the partitions that are assigned to us and were not taken.

        They are delivered from the last committed position if they are taken now. One that cannot be handed over at
        this moment is left out, and comes again with the next call. Raises as `fetch` does.
        """

    def ignore(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing more from these partitions, as if they had not been taken; they are not ours any more."""


class Releasing(Protocol):
    """Give single records back to their queue (capability `release`): it delivers them again, to us or to another."""

    def release(self, delays_s: Mapping[Partition, Mapping[int, float]]) -> None:
        """Give back records that were fetched and not committed: for each offset, the seconds until it comes again.

        Called by the fetch loop, before the commit of a position above them, which does not acknowledge them. A record
        that was taken away from us meanwhile is passed over. Raises as `commit` does; a record that could not be given
        back comes again when its lease ends.
        """


class Leased(Protocol):
    """Hold records under leases that end, unless they are begun anew (capability `lease`)."""

    def extend_leases(self) -> None:
        """Begin leases anew where that is due. Does nothing most of the time, and may be called at any time.

        `fetch` does it by itself. The fetch loop calls this where it waits without fetching. Raises as `fetch` does.
        """


class Saturating(Protocol):
    """Say that nothing more comes until something is acknowledged (capability `saturated`).

    What is buffered is sealed at once then: to wait for more would only delay it.
    """

    @property
    def saturated(self) -> bool:
        """Return whether as many records are held as the queue hands out. Called by the fetch loop, each round."""


def leased(source: Source, info: SourceInfo) -> Leased | None:
    """Return the source as one that holds leases; None where it does not."""
    return cast("Leased", source) if "lease" in info.capabilities else None


def releasing(source: Source, info: SourceInfo) -> Releasing | None:
    """Return the source as one that takes single records back; None where it does not."""
    return cast("Releasing", source) if "release" in info.capabilities else None


def saturating(source: Source, info: SourceInfo) -> Saturating | None:
    """Return the source as one that says when nothing more comes; None where it does not."""
    return cast("Saturating", source) if "saturated" in info.capabilities else None


def offering(source: Source) -> Offering:
    """Return a source as one that offers partitions. Only where it has named the capability."""
    return cast("Offering", source)
