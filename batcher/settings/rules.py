"""Refuse settings that cannot work together, before anything is opened.

What concerns one part alone (topics, properties, paths) that part checks itself when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from batcher.settings.masking import unencoded_password
from batcher.settings.model import Settings
from batcher.settings.units import show_size

# The values of one batch travel in one Arrow binary array, whose 32-bit offsets end at 2 GiB. Half of that
# leaves room for the last fetch, which is added whole.
MAX_BATCH_BYTES: Final = 1 << 30


MAX_PORT: Final = 65535


class Problem(NamedTuple):
    """Say what is wrong with the settings at these paths, the first being the one to change."""

    paths: tuple[tuple[str, ...], ...]
    message: str


_ENCODE: Final = "holds @, /, # or ? in the password or an @ behind the host: write %40, %2F, %23 or %3F for it"


def conflicts(settings: Settings) -> Iterator[Problem]:
    """Yield what is impossible whatever the verb."""
    if unencoded_password(settings.clickhouse.dsn.get_secret_value()):
        yield Problem(
            (("clickhouse", "dsn"),),
            f"{_ENCODE}, or give the password with BATCHER_CLICKHOUSE_PASSWORD or BATCHER_CLICKHOUSE_PASSWORD_FILE",
        )
    if settings.parquet.path and unencoded_password(settings.parquet.path):
        yield Problem((("parquet", "path"),), f"{_ENCODE}, or leave the keys to the environment (AWS_ACCESS_KEY_ID …)")
    if "@" in (settings.kafka.brokers or ""):
        yield Problem(
            (("kafka", "brokers"),),
            "holds an @: brokers are HOST:PORT; name and password go to BATCHER_KAFKA_OPTIONS_FILE, as sasl.username=… "
            "and sasl.password=…",
        )
    batch, dlq, retry = settings.batch, settings.dlq, settings.retry
    if batch.max_bytes > MAX_BATCH_BYTES:
        yield Problem((("batch", "max_bytes"),), f"at most {show_size(MAX_BATCH_BYTES)}: a batch is one Arrow array")
    elif batch.memory < batch.max_bytes:
        sizes = f"{show_size(batch.memory)} is less than one batch of {show_size(batch.max_bytes)}"
        yield Problem((("batch", "memory"), ("batch", "max_bytes")), f"{sizes} (--batch.max-bytes)")
    if dlq.topic and dlq.path:
        yield Problem(
            (("dlq", "topic"), ("dlq", "path")), "cannot go with --dlq.path: choose one place for dead letters"
        )
    if retry.max_wait < retry.wait:
        yield Problem((("retry", "max_wait"), ("retry", "wait")), "is less than the first wait (--retry.wait)")
    if retry.max_elapsed is not None and retry.max_elapsed.total_seconds() <= 0:
        yield Problem((("retry", "max_elapsed"),), "is none or more than 0s")


def unshared(settings: Settings) -> Iterator[Problem]:
    """Yield what several workers cannot have."""
    if settings.workers == 1:
        return
    if settings.sink == "clickhouse" and settings.clickhouse.dsn.get_secret_value().startswith("chdb:"):
        yield Problem(
            (("workers",), ("clickhouse", "dsn")),
            "the embedded engine lets one process into its directory; load into a server, or with 1 worker",
        )
    if settings.max_records is not None:
        yield Problem(
            (("workers",), ("max_records",)), "cannot go with --max-records: no worker knows what the others have read"
        )
    port = int((settings.http.addr or ":0").rpartition(":")[2])
    if port and port + settings.workers - 1 > MAX_PORT:
        yield Problem((("http", "addr"), ("workers",)), f"worker I takes port + I, and {MAX_PORT} is the last one")


def missing(settings: Settings) -> Iterator[Problem]:
    """Yield what `run` cannot do without."""
    if not settings.sink:
        yield Problem((("sink",),), "where to write? clickhouse, parquet, or a name from `batcher plugins`")
    if not settings.kafka.brokers:
        yield Problem((("kafka", "brokers"),), "which brokers? -b HOST:PORT")
    if not settings.kafka.topics:
        yield Problem((("kafka", "topics"),), "which topics? -t TOPIC")
    if not settings.kafka.group:
        yield Problem((("kafka", "group"),), "which consumer group? -g NAME")
    if settings.sink == "clickhouse" and not settings.clickhouse.table:
        yield Problem((("clickhouse", "table"),), "which table?")
    if settings.sink == "parquet" and not settings.parquet.path:
        yield Problem((("parquet", "path"),), "which directory?")
