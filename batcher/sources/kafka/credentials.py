"""Read secrets again when a broker refuses the ones there are: passwords are rotated while processes run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from batcher.errors import BatcherError

log = structlog.get_logger(__name__)

Reload = Callable[[], Mapping[str, str]]

AGAIN_AFTER_S: Final = 2.0
"""At first a refused client tries several times a second."""


class Credentials:
    """Hand the name and password for SASL to `use` whenever `reload` returns others than before."""

    def __init__(
        self,
        properties: Mapping[str, str],
        reload: Reload | None,
        use: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pair = _pair(properties)
        self._reload = reload
        self._use = use
        self._clock = clock
        self._next = 0.0

    def refused(self) -> None:
        """Read the secrets again after a broker has refused them."""
        if self._reload is None or self._clock() < self._next:
            return
        self._next = self._clock() + AGAIN_AFTER_S
        try:
            pair = _pair(self._reload())
        except (BatcherError, OSError) as error:
            log.warning("credentials_unreadable", error=str(error))
            return
        if pair == self._pair or pair is None:
            return
        self._pair = pair
        self._use(*pair)
        log.info("credentials_read_again", hint="the broker had refused those before; the next connection has these")


def _pair(properties: Mapping[str, str]) -> tuple[str, str] | None:
    username, password = properties.get("sasl.username"), properties.get("sasl.password")
    return None if username is None or password is None else (username, password)
