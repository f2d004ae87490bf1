"""Send messages to SQS, for `batcher produce --to sqs`."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from typing import Any, Final

from batcher.errors import Unreachable
from batcher.protocols.publisher import Outgoing
from batcher.sources.sqs.connection import MESSAGES_A_REQUEST, REQUESTS, Away, Connection, unreachable
from batcher.sources.sqs.settings import Sqs

REQUEST_BYTES: Final = 250_000
"""What the messages of one request may have together; AWS takes 256 KB, in some regions more."""

LONGEST_DELAY_S: Final = 900

GROUP: Final = "batcher"
"""The group of messages without a key, where a queue keeps the order of its groups."""


class SqsPublisher:
    """Send to one queue. Raise ConfigurationError, or Unreachable, where it is not there."""

    def __init__(self, options: Sqs, *, create: bool) -> None:
        self._connection = Connection(options)
        self._ordered = self._connection.name.endswith(".fifo")
        try:
            if create:
                self._connection.create()
            self._connection.find()
        except Away as error:
            raise unreachable(error) from error

    @property
    def target(self) -> str:
        return self._connection.target

    @property
    def batch(self) -> int:
        # The order of a group is that in which its requests are answered, so there is one at a time.
        return MESSAGES_A_REQUEST if self._ordered else MESSAGES_A_REQUEST * REQUESTS

    def publish(self, messages: Sequence[Outgoing], timeout_s: float) -> Sequence[str]:
        """Send in parts that fit a request, all at once."""
        refusals: list[str] = []
        entries: list[dict[str, Any]] = []
        for message in messages:
            reason = self._refusal(message)
            if reason:
                refusals.append(reason)
            else:
                entries.append(self._entry(message))
        requests = [self._connection.pool.submit(self._connection.send, part) for part in _parts(entries)]
        done, late = wait(requests, timeout_s)
        if late:
            raise Unreachable(f"{self.target} has not answered within {timeout_s:g} s")
        for one in done:
            try:
                refusals += one.result().values()
            except Away as error:
                raise unreachable(error) from error
        return refusals

    def close(self) -> None:
        self._connection.close()

    def _refusal(self, message: Outgoing) -> str:
        """Return why a message cannot be sent; empty where it can."""
        if message.priority:
            return "SQS knows no priorities"
        if message.delay_s > LONGEST_DELAY_S:
            return f"SQS delays a message by {LONGEST_DELAY_S} s at most"
        if message.delay_s and self._ordered:
            return "a queue that keeps an order delays no single message"
        try:
            text = message.value.decode()
        except UnicodeDecodeError:
            return "SQS takes text only, and this is not UTF-8"
        return "" if text else "SQS takes no empty message"

    def _entry(self, message: Outgoing) -> dict[str, Any]:
        entry: dict[str, Any] = {"MessageBody": message.value.decode()}
        if message.delay_s:
            entry["DelaySeconds"] = math.ceil(message.delay_s)
        if message.key is not None or self._ordered:
            entry["MessageGroupId"] = (message.key or b"").decode(errors="replace") or GROUP
        if self._ordered:
            entry["MessageDeduplicationId"] = uuid.uuid4().hex
        # A header without a value has no place: SQS takes no empty attribute.
        attributes = {name: _attribute(value) for name, value in message.headers if value}
        if attributes:
            entry["MessageAttributes"] = attributes
        return entry


def _attribute(value: bytes) -> Mapping[str, Any]:
    try:
        return {"DataType": "String", "StringValue": value.decode()}
    except UnicodeDecodeError:
        return {"DataType": "Binary", "BinaryValue": value}


def _parts(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    nbytes = 0
    for entry in entries:
        size = len(entry["MessageBody"].encode())
        if part and (len(part) == MESSAGES_A_REQUEST or nbytes + size > REQUEST_BYTES):
            yield part
            part, nbytes = [], 0
        part.append(entry)
        nbytes += size
    if part:
        yield part
