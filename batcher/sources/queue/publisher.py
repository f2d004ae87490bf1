"""Append messages to an embedded queue."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zlib import crc32

from batcher.errors import Unreachable
from batcher.protocols.publisher import Outgoing
from batcher.records import Headers
from batcher.sources.queue.columns import MESSAGE_TYPE, message_id, packed
from batcher.sources.queue.delay import delayed_id
from batcher.sources.queue.file import QueueBusy, QueueFile, QueueFull, QueueShape, place_of
from batcher.sources.queue.retention import Retention

BATCH: Final = 5_000
"""Messages of one transaction: what it costs to make one durable is hardly seen, and readers wait some 50 ms."""

PAUSE_S: Final = 0.05

KNOWN_AT_ONCE: Final = 500
"""Ids asked for in one statement."""

_RESERVED: Final = re.compile(r"\d+-\d+|d\d+")


class Stored(NamedTuple):
    """Hold the ids of the messages that were stored, in their order, and why others were refused."""

    ids: Sequence[str]
    refused: Sequence[str] = ()


@dataclass(slots=True)
class _Draft:
    """Gather the rows of one transaction."""

    shape: QueueShape
    now_ms: int
    turn: int
    nexts: dict[int, int]
    rows: list[tuple[Any, ...]]
    ids: list[str]

    def lane(self, key: bytes | None, priority: int) -> int:
        # The order of messages with one key is kept: they share a lane. Others take turns.
        self.turn += 1
        return self.shape.lane(priority, (self.turn if key is None else crc32(key)) % self.shape.lanes)

    def append(self, lane: int, id_: str | None, message: Outgoing) -> None:
        offset = self.nexts[lane]
        self.nexts[lane] = offset + 1
        kind, rest = typed(message.headers) if message.headers else (None, None)
        self.rows.append((place_of(lane, offset), self.now_ms, id_, message.key, message.value, kind, rest))
        self.ids.append(id_ or message_id(lane, offset))


class QueuePublisher:
    """Append to one queue. For one thread; several publishers, also of several processes, may append to one file."""

    def __init__(self, file: QueueFile, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._turn = int(clock() * 1000)
        self._retention = Retention(file, clock=clock)

    @property
    def target(self) -> str:
        """Return the name of the queue and its file."""
        return f"queue {self._file.shape.name} in {self._file.path}"

    @property
    def batch(self) -> int:
        """Return how many messages are best sent at a time."""
        return BATCH

    def publish(self, messages: Sequence[Outgoing], timeout_s: float) -> Sequence[str]:
        """Append messages (see `Publisher`). All are there together or, where there is no room, none is."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.store(messages).refused
            except QueueFull as error:
                return [str(error)] * len(messages)
            except QueueBusy as error:
                if time.monotonic() >= deadline:
                    raise Unreachable(str(error)) from error
            time.sleep(PAUSE_S)

    def store(self, messages: Sequence[Outgoing], ids: Sequence[str | None] | None = None) -> Stored:
        """Append messages in one transaction; return their ids once they are durable.

        `ids` are those that publishers give, None where they leave it to the queue. An id that is in the queue already
        is taken for the same message, and nothing is appended. Raise QueueFull or QueueBusy: then nothing was.
        """
        given = [None] * len(messages) if ids is None else ids
        faults = (
            [_fault(self._file.shape, *one) for one in zip(messages, given, strict=True)]
            if self._doubtful(messages, ids)
            else []
        )
        refused = [fault for fault in faults if fault]
        if refused:
            fine = [one for one, fault in zip(zip(messages, given, strict=True), faults, strict=True) if not fault]
            messages, given = [message for message, _ in fine], [id_ for _, id_ in fine]
        if not messages:
            return Stored((), refused)
        self._retention.make_room(sum(len(one.value) for one in messages))
        with self._file.changing() as db:
            draft = _Draft(self._file.shape, int(self._clock() * 1000), self._turn, {}, [], [])
            self._write(db, draft, messages, given, _known(db, filter(None, given)) if ids is not None else set())
        self._turn = draft.turn
        return Stored(draft.ids, refused)

    def close(self) -> None:
        """Let go of the file. A second call is harmless."""
        self._file.close()

    def _doubtful(self, messages: Sequence[Outgoing], ids: Sequence[str | None] | None) -> bool:
        # What is the same for all of many messages is seen without a look at each.
        return ids is not None or any(one.priority for one in messages)

    def _write(
        self,
        db: sqlite3.Connection,
        draft: _Draft,
        messages: Sequence[Outgoing],
        ids: Sequence[str | None],
        known: set[str],
    ) -> None:
        draft.nexts.update(db.execute("SELECT number, next FROM lane"))
        before = dict(draft.nexts)
        for message, id_ in zip(messages, ids, strict=True):
            if id_ is not None:
                if id_ in known:
                    draft.ids.append(id_)
                    continue
                known.add(id_)
            lane = draft.lane(message.key, message.priority)
            if message.delay_s > 0:
                draft.ids.append(_delay(db, draft.now_ms, lane, id_, message))
            else:
                draft.append(lane, id_, message)
        db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?)", draft.rows)
        moved = [(next_, lane) for lane, next_ in draft.nexts.items() if next_ != before[lane]]
        db.executemany("UPDATE lane SET next = ? WHERE number = ?", moved)


def typed(headers: Headers) -> tuple[str | None, bytes | None]:
    """Return the type that headers give a message, which has a column of its own, and the others as they are stored."""
    for at, (name, content) in enumerate(headers):
        if name == MESSAGE_TYPE and content is not None:
            try:
                return content.decode(), packed((*headers[:at], *headers[at + 1 :]))
            except UnicodeDecodeError:
                break
    return None, packed(headers)


def _fault(shape: QueueShape, message: Outgoing, id_: str | None) -> str:
    if not 0 <= message.priority < shape.priorities:
        return f"priority {message.priority}: queue {shape.name} has 0 to {shape.priorities - 1}"
    if id_ is not None and (not id_ or _RESERVED.fullmatch(id_)):
        return f"id {id_!r}: ids of this form are the queue's own"
    return ""


def _known(db: sqlite3.Connection, ids: Iterable[str]) -> set[str]:
    wanted = list(ids)
    found: set[str] = set()
    for start in range(0, len(wanted), KNOWN_AT_ONCE):
        part = wanted[start : start + KNOWN_AT_ONCE]
        marks = ", ".join("?" * len(part))
        for table in ("message", "delayed"):
            found.update(id_ for (id_,) in db.execute(f"SELECT id FROM {table} WHERE id IN ({marks})", part))  # noqa: S608
    return found


def _delay(db: sqlite3.Connection, now_ms: int, lane: int, id_: str | None, message: Outgoing) -> str:
    kind, rest = typed(message.headers)
    due_ms = now_ms + round(message.delay_s * 1000)
    number = db.execute(
        "INSERT INTO delayed (due_ms, lane, id, key, value, type, headers) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (due_ms, lane, id_, message.key, message.value, kind, rest),
    ).lastrowid
    assert number is not None
    if id_ is None:
        id_ = delayed_id(number)
        db.execute("UPDATE delayed SET id = ? WHERE number = ?", (id_, number))
    return id_
