"""The commit law: an offset is committed only when everything read below it is durable, once, and never back.

Pure state for each partition, and the only place that says which position to commit, and with which intents. The write
loop decides a commit through it. The fetch loop carries the commit out (`state.py` composes them).

    read ≥ sealed ≥ durable ≥ committed            of one ownership (epoch) of one partition

Every assignment starts a new epoch. What a batch achieved in an earlier epoch is never committed in a later one,
because the partition may have had another owner in between.

A batch that is begun takes a range of each of its partitions: its *intents*. Where intents are kept, they are announced
with the commit before. A batch may be written only once its own intents are announced, under a lease (`lease.py`) that
is young enough. The broker takes commits from the owner alone, so this is what keeps a process that was frozen and
replaced from writing on.

It is long because the law is in one place: what is read, begun, durable and committed, of each partition.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from batcher.core.in_flight import BatchInFlight
from batcher.core.lease import Lease
from batcher.errors import BatcherError, DataGap
from batcher.records import MAX_INTENTS, Batch, Intent, Partition, Position, Range, Records, by_partition, write_id


class LawBroken(BatcherError):
    """Report a bug: the pipeline was about to lose or repeat records. It names the range and no payload."""


@dataclass(slots=True)
class _Account:
    epoch: int
    read: int
    sealed: int
    stored: Position
    """What the last commit stored with the source, ours or a predecessor's."""
    pending: list[Intent] = field(default_factory=list)
    """What is to be written, from the first that is not durable on. Each begins where the one before it ended: a commit
    cannot express anything else."""
    replays: deque[Intent] = field(default_factory=deque)
    """The end of `pending` as it was found: not begun yet."""
    announced: int = 0
    """Below this, every intent is in a commit of our own."""
    lease: Lease = field(default_factory=Lease)
    found: int = 0
    """The end of what was announced when the partition was assigned."""
    checked: bool = True
    """Until this is true, only what was found may be announced."""
    done: set[Intent] = field(default_factory=set)
    """Those of `pending` that are durable, or have no record left, while one before them is not."""

    @property
    def durable(self) -> int:
        first = self.pending[0].range.first if self.pending else self.sealed
        # An announced range may begin with records that have expired since.
        return max(first, self.stored.next_offset)

    def settle(self, intent: Intent) -> None:
        self.done.add(intent)
        while self.pending and self.pending[0] in self.done:
            self.done.remove(self.pending.pop(0))


class Offsets:
    """Keep the account of each owned partition. All positions are next offsets.

    `name` goes into every token. With `announces` intents are announced before they are written. Intents that were
    found are kept in either case, unless `ignores_intents`. With `checks` new intents of a partition are announced only
    after `mark_checked`: the target is looked at first, because what is announced counts as perhaps written. `writer`
    makes our commits different from all others, so that reading one back proves that ours was stored.
    """

    def __init__(
        self,
        name: str = "",
        *,
        announces: bool = False,
        ignores_intents: bool = False,
        checks: bool = False,
        writer: str | None = None,
    ) -> None:
        self.announces = announces
        self._checks = checks
        self._name = name
        self._ignores_intents = ignores_intents
        self._writer = writer or secrets.token_hex(3)
        self._accounts: dict[Partition, _Account] = {}
        self._epochs = 0

    @property
    def owned(self) -> frozenset[Partition]:
        """Return the partitions that are ours now."""
        return frozenset(self._accounts)

    @property
    def uncommitted(self) -> int:
        """Return how many offsets lie between what was read and what is committed: read again after a crash.

        It counts offsets, so gaps in the log count too.
        """
        return sum(account.read - account.stored.next_offset for account in self._accounts.values())

    def read(self) -> Mapping[Partition, int]:
        """Return the next offset to read of each owned partition."""
        return {partition: account.read for partition, account in self._accounts.items()}

    def committed(self) -> Mapping[Partition, int]:
        """Return the committed next offset of each owned partition."""
        return {partition: account.stored.next_offset for partition, account in self._accounts.items()}

    def assign(self, positions: Mapping[Partition, Position]) -> Mapping[Partition, str]:
        """Open a new epoch for partitions that were given to us, reading from `positions`.

        Return those that are not taken, each with the reason: what was announced for them is not known.
        """
        self._epochs += 1
        refused: dict[Partition, str] = {}
        for partition, position in positions.items():
            start = position.next_offset
            reason = "" if self._ignores_intents else _unusable(position)
            if reason:
                refused[partition] = f"{partition}: {reason}"
                continue
            # What has expired since is not written again.
            intents = [] if self._ignores_intents else [one for one in position.intents if one.range.last >= start]
            sealed = intents[-1].range.next_offset if intents else start
            found = sealed if intents else 0
            self._accounts[partition] = _Account(
                self._epochs, start, sealed, position, intents, deque(intents), found=found, checked=not self._checks
            )
        return refused

    def replays(self, partition: Partition) -> tuple[Intent, ...]:
        """Return the ranges that have to be written again as they were announced, ascending."""
        account = self._accounts.get(partition)
        return tuple(account.replays) if account is not None else ()

    def unchecked(self) -> Mapping[Partition, int]:
        """Return the partitions that the target was not asked about, each with the offset where new records begin."""
        return {
            partition: max(account.found, account.stored.next_offset)
            for partition, account in self._accounts.items()
            if not account.checked
        }

    def epochs(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Return the present epoch of each of these partitions that is ours."""
        return {part: self._accounts[part].epoch for part in partitions if part in self._accounts}

    def mark_checked(self, epochs: Mapping[Partition, int]) -> None:
        """Permit new announcements for partitions that have not changed hands since these epochs."""
        for partition in self.unchanged(epochs):
            self._accounts[partition].checked = True

    def forget(self, partitions: Collection[Partition]) -> None:
        """Close the accounts of partitions that are no longer ours."""
        for partition in partitions:
            self._accounts.pop(partition, None)

    def admit(self, run: Records) -> Records | None:
        """Return the part of a fetched run that is new, or None; a partition that is not ours has none.

        Records below the position already read are dropped: they come again after a seek and would be written twice.
        """
        account = self._accounts.get(run.partition)
        if account is None or run.last_offset < account.read:
            return None
        if run.first_offset < account.read:
            offsets = run.offsets.to_pylist()
            run = run.slice(next(i for i, offset in enumerate(offsets) if offset >= account.read))
        account.read = run.next_offset
        return run

    def begin(self, batch: Batch) -> BatchInFlight:
        """Give a sealed batch its intents and its token, and return it as one in flight.

        A replay gets the intent that was announced. Any other batch gets the offsets from where the last intent ended
        to its last record. Raise LawBroken if it repeats or overtakes what was sealed. Raise DataGap if the log of an
        announced range is another one by now.
        """
        intents = tuple(self._intent(runs, replayed=batch.replayed) for runs in by_partition(batch.runs))
        if len(intents) > 1:
            name = write_id(token_of(self._name, intents))
            intents = tuple(intent._replace(write_id=name) for intent in intents)
        epochs = {}
        for intent in intents:
            account = self._accounts[intent.range.partition]
            if not batch.replayed:
                account.pending.append(intent)
                account.sealed = intent.range.next_offset
            epochs[intent.range.partition] = account.epoch
        return BatchInFlight(replace(batch, intents=intents, token=token_of(self._name, intents)), epochs)

    def begin_again(self, batch: Batch) -> BatchInFlight:
        """Return a part of a begun batch as a batch of its own, under the intents it already has."""
        part = replace(batch, token=token_of(self._name, batch.intents))
        return BatchInFlight(part, {span.partition: self._accounts[span.partition].epoch for span in part.ranges})

    def skip(self, partition: Partition, last: int) -> None:
        """Drop the announced range that ends at `last`: it has no record left to write."""
        account = self._accounts[partition]
        if not account.replays or account.replays[0].range.last != last:
            raise LawBroken(f"skipped {partition} up to {last}, which was not next; please report this")
        account.settle(account.replays.popleft())

    def cancel(self, which: BatchInFlight, partitions: Collection[Partition]) -> None:
        """Take back the intents of a batch that was never offered to the target, and all intents behind them."""
        ours = self.ours(which).intersection(partitions)
        for intent in which.batch.intents:
            if intent.range.partition in ours and not which.batch.replayed:
                account = self._accounts[intent.range.partition]
                account.pending = [one for one in account.pending if one.range.first < intent.range.first]
                account.sealed = min(account.sealed, intent.range.first)
                account.announced = min(account.announced, account.sealed)

    def finish(self, which: BatchInFlight) -> None:
        """Note that a batch is durable, except for partitions that were lost meanwhile."""
        ours = self.ours(which)
        for intent in which.batch.intents:
            if intent.range.partition in ours:
                account = self._accounts[intent.range.partition]
                if intent not in account.pending or intent in account.done:
                    raise LawBroken(f"wrote {intent.range}, which was not begun; please report this")
                account.settle(intent)

    def ours(self, which: BatchInFlight) -> frozenset[Partition]:
        """Return the partitions of a batch that have not changed hands since it was begun."""
        return self.unchanged(which.epochs)

    def unchanged(self, epochs: Mapping[Partition, int]) -> frozenset[Partition]:
        """Return the partitions that have not changed hands since these epochs."""
        return frozenset(
            partition
            for partition, epoch in epochs.items()
            if (account := self._accounts.get(partition)) is not None and account.epoch == epoch
        )

    def announced(self, which: BatchInFlight) -> bool:
        """Return whether the source has stored the announcement of all intents of a batch that are still ours."""
        ours = self.ours(which)
        return not self.announces or all(
            span.next_offset <= self._accounts[span.partition].announced
            for span in which.batch.ranges
            if span.partition in ours
        )

    def leased(self, partitions: Collection[Partition], since: float) -> bool:
        """Return whether a commit sent at or after `since` was accepted for each of these partitions."""
        return not self.announces or all(self._accounts[part].lease.holds(since) for part in partitions)

    def ask_for_lease(self, partitions: Collection[Partition], now: float) -> None:
        """Ask for a commit of what is announced, with another mark, to learn whether the partitions are ours."""
        for partition in partitions:
            self._accounts[partition].lease.ask(now)

    def wanted(self) -> Mapping[Partition, Position]:
        """Return what has to be committed: where more is durable, or other intents pend, than the source knows."""
        found = {partition: self._position(account) for partition, account in self._accounts.items()}
        return {partition: at for partition, at in found.items() if at != self._accounts[partition].stored}

    def commit(self, positions: Mapping[Partition, Position], sent_at: float = -math.inf) -> None:
        """Note that positions were committed. Raise LawBroken if one goes back or beyond what is durable."""
        for partition, position in positions.items():
            account = self._accounts[partition]
            if not account.stored.next_offset <= position.next_offset <= account.durable:
                raise LawBroken(
                    f"committed {position.next_offset} of {partition}, outside "
                    f"{account.stored.next_offset}-{account.durable}; please report this"
                )
            account.stored = position
            account.lease.confirm(sent_at)
            account.announced = position.intents[-1].range.next_offset if position.intents else position.next_offset

    def settled(self, which: BatchInFlight) -> bool:
        """Return whether a durable batch needs no commit any more: it was made, or the right to it is lost."""
        ours = self.ours(which)
        return all(
            span.next_offset <= self._accounts[span.partition].stored.next_offset
            for span in which.batch.ranges
            if span.partition in ours
        )

    def _intent(self, runs: list[Records], *, replayed: bool) -> Intent:
        partition = runs[0].partition
        account = self._accounts.get(partition)
        span = Range(partition, runs[0].first_offset, runs[-1].last_offset)
        if account is None:
            raise LawBroken(f"sealed {span}, which is not ours; please report this")
        first_ms: int | None = runs[0].timestamps_ms[0].as_py()
        if not replayed:
            if span.first < account.sealed or account.replays:
                raise LawBroken(f"sealed {span}, which begins below {account.sealed}; please report this")
            return Intent(Range(partition, account.sealed, span.last), first_ms)
        if not account.replays:
            raise LawBroken(f"sealed {span} as a replay, and none is due; please report this")
        intent = account.replays.popleft()
        if not intent.range.first <= span.first <= span.last <= intent.range.last:
            raise LawBroken(f"sealed {span} as a replay of {intent.range}; please report this")
        if span.first == intent.range.first and intent.first_ms not in (None, first_ms):
            raise DataGap(
                f"{intent.range} was announced with another first record than the log has now: the topic was made "
                "anew; give another group with -g, or --ignore-intents"
            )
        return intent

    def _position(self, account: _Account) -> Position:
        intents = account.pending[:MAX_INTENTS]
        if not self.announces or not account.checked:
            # These were found, and the next owner still has to honour them. Ours are not announced (yet).
            intents = [intent for intent in intents if intent.range.next_offset <= account.found]
        if not intents and not account.lease.asked:
            return Position(account.durable)
        # With the epoch: a partition may come back to us with our own mark, which proves nothing any more.
        mark = f"{self._writer}-{account.epoch}-{account.lease.renewals}"
        return Position(account.durable, tuple(intents), mark)


def _unusable(position: Position) -> str:
    """Return why what was announced at a position is not known; empty where it is."""
    if position.unreadable:
        return position.unreadable
    if position.intents and position.intents[0].range.first > position.next_offset:
        first = position.intents[0].range.first
        return f"the intent begins at {first}, the committed offset is {position.next_offset}"
    return ""


def token_of(name: str, intents: Collection[Intent]) -> str:
    """Return the token of intents: the same in every process, with no clock and no attempt in it.

    It holds the timestamp of the first record, because a topic deleted and made anew has the same name and offsets:
    ClickHouse would silently drop its rows as repeats. The ranges of several partitions are hashed to keep it short.
    """
    parts = [
        f"{span.partition.topic}|{span.partition.number}|{span.first}-{span.last}|{first_ms}"
        for span, first_ms, _ in intents
    ]
    if len(parts) == 1:
        return f"{name}|{parts[0]}"
    return f"{name}|{len(parts)} partitions|{hashlib.sha256(';'.join(parts).encode()).hexdigest()[:32]}"


def named(name: str, batch: Batch) -> Batch:
    """Return a batch that no pipeline has begun, with the token that it has under a name."""
    return replace(batch, token=token_of(name, batch.intents))
