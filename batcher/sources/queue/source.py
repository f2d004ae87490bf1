"""Read an embedded queue as a member of a group: lanes are partitions, and the ledger is kept in the file.

It is long because a source is one object: what it may deliver depends on its lanes, and its lanes on the others.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import structlog

from batcher.errors import BatcherError, CommitRefused, CommitUnconfirmed, ConfigurationError, Unreachable
from batcher.protocols import PartitionListener, SourceInfo
from batcher.records import Partition, Position, Records
from batcher.sources.appetite import Appetite
from batcher.sources.queue import file as queue_file
from batcher.sources.queue.columns import COLUMNS, Row, to_records
from batcher.sources.queue.delay import Delays
from batcher.sources.queue.file import Ends, QueueBusy, QueueFile, place_of
from batcher.sources.queue.membership import Membership, View
from batcher.sources.queue.places import begin, inside
from batcher.sources.queue.retention import Retention
from batcher.sources.starts import StartPlace

log = structlog.get_logger(__name__)

TEND_S: Final = 0.2
"""Between two looks at the members of the group: how late one is missed, or noticed."""

POLL_S: Final = 0.01
"""Between two looks for messages; one costs some microseconds."""

DRAIN_SHARE: Final = 2 / 3
"""Of a session: how long lanes are held back for the batch in flight, before others count us as dead."""

CLOSE_S: Final = 10.0
"""How long to try to leave the group; afterwards the others notice that this process has ended."""


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """Say what to read and how: see the section [queue]. `clock` is in seconds since the epoch."""

    path: Path
    group: str
    start: StartPlace = "earliest"
    on_gap: Literal["halt", "skip"] = "halt"
    session_s: float = 30.0
    until_eof: bool = False
    clock: Callable[[], float] = field(default=time.time, compare=False)


class QueueSource:
    """Read one queue for one group."""

    def __init__(self, options: QueueOptions) -> None:
        self._options = options
        self._file: QueueFile | None = None
        self._members: Membership | None = None
        self._listener: PartitionListener | None = None
        self._delays: Delays | None = None
        self._retention: Retention | None = None
        self._appetite = Appetite()
        self._positions: dict[int, int] = {}
        """The next offset to deliver of each lane that the listener took."""
        self._untaken: set[int] = set()
        self._paused: set[int] = set()
        self._ends: Mapping[int, Ends] = {}
        self._stop_at: Mapping[int, int] = {}
        self._lag: dict[Partition, int] = {}
        self._committed: dict[int, int] = {}
        self._version = -1
        self._tended_at = float("-inf")
        self._turn = 0
        self._assigned_once = False
        self._ended = False
        self._behind: Mapping[int, int] = {}
        self._behind_since = 0.0
        self._busy_logged = False
        self._failure: BaseException | None = None

    def open(self, listener: PartitionListener) -> SourceInfo:
        """Open the file (see `Source`). Raise ConfigurationError or Unreachable."""
        options = self._options
        file = queue_file.opened(options.path)
        try:
            _require_no_pull(file, options.group)
            delays = Delays(file, clock=options.clock)
            delays.move_due()
            begin(file, options.group, options.start)
            ends = file.ends()
        except QueueBusy as error:
            file.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            file.close()
            raise
        self._listener, self._file, self._delays = listener, file, delays
        self._members = Membership(file, options.group, options.session_s, clock=options.clock)
        self._retention = Retention(file, clock=options.clock)
        self._ends, self._stop_at = ends, {lane: one.next for lane, one in ends.items()}
        return SourceInfo(
            keeps_intents=True,
            reason="",
            capabilities=frozenset({"lag", "offer"}),
            topics=(file.shape.name,),
            drain_timeout_s=options.session_s * DRAIN_SHARE,
        )

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        """Return messages, those of a higher priority first (see `Source`)."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._fetch(max_records, max_bytes, time.monotonic() + timeout_s)
        except BaseException as error:
            self._failure = error
            raise

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= self._lanes(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= self._lanes(partitions)

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Store positions with their intents in one transaction, those of our lanes only (see `Source`)."""
        del timeout_s  # the lock is waited for as long as any other process may hold it
        ours = (
            {}
            if self._file is None
            else {
                partition.number: position
                for partition, position in positions.items()
                if partition in self._owned() and partition.number in self._positions
            }
        )
        refused = {one: "it is not ours" for one in positions if one.number not in ours or one not in self._owned()}
        if ours:
            assert self._members is not None
            try:
                foreign = self._members.store(ours)
            except QueueBusy as error:
                raise CommitUnconfirmed(str(error)) from error
            refused |= {self._name(lane): "another member has it by now" for lane in foreign}
            for lane in ours.keys() - foreign:
                self._committed[lane] = ours[lane].next_offset
        if refused:
            raise CommitRefused(refused)

    @property
    def reached(self) -> Mapping[Partition, int]:
        """Return the next offset to deliver of each lane: what was removed behind it is passed in the same step."""
        return {self._name(lane): offset for lane, offset in self._positions.items()}

    @property
    def exhausted(self) -> bool:
        """Return whether what was there at the start was delivered by us, and committed by the other members.

        It is not waited for members that live and have committed nothing for the time of a session.
        """
        if self._ended or not self._options.until_eof or not self._assigned_once or self._members is None:
            return self._ended
        if any(offset < self._stop_at[lane] for lane, offset in self._positions.items()):
            return False
        others = self._stop_at.keys() - self._positions.keys() - self._untaken
        self._ended = not others or self._finished(self._members.look(), others)
        return self._ended

    def offer(self, partitions: Collection[Partition]) -> None:
        """Give lanes to the listener again that it did not take."""
        lanes = self._lanes(partitions) & self._untaken
        if lanes and self._members is not None:
            self._assign(self._members.stored(lanes))

    def ignore(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing more from these lanes; others still do not get them."""
        for lane in self._lanes(partitions) & self._positions.keys():
            del self._positions[lane]
            self._untaken.add(lane)

    def lag(self) -> Mapping[Partition, int]:
        """Return the messages of our lanes that are not committed."""
        return dict(self._lag)

    def close(self) -> None:
        """Leave the group (see `Source`)."""
        file, members = self._file, self._members
        if file is None or members is None:
            return
        try:
            self._give_up(list(self._positions), lost=self._failure is not None)
        finally:
            self._file = None
            self._untaken.clear()
            try:
                _left(members)
            finally:
                file.close()

    def _finished(self, view: View, others: Collection[int]) -> bool:
        """Return whether the lanes of others are committed up to the end, or their owners make no progress."""
        behind = {lane: view.next_offsets[lane] for lane in others if view.next_offsets[lane] < self._stop_at[lane]}
        now = time.monotonic()
        if behind != self._behind:
            self._behind, self._behind_since = behind, now
        idle = now - self._behind_since >= self._options.session_s
        return not behind or (idle and all(view.owners[lane] for lane in behind))

    def _fetch(self, max_records: int, max_bytes: int, deadline: float) -> list[Records]:
        while True:
            self._tend()
            runs = self._read(max_records, max_bytes)
            left = deadline - time.monotonic()
            if runs or left <= 0:
                return runs
            time.sleep(min(POLL_S, left))

    def _tend(self) -> None:
        """Keep the membership, the delayed messages and the retention up to date."""
        assert self._delays is not None
        assert self._retention is not None
        if self._delays.move_due_soon():
            self._version = -1
        now = time.monotonic()
        if now - self._tended_at < TEND_S:
            return
        self._tended_at = now
        try:
            self._follow()
            self._busy_logged = False
        except QueueBusy as error:
            # As long as the session lasts nothing is lost by it, and afterwards commits are refused.
            if not self._busy_logged:
                log.warning("queue_busy", reason=str(error))
            self._busy_logged = True
        self._retention.trim_soon()
        self._count_lag()

    def _follow(self) -> None:
        """Give up the lanes that others have or should have, and take those that are ours to take."""
        members = self._open_members
        view = members.look()
        held = self._positions.keys() | self._untaken
        self._forget_lost(held - members.mine(view))
        if self._ended:
            # What is held is about to be committed, and nothing more would be read.
            members.refresh(view)
            return
        if surplus := members.surplus(view):
            self._give_up([lane for lane in surplus if lane in self._positions], lost=False)
            self._untaken.difference_update(surplus)
            members.release(surplus)
            view = members.look()
        if members.due(view):
            self._assign(members.take())
        elif not self._assigned_once:
            self._assign({})

    def _forget_lost(self, lanes: Collection[int]) -> None:
        self._untaken.difference_update(lanes)
        self._give_up([lane for lane in lanes if lane in self._positions], lost=True)

    def _assign(self, stored: Mapping[int, tuple[int, str]]) -> None:
        if not stored and self._assigned_once:
            return
        assert self._listener is not None
        self._refresh()
        found = {
            lane: inside(
                self._name(lane), self._open_members.position(lane, one), self._ends[lane], self._options.on_gap
            )
            for lane, one in stored.items()
        }
        for lane, position in found.items():
            self._positions[lane] = self._committed[lane] = position.next_offset
            self._paused.discard(lane)
            self._untaken.discard(lane)
        self._assigned_once = True
        refused = self._listener.on_assigned({self._name(lane): position for lane, position in found.items()})
        for lane in self._lanes(refused):
            del self._positions[lane]
            self._untaken.add(lane)

    def _give_up(self, lanes: Collection[int], *, lost: bool) -> None:
        if not lanes:
            return
        assert self._listener is not None
        partitions = [self._name(lane) for lane in lanes]
        try:
            (self._listener.on_lost if lost else self._listener.on_revoked)(partitions)
        finally:
            for lane in lanes:
                self._positions.pop(lane, None)
                self._committed.pop(lane, None)

    def _read(self, max_records: int, max_bytes: int) -> list[Records]:
        self._refresh()
        found: list[Records] = []
        for lane in self._order():
            if max_records <= 0 or (max_bytes <= 0 and found):
                break
            end = self._ends[lane].next
            if lane in self._paused or self._positions[lane] >= end:
                continue
            run = self._run(lane, end, self._appetite.records(max_records, max_bytes))
            if run is not None:
                self._turn = lane + 1
                self._appetite.learn(run)
                found.append(run)
                max_records -= len(run)
                max_bytes -= run.nbytes
        return found

    def _order(self) -> list[int]:
        """Return the lanes, those of a higher priority first, and within a priority another one first each time."""
        shape = self._open_file.shape
        return sorted(self._positions, key=lambda lane: (-shape.priority(lane), (lane - self._turn) % shape.lanes))

    def _run(self, lane: int, end: int, most: int) -> Records | None:
        file, first = self._open_file, self._positions[lane]
        rows: list[Row] = []
        collecting = gc.isenabled()
        # The rows are in no cycle, and the collector would visit each of them.
        gc.disable()
        try:
            with file.answering():
                rows = file.db.execute(
                    f"SELECT {COLUMNS} FROM message WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",  # noqa: S608
                    (place_of(lane, first), place_of(lane, end), most),
                ).fetchall()
            run = to_records(self._name(lane), rows) if rows else None
        finally:
            del rows
            if collecting:
                gc.enable()
        # With fewer than asked for there is nothing more below the end: what is missing was removed.
        complete = run is None or len(run) < most
        self._positions[lane] = end if complete or run is None else run.next_offset
        return run

    def _refresh(self) -> None:
        """Learn where the lanes end, when something has changed."""
        file = self._open_file
        version = file.version()
        if version != self._version:
            self._ends, self._version = file.ends(), version

    def _count_lag(self) -> None:
        self._lag = {
            self._name(lane): max(0, self._ends[lane].next - offset) for lane, offset in self._committed.items()
        }

    def _owned(self) -> set[Partition]:
        return {self._name(lane) for lane in self._positions}

    def _name(self, lane: int) -> Partition:
        return self._open_file.shape.partition(lane)

    def _lanes(self, partitions: Collection[Partition]) -> set[int]:
        name = "" if self._file is None else self._file.shape.name
        return {one.number for one in partitions if one.topic == name}

    @property
    def _open_file(self) -> QueueFile:
        assert self._file is not None, "the source is not open"
        return self._file

    @property
    def _open_members(self) -> Membership:
        assert self._members is not None, "the source is not open"
        return self._members


def _require_no_pull(file: QueueFile, readers: str) -> None:
    with file.answering():
        found = file.db.execute("SELECT 1 FROM taken WHERE readers = ? LIMIT 1", (readers,)).fetchone()
    if found:
        raise ConfigurationError(
            f"--queue.group {readers}: `batcher queue pull` has messages of this group in hand; name another group"
        )


def _left(members: Membership) -> None:
    deadline = time.monotonic() + CLOSE_S
    while True:
        try:
            members.leave()
        except BatcherError as error:
            if not isinstance(error, QueueBusy) or time.monotonic() > deadline:
                log.warning("queue_not_left", reason=str(error), hint="the others notice when this process has ended")
                return
            with suppress(QueueBusy):
                time.sleep(POLL_S)
        else:
            return
