"""The settings, once: names, types, defaults and what each is for.

The command line, the environment variables, the TOML keys, `--help` and `docs/reference.md` are made from these
classes (`reference.py`). A section is one word, so that `BATCHER_SECTION_NAME` can be split.
The sections of sources, formats, sinks and dead-letter queues come from these themselves (`compose.py`).
It is long because each setting is here with its help, and nowhere else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, PrivateAttr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from batcher.native import Choice
from batcher.options import (
    Duration,
    Fault,
    Flag,
    Names,
    OptionalDuration,
    Pairs,
    Rules,
    SecretStr,
    Section,
    Size,
    WorkerCount,
    Workers,
    masked_value,
    password_faults,
)
from batcher.options.section import AnySection, section_among

_MIB = 1 << 20


def _address(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if not separator or not host or "@" in host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("needs the form HOST:PORT, such as 127.0.0.1:9100")
    return value


def _is_loopback(addr: str) -> bool:
    host = addr.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _rate(value: object) -> object:
    return value.removesuffix("/s").strip() if isinstance(value, str) else value


class BatchSection(Section):
    """When a batch is written: whichever comes first."""

    max_rows: Annotated[int, Field(gt=0), Flag(metavar="N")] = 100_000
    """Write when a batch has this many records."""
    max_bytes: Annotated[Size, Field(gt=0), Flag(metavar="SIZE")] = ByteSize(24 * _MIB)
    """Write when a batch has this many bytes of raw records."""
    max_wait: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=1)
    """Write when the oldest record of a batch has waited this long."""
    memory: Annotated[Size, Field(gt=0), Flag(metavar="SIZE")] = ByteSize(40 * _MIB)
    """Raw records held in memory at most; reading pauses above it."""
    rate: Annotated[float | None, Field(gt=0), Flag(metavar="N/s"), BeforeValidator(_rate)] = None
    """Rows a second that each target gets at most, on average, from each process; as fast as it goes without it."""
    writers: Annotated[int | None, Field(gt=0), Flag(metavar="N")] = None
    """Batches of different partitions written at once, where the target can; by the cores without it."""
    merge_partitions: bool | None = None
    """Exactly-once: let partitions share a batch, where the table has the columns _topic, _partition, _offset; without
    it they do where such a table remembers no tokens."""


class Decode(Section):
    """How bytes become rows."""

    format: Annotated[str, Flag(plugin="format")] = "json"
    """Encoding of the records."""
    framing: Literal["auto", "none", "confluent"] = "auto"
    """What stands before the payload, or in a header: nothing, or the id of its schema; auto: what the format needs."""
    compression: Literal["none", "gzip", "zstd"] = "none"
    """How each message was compressed by its producer, besides what Kafka does."""
    writer_schema: Annotated[str | None, Flag(metavar="FILE")] = None
    """The schema that all records were written with, where no registry has it (.avsc, .proto, .json)."""
    message: Annotated[str, Flag(metavar="NAME")] = ""
    """Protobuf: the message of --decode.writer-schema that records are; not needed where it has only one."""
    validation: Literal["off", "on"] = Field(default="off", alias="validate")
    """on: JSON records also have to keep the JSON-Schema that the registry, or --decode.writer-schema, has for them."""
    key_format: Annotated[str, Flag(metavar="bytes|text|FORMAT")] = "bytes"
    """How keys are read: _key has their bytes or their text; a format fills the columns _key.FIELD."""
    key_framing: Literal["auto", "none", "confluent"] = "auto"
    """As framing, for keys; the header is __key_schema_id."""
    key_writer_schema: Annotated[str | None, Flag(metavar="FILE")] = None
    """As writer-schema, for keys."""
    schema_source: Annotated[str, Flag(metavar="auto|FILE")] = Field(default="auto", alias="schema")
    """auto: from the table, or from the first batch; else an .arrow or .parquet file that has the schema."""
    on_unknown: Literal["warn", "ignore", "reject", "halt", "evolve", "rescue"] = "warn"
    """A field that no column takes: name and count it, do not look, reject the record, stop, add a column, or keep it
    in the column _rescued."""
    max_new_columns: Annotated[int, Field(gt=0), Flag(metavar="N")] = 100
    """Columns that evolve adds to a target in one run; further fields are named and counted."""
    match: Literal["exact", "insensitive"] = "exact"
    """How the names of fields and columns are compared; insensitive: `userId` fills USERID."""
    text: Annotated[Names, Flag(metavar="strict|any|COLUMN[,…]")] = ("strict",)
    """Text columns that take any JSON value, as its JSON text: none, all, or those named."""
    epoch: Annotated[Names, Flag(metavar="auto|none|s|ms|us|ns|COLUMN=UNIT[,…]")] = ("auto",)
    """Unit of numbers in timestamp columns, for all or for one; auto: by their magnitude; none: refuse them."""
    max_message_bytes: Annotated[Size, Field(gt=0), Flag(metavar="SIZE")] = ByteSize(_MIB)
    """Larger records are rejected."""
    max_depth: Annotated[int, Field(gt=0), Flag(metavar="N")] = 64
    """More deeply nested records are rejected."""
    tombstones: Literal["skip", "reject"] = "skip"
    """What to do with a record that has no value."""


class TransformSection(Section):
    """What is done with rows before they are written: filtered, renamed, masked, computed."""

    kind: Annotated[str | None, Flag(plugin="transform")] = None
    """A transform by its name, where none of the following says which; `batcher plugins` lists the names."""
    select: Annotated[str | None, Flag(metavar="SQL")] = None
    """The columns to write, as the list of a SELECT: `*`, names, expressions with AS."""
    where: Annotated[str | None, Flag(metavar="SQL")] = None
    """The condition of the records to write; the others are filtered."""
    python: Annotated[str | None, Flag(metavar="MODULE:FUNCTION")] = None
    """A function of yours that takes rows as a pyarrow.RecordBatch and returns them; after the SQL, if there is any."""


class Dlq(Section):
    """Where rejected records go. With neither topic nor path the first one stops the pipeline."""

    topic: Annotated[str | None, Flag(metavar="TOPIC")] = None
    """Dead letters to this topic of the same brokers."""
    path: Annotated[str | None, Flag(metavar="DIR")] = None
    """Dead letters to NDJSON files in this directory."""
    queue: Annotated[str | None, Flag(plugin="dead-letter queue")] = None
    """Another place for dead letters; topic and path each choose theirs."""
    max_ratio: Annotated[float, Field(gt=0, le=1), Flag(metavar="RATIO")] = 0.5
    """Stop when more than this share of records is rejected."""
    max_consecutive: Annotated[int, Field(gt=0), Flag(metavar="N")] = 1000
    """Stop when this many records in a row are rejected."""
    max_bisect: Annotated[int, Field(ge=0), Flag(metavar="N")] = 1000
    """Inserts that finding the records a server rejects may take for a batch; 0: stop instead."""

    def written_to(self) -> Iterator[tuple[str, str]]:
        if self.path:
            yield "path", self.path


class RetrySection(Section):
    """What to do while the target does not answer."""

    strategy: Literal["exponential", "linear"] = "exponential"
    """How the wait grows: doubled with full jitter, or by the first wait each time."""
    wait: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(milliseconds=500)
    """The first wait."""
    max_wait: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=30)
    """The longest wait."""
    max_elapsed: Annotated[OptionalDuration, Flag(metavar="none|TIME")] = None
    """Give up after this long (exit 75, nothing lost); none: never."""


class Pause(Section):
    """Pause a pipeline from outside, without ending it."""

    file: Annotated[str | None, Flag(metavar="PATH")] = None
    """Pause while this file is there, empty or with the word stopped."""
    redis: Annotated[SecretStr | None, Flag(metavar="redis://HOST")] = None
    """Pause while the key in this Redis has the value stopped: redis://[[user]:password@]host[:port][/database]."""
    key: Annotated[str, Field(min_length=1), Flag(metavar="KEY", public=True)] = "batcher"
    """The key in Redis."""
    action: Literal["hold", "drop"] = "hold"
    """hold: read and write nothing; drop: skip and commit what comes."""

    def impossible(self) -> Iterator[Fault]:
        if self.file is not None and self.redis is not None:
            yield Fault("file", "cannot go with --pause.redis: give one of them")
        url = "" if self.redis is None else self.redis.get_secret_value()
        if url and not url.startswith(("redis://", "rediss://")):
            yield Fault("redis", "is a URL, such as redis://localhost:6379")
        yield from password_faults("redis", url, "put it into the file of BATCHER_PAUSE_REDIS_FILE")


class Http(Section):
    """A page for people, metrics, health and status over HTTP."""

    addr: Annotated[str | None, Flag(metavar="HOST:PORT"), AfterValidator(lambda v: v and _address(v))] = None
    """Serve a page, /metrics, /livez, /readyz and /status here, worker I of --workers on port + I; not when it is not
    given."""
    payloads: bool = False
    """Show keys and values of some dead letters on the page."""
    control: bool = False
    """Let those who have the token pause, resume, flush and drain on the page."""
    token_file: Annotated[str | None, Flag(metavar="FILE", public=True)] = None
    """The file with that token: one line of 16 characters or more, readable by its owner only."""
    remote_control: bool = False
    """Allow control where --http.addr is no loopback address. The token travels as it is: put TLS in front."""

    def lacking(self) -> Iterator[Fault]:
        if not self.control:
            for field, given in (("token_file", self.token_file), ("remote_control", self.remote_control)):
                if given:
                    yield Fault(field, "does nothing without --http.control")
            return
        if self.addr is None:
            yield Fault("control", "needs --http.addr")
        if self.token_file is None:
            yield Fault("control", "needs --http.token-file")
        if self.addr is not None and not self.remote_control and not _is_loopback(self.addr):
            yield Fault(
                "control",
                f"{self.addr} is open to other machines: listen on 127.0.0.1, or say --http.remote-control",
            )


class LogSection(Section):
    """Logs, on stderr."""

    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else one JSON object a line."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level to show."""


class Settings(BaseSettings):
    """Hold every setting of a pipeline. Reads nothing by itself: `load` does that.

    `Settings(...)` has the sections of the built-in plug-ins; those of others are in the classes that `compose` makes.
    """

    model_config = SettingsConfigDict(
        env_prefix="BATCHER_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )
    source: Annotated[str, Flag(plugin="source")] = "kafka"
    """Where records come from; `batcher plugins` lists the names."""
    sink: Annotated[str | None, Flag(plugin="sink")] = None
    """Where to write; `batcher plugins` lists the names."""
    route: Annotated[Rules, Flag(metavar="REGEX=TARGET")] = ()
    """The table or directory for topics whose whole name matches, with $1 for a group and {topic}; may be repeated."""
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
    workers: Annotated[Workers, Flag(metavar="N|MIN..MAX")] = WorkerCount(1)
    """Processes that share the partitions, on this machine; sizes and limits hold for each. MIN..MAX: as many as what
    is left to read needs."""
    worker_backlog: Annotated[int, Field(gt=0), Flag(metavar="N")] = 100_000
    """With --workers MIN..MAX: for how many records that are left there is one process."""
    native: Choice = "auto"
    """The native extension, which fetches and decodes several times as fast: where it is installed, for decoding only,
    not, or not without it."""
    options: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = Field(default_factory=dict)
    """Options of a plug-in that has no section for them; may be repeated."""
    batch: BatchSection = BatchSection()
    """When a batch is written: whichever comes first."""
    decode: Decode = Decode()
    """How bytes become rows."""
    transform: TransformSection = TransformSection()
    """What is done with rows before they are written: filtered, renamed, masked, computed."""
    dlq: Dlq = Dlq()
    """Where rejected records go. With neither topic nor path the first one stops the pipeline."""
    retry: RetrySection = RetrySection()
    """What to do while the target does not answer."""
    pause: Pause = Pause()
    """Pause a pipeline from outside, without ending it."""
    http: Http = Http()
    """A page for people, metrics, health and status over HTTP."""
    log: LogSection = LogSection()
    """Logs, on stderr."""

    owners: ClassVar[Mapping[str, str]] = {}
    """For each section of a plug-in, the key of the setting that names the plug-in, such as `sink`."""

    def __new__(cls, **values: Any) -> Self:
        """Return settings with the sections of the built-in plug-ins, where no others were asked for."""
        del values
        if cls is not Settings:
            return super().__new__(cls)
        from batcher.settings.compose import compose  # noqa: PLC0415 - it is made from this class

        made: Any = compose(())
        return super().__new__(made)  # type: ignore[no-any-return]

    def __init__(self, **values: Any) -> None:  # the sections of plug-ins are not known here
        super().__init__(**values)

    def section(self, model: type[AnySection]) -> AnySection:
        """Return the section of this model. Raise LookupError where there is none."""
        return section_among(self.sections(), model)

    def sections(self) -> tuple[Section, ...]:
        """Return all sections, in their order."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in values if isinstance(value, Section))

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
        """Return a function that reads the files with secrets anew, or None where nothing of the key came from a file.

        The function raises UsageError where a file is gone or no longer holds what it did.
        """
        return self._read_again if key in self._from_files else None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked_value(name or "", value)
