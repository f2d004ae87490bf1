"""The promise "nothing lost and nothing duplicated": several processes, one log, one target, every order of events.

A process of this machine is a fetch loop that is stepped by hand and one write loop or several, which stop at every
point where another thread, another process or the end could come in between: before a question to the target, before
its answer is used, before a write is sent, while the server is at it, after it is stored, around the dead-letter queue,
while it waits for a commit. Time stands still unless a rule moves it.

What no protocol can cover is left out, and said: a target without a memory of tokens is not left alone between the
last look at the lease and the arrival of the write; one with a memory of tokens does not lose records by compaction
out of a batch of which the target refused some, and keeps its columns: it takes a token for the rows it came with.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batcher.core.buffer import FlushPolicy
from batcher.core.in_flight import BatchInFlight
from batcher.core.offsets import Offsets
from batcher.engine.reconcile import OnExisting
from batcher.errors import (
    BatcherError,
    BlockRejected,
    CommitUnconfirmed,
    DeadLetterLimitExceeded,
    RowsRejected,
    SchemaChanged,
    SinkUnavailable,
)
from batcher.records import Block, DeadLetter, Deferral, Outcome, Partition, Position, Rejection, write_id
from batcher.sources.kafka.metadata import StoredPosition, pack
from batcher.sources.position_note import MAX_BYTES
from batcher.testing.clock import ManualClock
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, SMALL_NUMBERS, NumberFormat
from batcher.testing.sinks import FileSink, ScriptedSink, TableSink
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.fibers import Fiber, FiberLock, Killed
from tests.harness.hand_engine import HandLoops
from tests.harness.patience import LONG

SHRINKS = not os.environ.get("BATCHER_TEST_NO_SHRINK")
PARTITIONS = [Partition("events", number) for number in range(2)]
GOOD, LARGE, UNDECODABLE, REFUSED, TOMBSTONE = "1", "1000", "x", "-7", None
MEMORY = 3000
FETCH_BYTES = 40 * 80

SESSION_S = 6.0
"""The broker gives partitions of a silent member away after that: not below `group.min.session.timeout.ms`."""

ON_THE_WAY = {"sending", "in the server"}
ATTEMPTED = ON_THE_WAY | {"stored"}

Kind = Literal["tokens", "table", "merged", "files"]
Row = tuple[Partition, int]

partitions = st.lists(st.sampled_from(PARTITIONS), min_size=1, unique=True)
values = st.lists(st.sampled_from([GOOD] * 5 + [LARGE, UNDECODABLE, REFUSED, TOMBSTONE]), min_size=1, max_size=25)
workers = st.integers(0, 1)
steps = st.integers(1, 6)
points = st.sampled_from(
    ["idle", "waiting", "sent", "sent", "stored", "stored", "answered", "running", "sending letters"]
)
offsets = st.sets(st.integers(0, 60), min_size=1, max_size=8)


def rows_of(block: Block) -> list[Row]:
    numbers, at = block.table["_partition"].to_pylist(), block.table["_offset"].to_pylist()
    return [(PARTITIONS[number], offset) for number, offset in zip(numbers, at, strict=True)]


class Target:
    """What survives every process: the stored blocks, and what a server is still at."""

    def __init__(self, kind: Kind, *, names_culprits: bool, in_part: bool) -> None:
        self.kind = kind
        # What replaces the rows of a range cannot take a part of them.
        self.in_part = in_part and kind != "files"
        self._deferred = False
        self.parts: set[str] = set()
        self.columns = NUMBERS
        self.names_culprits = names_culprits or kind == "files"
        self.blocks: dict[str, Block] = {}
        self.server: dict[int, Block] = {}
        self.given_up: set[int] = set()
        self._requests = 0
        self._rows: dict[str, tuple[Block, list[Row]]] = {}

    def rows(self) -> Counter[Row]:
        """Return how often each record is stored."""
        found: Counter[Row] = Counter()
        for key, block in self.blocks.items():
            known = self._rows.get(key)
            if known is None or known[0] is not block:
                known = self._rows[key] = (block, rows_of(block))
            found.update(known[1])
        return found

    def under(self, token: str) -> Counter[Row] | None:
        """Return the rows that a token was taken for; None where it is new."""
        return Counter(rows_of(self.blocks[token])) if token in self.blocks else None

    def arrive(self, block: Block) -> int:
        self._requests += 1
        self.server[self._requests] = block
        return self._requests

    def store(self, request: int) -> None:
        block = self.server.pop(request)
        self.blocks[f"{block.token}#{request}"] = block

    def refuse(self, block: Block) -> None:
        if block.table.schema.field("n").type != self.columns.field("n").type:
            raise SchemaChanged("n has another type", self.columns)
        bad = [] if self.in_part else self.bad(block)
        if bad and self.names_culprits:
            raise RowsRejected([Rejection(row, "range", "n: out of range") for row in bad])
        if bad:
            raise BlockRejected("constraint")

    def bad(self, block: Block) -> list[int]:
        return [row for row, number in enumerate(block.table["n"].to_pylist()) if number == int(REFUSED)]

    def outcome(self, block: Block, stored: Counter[Row] | None) -> Outcome | None:
        """Write in part: refuse what is bad, and defer one other row, but not twice in a row, or it would never end.

        `stored` is what came of an earlier attempt: then exactly the rows are named that are still not there.
        """
        if not self.in_part:
            return None
        bad = self.bad(block)
        if stored is None:
            deferred = [row for row in range(block.rows) if row not in bad][:1] if not self._deferred else []
            self._deferred = bool(deferred)
        else:
            lacking = [row for row, at in enumerate(rows_of(block)) if not stored[at]]
            bad, deferred = [row for row in lacking if row in bad], [row for row in lacking if row not in bad]
        # The event is told later: this runs in a fiber, and Hypothesis knows only the test's own thread.
        self.parts.add(("refused" if bad else "") + (" deferred" if deferred else "") + (" again" if stored else ""))
        rejections = tuple(Rejection(row, "range", "n: out of range") for row in bad)
        return Outcome(rejections, tuple(Deferral(row, 0.0, "busy") for row in deferred))


class Table(TableSink):
    """A table behind a server: a write goes on there though whoever sent it died, or gave up waiting."""

    def __init__(self, target: Target, pause: Callable[[str], None]) -> None:
        super().__init__(target.columns)
        self.blocks = target.blocks
        self._target = target
        self._pause = pause
        self._tried: set[str] = set()

    def keep(self, block: Block) -> None:
        """Store a block; look for its rows where this process has tried it before."""
        if self.tried(block):
            return
        self._tried.add(block.token)
        request = self._target.arrive(block)
        self._pause("in the server")
        if request in self._target.server:
            self._target.store(request)
        elif request in self._target.given_up:
            raise SinkUnavailable("the server was started anew")

    def tried(self, block: Block) -> bool:
        """Return whether this process has stored a block of this name; raise SinkUnavailable while that is unknown."""
        return block.token in self._tried and self._stored(block)

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        answer = super().present(partition, first, last)
        self._pause("answered")
        return answer

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        answer = super().max_offset_above(positions)
        self._pause("answered")
        return answer

    def running(self, write_id: str) -> bool:
        return super().running(write_id) or self._busy_with(write_id)

    def _busy_with(self, name: str) -> bool:
        return any(write_id(block.token) == name for block in self._target.server.values())

    def _stored(self, block: Block) -> bool:
        if self.running(write_id(block.token)):
            raise SinkUnavailable("the server is still at it")
        return any(one.token == block.token for one in self.blocks.values())


class Queue(MemoryDeadLetterQueue):
    """A queue that a process pauses at."""

    def __init__(self, letters: list[DeadLetter], pause: Callable[[str], None]) -> None:
        super().__init__()
        self.letters = letters
        self.ruined = False
        self._pause = pause

    def send(self, letters: Sequence[DeadLetter]) -> None:
        self._pause("sending letters")
        if self.ruined:
            raise DeadLetterLimitExceeded("enough")
        super().send(letters)
        self._pause("letters sent")


class Worker:
    """One process: the fetch loop is the test's own, the write loops are fibers, of which one has its turn."""

    def __init__(
        self,
        log: MemoryLog,
        target: Target,
        letters: list[DeadLetter],
        clock: ManualClock,
        *,
        on_existing: OnExisting = "halt",
        ignores_intents: bool = False,
        writers: int = 1,
    ) -> None:
        self.log = log
        self.clock = clock
        self.fibers = [Fiber(self._flush) for _ in range(writers)]
        self.turn = 0
        self.flushes_while_revoking = True
        self.dies_while_waiting = False
        self.decoding: BatchInFlight | None = None
        self.failed = False
        self.unanswered: list[tuple[bool, float]] = []
        self.source = MemorySource(log, partitions=[], waits=False, on_gap="skip")
        self.sink = self._sink(target)
        self.queue = Queue(letters, self.pause)
        self.engine = HandLoops(
            self.source,
            self.sink,
            NumberFormat(),
            policy=FlushPolicy(12, 1500, 1.0),
            memory=MEMORY,
            mixes=target.kind == "merged",
            offsets=Offsets("group", announces=True, ignores_intents=ignores_intents, checks=True),
            dead_letters=self.queue,
            on_existing=on_existing,
            drain_timeout_s=0.5,
            writers=writers,
            clock=clock,
        )
        self.engine.shared._changed.wait = self._wait  # type: ignore[method-assign]
        self.engine.writer._sending = FiberLock(self.pause)  # type: ignore[assignment]
        for fiber in self.fibers:
            fiber.resume()

    @property
    def fiber(self) -> Fiber:
        """Return the write loop that has its turn."""
        return self.fibers[self.turn]

    @property
    def points(self) -> str:
        """Return where the write loops stand."""
        return " and ".join(sorted(fiber.point for fiber in self.fibers))

    def pause(self, point: str) -> None:
        """Let the write loop that is running pause."""
        next(fiber for fiber in self.fibers if fiber.current).pause(point)

    def pass_on(self) -> None:
        """Give the next write loop its turn."""
        self.turn = (self.turn + 1) % len(self.fibers)

    @property
    def held(self) -> frozenset[Partition]:
        """Return the partitions the broker takes this process for the owner of."""
        return frozenset(part for part, owner in self.log.owners.items() if owner is self.source)

    def flush(self, pauses: int, order: BaseException | None = None) -> str:
        """Let a write loop go on to its `pauses`th pause, the next one where it waits, until all have nothing to do.

        Return where the last one stands.
        """
        at, idle = self.fiber.point, 0
        for _ in range(pauses):
            if self.failed:
                return "failed"
            at = self._resume(order)
            order = None
            idle = idle + 1 if at == "idle" else 0
            if at in {"idle", "waiting"}:
                self.pass_on()
            if idle == len(self.fibers):
                return at
        return at

    def go_on(self) -> None:
        """Let every write loop go on to its next pause."""
        for _ in self.fibers:
            if not self.fiber.ended:
                self._resume()
            self.pass_on()

    def _resume(self, order: BaseException | None = None) -> str:
        try:
            return self.fiber.resume(order)
        except BatcherError as error:
            if self.engine.phase != "aborted" and not isinstance(error, DeadLetterLimitExceeded):
                raise
            self.failed = True
            return "failed"

    def decode(self) -> None:
        if self.decoding is None:
            self.decoding = self.engine.begin()
        else:
            prepared = self.engine.writer.prepare(self.decoding.batch)
            with self.engine.shared.changing() as state:
                state.decoded(self.decoding, prepared)
            self.decoding = None

    def kill(self) -> None:
        for fiber in self.fibers:
            fiber.kill()
        for partition in self.held:
            del self.log.owners[partition]

    def _flush(self) -> None:
        while True:
            self.pause("idle")
            self.engine.write.step()

    def _wait(self, timeout: float | None = None) -> bool:
        self.engine.shared._changed.release()
        try:
            if any(fiber.current for fiber in self.fibers):
                self.pause("waiting")
            else:
                if self.dies_while_waiting:
                    raise Killed
                self.clock.advance(max(timeout or 0.0, 0.1))
                if self.flushes_while_revoking and not self.failed:
                    self.go_on()
        finally:
            self.engine.shared._changed.acquire()
        return True

    def _sink(self, target: Target) -> ScriptedSink:
        sink: ScriptedSink
        if target.kind in {"table", "merged"}:
            sink = table = Table(target, self.pause)
            sink.before = target.refuse
            sink.outcome = lambda block: target.outcome(block, target.rows() if table.tried(block) else None)
        else:
            sink = FileSink(target.columns) if target.kind == "files" else ScriptedSink(NUMBERS)
            sink.blocks = target.blocks

            def send(block: Block) -> None:
                self.pause("sending")
                target.refuse(block)

            sink.before = send
            sink.outcome = lambda block: target.outcome(block, target.under(block.token))
        if isinstance(sink, FileSink | TableSink):
            sink.on_question = self.pause
        sink.after = lambda _: self.pause("stored")
        return sink


class ExactlyOnceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(PARTITIONS)
        self.letters: list[DeadLetter] = []
        self.clock = ManualClock()
        self.workers: list[Worker] = []
        self.on_existing: OnExisting = "halt"
        self.unannounced: dict[Partition, int] = {}

    @initialize(
        kind=st.sampled_from(["tokens", "table", "merged", "files"]),
        names_culprits=st.booleans(),
        in_part=st.booleans(),
        compacts=st.booleans(),
        writers=st.sampled_from([1, 2, 2]),
    )
    def boot(self, kind: Kind, names_culprits: bool, in_part: bool, compacts: bool, writers: int) -> None:
        self.target = Target(kind, names_culprits=names_culprits, in_part=in_part)
        self.compacts = compacts
        self.writers = writers
        self.workers = [self.worker(), self.worker()]
        self.workers[0].source.assign(PARTITIONS)
        self.workers[0].engine.fetch.step()

    def worker(self, *, ignores_intents: bool = False) -> Worker:
        return Worker(
            self.log,
            self.target,
            self.letters,
            self.clock,
            on_existing=self.on_existing,
            ignores_intents=ignores_intents,
            writers=self.writers,
        )

    def replace(self, worker: int) -> None:
        """Let a process end here and another be started in its place; nobody owns its partitions for now."""
        self.workers[worker].kill()
        self.workers[worker] = self.worker()

    def consume(self, worker: int) -> None:
        one = self.workers[worker]
        if one.unanswered:
            stored, seconds = one.unanswered.pop(0)

            def keep_silent(_: Mapping[Partition, Position]) -> None:
                event(f"a commit without an answer: {one.points}")
                self.clock.advance(seconds)
                raise CommitUnconfirmed("no answer")

            setattr(self.log, "after_commit" if stored else "before_commit", keep_silent)
        try:
            one.engine.fetch.step()
        except Killed:
            event("died in a commit or a callback")
            self.replace(worker)
        finally:
            self.log.before_commit = self.log.after_commit = lambda _: None
        self.bury(worker)

    def flush(self, worker: int, pauses: int, order: BaseException | None = None) -> str:
        """Return where the write loop stands then."""
        at = self.workers[worker].flush(pauses, order)
        self.bury(worker)
        return at

    def bury(self, worker: int) -> None:
        """Let a process whose write loop failed commit what is durable and leave, as the pipeline does."""
        one = self.workers[worker]
        if not one.failed:
            return
        event(f"write loop failed: {one.engine.phase}")
        for _ in range(50):
            if one.engine.drained or one.engine.phase == "aborted":
                break
            # What the others write comes to its end.
            one.go_on()
            one.engine.fetch.step()
        else:
            assert self.writers > 1
            one.engine.abort()
        one.engine.fetch.leave()
        self.replace(worker)

    def load(self, values: list[str | None], more: list[str | None], worker: int, point: str) -> int:
        """Have new records loaded until the write loop is at a point, and return by whom."""
        if not self.log.owners:
            self.give(PARTITIONS, worker)
        worker = worker if self.workers[worker].held else 1 - worker
        for partition, produced in zip(sorted(self.workers[worker].held), (values, more), strict=False):
            self.produce(partition, produced, 0)
        self.get_on(worker, 8, point)
        return worker

    # What the world does.

    @rule(partition=st.sampled_from(PARTITIONS), values=values, gap=st.integers(0, 2))
    def produce(self, partition: Partition, values: list[str | None], gap: int) -> None:
        if self.target.kind == "tokens" and self.compacts:
            values = [GOOD if value == REFUSED else value for value in values]
        self.log.produce(partition, values, gap=gap)

    @precondition(lambda self: self.compacts)
    @rule(partition=st.sampled_from(PARTITIONS), back=offsets)
    def compact(self, partition: Partition, back: set[int]) -> None:
        end = self.log.end(partition)
        self.log.compact(partition, {end - 1 - offset for offset in back})

    @precondition(lambda self: self.compacts)
    @rule(partition=st.sampled_from(PARTITIONS), kept=st.integers(0, 40))
    def expire(self, partition: Partition, kept: int) -> None:
        self.log.expire(partition, self.log.end(partition) - kept)

    @rule(seconds=st.sampled_from([0.3, 1.0, 4.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.target.server)
    @rule(stores=st.booleans(), which=st.integers(0, 5))
    def the_server_comes_to_an_end(self, stores: bool, which: int) -> None:
        request = sorted(self.target.server)[which % len(self.target.server)]
        if stores:
            self.target.store(request)
        else:
            del self.target.server[request]
            self.target.given_up.add(request)

    # What a process does.

    @rule(worker=workers, what=st.sampled_from(["read", "decode", "write"]), pauses=steps)
    def step(self, worker: int, what: str, pauses: int) -> None:
        if what == "read":
            self.consume(worker)
        elif what == "decode":
            self.workers[worker].decode()
        else:
            self.flush(worker, pauses)

    @rule(worker=workers)
    def another_write_loop_has_its_turn(self, worker: int) -> None:
        self.workers[worker].pass_on()

    @rule(worker=workers, rounds=st.integers(1, 4), point=points, stays=st.booleans())
    def get_on(self, worker: int, rounds: int, point: str, *, stays: bool = False) -> None:
        """Go some rounds, or until a write loop is at a point; if it `stays` there, another one has its turn."""
        for _ in range(rounds):
            self.consume(worker)
            self.clock.advance(1.0)
            for _ in range(4):
                self.workers[worker].decode()
            for _ in range(12):
                at = self.flush(worker, 1)
                if at == "idle" and all(fiber.point == "idle" for fiber in self.workers[worker].fibers):
                    break
                if at == point or (point == "sent" and at in ON_THE_WAY):
                    if stays:
                        self.workers[worker].pass_on()
                    return

    @rule(values=values, more=values, worker=workers, point=points)
    def produce_and_get_on(self, values: list[str | None], more: list[str | None], worker: int, point: str) -> None:
        self.load(values, more, worker, point)

    @rule(
        values=values,
        worker=workers,
        point=points,
        trouble=st.sampled_from(["crash", "take away", "hand over", "unknown", "abort", "no answer"]),
        flags=st.tuples(st.booleans(), st.booleans()),
        to=workers,
        moved=partitions,
        pauses=steps,
        later_s=st.sampled_from([0.0, 4.0, 6.0]),
    )
    def trouble_at_a_point(
        self,
        *,
        values: list[str | None],
        worker: int,
        point: str,
        trouble: str,
        flags: tuple[bool, bool],
        to: int,
        moved: list[Partition],
        pauses: int,
        later_s: float,
    ) -> None:
        worker = self.load(values, values, worker, point)
        self.clock.advance(later_s)
        if trouble == "crash":
            self.crash(worker)
            self.give(PARTITIONS, to)
        elif trouble == "take away":
            self.take_away(moved, to, flags[0])
        elif trouble == "hand over":
            self.hand_over(moved, to, *flags)
        elif trouble == "unknown":
            self.the_outcome_of_a_write_stays_unknown(pauses)
        elif trouble == "no answer":
            self.commits_get_no_answer(worker, [flags[0], flags[1]] * pauses, later_s)
            worker = self.load(values, values, worker, point)
            self.take_away(moved, to, hears=False)
            self.get_on(worker, pauses, point)
        else:
            self.abort(worker, pauses)

    # What goes wrong.

    @precondition(lambda self: any(fiber.point in ATTEMPTED for w in self.workers for fiber in w.fibers))
    @rule(pauses=steps)
    def the_outcome_of_a_write_stays_unknown(self, pauses: int) -> None:
        for number, worker in enumerate(self.workers):
            for turn, fiber in enumerate(worker.fibers):
                if fiber.point in ATTEMPTED and self.workers[number] is worker:
                    event(f"outcome unknown: {worker.points}")
                    worker.turn = turn
                    self.flush(number, pauses, SinkUnavailable("reset"))

    @precondition(lambda self: self.target.kind != "tokens")
    @rule()
    def the_table_changes(self) -> None:
        self.target.columns = NUMBERS if self.target.columns is SMALL_NUMBERS else SMALL_NUMBERS

    @rule(worker=workers)
    def crash(self, worker: int) -> None:
        event(f"crashed: {self.workers[worker].points}")
        self.replace(worker)

    @rule(worker=workers, stored=st.booleans())
    def crash_at_the_next_commit(self, worker: int, stored: bool) -> None:
        def die(_: Mapping[Partition, Position]) -> None:
            raise Killed

        setattr(self.log, "after_commit" if stored else "before_commit", die)
        self.consume(worker)

    @rule(worker=workers, stored=st.lists(st.booleans(), min_size=1, max_size=5), seconds=st.sampled_from([0.0, 6.0]))
    def commits_get_no_answer(self, worker: int, stored: list[bool], seconds: float) -> None:
        self.workers[worker].unanswered = [(one, seconds) for one in stored]

    @rule(worker=workers, for_good=st.booleans())
    def queue_breaks(self, worker: int, for_good: bool) -> None:
        queue = self.workers[worker].queue
        if for_good:
            queue.ruined = True
        else:
            queue.broken = True

    @rule(worker=workers)
    def queue_is_mended(self, worker: int) -> None:
        self.workers[worker].queue.broken = False

    @rule(worker=workers, pauses=st.integers(0, 12))
    def abort(self, worker: int, pauses: int) -> None:
        one = self.workers[worker]
        one.engine.abort()
        self.flush(worker, pauses)
        if self.workers[worker] is one:
            one.engine.fetch.leave()
            self.replace(worker)

    # Who owns what.

    @rule(partitions=partitions, to=workers, flushes=st.booleans(), dies=st.booleans())
    def hand_over(self, partitions: list[Partition], to: int, flushes: bool, dies: bool) -> None:
        for number, worker in enumerate(self.workers):
            if moved := worker.held.intersection(partitions):
                event(f"handed over: {worker.points}")
                worker.flushes_while_revoking = flushes
                worker.dies_while_waiting = dies
                worker.source.revoke(moved)
                self.consume(number)
                worker.dies_while_waiting = False
        self.give(partitions, to)

    @rule(partitions=partitions, to=workers, hears=st.booleans())
    def take_away(self, partitions: list[Partition], to: int, hears: bool) -> None:
        """A process is silent for a session, and others go on without it; it learns of it later, or now."""
        self.clock.advance(SESSION_S)
        for number, worker in enumerate(self.workers):
            if moved := worker.held.intersection(partitions):
                event(f"taken away: {worker.points}")
                worker.source.lose(moved)
                if hears:
                    self.consume(number)
        self.give(partitions, to)

    @rule(to=workers)
    def assign_the_rest(self, to: int) -> None:
        self.give([part for part in PARTITIONS if part not in self.log.owners], to)

    def give(self, partitions: list[Partition], to: int) -> None:
        free = [part for part in partitions if part not in self.log.owners]
        self.workers[to].source.assign(free)
        self.consume(to)

    @rule(partition=st.sampled_from(PARTITIONS))
    def something_else_is_left_with_the_offset(self, partition: Partition) -> None:
        """The partition is left alone until that is put right."""
        found = self.log.committed.get(partition)
        if found is None or partition in self.log.owners:
            return
        event("metadata that are not ours")
        self.log.committed[partition] = strange = Position(found.next_offset, unreadable="it is no intent")
        self.give([partition], 0)
        worker = self.workers[0]
        assert partition not in worker.engine.owned
        assert partition in worker.source.untaken
        self.get_on(0, 3, "idle")
        assert self.log.committed[partition] == strange
        self.workers[0].source.revoke([partition])
        self.consume(0)
        self.log.committed[partition] = found

    @precondition(lambda self: self.target.kind in {"table", "merged"})
    @rule()
    def start_anew_ignoring_intents(self) -> None:
        for worker in self.workers:
            worker.kill()
        for request in list(self.target.server):
            self.target.store(request)
        for partition, offset in self.target.rows():
            self.unannounced[partition] = max(offset, self.unannounced.get(partition, -1))
        self.on_existing = "skip"
        first = self.worker(ignores_intents=True)
        self.workers = [first, self.worker()]
        self.give(PARTITIONS, 0)
        # For this one time: what its peers announce from now on is not to be ignored.
        first.engine.offsets._ignores_intents = False

    @rule(worker=workers, held=st.booleans())
    def switch(self, worker: int, held: bool) -> None:
        if held and self.workers[worker].engine.in_flight:
            event("held with a batch in flight")
        self.workers[worker].engine.shared.hold(held=held)

    @rule(worker=workers)
    def stop_while_held_and_start_again(self, worker: int) -> None:
        one = self.workers[worker]
        self.put_right(one)
        one.engine.shared.hold(held=True)
        one.engine.drain("stop")
        self.until(one, lambda: one.engine.drained)
        one.engine.fetch.leave()
        self.replace(worker)

    @rule(worker=workers)
    def stop_and_start_again(self, worker: int) -> None:
        one = self.workers[worker]
        self.put_right(one)
        self.consume(worker)
        one.engine.drain("stop")
        owned = one.held
        read = {partition: one.source._positions[partition] for partition in owned}
        ends = {partition: replay.ends[-1] for partition, replay in one.engine.buffer._replays.items()}
        incomplete = {partition for partition, last in ends.items() if read[partition] <= last}
        self.until(one, lambda: one.engine.drained)
        for partition in owned - incomplete:
            at = self.log.committed.get(partition, Position(0))
            seen = [run for run in self.log.runs[partition] if run.first_offset < read[partition]]
            assert not seen or at.next_offset > seen[-1].first_offset
            assert not at.intents
        one.engine.fetch.leave()
        self.replace(worker)

    def put_right(self, worker: Worker) -> None:
        worker.engine.shared.hold(held=False)
        worker.queue.broken = worker.queue.ruined = False
        for request in list(self.target.server):
            self.target.store(request)

    def until(self, worker: Worker, done: Callable[[], bool]) -> None:
        for _ in range(300):
            if done():
                return
            worker.decode()
            worker.flush(2 * self.writers)
            worker.engine.fetch.step()
            self.clock.advance(0.1)
        raise AssertionError(f"does not come to an end: {worker.fiber.point}, {worker.engine.snapshot()}")

    # What holds at every moment.

    @invariant()
    def nothing_below_a_commit_is_lost(self) -> None:
        stored = self.target.rows() if self.workers else Counter()
        letters = {(letter.record.partition, letter.record.offset) for letter in self.letters}
        for partition, position in self.log.committed.items():
            for run in self.log.runs[partition]:
                for offset, value in zip(run.offsets.to_pylist(), run.values.to_pylist(), strict=True):
                    if offset >= position.next_offset:
                        break
                    if value is not None:
                        large = value == LARGE.encode()
                        place = stored if value == GOOD.encode() or large else letters
                        found = (partition, offset) in place or (large and (partition, offset) in letters)
                        assert found, f"{partition} {offset} is committed and nowhere"

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        if self.workers:
            assert [row for row, count in self.target.rows().items() if count > 1] == []

    @invariant()
    def what_is_stored_beyond_a_commit_is_announced(self) -> None:
        if not self.workers:
            return
        covered: dict[Partition, set[int]] = {}
        for partition in PARTITIONS:
            at = self.log.committed.get(partition, Position(0))
            done = max(at.next_offset, self.unannounced.get(partition, -1) + 1)
            claims = at.intents
            covered[partition] = {o for claim in claims for o in range(claim.range.first, claim.range.next_offset)}
            covered[partition] |= set(range(done))
        rows = set(self.target.rows())
        assert [row for row in rows if row[1] not in covered[row[0]]] == []

    @invariant()
    def intents_are_short_and_begin_at_or_below_their_offset(self) -> None:
        for at in self.log.committed.values():
            assert len(pack(StoredPosition(at)).encode()) < MAX_BYTES
            claims = at.intents
            assert not claims or claims[0].range.first <= at.next_offset <= claims[0].range.next_offset

    @invariant()
    def commits_never_go_back(self) -> None:
        last: dict[Partition, int] = {}
        for partition, position in self.log.history:
            assert position.next_offset >= last.get(partition, 0)
            last[partition] = position.next_offset

    @invariant()
    def nothing_foreign_is_committed(self) -> None:
        assert not self.log.trespasses

    def teardown(self) -> None:
        """Everything comes to its end once the trouble is over: every record is there, once."""
        if not self.workers:
            return
        for part in self.target.parts:
            event(f"written in part: {part}")
        try:
            self.settle()
        finally:
            for worker in self.workers:
                worker.kill()

    def settle(self) -> None:
        for number in range(len(self.workers)):
            self.replace(number)
        last = self.workers[0]
        self.put_right(last)
        self.give(PARTITIONS, 0)
        self.until(last, lambda: self.caught_up(last))
        self.nothing_below_a_commit_is_lost()
        self.nothing_is_stored_twice()

    def caught_up(self, worker: Worker) -> bool:
        if worker.engine.commit_near or worker.engine.snapshot().rows:
            return False
        for partition in PARTITIONS:
            at = self.log.committed.get(partition, Position(0))
            runs = self.log.runs[partition]
            if at.intents or (runs and runs[-1].last_offset >= at.next_offset):
                return False
        return True


ExactlyOnceMachine.TestCase.settings = settings(
    max_examples=5000 if LONG else 150,
    stateful_step_count=80 if LONG else 40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if SHRINKS else [])],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestExactlyOnce = ExactlyOnceMachine.TestCase
