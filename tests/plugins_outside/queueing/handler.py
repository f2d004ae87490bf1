# handler.py: a sink that hands each message to a function, which says what became of it
from collections.abc import Callable

import pyarrow as pa

from batcher import Block, Deferral, Outcome, Rejection, SinkInfo


class Later(Exception):
    """Say that a message is to come again."""

    def __init__(self, delay_s: float) -> None:
        super().__init__("the handler asks for a delay")
        self.delay_s = delay_s


class Drop(Exception):
    """Say that a message is to be forgotten."""


class Handler:
    """Call a function with each message as it came, and its headers."""

    def __init__(self, handle: Callable[[bytes | None, dict[str, bytes | None]], None]) -> None:
        self.handle = handle

    def open(self) -> SinkInfo:
        return SinkInfo(
            "the function", None, reason="a function may be called again", capabilities=frozenset({"pin"}), raw=True
        )

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        return proposed

    def write(self, block: Block) -> Outcome:
        assert block.raw is not None
        rejected, deferred, dropped = [], [], []
        headers = block.raw.headers.to_pylist() if block.raw.headers is not None else [None] * block.rows
        for row, (value, listed) in enumerate(zip(block.raw.values.to_pylist(), headers, strict=True)):
            try:
                self.handle(value, {one["key"]: one["value"] for one in listed or ()})
            except Later as later:
                deferred.append(Deferral(row, later.delay_s, str(later)))
            except Drop:
                dropped.append(row)
            except Exception as error:
                rejected.append(Rejection(row, "handler", f"the handler raised {type(error).__name__}"))
        return Outcome(tuple(rejected), tuple(deferred), tuple(dropped))

    def close(self) -> None:
        """Let go of nothing."""
