"""Records into columns without an object for each: librdkafka's queues are emptied by the native extension.

The extension (`native/`) is a plug-in of librdkafka, which hands it the consumer that is being made. The partitions are
forwarded to a queue of its own. The consumer's own queue stays with confluent-kafka, which alone can call back:
rebalances, errors, statistics and logs come out of `consume()`, and nothing is assigned or revoked between two calls of
it. Where any of this cannot be had, Python fetches (`records_reader.py`), with the same outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import confluent_kafka
import pyarrow as pa
import structlog
from confluent_kafka import Consumer, KafkaError, Message, cimpl

from batcher import native
from batcher.errors import ConfigurationError, ExtensionMissing
from batcher.records import HEADERS_TYPE, Partition, Records
from batcher.sources.kafka.cluster import connect
from batcher.sources.kafka.columns import to_records
from batcher.sources.kafka.records_reader import (
    LINGER_S,
    Fetched,
    MessageReader,
    PartitionEvent,
    RecordReader,
    event_of,
)

log = structlog.get_logger(__name__)

PLUGIN: Final = "plugin.library.paths"

CALLS: Final = 1000
"""What is taken from the consumer's own queue at a time: callbacks, and what is no record of a partition."""

_PLAIN: Final = pa.schema(
    [("offset", pa.int64()), ("timestamp", pa.int64()), ("key", pa.binary()), ("value", pa.binary())]
)
_WITH_HEADERS: Final = _PLAIN.append(pa.field("headers", HEADERS_TYPE))


class ReaderMaker:
    """Make the consumer of a source, and what reads from it: natively where `choice` and the installation permit it.

    Raise ExtensionMissing, here or when the consumer is made, where `choice` requires what cannot be had.
    """

    def __init__(self, choice: native.Choice) -> None:
        self._choice = choice
        self._extension = None if choice == "decode" else native.extension(choice)
        self._untold = "" if self._extension is None else misfit(self._extension)
        if self._untold:
            self._extension = None
            self._require(self._untold)

    def connect(self, settings: dict[str, Any], topic: str | None) -> tuple[Consumer, RecordReader]:
        """Return a consumer and its reader. `topic` is the only one, where that is known. Raise as `connect` does."""
        if self._extension is not None:
            try:
                consumer = connect({**settings, PLUGIN: str(Path(self._extension.__file__ or "").absolute())})
                native.take("fetch")
                return consumer, NativeReader(consumer, self._extension.Fetcher(), topic)
            except ConfigurationError as error:
                # It may be something else that is refused: then the next line raises the error for people.
                refusal = f"librdkafka takes no plug-in here ({error})"
            connect(dict(settings)).close()
            self._extension, self._untold = None, refusal
            self._require(refusal)
        consumer = connect(dict(settings))
        if self._untold:
            log.warning("native_fetch_not_used", reason=self._untold, hint="Python does the same, slower")
            self._untold = ""
        return consumer, MessageReader(consumer, topic)

    def _require(self, lacking: str) -> None:
        if self._choice == "require":
            raise ExtensionMissing(
                f"--native require: {lacking}; with --native auto Python fetches, to the same outcome"
            )


def misfit(extension: ModuleType) -> str:
    """Return why an extension cannot fetch beside the confluent-kafka that is installed; nothing where it can."""
    if not hasattr(extension, "Fetcher"):
        return f"the module {native.MODULE} fetches nothing on this system"
    if ";" in (extension.__file__ or ""):
        return f"librdkafka takes no plug-in with a semicolon in its path ({extension.__file__})"
    found, told = extension.librdkafka(cimpl.__file__), confluent_kafka.libversion()
    if not found:
        return f"librdkafka {told[0]} does not show the functions that are needed"
    if found != told[1]:
        return f"another librdkafka is in the way ({found:#010x}, not {told[0]})"
    return ""


class NativeReader:
    """Take columns out of librdkafka's queues (see RecordReader). `fetcher` is the extension's, for this consumer."""

    def __init__(self, consumer: Consumer, fetcher: Any, topic: str | None) -> None:
        self._consumer = consumer
        self._fetcher = fetcher
        self._topic = topic

    def expect(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._fetcher.route(*partition)

    def forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._fetcher.unroute(*partition)

    def read(self, max_records: int, max_bytes: int, timeout_s: float) -> Fetched:
        calls = self._consumer.consume(CALLS, 0)
        runs, events = self._of(calls) if calls else ([], [])
        # What is there already is not kept waiting.
        wait_ms = 0 if calls else int(timeout_s * 1000)
        found, happened = self._fetcher.fetch(max_records, max_bytes, wait_ms, round(LINGER_S * 1000))
        for one in found:
            schema = _WITH_HEADERS if one.with_headers else _PLAIN
            # By address: it costs half of what a capsule does.
            columns = pa.RecordBatch._import_from_c(one.columns, schema).columns  # noqa: SLF001
            runs.append(Records(Partition(one.topic, one.partition), *columns))
        for code, text, topic, number, offset in happened:
            where = Partition(topic, max(number, 0))
            events.append(PartitionEvent(KafkaError(code, text), where, offset if offset >= 0 else None))
        return runs, events

    def close(self) -> None:
        self._fetcher.close()

    def _of(self, messages: Sequence[Message]) -> Fetched:
        # Events, but for a record that came before its partition was forwarded.
        runs, events = to_records(messages, self._topic)
        return runs, [event_of(message) for message in events]
