"""Fixtures for tests that need ClickHouse: `pytest_plugins = ["batcher.testing.clickhouse_plugin"]`.

`chdb_engine` is the engine of this process, `clickhouse_server` a server over HTTP; both are shared by all tests
of the run, which take tables of their own from `new_table`. Without chDB they skip, saying what is missing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from batcher.testing.clickhouse import ClickHouseServer, EmbeddedEngine, embedded_engine_missing


@pytest.fixture(scope="session")
def chdb_engine() -> Iterator[EmbeddedEngine]:
    """Return chDB in this process, or skip with the reason why there is none."""
    reason = embedded_engine_missing()
    if reason:
        pytest.skip(reason)
    engine = EmbeddedEngine.shared()
    yield engine
    # If it is left to the end of the interpreter, it may complain after the last line of the run.
    engine.close()


@pytest.fixture(scope="session")
def running_clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """Return the server that all tests share, or skip; use `clickhouse_server` instead, which is clean."""
    reason = embedded_engine_missing()
    if reason:
        pytest.skip(reason)
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
def clickhouse_server(running_clickhouse_server: ClickHouseServer) -> ClickHouseServer:
    """Return the running server, without faults to come and without inserts seen."""
    running_clickhouse_server.clear()
    return running_clickhouse_server


@pytest.fixture
def new_table() -> Callable[[], str]:
    """Return a function that makes up a new name for a table."""
    return lambda: f"table_{uuid.uuid4().hex[:12]}"
