"""What a topic takes, known before anything is sent: brokers refuse a whole batch for one record in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from batcher.generate.skipped import SkipReason


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """Hold the limits of a topic, None where it has none, or where nobody would say.

    `max_bytes` is of a batch as the broker gets it; `keyed` says that no record may be without a key; `before_ms` and
    `after_ms` are how far a time may lie from now; `own_times` says that the broker puts its own time on records.
    """

    max_bytes: int | None = None
    keyed: bool = False
    before_ms: int | None = None
    after_ms: int | None = None
    own_times: bool = False

    @classmethod
    def of(cls, config: Mapping[str, str | None]) -> Self:
        """Return the limits that the settings of a topic make."""
        return cls(
            _whole(config, "max.message.bytes"),
            "compact" in (config.get("cleanup.policy") or ""),
            _whole(config, "message.timestamp.before.max.ms"),
            _whole(config, "message.timestamp.after.max.ms"),
            config.get("message.timestamp.type") == "LogAppendTime",
        )

    def refuses(self, key: bytes | None, timestamp_ms: int) -> SkipReason | None:
        """Return why the topic would refuse a record, and all others in its batch; None where it takes it.

        The time is in milliseconds since the epoch, 0 for that of sending.
        """
        if self.keyed and key is None:
            return SkipReason.NO_KEY
        if timestamp_ms:
            now_ms = time.time_ns() // 1_000_000
            if self.after_ms is not None and timestamp_ms - now_ms > self.after_ms:
                return SkipReason.TOO_LATE
            if self.before_ms is not None and now_ms - timestamp_ms > self.before_ms:
                return SkipReason.TOO_EARLY
        return None


def _whole(config: Mapping[str, str | None], name: str) -> int | None:
    text = config.get(name) or ""
    return int(text) if text.isdecimal() else None
