"""What the tests of disturbed groups share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from batcher.embedded.jars import Unavailable
from batcher.testing.real_broker import RealBroker
from tests.harness.disturbance import IMPATIENT, GroupScene, Membership
from tests.harness.stores import S3Server, versitygw
from tests.harness.targets import ClickHouseTable, ParquetBucket, ParquetDirectory, TableKind, Target

TABLE = TableKind(window=10_000)
"""It remembers tokens and has coordinates: what a worker writes that froze in the middle is caught by either."""


@pytest.fixture(scope="session")
def impatient_broker() -> Iterator[RealBroker]:
    """Return a broker whose groups notice their dead soon, or skip with the reason why there is none."""
    try:
        with RealBroker(IMPATIENT) as running:
            yield running
    except Unavailable as error:
        pytest.skip(f"no Kafka broker of one's own: {error}")


@pytest.fixture
def gateway() -> Iterator[S3Server]:
    """Return a real S3 server of one's own, or skip with the reason why there is none."""
    with versitygw() as (_, server):
        yield server


@pytest.fixture
def disturbed(
    impatient_broker: RealBroker, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., GroupScene]:
    """Return what makes a scene: with a membership, a target, and whatever a scene takes.

    The target is one that is made already, `Parquet`, `Parquet on S3`, or a table.
    """

    def target_of(kind: str | TableKind | Target) -> Target:
        if not isinstance(kind, str | TableKind):
            return kind
        if kind == "Parquet on S3":
            return ParquetBucket(request.getfixturevalue("gateway"), f"orders-{uuid4().hex[:8]}")
        if kind == "Parquet":
            return ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
        table = kind if isinstance(kind, TableKind) else TABLE
        return ClickHouseTable(request.getfixturevalue("clickhouse_server"), f"orders_{uuid4().hex[:8]}", table)

    def make(
        membership: Membership, kind: str | TableKind | Target, *, partitions: int = 3, **options: Any
    ) -> GroupScene:
        topic = f"orders-{uuid4().hex[:8]}"
        impatient_broker.create_topic(topic, partitions)
        return GroupScene(
            impatient_broker,
            target_of(kind),
            tmp_path,
            membership,
            topic=topic,
            group=f"loaders-{uuid4().hex[:8]}",
            partitions=partitions,
            **{"delivery": "exactly-once", **options},
        )

    return make
