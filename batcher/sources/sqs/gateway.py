"""SQS as a queue with receipts.

    readers (threads) ── long polls ──► inbox ──► receive          fetch loop
    acknowledge, extend, release ── ten a request, several at a time ──► SQS

What is hidden for us counts against the bound from before the request that may bring it: in the inbox, or held by the
pipeline, or on its way.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Final

import structlog

from batcher.errors import BatcherError, CommitUnconfirmed, ConfigurationError
from batcher.sources.receipts.gateway import QueueInfo, Receipt, Received
from batcher.sources.sqs.connection import MESSAGES_A_REQUEST, Away, Connection, tens, unreachable
from batcher.sources.sqs.message import DEPTHS, depth_of, most_receives_of, received_of
from batcher.sources.sqs.settings import LONGEST_LEASE, Sqs

log = structlog.get_logger(__name__)

INBOX_BYTES: Final = 8 << 20
"""Readers wait while so much is in the inbox: it is not counted in the pipeline's memory."""

GIVE_BACK_S: Final = 5.0
"""How long a release, or a heartbeat, may take."""

SLACK_S: Final = 2.0
"""How long a batch may take to be deleted in ordinary times: as long as the fetch loop waits for one answer."""

UNHURRIED_S: Final = 0.1
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0

_HOURS_12: Final = int(LONGEST_LEASE.total_seconds())


class SqsGateway:
    """Read one queue. `max_wait_s` is how long a batch may wait until it is full: a lease has to be longer.

    Where it is None any lease will do.
    """

    def __init__(
        self,
        options: Sqs,
        *,
        max_wait_s: float | None = None,
        connect: Callable[[Sqs], Connection] = Connection,
    ) -> None:
        self._options = options
        self._connect = connect
        self._max_wait_s = max_wait_s
        self._connection: Connection | None = None
        self._inbox: deque[Received] = deque()
        self._inbox_bytes = 0
        self._taken = 0
        """Messages that are hidden for us, or may be by the end of a request."""
        self._changed = threading.Condition()
        self._receiving = True
        self._closing = False
        self._busy = False
        """The last answers had messages: more than one reader asks."""
        self._failure: BatcherError | None = None
        self._away_since: float | None = None
        self._readers: list[threading.Thread] = []
        self._deleting: dict[Receipt, Future[Mapping[str, str]]] = {}

    @property
    def _at(self) -> Connection:
        assert self._connection is not None, "the gateway is not open"
        return self._connection

    def open(self) -> QueueInfo:
        """Find the queue and begin to read it."""
        options = self._options
        if self._max_wait_s is not None and options.visibility_s < self._max_wait_s + SLACK_S:
            raise ConfigurationError(
                f"--sqs.visibility {options.visibility_s}s is shorter than a batch can take, and its messages come "
                f"again: give it more than --batch.max-wait, {self._max_wait_s:g}s, and {SLACK_S:g}s to delete them"
            )
        if self._connection is None:
            self._connection = self._connect(options)
        try:
            found = self._at.find()
        except Away as error:
            raise unreachable(error) from error
        most = most_receives_of(found)
        log.info(
            "queue_found",
            queue=self._at.name,
            messages=depth_of(found),
            visibility_s=options.visibility_s,
            max_receives=most,
            hint="" if most is None else "after so many deliveries the queue moves a message to its dead-letter queue",
        )
        return QueueInfo(self._at.name, options.visibility_s, options.max_in_flight, most)

    def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> Sequence[Received]:
        """Take from the inbox what fits."""
        self._start_readers()
        with self._changed:
            if not self._inbox and self._failure is None:
                self._changed.wait(timeout_s)
            if self._failure is not None:
                raise self._failure
            found: list[Received] = []
            nbytes = 0
            while self._inbox and len(found) < max_messages and (not found or nbytes < max_bytes):
                found.append(self._inbox.popleft())
                nbytes += len(found[-1].value)
            self._inbox_bytes -= nbytes
            if found:
                self._changed.notify_all()
            return found

    def stop_receiving(self) -> None:
        """Begin no other request; what is under way fills the inbox."""
        with self._changed:
            self._receiving = False

    def start_receiving(self) -> None:
        """Ask again."""
        with self._changed:
            self._receiving = True
            self._changed.notify_all()

    def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Hide messages for another lease, those of the inbox too."""
        with self._changed:
            waiting = [one.receipt for one in self._inbox]
        lapsed = self._hidden(dict.fromkeys([*receipts, *waiting], self._options.visibility_s))
        with self._changed:
            if gone := lapsed.intersection(waiting):
                self._inbox = deque(one for one in self._inbox if one.receipt not in gone)
                self._inbox_bytes = sum(len(one.value) for one in self._inbox)
        self._let_go(len(lapsed))
        return [one for one in receipts if one in lapsed]

    def acknowledge(self, receipts: Sequence[Receipt], timeout_s: float) -> Sequence[Receipt]:
        """Delete messages, ten a request."""
        # What an earlier call sent and got no answer for in time is waited for, not sent again.
        fresh = [one for one in receipts if one not in self._deleting]
        for ten in tens([str(one) for one in fresh]):
            request = self._at.pool.submit(self._at.delete, ten)
            self._deleting.update(dict.fromkeys(ten, request))
        requests = {self._deleting[one] for one in receipts}
        wait(requests, timeout_s)
        lapsed, open_, why = self._deleted(receipts)
        if open_:
            raise CommitUnconfirmed(
                f"{self._at.target}: {open_} of {len(receipts)} messages are not deleted yet: {why}"
            )
        for one in receipts:
            del self._deleting[one]
        self._let_go(len(receipts))
        return lapsed

    def release(self, delays_s: Mapping[Receipt, float]) -> None:
        """Show messages again, after whole seconds."""
        self._let_go(len(delays_s))
        self._hidden({one: min(math.ceil(seconds), _HOURS_12) for one, seconds in delays_s.items()})

    def held_back(self) -> Sequence[Receipt]:
        with self._changed:
            found = [one.receipt for one in self._inbox]
            self._inbox.clear()
            self._inbox_bytes = 0
            return found

    def depth(self) -> int | None:
        """Return what is there, hidden or delayed; it may be some seconds old."""
        try:
            return depth_of(self._at.attributes(*DEPTHS))
        except Away as error:
            raise CommitUnconfirmed(str(error)) from error

    def close(self) -> None:
        """Wait for the readers, which give back what they still get."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for reader in self._readers:
            reader.join()
        self._readers.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Requests.

    def _hidden(self, seconds: Mapping[Receipt, int]) -> set[Receipt]:
        """Change how long messages are hidden, ten a request; return those that are not ours any more."""
        handles = [str(one) for one in seconds]
        requests = [self._at.pool.submit(self._at.hide, {one: seconds[one] for one in ten}) for ten in tens(handles)]
        done, late = wait(requests, GIVE_BACK_S)
        failed: set[Receipt] = set()
        for one in done:
            try:
                failed.update(one.result())
            except Away as error:
                raise CommitUnconfirmed(str(error)) from error
        if late:
            raise CommitUnconfirmed(f"{self._at.target} has not answered {len(late)} of {len(requests)} requests")
        return failed

    def _deleted(self, receipts: Sequence[Receipt]) -> tuple[list[Receipt], int, str]:
        """Return the receipts of which the lease had ended, how many are not deleted yet, and why."""
        lapsed: list[Receipt] = []
        still, why = 0, "no answer in time"
        for one in receipts:
            request = self._deleting[one]
            if not request.done():
                still += 1
                continue
            try:
                failed = request.result()
            except Away as error:
                # Sent again with the next call; if it was done all the same, it counts as one whose lease had ended.
                del self._deleting[one]
                still, why = still + 1, str(error)
            else:
                lapsed += [one] if one in failed else []
        return lapsed, still, why

    def _let_go(self, count: int) -> None:
        """Make room for messages that are not hidden for us any more."""
        with self._changed:
            self._taken -= count
            self._changed.notify_all()

    # Readers.

    def _start_readers(self) -> None:
        if self._readers or self._closing:
            return
        for number in range(self._options.readers):
            thread = threading.Thread(target=self._read, args=(number,), name=f"sqs-reader-{number}", daemon=True)
            self._readers.append(thread)
            thread.start()

    def _read(self, number: int) -> None:
        """Ask for messages until the gateway closes."""
        pause_s = FIRST_PAUSE_S
        while (count := self._reserved(number)) > 0:
            try:
                messages = self._at.poll(count, self._options.wait_s, self._options.visibility_s)
            except Away as error:
                self._came(count, (), many=False)
                self._said_away(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                continue
            except BaseException as error:  # it is raised again in the fetch loop
                with self._changed:
                    self._failure = _known(error)
                    self._changed.notify_all()
                return
            pause_s = FIRST_PAUSE_S
            self._said_back()
            if not messages and self._options.wait_s == 0:
                # Requests that do not wait come back at once.
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, UNHURRIED_S)
            received = [received_of(one) for one in messages]
            if self._closing:
                self._give_back(received)
            else:
                self._came(count, received, many=len(received) * 2 > count)

    def _reserved(self, number: int) -> int:
        """Wait until a reader is to ask, and return for how many; 0 at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._may_ask(number))
            if self._closing:
                return 0
            count = min(MESSAGES_A_REQUEST, self._options.max_in_flight - self._taken)
            self._taken += count
            return count

    def _may_ask(self, number: int) -> bool:
        room = self._taken < self._options.max_in_flight and self._inbox_bytes < INBOX_BYTES
        return self._receiving and room and (number == 0 or self._busy) and self._failure is None

    def _came(self, asked: int, received: Sequence[Received], *, many: bool) -> None:
        with self._changed:
            self._taken -= asked - len(received)
            # One reader waits for an empty queue: each request costs money.
            self._busy = many or (self._busy and bool(received))
            self._inbox.extend(received)
            self._inbox_bytes += sum(len(one.value) for one in received)
            self._changed.notify_all()

    def _give_back(self, received: Sequence[Received]) -> None:
        """Show messages again that came after everything else was released."""
        for ten in tens([str(one.receipt) for one in received]):
            try:
                self._at.hide(dict.fromkeys(ten, 0))
            except (Away, BatcherError) as error:
                log.warning(
                    "not_released", messages=len(ten), error=str(error), hint="they come again with their leases"
                )

    def _said_away(self, error: Away) -> None:
        with self._changed:
            if self._away_since is not None:
                return
            self._away_since = time.monotonic()
        log.warning("queue_unreachable", error=str(error), hint="it is asked again")

    def _said_back(self) -> None:
        with self._changed:
            since, self._away_since = self._away_since, None
        if since is not None:
            log.info("queue_answers", after_s=round(time.monotonic() - since, 1))


def _known(error: BaseException) -> BatcherError:
    return error if isinstance(error, BatcherError) else BatcherError(f"a reader of the queue failed: {error!r}")
