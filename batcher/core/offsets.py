"""The commit law: an offset is committed only when everything read below it is durable, once, and never back.

Pure state for each partition; the only place that says which position to commit, and with which intent. The flusher
asks it, the consumer thread carries the commit out (`shared.py` guards both).

    read ≥ sealed ≥ durable ≥ committed            of one ownership (epoch) of one partition

Every assignment starts a new epoch. What a batch achieved in an earlier epoch is never committed in a later one:
in between, the partition may have been somebody else's.

A batch that is begun *claims* a range of each of its partitions. Where intents are on, the claims are announced with
the commit before (`intents.py`), and a batch may be written only once its own are, by a commit that was accepted
not long ago: the broker takes commits from the owner alone, so this is what keeps one that was frozen and
replaced from writing on.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from batcher.core.intents import MAX_CLAIMS, IntentUnreadable, parse, render
from batcher.errors import BatcherError, DataGap
from batcher.records import Batch, Claim, Partition, Position, Range, Records, write_id


class LawBroken(BatcherError):
    """Report a bug: the pipeline was about to lose or repeat records. Names the range, no payload."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Hold a batch that was begun, with the epoch of each of its partitions at that moment."""

    batch: Batch
    epochs: Mapping[Partition, int]


@dataclass(slots=True)
class _Account:
    epoch: int
    read: int
    sealed: int
    stored: Position
    """What the last commit left with the broker, ours or a predecessor's."""
    pending: list[Claim] = field(default_factory=list)
    """What is claimed, from the first that is not durable on. Each begins where the one before it ended, because a note
    cannot say otherwise."""
    replays: deque[Claim] = field(default_factory=deque)
    """The end of `pending` as it was found: not begun yet."""
    announced: int = 0
    """Below this, every claim is in a note that we have stored ourselves."""
    vouched_at: float = -math.inf
    found: int = 0
    """The end of what was announced when the partition was assigned."""
    renewals: int = 0
    asked_at: float = -math.inf
    """Have a commit made although there is nothing new to say, to learn whether we are still the owner, until one that
    was sent since is accepted."""
    cleared: bool = True
    """Nothing but what was found may be announced before that."""
    done: set[Claim] = field(default_factory=set)
    """Those of `pending` that are durable, or of which no record is left, while one before them is not."""

    @property
    def durable(self) -> int:
        first = self.pending[0].range.first if self.pending else self.sealed
        # An announced range may begin with records that expired since.
        return max(first, self.stored.next_offset)

    def settle(self, claim: Claim) -> None:
        self.done.add(claim)
        while self.pending and self.pending[0] in self.done:
            self.done.remove(self.pending.pop(0))


class Ledger:
    """Keep the account of each owned partition. All positions are next offsets.

    `name` goes into every token. With `announces` claims are announced before they are written; intents that were
    found are kept in either case, unless `ignores_intents`. With `checks` new claims of a partition are announced only
    after `clear`: the target is looked at first, because what is announced counts as perhaps written. `writer` makes
    our notes different from everybody else's, so that reading one back proves that it was ours that was stored.
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

        Counts offsets, so gaps in the log count too.
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

        Return those that are not taken, each with the reason: what their note announces is not known.
        """
        self._epochs += 1
        refused: dict[Partition, str] = {}
        for partition, position in positions.items():
            start = position.next_offset
            try:
                claims = [] if self._ignores_intents else _announced(partition, position)
            except IntentUnreadable as error:
                refused[partition] = str(error)
                continue
            sealed = claims[-1].range.next_offset if claims else start
            found = sealed if claims else 0
            self._accounts[partition] = _Account(
                self._epochs, start, sealed, position, claims, deque(claims), found=found, cleared=not self._checks
            )
        return refused

    def replays(self, partition: Partition) -> tuple[Claim, ...]:
        """Return the ranges that have to be written again as they were announced, ascending."""
        account = self._accounts.get(partition)
        return tuple(account.replays) if account is not None else ()

    def uncleared(self) -> Mapping[Partition, int]:
        """Return the partitions that the target was not asked about, each with where new records begin."""
        return {
            partition: max(account.found, account.stored.next_offset)
            for partition, account in self._accounts.items()
            if not account.cleared
        }

    def epochs(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Return the present epoch of each of these partitions that is ours."""
        return {part: self._accounts[part].epoch for part in partitions if part in self._accounts}

    def clear(self, epochs: Mapping[Partition, int]) -> None:
        """Permit new announcements of partitions, if they have not changed hands since these epochs."""
        for partition in self.unchanged(epochs):
            self._accounts[partition].cleared = True

    def forget(self, partitions: Collection[Partition]) -> None:
        """Close the accounts of partitions that are no longer ours."""
        for partition in partitions:
            self._accounts.pop(partition, None)

    def admit(self, run: Records) -> Records | None:
        """Return the part of a fetched run that is new, or None; foreign partitions have none.

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

    def begin(self, batch: Batch) -> Receipt:
        """Claim the ranges of a sealed batch and return it with them.

        A replay gets the claim that was announced, any other batch the offsets from where the last claim ended to its
        last record. Raise LawBroken if it repeats or overtakes what was sealed, DataGap if the log of an
        announced range is another one by now.
        """
        claims = tuple(self._claim(run, replayed=batch.replayed) for run in batch.runs)
        batch = replace(batch, claims=claims)
        if len(claims) > 1:
            name = write_id(token(self._name, batch))
            claims = tuple(claim._replace(write_id=name) for claim in claims)
            batch = replace(batch, claims=claims)
        epochs = {}
        for claim in claims:
            account = self._accounts[claim.range.partition]
            if not batch.replayed:
                account.pending.append(claim)
                account.sealed = claim.range.next_offset
            epochs[claim.range.partition] = account.epoch
        return Receipt(batch, epochs)

    def begin_again(self, batch: Batch) -> Receipt:
        """Return a receipt for a part of a batch that was begun, whose claims stand."""
        return Receipt(batch, {span.partition: self._accounts[span.partition].epoch for span in batch.ranges})

    def skip(self, partition: Partition, last: int) -> None:
        """Drop the announced range that ends at `last`: there is not one record of it left to write."""
        account = self._accounts[partition]
        if not account.replays or account.replays[0].range.last != last:
            raise LawBroken(f"skipped {partition} up to {last}, which was not next; please report this")
        account.settle(account.replays.popleft())

    def cancel(self, receipt: Receipt, partitions: Collection[Partition]) -> None:
        """Take back the claims of a batch that was never offered to the target, and all claims behind them."""
        ours = self.ours(receipt).intersection(partitions)
        for claim in receipt.batch.claims:
            if claim.range.partition in ours and not receipt.batch.replayed:
                account = self._accounts[claim.range.partition]
                account.pending = [one for one in account.pending if one.range.first < claim.range.first]
                account.sealed = min(account.sealed, claim.range.first)
                account.announced = min(account.announced, account.sealed)

    def finish(self, receipt: Receipt) -> None:
        """Note that a batch is durable, except for partitions that were lost meanwhile."""
        ours = self.ours(receipt)
        for claim in receipt.batch.claims:
            if claim.range.partition in ours:
                account = self._accounts[claim.range.partition]
                if claim not in account.pending or claim in account.done:
                    raise LawBroken(f"wrote {claim.range}, which is not claimed; please report this")
                account.settle(claim)

    def ours(self, receipt: Receipt) -> frozenset[Partition]:
        """Return the partitions of a batch that have not changed hands since it was begun."""
        return self.unchanged(receipt.epochs)

    def unchanged(self, epochs: Mapping[Partition, int]) -> frozenset[Partition]:
        """Return the partitions that have not changed hands since these epochs."""
        return frozenset(
            partition
            for partition, epoch in epochs.items()
            if (account := self._accounts.get(partition)) is not None and account.epoch == epoch
        )

    def announced(self, receipt: Receipt) -> bool:
        """Tell whether the broker has stored our announcement of all claims of a batch that are still ours."""
        ours = self.ours(receipt)
        return not self.announces or all(
            span.next_offset <= self._accounts[span.partition].announced
            for span in receipt.batch.ranges
            if span.partition in ours
        )

    def vouched(self, partitions: Collection[Partition], since: float) -> bool:
        """Tell whether a commit sent at or after `since` was accepted for each of these partitions."""
        return not self.announces or all(self._accounts[part].vouched_at >= since for part in partitions)

    def renew(self, partitions: Collection[Partition], now: float) -> None:
        """Have what is announced stored once more, in other words, to learn whether the partitions are still ours."""
        for partition in partitions:
            self._accounts[partition].renewals += 1
            self._accounts[partition].asked_at = now

    def wanted(self) -> Mapping[Partition, Position]:
        """Return what has to be committed: where more is durable, or other claims pend, than the broker knows."""
        found = {partition: Position(acc.durable, self._note(acc)) for partition, acc in self._accounts.items()}
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
            account.vouched_at = sent_at
            claims = parse(partition, position.note)
            account.announced = claims[-1].range.next_offset if claims else position.next_offset

    def settled(self, receipt: Receipt) -> bool:
        """Tell whether a durable batch needs no commit any more: it has it, or has lost the right to it."""
        ours = self.ours(receipt)
        return all(
            span.next_offset <= self._accounts[span.partition].stored.next_offset
            for span in receipt.batch.ranges
            if span.partition in ours
        )

    def _claim(self, run: Records, *, replayed: bool) -> Claim:
        account = self._accounts.get(run.partition)
        span = Range(run.partition, run.first_offset, run.last_offset)
        if account is None:
            raise LawBroken(f"sealed {span}, which is not ours; please report this")
        first_ms: int | None = run.timestamps_ms[0].as_py()
        if not replayed:
            if span.first < account.sealed or account.replays:
                raise LawBroken(f"sealed {span}, which begins below {account.sealed}; please report this")
            return Claim(Range(run.partition, account.sealed, span.last), first_ms)
        if not account.replays:
            raise LawBroken(f"sealed {span} as a replay, and none is due; please report this")
        claim = account.replays.popleft()
        if not claim.range.first <= span.first <= span.last <= claim.range.last:
            raise LawBroken(f"sealed {span} as a replay of {claim.range}; please report this")
        if span.first == claim.range.first and claim.first_ms not in (None, first_ms):
            raise DataGap(
                f"{claim.range} was announced with another first record than the log has now: the topic was made anew; "
                "give another group with -g, or --ignore-intents"
            )
        return claim

    def _note(self, account: _Account) -> str:
        claims = account.pending[:MAX_CLAIMS]
        if not self.announces or not account.cleared:
            # Found, and still to be honoured by whoever comes after us; ours are not announced (yet).
            claims = [claim for claim in claims if claim.range.next_offset <= account.found]
        if not claims and account.vouched_at >= account.asked_at:
            return ""
        # The epoch, because a partition may come back to us with our own note, which proves nothing any more.
        return render(claims, f"{self._writer}-{account.epoch}-{account.renewals}", account.durable)


def _announced(partition: Partition, position: Position) -> list[Claim]:
    """Return what a note announces, less what has expired since."""
    claims = parse(partition, position.note)
    if claims and claims[0].range.first > position.next_offset:
        raise IntentUnreadable(
            f"{partition}: the intent begins at {claims[0].range.first}, the committed offset is {position.next_offset}"
        )
    return [claim for claim in claims if claim.range.last >= position.next_offset]


def token(name: str, batch: Batch) -> str:
    """Return the token of a batch: the same for the same claims in every process, no clock and no attempt in it.

    It holds the timestamp of the first record because a topic deleted and made anew has the same name and
    offsets: ClickHouse would silently drop its rows as repeats. Several partitions are hashed to
    keep it short.
    """
    parts = [
        f"{span.partition.topic}|{span.partition.number}|{span.first}-{span.last}|{first_ms}"
        for span, first_ms, _ in batch.claims
    ]
    if len(parts) == 1:
        return f"{name}|{parts[0]}"
    return f"{name}|{len(parts)} partitions|{hashlib.sha256(';'.join(parts).encode()).hexdigest()[:32]}"
