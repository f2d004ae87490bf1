"""Hold the targets of a pipeline, and find the one of a topic.

Those of the topics that are there at the start are opened before anything is read. A topic that comes later gets its
target while the others go on: it is opened on a thread of its own, as often as it takes, and nothing is read from the
topic until then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from batcher import native
from batcher.engine.assembly import (
    Agreement,
    Destination,
    PipelineOptions,
    Surroundings,
    agreed,
    check_capabilities,
    destination,
)
from batcher.engine.dispatcher import Found
from batcher.engine.routes import Routes, Target
from batcher.errors import BatcherError, ConfigurationError, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import SinkInfo, SourceInfo

log = structlog.get_logger(__name__)

FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 30.0
"""How long a target that could not be opened while the pipeline runs is left alone before the next attempt."""


class Targets:
    """Hold the targets of a pipeline that are open.

    `opened` is told of each that was opened while the pipeline runs, on the thread that opened it, and closes it.
    """

    def __init__(
        self,
        routes: Routes | None,
        options: PipelineOptions,
        around: Surroundings,
        opened: Callable[[Destination], None],
    ) -> None:
        self._routes = routes
        self._options = options
        self._around = around
        self._opened = opened
        self._open: dict[str, Destination] = {}
        self._reasons: dict[str, str] = {}
        self._ending = threading.Event()
        self.threads: list[threading.Thread] = []

    @property
    def open(self) -> Mapping[str, Destination]:
        """Return the targets that are open, by name. Any thread."""
        # A copy, which takes one step: another thread may add to the original.
        return dict(self._open)

    def add(self, name: str, target: Target, source: SourceInfo, sink: SinkInfo) -> Destination:
        """Take in a target whose sink is open. Raise ConfigurationError for what it cannot do."""
        one = self._open[name] = self._made(name, target, source, sink)
        return one

    def find(self, source: SourceInfo, topic: str) -> Found:
        """Return the state of the target of a topic, or why there is none yet; begins to open it. Fetch loop."""
        if self._routes is None:
            return self._open[""].shared
        name = self._routes.target_of(topic)
        if name is None:
            return f"no --route is for topic {topic}"
        one = self._open.get(name)
        if one is not None:
            return one.shared
        if name not in self._reasons:
            self._reasons[name] = f"target {name} is being opened"
            try:
                target = self._routes.make(name, [topic])
            except ConfigurationError as error:
                self._reasons[name] = f"target {name}: {error}"
            else:
                self._begin_to_open(name, target, source)
        return self._reasons[name]

    def end(self) -> None:
        """Open nothing more. Any thread."""
        self._ending.set()

    def _made(self, name: str, target: Target, source: SourceInfo, sink: SinkInfo) -> Destination:
        check_capabilities(target.sink, sink)
        agreement = agreed(source, sink, self._options)
        if self._around.several and self._options.writers is None:
            # The targets are written to beside each other already.
            agreement = replace(agreement, writers=1)
        one = destination(name, target, agreement, self._options, self._around)
        _log_started(name, agreement, self._around)
        return one

    def _begin_to_open(self, name: str, target: Target, source: SourceInfo) -> None:
        thread = threading.Thread(
            target=self._open_late, args=(name, target, source), name=f"opening {name}", daemon=True
        )
        self.threads.append(thread)
        thread.start()

    def _open_late(self, name: str, target: Target, source: SourceInfo) -> None:
        wait_s = FIRST_WAIT_S
        while not self._ending.is_set():
            try:
                one = self._made(name, target, source, target.sink.open())
            except (Unreachable, SinkUnavailable, SinkMisconfigured) as error:
                self._reasons[name] = f"target {name}: {error}"
                log.error("target_not_open", target=name, error=str(error), wait_s=wait_s, hint="it is tried again")
                self._ending.wait(wait_s)
                wait_s = min(wait_s * 2, MAX_WAIT_S)
            except BatcherError as error:
                self._reasons[name] = f"target {name}: {error}"
                log.error("target_refused", target=name, error=str(error), hint="its topics are not read")
                target.sink.close()
                return
            else:
                self._opened(one)
                self._open[name] = one
                return
        target.sink.close()


def _log_started(name: str, agreement: Agreement, around: Surroundings) -> None:
    condition = agreement.sink.condition if agreement.exactly_once else ""
    log.info(
        "pipeline_started",
        delivery=f"{agreement.guarantee} {condition}".rstrip(),
        target=agreement.sink.target,
        target_could_keep=agreement.sink.guarantee,
        reason=agreement.reason,
        merges_partitions=agreement.merges_partitions,
        writers=agreement.writers,
        **({"redeliveries": "recognised by _message_id"} if agreement.recognises else {}),
        dead_letters=around.dead_letters is not None,
        native=", ".join(native.jobs()) or "none",
        **({"route": name} if name else {}),
    )
