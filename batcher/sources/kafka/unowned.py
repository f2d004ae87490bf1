"""Find partitions that a group of static members has left to nobody, and have them shared out anew.

With cooperative rebalancing a member gives partitions up, and joins once more so that they get another owner. Killed
in between, and back as the same static member within its session, it gets what it was to keep, without a rebalance. The
rest has no owner then for as long as nobody else joins or leaves, and no error says so (Apache Kafka 4.3.1, classic
groups; those of KIP-848 have no such gap). So a static member asks, a moment after it has come, what the members have.
Where the same partitions are left over twice, it lets another one join for a moment, without an id of its own: its
coming and its going are rebalances, in which owners keep what they have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from batcher.records import Partition
from batcher.sources.kafka.options import KafkaOptions

log = structlog.get_logger(__name__)

QUIET_S: Final = 10.0
"""How long after the last change the group is asked: a rebalance takes less, where no member is missing."""

AGAIN_S: Final = 5.0
"""The time between two looks. What has no owner for so long in a stable group is not about to get one."""

ASK_S: Final = 5.0

LEAVE_S: Final = 1.0
"""How long a stop waits for that. What is left behind ends by itself, and the other member with its session."""

JOIN_S: Final = 30.0
"""How long the other member waits for the group to take it in."""

REST_S: Final = 60.0
LONGEST_REST_S: Final = 3600.0
"""How long nothing is done after that, twice as long each time that it did not help: a group that leaves partitions to
nobody for another reason is not to be kept busy with rebalances."""

SHOWN: Final = 8
"""Partitions in a line of the log."""

SESSION: Final = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
"""The other member's: the shortest that brokers allow by default, should this process die with it."""


class UnownedPartitions:
    """Look after each change of our partitions; `moved` and `look` on the fetch thread, which waits for nothing.

    `unowned` asks the group, as `Admin.unowned` does, and `join` joins it. They are called on a thread of their own.
    """

    def __init__(
        self,
        options: KafkaOptions,
        unowned: Callable[[Collection[str], float], Collection[Partition] | None],
        *,
        join: Callable[[KafkaOptions, Collection[str], threading.Event], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._unowned = unowned
        self._join = join or join_for_a_moment
        self._clock = clock
        self._due_at: float | None = None
        self._seen: frozenset[Partition] = frozenset()
        self._rest_s = REST_S
        self._rests_until = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def moved(self) -> None:
        """Look a while after this: partitions came or went, or this member has just joined."""
        if self._options.leaves_unowned:
            self._due_at, self._seen = self._clock() + QUIET_S, frozenset()

    def look(self, topics: Collection[str]) -> None:
        """Look in a thread of its own, if it is time. These are the topics that this member has subscribed to."""
        if self._due_at is None or self._clock() < self._due_at:
            return
        if self._thread is not None and self._thread.is_alive():
            return
        self._due_at = None
        self._thread = threading.Thread(target=self._check, args=(tuple(topics),), name="unowned", daemon=True)
        self._thread.start()

    def _check(self, topics: Collection[str]) -> None:
        """Ask the group once, and act where it left the same partitions to nobody as the last time."""
        try:
            found = self._unowned(topics, ASK_S)
            if found is None:  # it is being shared out
                self._again()
                return
            left, before = frozenset(found), self._seen
            self._seen = left
            if not left:
                self._rest_s = REST_S
                return
            if not left & before or self._ended.is_set() or self._clock() < self._rests_until:
                self._again()
                return
            self._rests_until = self._clock() + self._rest_s
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
            self._again()
            log.warning(
                "partitions_unowned",
                group=self._options.group,
                partitions=[str(one) for one in sorted(left)[:SHOWN]],
                count=len(left),
                hint="a static member was restarted while it gave them up; they are shared out anew",
            )
            self._join(self._options, {one.topic for one in left}, self._ended)
        except (KafkaException, TimeoutError) as error:
            log.debug("group_not_described", group=self._options.group, error=str(error))

    def close(self) -> None:
        """End what is under way, soon."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(LEAVE_S)

    def _again(self) -> None:
        self._due_at = max(self._clock() + AGAIN_S, self._rests_until)


def join_for_a_moment(options: KafkaOptions, topics: Collection[str], ended: threading.Event) -> None:
    """Join the group of `options` as one more member, read nothing, and leave it. Raise KafkaException."""
    settings: dict[str, Any] = {**options.librdkafka(), **SESSION, "statistics.interval.ms": "0", "log_level": "0"}
    settings.pop("group.instance.id", None)
    joined = threading.Event()

    def on_assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        joined.set()

    consumer = Consumer(settings)
    try:
        consumer.subscribe(sorted(topics), on_assign=on_assign)
        give_up_at = time.monotonic() + JOIN_S
        while not (joined.is_set() or ended.is_set()) and time.monotonic() < give_up_at:
            consumer.poll(0.2)
    finally:
        consumer.close()
