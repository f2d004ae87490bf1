"""An engine that is killed in the middle of an insert may remember the token and not have the rows.

Seen with chDB on a plain MergeTree with a window: of 60 kills aimed at the growth of its log of tokens, 7 left a token
without its rows. The same insert is then dropped as a repeat, and success is reported. Here the rows are deleted
instead, which leaves the same and can be had every time.
"""

import os
import signal
from collections.abc import Callable

import pytest

from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.census import Filling, fill
from tests.harness.processes import BatcherProcess
from tests.harness.targets import ClickHouseTable, TableKind

pytestmark = [pytest.mark.broker]

BATCH = 1_000
RECORDS = 3 * BATCH


@pytest.fixture(scope="module")
def orders(broker: Broker) -> Filling:
    topic = f"orders-{os.urandom(4).hex()}"
    broker.create_topic(topic)
    return fill(broker, topic, 1, RECORDS)


@pytest.fixture
def ids_after_a_replay(
    broker: Broker, orders: Filling, new_group: Callable[[], str], clickhouse_server: ClickHouseServer
) -> Callable[[TableKind], list[int]]:
    """Return what lets a loader die behind its second write, takes the rows away, and starts another."""

    def replay(kind: TableKind) -> list[int]:
        name = f"orders_{os.urandom(4).hex()}"
        table = ClickHouseTable(clickhouse_server, name, kind)
        group = new_group()
        source = ("-b", broker.bootstrap, "-t", orders.topic, "-g", group, "--kafka.instance", group)
        flags = (*source, *table.arguments, "--batch.max-rows", str(BATCH), "--delivery", "exactly-once")
        crash = {"CRASH_AT": "after_write:2"}
        with BatcherProcess(*flags, environment=crash, module="tests.harness.crash_points") as dying:
            assert dying.wait() == -signal.SIGKILL
        clickhouse_server.query(f"ALTER TABLE {name} DELETE WHERE id >= {BATCH} SETTINGS mutations_sync = 2")
        with BatcherProcess(*flags, "--until-eof") as successor:
            assert successor.wait() == 0
        return sorted(table.loaded().ids)

    return replay


@pytest.mark.parametrize("kind", [TableKind(), TableKind(window=100)], ids=["no window", "window"])
def test_a_table_with_coordinates_gets_the_rows_that_it_lacks(
    kind: TableKind, ids_after_a_replay: Callable[[TableKind], list[int]]
) -> None:
    assert ids_after_a_replay(kind) == list(range(RECORDS))


def test_without_coordinates_they_are_lost_which_is_why_coordinates_matter(
    ids_after_a_replay: Callable[[TableKind], list[int]],
) -> None:
    kind = TableKind(window=100, coordinates=False)
    assert ids_after_a_replay(kind) == [number for number in range(RECORDS) if number // BATCH != 1]
