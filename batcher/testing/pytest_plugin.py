"""Fixtures for tests that need a Kafka: `pytest_plugins = ["batcher.testing.pytest_plugin"]`.

`broker` is one real Kafka for the whole run; tests share it and take topics and groups of their own from
`new_topic` and `new_group`. `mock_cluster` is librdkafka's in-process cluster, one for each test.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from batcher.embedded.jars import Unavailable
from batcher.embedded.mock_cluster import MockCluster
from batcher.testing.brokers import available_broker
from batcher.testing.kafka import Broker
from batcher.testing.real_broker import RealBroker


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Return a running Kafka, or skip with the reason why there is none. Its log is kept when a test failed.

    With `CI` set in the environment a missing broker fails instead: a run that skips half of its tests is not green.
    """
    try:
        running = available_broker()
    except Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"no Kafka broker: {error}")
        pytest.skip(f"no Kafka broker: {error}")
    yield running
    if isinstance(running, RealBroker) and request.session.testsfailed:
        running.stop(keep_files=True)
    else:
        running.stop()


@pytest.fixture
def mock_cluster() -> Iterator[MockCluster]:
    """Return a mock cluster of one broker, or skip with the reason why there is none."""
    try:
        cluster = MockCluster()
    except Unavailable as error:
        pytest.skip(f"no mock cluster: {error}")
    with cluster:
        yield cluster


@pytest.fixture
def new_topic(broker: Broker) -> Callable[..., str]:
    """Return a function that creates a topic of its own on `broker` and returns its name.

    It takes the number of partitions and topic settings with `_` for `.`.
    """

    def create(partitions: int = 1, **config: str) -> str:
        name = f"topic-{uuid.uuid4().hex[:12]}"
        broker.create_topic(name, partitions, **config)
        return name

    return create


@pytest.fixture
def new_group() -> Callable[[], str]:
    """Return a function that makes up a new name for a consumer group."""
    return lambda: f"group-{uuid.uuid4().hex[:12]}"
