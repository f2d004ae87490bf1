"""Freeze workers until they are taken for dead, let them come and go, and watch who owns what meanwhile.

with GroupScene(broker, target, tmp_path, "range", topic=topic, group=group, delivery="exactly-once") as scene:
    scene.start()
    zombie = scene.workers[0]
    scene.freeze(zombie)            # returns once the others have what it had
    scene.thaw(zombie)              # returns once it has seen that, and is a member again
    storm = Storm(scene)
    storm.rage(60)
    verdict = scene.settle()
assert verdict.exact, verdict
assert not scene.commit_log().went_back
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from batcher.testing.kafka import REQUEST_TIMEOUT_S, Broker
from tests.harness.attack import Scene, Worker
from tests.harness.commit_log import CommitLog, Step
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess
from tests.harness.targets import Target

Membership = Literal["range", "cooperative-sticky", "consumer"]
"""An assignor of the classic protocol, or `consumer`: KIP-848."""

IMPATIENT: Final = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "200",
}
"""Properties of a broker whose groups notice their dead soon: by default it takes 6 s at least, 45 s with KIP-848."""

MARGIN_S: Final = 0.5
"""How much later than its end a session may be taken for ended."""

STORM_TICK_S: Final = 1.0

KILL_SHARE: Final = 0.2
"""How many of those that leave in a storm are killed."""

_SESSION: Final = ("session.timeout.ms=", "heartbeat.interval.ms=")

GONE: Final = frozenset({"partitions_revoked", "partitions_lost"})

STARTED: Final = "pipeline_started"


class PhasedWorker(Worker):
    """Run a worker whose traps may be those of `phases` as well."""

    def start(self, **traps: str) -> BatcherProcess:
        module = "tests.harness.phases" if traps else "batcher"
        self._runs.append(BatcherProcess(*self._flags, environment=traps, module=module))
        self.running.start()
        return self.running


class GroupScene(Scene):
    """Hold a scene whose group has a chosen membership, dynamic unless `static`, with sessions of `session_s`.

    With `consumer` the session is a setting of the group on the broker, which has to allow it: see IMPATIENT.
    """

    def __init__(
        self,
        broker: Broker,
        target: Target,
        directory: Path,
        membership: Membership,
        *,
        group: str,
        session_s: float = 6.0,
        static: bool = False,
        flags: Sequence[str] = (),
        **options: Any,
    ) -> None:
        session = {"session.timeout.ms": round(session_s * 1000), "heartbeat.interval.ms": round(session_s * 100)}
        properties: Mapping[str, object]
        if membership == "consumer":
            _configure_group(broker, group, {f"consumer.{name}": str(value) for name, value in session.items()})
            properties = {"group.protocol": "consumer"}
        else:
            properties = {"partition.assignment.strategy": membership, **session}
        self._session_s = session_s
        self._next_generation = membership == "consumer"
        given = [part for name, value in properties.items() for part in ("-X", f"{name}={value}")]
        super().__init__(broker, target, directory, group=group, static=static, flags=(*given, *flags), **options)

    def worker(self, name: str, *flags: str) -> Worker:
        """Return one more worker, not started; the caller puts it into `workers` if it is to be counted."""
        # With KIP-848 the client refuses to be told about sessions, and a scene tells everybody.
        own = list(_without_sessions(self._flags)) if self._next_generation else self._flags
        instance = ("--kafka.instance", f"{self.group}-{name}") if self._static else ()
        return PhasedWorker(name, (*own, *instance, *flags))

    @property
    def partitions(self) -> frozenset[str]:
        """Return the names of all partitions, as the log has them."""
        return frozenset(str(partition) for partition in self.broker.ends(self.topic))

    def freeze(self, worker: Worker) -> float:
        """Stop all of a worker until it is taken for dead; return the seconds until the others had what was its own."""
        worker.suspend()
        return self.taken_over(worker)

    def taken_over(self, *zombies: Worker) -> float:
        """Wait until workers that do nothing any more are taken for dead and have no part; return the seconds.

        A rebalance under way when one stopped may have left it without partitions, so its session has to end as well.
        """
        began = time.monotonic()
        held = frozenset().union(*(owned_by(one) for one in zombies))
        others = [one for one in self.workers if one not in zombies]
        wait_for(lambda: held <= frozenset().union(*(owned_by(one) for one in others)), f"{held} taken over")
        took_s = time.monotonic() - began
        time.sleep(max(0.0, self._session_s + MARGIN_S - took_s))
        return took_s

    def thaw(self, worker: Worker) -> None:
        """Let a frozen worker go on, until it is a member of the group again."""
        before = len(worker.running.events)
        worker.resume()
        worker.running.wait_for("partitions_assigned", after=before)

    def gather(self) -> None:
        """Wait until each partition has one owner among the workers, none of which is frozen."""
        everything = sorted(self.partitions)
        wait_for(lambda: sorted(part for one in self.workers for part in owned_by(one)) == everything, "one owner each")

    def commit_log(self) -> CommitLog:
        """Return what the group has committed so far."""
        return CommitLog.of(self.broker.bootstrap, self.group)


class Storm:
    """Let workers come and go: each tick one is started, or leaves by SIGTERM or, less often, by SIGKILL.

    The first worker of the scene stays. `exits` are the exit codes of those that were asked to leave.
    """

    def __init__(self, scene: GroupScene, *, kill_share: float = KILL_SHARE) -> None:
        self.exits: list[int] = []
        self._scene = scene
        self._kill_share = kill_share
        self._leaving: list[Worker] = []

    def rage(self, seconds: float, least: int = 2) -> None:
        """Storm for so long, and until so many were asked to leave; then wait for them, and start who is down."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends or len(self.exits) + len(self._leaving) < least:
            self._tick(self._scene.random.choice(self._scene.workers[1:]))
            time.sleep(STORM_TICK_S)
        for worker in self._scene.workers:
            if worker in self._leaving:
                self._left(worker)
            if not worker.alive:
                worker.start()
        for worker in self._scene.workers:
            worker.running.wait_for(STARTED)

    def _tick(self, worker: Worker) -> None:
        if worker in self._leaving:
            if worker.alive:
                return
            self._left(worker)
        if not worker.alive:
            worker.start()
        elif self._scene.random.random() < self._kill_share:
            worker.kill()
        elif worker.running.named(STARTED):
            # Before, it does not listen yet.
            worker.running.signal(signal.SIGTERM)
            self._leaving.append(worker)

    def _left(self, worker: Worker) -> None:
        self.exits.append(worker.running.wait())
        self._leaving.remove(worker)


def owned_by(worker: Worker) -> frozenset[str]:
    """Return the partitions that a worker has, going by its log; none once it has ended."""
    owned: set[str] = set()
    if not worker.alive:
        return frozenset()
    for event in worker.running.events:
        if event["event"] == "partitions_assigned":
            owned |= event["positions"].keys()
        elif event["event"] in GONE:
            owned.difference_update(event["partitions"])
    return frozenset(owned)


def unannounced(log: CommitLog) -> list[Step]:
    """Return the steps of a group in exactly-once delivery that do not end where an announced range ended."""
    return [
        step
        for step in log.steps
        if step.after.next_offset != step.before.next_offset
        and step.after.next_offset not in {intent.range.next_offset for intent in step.before.position.intents}
    ]


def _without_sessions(flags: Sequence[str]) -> Iterator[str]:
    for flag, follower in pairwise((*flags, "")):
        if not any(text.startswith(_SESSION) for text in (flag, follower)):
            yield flag


def _configure_group(broker: Broker, group: str, settings: Mapping[str, str]) -> None:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 3})
    admin.incremental_alter_configs([resource])[resource].result(REQUEST_TIMEOUT_S)
