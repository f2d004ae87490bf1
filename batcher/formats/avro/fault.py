"""What can be wrong with the values at one place of a schema."""

from __future__ import annotations

from batcher.formats.fault import RecordFault, fault_at


class AvroFaults:
    """Word the faults of the values at one place of a schema. `path` is empty where the whole record is the value.

    Reading all records at once and reading one alone take the words from here, so that they cannot differ.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.truncated = self.of("truncated", "the message ends inside the value")
        self.long_number = self.of("overflow", "the number has more than 64 bits")

    def of(self, reason: str, what: str) -> RecordFault:
        """Return a fault of this place."""
        return fault_at(self.path, reason, what)
