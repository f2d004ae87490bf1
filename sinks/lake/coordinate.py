"""The columns that say from which record a row was made."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from batcher.records import COORDINATES, Partition

NEEDED: Final = ("_topic", "_partition", "_offset")
"""Without them nobody can say which records a table has."""

USUAL: Final = (*NEEDED, "_timestamp")
"""What a table gets that is made here; other words of `--….coordinates` add to them."""


def chosen(words: Collection[str]) -> tuple[str, ...]:
    """Return the coordinate columns of a table that is made with these words besides the usual ones."""
    return (*USUAL, *(name for name in COORDINATES.names if name.removeprefix("_") in words and name not in USUAL))


def of_table(names: Collection[str]) -> tuple[str, ...]:
    """Return the coordinate columns that a table has, in the order in which they are handed to a sink."""
    return tuple(name for name in COORDINATES.names if name in names)


def topic_of(lake_id: str, topic: str) -> str:
    """Return what `_topic` says of a topic.

    With an id it is a part of it, so that the rows of a topic that was made anew are told from those of the old one,
    which had the same offsets. No topic has a `|` in its name.
    """
    return f"{lake_id}|{topic}" if lake_id else topic


def writer_of(lake_id: str, partition: Partition) -> str:
    """Return the name under which a table keeps the position of a partition."""
    return f"{lake_id + '|' if lake_id else ''}batcher|{partition.topic}|{partition.number}"
