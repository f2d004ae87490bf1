"""Fixtures for all tests."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from batcher.embedded.jars import Unavailable
from batcher.embedded.nsq import Nsqd
from batcher.telemetry import logs

pytest_plugins = [
    "batcher.testing.pytest_plugin",
    "batcher.testing.clickhouse_plugin",
    "batcher.testing.sqs_plugin",
]

# A test is no slower for being run on a busy machine.
hypothesis.settings.register_profile("batcher", deadline=None)
hypothesis.settings.load_profile("batcher")

CRASH = Path(__file__).parent / "crash"


def pytest_configure(config: pytest.Config) -> None:
    """Take `-m long` for a wish for the long form; it is set before any test is read, and for all processes."""
    if "long" in config.option.markexpr.split() and "not long" not in config.option.markexpr:
        os.environ["BATCHER_TEST_LONG"] = "1"
    if os.environ.get("BATCHER_NATIVE") == "off":
        # Subprocesses read the variable; for what runs in this process the extension is not there.
        sys.modules["batcher_native"] = None  # type: ignore[assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the attacks, and skip what only the long form has, so that a run says what it did not run."""
    for item in items:
        if CRASH in item.path.parents:
            item.add_marker("crash")
    if os.environ.get("BATCHER_TEST_LONG") == "1":
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="long: make test-long"))


@pytest.fixture(scope="session", autouse=True)
def _nothing_frozen_at_the_end() -> Iterator[None]:
    """Let go of what a verb that ran in this process froze: libraries report it as leaked behind the closing line."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def nsqd() -> Iterator[Nsqd]:
    """Return a server of NSQ for the whole run, or skip with the reason why there is none; tests take own topics."""
    try:
        with Nsqd("-msg-timeout=2s") as running:
            yield running
    except Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"no NSQ: {error}")
        pytest.skip(f"no NSQ: {error}")


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
