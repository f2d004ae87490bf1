# receipts.py: a source of a queue whose messages are acknowledged one by one, as SQS and NSQ have them
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from batcher import Partition, PartitionListener, Position, Records, SourceInfo

LANE = Partition("queue", 0)


class Queue:
    """A queue in memory: a message that is taken is hidden until it is acknowledged, or its lease is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, lease_s: float = 30.0) -> None:
        self.clock = clock
        self.lease_s = lease_s
        self.messages: dict[int, bytes] = {}
        self.hidden_until: dict[int, float] = {}
        self.deliveries: dict[int, int] = {}

    def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            self.messages[len(self.deliveries)] = body
            self.deliveries[len(self.deliveries)] = 0

    def take(self, count: int) -> list[tuple[int, bytes]]:
        now = self.clock()
        ready = [one for one in self.messages if self.hidden_until.get(one, 0.0) <= now][:count]
        for one in ready:
            self.hidden_until[one] = now + self.lease_s
            self.deliveries[one] += 1
        return [(one, self.messages[one]) for one in ready]

    def acknowledge(self, one: int) -> None:
        self.messages.pop(one, None)


class Receipts:
    """Number the messages as they come, and acknowledge those below a committed position."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.listener: PartitionListener | None = None
        self.told = False
        self.paused = False
        self.held: dict[int, int] = {}
        self.next_offset = 0

    def open(self, listener: PartitionListener) -> SourceInfo:
        self.listener = listener
        return SourceInfo(
            keeps_intents=False, replayable=False, reason="a queue hands a message to another reader, in another order"
        )

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        del max_bytes
        if not self.told and self.listener is not None:
            self.told = True
            self.listener.on_assigned({LANE: Position(0)})
        taken = [] if self.paused else self.queue.take(max_records)
        if not taken:
            time.sleep(min(timeout_s, 0.001))
            return []
        offsets = range(self.next_offset, self.next_offset + len(taken))
        self.held.update(zip(offsets, (one for one, _ in taken), strict=True))
        self.next_offset = offsets.stop
        nothing: Any = pa.nulls(len(taken), pa.binary())
        times: Any = pa.nulls(len(taken), pa.int64())
        values = pa.array([body for _, body in taken], pa.binary())
        return [Records(LANE, pa.array(offsets, pa.int64()), times, nothing, values)]

    def pause(self, partitions: Collection[Partition]) -> None:
        self.paused = self.paused or LANE in partitions

    def resume(self, partitions: Collection[Partition]) -> None:
        self.paused = self.paused and LANE not in partitions

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        del timeout_s
        for offset in [offset for offset in self.held if offset < positions[LANE].next_offset]:
            self.queue.acknowledge(self.held.pop(offset))

    @property
    def reached(self) -> Mapping[Partition, int]:
        return {LANE: self.next_offset} if self.told else {}

    @property
    def exhausted(self) -> bool:
        return self.told and not self.queue.messages

    def close(self) -> None:
        if self.told and self.listener is not None:
            self.told = False
            self.listener.on_revoked([LANE])
