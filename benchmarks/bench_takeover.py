"""How long records stand still when a process dies or is restarted, by protocol and kind of membership.

    python -m benchmarks.bench_takeover                              # twelve cases all at 45 s: 8 minutes
    python -m benchmarks.bench_takeover --session-timeout 6 --protocols range --cases kill-static,stop

One broker with Kafka's own defaults, a topic with four partitions and a steady trickle of records, loaded into Parquet
by real processes. A case begins with the signal and ends when the committed offset of every partition has moved again.
A process that ends with an error is started again after a second, as a supervisor would.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Consumer, TopicPartition, libversion

from batcher.testing.kafka import Broker, committed_offsets
from batcher.testing.real_broker import RealBroker
from benchmarks.harness import machine
from benchmarks.report import chosen
from tests.harness.live_orders import LiveOrders
from tests.harness.processes import BatcherProcess

PARTITIONS: Final = 4
RATE: Final = 200.0
SESSION_S: Final = 45
PATIENCE_S: Final = 180.0
LOOK_EVERY_S: Final = 0.05
RESTART_AFTER_S: Final = 1.0

PROTOCOLS: Final[Mapping[str, Sequence[str]]] = {
    "range": ("-X", "partition.assignment.strategy=range"),
    "cooperative-sticky": (),
    "kip848": ("-X", "group.protocol=consumer"),
}

DEFAULTS: Final = {
    "group.initial.rebalance.delay.ms": "3000",
    "group.consumer.min.heartbeat.interval.ms": "5000",
    "group.consumer.heartbeat.interval.ms": "5000",
}
"""Kafka's own, which the broker for tests changes to save time."""


class Crew:
    """Run processes of one group on one topic while in the `with` block."""

    def __init__(self, broker: Broker, protocol: str, session_s: int) -> None:
        self._broker = broker
        self._name = f"takeover-{uuid.uuid4().hex[:8]}"
        self._flags = ("-b", broker.bootstrap, "-t", self._name, "-g", self._name, *PROTOCOLS[protocol])
        if protocol != "kip848":
            self._flags += ("-X", f"session.timeout.ms={session_s * 1000}")
        self._stack = ExitStack()
        self._directory = ""

    def __enter__(self) -> Self:
        self._broker.create_topic(self._name, PARTITIONS)
        self._directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-takeover-"))
        self._watcher = Consumer({"bootstrap.servers": self._broker.bootstrap, "group.id": self._name})
        self._stack.callback(self._watcher.close)
        # A rate of poison far beyond what is produced: none.
        orders = LiveOrders(self._broker, self._name, PARTITIONS, rate=RATE, poison_every=10**9)
        self._stack.enter_context(orders)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, instance: str | None = None) -> BatcherProcess:
        """Start a process."""
        membership = () if instance is None else ("--kafka.instance", instance)
        target = ("--sink", "parquet", "--parquet.path", self._directory, "--batch.max-wait", "200ms")
        started = BatcherProcess(*self._flags, *target, *membership)
        self._stack.enter_context(started)
        return started

    def committed(self) -> list[int]:
        """Return the committed offset of each partition; -1001 where there is none."""
        asked = [TopicPartition(self._name, number) for number in range(PARTITIONS)]
        return [found.offset for found in committed_offsets(self._watcher, asked, PATIENCE_S)]

    def wait_until_flowing(self, revive: Callable[[], None] = lambda: None) -> None:
        """Return when every partition's committed offset has moved; raise TimeoutError."""
        before = self.committed()
        deadline = time.monotonic() + PATIENCE_S
        while not all(now > was for now, was in zip(self.committed(), before, strict=True)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no records flow after {PATIENCE_S:.0f} s")
            revive()
            time.sleep(LOOK_EVERY_S)


def restarted(crew: Crew, number: signal.Signals, instance: str | None) -> float:
    """Return the seconds without records when the only process gets a signal and is started again at once."""
    victim = crew.start(instance)
    crew.wait_until_flowing()
    began = time.monotonic()
    victim.signal(number)
    victim.wait()
    process = [crew.start(instance)]

    def revive() -> None:
        if process[-1].exit_code is not None:
            time.sleep(RESTART_AFTER_S)
            process.append(crew.start(instance))

    crew.wait_until_flowing(revive)
    return time.monotonic() - began


def taken_over(crew: Crew) -> float:
    """Return the seconds until a second process that was there all along has the partitions of a killed one."""
    victim = crew.start()
    crew.wait_until_flowing()
    survivor = crew.start()
    survivor.wait_for("batch_written")
    crew.wait_until_flowing()
    began = time.monotonic()
    victim.signal(signal.SIGKILL)
    victim.wait()
    crew.wait_until_flowing()
    return time.monotonic() - began


CASES: Final[Mapping[str, tuple[str, Callable[[Crew], float]]]] = {
    "kill-static": (
        "kill -9, restarted with the same `--kafka.instance`",
        lambda crew: restarted(crew, signal.SIGKILL, f"worker-{os.getpid()}"),
    ),
    "kill": ("kill -9, restarted", lambda crew: restarted(crew, signal.SIGKILL, None)),
    "kill-second": ("kill -9, taken over by a second process", taken_over),
    "stop": ("SIGTERM, restarted", lambda crew: restarted(crew, signal.SIGTERM, None)),
    "stop-static": (
        "SIGTERM, restarted with the same `--kafka.instance`",
        lambda crew: restarted(crew, signal.SIGTERM, f"worker-{os.getpid()}"),
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--protocols", type=lambda text: chosen(text, PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--cases", type=lambda text: chosen(text, CASES), default=list(CASES))
    parser.add_argument(
        "--session-timeout", type=int, default=SESSION_S, metavar="SECONDS", help="kip848 always has the broker's"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    results: dict[str, dict[str, float]] = {}
    named = os.environ.get("BATCHER_TEST_BROKERS")
    with Broker(named) if named else RealBroker(DEFAULTS) as broker:
        for case in arguments.cases:
            results[case] = {}
            for protocol in arguments.protocols:
                with Crew(broker, protocol, arguments.session_timeout) as crew:
                    results[case][protocol] = round(CASES[case][1](crew), 1)
                print(f"{case} {protocol}: {results[case][protocol]} s", flush=True)
    print("\n| Seconds without records |", " | ".join(arguments.protocols), "|")
    print("|---|" + "---:|" * len(arguments.protocols))
    for case, seconds in results.items():
        print(f"| {CASES[case][0]} |", " | ".join(f"{seconds[one]:.1f}" for one in arguments.protocols), "|")
    if arguments.json:
        facts = {**machine(), "librdkafka": libversion()[0]}
        document = {"machine": facts, "session_timeout_s": arguments.session_timeout, "seconds": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
