"""The section [sqs]: the queue, and how it is read. Light: the command line is made from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import Field, PrivateAttr

from batcher.options import Duration, Fault, Flag, Section

LONGEST_LEASE: Final = timedelta(hours=12)
LONGEST_POLL: Final = timedelta(seconds=20)


class Sqs(Section):
    """Where messages come from. Credentials are those of the environment, as every tool of AWS finds them."""

    queue: Annotated[str | None, Flag(metavar="URL|NAME")] = None
    """The queue to read; its dead-letter queue is another one, and is read in the same way."""
    region: Annotated[str | None, Flag(metavar="NAME")] = None
    """The region of the queue, where neither its URL nor the environment says it."""
    endpoint: Annotated[str | None, Flag(metavar="URL")] = None
    """Another server that speaks SQS, such as ElasticMQ."""
    visibility: Annotated[Duration, Field(ge=timedelta(seconds=1), le=LONGEST_LEASE), Flag(metavar="TIME")] = timedelta(
        seconds=30
    )
    """How long a message is hidden from other readers; it is extended for as long as the message is held. Whole
    seconds, rounded up."""
    readers: Annotated[int, Field(gt=0, le=64), Flag(metavar="N")] = 4
    """Requests for messages at a time; one while the queue is empty."""
    wait: Annotated[Duration, Field(ge=timedelta(0), le=LONGEST_POLL), Flag(metavar="TIME")] = timedelta(seconds=5)
    """How long a request waits for messages: whole seconds. A stop waits as long."""
    max_in_flight: Annotated[int, Field(gt=0, le=120_000), Flag(metavar="N")] = 1000
    """Messages held at a time, not deleted yet."""

    _worker: int = PrivateAttr(default=0)

    @property
    def worker(self) -> int:
        """Return the number of the worker that reads."""
        return self._worker

    @property
    def visibility_s(self) -> int:
        """Return the lease in whole seconds."""
        return math.ceil(self.visibility.total_seconds())

    @property
    def wait_s(self) -> int:
        """Return how long a request waits, in whole seconds."""
        return math.ceil(self.wait.total_seconds())

    def lacking(self) -> Iterator[Fault]:
        if not self.queue:
            yield Fault("queue", "which queue? --sqs.queue URL, or its name")

    def impossible(self) -> Iterator[Fault]:
        for field, url in (("queue", self.queue), ("endpoint", self.endpoint)):
            if url is not None and "://" in url and "@" in url.partition("://")[2].partition("/")[0]:
                yield Fault(field, "holds an @: keys of AWS go to AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            yield Fault("endpoint", "is a URL, such as http://localhost:9324")

    @classmethod
    def borrowed(cls, given: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the variable that most tools of AWS read; boto3 reads AWS_DEFAULT_REGION by itself."""
        return {} if "region" in given else {"region": "AWS_REGION"}

    def of_worker(self, number: int) -> Self:
        own = self.model_copy()
        own._worker = number  # noqa: SLF001 - of the copy that was just made
        return own
