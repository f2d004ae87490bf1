"""The decode loop: turns due batches into columns, one ahead of the batch that is being written."""

from __future__ import annotations

from collections.abc import Callable

from batcher.engine.shared import SharedState
from batcher.records import Batch, Prepared


class DecodeLoop:
    """Decode due batches with `prepare`. `step` does one, `run` goes on until there will be nothing more.

    What `prepare` raises ends a run.
    """

    def __init__(self, shared: SharedState, prepare: Callable[[Batch], Prepared]) -> None:
        self._shared = shared
        self._prepare = prepare

    def run(self) -> None:
        """Decode until there will be nothing more to decode."""
        while self._shared.wait_decode_due():
            self.step()

    def step(self) -> bool:
        """Decode the next due batch and return whether there was one."""
        with self._shared.asking() as state:
            one = state.next_decode(self._shared.clock())
        if one is None:
            return False
        prepared = self._prepare(one.join())
        with self._shared.changing() as state:
            state.decoded(one, prepared)
        return True
