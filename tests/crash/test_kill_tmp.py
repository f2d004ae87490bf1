"""Processes that are killed again and again, at random moments and at each step: nothing lost, nothing duplicated.

The long form (`make test-crash`) kills 32 times in each row; in the ordinary suite some rows are killed a few times.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from batcher.testing.clickhouse import embedded_engine_missing
from batcher.testing.kafka import Broker
from tests.harness import crash_score
from tests.harness.attack import Scene
from tests.harness.kill_loop import WITH_INTENTS, WITH_INTENTS_OVER_HTTP, WITHOUT_INTENTS, kill_loop, named
from tests.harness.patience import LONG
from tests.harness.targets import ClickHouseTable, EmbeddedTable, ParquetDirectory, TableKind, Target
from tests.harness.verdict import Verdict

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

KILLS = 32 if LONG else 5
CONTROL_KILLS = 12 if LONG else 4
SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
PARTITIONS = 3

BY_TIME = ("--batch.max-rows", "1000000")
"""A successor, which has more to read at first, never cuts as the one before it did."""

WRITERS = ("--batch.writers", "3")
APART = (*WRITERS, "--no-batch.merge-partitions")

TOKENS = TableKind(window=10_000, coordinates=False)
COORDINATES = TableKind()
CUT = TableKind(window=10_000, coordinates=False, partition_by="country")
CUT_COORDINATES = TableKind(partition_by="country")
BOTH = TableKind(window=10_000)
CUT_BOTH = TableKind(window=10_000, partition_by="country")


class Case(NamedTuple):
    """Name a row of the score, with its target: directories of a root, or a table on a server or embedded."""

    name: str
    kind: TableKind | None = None
    embedded: bool = False
    partition_by: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    slow_writes_s: float = 0.0
    """Then one process has all partitions, and writes several of them at the same time."""
    short: bool = False

    @property
    def moments(self) -> tuple[str, ...]:
        return WITH_INTENTS if self.kind is None or self.embedded else WITH_INTENTS_OVER_HTTP


CASES = [
    Case("Parquet", short=True),
    Case("Parquet, hive directories", partition_by=("country",)),
    Case("Parquet, three slow writers", flags=WRITERS, slow_writes_s=0.2, short=True),
    Case("Parquet, hive directories, three slow writers", partition_by=("country",), flags=WRITERS, slow_writes_s=0.2),
    Case("ClickHouse over HTTP, tokens, three slow writers", TOKENS, flags=WRITERS, slow_writes_s=0.2, short=True),
    Case("ClickHouse over HTTP, coordinates, three slow writers", COORDINATES, flags=APART, slow_writes_s=0.2),
    Case("ClickHouse over HTTP, tokens", TOKENS),
    Case("ClickHouse over HTTP, coordinates", COORDINATES, short=True),
    Case("ClickHouse over HTTP, `PARTITION BY`, tokens", CUT),
    Case("ClickHouse over HTTP, `PARTITION BY`, coordinates", CUT_COORDINATES),
    Case("ClickHouse over HTTP, coordinates, merged partitions", COORDINATES, flags=("--batch.merge-partitions",)),
    Case("ClickHouse embedded, coordinates", COORDINATES, embedded=True),
    Case("ClickHouse embedded, tokens and coordinates", BOTH, embedded=True),
    Case("ClickHouse embedded, `PARTITION BY`, tokens and coordinates", CUT_BOTH, embedded=True, short=True),
    Case("ClickHouse embedded, `PARTITION BY`, coordinates", CUT_COORDINATES, embedded=True),
]

CONTROLS = [
    Case("Parquet", short=True),
    Case("ClickHouse over HTTP, tokens", TOKENS),
    Case("ClickHouse over HTTP, coordinates", COORDINATES),
    Case("ClickHouse embedded, tokens", TOKENS, embedded=True),
]


def rows(cases: Sequence[Case]) -> pytest.MarkDecorator:
    chosen = [case for case in cases if LONG or case.short]
    return pytest.mark.parametrize("case", chosen, ids=[case.name for case in chosen])


@pytest.fixture
def new_scene(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> Callable[..., Scene]:
    """Return what makes a scene with a topic and a group that nobody has used."""

    def create(target: Target, **options: Any) -> Scene:
        topic = new_topic(PARTITIONS)
        return Scene(
            broker,
            target,
            tmp_path,
            topic=topic,
            group=new_group(),
            partitions=PARTITIONS,
            # Leaves half of a small machine to the processes that are started again and again.
            rate=1_200,
            seed=SEED,
            **options,
        )

    return create


@pytest.fixture
def attack(
    new_scene: Callable[..., Scene], tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[Case, str, int, Sequence[str]], Verdict]:
    """Return what runs a case: with a guarantee, so many kills, at these moments."""

    def target_of(case: Case) -> Target:
        if case.kind is None:
            return ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow", partition_by=case.partition_by)
        if case.embedded:
            if (reason := embedded_engine_missing()) is not None:
                pytest.skip(reason)
            return EmbeddedTable(tmp_path / "db", "orders", case.kind)
        return ClickHouseTable(request.getfixturevalue("clickhouse_server"), f"orders_{os.urandom(4).hex()}", case.kind)

    def run(case: Case, delivery: str, kills: int, moments: Sequence[str]) -> Verdict:
        # The embedded engine belongs to one process.
        workers = 1 if case.embedded or case.slow_writes_s else 2
        slow = case.slow_writes_s
        with new_scene(
            target_of(case), delivery=delivery, workers=workers, flags=case.flags, slow_writes_s=slow
        ) as scene:
            scene.start()
            kill_loop(scene, kills, moments)
            verdict = scene.settle()
        crash_score.add(case.name, verdict, control=delivery == "at-least-once")
        return verdict

    return run


@rows(CASES)
def test_a_kill_at_any_moment_loses_nothing_and_duplicates_nothing(case: Case, attack: Callable[..., Verdict]) -> None:
    verdict = attack(case, "exactly-once", KILLS, case.moments)

    assert verdict.exact, verdict
    # Enough has happened for that to mean something.
    assert verdict.kills >= KILLS
    assert verdict.replays, verdict
    if LONG:
        assert verdict.present >= 5, verdict
        assert verdict.rows >= 20_000, verdict
        assert set(named(case.moments)) <= verdict.hit.keys(), verdict


@rows(CONTROLS)
def test_without_intents_the_same_kills_duplicate_records_and_this_test_sees_it(
    case: Case, attack: Callable[..., Verdict]
) -> None:
    verdict = attack(case._replace(flags=BY_TIME), "at-least-once", CONTROL_KILLS, WITHOUT_INTENTS)

    assert verdict.complete, verdict
    assert verdict.duplicated > 0, verdict


# A dead member is missed after six seconds.
@pytest.mark.long
def test_a_crash_while_partitions_are_taken_away_loses_nothing_and_duplicates_nothing(
    new_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    target = ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
    with new_scene(target, delivery="exactly-once", workers=2, static=False) as scene:
        first, second = scene.workers
        for one, other in ((first, second), (second, first)) * 2:
            one.start(CRASH_AT="in_revoke")
            one.running.wait_for("batch_written")
            other.start()
            assert one.died()
            other.running.wait_for("batch_written", count=3, after=len(other.running.events))
            other.kill()
        verdict = scene.settle()
    crash_score.add("Parquet, while partitions are taken away", verdict)
    assert verdict.exact, verdict
    assert verdict.hit == {"in_revoke": 4}
