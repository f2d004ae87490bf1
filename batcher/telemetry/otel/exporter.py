"""The life of an export: it begins with the pipeline, on threads of the SDK, and is flushed within a bound at the end.

Whatever goes wrong here is a warning and no reason to stop. The variables may be there for other programs, and a
pipeline that loads is worth more than one that is watched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batcher.telemetry import logs
from batcher.telemetry.events import Event
from batcher.telemetry.otel.sdk_log import SdkLogHandler, leave, listen
from batcher.telemetry.otel.variables import ExportRequest

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from batcher.telemetry.otel.spans import BatchSpans

FLUSH_S: Final = 2.0
"""How long the end waits at most for what was not exported yet."""

MISSING: Final = "OpenTelemetry is not installed: pip install 'kafka-batcher[otel]'"

_SYSTEMS: Final[Mapping[str, str]] = {"share": "kafka", "sqs": "aws_sqs"}

log = logs.get(__name__)


def flush_s(stop_timeout_s: float) -> float:
    """Return how long the last export may take: a tenth of the time of a stop, and FLUSH_S at most."""
    return min(FLUSH_S, stop_timeout_s / 10)


@dataclass(frozen=True, slots=True)
class ExportedPipeline:
    """Say what is exported, and under which names: the kinds of source and sink, the group, the number of a worker."""

    registry: Collector | None
    """Where the series are; None where no metrics are exported."""
    source: str
    group: str = ""
    sink: str = ""
    worker: int | None = None

    @property
    def system(self) -> str:
        """Return what OpenTelemetry calls the system that is read from."""
        return _SYSTEMS.get(self.source, self.source)


class OtelExporter:
    """Export a pipeline while `running` is open. It is a subscriber of `events.Events`, and may be one before."""

    def __init__(self, request: ExportRequest, pipeline: ExportedPipeline, flush_s: float = FLUSH_S) -> None:
        self._request = request
        self._pipeline = pipeline
        self.flush_s = flush_s if request.traces or request.metrics else 0.0
        """How long the end of `running` takes at most."""
        self._spans: BatchSpans | None = None

    def __call__(self, event: Event) -> None:
        """Hear of an event. Any thread."""
        spans = self._spans
        if spans is None:
            return
        try:
            spans(event)
        except Exception as error:  # a fault of the export, or of the SDK, must not end the pipeline
            self._spans = None
            log.warning("otel_spans_ended", error=f"{type(error).__name__}: {error}", hint="please report this")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Export while the context is open, and flush at its end."""
        for refused in self._request.refused:
            self._not_exported(refused)
        if not (self._request.traces or self._request.metrics):
            yield
            return
        handler = SdkLogHandler()
        listen(handler)
        ends = self._begun()
        try:
            yield
        finally:
            if self._spans is not None:
                with suppress(Exception):  # as above
                    self._spans.close()
            if _flushed(ends, self.flush_s):
                leave(handler)
            else:
                # The threads of the SDK go on, and so does what keeps them from flooding the log.
                log.warning("otel_not_flushed", waited_s=self.flush_s, hint="what was left to export is lost")

    def _begun(self) -> Sequence[Callable[[], None]]:
        """Begin, and return what ends it; nothing where it could not begin."""
        try:
            from batcher.telemetry.otel.providers import exporting  # noqa: PLC0415 - only where it is asked for

            found = exporting(self._request, self._pipeline, self.flush_s)
        except ImportError as error:
            self._not_exported(f"{MISSING} ({error})")
        except Exception as error:  # the SDK raises what it likes for a variable that means nothing
            self._not_exported(f"{type(error).__name__}: {error}")
        else:
            self._spans = found.spans
            log.info("otel_exports", traces=self._request.traces, metrics=self._request.metrics)
            return found.ends
        return ()

    def _not_exported(self, reason: str) -> None:
        if not self._pipeline.worker:  # the first of several says it for all
            log.warning("otel_not_exported", reason=reason, hint="the pipeline runs without it")


def _flushed(ends: Sequence[Callable[[], None]], seconds: float) -> bool:
    """Return whether all of these returned in time: each on a thread of its own, which is left behind if it hangs."""
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=_quietly, args=(end,), name="otel-end", daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return not any(thread.is_alive() for thread in threads)


def _quietly(end: Callable[[], None]) -> None:
    with suppress(Exception):  # it has said what it has to say to its logger
        end()
