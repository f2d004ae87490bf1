"""Nothing that a queue has handed out is lost, in every order of events that Hypothesis can think of.

Two processes read one queue, each with its loops stepped by hand, on one manual clock. They die, close, lose leases and
answers, and their sink refuses rows and puts some off.
"""

from __future__ import annotations

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batcher.core.buffer import FlushPolicy
from batcher.core.offsets import Offsets
from batcher.errors import CommitUnconfirmed, SinkUnavailable
from batcher.records import Block, Deferral, Outcome, Rejection
from batcher.sources.receipts.source import ReceiptSource
from batcher.testing.clock import ManualClock
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.receipts import MemoryGateway, MemoryQueue
from batcher.testing.sinks import ScriptedSink
from tests.harness.hand_engine import HandLoops
from tests.harness.patience import LONG

SHRINKS = not os.environ.get("BATCHER_TEST_NO_SHRINK")
LEASE_S = 9.0
READERS = (0, 1)
readers = st.sampled_from(READERS)


class Crash(BaseException):
    """The process dies here."""


class Process:
    """One process that reads the queue. Each message is a number, which is its name too."""

    def __init__(self, number: int, machine: QueueMachine) -> None:
        self.machine = machine
        self.sink = ScriptedSink(NUMBERS)
        self.sink.before, self.sink.after, self.sink.outcome = self.before, self.after, self.outcome
        self.gateway = MemoryGateway(machine.queue, max_held=8, ahead=2 * number, clock_moves=False)
        self.gateway.failing = self.failing
        self.source = ReceiptSource(
            self.gateway, worker=number, clock=machine.clock, sleep=lambda _: None, now_ms=machine.ticks.pop
        )
        self.unanswered: set[str] = set()
        self.away = False
        self.dies = ""
        self.engine = HandLoops(
            self.source,
            self.sink,
            NumberFormat(),
            policy=FlushPolicy(4, 1 << 20, 1.0),
            memory=1 << 21,
            mixes=True,
            offsets=Offsets(),
            dead_letters=machine.letters,
            clock=machine.clock,
            releases=True,
        )

    def failing(self, call: str) -> None:
        if call in self.unanswered:
            self.unanswered.discard(call)
            raise CommitUnconfirmed(call)

    def before(self, _: Block) -> None:
        if self.dies == "before":
            raise Crash
        if self.away:
            self.away = False
            raise SinkUnavailable("away")

    def after(self, block: Block) -> None:
        self.machine.stored.update(block.table["n"].to_pylist())
        if self.dies == "after":
            raise Crash

    def outcome(self, block: Block) -> Outcome:
        """Refuse each seventh number, and put off each fifth the first time."""
        numbers = block.table["n"].to_pylist()
        rejected = tuple(Rejection(row, "range", "n: out of range") for row, n in enumerate(numbers) if n % 7 == 0)
        fresh = [row for row, n in enumerate(numbers) if n % 7 and n % 5 == 0 and n not in self.machine.put_off]
        self.machine.put_off.update(numbers[row] for row in fresh)
        if fresh:
            event("put off")
        return Outcome(rejected, tuple(Deferral(row, 3.0, "busy") for row in fresh))

    def write(self) -> None:
        self.engine.decode.step()
        self.engine.write.step()


class QueueMachine(RuleBasedStateMachine):
    @initialize()
    def boot(self) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(self.clock, lease_s=LEASE_S)
        self.letters = MemoryDeadLetterQueue()
        self.ticks = list(range(1_700_000_100_000, 1_700_000_000_000, -1000))
        self.published = 0
        self.stored: set[int] = set()
        self.put_off: set[int] = set()
        self.processes = [Process(number, self) for number in READERS]

    @rule(count=st.integers(1, 12))
    def publish(self, count: int) -> None:
        self.queue.publish(*[b"%d" % number for number in range(self.published, self.published + count)])
        self.published += count

    @rule(reader=readers)
    def fetch(self, reader: int) -> None:
        self.processes[reader].engine.fetch.step()

    @rule(reader=readers)
    def write(self, reader: int) -> None:
        self.attempt(reader)

    @rule(seconds=st.sampled_from([0.5, 1.5, 3.5, LEASE_S + 1]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(reader=readers, seconds=st.sampled_from([1.5, 3.5]))
    def round(self, reader: int, seconds: float) -> None:
        self.fetch(reader)
        self.clock.advance(seconds)
        self.attempt(reader)
        self.fetch(reader)

    @rule(reader=readers, call=st.sampled_from(["extend", "acknowledge", "release"]))
    def an_answer_is_lost(self, reader: int, call: str) -> None:
        self.processes[reader].unanswered.add(call)

    @rule(reader=readers)
    def the_target_is_away(self, reader: int) -> None:
        self.processes[reader].away = True

    @rule(reader=readers, moment=st.sampled_from(["before", "after"]))
    def it_dies_during_a_write(self, reader: int, moment: str) -> None:
        self.processes[reader].dies = moment

    @rule(reader=readers)
    def it_dies(self, reader: int) -> None:
        self.processes[reader] = Process(reader, self)

    @rule(reader=readers)
    def it_closes(self, reader: int) -> None:
        process = self.processes[reader]
        process.engine.abort()
        process.source.close()
        self.processes[reader] = Process(reader, self)

    def attempt(self, reader: int) -> None:
        try:
            self.processes[reader].write()
        except Crash:
            event("died during a write")
            self.it_dies(reader)

    @rule()
    def everything_comes_to_its_end(self) -> None:
        for process in self.processes:
            process.dies, process.away = "", False
            process.unanswered.clear()
        for _ in range(400):
            if not self.queue.messages:
                break
            for reader in READERS:
                self.round(reader, 1.5)
        assert not self.queue.messages, "an empty queue has to be reached"

    @invariant()
    def what_the_queue_has_forgotten_is_stored_or_a_dead_letter(self) -> None:
        if not hasattr(self, "queue"):
            return
        left = {int(one.body.value) for one in self.queue.messages.values()}
        letters = {int(one.record.value or b"") for one in self.letters.letters}
        for number in set(range(self.published)) - left:
            assert number in (letters if number % 7 == 0 else self.stored), f"{number} is acknowledged and nowhere"


QueueMachine.TestCase.settings = settings(
    max_examples=1500 if LONG else 60,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if SHRINKS else [])],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestNothingHandedOutIsLost = QueueMachine.TestCase
