"""Be one state for the fetch loop where a pipeline has several targets.

Each target has a state of its own, with its own buffer, offsets and batches in flight, so that one that does not answer
holds back its own topics and no others. What is read goes to the state of its topic; what the states want of the source
is put together. Fetch loop, but for what says otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, TypeVar

from batcher.core.state import COMMIT_POLL_S, ReadPlan, StatePhase
from batcher.engine.shared import SharedState
from batcher.records import Partition, Position, Records, Releases, Trigger

LEAST_FETCH_BYTES: Final = 1 << 20
"""What one fetch may bring although a target has less room than that: otherwise one that is nearly full would make the
fetches of all others small. So each may hold this much more than its share."""

Found = SharedState | str
"""The state of a topic, or why nothing is read from it."""

T = TypeVar("T")


class Dispatcher:
    """Dispatch to the states of a pipeline's targets.

    `find` returns the state of a topic, or the reason why there is none yet; it is asked again for the topics that were
    refused. `memory_bytes` is shared out evenly; None leaves the only state what it has.
    """

    def __init__(self, find: Callable[[str], Found], memory_bytes: int | None = None) -> None:
        self._find = find
        self._memory_bytes = memory_bytes
        self._states: tuple[SharedState, ...] = ()
        self._adding = threading.Lock()
        self._end: Callable[[SharedState], None] | None = None
        self._held = False
        self._failed: dict[int, str] = {}
        self._waiting: set[Partition] = set()

    @classmethod
    def to(cls, shared: SharedState) -> Dispatcher:
        """Return a dispatcher to the only state."""
        one = cls(lambda _: shared)
        one.add(shared)
        return one

    def add(self, shared: SharedState) -> None:
        """Dispatch to one more state. Before the first round; later in the thread that opened its target."""
        with self._adding:
            self._states = (*self._states, shared)
            shared.hold(held=self._held)
            if self._end is not None:
                self._end(shared)
        if self._memory_bytes is not None:
            for one in self._states:
                with one.changing() as state:
                    state.resize(self._memory_bytes // len(self._states))

    def hold(self, *, held: bool) -> None:
        """Read and write nothing for any state until it is said otherwise. Any thread."""
        with self._adding:
            self._held = held
            for one in self._states:
                one.hold(held=held)

    def fail(self, shared: SharedState, reason: str) -> None:
        """Read nothing more for a state: its target has failed for good. Any thread."""
        self._failed[id(shared)] = reason

    # What there is to know. Any thread.

    @property
    def phase(self) -> StatePhase:
        """Return the phase of the pipeline: it runs as long as one of its states does."""
        phases = {one.phase for one in self._states}
        if "aborted" in phases:
            return "aborted"
        return "running" if "running" in phases else "draining"

    def drained(self) -> bool:
        """Return whether a drain of all states has come to its end."""
        return all(one.drained() for one in self._states)

    @property
    def abandoned_offsets(self) -> int:
        """Return how many offsets had been read and not committed at the abort."""
        return sum(_asked(one, lambda state: state.abandoned_offsets) for one in self._states)

    def drain(self, trigger: Trigger) -> None:
        """Stop reading and bring everything buffered to its end."""
        self._end_all(lambda one: one.drain(trigger))

    def abort(self) -> None:
        """Begin and commit nothing more."""
        self._end_all(lambda one: one.abort())

    # One round of reading.

    def next_read(self, now: float) -> ReadPlan:
        """Return what to do in this round for all states. The plans count as carried out."""
        plans: list[ReadPlan] = [_asked(one, lambda state: state.next_read(now)) for one in self._states]
        if len(plans) == 1:
            return plans[0]
        reading = [plan for plan in plans if plan.max_bytes and not plan.waits] or plans
        return ReadPlan(
            release={part: some for plan in plans for part, some in plan.release.items()},
            commit={part: at for plan in plans for part, at in plan.commit.items()},
            waits=all(plan.waits for plan in plans),
            pause=frozenset().union(*(plan.pause for plan in plans)),
            resume=frozenset().union(*(plan.resume for plan in plans)),
            max_records=max(1, min(plan.max_records for plan in reading)),
            max_bytes=max(LEAST_FETCH_BYTES, min(plan.max_bytes for plan in reading)),
            timeout_s=min(plan.timeout_s for plan in plans),
            paused=all(plan.paused for plan in plans),
        )

    def fetched(
        self,
        runs: Iterable[Records],
        reached: Mapping[Partition, int],
        *,
        exhausted: bool,
        saturated: bool = False,
    ) -> list[Records]:
        """Add fetched records and return those that were new, see `SharedState.fetched`."""
        if len(self._states) == 1:
            return self._states[0].fetched(runs, reached, exhausted=exhausted, saturated=saturated)
        mine = self._grouped((run.partition.topic, run) for run in runs)
        fresh = []
        for one in self._states:
            # Also those for which nothing came: an announced range may be complete, or this may be the end.
            fresh += one.fetched(mine.get(one, ()), reached, exhausted=exhausted, saturated=saturated)
        return fresh

    def take_commit(self) -> Mapping[Partition, Position]:
        """Return the positions to commit, with their intents."""
        wanted: dict[Partition, Position] = {}
        for one in self._states:
            wanted.update(_asked(one, lambda state: state.take_commit()))
        return wanted

    def take_releases(self) -> Releases:
        """Return the records to give back to their queue. After `take_commit`."""
        taken: dict[Partition, Mapping[int, float]] = {}
        for one in self._states:
            taken.update(_asked(one, lambda state: state.take_releases()))
        return taken

    def committed(
        self, positions: Mapping[Partition, Position], refused: Collection[Partition], sent_at: float
    ) -> None:
        """Note the answer to a commit that was sent at `sent_at`; those refused are no longer ours."""
        for one, mine in self._by_state(positions).items():
            with one.changing() as state:
                if lost := [part for part in mine if part in refused]:
                    state.forget(lost)
                state.committed({part: positions[part] for part in mine if part not in refused}, sent_at)

    def unconfirmed(self, partitions: Collection[Partition], now: float) -> None:
        """Note that it is not known whether a commit was stored."""
        for one, mine in self._by_state(partitions).items():
            with one.changing() as state:
                state.unconfirmed(mine, now)

    def wait_changed(self, timeout_s: float, *, unconfirmed: bool = False) -> None:
        """Wait until something has changed, at most `timeout_s`; see `SharedState.wait_changed`."""
        if len(self._states) > 1:
            # Each state wakes up those who wait for it, and nobody waits for all of them.
            timeout_s = min(timeout_s, COMMIT_POLL_S)
        self._states[0].wait_changed(timeout_s, unconfirmed=unconfirmed)

    # Partitions coming and going.

    def assign(self, positions: Mapping[Partition, Position]) -> tuple[Mapping[Partition, str], list[str]]:
        """Take over partitions; return those that are not taken, with the reason, and the ranges to write again."""
        refused: dict[Partition, str] = {}
        replays: list[str] = []
        self._waiting -= positions.keys()
        for topic, mine in _by_topic(positions).items():
            one = self._state_of(topic)
            if isinstance(one, str):
                refused.update(dict.fromkeys(mine, one))
                self._waiting.update(mine)
                continue
            with one.changing() as state:
                for part, reason in state.assign({part: positions[part] for part in mine}).items():
                    refused[part] = f"{reason}; --ignore-intents starts at the committed offset whatever was announced"
                replays += state.replays(mine)
        return refused, replays

    def waits(self, partition: Partition) -> bool:
        """Return whether a partition was refused because its topic has no target that can be written to yet."""
        return partition in self._waiting

    def to_offer(self) -> Collection[Partition]:
        """Return partitions that were refused and would be taken now, again until they are assigned."""
        if not self._waiting:
            return ()
        topics = _by_topic(self._waiting)
        return [part for topic, mine in topics.items() if not isinstance(self._state_of(topic), str) for part in mine]

    def to_ignore(self) -> Mapping[Partition, str]:
        """Return the partitions of failed targets, with the reason, once what is durable of them is committed.

        They are forgotten here.
        """
        gone: dict[Partition, str] = {}
        if self.phase != "running":
            return gone
        for one in self._states:
            reason = self._failed.get(id(one))
            if reason is None or not one.drained():
                continue
            with one.changing() as state:
                mine = state.owned
                state.forget(mine)
            gone.update(dict.fromkeys(mine, reason))
        return gone

    def begin_revoke(self, partitions: Collection[Partition], now: float) -> None:
        """Drop what waits of these partitions, see `PipelineState.begin_revoke`."""
        for one, mine in self._by_state(partitions).items():
            with one.changing() as state:
                state.begin_revoke(mine, now)

    def busy(self, partitions: Collection[Partition]) -> bool:
        """Return whether one of these partitions is in flight or waits for a commit."""
        return any(_asked(one, lambda state: state.busy(partitions)) for one in self._states)

    def forget(self, partitions: Collection[Partition]) -> int:
        """Give partitions up, with all their state, and return how many buffered records were dropped."""
        dropped = 0
        self._waiting.difference_update(partitions)
        for one, mine in self._by_state(partitions).items():
            with one.changing() as state:
                dropped += state.forget(mine)
        return dropped

    def _end_all(self, end: Callable[[SharedState], None]) -> None:
        with self._adding:
            self._end = end
            states = self._states
        for one in states:
            end(one)

    def _state_of(self, topic: str) -> Found:
        one = self._find(topic)
        return one if isinstance(one, str) else self._failed.get(id(one), one)

    def _by_state(self, partitions: Iterable[Partition]) -> Mapping[SharedState, list[Partition]]:
        return self._grouped((partition.topic, partition) for partition in partitions)

    def _grouped(self, things: Iterable[tuple[str, T]]) -> Mapping[SharedState, list[T]]:
        """Return things by the state of their topic; those of a topic without one were never taken."""
        groups: dict[SharedState, list[T]] = {}
        states: dict[str, Found] = {}
        for topic, thing in things:
            if topic not in states:
                states[topic] = self._find(topic)
            one = states[topic]
            if not isinstance(one, str):
                groups.setdefault(one, []).append(thing)
        return groups


def _by_topic(partitions: Iterable[Partition]) -> Mapping[str, list[Partition]]:
    topics: dict[str, list[Partition]] = {}
    for partition in partitions:
        topics.setdefault(partition.topic, []).append(partition)
    return topics


def _asked(one: SharedState, question: Callable[..., T]) -> T:
    with one.asking() as state:
        return question(state)
