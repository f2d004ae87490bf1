"""What can be wrong with a record, in the words of its rejection."""

from __future__ import annotations

from typing import NamedTuple


class RecordFault(NamedTuple):
    """Say why a record is refused: `reason`, `message` and `path` of its rejection."""

    reason: str
    message: str
    path: str | None


class Faulty(Exception):
    """Carry a fault from where one value is read to where its record is refused."""

    def __init__(self, fault: RecordFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def fault_at(path: str, reason: str, what: str) -> RecordFault:
    """Return a fault of the values at one place of a schema; without a path, of the whole record."""
    return RecordFault(reason, f"field {path}: {what}" if path else what, path or None)
