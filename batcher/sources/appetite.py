"""How many records to ask a client for that counts records, where the bytes are what has to be bounded."""

from __future__ import annotations

from batcher.records import Records

FIRST_BYTES = 1024.0
"""The assumed size of a record before one was seen."""


class Appetite:
    """Estimate how large a record is."""

    def __init__(self) -> None:
        self._record_bytes = FIRST_BYTES

    def records(self, max_records: int, max_bytes: int) -> int:
        """Return how many records have about `max_bytes`: at most `max_records`, at least one."""
        return min(max_records, max(1, int(max_bytes / self._record_bytes)))

    def learn(self, run: Records) -> None:
        """Learn from records. Larger ones count at once, or they would overrun the memory; smaller ones later."""
        record_bytes = run.nbytes / len(run)
        self._record_bytes = max(record_bytes, self._record_bytes + (record_bytes - self._record_bytes) * 0.2)
