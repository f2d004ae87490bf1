"""`verify` names what was taken from a target or duplicated in it, to the record, and `repair` mends exactly that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batcher.cli import main as cli
from batcher.cli.support import inspection
from batcher.generate.events import EventGenerator
from batcher.records import Partition, Position
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import CLEANED_WITHIN_S, COMPACTED, Broker
from tests.harness.census import Census
from tests.harness.documents import SHAPES, documents
from tests.harness.processes import BatcherProcess
from tests.harness.readers import transaction
from tests.harness.targets import ClickHouseTable, ParquetDirectory, TableKind, Target

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

NewTopic = Callable[..., str]

RECORDS = 6000
POISON = (7, 2500)


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave alone what the verbs tune for a whole process: they run in this one."""
    monkeypatch.setattr(inspection, "tune_collector", lambda: None)
    monkeypatch.setattr(inspection, "tune_memory", lambda: None)


class Job:
    """Load one topic of one partition into a target, and ask about it."""

    def __init__(
        self, request: pytest.FixtureRequest, topic: str, target: Target, letters: tuple[str, ...] = ()
    ) -> None:
        self._capsys: pytest.CaptureFixture[str] = request.getfixturevalue("capsys")
        broker: Broker = request.getfixturevalue("broker")
        group: str = request.getfixturevalue("new_group")()
        self.broker = broker
        self.topic = topic
        self.partition = Partition(topic, 0)
        self.group = group
        self.target = target
        self.flags = (*target.arguments, "-b", broker.bootstrap, "-t", topic, "-g", group, *letters)

    def run(self, *more: str) -> Mapping[str, Any]:
        """Load everything that is there."""
        with BatcherProcess(*self.flags, "--until-eof", "--batch.max-rows", "1000", *more) as running:
            assert running.wait(120) == 0, running.stderr
        return running.summary

    def ask(self, verb: str, *more: str, code: int | None = 0) -> dict[str, Any]:
        """Return what a verb prints with `--json`; with `code` None it may end as it likes."""
        found: dict[str, Any] = json.loads(self.said(verb, *more, "--json", code=code))
        assert found["exit"] == code or code is None
        return found

    def said(self, verb: str, *more: str, code: int | None = 0) -> str:
        """Return what a verb prints, on stdout where it found something out, else on stderr."""
        self._capsys.readouterr()
        ended = cli.main([verb, *self.flags, *more])
        out, err = self._capsys.readouterr()
        assert code is None or ended == code, out + err
        return out or err

    def census(self, offsets: set[int]) -> Census:
        """Compare the target with what should be there."""
        return Census.of({self.partition: offsets}, self.target.loaded().coordinates)


def table(request: pytest.FixtureRequest, kind: TableKind) -> ClickHouseTable:
    server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
    return ClickHouseTable(server, request.getfixturevalue("new_table")(), kind)


def target_of(request: pytest.FixtureRequest, kind: str) -> Target:
    match kind:
        case "parquet":
            return ParquetDirectory(request.getfixturevalue("tmp_path") / "out")
        case "table":
            return table(request, TableKind())
        case _:
            return table(request, TableKind(window=1000))


@pytest.fixture
def job(request: pytest.FixtureRequest, broker: Broker, new_topic: NewTopic) -> Job:
    """Return a job that has loaded a topic with tombstones, poison, and an aborted transaction in it."""
    kind, letters = request.param
    topic = new_topic()
    flags: tuple[str, ...] = ("--dlq.path", str(request.getfixturevalue("tmp_path") / "letters"))
    if letters == "topic":
        flags = ("--dlq.topic", new_topic(2))
    values: list[bytes | None] = list(EventGenerator(seed=1).take(RECORDS))
    for offset in POISON:
        values[offset] = b"{"
    values[100:103] = [None, None, None]
    broker.produce(topic, values[:3000], partition=0)
    transaction(broker, topic, {b"a": b"aborted", b"b": b"aborted"}, commit=False)  # 3000-3002
    broker.produce(topic, values[3000:], partition=0)
    made = Job(request, topic, target_of(request, kind), flags)
    made.run()
    return made


ROWS = set(range(RECORDS + 3)) - {*POISON, 100, 101, 102, 3000, 3001, 3002}
"""The offsets that have a row: neither poison, nor tombstones, nor the aborted transaction."""


def jobs(*kinds: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("job", kinds, indirect=True, ids="-".join)


ALL = (("parquet", "path"), ("table", "topic"), ("remembering", "path"))


@jobs(*ALL)
def test_what_was_loaded_adds_up_with_tombstones_dead_letters_and_aborted_records(job: Job) -> None:
    found = job.ask("verify")

    (one,) = found["partitions"]
    counts = {name: one[name] for name in ("from", "to", "records", "written", "dead_lettered", "tombstones", "gaps")}
    assert counts == {
        "from": 0,
        "to": RECORDS + 3,
        "records": RECORDS,
        "written": RECORDS - 5,
        "dead_lettered": 2,
        "tombstones": 3,
        "gaps": 3,
    }
    assert (found["missing"], found["duplicated"], one["behind"], one["target_beyond"]) == (0, 0, 0, None)
    assert "complete: 6,000 records read" in job.said("verify")


def take_out(target: Target, *offsets: int) -> None:
    """Delete rows as somebody does who does not know what they are for."""
    if isinstance(target, ClickHouseTable):
        server, name = target.server, target.arguments[-1]
        listed = ", ".join(map(str, offsets))
        server.query(f"ALTER TABLE {name} DELETE WHERE _offset IN ({listed}) SETTINGS mutations_sync = 2")
        return
    assert isinstance(target, ParquetDirectory)
    for file in target.path.rglob("*.parquet"):
        content = pq.ParquetFile(file).read()
        gone = pc.is_in(content["_offset"], pa.array(offsets, pa.int64()))
        if gone.combine_chunks().true_count == content.num_rows:
            file.unlink()
        elif gone.combine_chunks().true_count:
            pq.write_table(content.filter(pc.invert(gone)), file)


def double(target: Target, first: int, last: int) -> None:
    """Add rows that are there already."""
    if isinstance(target, ClickHouseTable):
        server, name = target.server, target.arguments[-1]
        server.query(f"INSERT INTO {name} SELECT * FROM {name} WHERE _offset BETWEEN {first} AND {last}")
        return
    assert isinstance(target, ParquetDirectory)
    for file in list(target.path.rglob("*.parquet")):
        content = pq.ParquetFile(file).read()
        kept = pc.and_(pc.greater_equal(content["_offset"], first), pc.less_equal(content["_offset"], last))
        if kept.combine_chunks().true_count:
            name = file.name.partition("+00000+")[0]
            pq.write_table(content.filter(kept), file.with_name(f"{name}+00000+{first:020d}-{last:020d}.parquet"))


@jobs(*ALL)
def test_what_is_taken_out_and_duplicated_is_named_to_the_record_and_mended(job: Job) -> None:
    take_out(job.target, *range(1500, 2500))
    double(job.target, 4210, 4219)

    found = job.ask("verify", code=1)
    (one,) = found["partitions"]
    assert one["missing"] == {"offsets": 1000, "ranges": 1, "first_ranges": [[1500, 2499, 1000]]}
    assert one["duplicated"] == {"offsets": 10, "ranges": 1, "first_ranges": [[4210, 4219, 10]], "copies_too_many": 10}
    text = job.said("verify", code=1)
    assert f"missing: {job.topic}[0] 1500-2499 (1,000)" in text
    assert f"duplicated: {job.topic}[0] 4210-4219 (10)" in text

    before = sorted(job.target.loaded().coordinates)
    assert job.ask("repair", code=1)["would_load"] == 1000
    assert sorted(job.target.loaded().coordinates) == before

    parquet = isinstance(job.target, ParquetDirectory)
    mended = job.ask("repair", "--yes", *(() if parquet else ("--remove-duplicates",)), code=1 if parquet else 0)
    assert mended["repaired"] == {
        "loaded": 1000 if parquet else 1010,
        "dead_lettered": 0,
        "removed": 0 if parquet else 10,
        "refused": 0,
    }
    census = job.census(ROWS)
    assert not census.lost
    assert [offset for _, offset in census.duplicated] == (list(range(4210, 4220)) if parquet else [])


@jobs(*ALL)
def test_single_records_come_back_as_often_as_they_are_taken_out_and_nothing_else_is_touched(job: Job) -> None:
    for _ in range(2):
        take_out(job.target, 0, 5, 8, 999, 1000, 3003, RECORDS + 2)
        assert job.ask("repair", "--yes")["repaired"]["loaded"] == 7
        census = job.census(ROWS)
        assert census.exact, census


@jobs(("table", "path"))
def test_bad_records_among_the_missing_are_put_aside_as_in_a_run(job: Job, tmp_path: Path) -> None:
    for file in (tmp_path / "letters").iterdir():
        file.unlink()
    take_out(job.target, *range(2000, 3000))

    found = job.ask("verify", code=1)
    # Tombstones and what is missing by itself are not one run: what lies between them is there.
    assert found["partitions"][0]["missing"]["first_ranges"] == [[7, 7, 1], [2000, 2999, 1000]]
    mended = job.ask("repair", "--yes")
    assert mended["repaired"] == {"loaded": 999, "dead_lettered": 2, "removed": 0, "refused": 0}
    assert mended["partitions"][0]["dead_lettered"] == 2
    assert job.census(ROWS).exact


@jobs(("table", "path"), ("parquet", "path"))
def test_only_what_is_asked_for_is_looked_at_and_nothing_behind_the_commit(job: Job) -> None:
    take_out(job.target, *range(1500, 2500))
    job.broker.produce(job.topic, [b'{"late": 1}'] * 50, partition=0)

    (whole,) = job.ask("verify", "--to", "999999", code=1)["partitions"]
    assert (whole["to"], whole["behind"]) == (RECORDS + 3, 50)
    (part,) = job.ask("verify", "--from", "2000", "--to", "2600", code=1)["partitions"]
    assert (part["from"], part["to"], part["missing"]["first_ranges"]) == (2000, 2600, [[2000, 2499, 500]])
    assert part["target_beyond"] == RECORDS + 2
    assert job.ask("verify", "--from", "2500", "--partition", "0")["missing"] == 0
    assert job.ask("verify", "--from", "2999-01-01")["records"] == 0
    assert job.ask("verify", "--to", "2001-01-01")["records"] == 0

    job.ask("repair", "--yes", "--from", "2000", "--to", "2600")
    assert job.census(ROWS - set(range(1500, 2000))).exact


@jobs(("table", "path"))
def test_duplicates_that_kafka_no_longer_has_are_left_alone_and_said(job: Job) -> None:
    double(job.target, 10, 19)
    job.broker.delete_records(job.partition, 15)

    found = job.ask("verify", code=1)["partitions"][0]
    assert (found["from"], found["duplicated"]["first_ranges"]) == (15, [[15, 19, 5]])
    mended = job.ask("repair", "--yes", "--remove-duplicates")
    assert mended["repaired"]["removed"] == 5
    assert [offset for _, offset in job.census(ROWS).duplicated] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@jobs(("table", "path"))
def test_repair_keeps_its_hands_off_while_the_group_has_members(job: Job, protocol: str) -> None:
    take_out(job.target, *range(1500, 2500))
    with BatcherProcess(*job.flags, "-X", f"group.protocol={protocol}") as running:
        running.wait_for("partitions_assigned")
        assert "has 1 members: stop the pipeline first" in job.said("repair", "--yes", code=78)
        assert not job.census(ROWS).exact
        # Looking is allowed.
        job.ask("verify", code=1)
        job.ask("repair", "--yes", "--force")
    assert job.census(ROWS).exact


@jobs(("table", "path"))
def test_a_group_that_never_committed_proves_nothing_unless_it_is_said_how_far_it_should_be(
    job: Job, new_group: Callable[[], str]
) -> None:
    take_out(job.target, *range(1500, 2500))
    other = ("-g", new_group())
    assert "has no committed offset" in job.said("verify", *other, code=78)
    (found,) = job.ask("verify", *other, "--to", "2000", code=1)["partitions"]
    # Letters of another group do not count.
    assert found["missing"]["first_ranges"] == [[7, 7, 1], [1500, 1999, 500]]
    assert (found["committed"], found["behind"]) == (None, None)


@jobs(("table", "path"))
def test_records_that_expired_before_they_were_read_and_a_log_that_was_cut_do_not_add_up(job: Job) -> None:
    job.broker.commit(job.group, {job.partition: Position(RECORDS + 500)})
    assert job.ask("verify", code=1)["partitions"][0]["cut"] == 497

    job.broker.commit(job.group, {job.partition: Position(1000)})
    job.broker.delete_records(job.partition, 1200)
    found = job.ask("verify", code=1)["partitions"][0]
    assert (found["expired_unread"], found["records"]) == (200, 0)


def test_a_target_that_cannot_be_asked_is_78(
    request: pytest.FixtureRequest, broker: Broker, new_topic: NewTopic
) -> None:
    topic = new_topic()
    broker.produce(topic, EventGenerator(seed=1).take(10), partition=0)
    job = Job(request, topic, table(request, TableKind(coordinates=False, window=100)))
    job.run()
    assert "has not all of _topic, _partition, _offset" in job.said("verify", code=78)


def test_a_log_that_was_compacted_since_adds_up_and_is_mended_as_far_as_it_goes(
    request: pytest.FixtureRequest, broker: Broker, new_topic: NewTopic
) -> None:
    topic = new_topic(1, **COMPACTED)
    orders = EventGenerator(seed=1).take(40)
    # Ten keys four times: compaction leaves the last ten, and never the last segment.
    broker.produce(topic, orders, keys=[b"%d" % (number % 10) for number in range(40)], partition=0)
    job = Job(request, topic, table(request, TableKind()))
    job.run()

    deadline = time.monotonic() + CLEANED_WITHIN_S
    while True:
        # Aborted transactions make segments in which nothing is to be read.
        transaction(broker, topic, {b"x": b"x"}, commit=False)
        job.run()
        take_out(job.target, 0)
        (found,) = job.ask("verify", "--to", "40", code=None)["partitions"]
        if found["records"] == 10:
            break
        assert time.monotonic() < deadline, found
    assert (found["written"], found["only_in_target"], found["gaps"], found["adds_up"]) == (10, 29, 30, True)

    take_out(job.target, *range(25, 35))
    double(job.target, 10, 11)
    double(job.target, 39, 39)
    (found,) = job.ask("verify", code=1)["partitions"]
    assert found["missing"]["first_ranges"] == [[30, 34, 5]]
    assert found["duplicated"]["first_ranges"] == [[10, 11, 2], [39, 39, 1]]
    mended = job.ask("repair", "--yes", "--remove-duplicates", code=1)["repaired"]
    assert mended == {"loaded": 6, "dead_lettered": 0, "removed": 1, "refused": 2}
    census = job.census({*range(1, 25), *range(30, 40)})
    assert (census.lost, census.foreign, [offset for _, offset in census.duplicated]) == ([], [], [10, 11])


def rows_with(column: str, root: Path) -> int:
    """Return how many rows of the files below a root have a value in a column."""
    files = [pq.read_table(file) for file in root.glob("**/*.parquet")]
    return sum(len(file) - file[column].null_count for file in files if column in file.column_names)


def test_topics_of_one_root_keep_their_fields_and_verify_names_those_that_are_not_stored(
    request: pytest.FixtureRequest, broker: Broker, new_topic: NewTopic, tmp_path: Path
) -> None:
    topics = {shape: new_topic() for shape in SHAPES}
    for shape, topic in topics.items():
        broker.produce(topic, list(documents(shape, 2000)), partition=0)
    chosen = "^(" + "|".join(topics.values()) + ")$"
    target = ParquetDirectory(tmp_path / "out")
    job = Job(request, chosen, target, ("--dlq.path", str(tmp_path / "dead")))
    summary = job.run()

    assert {path.name for path in target.path.iterdir() if path.is_dir()} >= set(topics.values())
    assert rows_with("installation", target.path) == rows_with("ts_ns", target.path) == 0
    assert rows_with("repository", target.path / topics["webhooks"]) == 2000
    found = job.ask("verify")
    assert (found["missing"], found["duplicated"], found["records"]) == (0, 0, 14_000)
    named = {name.split(": ")[1] for name in found["unknown_fields"]}
    assert named == set(summary["unknown_fields"])
    assert found["unknown_fields"][f"{topics['webhooks']}: installation"] == summary["unknown_fields"]["installation"]
    assert not found["unknown_fields_estimated"]
    assert "complete, but fields of the records are not stored: " in job.said("verify")

    next((target.path / topics["changes"]).glob("*.parquet")).unlink()
    assert job.ask("verify", code=1)["missing"] == 1000
    repaired = job.ask("repair", "--yes")
    assert (repaired["repaired"]["loaded"], repaired["missing"]) == (1000, 0)
    assert rows_with("op", target.path / topics["changes"]) == 2000


@jobs(("table", "path"))
def test_rows_and_dead_letters_that_the_log_never_had_are_named(job: Job, tmp_path: Path) -> None:
    (file,) = (tmp_path / "letters").glob("*.ndjson")
    letter = json.loads(file.read_text().splitlines()[0])
    assert "complete" in job.said("verify")

    with file.open("a") as letters:
        letters.write(json.dumps({**letter, "offset": RECORDS + 7}) + "\n")
    assert job.ask("verify", code=1)["partitions"][0]["dead_letters_beyond"] == [RECORDS + 7, RECORDS + 7, 1]
    assert "a fault of batcher and not of the topic" in job.said("verify", code=1)

    assert isinstance(job.target, ClickHouseTable)
    server, name = job.target.server, job.target.arguments[-1]
    copied = f"SELECT * REPLACE (_offset + 10000 AS _offset) FROM (SELECT * FROM {name} WHERE _offset < 20)"
    server.query(f"INSERT INTO {name} {copied}")
    assert "but the target holds rows up to offset 10019: the topic was cut or made anew" in job.said("verify", code=1)
