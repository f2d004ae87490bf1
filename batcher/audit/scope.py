"""Which offsets are checked: those the group has committed, that the log still has, and that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from batcher.errors import ConfigurationError, SettingRefused
from batcher.records import Partition, Position

Bound = int | datetime
"""Where to begin or to end: an offset, or the first record of a time or later."""


class Places(Protocol):
    """Say where a log begins and ends, and what a group has committed."""

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        """Return the positions of the group; partitions without a commit are not in it."""

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of the log and the one after the last that may be read."""

    def at_time(self, partition: Partition, time_ms: int) -> int | None:
        """Return the first offset whose record is of this time or later; None where no record is that young."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Say what is checked of a partition: from `first` to `next_offset`, the latter not included."""

    partition: Partition
    first: int
    next_offset: int
    log_first: int
    log_next: int
    committed: int | None
    expired: int = 0
    """Offsets that the log lost before the group had read them."""
    cut: int = 0
    """Offsets that the group has read and that lie after the log's end: the topic was cut or made anew."""

    @property
    def behind(self) -> int | None:
        """Return how far the group is from the log's end; None where it has no commit."""
        return None if self.committed is None else max(0, self.log_next - self.committed)


def bound_of(flag: str, text: str) -> Bound:
    """Return what `--from` or `--to` says; raise SettingRefused."""
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingRefused(f"{flag}: is an offset, or a time such as 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def scopes_of(
    places: Places, partitions: Sequence[Partition], start: Bound | None = None, end: Bound | None = None
) -> list[Scope]:
    """Return what has to be checked of each partition.

    By default that is all that the log still has and the group has committed. Nothing after the commit is ever checked,
    because nothing has been promised about it. Without a commit `end` decides, and without that nothing is checked.
    Raise ConfigurationError when that is so for every partition.
    """
    committed = places.committed(partitions)
    if not committed and end is None:
        raise ConfigurationError(
            "the group has no committed offset for any of these partitions: check -g and -t, or say with --to how far "
            "the target should have come"
        )
    return [_scope(places, partition, committed.get(partition), start, end) for partition in partitions]


def _scope(
    places: Places, partition: Partition, committed: Position | None, start: Bound | None, end: Bound | None
) -> Scope:
    low, high = places.watermarks(partition)
    at = None if committed is None else committed.next_offset
    promised = low if at is None and end is None else high if at is None else min(at, high)
    asked = promised if end is None else offset_of(places, partition, end, promised)
    first = max(low, low if start is None else offset_of(places, partition, start, high))
    return Scope(
        partition,
        first,
        max(first, min(asked, promised)),
        low,
        high,
        at,
        # A caller that asks for a part of the log knows where it begins.
        expired=max(0, low - at) if at is not None and start is None and end is None else 0,
        cut=max(0, at - high) if at is not None else 0,
    )


def offset_of(places: Places, partition: Partition, bound: Bound, otherwise: int) -> int:
    """Return the offset of a bound; `otherwise` for a time that no record of the partition is as young as."""
    if isinstance(bound, int):
        return bound
    found = places.at_time(partition, int(bound.timestamp() * 1000))
    return otherwise if found is None else found
