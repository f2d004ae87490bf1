"""Fixtures of the tests that need real parts."""

from collections.abc import Callable, Iterator

import pytest

from batcher.testing.kafka import Broker
from tests.harness.readers import Readers


@pytest.fixture
def reader(broker: Broker, new_group: Callable[[], str]) -> Iterator[Readers]:
    """Return what opens Kafka sources of one group, which are closed at the end."""
    with Readers(broker, new_group()) as opened:
        yield opened
