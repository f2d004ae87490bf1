"""Find a Kafka for tests: one that is named, one from jars, one from Docker, or the reason why there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from batcher.embedded.jars import Unavailable
from batcher.testing.kafka import Broker
from batcher.testing.real_broker import RealBroker


class ComposeBroker(Broker):
    """Run the `kafka` service of the shipped docker-compose.yml through testcontainers."""

    def __init__(self, bootstrap: str, compose: Any) -> None:
        super().__init__(bootstrap)
        self._compose = compose

    def stop(self) -> None:
        super().stop()
        compose, self._compose = self._compose, None
        if compose is not None:
            compose.stop()


def available_broker() -> Broker:
    """Return a running broker, which the caller stops; raise Unavailable with every reason why there is none.

    Tried in this order: `BATCHER_TEST_BROKERS` (then nothing is started, and the cluster is left as the tests leave
    it), Kafka's jars on Java, the compose file on Docker.
    """
    named = os.environ.get("BATCHER_TEST_BROKERS")
    if named:
        return Broker(named)
    reasons = []
    broker = RealBroker()
    try:
        broker.start()
    except Unavailable as error:
        reasons.append(str(error))
    else:
        return broker
    try:
        return _compose_broker()
    except Unavailable as error:
        reasons.append(str(error))
    raise Unavailable("; ".join(reasons))


def _compose_broker() -> ComposeBroker:
    directory = Path.cwd()
    if not (directory / "docker-compose.yml").is_file():
        raise Unavailable("no docker-compose.yml in the working directory")
    try:
        # A development dependency: a user who writes a sink may not have it.
        from testcontainers.compose import DockerCompose  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable("testcontainers is not installed") from error
    compose = DockerCompose(str(directory), services=["kafka"], wait=True)
    try:
        compose.start()
        port = compose.get_service_port("kafka", 9092)
    except Exception as error:  # whatever Docker or its client raises: there is no broker
        raise Unavailable(f"Docker: {str(error).splitlines()[0][:200]}") from error
    return ComposeBroker(f"127.0.0.1:{port}", compose)
