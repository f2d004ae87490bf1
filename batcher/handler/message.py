"""A message as a handler gets it, and what a handler may raise to say what becomes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

NO_HEADERS: Final[dict[str, bytes | None]] = {}


class Message:
    """Hold one record, as it is handed to a handler.

    `value` and `key` are bytes, or None. `headers` are by name, the last of those with the same name. `id` is the
    queue's own name of the message, None where the source has none. `attempt` counts from 1. `timestamp_ms` are
    milliseconds since the epoch, or None. `topic`, `partition` and `offset` say where the source has it.
    """

    # Not a frozen dataclass: one is made for each record, and that would take three times as long.
    __slots__ = ("attempt", "headers", "id", "key", "offset", "partition", "timestamp_ms", "topic", "value")

    def __init__(  # noqa: PLR0917 - a row of columns becomes one, which is fastest by position
        self,
        value: bytes | None,
        key: bytes | None = None,
        topic: str = "",
        partition: int = 0,
        offset: int = 0,
        timestamp_ms: int | None = None,
        headers: dict[str, bytes | None] | None = None,
        id: str | None = None,  # noqa: A002 - the field's own word
        attempt: int = 1,
    ) -> None:
        self.value = value
        self.key = key
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.timestamp_ms = timestamp_ms
        self.headers = NO_HEADERS if headers is None else headers
        self.id = id
        self.attempt = attempt

    @property
    def timestamp(self) -> datetime | None:
        """Return when the message was made, in UTC; None where the source does not say."""
        return None if self.timestamp_ms is None else datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)

    def json(self) -> Any:
        """Return what the value says as JSON; raise Reject where it is no JSON, because it never will be."""
        try:
            return json.loads(self.value or b"")
        except ValueError:
            raise Reject("the value is not JSON", reason="syntax") from None

    def __repr__(self) -> str:  # it is in logs, so there is nothing of the value in it
        return f"<Message {self.topic}[{self.partition}] offset {self.offset}, attempt {self.attempt}>"


class Retry(Exception):
    """Raise it to have a message come again: after `delay` seconds, or after the wait that the settings say."""

    def __init__(self, delay: float | timedelta | None = None) -> None:
        super().__init__(delay)
        self.delay = delay


class Reject(Exception):
    """Raise it to have a message put into the dead-letter queue at once.

    `why` is one line for people, without the value. `reason` is one word for counting.
    """

    def __init__(self, why: str = "the handler rejected it", *, reason: str = "rejected") -> None:
        super().__init__(why)
        self.why = why
        # It becomes a label of metrics.
        self.reason = reason if reason.isidentifier() else "rejected"


class Drop(Exception):
    """Raise it to have a message forgotten. It is counted as skipped."""
