"""The section [clickhouse]. Light: the command line is made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import Field

from batcher.options import Advice, Duration, Fault, Flag, Pairs, SecretStr, Section, password_faults


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

    for_large_batches: ClassVar[bool] = True
    routed: ClassVar[str] = "table"

    def faster(self) -> Iterator[Advice]:
        yield Advice(
            "the server takes its time for each row: look at what an insert costs there (system.query_log), at "
            "materialized views, projections and skipping indexes, and at its disks"
        )

    def written_to(self) -> Iterator[tuple[str, str]]:
        if (dsn := self.dsn.get_secret_value()).startswith("chdb://"):
            yield "dsn", dsn.removeprefix("chdb://").partition("?")[0]

    def lacking(self) -> Iterator[Fault]:
        if not self.table:
            yield Fault("table", "which table?")

    def impossible(self) -> Iterator[Fault]:
        yield from password_faults(
            "dsn",
            self.dsn.get_secret_value(),
            "give the password with BATCHER_CLICKHOUSE_PASSWORD or BATCHER_CLICKHOUSE_PASSWORD_FILE",
        )

    def unshared(self) -> Iterator[Fault]:
        if self.dsn.get_secret_value().startswith("chdb:"):
            yield Fault(
                "dsn", "the embedded engine lets one process into its directory; load into a server, or with 1 worker"
            )

    @classmethod
    def borrowed(cls, given: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the variables that clickhouse-client reads, where neither user nor password is given."""
        if {"user", "password"} & given.keys() or "@" in str(given.get("dsn", "")):
            return {}
        return {"user": "CLICKHOUSE_USER", "password": "CLICKHOUSE_PASSWORD"}
