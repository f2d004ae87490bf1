"""What NSQ says over HTTP: which servers have a topic (nsqlookupd), and how much of it is left (nsqd)."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

ServerAddress: TypeAlias = tuple[str, int]

HTTP_ABOVE_TCP: Final = 1
"""nsqd listens for HTTP one port above TCP, unless it is told otherwise; nsqlookupd says which port it is."""

# Not through a proxy that the environment names for the web: these are neighbours.
_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Looked:
    """Say which servers have a topic: for each the port of its HTTP. `failures` are lines about those not reached."""

    servers: Mapping[ServerAddress, int] = field(default_factory=dict)
    answered: int = 0
    failures: tuple[str, ...] = ()


def look_up(lookupds: Iterable[ServerAddress], topic: str, timeout_s: float) -> Looked:
    """Ask every nsqlookupd which servers have a topic; one that does not answer is passed over."""
    servers: dict[ServerAddress, int] = {}
    answered = 0
    failures: list[str] = []
    for address in lookupds:
        try:
            found = _get(address, f"/lookup?topic={urllib.parse.quote(topic)}", timeout_s)
            servers |= (
                {(one["broadcast_address"], one["tcp_port"]): one["http_port"] for one in (found or {})["producers"]}
                if found is not None
                else {}
            )
            answered += 1
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            failures.append(f"{shown(address)}: {error_text(error)}")
    return Looked(servers, answered, tuple(failures))


def any_server(lookupds: Iterable[ServerAddress], timeout_s: float) -> list[ServerAddress]:
    """Return all servers that an nsqlookupd knows, whatever they have."""
    found: dict[ServerAddress, None] = {}
    for address in lookupds:
        try:
            nodes = _get(address, "/nodes", timeout_s) or {"producers": []}
            found |= {(one["broadcast_address"], one["tcp_port"]): None for one in nodes["producers"]}
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
            continue
    return list(found)


def depth_of(servers: Iterable[ServerAddress], topic: str, channel: str, timeout_s: float) -> int | None:
    """Return the messages of a channel that were not finished, over all servers by their HTTP addresses.

    None where one of them does not answer.
    """
    depth = 0
    query = urllib.parse.urlencode({"format": "json", "topic": topic, "channel": channel, "include_clients": "false"})
    for address in servers:
        try:
            found = _get(address, f"/stats?{query}", timeout_s) or {"topics": []}
            for one in found["topics"]:
                depth += one["depth"]
                depth += sum(c["depth"] + c["in_flight_count"] + c["deferred_count"] for c in one["channels"])
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
            return None
    return depth


def shown(address: ServerAddress) -> str:
    """Return an address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def error_text(error: BaseException) -> str:
    """Return why something failed, as the operating system says it."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return error_text(reason)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _get(address: ServerAddress, path: str, timeout_s: float) -> dict[str, Any] | None:
    """Return what a server says; None where it does not know what it was asked for."""
    try:
        with _opener.open(f"http://{shown(address)}{path}", timeout=timeout_s) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.NOT_FOUND:
                return None
        raise
