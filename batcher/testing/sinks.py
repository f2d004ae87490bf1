"""Sinks in memory: one that keeps what it is given, and one that also fails as told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pyarrow as pa

from batcher.protocols import SinkInfo
from batcher.records import COORDINATES, Block


class MemorySink:
    """Keep blocks in memory, each token once. Without a schema it takes the one that is pinned first."""

    def __init__(
        self,
        schema: pa.Schema | None = None,
        *,
        coordinates: tuple[str, ...] = tuple(COORDINATES.names),
        mixes_partitions: bool = True,
    ) -> None:
        self.schema = schema
        self.blocks: dict[str, Block] = {}
        self.attempts: list[str] = []
        self.closed = 0
        self._coordinates = coordinates
        self._mixes_partitions = mixes_partitions

    def open(self) -> SinkInfo:
        """Describe the memory."""
        return SinkInfo(
            "memory", self.schema, self._coordinates, "exactly-once", "tokens are kept for ever", self._mixes_partitions
        )

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Take the first schema proposed."""
        self.schema = proposed if self.schema is None else self.schema
        return self.schema

    def write(self, block: Block) -> None:
        """Keep the block unless its token is known."""
        self.attempts.append(block.token)
        self.blocks.setdefault(block.token, block)

    def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def rows(self) -> list[dict[str, object]]:
        """Return every stored row, in the order of the first writes."""
        return [row for block in self.blocks.values() for row in block.table.to_pylist()]


Step = Callable[[Block], None]
"""Raise to fail, return to go on."""


class ScriptedSink(MemorySink):
    """Fail as told: `before` runs before a block is stored, `after` once it is. Both may raise.

    With `hold` set, a write waits until `release` is set: a stalled server.
    """

    def __init__(
        self,
        schema: pa.Schema | None = None,
        *,
        coordinates: tuple[str, ...] = tuple(COORDINATES.names),
        mixes_partitions: bool = True,
    ) -> None:
        super().__init__(schema, coordinates=coordinates, mixes_partitions=mixes_partitions)
        self.before: Step = lambda _: None
        self.after: Step = lambda _: None
        self.holding = threading.Event()
        self.release = threading.Event()
        self.release.set()

    def write(self, block: Block) -> None:
        """Play the script around a write."""
        self.holding.set()
        self.release.wait()
        self.holding.clear()
        self.attempts.append(block.token)
        self.before(block)
        self.blocks.setdefault(block.token, block)
        self.after(block)
