"""The file of an embedded queue: a log in SQLite, shared by every process of this machine that opens it.

    queue      one row: the name, how many lanes each priority has, what is kept for how long
    lane       where each lane begins and ends; offsets below `purged` were removed on a person's word
    message    the log; its key is a *place*: lane and offset in one number, so that a lane is read in one go
    delayed    messages that are not due yet
    cursor     for each group and lane: where to read next, with what is announced (`position_note`), and the owner
    member     who reads for a group, and when it was last heard of
    taken      messages in the hands of `batcher queue pull`

Everything is changed in transactions that begin with the write lock: what was read inside still holds when it is
written. With a write-ahead log and `synchronous=FULL` a transaction that was committed survives the process and the
machine. The file has to be on a local disk, because SQLite's locks are those of one machine.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from batcher.errors import BatcherError, ConfigurationError, SourceLost, Unreachable
from batcher.records import Partition

FORMAT: Final = 1

OFFSET_BITS: Final = 44
"""A place has room for 17 million million messages a lane, and for 500,000 lanes."""

BUSY_S: Final = 5.0
"""How long another process may hold the write lock. A busy publisher has held it for 2.2 s (measured)."""

RETRY_S: Final = (0.0002, 0.002)
"""Between two tries to get the write lock, by chance, so that two that wait do not stay in step."""

PAGE_BYTES: Final = 8192

CHECKPOINT_PAGES: Final = 2000
"""Pages of the write-ahead log before they are copied into the file, by whoever commits then."""

_SCHEMA: Final = """
CREATE TABLE queue (
    format INTEGER NOT NULL, name TEXT NOT NULL, lanes INTEGER NOT NULL, priorities INTEGER NOT NULL,
    retain_ms INTEGER, max_bytes INTEGER);
CREATE TABLE lane (
    number INTEGER PRIMARY KEY, first INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0,
    purged INTEGER NOT NULL DEFAULT 0);
CREATE TABLE message (
    place INTEGER PRIMARY KEY, published_ms INTEGER NOT NULL, id TEXT, key BLOB, value BLOB, type TEXT, headers BLOB);
CREATE UNIQUE INDEX message_id ON message (id) WHERE id IS NOT NULL;
CREATE TABLE delayed (
    number INTEGER PRIMARY KEY AUTOINCREMENT, due_ms INTEGER NOT NULL, lane INTEGER NOT NULL, id TEXT, key BLOB,
    value BLOB, type TEXT, headers BLOB);
CREATE INDEX delayed_due ON delayed (due_ms);
CREATE UNIQUE INDEX delayed_id ON delayed (id) WHERE id IS NOT NULL;
CREATE TABLE cursor (
    readers TEXT NOT NULL, lane INTEGER NOT NULL, next INTEGER NOT NULL, note TEXT NOT NULL DEFAULT '', owner TEXT,
    PRIMARY KEY (readers, lane)) WITHOUT ROWID;
CREATE TABLE member (
    id TEXT PRIMARY KEY, readers TEXT NOT NULL, joined INTEGER NOT NULL, seen_ms INTEGER NOT NULL,
    session_ms INTEGER NOT NULL, process TEXT NOT NULL);
CREATE TABLE taken (
    readers TEXT NOT NULL, place INTEGER NOT NULL, until_ms INTEGER NOT NULL, attempt INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (readers, place)) WITHOUT ROWID;
"""


class QueueShape(NamedTuple):
    """Say what a queue is: its name, the lanes of each priority, the priorities, and what it keeps.

    Messages that every group has read are kept for `retain_ms`, for ever where it is None. `max_bytes` is how large
    the messages may become together; None where only the disk is a bound.
    """

    name: str
    lanes: int = 4
    priorities: int = 1
    retain_ms: int | None = None
    max_bytes: int | None = None

    def lane(self, priority: int, number: int) -> int:
        """Return the number of a lane: those of a higher priority come after those of a lower one."""
        return priority * self.lanes + number

    def priority(self, lane: int) -> int:
        """Return the priority of a lane."""
        return lane // self.lanes

    def partition(self, lane: int) -> Partition:
        """Return a lane as a partition."""
        return Partition(self.name, lane)


class Ends(NamedTuple):
    """Say where a lane begins and ends: the first offset that is there, the next that is given, and `purged`."""

    first: int
    next: int
    purged: int


def place_of(lane: int, offset: int) -> int:
    """Return lane and offset as one number."""
    return lane << OFFSET_BITS | offset


def offset_of(place: int) -> int:
    """Return the offset of a place."""
    return place & ((1 << OFFSET_BITS) - 1)


def lane_of(place: int) -> int:
    """Return the lane of a place."""
    return place >> OFFSET_BITS


class QueueBusy(BatcherError):
    """Report that the write lock was not to be had in time: nothing was changed."""

    exit_code = 75


class QueueFull(QueueBusy):
    """Report that the disk, or the room that the queue may take, is full: nothing was changed."""


@dataclass(frozen=True, slots=True)
class QueueFile:
    """Hold a connection to the file of a queue. For one thread at a time."""

    path: Path
    shape: QueueShape
    db: sqlite3.Connection

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Change the file in one transaction: durable when the context ends, undone when it raises.

        Raise QueueBusy, and SourceLost for a file that is damaged or gone.
        """
        with self.answering():
            self._begin()
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                # SQLite has undone it itself after some failures.
                with suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                raise

    def _begin(self) -> None:
        """Get the write lock.

        SQLite asks every 100 ms after a while. A publisher in a loop leaves the lock alone for some 100 us between two
        transactions, so that others waited for 5 s and more (measured).
        """
        deadline = time.monotonic() + BUSY_S
        self.db.execute("PRAGMA busy_timeout=0")
        try:
            while True:
                try:
                    self.db.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if not _locked(error) or time.monotonic() >= deadline:
                        raise
                    time.sleep(random.uniform(*RETRY_S))  # noqa: S311  # not for cryptography
                else:
                    return
        finally:
            self.db.execute(f"PRAGMA busy_timeout={round(BUSY_S * 1000)}")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn what SQLite raises into an error of ours; see `changing`."""
        try:
            yield
        except sqlite3.Error as error:
            raise refusal(self.path, error) from error

    def ends(self) -> dict[int, Ends]:
        """Return where each lane begins and ends."""
        with self.answering():
            return {row[0]: Ends(*row[1:]) for row in self.db.execute("SELECT number, first, next, purged FROM lane")}

    def used_bytes(self) -> int:
        """Return how large what is in the file is; the file itself keeps the pages of what was removed for later."""
        with self.answering():
            [pages], [free] = (
                self.db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count")
            )
        return int(pages - free) * PAGE_BYTES

    def version(self) -> int:
        """Return a number that changes with every commit of another connection."""
        with self.answering():
            return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Let go of the file. A second call is harmless."""
        self.db.close()


def create(path: Path, shape: QueueShape, *, exist_ok: bool = False) -> QueueFile:
    """Make the file of a queue and open it; with `exist_ok` one that is there is opened as it is.

    Raise ConfigurationError where there is one already, or where it cannot be made.
    """
    if not shape.name:
        raise ConfigurationError("a queue needs a name")
    try:
        db = _connect(path, "rwc")
    except sqlite3.Error as error:
        raise ConfigurationError(f"--queue.path {path}: cannot be made: {error}") from error
    try:
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("BEGIN IMMEDIATE")
        there = bool(_tables(db))
        if not there:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)
            db.execute("INSERT INTO queue VALUES (?, ?, ?, ?, ?, ?)", (FORMAT, *shape))
            numbers = [(number,) for number in range(shape.lanes * shape.priorities)]
            db.executemany("INSERT INTO lane (number) VALUES (?)", numbers)
        db.execute("COMMIT")
    except sqlite3.Error as error:
        raise refusal(path, error) from error
    finally:
        db.close()
    if there and not exist_ok:
        raise ConfigurationError(f"--queue.path {path}: is there already; use it, or name another file")
    return opened(path)


def opened(path: Path) -> QueueFile:
    """Open the file of a queue. Raise ConfigurationError for what is none, Unreachable where it is locked."""
    if not path.is_file():
        raise ConfigurationError(
            f"--queue.path {path}: there is no queue; make it: batcher queue create --queue.path {path}"
        )
    try:
        db = _connect(path, "rw")
        row = db.execute("SELECT * FROM queue").fetchone() if "queue" in _tables(db) else None
    except sqlite3.OperationalError as error:
        if _passes(error):
            raise Unreachable(f"--queue.path {path}: {error}") from error
        raise ConfigurationError(f"--queue.path {path}: cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"--queue.path {path}: is not the file of a queue: {error}") from error
    if row is None:
        db.close()
        raise ConfigurationError(f"--queue.path {path}: is not the file of a queue")
    if row[0] != FORMAT:
        db.close()
        raise ConfigurationError(f"--queue.path {path}: has format {row[0]}, and this version knows {FORMAT}")
    return QueueFile(path, QueueShape(*row[1:]), db)


def refusal(path: Path, error: sqlite3.Error) -> BatcherError:
    """Return an error of SQLite as one of ours."""
    if _full(error):
        return QueueFull(f"--queue.path {path}: the disk is full: nothing was stored; make room, then try again")
    if _locked(error):
        return QueueBusy(f"--queue.path {path}: another process holds the queue: {error}; try again")
    if _passes(error):
        return QueueBusy(f"--queue.path {path}: cannot be written to now: {error}; try again")
    return SourceLost(f"--queue.path {path}: the queue cannot be used: {error}")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        # A source is opened on another thread than it is read on.
        check_same_thread=False,
    )
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return db


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _passes(error: sqlite3.Error) -> bool:
    passing = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in passing
