"""Where a group without a position starts, as people write it. Light: the command line is made from it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, TypeAlias

StartPlace: TypeAlias = Literal["earliest", "latest"] | int
"""A number is a time in epoch milliseconds."""


def start_text(value: str) -> str:
    """Return the text with its time in full; raise ValueError for what is neither a place nor a time."""
    if value in ("earliest", "latest"):
        return value
    try:
        if value.isdecimal():
            moment = datetime.fromtimestamp(int(value) / 1000, UTC)
        else:
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        before_the_epoch = moment.timestamp() < 0
    except (ValueError, OverflowError, OSError):
        raise ValueError("is earliest, latest, a time such as 2026-01-31T12:00:00Z, or epoch milliseconds") from None
    if before_the_epoch:
        raise ValueError("is a time before 1970; write earliest")
    return value if value.isdecimal() else moment.isoformat()


def start_of(text: str) -> StartPlace:
    """Return where to start: a time as epoch milliseconds."""
    match text:
        case "earliest" | "latest":
            return text
        case _ if text.isdecimal():
            return int(text)
        case _:
            return int(datetime.fromisoformat(text).timestamp() * 1000)
