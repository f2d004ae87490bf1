"""Fixtures of the tests that need real parts."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batcher.embedded.apicurio import Apicurio
from batcher.embedded.jars import Unavailable
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from batcher.testing.real_broker import RealBroker
from tests.harness.readers import Readers
from tests.harness.small_disk import SmallDisk, mounted_in
from tests.harness.targets import EmbeddedTables


@pytest.fixture
def reader(broker: Broker, new_group: Callable[[], str]) -> Iterator[Readers]:
    """Return what opens Kafka sources of one group, which are closed at the end."""
    with Readers(broker, new_group()) as opened:
        yield opened


@pytest.fixture(scope="module")
def registry(broker: Broker) -> Iterator[Apicurio]:
    """Return a registry that keeps its schemas in the shared broker, or skip with the reason why there is none."""
    try:
        with Apicurio(broker.bootstrap) as running:
            yield running
    except Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"no schema registry: {error}")
        pytest.skip(f"no schema registry: {error}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Return a small file system, or skip."""
    with mounted_in(tmp_path) as disk:
        yield disk


@pytest.fixture(params=["http", pytest.param("embedded", marks=pytest.mark.long)])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> ClickHouseServer | EmbeddedTables:
    """Return ClickHouse over HTTP, then the embedded engine in a directory: both have `dsn` and `query`."""
    if request.param == "embedded":
        pytest.importorskip("chdb", reason="needs the extra [embedded]")
        return EmbeddedTables(tmp_path / "engine")
    server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
    return server


@pytest.fixture(scope="session")
def killable_broker() -> Iterator[RealBroker]:
    """Return the broker of `own_broker`; take that instead, which runs."""
    try:
        with RealBroker() as running:
            yield running
    except Unavailable as error:
        pytest.skip(f"no Kafka broker of one's own: {error}")


@pytest.fixture
def own_broker(killable_broker: RealBroker) -> RealBroker:
    """Return a broker that a test may freeze or kill; the next test finds it running, with what it has on disk."""
    killable_broker.start()
    # A test that failed may have left it frozen.
    killable_broker.resume()
    return killable_broker
