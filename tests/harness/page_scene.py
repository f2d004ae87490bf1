"""A running pipeline with its page, for tests and pictures: JSON orders in memory, a target that does as it is told."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa

from batcher.cli.support import wiring
from batcher.core.buffer import FlushPolicy
from batcher.engine.pipeline import Pipeline
from batcher.engine.report import Summary
from batcher.engine.retry import RetryPolicy
from batcher.errors import SinkUnavailable
from batcher.formats.json.format import JsonFormat
from batcher.protocols import PartitionListener, SinkInfo, SourceInfo
from batcher.records import Block, Outcome, Partition
from batcher.settings import Settings
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource
from batcher.testing.values import make_records

ORDERS = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("amount", pa.float64()),
        pa.field("coupon", pa.string()),
    ]
)


class OrderLog(MemoryLog):
    """Keep orders that are written now."""

    def produce(self, partition: Partition, values: Sequence[bytes | str | None], *, gap: int = 0) -> range:
        del gap
        with self.arrived:
            first = self.end(partition)
            now_ms = int(time.time() * 1000)
            run = make_records(values, partition=partition, first_offset=first)
            run = replace(run, timestamps_ms=pa.array([now_ms] * len(values), pa.int64()))
            self.runs[partition].append(run)
            self._ends[partition] = first + len(values)
            self.arrived.notify_all()
            return range(first, first + len(values))


class LaggingSource(MemorySource):
    """Say how far it is behind, as Kafka does."""

    def open(self, listener: PartitionListener) -> SourceInfo:
        info = super().open(listener)
        return replace(info, capabilities=info.capabilities | {"lag"})

    def lag(self) -> Mapping[Partition, int]:
        log = self.log
        return {
            part: log.end(part) - (log.committed[part].next_offset if part in log.committed else 0)
            for part in self.owned
        }


class NamedSink(ScriptedSink):
    """Be called something, and refuse with a reason while there is one."""

    def __init__(self, name: str = "memory") -> None:
        super().__init__(ORDERS)
        self.name = name
        self.refusal = ""

    def open(self) -> SinkInfo:
        return replace(super().open(), target=self.name)

    def write(self, block: Block) -> Outcome | None:
        if self.refusal:
            raise SinkUnavailable(self.refusal)
        return super().write(block)

    def keep(self, block: Block) -> None:
        """Keep nothing: a picture takes minutes."""


def order(number: int, *, chance: random.Random) -> str:
    """Return an order; some are not what the table wants."""
    facts: dict[str, Any] = {"id": number, "user_id": chance.randrange(50_000), "amount": chance.random() * 200}
    if chance.random() < 0.05:
        facts["campaign"] = "autumn"
    if chance.random() < 0.001:
        facts["user_id"] = "anonymous"
    return json.dumps(facts)


class PageScene:
    """Run a pipeline in a thread and serve its page. `addr` is where; `pipeline`, `sink` and `log` are its parts."""

    def __init__(
        self,
        *,
        partitions: int = 3,
        topic: str = "orders",
        target: str = "memory",
        flush: FlushPolicy | None = None,
        retry: RetryPolicy | None = None,
        http: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.partitions = [Partition(topic, number) for number in range(partitions)]
        self.log = OrderLog(self.partitions)
        self.sink = NamedSink(target)
        self.letters = MemoryDeadLetterQueue()
        self.addr = f"127.0.0.1:{free_port()}"
        self.settings = Settings(**(settings or {}), http={"addr": self.addr, **(http or {})})
        self._page = wiring.page_of(self.settings)
        assert self._page is not None
        self._metrics = wiring.metrics_of(self.settings)
        assert self._metrics is not None
        self.pipeline = Pipeline(
            LaggingSource(self.log),
            self.sink,
            JsonFormat(),
            name="loader",
            dead_letters=self._page.watched(self.letters),
            flush=flush or FlushPolicy(max_rows=1000, max_wait_s=0.05),
            retry=retry or RetryPolicy(wait_s=0.05, max_wait_s=0.2),
            subscribers=[self._metrics, self._page.subscriber],
        )
        self._metrics.watch(self.pipeline.status)
        self.summaries: list[Summary] = []

    @property
    def url(self) -> str:
        return f"http://{self.addr}/"

    @contextmanager
    def running(self) -> Iterator[PageScene]:
        thread = threading.Thread(target=lambda: self.summaries.append(self.pipeline.run()))
        with wiring.answering(self.settings, self._metrics, self.pipeline, self._page):
            thread.start()
            try:
                yield self
            finally:
                self.sink.refusal = ""
                self.sink.release.set()
                self.pipeline.stop()
                thread.join(30)
                assert not thread.is_alive()

    def produce(self, count: int, *, first: int = 0, partitions: Collection[Partition] | None = None) -> None:
        """Write orders to the partitions in turns; about one of a thousand cannot be stored."""
        chance = random.Random(first)
        parts = list(partitions or self.partitions)
        for at, part in enumerate(parts):
            self.log.produce(part, [order(first + n, chance=chance) for n in range(at, count, len(parts))])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
