"""A worker: a source, a function for each of its messages, and nothing to set up around it. This is the Python API.

It is a `Pipeline` into the sink `handler`, and does nothing that the command line could not do (`docs/handlers.md`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import ValidationError

from batcher.core.buffer import FlushPolicy
from batcher.core.limits import DeadLetterPolicy
from batcher.engine.pipeline import Pipeline
from batcher.engine.report import Summary
from batcher.engine.retry import RetryPolicy
from batcher.errors import ConfigurationError
from batcher.formats.raw.format import RawFormat
from batcher.options import Section
from batcher.plugins import PluginContext, RetryWaits, registry_of
from batcher.protocols import DeadLetterQueue, Source
from batcher.settings import Settings, own_section
from batcher.settings.compose import compose
from batcher.telemetry.events import Subscriber
from batcher.telemetry.status import Status
from sinks.handler.settings import OrderKind, PoolKind
from sinks.handler.sink import Handler, HandlerOptions, HandlerSink

if TYPE_CHECKING:
    from batcher.telemetry.metrics import Metrics

FLUSH: Final = FlushPolicy(max_rows=1000, max_wait_s=0.1)
"""A stop waits for a batch, and a crash repeats one; and no message should wait long for others."""


class Worker:
    """Call a handler with each message of a source, until stopped. Build it, and call `run` once.

    `source` is a source, or the name of one as `--source` takes it; then `options` are its settings, such as
    `{"brokers": "localhost:9092", "topics": "orders", "group": "mail"}` for `"kafka"`. `handler` is a function, a class
    that is made once, or the name of either, such as `"my.app:handle"`. `pool`, `workers`, `batch`, `order`,
    `max_attempts` and `timeout_s` are as the flags of `--handler.*`. `dead_letters` is a queue, or a directory. `retry`
    has the waits between attempts, here without chance. `http_addr` is where metrics and status are served. Raise
    ConfigurationError for what cannot work.
    """

    def __init__(
        self,
        source: Source | str,
        handler: Handler,
        *,
        options: Mapping[str, object] | None = None,
        name: str = "",
        pool: PoolKind = "auto",
        workers: int = 10,
        batch: int = 0,
        order: OrderKind = "none",
        max_attempts: int = 5,
        timeout_s: float | None = None,
        dead_letters: DeadLetterQueue | str | Path | None = None,
        retry: RetryPolicy | None = None,
        poison: DeadLetterPolicy | None = None,
        flush: FlushPolicy = FLUSH,
        memory_bytes: int = 40 << 20,
        until_eof: bool = False,
        max_records: int | None = None,
        stop_timeout_s: float = 25.0,
        http_addr: str | None = None,
        subscribers: Collection[Subscriber] = (),
    ) -> None:
        retry = retry or RetryPolicy()
        waits = RetryWaits(retry.strategy, retry.wait_s, retry.max_wait_s)
        if isinstance(source, str):
            source, group = _named(source, options or {}, flush, until_eof=until_eof, waits=waits)
            name = name or group
        elif options is not None or until_eof:
            raise ConfigurationError("Worker: options and until_eof are for a source that is given by its name")
        name = name or "worker"
        if isinstance(dead_letters, str | Path):
            from batcher.dead_letters.directory import DirectoryDeadLetterQueue  # noqa: PLC0415 - only where it is used

            dead_letters = DirectoryDeadLetterQueue(str(dead_letters), name)
        self.http_addr = http_addr
        """Where metrics and status are served; with port 0, once it runs, the one that was free."""
        self._metrics = _metrics() if http_addr is not None else None
        self._stops = 0
        self.pipeline = Pipeline(
            source,
            HandlerSink(handler, HandlerOptions(pool, workers, batch, order, max_attempts, timeout_s, waits)),
            RawFormat(),
            name=name,
            dead_letters=dead_letters,
            flush=flush,
            memory_bytes=memory_bytes,
            retry=retry,
            poison=poison,
            max_records=max_records,
            stop_timeout_s=stop_timeout_s,
            subscribers=(*subscribers, *([self._metrics] if self._metrics is not None else [])),
        )
        if self._metrics is not None:
            self._metrics.watch(self.pipeline.status)

    def run(self) -> Summary:
        """Run until stopped or until the source has come to its end, and return what was done.

        Called on the main thread, the first SIGTERM or SIGINT stops it and the second ends it at once. Raises what
        `Pipeline.run` raises.
        """
        with self._heard(), self._served():
            return self.pipeline.run()

    def stop(self) -> None:
        """Let the calls that go on end, give back the rest, and return from `run`. Any thread, and signal handlers."""
        self.pipeline.stop()

    def status(self) -> Status:
        """Return what is going on now. Any thread."""
        return self.pipeline.status()

    def _listen(self, _number: int, _frame: FrameType | None) -> None:
        self._stops += 1
        if self._stops == 1:
            self.pipeline.stop()
        else:
            self.pipeline.abort()

    @contextmanager
    def _heard(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self._listen) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    @contextmanager
    def _served(self) -> Iterator[None]:
        if self._metrics is None or self.http_addr is None:
            yield
            return
        from batcher.telemetry.http import WebServer  # noqa: PLC0415 - only where it is used

        pipeline = self.pipeline
        server = WebServer(
            self.http_addr, self._metrics, pipeline.status, lambda: pipeline.alive, lambda: pipeline.ready
        )
        server.start()
        self.http_addr = server.addr
        try:
            yield
        finally:
            server.stop()


def _metrics() -> Metrics:
    from batcher.telemetry.metrics import Metrics  # noqa: PLC0415 - only where it is used

    return Metrics("handler")


def _named(
    name: str, options: Mapping[str, object], flush: FlushPolicy, *, until_eof: bool, waits: RetryWaits
) -> tuple[Source, str]:
    """Return the source of this name, and the group that its options name. Raise ConfigurationError."""
    registry = registry_of("source")
    found = registry.find(name)
    given: Mapping[str, object] | Section = options
    settings = Settings() if found.model is None else _settings(name, found.section, options, flush)
    if found.model is not None:
        given = own_section(settings, registry, found)
        for fault in (*given.impossible(), *given.lacking()):
            raise ConfigurationError(f"Worker({name!r}): option {fault.field}: {fault.message}")
    group = str(getattr(given, "group", "") or "")
    context = PluginContext(
        pipeline=group or name,
        topics=tuple(getattr(given, "topics", ())),
        sections=settings.sections(),
        until_eof=until_eof,
        waits=waits,
    )
    return cast("Source", registry.make(found, given, context)), group


def _settings(name: str, section: str, options: Mapping[str, object], flush: FlushPolicy) -> Settings:
    """Return all settings, with those of the source: a plug-in may look at the others."""
    batch = {
        "max_rows": flush.max_rows,
        "max_bytes": flush.max_bytes,
        "max_wait": timedelta(seconds=flush.max_wait_s),
    }
    values: dict[str, Any] = {"source": name, "sink": "handler", "batch": batch, section: dict(options)}
    try:
        return compose((("source", name),))(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        raise ConfigurationError(f"Worker({name!r}): option {field}: {first['msg']}") from None
