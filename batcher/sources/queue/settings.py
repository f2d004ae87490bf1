"""The section [queue]: the file and the group. Light: the command line is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from batcher.options import Duration, Fault, Flag, Section
from batcher.sources.starts import start_text


class EmbeddedQueue(Section):
    """The embedded queue: a log in one SQLite file on this machine."""

    path: Annotated[str | None, Flag(metavar="FILE")] = None
    """The file of the queue; `batcher queue create` makes it."""
    group: Annotated[str | None, Flag(metavar="NAME")] = None
    """The group that reads; each group gets every message, and its members share them."""
    start: Annotated[str, Flag(metavar="earliest|latest|TIME"), AfterValidator(start_text)] = "earliest"
    """Where a new group starts. TIME: ISO 8601 (UTC unless it says otherwise) or epoch ms."""
    on_gap: Literal["halt", "skip"] = "halt"
    """When the next message to read is gone: stop and name the gap, or log it and read on."""
    session: Annotated[Duration, Field(ge=timedelta(seconds=1)), Flag(metavar="TIME")] = timedelta(seconds=30)
    """A member that was silent for this long loses its lanes. One that has ended loses them at once."""

    def written_to(self) -> Iterator[tuple[str, str]]:
        if self.path:
            yield "path", self.path

    def lacking(self) -> Iterator[Fault]:
        if not self.path:
            yield Fault("path", "which queue? --queue.path FILE, made by `batcher queue create`")
        if not self.group:
            yield Fault("group", "which group? --queue.group NAME")
