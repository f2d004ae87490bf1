"""The section [nsq]: the servers, the topic and the channel. Light: the command line is made from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import Field, PrivateAttr

from batcher.options import Duration, Fault, Flag, Names, Section

_NAME: Final = re.compile(r"[.a-zA-Z0-9_-]+(#ephemeral)?")
_LONGEST_NAME: Final = 64

NSQD_PORT: Final = 4150
LOOKUPD_PORT: Final = 4161


def address_of(text: str, port: int) -> tuple[str, int]:
    """Return host and port of `HOST`, `HOST:PORT` or `[IPV6]:PORT`; raise ValueError for anything else."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:/@\s\[\]]+))(?::(\d{1,5}))?", text)
    if found is None or not 0 < int(found[3] or port) < 1 << 16:
        raise ValueError("is HOST:PORT")
    return found[1] or found[2], int(found[3] or port)


class Nsq(Section):
    """What is read from NSQ, and how many messages at a time."""

    topic: Annotated[str | None, Flag(metavar="TOPIC")] = None
    """Topic to read, or to publish to."""
    channel: Annotated[str | None, Flag(metavar="CHANNEL")] = None
    """Channel to read: all its readers share the messages. One that ends in #ephemeral goes with its last reader."""
    nsqd: Annotated[Names, Flag(metavar="HOST:PORT[,…]")] = ()
    """Servers to read from; the port is 4150 unless it is given."""
    lookupd: Annotated[Names, Flag(metavar="HOST:PORT[,…]")] = ()
    """Instances of nsqlookupd that know the servers of the topic (HTTP); the port is 4161 unless it is given."""
    msg_timeout: Annotated[Duration, Field(ge=timedelta(seconds=1)), Flag(metavar="TIME")] = timedelta(seconds=60)
    """How long a message is ours before it has to be touched, which is done three times in that time."""
    max_in_flight: Annotated[int, Field(gt=0), Flag(metavar="N")] = 2500
    """Messages that may be in flight, over all servers; a batch is no larger."""
    tls: bool = False
    """Encrypt the connections to nsqd, and check its certificate."""
    ca: Annotated[str | None, Flag(metavar="FILE")] = None
    """Certificates to trust with --nsq.tls, PEM, in place of the system's."""

    _worker: int = PrivateAttr(default=0)

    @property
    def worker(self) -> int:
        """Return the number of the worker that reads."""
        return self._worker

    def lacking(self) -> Iterator[Fault]:
        if not self.topic:
            yield Fault("topic", "which topic? --nsq.topic TOPIC")
        if not (self.nsqd or self.lookupd):
            yield Fault("nsqd", "which servers? --nsq.nsqd HOST:PORT or --nsq.lookupd HOST:PORT")

    def impossible(self) -> Iterator[Fault]:
        for field, name in (("topic", self.topic), ("channel", self.channel)):
            if name is not None and not (_NAME.fullmatch(name) and len(name) <= _LONGEST_NAME):
                yield Fault(field, "is a name of at most 64 letters, digits and . _ -, perhaps with #ephemeral behind")
        for field, named, port in (("nsqd", self.nsqd, NSQD_PORT), ("lookupd", self.lookupd, LOOKUPD_PORT)):
            for one in named:
                try:
                    address_of(one, port)
                except ValueError as error:
                    yield Fault(field, str(error))
        if self.ca and not self.tls:
            yield Fault("ca", "needs --nsq.tls")

    def of_worker(self, number: int) -> Self:
        own = self.model_copy()
        own._worker = number  # noqa: SLF001 - of the copy that was just made
        return own
