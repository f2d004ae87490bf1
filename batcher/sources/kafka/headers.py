"""Ask the client for the headers of messages, in the only way that survives any record.

The name of a header is bytes to a broker and text to the client. For a name that is not UTF-8, `Message.headers` of
confluent-kafka 2.16 sets an exception and still returns a list with a hole in it. Touching the hole crashes the
process. Python notices where the call is made from C, as by `map`, and not everywhere else. The same message must never
be asked twice. So only this module calls that method.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import length_hint
from typing import Any, Final

from confluent_kafka import Message

FAILURES: Final = (SystemError, UnicodeDecodeError)
"""What the client raises, depending on the caller."""

UNREADABLE: Final = (("batcher.headers", b"unreadable: a name is not UTF-8"),)
"""Stands for the headers of a record that the client cannot hand out."""


def headers_of(messages: Sequence[Message]) -> list[Sequence[tuple[str, Any]] | None] | None:
    """Return the pairs of each message, UNREADABLE where the client fails; None when not one has headers."""
    left = iter(messages)
    failed = False
    try:
        # `any` stops at the first; a message without headers answers None without building anything, in 25 ns.
        if not any(map(Message.headers, left)):
            return None
    except FAILURES:
        failed = True
    at = len(messages) - length_hint(left) - 1
    found: list[Any] = [None] * at
    left = iter(messages[at:])
    if failed:
        next(left)
        found.append(UNREADABLE)
    while True:
        try:
            found.extend(map(Message.headers, left))
        except FAILURES:
            # What came before is kept, and the iterator stands after the message that failed.
            found.append(UNREADABLE)
        else:
            return found
