"""The two ways in which records get from librdkafka into columns, for tests that have to hold on both."""

from __future__ import annotations

from typing import Final, Literal

import pytest

from batcher import native

Path = Literal["off", "require"]
"""A value of `KafkaOptions.native`: Python fetches, or the native extension does."""

NEEDS_EXTENSION: Final = pytest.mark.skipif(not native.version(), reason="the native extension is not built")

FETCHES: Final = (pytest.param("off", id="python"), pytest.param("require", id="native", marks=NEEDS_EXTENSION))
"""The parameters of a test that runs on both."""
