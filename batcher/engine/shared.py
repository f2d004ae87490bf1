"""The one lock around the state of a pipeline, and all waits for a change of it.

What is decided is in `core/state.py`. Here is only who may ask when. No method waits, except those named `wait_…`, and
nothing slow is done while the lock is held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from batcher.core.in_flight import BatchInFlight
from batcher.core.state import PipelineState, Snapshot, StatePhase
from batcher.records import Partition, Records, Trigger


class SharedState:
    """Guard the state. `aborting` is the event that waits elsewhere (retries) listen to."""

    def __init__(self, state: PipelineState, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self.clock = clock
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # Of several idle write loops one listens for changes, and wakes the next one when it has found something. If
        # all listened, each change would wake all of them, and all but one in vain.
        self._stood_by = threading.Condition(lock)
        self._listening = False
        self.aborting = threading.Event()

    @contextmanager
    def changing(self) -> Iterator[PipelineState]:
        """Yield the state to be changed, and wake up all threads that wait for a change."""
        with self._changed:
            try:
                yield self._state
            finally:
                self._changed.notify_all()

    @contextmanager
    def asking(self) -> Iterator[PipelineState]:
        """Yield the state to be asked, or changed in a way that concerns the asking thread alone."""
        with self._changed:
            yield self._state

    @property
    def phase(self) -> StatePhase:
        """Return the phase, which only ever moves forward."""
        return self._state.phase

    def snapshot(self) -> Snapshot:
        """Return what is going on, all at one moment; the question changes nothing. Any thread."""
        with self._changed:
            return self._state.snapshot(self.clock())

    def drained(self) -> bool:
        """Return whether a drain has come to its end."""
        with self._changed:
            return self._state.drained(self.clock())

    def drain(self, trigger: Trigger) -> None:
        """Stop reading and bring everything buffered to its end. Any thread."""
        with self.changing() as state:
            state.drain(trigger, self.clock())

    def hold(self, *, held: bool) -> None:
        """Read and write nothing until it is said otherwise, see `PipelineState.hold`. Any thread."""
        with self.changing() as state:
            state.hold(held=held)

    def halt(self, failed: BatchInFlight | None = None) -> None:
        """Begin nothing more, see `PipelineState.halt`. Any thread."""
        with self.changing() as state:
            state.halt(failed)

    def abort(self) -> None:
        """Begin and commit nothing more, and wake up all threads that wait, here and in retries. Any thread."""
        with self.changing() as state:
            state.abort()
        self.aborting.set()

    def fetched(
        self,
        runs: Iterable[Records],
        reached: Mapping[Partition, int],
        *,
        exhausted: bool,
        saturated: bool = False,
    ) -> list[Records]:
        """Add fetched records and return those that were new, see `PipelineState.fetched`. Fetch loop.

        The other threads are not woken up each time: a thread that wakes up takes the interpreter lock from this one.
        """
        with self._changed:
            now = self.clock()
            before_s = self._state.decode_due_in_s(now)
            fresh = self._state.fetched(runs, reached, now, exhausted=exhausted, saturated=saturated)
            after_s = self._state.decode_due_in_s(now)
            became_due = after_s is not None and (before_s is None or after_s <= 0 < before_s)
            if became_due or self._state.phase != "running" or (fresh and self._state.unchecked()[0]):
                self._changed.notify_all()
            return fresh

    def wait_decode_due(self) -> bool:
        """Wait until there is something to decode; False when there will never be anything again. Decode loop."""
        with self._changed:
            while self._state.phase != "aborted":
                now = self.clock()
                if self._state.all_decoded(now):
                    # The write loop may be waiting for a batch that will not come.
                    self._changed.notify_all()
                    return False
                due_in_s = self._state.decode_due_in_s(now)
                if due_in_s is not None and due_in_s <= 0:
                    return True
                self._changed.wait(due_in_s)
            return False

    def wait_write_due(self) -> bool:
        """Wait until there is something to write; False when there will never be anything again. Each write loop."""
        with self._changed:
            while self._listening:
                self._stood_by.wait()
            self._listening = True
            try:
                return self._write_comes()
            finally:
                self._listening = False
                self._stood_by.notify()

    def _write_comes(self) -> bool:
        while self._state.phase != "aborted":
            now = self.clock()
            if self._state.write_due(now):
                return True
            if self._state.all_written(now):
                return False
            self._state.ask_for_next_leases(now)
            self._changed.wait(self._state.write_wait_s(now))
        return False

    def wait_held(self, which: BatchInFlight) -> bool:
        """Wait until it is certain whether a batch is ours to write; False after an abort too. Write loops."""
        with self._changed:
            while self._state.phase != "aborted":
                held = self._state.held(which, self.clock())
                if held is not None:
                    return held
                self._changed.wait()
            return False

    def wait_confirmed(self, epochs: Mapping[Partition, int]) -> frozenset[Partition]:
        """Wait until a new commit says which of these partitions are ours, and return them. Write loops."""
        with self._changed:
            since = self.clock()
            self._state.ask_for_lease(epochs, since)
            while self._state.phase != "aborted":
                ours = self._state.confirmed(epochs, since)
                if ours is not None:
                    return ours
                self._changed.wait()
            return frozenset()

    def wait_changed(self, timeout_s: float, *, unconfirmed: bool = False) -> None:
        """Wait until something has changed, at most `timeout_s`. For the fetch loop when it must not fetch.

        Return at once where a commit is due, unless the last one was `unconfirmed`: the same one is due again then, and
        a source that gives no answer without taking its time would be asked without end.
        """
        with self._changed:
            if unconfirmed or not self._state.commit_due:
                self._changed.wait(timeout_s)
