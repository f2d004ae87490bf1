"""Read a queue that hands out receipts: number what it hands out, and acknowledge it once it is durable.

    gateway.receive ─► numbered, held ─► the pipeline ─► commit(next_offset) ─► gateway.acknowledge
                            │ extend, three times in a lease                        below it
                            └─► release ─► gateway.release: it comes again, to whichever reader

Numbers ascend over all runs of all processes: they begin with the time. So files that are named by their offsets never
have the name of earlier ones. A number is never given twice, and none is read again: a message that comes again gets
another one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import structlog

from batcher.errors import CommitUnconfirmed
from batcher.protocols import PartitionListener, SourceInfo
from batcher.records import HEADERS_TYPE, Partition, Position, Records
from batcher.sources.receipts.gateway import Gateway, QueueInfo, Receipt, Received

log = structlog.get_logger(__name__)

BEATS_IN_A_LEASE: Final = 3
"""How often leases are begun anew in the time that they last: two attempts may fail."""

QUIET_S: Final = 1.0
"""How long nothing may come before a queue that says it is empty is believed: such numbers are estimates."""

UNKNOWN_QUIET_S: Final = 5.0
"""The same for a queue that does not say how many messages it has."""

DEPTH_EVERY_S: Final = 5.0
"""How often the queue is asked how many messages it has."""

IDLE_S: Final = 0.1
"""How long nothing more may come, with half of what may be held, before the queue counts as handed out."""

REASON: Final = "a queue with receipts does not hand out the same messages again in the same order"


class ReceiptSource:
    """Read one queue through its gateway. The only partition is the queue's name, with the number of the worker.

    With `until_eof` it is exhausted when the queue is empty and nothing is held. `clock` is monotonic seconds, `now_ms`
    the time of day, `sleep` waits.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        worker: int = 0,
        until_eof: bool = False,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gateway = gateway
        self._worker = worker
        self._until_eof = until_eof
        self._clock = clock
        self._sleep = sleep
        # 20 bits of chance: two processes may begin in the same millisecond.
        self._next_offset = (now_ms() << 20) + secrets.randbits(20)
        self._listener: PartitionListener | None = None
        self._queue: QueueInfo | None = None
        self._assigned = False
        self._closed = False
        self._paused = False
        self._held: dict[int, Receipt] = {}
        self._beat_at = 0.0
        self._came_at = 0.0
        self._depth: int | None = None
        self._depth_at: float | None = None
        self._exhausted = False
        self._slow = False
        self.lapsed = 0
        """The deliveries of which the lease ended while they were held: these messages come again."""

    @property
    def _partition(self) -> Partition:
        return Partition(self._info.name, self._worker)

    @property
    def _info(self) -> QueueInfo:
        assert self._queue is not None, "the source is not open"
        return self._queue

    def open(self, listener: PartitionListener) -> SourceInfo:
        """Open the gateway. Raises as it does."""
        self._queue = self._gateway.open()
        self._listener = listener
        self._beat_at = self._came_at = self._clock()
        return SourceInfo(
            keeps_intents=False,
            replayable=False,
            reason=REASON,
            capabilities=frozenset({"lag", "lease", "release", "saturated"}),
            topics=(self._info.name,),
        )

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        """Return deliveries that have come in, and begin leases anew where that is due."""
        if not self._assigned and self._listener is not None:
            self._assigned = True
            self._listener.on_assigned({self._partition: Position(self._next_offset)})
        self.extend_leases()
        room = min(max_records, self._info.max_held - len(self._held))
        if self._paused or room <= 0:
            self._sleep(timeout_s)
            return []
        received = self._gateway.receive(room, max_bytes, timeout_s)
        now = self._clock()
        if received:
            self._came_at = now
        self._look(now)
        return [self._numbered(received)] if received else []

    def pause(self, partitions: Collection[Partition]) -> None:
        """Receive nothing more; what is held goes on being held."""
        if self._partition in partitions and not self._paused:
            self._paused = True
            self._gateway.stop_receiving()

    def resume(self, partitions: Collection[Partition]) -> None:
        """Receive again."""
        if self._partition in partitions and self._paused:
            self._paused = False
            self._came_at = self._clock()
            self._gateway.start_receiving()

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Acknowledge what is held below the position; what was released is not. Raises as the gateway does."""
        position = positions.get(self._partition)
        if position is None:
            return
        # Held in ascending order.
        done: dict[int, Receipt] = {}
        for offset, receipt in self._held.items():
            if offset >= position.next_offset:
                break
            done[offset] = receipt
        if done:
            self._lost(self._gateway.acknowledge(list(done.values()), timeout_s), "acknowledged")
            for offset in done:
                self._held.pop(offset, None)

    def release(self, delays_s: Mapping[Partition, Mapping[int, float]]) -> None:
        """Give single deliveries back. Raises as the gateway does."""
        given: dict[Receipt, float] = {}
        for offset, delay_s in delays_s.get(self._partition, {}).items():
            # First: where the queue does not answer, the message comes again when its lease ends. It is not extended.
            receipt = self._held.pop(offset, None)
            if receipt is not None:
                given[receipt] = delay_s
        if given:
            self._gateway.release(given)

    def extend_leases(self) -> None:
        """Begin the leases of what is held anew, a third of a lease after the last time."""
        lease_s = self._info.lease_s
        now = self._clock()
        if lease_s is None or now < self._beat_at:
            return
        self._beat_at = now + lease_s / BEATS_IN_A_LEASE
        try:
            lapsed = self._gateway.extend(list(self._held.values()))
        except CommitUnconfirmed as error:
            # Soon again: one more failure is affordable, two are not.
            self._beat_at = now + lease_s / BEATS_IN_A_LEASE / 4
            if not self._slow:
                log.warning("leases_not_extended", error=str(error), hint="it is tried again")
            self._slow = True
            return
        self._slow = False
        if lapsed:
            gone = set(lapsed)
            self._held = {offset: receipt for offset, receipt in self._held.items() if receipt not in gone}
            self._lost(lapsed, "extended")

    def lag(self) -> Mapping[Partition, int]:
        """Return the messages that the queue said it has, those in the hands of readers included."""
        return {} if self._depth is None else {self._partition: self._depth}

    @property
    def saturated(self) -> bool:
        """Return whether as much is held as may be, or half of it while nothing more comes."""
        held, most = len(self._held), 1 if self._info.in_turns else self._info.max_held
        return held >= most or (held * 2 >= most and self._clock() - self._came_at >= IDLE_S)

    @property
    def reached(self) -> Mapping[Partition, int]:
        return {self._partition: self._next_offset} if self._assigned else {}

    @property
    def exhausted(self) -> bool:
        """Return whether the queue was empty, nothing was held, and nothing came for a while."""
        return self._exhausted

    def close(self) -> None:
        """Give back what is held, before anything is waited for: another reader gets it at once."""
        if self._closed:
            return
        self._closed = True
        if self._queue is None:
            self._gateway.close()
            return
        try:
            if not self._paused:
                self._gateway.stop_receiving()
            if self._assigned and self._listener is not None:
                self._listener.on_revoked([self._partition])
            self._release_all()
        finally:
            self._gateway.close()
        if self.lapsed:
            log.warning("leases_lapsed_in_all", messages=self.lapsed, queue=self._info.name)

    def _release_all(self) -> None:
        held = dict.fromkeys([*self._held.values(), *self._gateway.held_back()], 0.0)
        self._held.clear()
        if not held:
            return
        try:
            self._gateway.release(held)
        except CommitUnconfirmed as error:
            log.warning("not_released", messages=len(held), error=str(error), hint="they come again with their leases")

    def _numbered(self, received: Sequence[Received]) -> Records:
        first = self._next_offset
        self._next_offset += len(received)
        self._held.update(zip(range(first, self._next_offset), (one.receipt for one in received), strict=True))
        headers: Any = None
        if any(one.headers for one in received):
            listed = [[{"key": k, "value": v} for k, v in one.headers] if one.headers else None for one in received]
            headers = pa.array(listed, HEADERS_TYPE)
        return Records(
            self._partition,
            pa.array(range(first, self._next_offset), pa.int64()),
            pa.array([one.timestamp_ms for one in received], pa.int64()),
            pa.array([one.key for one in received], pa.binary()),
            pa.array([one.value for one in received], pa.binary()),
            headers,
            pa.array([one.id for one in received], pa.string()),
            pa.array([one.attempt for one in received], pa.int32()),
        )

    def _look(self, now: float) -> None:
        """Ask for the depth where that is due, and see whether this is the end."""
        ending = self._until_eof and not self._held and now - self._came_at >= QUIET_S
        every_s = QUIET_S if ending else DEPTH_EVERY_S
        if self._depth_at is None or now - self._depth_at >= every_s:
            self._depth_at = now
            self._exhausted = False
            try:
                self._depth = self._gateway.depth()
            except CommitUnconfirmed:  # the gateway says itself, once, that its queue is away
                return
            empty = now - self._came_at >= UNKNOWN_QUIET_S if self._depth is None else self._depth == 0
            self._exhausted = ending and empty

    def _lost(self, lapsed: Sequence[Receipt], when: str) -> None:
        if not lapsed:
            return
        if not self.lapsed:
            log.warning(
                "leases_lapsed",
                messages=len(lapsed),
                queue=self._info.name,
                when=f"they were to be {when}",
                hint="they come again; give them longer leases",
            )
        self.lapsed += len(lapsed)
