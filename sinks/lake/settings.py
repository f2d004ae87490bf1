"""The options that all lake tables have. Light: the command line is made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Final

from pydantic import BeforeValidator

from batcher.options import Fault, Flag, Names, Section
from sinks.parquet.directory import separated

Transforms = Annotated[tuple[str, ...], BeforeValidator(separated)]
"""What a table is partitioned by, comma separated in text; commas in parentheses belong to a function."""

MORE: Final = ("attempt", "headers", "key", "message_id", "value")
"""The words for the coordinate columns that a new table does not have by itself."""


class LakeSection(Section):
    """Hold what the sections of lake tables share. A subclass adds where the table is."""

    partition_by: Annotated[Transforms, Flag(metavar="COLUMN|FUNCTION(COLUMN)[ as NAME][,…]")] = ()
    """A new table's partitions: columns; year, month, day, hour, bucket(id, 16), truncate(name, 3)."""
    coordinates: Annotated[Names, Flag(metavar="default|key,headers,message_id,attempt,value")] = ("default",)
    """A new table has _topic, _partition, _offset and _timestamp; these words add _key, _headers and so on."""
    lake_id: Annotated[str, Flag(metavar="NAME")] = ""
    """Where a topic was made anew: a name that positions and _topic have before the topic, as NAME|topic."""

    # A commit costs the same for ten rows and for a million, and every one stays in the table's history.
    implied: ClassVar[Mapping[str, str]] = {"batch.merge_partitions": "true", "batch.max_wait": "10s"}

    def impossible(self) -> Iterator[Fault]:
        if "|" in self.lake_id or self.lake_id != self.lake_id.strip():
            yield Fault("lake_id", "is a plain name, without | and without spaces around it")
        for word in self.coordinates:
            if word not in ("default", *MORE):
                yield Fault("coordinates", f"{word!r} is none of default, {', '.join(MORE)}")
