"""What running processes say of themselves over HTTP, one line each: the rows of `top`."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from batcher.cli.support.spans import span

TIMEOUT_S: Final = 3.0
"""A process that takes longer is shown as one that does not answer, and asked again with the next look."""

LONGEST: Final = 16 << 20
"""Bytes of an answer: a thousand partitions take a hundredth of it."""


@dataclass(frozen=True, slots=True)
class ProcessView:
    """Hold what one process said. `status` is None where it did not answer, and `error` says why."""

    address: str
    at_s: float
    status: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def done(self) -> int:
        """Return how many records it has dealt with since it started."""
        counts = (self.status or {}).get("counts", {})
        return sum(
            int(counts.get(name, 0)) for name in ("written", "dead_lettered", "skipped", "duplicates_suppressed")
        )


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """Say how it is with one process, for a table; numbers that are not known are None."""

    address: str
    state: str
    group: str = ""
    rows_per_second: float | None = None
    lag: int | None = None
    eta_s: float | None = None
    buffered: int | None = None
    dead_letters: int | None = None
    said: str = ""
    """What it waits for, or why it does not answer."""


def normal(address: str) -> tuple[str, int]:
    """Return host and port of what a person writes: HOST:PORT, :PORT, PORT or a URL. Raise ValueError."""
    text = address.removeprefix("http://").partition("/")[0]
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} needs the form HOST:PORT, such as 127.0.0.1:9100")
    return host.strip("[]") or "127.0.0.1", int(port)


def ask(address: str, clock: Callable[[], float] = time.monotonic) -> ProcessView:
    """Return what the process at an address says; why it says nothing is in the answer."""
    host, port = normal(address)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        body = answer.read(LONGEST)
        if answer.status != http.HTTPStatus.OK:
            return ProcessView(address, clock(), error=f"answers {answer.status} {answer.reason}: is it batcher?")
        found = json.loads(body)
        if not isinstance(found, dict) or "state" not in found:
            return ProcessView(address, clock(), error="answers, and is not batcher")
        return ProcessView(address, clock(), found)
    except ValueError:
        return ProcessView(address, clock(), error="answers, and is not batcher")
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "strerror", None) or error) or type(error).__name__
        return ProcessView(address, clock(), error=f"does not answer: {reason.lower()}")
    finally:
        connection.close()


def ask_all(addresses: Sequence[str]) -> list[ProcessView]:
    """Return what each process says; they are asked at once, so that one that hangs does not hold up the others."""
    with ThreadPoolExecutor(max_workers=min(len(addresses), 32)) as pool:
        return list(pool.map(ask, addresses))


def line_of(now: ProcessView, before: ProcessView | None) -> ProcessLine:
    """Return the line of a process; the rate comes from two looks, of the same run."""
    if now.status is None:
        return ProcessLine(now.address, "away", said=now.error)
    status = now.status
    rate = None
    if before is not None and before.status is not None and now.at_s > before.at_s and now.done >= before.done:
        rate = (now.done - before.done) / (now.at_s - before.at_s)
    lag = status.get("lag")
    eta_s = lag / rate if lag and rate else 0.0 if lag == 0 else None
    buffer = status.get("buffer") or {}
    counts = status.get("counts") or {}
    return ProcessLine(
        now.address,
        str(status["state"]),
        str(status.get("group", "")),
        rate,
        lag,
        eta_s,
        buffer.get("rows"),
        counts.get("dead_lettered"),
        _said(status),
    )


def _said(status: Mapping[str, Any]) -> str:
    error = status.get("last_error") or {}
    if error and not error.get("recovered"):
        return f"{error.get('message', '')} (for {span(float(error.get('since_s') or 0))})"
    waits = status.get("off_switch") or status.get("waiting_for")
    return f"waits for {waits}" if waits and not status.get("off_switch") else str(waits or "writes")


def totals(lines: Sequence[ProcessLine]) -> ProcessLine:
    """Return the sums over processes."""

    def add(values: Sequence[Any]) -> Any:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    rate, lag = add([one.rows_per_second for one in lines]), add([one.lag for one in lines])
    away = sum(one.state == "away" for one in lines)
    return ProcessLine(
        "all",
        f"{away} away" if away else "",
        rows_per_second=rate,
        lag=lag,
        eta_s=lag / rate if lag and rate else 0.0 if lag == 0 else None,
        buffered=add([one.buffered for one in lines]),
        dead_letters=add([one.dead_letters for one in lines]),
    )
