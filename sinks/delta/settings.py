"""The section [delta]. Light: the command line is made from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from batcher.options import Advice, Fault, Flag, Pairs, password_faults
from sinks.lake.settings import LakeSection


class Delta(LakeSection):
    """The target of `--sink delta`."""

    path: Annotated[str | None, Flag(metavar="DIR|URI")] = None
    """Directory of the table, or s3://, gs://, abfss:// and what else delta-rs knows; made where there is none."""
    option: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = Field(default_factory=dict)
    """Options of the object store, such as region or endpoint_url; may be repeated. Keys are better in variables."""
    property: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = Field(default_factory=dict)
    """Properties of a new table, such as delta.logRetentionDuration='interval 7 days'; may be repeated."""
    encodings: Literal["v1", "v2"] = "v1"
    """v2 keeps whole numbers and times as differences: a fifth smaller and faster; readers since Spark 3.3 know it."""
    allow_insecure: bool = False
    """Permit options that switch the check of certificates off."""

    routed: ClassVar[str] = "path"

    def faster(self) -> Iterator[Advice]:
        yield Advice("fewer commits, and larger files", ("--batch.max-wait", "60s"))
        if self.partition_by:
            names = ",".join(self.partition_by)
            yield Advice(f"each batch is a file in every partition of {names}: a coarser one, or larger batches")

    def written_to(self) -> Iterator[tuple[str, str]]:
        if self.path:
            yield "path", self.path

    def lacking(self) -> Iterator[Fault]:
        if not self.path:
            yield Fault("path", "which directory?")

    def impossible(self) -> Iterator[Fault]:
        yield from super().impossible()
        yield from password_faults("path", self.path or "", "leave the keys to the environment (AWS_ACCESS_KEY_ID …)")
