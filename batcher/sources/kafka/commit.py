"""Commit within a bounded time: librdkafka's own synchronous commit has no such bound.

That one waits `session.timeout.ms` (45 s) for a coordinator that is gone, and a minute for one that is frozen, and
nothing can call it back. So a commit is sent without waiting, and then read back with a bound. Both travel on one
connection to the coordinator, which answers in order. Reading back what was written is the proof. It takes 2-5 ms on
loopback, serves no callbacks and takes no messages, so it works inside a rebalance callback as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from batcher.errors import CommitUnconfirmed, ConfigurationError, SourceLost
from batcher.records import Partition
from batcher.sources.kafka.errors import (
    COMMIT_FENCED,
    COMMIT_NEVER,
    COMMIT_OUTRUN,
    COMMIT_REBALANCING,
    COMMIT_RETRIED,
    FATAL,
    error_of,
    fatal,
    text_of,
)

RETRY_PAUSE_S: Final = 0.05

OUTRUN_GRACE_S: Final = 1.0
"""How long a commit of an old generation is repeated: the new one is known within milliseconds of a rebalance. It is
counted from the first such answer, which a group that waits for a member holds back for as long as it waits."""


class Committed(NamedTuple):
    """Hold what a broker keeps of a commit."""

    next_offset: int
    metadata: str = ""


def store(
    consumer: Consumer,
    positions: Mapping[Partition, Committed],
    timeout_s: float,
    instance: str | None = None,
    *,
    rebalancing: bool = False,
) -> dict[Partition, str]:
    """Commit the positions and return those that were refused because they are no longer ours, with the reason.

    Blocks for at most about `timeout_s`. `rebalancing` says that partitions are being given up: a group that waits for
    that before it takes commits again is not waited for. Raise CommitUnconfirmed when the outcome is unknown after
    that time, SourceLost when the client is dead, ConfigurationError when such a commit can never be accepted.
    """
    deadline = time.monotonic() + timeout_s
    give_up_at = math.inf
    left = dict(positions)
    refused: dict[Partition, str] = {}
    last = "no answer"
    brief = COMMIT_OUTRUN | COMMIT_REBALANCING if rebalancing else COMMIT_OUTRUN
    while left:
        for partition, error in _attempt(consumer, left, max(deadline - time.monotonic(), RETRY_PAUSE_S)).items():
            if error is None:
                del left[partition]
                continue
            _raise_for(error, f"commit of {partition} at {left[partition].next_offset}", instance)
            last = text_of(error)
            code = error.code()
            if code in brief:
                give_up_at = min(give_up_at, time.monotonic() + OUTRUN_GRACE_S)
            if code in COMMIT_FENCED or (code in brief and time.monotonic() > give_up_at):
                refused[partition] = last
                del left[partition]
        if left:
            if time.monotonic() >= deadline:
                named = ", ".join(str(partition) for partition in sorted(left))
                raise CommitUnconfirmed(f"commit of {named} not confirmed within {timeout_s:g} s: {last}")
            time.sleep(RETRY_PAUSE_S)
    return refused


def _raise_for(error: KafkaError, what: str, instance: str | None) -> None:
    """Raise, unless after this error the commit is sent again or only the commit is given up."""
    code = error.code()
    if error.fatal() or code in FATAL:
        raise fatal(error, instance)
    if code in COMMIT_NEVER:
        raise ConfigurationError(f"{what} refused: {text_of(error)}")
    if code not in COMMIT_FENCED | COMMIT_RETRIED | COMMIT_OUTRUN | COMMIT_REBALANCING:
        raise SourceLost(f"{what} failed: {text_of(error)}")


def _attempt(
    consumer: Consumer, positions: Mapping[Partition, Committed], timeout_s: float
) -> dict[Partition, KafkaError | None]:
    """Commit once; return the outcome of each partition, None for those proven to be stored."""
    try:
        consumer.commit(offsets=_offsets(positions), asynchronous=True)
        stored = consumer.committed([TopicPartition(*partition) for partition in positions], timeout_s)
    except KafkaException as error:
        return dict.fromkeys(positions, error_of(error))
    outcome: dict[Partition, KafkaError | None] = {}
    doubtful: dict[Partition, Committed] = {}
    for found in stored:
        partition = Partition(found.topic, found.partition)
        if found.error is not None:
            outcome[partition] = found.error
        elif Committed(found.offset, found.metadata or "") == positions[partition]:
            outcome[partition] = None
        else:
            doubtful[partition] = positions[partition]
    if doubtful:
        # The coordinator has just answered, so this commit does not block, and it gives the reason.
        outcome.update(_attempt_and_wait(consumer, doubtful))
    return outcome


def _attempt_and_wait(
    consumer: Consumer, positions: Mapping[Partition, Committed]
) -> dict[Partition, KafkaError | None]:
    try:
        answered = consumer.commit(offsets=_offsets(positions), asynchronous=False)
    except KafkaException as error:
        return dict.fromkeys(positions, error_of(error))
    return {Partition(one.topic, one.partition): one.error for one in answered}


def _offsets(positions: Mapping[Partition, Committed]) -> list[TopicPartition]:
    return [TopicPartition(*partition, *committed) for partition, committed in positions.items()]
