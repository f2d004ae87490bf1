"""A static member is killed while it gives partitions up, and comes back: on Apache Kafka they have no owner then."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from batcher.records import Partition
from batcher.sources.kafka.admin import Admin
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.unowned import ASK_S, join_for_a_moment
from batcher.testing.kafka import Broker
from tests.harness.patience import PATIENCE_S
from tests.harness.processes import BatcherProcess

pytestmark = pytest.mark.broker

SESSION_MS: Final = 6_000
PARTITIONS: Final = 4

MEMBER: Final = """
import json, os, sys
from confluent_kafka import Consumer

settings, topic, dies = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3] == "dies"

def assigned(consumer, partitions):
    print("assigned", len(partitions), flush=True)
    consumer.incremental_assign(partitions)

def revoked(consumer, partitions):
    if dies:
        os._exit(9)
    consumer.incremental_unassign(partitions)

consumer = Consumer(settings)
consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked)
while True:
    consumer.poll(0.1)
"""


def options(broker: Broker, topic: str, group: str, instance: str) -> KafkaOptions:
    return KafkaOptions(
        brokers=broker.bootstrap,
        topics=(topic,),
        group=group,
        instance=instance,
        properties={"session.timeout.ms": str(SESSION_MS), "heartbeat.interval.ms": "300"},
    )


@contextmanager
def member(settings: KafkaOptions, *, dies: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run a bare client until the end of the block; return when it has an assignment."""
    given = json.dumps(settings.librdkafka())
    command = [sys.executable, "-c", MEMBER, given, settings.topics[0], "dies" if dies else "lives"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("assigned")
        yield process
    finally:
        process.kill()
        process.communicate()


def unowned(settings: KafkaOptions) -> object:
    return Admin(settings).unowned(settings.topics, ASK_S)


def until(settings: KafkaOptions, wanted: Callable[[object], bool]) -> object:
    deadline = time.monotonic() + PATIENCE_S
    while not wanted(found := unowned(settings)):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def left_to_nobody(stack: ExitStack, first: KafkaOptions, second: KafkaOptions) -> None:
    """Make a group in which two of four partitions have no owner, of two members that live."""
    dying = stack.enter_context(member(first, dies=True))
    stack.enter_context(member(second))
    assert dying.wait(PATIENCE_S) == 9


def test_partitions_that_nobody_has_are_found_and_one_that_joins_for_a_moment_has_them_shared_out(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str]
) -> None:
    topic, group = new_topic(partitions=PARTITIONS), new_group()
    first, second = options(broker, topic, group, "first"), options(broker, topic, group, "second")
    with ExitStack() as stack:
        left_to_nobody(stack, first, second)
        stack.enter_context(member(first))
        found = until(first, bool)
        assert found == {Partition(topic, 0), Partition(topic, 1)}
        time.sleep(2 * SESSION_MS / 1000)
        # It is not the session of the one that died that is waited for.
        assert unowned(first) == found

        join_for_a_moment(first, {topic}, threading.Event())

        until(first, lambda left: left == set())


def test_a_worker_that_comes_back_finds_them_and_says_so(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str]
) -> None:
    topic, group = new_topic(partitions=PARTITIONS), new_group()
    broker.produce(topic, [b'{"n":1}'] * 40)
    first, second = options(broker, topic, group, "first"), options(broker, topic, group, "second")
    same = ("-X", f"session.timeout.ms={SESSION_MS}", "-X", "heartbeat.interval.ms=300", "--kafka.instance", "first")
    with ExitStack() as stack:
        left_to_nobody(stack, first, second)
        worker = stack.enter_context(
            BatcherProcess("-b", broker.bootstrap, "-t", topic, "-g", group, "--sink", "null", *same)
        )
        said = worker.wait_for("partitions_unowned")
        assert said["partitions"] == [f"{topic}[0]", f"{topic}[1]"]
        until(first, lambda left: left == set())
