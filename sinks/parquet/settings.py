"""The section [parquet]. Light: the command line is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from batcher.options import Advice, Fault, Flag, Names, Pairs, Section, password_faults
from sinks.parquet.directory import separated

Directories = Annotated[tuple[str, ...], BeforeValidator(separated)]
"""What directories are made of, comma separated in text; commas in parentheses belong to a function."""


class Parquet(Section):
    """The target of `--sink parquet`."""

    path: Annotated[str | None, Flag(metavar="DIR|URI")] = None
    """Directory, or the URI of an object store, such as s3://bucket/prefix, gs:// or abfs://; hdfs:// works too."""
    option: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = Field(default_factory=dict)
    """An option of the object store, such as region=eu-west-1 or endpoint=…; may be repeated."""
    allow_insecure: bool = False
    """Permit options that let others read or change what is sent: plain http, certificates that are not checked."""
    compression: Annotated[str, Flag(metavar="CODEC")] = "zstd"
    """zstd, snappy, lz4, gzip or none; with a level as in zstd:3."""
    encodings: Literal["v1", "v2"] = "v1"
    """v2 keeps whole numbers and times as differences: a fifth smaller and faster; readers since Spark 3.3 know it."""
    partition_by: Annotated[Directories, Flag(metavar="COLUMN|FUNCTION(COLUMN)[ as NAME][,…]")] = ()
    """What becomes directories (name=value/): columns; year, month, day, hour, bucket(id, 16), truncate(name, 3)."""
    partition_zone: Annotated[str, Flag(metavar="ZONE")] = "UTC"
    """Whose days and hours partition-by means, such as Europe/Berlin."""
    coordinates: Annotated[Names, Flag(metavar="default|none|key,headers,message_id,attempt,value")] = ("default",)
    """Files carry the columns _partition, _offset and _timestamp; these words add _key, _headers and so on."""
    layout: Literal["auto", "root", "topic"] = "auto"
    """Files of all topics in one root with one schema, or a root for each topic; auto: root for a single topic."""
    max_directories: Annotated[int, Field(gt=0), Flag(metavar="N")] = 1_000
    """Stop where the records of one batch would go into more directories than this."""

    routed: ClassVar[str] = "path"

    def faster(self) -> Iterator[Advice]:
        codec, _, level = self.compression.partition(":")
        if codec == "gzip" or (codec == "zstd" and level not in ("", "1")):
            yield Advice("a faster codec", ("--parquet.compression", "zstd:1"))
        elif codec == "zstd":
            yield Advice("a faster codec, for larger files", ("--parquet.compression", "lz4"))
        if self.partition_by:
            names = ",".join(self.partition_by)
            yield Advice(f"each batch is a file in every directory of {names}: a coarser column, or larger batches")

    def written_to(self) -> Iterator[tuple[str, str]]:
        if self.path:
            yield "path", self.path

    def lacking(self) -> Iterator[Fault]:
        if not self.path:
            yield Fault("path", "which directory?")

    def impossible(self) -> Iterator[Fault]:
        otherwise = "leave the keys to the environment (AWS_ACCESS_KEY_ID …)"
        yield from password_faults("path", self.path or "", otherwise)
