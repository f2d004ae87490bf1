"""Find the servers of a topic and connect to them, again and again where that fails."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import structlog

from batcher.errors import ConfigurationError, Unreachable
from batcher.sources.nsq.dialogue import Declined
from batcher.sources.nsq.directory import HTTP_ABOVE_TCP, Looked, ServerAddress, error_text, look_up, shown
from batcher.sources.nsq.link import Link, Subscription, dial
from batcher.sources.nsq.wire import Garbled

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 20.0
"""How often nsqlookupd is asked; every second while nothing is connected."""

LOOK_SOON_S: Final = 1.0

DIAL_TIMEOUT_S: Final = 3.0
RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 30.0

STEADY_S: Final = 10.0
"""How long a connection has to last before the next failure counts as a first one."""


class ServerFinder:
    """Keep connections to all servers of a topic; each is handed over once, subscribed.

    `connected` says which servers need none. `on_link` takes a new connection, `on_fault` what a server refuses for
    good; both are called by the thread of `start`.
    """

    def __init__(
        self,
        what: Subscription,
        *,
        nsqd: Sequence[ServerAddress],
        lookupd: Sequence[ServerAddress],
        connected: Callable[[], Collection[ServerAddress]],
        on_link: Callable[[Link], None],
        on_fault: Callable[[ConfigurationError], None],
    ) -> None:
        self._what = what
        self._lookupd = tuple(lookupd)
        self._connected = connected
        self._on_link = on_link
        self._on_fault = on_fault
        self._named: Mapping[ServerAddress, int] = {one: one[1] + HTTP_ABOVE_TCP for one in nsqd}
        self._servers = self._named
        self._failures: dict[ServerAddress, int] = {}
        self._retry_at: dict[ServerAddress, float] = {}
        self._due = threading.Event()
        self._ended = threading.Event()
        self._lookupd_away = False
        self._thread: threading.Thread | None = None

    @property
    def http_servers(self) -> Sequence[ServerAddress]:
        """Return where the servers answer HTTP."""
        return [(host, port) for (host, _), port in self._servers.items()]

    def connect(self) -> None:
        """Try every server once. Raise Unreachable where none answers, ConfigurationError for what one refuses."""
        looked = self._look()
        failures = list(looked.failures)
        for address in self._servers:
            if address in self._connected():
                continue
            failure = self._dial(address)
            if isinstance(failure, ConfigurationError):
                raise failure
            if failure is not None:
                failures.append(f"{shown(address)}: {error_text(failure)}")
        if self._connected():
            return
        if self._servers or not looked.answered:
            raise Unreachable(f"no server of NSQ answers: {'; '.join(failures)}")
        raise Unreachable(
            f"no nsqlookupd knows a server with the topic {self._what.topic}: publish a message to it, or name the "
            "servers in nsq.nsqd"
        )

    def start(self) -> None:
        """Go on in a thread."""
        self._thread = threading.Thread(target=self._run, name="nsq-finder", daemon=True)
        self._thread.start()

    def lost(self, link: Link, now: float) -> None:
        """Learn that a connection is gone. Called by any thread."""
        if now - link.since > STEADY_S:
            self._failures.pop(link.address, None)
        self._later(link.address, now)
        self._due.set()

    def close(self) -> None:
        """End the thread. A second call is harmless."""
        self._ended.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join(2 * DIAL_TIMEOUT_S)

    def _run(self) -> None:
        look_at = time.monotonic() + LOOK_EVERY_S
        while not self._ended.is_set():
            if time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + LOOK_EVERY_S * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            connected = self._connected()
            for address in [one for one in self._servers if one not in connected]:
                if self._ended.is_set():
                    return
                if time.monotonic() >= self._retry_at.get(address, 0.0):
                    self._try(address)
            if not self._connected():
                look_at = min(look_at, time.monotonic() + LOOK_SOON_S)
            self._due.wait(RETRY_FIRST_S / 2)
            self._due.clear()

    def _try(self, address: ServerAddress) -> None:
        failure = self._dial(address)
        if failure is None:
            log.info("nsqd_connected", nsqd=shown(address))
        elif isinstance(failure, ConfigurationError):
            self._on_fault(failure)
        elif self._failures[address] == 1:
            log.warning("nsqd_away", nsqd=shown(address), error=error_text(failure), hint="it is tried again")

    def _dial(self, address: ServerAddress) -> Exception | None:
        """Connect to a server; return why it did not work."""
        now = time.monotonic()
        try:
            self._on_link(dial(address, self._what, now, DIAL_TIMEOUT_S))
        except Declined as error:
            if error.for_good:
                return _refusal(address, error)
            failure: Exception = error
        except ConfigurationError as error:
            return error
        except ssl.SSLCertVerificationError as error:
            refused = ConfigurationError(
                f"--nsq.tls: the certificate of nsqd at {shown(address)} is not good: {error.verify_message}; "
                "name what signed it with --nsq.ca"
            )
            refused.__cause__ = error
            return refused
        except (OSError, Garbled) as error:
            failure = error
        else:
            return None
        self._later(address, now)
        return failure

    def _later(self, address: ServerAddress, now: float) -> None:
        """Set the time of the next attempt: later after each that failed."""
        failures = self._failures[address] = self._failures.get(address, 0) + 1
        wait_s = min(RETRY_FIRST_S * 2 ** min(failures - 1, 10), RETRY_MOST_S)
        self._retry_at[address] = now + wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _look(self) -> Looked:
        """Ask nsqlookupd for servers; those named by hand stay."""
        if not self._lookupd:
            return Looked()
        looked = look_up(self._lookupd, self._what.topic, DIAL_TIMEOUT_S)
        if looked.answered:
            # One that is no longer listed and still connected is read on.
            self._servers = {**self._named, **looked.servers}
        away = not looked.answered
        if away and not self._lookupd_away:
            log.warning("nsqlookupd_away", error="; ".join(looked.failures), hint="it is asked again")
        self._lookupd_away = away
        return looked


def _refusal(address: ServerAddress, error: Declined) -> ConfigurationError:
    hints = {
        "E_BAD_BODY": "; look at --nsq.msg-timeout and at its -max-msg-timeout",
        "E_AUTH_FIRST": "; batcher does not do AUTH",
        "E_INVALID": "; where it asks for TLS, give --nsq.tls",
    }
    refused = ConfigurationError(f"nsqd at {shown(address)} refuses us: {error}{hints.get(error.code, '')}")
    refused.__cause__ = error
    return refused
