"""Fixtures for all tests."""

from collections.abc import Iterator

import pytest
import structlog

pytest_plugins = ["batcher.testing.pytest_plugin", "batcher.testing.clickhouse_plugin"]


@pytest.fixture(autouse=True)
def _logs_as_they_come() -> Iterator[None]:
    """Undo what a test, or a pipeline it ran, made of the process-wide log configuration."""
    yield
    structlog.reset_defaults()
