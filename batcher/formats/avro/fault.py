"""What can be wrong with a record, in the words of its rejection."""

from __future__ import annotations

from typing import NamedTuple


class AvroFault(NamedTuple):
    """Say why a record is refused: `reason`, `message` and `path` of its rejection."""

    reason: str
    message: str
    path: str | None


class Faulty(Exception):
    """Carry a fault from where one record is read to where it is refused."""

    def __init__(self, fault: AvroFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class AvroFaults:
    """Word the faults of the values at one place of a schema. `path` is empty where the whole record is the value.

    Reading all records at once and reading one alone take the words from here, so that they cannot differ.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.truncated = self.of("truncated", "the message ends inside the value")
        self.long_number = self.of("overflow", "the number has more than 64 bits")

    def of(self, reason: str, what: str) -> AvroFault:
        """Return a fault of this place."""
        return AvroFault(reason, f"field {self.path}: {what}" if self.path else what, self.path or None)
