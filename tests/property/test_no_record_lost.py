"""The promise "nothing lost", without intents, against every order of events Hypothesis can think of.

The loops are stepped by hand in one thread, on a manual clock. Events during a write (rebalances,
fetches) happen inside the scripted sink, which is where a second thread would be. `seeded_faults.py` beside this file
shows that the machine has teeth.
"""

import os
from collections.abc import Callable

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batcher.core.buffer import FlushPolicy
from batcher.core.offsets import Offsets
from batcher.errors import BlockRejected, RowsRejected, SchemaChanged, SinkUnavailable
from batcher.records import Block, Deferral, Outcome, Partition, Rejection
from batcher.testing.clock import ManualClock
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, SMALL_NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.hand_engine import HandLoops
from tests.harness.patience import LONG

SHRINKS = not os.environ.get("BATCHER_TEST_NO_SHRINK")
PARTITIONS = [Partition("events", number) for number in range(3)]
GOOD, LARGE, UNDECODABLE, REFUSED, TOMBSTONE = "1", "1000", "x", "-7", None
MEMORY = 3000
FETCH_BYTES = 40 * 80

partitions = st.lists(st.sampled_from(PARTITIONS), min_size=1, unique=True)
values = st.lists(st.sampled_from([GOOD, GOOD, GOOD, LARGE, UNDECODABLE, REFUSED, TOMBSTONE]), min_size=1, max_size=25)


class Crash(BaseException):
    """The process dies here."""


class PipelineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(PARTITIONS)
        self.queue = MemoryDeadLetterQueue()
        self.clock = ManualClock()
        self.stored: set[tuple[Partition, int]] = set()
        self.copies: dict[tuple[Partition, int], int] = {}
        self.disturbed = False
        self.columns = NUMBERS
        self.read: dict[Partition, int] = {}

    @initialize(mixes=st.booleans(), names_culprits=st.booleans(), in_part=st.booleans())
    def boot_first(self, mixes: bool, names_culprits: bool, in_part: bool) -> None:
        self.mixes = mixes
        self.names_culprits = names_culprits
        self.in_part = in_part
        self.deferred = False
        self.boot()

    def boot(self) -> None:
        self.sink = ScriptedSink(self.columns)
        self.sink.before = self.refuse
        self.sink.after = self.store
        self.sink.outcome = self.outcome
        self.source = MemorySource(self.log, waits=False)
        self.engine = HandLoops(
            self.source,
            self.sink,
            NumberFormat(),
            policy=FlushPolicy(12, 1500, 1.0),
            memory=MEMORY,
            mixes=self.mixes,
            offsets=Offsets(),
            dead_letters=self.queue,
            clock=self.clock,
        )

    def refuse(self, block: Block) -> None:
        if block.table.schema.field("n").type != self.columns.field("n").type:
            event("columns changed before a write")
            raise SchemaChanged("n has another type", self.columns)
        bad = self.bad(block) if not self.in_part else []
        if bad and self.names_culprits:
            raise RowsRejected([Rejection(row, "range", "n: out of range") for row in bad])
        if bad:
            raise BlockRejected("constraint")

    def bad(self, block: Block) -> list[int]:
        return [row for row, number in enumerate(block.table["n"].to_pylist()) if number == int(REFUSED)]

    def outcome(self, block: Block) -> Outcome | None:
        """Write in part, where that is the kind of sink: refuse what is bad, and put off one other row, once."""
        if not self.in_part:
            return None
        bad = self.bad(block)
        good = [row for row in range(block.rows) if row not in bad]
        # Not twice in a row, or it would never end.
        deferred = tuple(Deferral(row, 0.0, "busy") for row in good[:1] if not self.deferred)
        self.deferred = bool(deferred)
        event(f"written in part: {len(bad) > 0} refused, {len(deferred)} deferred")
        return Outcome(tuple(Rejection(row, "range", "n: out of range") for row in bad), deferred)

    def store(self, block: Block) -> None:
        for row in block.table.select(["_partition", "_offset"]).to_pylist():
            at = (PARTITIONS[row["_partition"]], row["_offset"])
            self.stored.add(at)
            self.copies[at] = self.copies.get(at, 0) + 1

    def during_write(self, what: Callable[[], None], *, stored: bool) -> None:
        """Let something happen at the next write, before or after the block is stored, once."""
        hook, back = ("after", self.store) if stored else ("before", self.refuse)

        def once(block: Block) -> None:
            setattr(self.sink, hook, back)
            back(block)
            what()

        setattr(self.sink, hook, once)

    def fetch(self) -> None:
        # A commit for records this reading has not seen would be one from an earlier ownership.
        before = len(self.log.history)
        reached = {partition: self.source._positions.get(partition, -1) for partition in PARTITIONS}
        self.engine.fetch.step()
        for partition, position in self.log.history[before:]:
            assert position.next_offset <= max(reached[partition], self.source._positions.get(partition, -1))

    def flush(self) -> None:
        try:
            self.engine.decode.step()
            self.engine.write.step()
        except Crash:
            event("crashed during a write")
            self.restart()

    def restart(self) -> None:
        self.disturbed = True
        self.log.owners.clear()
        self.boot()

    @rule(partition=st.sampled_from(PARTITIONS), values=values, gap=st.integers(0, 2))
    def produce(self, partition: Partition, values: list[str | None], gap: int) -> None:
        self.log.produce(partition, values, gap=gap)

    @rule(partition=st.sampled_from(PARTITIONS), values=values)
    def produce_and_read(self, partition: Partition, values: list[str | None]) -> None:
        self.log.produce(partition, values)
        self.fetch()

    @rule()
    def fetch_once(self) -> None:
        self.fetch()

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0]))
    def wait_and_flush(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.flush()

    @rule(seconds=st.sampled_from([0.0, 2.0]))
    def wait_and_decode_ahead(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.engine.decode.step():
            event("decoded ahead")

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def round(self, seconds: float) -> None:
        self.fetch()
        self.clock.advance(seconds)
        self.flush()
        self.fetch()

    @rule(stored=st.booleans(), times=st.integers(1, 3))
    def sink_is_away_at_the_next_write(self, stored: bool, times: int) -> None:
        left = times

        def away() -> None:
            nonlocal left
            left -= 1
            if left > 0:
                self.during_write(away, stored=stored)
            raise SinkUnavailable("away")

        self.disturbed = True
        self.during_write(away, stored=stored)

    @rule(stored=st.booleans(), values=values)
    def crash_during_a_write(self, stored: bool, values: list[str | None]) -> None:
        def crash() -> None:
            raise Crash

        self.during_write(crash, stored=stored)
        self.produce_and_flush(values)

    @rule()
    def crash_between_steps(self) -> None:
        self.restart()

    @rule()
    def the_table_changes(self) -> None:
        self.columns = NUMBERS if self.columns is SMALL_NUMBERS else SMALL_NUMBERS

    @rule(stored=st.booleans(), values=values)
    def the_table_changes_during_a_write(self, stored: bool, values: list[str | None]) -> None:
        self.during_write(self.the_table_changes, stored=stored)
        self.produce_and_flush(values)

    @rule(failures=st.integers(1, 3))
    def queue_breaks(self, failures: int) -> None:
        self.queue.failures = failures

    @rule(partitions=partitions, polite=st.booleans(), back=st.booleans())
    def rebalance(self, partitions: list[Partition], polite: bool, back: bool) -> None:
        self.change_hands(partitions, polite=polite, back=back)
        self.fetch()

    @rule(
        partitions=partitions,
        polite=st.booleans(),
        back=st.booleans(),
        stored=st.booleans(),
        values=values,
        more=values,
    )
    def rebalance_during_a_write(
        self,
        *,
        partitions: list[Partition],
        polite: bool,
        back: bool,
        stored: bool,
        values: list[str | None],
        more: list[str | None],
    ) -> None:
        def rebalance() -> None:
            if any(partition in flight.epochs for flight in self.engine.in_flight for partition in partitions):
                event("rebalance with the partition in delivery")
            self.log.produce(partitions[0], more)
            self.change_hands(partitions, polite=polite, back=back)
            self.fetch()

        self.during_write(rebalance, stored=stored)
        self.produce_and_flush(values)

    def produce_and_flush(self, values: list[str | None]) -> None:
        for partition in self.source.owned:
            self.log.produce(partition, values)
        self.fetch()
        self.clock.advance(2.0)
        self.flush()

    def change_hands(self, partitions: list[Partition], *, polite: bool, back: bool) -> None:
        self.disturbed = True
        if self.engine.snapshot().rows:
            event("rebalance with records in the buffer")
        (self.source.revoke if polite else self.source.lose)(partitions)
        if back:
            self.source.assign(partitions)

    @precondition(lambda self: len(self.source.owned) < len(PARTITIONS))
    @rule()
    def assign_the_rest(self) -> None:
        self.source.assign([partition for partition in PARTITIONS if partition not in self.source.owned])
        self.fetch()

    @rule(held=st.booleans())
    def switch(self, held: bool) -> None:
        if held and self.engine.in_flight:
            event("held with a batch in flight")
        self.engine.shared.hold(held=held)

    @rule(values=values, stored=st.booleans())
    def switch_off_during_a_write(self, values: list[str | None], stored: bool) -> None:
        self.during_write(lambda: self.engine.shared.hold(held=True), stored=stored)
        self.produce_and_flush(values)

    @rule()
    def stop_while_held_and_start_again(self) -> None:
        self.sink.before, self.sink.after = self.refuse, self.store
        self.engine.shared.hold(held=True)
        written = sum(self.copies.values())
        self.engine.drain("stop")
        for _ in range(10):
            self.engine.decode.step()
            self.engine.write.step()
            self.engine.fetch.step()
        assert self.engine.drained, "a stop while it is held has nothing to wait for"
        assert sum(self.copies.values()) == written
        self.source.close()
        self.boot()

    @rule()
    def stop_and_start_again(self) -> None:
        self.engine.shared.hold(held=False)
        self.sink.before, self.sink.after = self.refuse, self.store
        self.queue.failures = 0
        self.fetch()
        owned = self.source.owned
        read = {partition: self.source._positions[partition] for partition in owned}
        self.engine.drain("stop")
        for _ in range(1000):
            self.engine.decode.step()
            self.engine.write.step()
            # Here the fetch loop would look, too: a batch is written and its commit is not made.
            if self.engine.drained:
                break
            self.engine.fetch.step()
        assert self.engine.drained, "a drain has to come to its end"
        for partition in owned:
            committed = self.log.committed.get(partition)
            seen = [run for run in self.log.runs[partition] if run.first_offset < read[partition]]
            assert not seen or (committed is not None and committed.next_offset == read[partition])
        self.source.close()
        self.boot()

    @invariant()
    def nothing_below_a_commit_is_lost(self) -> None:
        letters = self.queue.coordinates()
        for partition, position in self.log.committed.items():
            for run in self.log.runs[partition]:
                for offset, value in zip(run.offsets.to_pylist(), run.values.to_pylist(), strict=True):
                    if offset >= position.next_offset:
                        break
                    at = (partition, offset)
                    if value is None:
                        continue
                    place = self.stored if value == GOOD.encode() else letters
                    if value == LARGE.encode():
                        place = self.stored | letters
                    assert at in place, f"{at} is committed and nowhere"

    @invariant()
    def commits_never_go_back(self) -> None:
        last: dict[Partition, int] = {}
        for partition, position in self.log.history:
            assert position.next_offset >= last.get(partition, 0)
            last[partition] = position.next_offset

    @invariant()
    def nothing_foreign_is_committed(self) -> None:
        assert not self.log.trespasses

    @invariant()
    def nothing_is_duplicated_while_nothing_goes_wrong(self) -> None:
        if not self.disturbed:
            assert all(count == 1 for count in self.copies.values())

    @invariant()
    def memory_stays_within_its_bound(self) -> None:
        if hasattr(self, "engine"):
            assert self.engine.snapshot().nbytes <= MEMORY + FETCH_BYTES


PipelineMachine.TestCase.settings = settings(
    max_examples=3000 if LONG else 200,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if SHRINKS else [])],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestNoRecordLost = PipelineMachine.TestCase
