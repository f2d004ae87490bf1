"""Which partitions are shown where there are too many for a page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

MOST_PARTITIONS: Final = 200
"""Of more partitions those are shown that are stopped or furthest behind."""


def most_urgent(partitions: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the partitions that are stopped or furthest behind, as many as are shown, in their usual order."""
    found = list(partitions)
    if len(found) > MOST_PARTITIONS:
        found = sorted(found, key=lambda one: (not one["stopped"], -(one["lag"] or 0)))[:MOST_PARTITIONS]
    return sorted(found, key=lambda one: (one["topic"], one["partition"]))
