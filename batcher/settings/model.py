"""The settings, once: names, types, defaults and what each is for.

The command line, the environment variables, the TOML keys, `--help` and the table in the README are made
from these classes (`reference.py`). A section is one word, so that `BATCHER_SECTION_NAME` can be split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from batcher.settings.masking import masked_value
from batcher.settings.units import Duration, Names, OptionalDuration, Pairs, Size

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Flag:
    """Say how a setting looks on the command line, where that cannot be told from its name and type."""

    short: str | None = None
    metavar: str | None = None


def _start(value: str) -> str:
    if value in ("earliest", "latest"):
        return value
    try:
        if value.isdecimal():
            moment = datetime.fromtimestamp(int(value) / 1000, UTC)
        else:
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        before_the_epoch = moment.timestamp() < 0
    except (ValueError, OverflowError, OSError):
        raise ValueError("is earliest, latest, a time such as 2026-01-31T12:00:00Z, or epoch milliseconds") from None
    if before_the_epoch:
        raise ValueError("is a time before 1970; write earliest")
    return value if value.isdecimal() else moment.isoformat()


def _address(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or "@" in host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("needs the form HOST:PORT, such as 127.0.0.1:9100")
    return value


class Section(BaseModel):
    """Refuse what is not known, and never show an input in an error: it may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked_value(name or "", value)


class Kafka(Section):
    """Where records come from."""

    brokers: Annotated[str | None, Flag("-b", "HOST:PORT[,…]")] = None
    """Brokers to ask first."""
    topics: Annotated[Names, Flag("-t", "TOPIC[,…]|^REGEX")] = ()
    """Topics to read; may be repeated. A name that starts with ^ is a regular expression."""
    group: Annotated[str | None, Flag("-g", "NAME")] = None
    """Consumer group; its committed offsets are the only state."""
    start: Annotated[str, Flag(metavar="earliest|latest|TIME"), AfterValidator(_start)] = "earliest"
    """Where to start where the group has no offset yet. TIME: ISO 8601 (UTC unless it says otherwise) or epoch ms."""
    options: Annotated[Pairs, Flag("-X", "PROPERTY=VALUE")] = Field(default_factory=dict)
    """Any other librdkafka property; may be repeated. `-X list` and `-X dump` show them."""
    instance: Annotated[str | None, Flag(metavar="ID")] = None
    """Static membership: after a restart the same ID gets its partitions back at once (classic group protocols).
    With --workers, worker I has ID-I."""
    allow_insecure: bool = False
    """Permit properties that switch the check of certificates off."""
    on_gap: Literal["halt", "skip"] = "halt"
    """When the next record to read is gone from the log: stop and name the gap, or log it and read on."""


class Batch(Section):
    """When a batch is written: whichever comes first."""

    max_rows: Annotated[int, Field(gt=0), Flag(metavar="N")] = 100_000
    """Write when a batch has this many records."""
    max_bytes: Annotated[Size, Field(gt=0), Flag(metavar="SIZE")] = ByteSize(24 * _MIB)
    """Write when a batch has this many bytes of raw records."""
    max_wait: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=1)
    """Write when the oldest record of a batch has waited this long."""
    memory: Annotated[Size, Field(gt=0), Flag(metavar="SIZE")] = ByteSize(48 * _MIB)
    """Raw records held in memory at most; reading pauses above it."""
    merge_partitions: bool = False
    """Exactly-once: let partitions share a batch, where the table has the columns _topic, _partition, _offset."""


class ClickHouse(Section):
    """The target of `--sink clickhouse`."""

    dsn: Annotated[SecretStr, Flag(metavar="URL")] = SecretStr("http://localhost:8123/default")
    """http://[user[:password]@]host:port/database, https://…, or chdb:///path for the embedded engine."""
    table: Annotated[str | None, Flag(metavar="[DATABASE.]TABLE")] = None
    """Table to insert into; it must be there."""
    user: Annotated[str | None, Flag(metavar="NAME")] = None
    """User, where the URL has none (falls back to CLICKHOUSE_USER)."""
    password: Annotated[SecretStr | None, Flag(metavar="SECRET")] = None
    """Password; better from a variable or file than from here (falls back to CLICKHOUSE_PASSWORD)."""
    settings: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = Field(default_factory=dict)
    """Settings of the server for every insert; may be repeated."""
    insert_timeout: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=120)
    """How long an insert may take, here and in the server; then it is tried again."""
    allow_memory: bool = False
    """Permit a table of engine Memory, whose rows end with the server."""


class Parquet(Section):
    """The target of `--sink parquet`."""

    path: Annotated[str | None, Flag(metavar="DIR|URI")] = None
    """Directory, or s3://bucket/prefix and what else pyarrow.fs knows."""
    compression: Annotated[str, Flag(metavar="CODEC")] = "zstd"
    """zstd, snappy, lz4, gzip or none; with a level as in zstd:3."""
    partition_by: Annotated[Names, Flag(metavar="COLUMN[,…]")] = ()
    """Columns that become hive directories (column=value/)."""
    coordinates: Literal["default", "value", "none"] = "default"
    """Whether files carry the columns _partition, _offset and _timestamp; value: and _value, the whole message."""
    layout: Literal["auto", "root", "topic"] = "auto"
    """Files of all topics in one root with one schema, or a root for each topic; auto: root for a single topic."""
    max_directories: Annotated[int, Field(gt=0), Flag(metavar="N")] = 1_000
    """Stop where the records of one batch would go into more directories than this."""


class Decode(Section):
    """How bytes become rows."""

    format: Annotated[str, Flag(metavar="NAME")] = "json"
    """Encoding of the records."""
    schema_source: Annotated[str, Flag(metavar="auto|FILE")] = Field(default="auto", alias="schema")
    """auto: from the table, or from the first batch; else an .arrow or .parquet file that has the schema."""
    on_unknown: Literal["warn", "ignore", "reject", "halt"] = "warn"
    """A field that no column takes: name and count it, do not look, reject the record, or stop."""
    match: Literal["exact", "insensitive"] = "exact"
    """How the names of fields and columns are compared; insensitive: `userId` fills USERID."""
    text: Annotated[Names, Flag(metavar="strict|any|COLUMN[,…]")] = ("strict",)
    """Text columns that take any JSON value, as its JSON text: none, all, or those named."""
    epoch: Annotated[Names, Flag(metavar="auto|s|ms|us|ns|COLUMN=UNIT[,…]")] = ("auto",)
    """Unit of numbers in timestamp columns, for all or for one; auto: by their magnitude."""
    max_message_bytes: Annotated[Size, Field(gt=0), Flag(metavar="SIZE")] = ByteSize(_MIB)
    """Larger records are rejected."""
    max_depth: Annotated[int, Field(gt=0), Flag(metavar="N")] = 64
    """More deeply nested records are rejected."""
    tombstones: Literal["skip", "reject"] = "skip"
    """What to do with a record that has no value."""


class Dlq(Section):
    """Where rejected records go. With neither topic nor path the first one stops the pipeline."""

    topic: Annotated[str | None, Flag(metavar="TOPIC")] = None
    """Dead letters to this topic of the same brokers."""
    path: Annotated[str | None, Flag(metavar="DIR")] = None
    """Dead letters to NDJSON files in this directory."""
    max_ratio: Annotated[float, Field(gt=0, le=1), Flag(metavar="RATIO")] = 0.5
    """Stop when more than this share of records is rejected."""
    max_consecutive: Annotated[int, Field(gt=0), Flag(metavar="N")] = 1000
    """Stop when this many records in a row are rejected."""
    max_bisect: Annotated[int, Field(ge=0), Flag(metavar="N")] = 1000
    """Inserts that finding the records a server rejects may take for a batch; 0: stop instead."""


class Retry(Section):
    """What to do while the target does not answer."""

    strategy: Literal["exponential", "linear"] = "exponential"
    """How the wait grows: doubled with full jitter, or by the first wait each time."""
    wait: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(milliseconds=500)
    """The first wait."""
    max_wait: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=30)
    """The longest wait."""
    max_elapsed: Annotated[OptionalDuration, Flag(metavar="none|TIME")] = None
    """Give up after this long (exit 75, nothing lost); none: never."""


class Http(Section):
    """Metrics, health and status over HTTP."""

    addr: Annotated[str | None, Flag(metavar="HOST:PORT"), AfterValidator(lambda v: v and _address(v))] = None
    """Serve /metrics, /livez, /readyz and /status here, worker I of --workers on port + I; not when it is not given."""


class Log(Section):
    """Logs, on stderr."""

    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else one JSON object a line."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level to show."""


class Settings(BaseSettings):
    """Hold every setting of a pipeline. Reads nothing by itself: `load` does that."""

    model_config = SettingsConfigDict(
        env_prefix="BATCHER_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )
    sink: Annotated[str | None, Flag(metavar="clickhouse|parquet|NAME")] = None
    """Where to write; `batcher plugins` lists the names."""
    delivery: Literal["auto", "exactly-once", "at-least-once"] = "auto"
    """The guarantee; auto is the strongest that the target can keep."""
    on_existing: Literal["halt", "skip", "write"] = "halt"
    """Exactly-once: when the target has records beyond the commit: stop, load what is missing, or load all of them."""
    ignore_intents: bool = False
    """Start at the committed offsets whatever an earlier run announced there; what it wrote may be written again."""
    until_eof: bool = False
    """Stop when everything that was there at the start is durable."""
    max_records: Annotated[int | None, Field(gt=0), Flag(metavar="N")] = None
    """Stop when this many records are durable."""
    start_timeout: Annotated[Duration, Field(ge=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=30)
    """At the start: how long to wait for a broker or target that does not answer."""
    stop_timeout: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=25)
    """After a signal: time to write and commit what was read."""
    workers: Annotated[int, Field(gt=0, le=1024), Flag(metavar="N")] = 1
    """Processes that share the partitions, on this machine; sizes and limits hold for each."""
    options: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = Field(default_factory=dict)
    """Options of a sink that is neither clickhouse nor parquet; may be repeated."""
    kafka: Kafka = Kafka()
    """Where records come from."""
    batch: Batch = Batch()
    """When a batch is written: whichever comes first."""
    clickhouse: ClickHouse = ClickHouse()
    """The target of `--sink clickhouse`."""
    parquet: Parquet = Parquet()
    """The target of `--sink parquet`."""
    decode: Decode = Decode()
    """How bytes become rows."""
    dlq: Dlq = Dlq()
    """Where rejected records go. With neither topic nor path the first one stops the pipeline."""
    retry: Retry = Retry()
    """What to do while the target does not answer."""
    http: Http = Http()
    """Metrics, health and status over HTTP."""
    log: Log = Log()
    """Logs, on stderr."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller only, so that an environment never reaches a test or a program unasked."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    _from_files: frozenset[str] = PrivateAttr(default=frozenset())
    _read_again: Callable[[], Settings] | None = PrivateAttr(default=None)

    def keep_secret_files(self, keys: frozenset[str], read_again: Callable[[], Settings]) -> None:
        """Remember which keys came from `*_FILE` variables, and how to make these settings with the files as they are.

        A key is that of the whole setting, such as `clickhouse.password` or `kafka.options`.
        """
        self._from_files, self._read_again = keys, read_again

    def read_again(self, key: str) -> Callable[[], Settings] | None:
        """Return what reads the files with secrets anew, or None where nothing of the key came from a file.

        What is returned raises UsageError where a file is gone or no longer holds what it did.
        """
        return self._read_again if key in self._from_files else None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked_value(name or "", value)
