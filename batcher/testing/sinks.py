"""Sinks in memory: one that keeps what it is given, and others that fail as told and differ in what a repeat does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from batcher.growth import grown
from batcher.protocols import COPIES, Repeats, SinkCapability, SinkInfo
from batcher.records import COORDINATES, Block, Outcome, Partition


class MemorySink:
    """Keep blocks in memory, each token once. Without a schema it takes the one that is pinned first."""

    def __init__(
        self,
        schema: pa.Schema | None = None,
        *,
        coordinates: tuple[str, ...] = tuple(COORDINATES.names),
        repeats: Repeats = "token",
    ) -> None:
        self.schema = schema
        self.blocks: dict[str, Block] = {}
        self.attempts: list[str] = []
        self.closed = 0
        self._coordinates = coordinates
        self._repeats: Repeats = repeats

    def open(self) -> SinkInfo:
        """Describe the memory."""
        reason = "tokens are kept for ever"
        capabilities: frozenset[SinkCapability] = frozenset({"pin", "evolve"})
        return SinkInfo("memory", self.schema, self._coordinates, self._repeats, reason, capabilities)

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Take the first schema proposed, and later the types that it had none for."""
        self.schema = proposed if self.schema is None else grown(self.schema, proposed)
        return self.schema

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        """Take the fields that are not there yet."""
        del topic
        there = self.schema if self.schema is not None else pa.schema([])
        self.schema = pa.schema([*there, *(field for field in fields if field.name not in there.names)])
        return self.schema

    def write(self, block: Block) -> Outcome | None:
        """Keep the block unless its token is known."""
        self.attempts.append(block.token)
        self.keep(block)
        return None

    def keep(self, block: Block) -> None:
        """Store a block as the target does."""
        self.blocks.setdefault(block.token, block)

    def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def rows(self) -> list[dict[str, object]]:
        """Return every stored row, in the order of the first writes."""
        # A copy, which takes one step: a pipeline may go on writing.
        return [row for block in list(self.blocks.values()) for row in block.table.to_pylist()]


Step = Callable[[Block], None]
"""Raise to fail, or return to go on."""

Sift = Callable[[Block], Outcome | None]
"""Return what becomes of the rows of a block."""


class ScriptedSink(MemorySink):
    """Fail as told: `before` runs before a block is stored, `after` with what is, once it is. Both may raise.

    `outcome` says what becomes of the rows: the rows that it names are not stored. With `release` cleared, a write
    waits until it is set, like a stalled server.
    """

    def __init__(
        self,
        schema: pa.Schema | None = None,
        *,
        coordinates: tuple[str, ...] = tuple(COORDINATES.names),
        repeats: Repeats = "token",
    ) -> None:
        super().__init__(schema, coordinates=coordinates, repeats=repeats)
        self.before: Step = lambda _: None
        self.after: Step = lambda _: None
        self.outcome: Sift = lambda _: None
        self.holding = threading.Event()
        self.release = threading.Event()
        self.release.set()

    def write(self, block: Block) -> Outcome | None:
        """Play the script around a write."""
        self.holding.set()
        self.release.wait()
        self.holding.clear()
        self.attempts.append(block.token)
        self.before(block)
        outcome = self.outcome(block)
        named = set(outcome.named()) if outcome is not None else set()
        durable = _without(block, named) if named else block
        self.keep(durable)
        self.after(durable)
        return outcome


class AnsweringSink(ScriptedSink):
    """Answer what it holds. `asked` has the questions in their order; `on_question` runs before each and may raise."""

    def __init__(self, schema: pa.Schema | None = None, *, repeats: Repeats = "token") -> None:
        super().__init__(schema, repeats=repeats)
        self.asked: list[str] = []
        self.on_question: Callable[[str], None] = lambda _: None

    def open(self) -> SinkInfo:
        """Say what can be asked."""
        return replace(super().open(), capabilities=frozenset({"pin", "evolve", "query", "count"}))

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return the stored offsets of a range, ascending."""
        self._question("present")
        found = [offset for offset in self._offsets(partition) if first <= offset <= last]
        return pa.array(sorted(set(found)), pa.int64())

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the stored offsets of a range, with how often each was stored."""
        self._question("copies")
        found = Counter(offset for offset in self._offsets(partition) if first <= offset <= last)
        return pa.table([sorted(found), [found[offset] for offset in sorted(found)]], schema=COPIES)

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return the highest stored offset of each partition that has one from its position on."""
        self._question("max_offset_above")
        highest = {partition: max(self._offsets(partition), default=-1) for partition in positions}
        return {partition: offset for partition, offset in highest.items() if offset >= positions[partition]}

    def _question(self, name: str) -> None:
        self.asked.append(name)
        self.on_question(name)

    def _offsets(self, partition: Partition) -> list[int]:
        found: list[int] = []
        for block in self.blocks.values():
            if any(span.partition == partition for span in block.ranges):
                topic = pc.equal(block.table["_topic"], partition.topic)
                number = pc.equal(block.table["_partition"], partition.number)
                found += block.table["_offset"].filter(pc.and_(topic, number)).to_pylist()
        return found


class TableSink(AnsweringSink):
    """Keep every block as often as it is given, like a table that remembers no token and has to be asked.

    `under_way` are the names of the writes that the server still runs.
    """

    def __init__(self, schema: pa.Schema | None = None) -> None:
        super().__init__(schema, repeats="query")
        self.under_way: set[str] = set()

    def open(self) -> SinkInfo:
        """Say that it has to be asked."""
        info = super().open()
        return replace(info, reason="it can be asked for its offsets", capabilities=info.capabilities | {"running"})

    def keep(self, block: Block) -> None:
        """Append a block."""
        self.blocks[f"{block.token}#{len(self.blocks)}"] = block

    def running(self, write_id: str) -> bool:
        """Return whether the server runs a write of this name."""
        self._question("running")
        return write_id in self.under_way


class FileSink(AnsweringSink):
    """Keep the last block of each range, like files that are named by it."""

    def __init__(self, schema: pa.Schema | None = None) -> None:
        super().__init__(schema, repeats="replace")

    def open(self) -> SinkInfo:
        """Say that a repeat replaces."""
        return replace(super().open(), reason="a repeat replaces the file of its range")

    def keep(self, block: Block) -> None:
        """Replace an earlier block of the same range."""
        (span,) = block.ranges
        self.blocks[str(span)] = block


def _without(block: Block, rows: Collection[int]) -> Block:
    kept = pa.array([row for row in range(block.rows) if row not in rows], pa.int64())
    return replace(block, table=block.table.take(kept), positions=block.positions.take(kept))
