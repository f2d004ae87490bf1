"""The section [iceberg]. Light: the command line is made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import Field

from batcher.options import Advice, Duration, Fault, Flag, Pairs, password_faults
from sinks.lake.settings import LakeSection


class Iceberg(LakeSection):
    """The target of `--sink iceberg`."""

    catalog: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = {}  # noqa: RUF012 - pydantic copies it
    """Property of pyiceberg's catalog, such as type=rest, uri=…, warehouse=…, s3.endpoint=…; may be repeated."""
    table: Annotated[str | None, Flag(metavar="NAMESPACE.TABLE")] = None
    """Table to load into; it is made where there is none, and its namespace too."""
    property: Annotated[Pairs, Flag(metavar="NAME=VALUE")] = {}  # noqa: RUF012 - pydantic copies it
    """Property of a new table, such as write.parquet.compression-codec=snappy; may be repeated."""
    snapshots: Annotated[int, Field(ge=0), Flag(metavar="N")] = 125
    """Keep about this many of the snapshots that batcher made, and expire older ones; 0: keep all, and pay for each."""
    timeout: Annotated[Duration, Field(gt=timedelta(0)), Flag(metavar="TIME")] = timedelta(seconds=60)
    """How long an answer of a REST catalog or of S3 may take."""

    routed: ClassVar[str] = "table"
    implied: ClassVar[Mapping[str, str]] = {**LakeSection.implied, "batch.max_wait": "60s"}

    def written_to(self) -> Iterator[tuple[str, str]]:
        yield "catalog", self.catalog.get("warehouse", "")
        if (uri := self.catalog.get("uri", "")).startswith("sqlite:///"):
            yield "catalog", uri.removeprefix("sqlite:///")

    def lacking(self) -> Iterator[Fault]:
        if not self.catalog:
            yield Fault("catalog", "which? type=rest uri=http://…, or type=sql uri=sqlite:///FILE warehouse=DIR")
        if not self.table:
            yield Fault("table", "which table? NAMESPACE.TABLE")

    def impossible(self) -> Iterator[Fault]:
        yield from super().impossible()
        if self.table is not None and (
            len(parts := self.table.split(".")) < 2 or any(not part or part != part.strip() for part in parts)
        ):
            yield Fault("table", "is NAMESPACE.TABLE, without spaces around the names")
        otherwise = "give it in a variable (PYICEBERG_CATALOG__DEFAULT__URI)"
        yield from password_faults("catalog", self.catalog.get("uri", ""), otherwise)

    def faster(self) -> Iterator[Advice]:
        if self.partition_by:
            names = ",".join(self.partition_by)
            yield Advice(f"each batch is a file in every partition of {names}: a coarser one, or larger batches")
        yield Advice("fewer, larger commits", ("--batch.max-wait", "5m"))
