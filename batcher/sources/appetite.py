"""How many records to ask a client for that counts records, where bytes are what may not be too many."""

from __future__ import annotations

from batcher.records import Records

FIRST_BYTES = 1024.0
"""What a record is taken to have before one was seen."""


class Appetite:
    """Know about how large a record is by now."""

    def __init__(self) -> None:
        self._record_bytes = FIRST_BYTES

    def records(self, max_records: int, max_bytes: int) -> int:
        """Return how many records have about `max_bytes`: at most `max_records`, at least one."""
        return min(max_records, max(1, int(max_bytes / self._record_bytes)))

    def learn(self, run: Records) -> None:
        """Learn from records that came: larger ones count at once, or they overrun the memory; smaller ones later."""
        record_bytes = run.nbytes / len(run)
        self._record_bytes = max(record_bytes, self._record_bytes + (record_bytes - self._record_bytes) * 0.2)
