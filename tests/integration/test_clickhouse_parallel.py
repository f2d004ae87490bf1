"""Several threads write to one table of a server through one sink, each over a connection of its own."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from batcher.errors import SchemaChanged, SinkMisconfigured, SinkUnavailable
from batcher.protocols import Sink, SinkInfo
from batcher.records import Block, Partition
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.values import make_block
from sinks.clickhouse import plugin
from sinks.clickhouse.parallel import ParallelClickHouseSink

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

THREADS = 3
ROWS = 50


class Scene:
    """Own a table that remembers tokens, a sink open on it, and threads that write."""

    def __init__(self, server: ClickHouseServer, name: str) -> None:
        self.server = server
        self.name = name
        server.query(
            f"CREATE TABLE {name} (id Int64) ENGINE = MergeTree ORDER BY id "
            "SETTINGS non_replicated_deduplication_window = 1000"
        )
        self.sink: Sink = plugin({"dsn": server.dsn, "table": name})
        self.info: SinkInfo = self.sink.open()
        self.pool = ThreadPoolExecutor(THREADS)

    def block(self, number: int, token: str, columns: tuple[str, ...] = ("id",)) -> Block:
        table = pa.table({column: pa.array(range(ROWS), pa.int64()) for column in columns})
        return make_block(table, partition=Partition("events", number), token=f"{self.name}|{number}|{token}")

    def at_once(self, work: Callable[[int], object]) -> list[BaseException | None]:
        """Let each thread work at the same time, and return what they raised."""
        start = threading.Barrier(THREADS)

        def together(number: int) -> None:
            start.wait(60)
            work(number)

        return [done.exception(60) for done in [self.pool.submit(together, number) for number in range(THREADS)]]

    @property
    def count(self) -> int:
        return int(self.server.query(f"SELECT count() FROM {self.name}")[0][0])


@pytest.fixture
def scene(clickhouse_server: ClickHouseServer, new_table: Callable[[], str]) -> Iterator[Scene]:
    one = Scene(clickhouse_server, new_table())
    yield one
    one.pool.shutdown()
    one.sink.close()


def test_threads_write_side_by_side_and_a_token_of_one_is_known_to_the_others(scene: Scene) -> None:
    assert isinstance(scene.sink, ParallelClickHouseSink)
    assert scene.info.concurrent

    assert scene.at_once(lambda number: scene.sink.write(scene.block(number, "a"))) == [None] * THREADS
    assert scene.at_once(lambda number: scene.sink.write(scene.block((number + 1) % THREADS, "a"))) == [None] * THREADS
    assert scene.count == THREADS * ROWS


def test_a_delayed_insert_of_one_thread_and_those_of_the_others_are_all_stored(scene: Scene) -> None:
    scene.at_once(lambda number: scene.sink.write(scene.block(number, "a")))
    went: list[int] = []

    def write(number: int) -> None:
        scene.sink.write(scene.block(number, "b"))
        went.append(number)

    scene.server.inject("delay", delay_s=3.0)
    assert scene.at_once(write) == [None] * THREADS
    assert sorted(went) == list(range(THREADS))
    assert scene.count == 2 * THREADS * ROWS


def test_every_thread_notices_that_the_table_was_altered_before_it_writes(scene: Scene) -> None:
    scene.at_once(lambda number: scene.sink.write(scene.block(number, "a")))
    scene.server.query(f"ALTER TABLE {scene.name} ADD COLUMN more Int64")
    found = scene.at_once(lambda number: scene.sink.write(scene.block(number, "b")))
    assert {type(error) for error in found} == {SchemaChanged}
    both = ("id", "more")

    assert scene.at_once(lambda number: scene.sink.write(scene.block(number, "b", both))) == [None] * THREADS
    assert scene.count == 2 * THREADS * ROWS


def test_a_thread_that_comes_later_knows_the_table_as_it_was_when_the_sink_was_opened(scene: Scene) -> None:
    scene.sink.write(scene.block(0, "a"))
    scene.server.query(f"ALTER TABLE {scene.name} ADD COLUMN more Int64")

    # Its block was made for the columns of before: nothing may be filled in for what is new.
    [error] = [scene.pool.submit(scene.sink.write, scene.block(1, "b")).exception(60)]
    assert isinstance(error, SchemaChanged)


def test_a_thread_that_comes_when_the_table_promises_something_else_is_refused(scene: Scene) -> None:
    scene.sink.write(scene.block(0, "a"))
    scene.server.query(f"ALTER TABLE {scene.name} MODIFY SETTING non_replicated_deduplication_window = 0")

    error = scene.pool.submit(scene.sink.write, scene.block(1, "b")).exception(60)
    assert isinstance(error, SinkMisconfigured)
    assert "cannot keep any more what this run began with" in str(error)


def test_a_thread_that_comes_while_the_server_is_away_tries_again(scene: Scene) -> None:
    scene.sink.write(scene.block(0, "a"))
    scene.server.stop()
    error = scene.pool.submit(scene.sink.write, scene.block(1, "b")).exception(60)
    assert isinstance(error, SinkUnavailable)
    scene.server.start()

    assert scene.pool.submit(scene.sink.write, scene.block(1, "b")).exception(60) is None
    assert scene.count == 2 * ROWS
