"""Find the targets that batcher can write to; none is imported before it is asked for.

How a sink is named and what it may say about itself is in `batcher.plugins`, how it is written in `docs/plugins.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from batcher.plugins import Registry

if TYPE_CHECKING:
    from batcher.protocols import Sink


class SinkPlugin(Protocol):
    """Make a sink from the options that `--options` gives: a function, or a class whose `__init__` takes them."""

    def __call__(self, options: Mapping[str, object], /) -> Sink:
        """Return a sink that is not open yet. Raise ConfigurationError for options that cannot work."""


registry: Final[Registry[Sink]] = Registry(
    "sink",
    setting="sink",
    group="batcher.sinks",
    built_in={
        "clickhouse": "sinks.clickhouse:plugin",
        "delta": "sinks.delta:plugin",
        "handler": "sinks.handler:plugin",
        "iceberg": "sinks.iceberg:plugin",
        "null": "sinks.null:plugin",
        "parquet": "sinks.parquet:plugin",
    },
    methods=("open", "write", "close"),
)
"""What `--sink` may name."""

GROUP: Final = registry.group
"""The entry point group in which packages register their sinks."""

names = registry.names
describe = registry.describe
load = registry.load
