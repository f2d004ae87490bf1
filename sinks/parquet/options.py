"""What can be set about the Parquet sink, checked while it is constructed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.growth import stored
from batcher.records import COORDINATES
from sinks.parquet.directory import DirectoryRule, rules_of, separated
from sinks.parquet.encodings import ENCODINGS, Encodings
from sinks.parquet.files import unstorable
from sinks.parquet.function import known_zone
from sinks.parquet.hive import MAX_DIRECTORIES, unfit

MORE_COORDINATES: Final = ("attempt", "headers", "key", "message_id", "value")
"""The coordinates that files may have besides the usual ones, as `--parquet.coordinates` names them."""

Layout = Literal["auto", "root", "topic"]

# zstd 1: 2.7 M rows/s of 8 columns against 2.2 M at 3 and 1.6 M at 5, for the same size. gzip 6 is what zlib calls its
# default; Arrow's own is 9: seven times slower for 2 % (`benchmarks/bench_parquet.py`).
LEVELS: Final[Mapping[str, int | None]] = {"zstd": 1, "snappy": None, "gzip": 6, "lz4": None, "none": None}
"""The codecs and the level of each when none is given."""

PARQUET_COORDINATES: Final = ("_partition", "_offset", "_timestamp")
"""The default coordinate columns of the files; the topic is in the file's name."""


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """Hold the settings of a Parquet sink; raise ConfigurationError, naming the flag, when they cannot work.

    `path` is a local directory, the URI of an object store, or one that `pyarrow.fs` knows. `option` are the options
    of the store (`sinks/stores/options.py`); `allow_insecure` permits those that let others read what is sent.
    `compression` is a codec with an optional level, as in `zstd:3`, `encodings` says which readers the files are for
    (`encodings.py`). `partition_by` says what becomes directories,
    outermost first (`directory.py`), `partition_zone` whose days and hours are meant. `coordinates` "none" omits
    `_partition`, `_offset`, `_timestamp`; words of MORE_COORDINATES, with commas between, add to them.
    `schema` is what the files hold, without coordinates; None takes the root's, or that of the first batch. `layout`
    "topic" gives each topic a root of its own. "auto" does so unless `topics`, as they were subscribed to, name a
    single one. `max_directories` is how many directories one block may spread over.
    """

    path: str
    compression: str = "zstd"
    encodings: Encodings = "v1"
    partition_by: tuple[str, ...] = ()
    partition_zone: str = "UTC"
    coordinates: str = "default"
    schema: pa.Schema | None = None
    layout: Layout = "auto"
    topics: tuple[str, ...] = ()
    max_directories: int = MAX_DIRECTORIES
    option: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_insecure: bool = False

    def __post_init__(self) -> None:
        check_path(self.path)
        parsed_compression(self.compression)
        if self.encodings not in ENCODINGS:
            raise ConfigurationError(f"--parquet.encodings {self.encodings!r} is not v1 or v2")
        if self.coordinates not in ("default", "none"):
            for word in self.coordinates.split(","):
                if word not in MORE_COORDINATES:
                    known = f"default or none, or of {', '.join(MORE_COORDINATES)}"
                    raise ConfigurationError(f"--parquet.coordinates {word!r} is not {known}")
        if self.layout not in get_args(Layout):
            raise ConfigurationError(f"--parquet.layout {self.layout!r} is not auto, root or topic")
        if self.max_directories < 1:
            raise ConfigurationError("--parquet.max-directories must be more than 0")
        if any(rule.timed for rule in self.directories) and self.partition_zone != "UTC":
            check_zone(self.partition_zone)
        if self.schema is not None:
            check_schema(self.schema, self.directories, self.coordinate_columns)

    @staticmethod
    def of(options: Mapping[str, object]) -> ParquetOptions:
        """Return the settings from a mapping, as `plugin` gets them; raise ConfigurationError for unknown keys."""
        unknown = sorted(set(options) - set(ParquetOptions.__dataclass_fields__))
        if unknown:
            raise ConfigurationError(f"--parquet.{unknown[0].replace('_', '-')} is not an option of the Parquet sink")
        for key in ("path", "compression", "encodings", "partition_zone", "layout"):
            if not isinstance(options.get(key, "" if key != "path" else None), str):
                raise ConfigurationError(f"--parquet.{key} has to be given as a text")
        schema = options.get("schema")
        if schema is not None and not isinstance(schema, pa.Schema):
            raise ConfigurationError("--decode.schema did not give an Arrow schema")
        directories = options.get("max_directories", MAX_DIRECTORIES)
        if not isinstance(directories, int) or isinstance(directories, bool):
            raise ConfigurationError("--parquet.max-directories has to be given as a number")
        option = options.get("option", {})
        if not isinstance(option, Mapping) or not all(isinstance(one, str) for pair in option.items() for one in pair):
            raise ConfigurationError("--parquet.option has to be given as names and texts")
        allow_insecure = options.get("allow_insecure", False)
        if not isinstance(allow_insecure, bool):
            raise ConfigurationError("--parquet.allow-insecure has to be true or false")
        return ParquetOptions(
            path=cast("str", options["path"]),
            compression=cast("str", options.get("compression", "zstd")),
            encodings=cast("Encodings", options.get("encodings", "v1")),
            partition_by=texts(options.get("partition_by", ())),
            partition_zone=cast("str", options.get("partition_zone", "UTC")),
            coordinates=",".join(sorted({*texts(options.get("coordinates", "default"), "coordinates")})) or "default",
            schema=schema,
            layout=cast("Layout", options.get("layout", "auto")),
            topics=texts(options.get("topics", ())),
            max_directories=directories,
            option=dict(option),
            allow_insecure=allow_insecure,
        )

    @property
    def directories(self) -> tuple[DirectoryRule, ...]:
        """Return how directories are named, outermost first; raise ConfigurationError."""
        return rules_of(self.partition_by, self.partition_zone)

    @property
    def coordinate_columns(self) -> tuple[str, ...]:
        """Return the coordinate columns of the files."""
        if self.coordinates == "none":
            return ()
        more = [] if self.coordinates == "default" else self.coordinates.split(",")
        return (*PARQUET_COORDINATES, *(name for name in COORDINATES.names if name.removeprefix("_") in more))

    @property
    def by_topic(self) -> bool:
        """Return whether each topic has a root of its own."""
        if self.layout == "auto":
            return len(self.topics) > 1 or any(topic.startswith("^") for topic in self.topics)
        return self.layout == "topic"

    @property
    def codec(self) -> tuple[str, int | None]:
        """Return the codec as Parquet names it and its level; None where it has no levels."""
        return parsed_compression(self.compression)


def texts(given: object, option: str = "partition-by") -> tuple[str, ...]:
    """Return the texts of a sequence, or of a text with commas between them."""
    found = separated(given)
    if isinstance(found, Sequence) and all(isinstance(one, str) for one in found):
        return tuple(found)
    raise ConfigurationError(f"--parquet.{option} has to be given as names of columns")


def local_path(path: str) -> str | None:
    """Return the directory a path means, or None where it is the URI of something remote."""
    if "://" not in path:
        return path
    parts = urlsplit(path)
    return unquote(parts.path) if parts.scheme == "file" else None


def check_path(path: str) -> None:
    """Raise ConfigurationError for a path that can be neither a directory nor a URI."""
    if not path.strip() or "\0" in path:
        raise ConfigurationError("--parquet.path is empty: give a directory, or a URI such as s3://bucket/prefix")
    if "://" in path:
        parts = urlsplit(path)
        if parts.scheme == "file" and (parts.netloc not in ("", "localhost") or not parts.path):
            raise ConfigurationError("--parquet.path is not a file URI of this machine: write file:///directory")
        if parts.scheme != "file" and not parts.netloc:
            raise ConfigurationError("--parquet.path names no bucket: write s3://bucket/prefix")


def check_zone(zone: str) -> None:
    """Raise ConfigurationError for a time zone that is not known here."""
    if not known_zone(zone):
        raise ConfigurationError(
            f"--parquet.partition-zone {zone!r} is not known here: give a name such as Europe/Berlin, "
            "and see that the time zones of the system are installed (tzdata)"
        )


def check_schema(schema: pa.Schema, rules: Sequence[DirectoryRule], coordinates: Sequence[str]) -> None:
    """Raise ConfigurationError for a schema that Parquet cannot hold, or that lacks a partition column."""
    if len(set(schema.names)) < len(schema.names):
        raise ConfigurationError("--decode.schema names a column twice")
    if not len(schema):
        raise ConfigurationError("--decode.schema has no column")
    problem = unstorable(stored(schema))
    if problem:
        raise ConfigurationError(f"--decode.schema: {problem}")
    problem = unfit(schema, rules, coordinates)
    if problem:
        raise ConfigurationError(f"--parquet.partition-by: {problem}")


def parsed_compression(text: str) -> tuple[str, int | None]:
    """Return codec and level of a text such as `zstd:3`; raise ConfigurationError for others."""
    name, colon, level_text = text.partition(":")
    if name not in LEVELS:
        raise ConfigurationError(f"--parquet.compression {text!r} is none of {', '.join(LEVELS)}")
    if not colon:
        return name, LEVELS[name]
    if name in ("snappy", "none"):
        raise ConfigurationError(f"--parquet.compression {text!r}: {name} has no levels")
    # Arrow takes negative levels of zstd too. They are a curiosity, and the sign is easily a slip.
    lowest, highest = 1, int(pa.Codec.maximum_compression_level("lz4_raw" if name == "lz4" else name))
    if not level_text.isdecimal() or not lowest <= int(level_text) <= highest:
        raise ConfigurationError(f"--parquet.compression {text!r}: the level of {name} is from {lowest} to {highest}")
    return name, int(level_text)
