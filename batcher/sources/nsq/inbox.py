"""What has come in from the servers and was not taken by the pipeline yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

from batcher.sources.nsq.link import Link
from batcher.sources.receipts.gateway import Received

Handle: TypeAlias = tuple[Link, bytes]
"""A receipt: a message is acknowledged on the connection that it came by."""


class Inbox:
    """Hold messages in the order in which they came, and know their bytes. Not for several threads."""

    def __init__(self) -> None:
        self._messages: deque[Received] = deque()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, messages: Sequence[Received]) -> None:
        """Put messages behind the others."""
        self._messages.extend(messages)
        self.nbytes += sum(len(one.value) for one in messages)

    def take(self, most: int, most_bytes: int) -> Sequence[Received]:
        """Take the first messages out, at least one where there is one."""
        taken: list[Received] = []
        nbytes = 0
        while self._messages and len(taken) < most:
            nbytes += len(self._messages[0].value)
            if taken and nbytes > most_bytes:
                break
            taken.append(self._messages.popleft())
        self.nbytes -= sum(len(one.value) for one in taken)
        return taken

    def take_all(self) -> list[Handle]:
        """Take everything out."""
        handles = [_handle(one) for one in self._messages]
        self._messages.clear()
        self.nbytes = 0
        return handles

    def forget(self, which: Callable[[Handle], bool]) -> None:
        """Drop messages that are not ours any more."""
        kept = [one for one in self._messages if not which(_handle(one))]
        self._messages.clear()
        self.nbytes = 0
        self.add(kept)

    def by_link(self) -> Mapping[Link, Sequence[bytes]]:
        """Return the ids of all messages, for each connection."""
        found: dict[Link, list[bytes]] = {}
        for one in self._messages:
            link, name = _handle(one)
            found.setdefault(link, []).append(name)
        return found


def _handle(message: Received) -> Handle:
    return cast("Handle", message.receipt)
