"""The section [kafka]: the brokers, the subscription and the group. Light: the command line is made from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr

from batcher.options import Fault, Flag, Names, Pairs, Section
from batcher.sources.starts import nothing_between, place_text


class Kafka(Section):
    """Where records come from."""

    brokers: Annotated[str | None, Flag("-b", "HOST:PORT[,…]")] = None
    """Brokers to ask first."""
    topics: Annotated[Names, Flag("-t", "TOPIC[,…]|^REGEX")] = ()
    """Topics to read; may be repeated. A name that starts with ^ is a regular expression."""
    group: Annotated[str | None, Flag("-g", "NAME")] = None
    """Consumer group; its committed offsets are the only state."""
    start: Annotated[str, Flag(metavar="earliest|latest|TIME|PARTITION=OFFSET[,…]"), AfterValidator(place_text)] = (
        "earliest"
    )
    """Where to start where the group has no offset yet. TIME: ISO 8601 (UTC unless it says otherwise), epoch ms, or how
    long ago, such as 2h. TOPIC:PARTITION=OFFSET where there are several topics."""
    end: Annotated[
        str | None, Flag(metavar="latest|TIME|PARTITION=OFFSET[,…]"), AfterValidator(lambda v: v and place_text(v))
    ] = None
    """Load what is between --kafka.start and here, then stop; for a group of its own, beside the one that is named."""
    options: Annotated[Pairs, Flag("-X", "PROPERTY=VALUE")] = Field(default_factory=dict)
    """Any other librdkafka property; may be repeated. `-X list` and `-X dump` show them."""
    instance: Annotated[str | None, Flag(metavar="ID")] = None
    """Static membership: after a restart the same ID gets its partitions back at once (classic group protocols).
    With --workers, worker I has ID-I."""
    allow_insecure: bool = False
    """Permit properties that switch the check of certificates off."""
    on_gap: Literal["halt", "skip"] = "halt"
    """When the next record to read is gone from the log: stop and name the gap, or log it and read on."""

    def lacking(self) -> Iterator[Fault]:
        if not self.brokers:
            yield Fault("brokers", "which brokers? -b HOST:PORT")
        if not self.topics:
            yield Fault("topics", "which topics? -t TOPIC")
        if not self.group:
            yield Fault("group", "which consumer group? -g NAME")

    def impossible(self) -> Iterator[Fault]:
        if "@" in (self.brokers or ""):
            yield Fault(
                "brokers",
                "holds an @: brokers are HOST:PORT; name and password go to BATCHER_KAFKA_OPTIONS_FILE, as "
                "sasl.username=… and sasl.password=…",
            )
        if self.end is not None and nothing_between(self.start, self.end):
            yield Fault("end", f"nothing is between --kafka.start {self.start} and it")

    def unshared(self) -> Iterator[Fault]:
        if self.end is not None:
            yield Fault("end", "is for one process: no worker knows what the others have still to load")

    _worker: int = PrivateAttr(default=0)
    _beside: str = PrivateAttr(default="")

    @property
    def beside(self) -> str:
        """Return the group that was named where this run has an end, and so a group of its own; else nothing."""
        return self._beside

    def as_run(self) -> Self:
        """Return the section with the group that reads: with an end it is one of its own.

        The same topics, start and end have the same group, so that a run that was cut short goes on where it was.
        """
        if self.end is None or not self.group or self._beside:
            return self
        asked = "\0".join((*self.topics, self.start, self.end))
        own = self.model_copy(
            update={"group": f"{self.group}.backfill-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"}
        )
        own._beside = self.group  # noqa: SLF001 - of the copy that was just made
        return own

    @property
    def worker(self) -> int:
        """Return the number of the worker that reads."""
        return self._worker

    def of_worker(self, number: int) -> Self:
        instance = None if self.instance is None else f"{self.instance}-{number}"
        own = self.model_copy(update={"instance": instance})
        own._worker = number  # noqa: SLF001 - of the copy that was just made
        return own
