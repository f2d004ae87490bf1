"""Publish to a topic of NSQ: for `batcher produce`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from batcher.errors import ConfigurationError, Unreachable
from batcher.protocols.publisher import Outgoing
from batcher.sources.nsq.dialogue import Declined, Dialogue, tls_of
from batcher.sources.nsq.directory import ServerAddress, any_server, error_text, shown
from batcher.sources.nsq.settings import LOOKUPD_PORT, NSQD_PORT, Nsq, address_of
from batcher.sources.nsq.wire import Garbled, publish, publish_later

CONNECT_TIMEOUT_S: Final = 3.0

BATCH: Final = 500
MAX_BYTES: Final = 1 << 20
"""Of one command: nsqd takes 5 MB unless it is told otherwise."""


class NsqPublisher:
    """Send to the first server that answers, in the order in which they are named."""

    def __init__(self, options: Nsq) -> None:
        if not options.topic:
            raise ConfigurationError("which topic? --nsq.topic TOPIC")
        self._topic = options.topic
        self._tls = tls_of(options)
        servers = [address_of(one, NSQD_PORT) for one in options.nsqd]
        if not servers and options.lookupd:
            servers = any_server([address_of(one, LOOKUPD_PORT) for one in options.lookupd], CONNECT_TIMEOUT_S)
            if not servers:
                raise Unreachable(f"no nsqlookupd knows a server: {', '.join(options.lookupd)}")
        if not servers:
            raise ConfigurationError("which servers? --nsq.nsqd HOST:PORT or --nsq.lookupd HOST:PORT")
        self._servers = servers
        self._dialogue: Dialogue | None = self._connected(CONNECT_TIMEOUT_S)

    @property
    def target(self) -> str:
        """Return the topic."""
        return self._topic

    @property
    def batch(self) -> int:
        return BATCH

    def publish(self, messages: Sequence[Outgoing], timeout_s: float) -> Sequence[str]:
        """Send messages, those without a delay together.

        NSQ knows no keys, headers and priorities, and no empty messages.
        """
        deadline_s = time.monotonic() + timeout_s
        refused: list[str] = []
        together: list[bytes] = []
        size = 0
        for message in messages:
            why = _unknown(message)
            if why is not None:
                refused.append(why)
            elif message.delay_s > 0:
                delay_ms = round(message.delay_s * 1000)
                refused += self._store([publish_later(self._topic, message.value, delay_ms)], deadline_s)
            else:
                if together and size + len(message.value) > MAX_BYTES:
                    refused += self._store_together(together, deadline_s)
                    together, size = [], 0
                together.append(message.value)
                size += len(message.value)
        if together:
            refused += self._store_together(together, deadline_s)
        return refused

    def close(self) -> None:
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None

    def _store_together(self, bodies: list[bytes], deadline_s: float) -> Sequence[str]:
        refused = self._store([publish(self._topic, bodies)], deadline_s)
        if not refused or len(bodies) == 1:
            return refused
        # All or none was stored: alone, only those that are to blame are refused.
        return self._store([publish(self._topic, [body]) for body in bodies], deadline_s)

    def _store(self, commands: Sequence[bytes], deadline_s: float) -> list[str]:
        """Send commands one after the other; return why some were refused."""
        refused: list[str] = []
        for command in commands:
            left_s = max(deadline_s - time.monotonic(), 0.001)
            try:
                if self._dialogue is None:
                    self._dialogue = self._connected(min(left_s, CONNECT_TIMEOUT_S))
                self._dialogue.require_ok(command, left_s)
            except Declined as error:
                refused.append(f"nsqd: {error}")
                # It closes the connection after each such answer.
                self.close()
            except (OSError, Garbled) as error:
                self.close()
                raise Unreachable(f"no answer from nsqd for {self._topic}: {error_text(error)}") from error
        return refused

    def _connected(self, timeout_s: float) -> Dialogue:
        failures: list[str] = []
        for address in self._servers:
            try:
                return self._introduced(address, timeout_s)
            except (Declined, Garbled, OSError) as error:
                failures.append(f"{shown(address)}: {error_text(error)}")
        raise Unreachable(f"no server of NSQ answers: {'; '.join(failures)}")

    def _introduced(self, address: ServerAddress, timeout_s: float) -> Dialogue:
        dialogue = Dialogue(address, timeout_s)
        try:
            dialogue.agree(msg_timeout_s=None, heartbeat_s=None, tls=self._tls, timeout_s=timeout_s)
        except BaseException:
            dialogue.close()
            raise
        return dialogue


def _unknown(message: Outgoing) -> str | None:
    if message.key is not None or message.headers or message.priority:
        return "NSQ knows no keys, headers and priorities"
    return None if message.value else "NSQ takes no empty messages"
