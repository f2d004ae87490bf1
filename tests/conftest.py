"""Fixtures for all tests."""

import gc
import logging
from collections.abc import Iterator

import pytest
import structlog

from batcher.telemetry import logs

pytest_plugins = ["batcher.testing.pytest_plugin", "batcher.testing.clickhouse_plugin"]


@pytest.fixture(scope="session", autouse=True)
def _nothing_frozen_at_the_end() -> Iterator[None]:
    """Let go of what a verb that ran in this process froze: libraries report it as leaked behind the closing line."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _logs_as_they_come() -> Iterator[None]:
    """Undo what a test, or a verb or pipeline it ran, made of the process-wide log configuration."""
    root = logging.getLogger()
    level, hidden = root.level, set(logs._secrets)
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in root.handlers[:]:
        if isinstance(handler, logs._Stderr):
            root.removeHandler(handler)
    logs._secrets.clear()
    logs._secrets.update(hidden)
