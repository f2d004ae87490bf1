"""NSQ as a queue with receipts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, cast

from batcher.errors import CommitUnconfirmed, ConfigurationError
from batcher.sources.nsq.client import NsqClient
from batcher.sources.nsq.dialogue import tls_of
from batcher.sources.nsq.directory import depth_of
from batcher.sources.nsq.inbox import Handle
from batcher.sources.nsq.link import Subscription
from batcher.sources.nsq.settings import LOOKUPD_PORT, NSQD_PORT, Nsq, address_of
from batcher.sources.nsq.wire import finish, requeue, touch
from batcher.sources.receipts.gateway import QueueInfo, Receipt, Received

RELEASE_TIMEOUT_S: Final = 5.0
STATS_TIMEOUT_S: Final = 1.0


class NsqGateway:
    """Read one channel of one topic.

    nsqd confirms none of FIN, REQ and TOUCH; it complains about those that came too late. So what is returned as not
    ours any more may be of an earlier call, and of the last moment only `close` learns that nsqd has read it.
    `longest_batch_s` is how long a batch may wait before it is written.
    """

    def __init__(self, client: NsqClient, what: Subscription, *, max_in_flight: int, longest_batch_s: float) -> None:
        self._client = client
        self._what = what
        self._max_in_flight = max_in_flight
        self._longest_batch_s = longest_batch_s
        self._counts = False
        """The servers have said how many messages they have."""

    def open(self) -> QueueInfo:
        """Connect and subscribe: NSQ makes topic and channel where they are not there.

        Raise ConfigurationError also where nsqd takes messages back sooner than a batch is full.
        """
        self._client.connect()
        links = self._client.links
        for link in links:
            longest_s = link.terms.max_msg_timeout_s
            if longest_s <= self._longest_batch_s:
                self._client.close()
                raise ConfigurationError(
                    f"nsqd at {link.name} takes a message back {longest_s:.0f} s after its delivery, and a batch may "
                    f"wait {self._longest_batch_s:.0f} s: lower batch.max_wait, or start nsqd with a longer "
                    "-max-msg-timeout"
                )
        return QueueInfo(
            name=self._what.topic,
            lease_s=min(link.terms.msg_timeout_s for link in links),
            max_held=min(self._max_in_flight, sum(link.terms.max_ready for link in links)),
        )

    def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> Sequence[Received]:
        """Return what the servers have sent."""
        return self._client.take(max_messages, max_bytes, timeout_s)

    def stop_receiving(self) -> None:
        """Set RDY to 0; what has come in is touched until it is received."""
        self._client.stop(stopped=True)

    def start_receiving(self) -> None:
        """Share out RDY again."""
        self._client.stop(stopped=False)

    def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Send TOUCH for each; nsqd takes a message back all the same when its -max-msg-timeout is over."""
        return [*self._client.tell(_handles(receipts), touch, final=False), *self._client.failed()]

    def acknowledge(self, receipts: Sequence[Receipt], timeout_s: float) -> Sequence[Receipt]:
        """Send FIN for each, and see that they are written."""
        lapsed = self._client.tell(_handles(receipts), finish, final=True)
        self._settle(timeout_s, "FIN")
        return [*lapsed, *self._client.failed()]

    def release(self, delays_s: Mapping[Receipt, float]) -> None:
        """Send REQ for each; nsqd shortens a delay above its -max-req-timeout, an hour, to that."""
        delays_ms = {handle[1]: math.ceil(delays_s[handle] * 1000) for handle in _handles(delays_s)}
        self._client.tell(_handles(delays_s), lambda ids: requeue((one, delays_ms[one]) for one in ids), final=True)
        self._settle(RELEASE_TIMEOUT_S, "REQ")

    def held_back(self) -> Sequence[Receipt]:
        """Return what has come in and was not received."""
        return self._client.take_all()

    def depth(self) -> int | None:
        """Add up the channel's counts of all servers, by their HTTP; for --nsq.nsqd that is the port above TCP.

        It is not known where no HTTP was ever answered there: another port may have it.
        """
        depth = depth_of(self._client.http_servers, self._what.topic, self._what.channel, STATS_TIMEOUT_S)
        if depth is None and (self._counts or not self._client.links):
            raise CommitUnconfirmed("not every nsqd says over HTTP how many messages it has")
        self._counts |= depth is not None
        return depth

    def close(self) -> None:
        """Say CLS, wait until the servers have read everything, and close."""
        self._client.close()

    def _settle(self, timeout_s: float, command: str) -> None:
        if not self._client.flushed(timeout_s):
            raise CommitUnconfirmed(f"nsqd did not take every {command} within {timeout_s:.0f} s")


def _handles(receipts: Sequence[Receipt] | Mapping[Receipt, float]) -> Sequence[Handle]:
    return cast("Sequence[Handle]", list(receipts))


def gateway_of(options: Nsq, *, longest_batch_s: float) -> NsqGateway:
    """Return the gateway that the settings describe, not open yet. Raise ConfigurationError for a bad certificate."""
    what = Subscription(
        options.topic or "", options.channel or "", options.msg_timeout.total_seconds(), tls=tls_of(options)
    )
    client = NsqClient(
        what,
        nsqd=[address_of(one, NSQD_PORT) for one in options.nsqd],
        lookupd=[address_of(one, LOOKUPD_PORT) for one in options.lookupd],
        max_in_flight=options.max_in_flight,
    )
    return NsqGateway(client, what, max_in_flight=options.max_in_flight, longest_batch_s=longest_batch_s)
