"""The fetch loop: the only thread that touches the source.

It fills the buffer, pauses and resumes, carries out the commits that the write loop has decided, and answers
rebalances. It never stops polling while it is a member of its group, so a slow sink does not cost the membership.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import structlog

from batcher.core.state import COMMIT_POLL_S, ReadPlan
from batcher.engine.dispatcher import Dispatcher
from batcher.errors import CommitRefused, CommitUnconfirmed, RecordUnreadable, SourceLost
from batcher.protocols import Leased, Releasing, Saturating, Source, SourceInfo
from batcher.protocols.source import leased, offering, releasing, saturating
from batcher.records import Partition, Position, Records, Releases
from batcher.telemetry.events import CommitAnswered, Events, Rebalanced, RecordsFetched, TimeSpent

log = structlog.get_logger(__name__)

COMMIT_ATTEMPT_S: Final = 2.0
"""How long an answer to a commit is waited for before the source is polled again. It is below the time that the
pipeline gives a thread to leave (5 s)."""

COMMIT_PATIENCE_S: Final = 330.0
"""How long commits may go unanswered. A group answers nothing while it waits for one of its members to join. It waits
for librdkafka's default `max.poll.interval.ms` (300 s), or for the session of a member that died (45 s)."""


class FetchLoop:
    """Run the source. `step` does one round; `run` does rounds until the pipeline has drained or aborted.

    `drain_timeout_s` bounds how long a revoked partition is held back for the batch in flight. The source may bound it
    further (`SourceInfo.drain_timeout_s`).
    """

    def __init__(
        self,
        source: Source,
        events: Events,
        *,
        drain_timeout_s: float = 20.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._events = events
        self._drain_timeout_s = drain_timeout_s
        self._clock = clock
        self._begun: Dispatcher | None = None
        self._joined = False
        self._unconfirmed_since: float | None = None
        self._unreadable: RecordUnreadable | None = None
        self._stopped: dict[Partition, str] = {}
        self._stepped_at = clock()
        self._leased: Leased | None = None
        self._releasing: Releasing | None = None
        self._saturating: Saturating | None = None

    def open(self) -> SourceInfo:
        """Open the source, which will call back into this object, and return what it keeps. Raises as it does."""
        info = self._source.open(self)
        if info.drain_timeout_s is not None:
            self._drain_timeout_s = min(self._drain_timeout_s, info.drain_timeout_s)
        source = self._source
        self._leased, self._releasing, self._saturating = (
            leased(source, info),
            releasing(source, info),
            saturating(source, info),
        )
        return info

    def begin(self, states: Dispatcher) -> None:
        """Read for these states from now on. Once, after the source was opened and before the first round."""
        self._begun = states
        self._stepped_at = self._clock()

    @property
    def _states(self) -> Dispatcher:
        assert self._begun is not None, "the fetch loop has not begun"
        return self._begun

    @property
    def joined(self) -> bool:
        """Return whether the group has given us our partitions, even if there are none. Any thread."""
        return self._joined

    @property
    def stopped(self) -> Mapping[Partition, str]:
        """Return the partitions from which nothing is read, with the reason. Any thread."""
        # A copy, which takes one step: the fetch thread changes the original.
        return dict(self._stopped)

    @property
    def silent_s(self) -> float:
        """Return the seconds since the last round began: they grow when the thread hangs. Any thread."""
        return self._clock() - self._stepped_at

    def run(self) -> None:
        """Run until the pipeline has drained or aborted. `leave` follows, whatever happens.

        Raise RecordUnreadable, once everything before it is committed, and anything else the source raises.
        """
        while self._states.phase != "aborted" and not self._states.drained():
            self.step()
        if self._unreadable is not None and self._states.phase != "aborted":
            raise self._unreadable

    def leave(self) -> None:
        """Leave the group. Rebalance callbacks run inside: after a failure, abort first."""
        self._source.close()

    def step(self) -> None:
        """Do one round: carry out the commit that is due, pause or resume, and fetch once where there is room."""
        self._stepped_at = self._clock()
        plan = self._states.next_read(self._clock())
        self._release(plan.release)
        self._commit(plan.commit)
        self._follow_targets()
        if plan.waits:
            self._extend_leases()
            self._wait_changed(plan.timeout_s)
            self._events.publish(TimeSpent("backpressure", self._clock() - self._stepped_at))
            return
        if plan.resume:
            log.debug("reading_resumed", partitions=len(plan.resume))
            self._source.resume(plan.resume)
        if plan.pause:
            log.debug("reading_paused", partitions=len(plan.pause))
            self._source.pause(plan.pause)
        self._fetch(plan)

    def commit(self) -> None:
        """Carry out the commit that is wanted, if one is."""
        wanted = self._states.take_commit()
        self._release(self._states.take_releases())
        self._commit(wanted)

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        """Take over partitions (see PartitionListener)."""
        log.info("partitions_assigned", positions={str(part): at.next_offset for part, at in sorted(positions.items())})
        self._events.publish(Rebalanced("assigned"))
        self._joined = True
        refused, replays = self._states.assign(positions)
        for partition, reason in sorted(refused.items()):
            if self._states.waits(partition):
                log.error("partition_waits", partition=str(partition), reason=reason, hint="the others go on")
            else:
                log.error("partition_stopped", partition=str(partition), reason=reason, hint="the others go on")
        self._stopped.update(refused)
        for partition in positions.keys() - refused.keys():
            self._stopped.pop(partition, None)
        if replays:
            log.info("replaying", ranges=replays)
        return refused.keys()

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Finish and commit the batch in flight within a bound, forget the rest (see PartitionListener)."""
        self._states.begin_revoke(partitions, self._clock())
        deadline = self._clock() + self._drain_timeout_s
        while self._states.busy(partitions) and self._clock() < deadline:
            self.commit()
            self._extend_leases()
            self._wait_changed(COMMIT_POLL_S)
        self.commit()
        self._events.publish(Rebalanced("revoked"))
        self._give_up(partitions, "partitions_revoked")

    def on_lost(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that are no longer ours (see PartitionListener)."""
        self._events.publish(Rebalanced("lost"))
        self._give_up(partitions, "partitions_lost")

    def _fetch(self, plan: ReadPlan) -> None:
        began = self._clock()
        runs: Collection[Records] = ()
        try:
            runs = self._source.fetch(plan.max_records, plan.max_bytes, plan.timeout_s)
        except RecordUnreadable as error:
            # What is in memory is not thrown away: a new start would come no further.
            log.error("record_unreadable", error=str(error))
            self._unreadable = self._unreadable or error
            self._states.drain("stop")
            return
        self._events.publish(TimeSpent("backpressure" if plan.paused else "fetch", self._clock() - began))
        if self._states.phase != "running":
            return  # what comes during a drain is left to the next start, and a source may ask its brokers for the end
        saturated = self._saturating is not None and self._saturating.saturated
        fresh = self._states.fetched(runs, self._source.reached, exhausted=self._source.exhausted, saturated=saturated)
        for run in fresh:
            self._events.publish(RecordsFetched(run))

    def _extend_leases(self) -> None:
        if self._leased is not None:
            self._leased.extend_leases()

    def _release(self, releases: Releases) -> None:
        if not releases or self._releasing is None:
            return
        try:
            self._releasing.release(releases)
        except (CommitRefused, CommitUnconfirmed) as error:
            # The commit that follows does not acknowledge them, so nothing is lost by going on.
            log.warning("not_released", error=str(error), hint="they come again when their leases end")

    def _commit(self, positions: Mapping[Partition, Position]) -> None:
        if not positions:
            return
        refused: Mapping[Partition, str] = {}
        began = self._clock()
        try:
            self._source.commit(positions, COMMIT_ATTEMPT_S)
        except CommitUnconfirmed as error:
            self._events.publish(CommitAnswered("unconfirmed"))
            self._keep_asking(positions, error)
            return
        except SourceLost:
            self._events.publish(CommitAnswered("failed"))
            raise
        except CommitRefused as error:
            refused = error.reasons
            self._events.publish(CommitAnswered("refused"))
            log.warning("commit_refused", error=str(error))
        else:
            seconds = self._clock() - began
            self._events.publish(CommitAnswered("ok", positions, seconds))
            self._events.publish(TimeSpent("commit", seconds))
        if self._unconfirmed_since is not None:
            log.info("commit_confirmed", after_s=round(self._clock() - self._unconfirmed_since, 1))
            self._unconfirmed_since = None
        self._states.committed(positions, refused.keys(), began)

    def _keep_asking(self, positions: Mapping[Partition, Position], error: CommitUnconfirmed) -> None:
        now = self._clock()
        if self._unconfirmed_since is None:
            self._unconfirmed_since = now
            log.warning("commit_unconfirmed", error=str(error), hint="it is sent again")
        if now - self._unconfirmed_since > COMMIT_PATIENCE_S:
            raise error
        self._states.unconfirmed(positions.keys(), now)

    def _wait_changed(self, timeout_s: float) -> None:
        self._states.wait_changed(timeout_s, unconfirmed=self._unconfirmed_since is not None)

    def _follow_targets(self) -> None:
        """Begin to read for targets that can be written to by now, and no longer for those that have failed."""
        if ready := self._states.to_offer():
            offering(self._source).offer(ready)
        if failed := self._states.to_ignore():
            offering(self._source).ignore(failed.keys())
            self._stopped.update(failed)

    def _give_up(self, partitions: Collection[Partition], event: str) -> None:
        dropped = self._states.forget(partitions)
        for partition in partitions:
            self._stopped.pop(partition, None)
        log.info(event, partitions=[str(part) for part in sorted(partitions)], left_to_successor=dropped)
