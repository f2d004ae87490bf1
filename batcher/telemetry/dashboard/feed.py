"""Take an observation a second, keep the last hour, and hand all of it to the open pages.

A page that reads slowly has a mailbox of a few messages. When it is full it is emptied, and the page begins anew with
the whole picture. So nobody waits for a reader.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from batcher.telemetry.dashboard.ages import added
from batcher.telemetry.dashboard.history import History
from batcher.telemetry.dashboard.judgement import GROWTH_RECORDS, GROWTH_SHARE, Trend, judged

EVERY_S: Final = 1.0
LONGEST_S: Final = 10.0
SHARE: Final = 0.008
"""The share of a core that observing may take: where one takes long, there are fewer of them."""

SPEED_S: Final = 10.0
"""The current speed is that of so many seconds: batches come in lumps."""
TREND_S: Final = 60.0

MAILBOX: Final = 4

ALIVE_S: Final = 15.0
"""How long a page hears nothing at most."""

Observe = Callable[[], Mapping[str, Any]]

log = logging.getLogger(__name__)


class Mailbox:
    """Hold what one page has not read yet. `close` ends it for its reader."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._anew = True
        self._closed = False

    def put(self, message: bytes) -> None:
        """Add a message; where there is no room for it, the reader begins anew."""
        with self._changed:
            if len(self._messages) >= MAILBOX:
                self._messages.clear()
                self._anew = True
            if not self._anew:
                self._messages.append(message)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the reader come to its end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, whole: Callable[[], bytes], timeout_s: float = ALIVE_S) -> bytes | None:
        """Return the next message, the `whole` picture where it begins anew, b"" after the time; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._anew or self._messages or self._closed, timeout_s)
            if self._closed:
                return None
            if not self._anew:
                return self._messages.popleft() if self._messages else b""
            self._anew = False
        # Without the lock: it is made of what the feed holds, and the feed must not wait.
        return whole()


class Feed:
    """Keep what the page shows. `about` is what does not change: settings, versions and what may be done."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self._about = about
        self._history = History()
        self._recent: deque[tuple[float, Mapping[str, Any], Mapping[int, float]]] = deque()
        self._latest: Mapping[str, Any] | None = None
        self._lock = threading.Lock()
        self._mailboxes: set[Mailbox] = set()
        self._closed = False

    def add(self, seen: Mapping[str, Any]) -> None:
        """Take in an observation and tell all pages. One thread."""
        ages = {int(step): records for step, records in seen["ages"].items()}
        with self._lock:
            point = self._point(seen, ages)
            self._history.add(seen["at"], point)
            trend = self._trend(seen)
            shown = {name: value for name, value in seen.items() if name != "ages"}
            self._latest = {
                **shown,
                "trend": trend.facts,
                "judgements": [asdict(one) for one in judged(seen, trend)],
                "point": {"t": seen["at"], **point},
            }
            mailboxes = list(self._mailboxes)
        if mailboxes:
            message = event("tick", self._latest)
            for mailbox in mailboxes:
                mailbox.put(message)

    def whole(self) -> bytes:
        """Return everything as one message: what does not change, the last hour, and the latest observation."""
        with self._lock:
            facts = {"about": self._about, "history": self._history.columns(), "now": self._latest}
        return event("hello", facts)

    def subscribe(self) -> Mailbox:
        """Return a mailbox for one page."""
        mailbox = Mailbox()
        with self._lock:
            self._mailboxes.add(mailbox)
            closed = self._closed
        if closed:
            mailbox.close()
        return mailbox

    def unsubscribe(self, mailbox: Mailbox) -> None:
        """Forget a mailbox."""
        with self._lock:
            self._mailboxes.discard(mailbox)

    def close(self) -> None:
        """End all pages."""
        with self._lock:
            self._closed = True
            mailboxes = list(self._mailboxes)
        for mailbox in mailboxes:
            mailbox.close()

    def _point(self, seen: Mapping[str, Any], ages: Mapping[int, float]) -> Mapping[str, float | None]:
        now, counts = seen["at"], seen["counts"]
        then, before = (self._recent[-1][0], self._recent[-1][1]["counts"]) if self._recent else (now, counts)
        self._recent.append((now, {"counts": counts, "lag": seen["lag"]}, ages))
        while now - self._recent[0][0] > TREND_S:
            self._recent.popleft()
        distribution = added([ages])
        return {
            "read": _speed(before, counts, "consumed", now - then),
            "written": _speed(before, counts, "written", now - then),
            "bytes": _speed(before, counts, "consumed_bytes", now - then),
            "dead": _speed(before, counts, "dead_lettered", now - then),
            "retries": max(counts["retries"] - before["retries"], 0),
            "lag": seen["lag"],
            "p50": distribution.quantile(0.5),
            "p99": distribution.quantile(0.99),
            "buffer": seen["buffer"]["bytes"],
            "rss": seen["rss_bytes"],
        }

    def _trend(self, seen: Mapping[str, Any]) -> Trend:
        now, counts, lag = seen["at"], seen["counts"], seen["lag"]
        first_at, first, _ = self._recent[0]
        speed_at, speed, _ = next(one for one in self._recent if now - one[0] <= SPEED_S)
        growth = None if lag is None or first["lag"] is None else lag - first["lag"]
        # Not sooner: at the start the lag becomes known bit by bit.
        if now - first_at < TREND_S / 2:
            growth = None
        fell = speed["lag"] - lag if lag and speed["lag"] is not None else 0
        written = _speed(speed["counts"], counts, "written", now - speed_at) or 0.0
        ages = added(found for _, _, found in self._recent)
        return Trend(
            read=_speed(speed["counts"], counts, "consumed", now - speed_at) or 0.0,
            written=written,
            bytes=_speed(speed["counts"], counts, "consumed_bytes", now - speed_at) or 0.0,
            lag_growth=growth,
            eta_s=lag * (now - speed_at) / fell if lag and fell > max(GROWTH_RECORDS, GROWTH_SHARE * lag) else None,
            behind_s=lag / written if lag is not None and written else None,
            dead=max(counts["dead_lettered"] - first["counts"]["dead_lettered"], 0),
            p50_s=ages.quantile(0.5),
            p99_s=ages.quantile(0.99),
        )


class FeedThread:
    """Observe about once a second on a thread of its own, and pass it on to `takers`, which must not block for long."""

    def __init__(self, observe: Observe, takers: Sequence[Callable[[Mapping[str, Any]], None]]) -> None:
        self._observe = observe
        self._takers = takers
        self._ended = threading.Event()
        # A daemon: what is still to be said does not keep the process.
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Pass on a last observation and end; a second call is harmless."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(EVERY_S)

    def _run(self) -> None:
        failing = False
        while True:
            began = time.thread_time()
            try:
                seen = self._observe()
                for take in self._takers:
                    take(seen)
                failing = False
            except Exception as error:  # a bug of the page must not cost a row
                if not failing:
                    log.warning("the page cannot be brought up to date: %s", type(error).__name__, exc_info=True)
                failing = True
            if self._ended.is_set():
                return
            self._ended.wait(min(max(EVERY_S, (time.thread_time() - began) / SHARE), LONGEST_S))


def event(kind: str, facts: Mapping[str, Any] | None) -> bytes:
    """Return a message as server-sent events have it."""
    return f"event: {kind}\ndata: {json.dumps(facts, separators=(',', ':'), allow_nan=False)}\n\n".encode()


def _speed(before: Mapping[str, Any], now: Mapping[str, Any], name: str, seconds: float) -> float | None:
    return max(now[name] - before[name], 0) / seconds if seconds > 0 else None
