"""One Apache Kafka node in KRaft mode, from jars, without Docker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from confluent_kafka import KafkaException

from batcher.embedded.jars import Unavailable, kafka_jars
from batcher.embedded.tether import ended, free_ports, tethered
from batcher.records import Partition
from batcher.testing.kafka import Broker

START_TIMEOUT_S: Final = 120.0
"""Ten seconds on a quiet machine; several times that where all cores are taken."""

STOP_TIMEOUT_S: Final = 15.0


class RealBroker(Broker):
    """Run Apache Kafka while in the `with` block, on two free ports of loopback.

    `properties` are added to `server.properties`. Start it from a thread that lives as long as the broker is needed: on
    Linux it dies with that thread. Members of groups are missed sooner, and topics compacted sooner, than by Kafka's
    defaults, and no record expires by its time. Raise Unavailable where Java or the jars are missing, or when the
    broker does not come up. Its files are kept then, and after a `with` block that failed.
    """

    shortest_session_ms = 1000

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        broker_port, controller_port = free_ports(2)
        super().__init__(f"127.0.0.1:{broker_port}")
        self._properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "4",
            # A second of waiting for members that never come would be the longest part of most tests.
            "group.initial.rebalance.delay.ms": "0",
            # 5 s by default: with KIP-848, as long as a member may take to hear of its partitions.
            "group.consumer.min.heartbeat.interval.ms": "200",
            "group.consumer.heartbeat.interval.ms": "200",
            # Records of tests carry times long past: the cleaner would remove them, once it has looked.
            "log.retention.ms": "-1",
            "group.min.session.timeout.ms": str(self.shortest_session_ms),
            # 15 s by default, until a compacted topic is looked at again.
            "log.cleaner.backoff.ms": "200",
            "auto.create.topics.enable": "false",
            **(properties or {}),
        }
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop(keep_files=kind is not None)

    @property
    def log_file(self) -> Path:
        """Return where the broker writes its log."""
        if self._directory is None:
            raise RuntimeError("the broker has not been started")
        return self._directory / "broker.log"

    def segments(self, partition: Partition) -> list[Path]:
        """Return the files that hold the records of a partition, in order; raise RuntimeError before the start."""
        if self._directory is None:
            raise RuntimeError("the broker has not been started")
        return sorted((self._directory / "data" / f"{partition.topic}-{partition.number}").glob("*.log"))

    def start(self) -> None:
        """Start the broker and wait until it answers; after `kill`, start it again with what it had on disk.

        Does nothing while it runs: a second process on the same directory would ruin the metadata log.
        """
        if self._process is not None:
            return
        classpath = f"{kafka_jars()}/*"
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="batcher-kafka-"))
            self._format(classpath, self._directory)
        java = ["java", "-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-Dlog4j2.level=WARN"]
        command = [*java, "-cp", classpath, "kafka.Kafka", str(self._directory / "server.properties")]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (a fixed command)
                tethered(command), stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End the broker at once, as a power cut would; `start` brings it back."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End the broker in good order and keep its files; `start` brings it back."""
        self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Freeze the broker: connections stay open and there is no answer."""
        self._signal(signal.SIGSTOP)
        # On a busy machine a stop takes a while to reach every thread, and the others answer until then.
        if self._process is not None:
            os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Let a frozen broker go on."""
        self._signal(signal.SIGCONT)

    def stop(self, *, keep_files: bool = False) -> None:
        """End the broker and remove its files. A second call is harmless."""
        super().stop()
        # It is no longer needed, so no time is spent on an orderly end.
        self.kill()
        if self._directory is not None and not keep_files:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _format(self, classpath: str, directory: Path) -> None:
        properties = directory / "server.properties"
        settings = {**self._properties, "log.dirs": str(directory / "data")}
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
        tool = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", classpath, "kafka.tools.StorageTool"]
        # Any 16 bytes in base64 serve as the cluster's id.
        command = [*tool, "format", "-t", "YmF0Y2hlci10ZXN0aW5nIQ", "-c", str(properties), "--standalone"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)  # noqa: S603
        if done.returncode != 0:
            raise Unavailable(f"kafka.tools.StorageTool failed: {(done.stderr or done.stdout).strip()[-500:]}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if _listens(self.bootstrap):
                with suppress(KafkaException):
                    if self._admin.list_topics(timeout=5.0).brokers:
                        return
            time.sleep(0.1)
        self.kill()
        raise Unavailable(f"Kafka did not start within {START_TIMEOUT_S:.0f} s: see {self.log_file}")

    def _signal(self, number: int) -> None:
        if self._process is None:
            raise RuntimeError("the broker is not running")
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            ended(process, number, STOP_TIMEOUT_S)


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
