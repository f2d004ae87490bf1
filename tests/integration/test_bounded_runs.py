"""A run with an end loads a part of the log beside the group that loads all of it, and no record twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.generate.events import EventGenerator
from batcher.records import Partition, Position
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.census import Census
from tests.harness.processes import SHORT_SESSION, BatcherProcess, run
from tests.harness.targets import ClickHouseTable, ParquetDirectory, Target

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

NewTopic = Callable[..., str]

RECORDS = 2000
PLACES = 2


@pytest.fixture
def topic(broker: Broker, new_topic: NewTopic) -> str:
    name = new_topic(PLACES)
    for number in range(PLACES):
        broker.produce(name, list(EventGenerator(seed=number).take(RECORDS)), partition=number)
    return name


@pytest.fixture(params=["table", pytest.param("parquet", marks=pytest.mark.long)])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "parquet":
        return ParquetDirectory(tmp_path / "out")
    server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
    return ClickHouseTable(server, request.getfixturevalue("new_table")())


def of(topic: str, *spans: range) -> dict[Partition, range]:
    return {Partition(topic, number): span for number, span in enumerate(spans)}


def test_a_backfill_beside_a_running_group_loads_what_is_missing_and_nothing_twice(
    broker: Broker, topic: str, new_group: Callable[[], str], target: Target
) -> None:
    group, flags = new_group(), (*target.arguments, "-b", broker.bootstrap, "-t", topic)
    # The group has begun late: it has some of the second partition, and all that came since in the first.
    places = of(topic, range(0), range(0))
    first, second = places
    broker.commit(group, {first: Position(RECORDS), second: Position(500)})
    with BatcherProcess(*flags, "-g", group, "--batch.max-wait", "200ms") as live:
        live.wait_for("batch_written")
        broker.produce(topic, list(EventGenerator(seed=9).take(300)), partition=0)
        with BatcherProcess(*flags, "-g", group, "--kafka.end", "latest", "--batch.max-rows", "700") as backfill:
            assert backfill.wait(120) == 0, backfill.stderr
        assert live.exit_code is None
        live.wait_for("batch_written")
        live.signal(15)
        assert live.wait(60) == 0, live.stderr
    again = run(*flags, "-g", group, "--until-eof", "--json")
    assert again.code == 0, again.stderr

    census = Census.of(of(topic, range(RECORDS + 300), range(RECORDS)), target.loaded().coordinates)
    assert census.exact, census


def test_a_backfill_that_was_killed_goes_on_under_the_same_flags_and_loads_no_record_twice(
    broker: Broker, topic: str, new_group: Callable[[], str], target: Target
) -> None:
    flags = (*target.arguments, "-b", broker.bootstrap, "-t", topic, "-g", new_group(), *SHORT_SESSION)
    flags = (*flags, "--kafka.start", "0=100,1=0", "--kafka.end", "0=1900,1=1500")
    with BatcherProcess(*flags, "--batch.max-rows", "300", "--batch.rate", "900/s") as backfill:
        backfill.wait_for("batch_written")
        backfill.kill()
    done = run(*flags, "--json")
    assert done.code == 0, done.stderr
    census = Census.of(of(topic, range(100, 1900), range(1500)), target.loaded().coordinates)
    assert census.exact, census

    # There is nothing left for a third one.
    assert run(*flags, "--json").facts["consumed"] == 0


def test_a_part_between_two_times_is_loaded_and_the_bounds_are_half_open(
    broker: Broker, new_topic: NewTopic, new_group: Callable[[], str], tmp_path: Path
) -> None:
    topic, target = new_topic(), ParquetDirectory(tmp_path / "out")
    day = 1_760_000_000_000
    events = list(EventGenerator(seed=3).take(100))
    broker.produce(topic, events, partition=0, timestamps_ms=[day + 1000 * number for number in range(100)])
    flags = (*target.arguments, "-b", broker.bootstrap, "-t", topic, "-g", new_group(), "--json")
    done = run(*flags, "--kafka.start", str(day + 20_000), "--kafka.end", "2025-10-09T08:54:00Z")
    assert done.code == 0, done.stderr
    assert Census.of({Partition(topic, 0): range(20, 40)}, target.loaded().coordinates).exact, done.facts


def test_a_target_that_cannot_be_asked_is_refused_unless_it_has_none_of_the_records(
    broker: Broker, topic: str, new_group: Callable[[], str]
) -> None:
    flags = ("--sink", "null", "-b", broker.bootstrap, "-t", topic, "-g", new_group(), "--kafka.end", "latest")
    refused = run(*flags)
    assert refused.code == 78
    assert "cannot be asked for the rows it has" in refused.stderr
    assert "--on-existing write" in refused.stderr
    assert run(*flags, "--on-existing", "write", "--json").facts["written"] == PLACES * RECORDS


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--kafka.end", "0=9999"), "ends at 2000, and 9999 is not there yet"),
        (("--kafka.start", "0=5"), "says nothing about"),
    ],
    ids=["end", "start"],
)
def test_bounds_that_the_log_does_not_have_are_refused_with_what_to_change(
    broker: Broker, topic: str, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    target = ParquetDirectory(tmp_path / "out")
    done = run(*target.arguments, "-b", broker.bootstrap, "-t", topic, "-g", topic, *more)
    assert done.code == 78, done.stderr
    assert said in done.stderr
