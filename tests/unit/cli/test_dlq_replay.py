"""Letters loaded again: exactly those that the target lacks, and nothing that is there is touched."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.cli.support import replay as replaying
from batcher.cli.support.replay import Loading, islands, replay, spans
from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.core.offsets import named
from batcher.dead_letters.directory import DirectoryDeadLetterQueue
from batcher.dead_letters.kit.report import Pace, ReplayReport, steps
from batcher.dead_letters.kit.select import StoredLetter
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import BlockRejected, ConfigurationError, RowsRejected, SinkUnavailable
from batcher.protocols import Sink, Transformed
from batcher.records import Block, DeadLetter, Partition, Record, Rejection
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import AnsweringSink, FileSink, MemorySink, TableSink
from batcher.testing.transforms import ScriptedTransform
from batcher.transforms.format import TransformedFormat
from sinks.parquet import one_root
from sinks.parquet.sink import ParquetSink
from tests.harness.processes import Ending, run

EVENTS = Partition("events", 0)
FIRST_MS = 1_700_000_000_000


def stored(
    offset: int, value: bytes | None = None, partition: Partition = EVENTS, *, none: bool = False
) -> StoredLetter:
    content = None if none else str(offset).encode() if value is None else value
    record = Record(partition, offset, FIRST_MS + offset, b"k", content, (("h", b"1"),))
    return StoredLetter(DeadLetter(record, "decode", "syntax", "is not a number"), "g", None, "here")


def loaded(
    sink: Sink, letters: Iterable[StoredLetter], *, dry_run: bool = False, name: str = "g", elapsed_s: float = 0.001
) -> ReplayReport:
    report = ReplayReport()
    retry = RetryPolicy(wait_s=0.0001, max_wait_s=0.0001, max_elapsed_s=elapsed_s)
    made = Loading(
        sink,
        sink.open(),
        NumberFormat(),
        report,
        retry=retry,
        abort=threading.Event(),
        name=name,
        dry_run=dry_run,
    )
    made.take(list(letters))
    return report


def there(sink: MemorySink) -> list[int]:
    return sorted(int(str(row["_offset"])) for row in sink.rows())


def holding(sink: AnsweringSink, offsets: Sequence[int], partition: Partition = EVENTS) -> None:
    """Have a pipeline of the group `g` load these records as one batch."""
    Pipeline(sink).load(offsets, partition)


class Pipeline:
    """Load batches as a pipeline does: as live records, under its own name."""

    def __init__(self, sink: Sink) -> None:
        self.writer = Writer(
            sink,
            sink.open(),
            NumberFormat(),
            dead_letters=MemoryDeadLetterQueue(),
            limit=DeadLetterLimit(DeadLetterPolicy()),
            retry=RetryPolicy(max_elapsed_s=0.001),
            abort=threading.Event(),
        )

    def load(self, offsets: Sequence[int], partition: Partition = EVENTS, *, bad: Sequence[int] = ()) -> None:
        records = [stored(offset, b"x" if offset in bad else None, partition) for offset in offsets]
        self.writer.write(self.writer.prepare(named("g", replaying.batch_of([records]))))


TABLES: list[Callable[[], AnsweringSink]] = [lambda: TableSink(NUMBERS), lambda: FileSink(NUMBERS)]
BOTH = pytest.mark.parametrize("made", TABLES, ids=["table", "files"])


@BOTH
def test_what_is_missing_is_loaded_and_what_is_there_is_not_duplicated(made: Callable[[], AnsweringSink]) -> None:
    sink = made()
    Pipeline(sink).load(range(10), bad=(3, 7))
    report = loaded(sink, [stored(7), stored(3), stored(4)])
    assert (report.replayed, report.already_there, report.all_there) == (2, 1, True)
    assert there(sink) == list(range(10))


@BOTH
def test_a_second_replay_loads_none(made: Callable[[], AnsweringSink]) -> None:
    sink = made()
    letters = [stored(offset) for offset in (5, 1, 9)]
    loaded(sink, letters)
    report = loaded(sink, letters)
    assert (report.replayed, report.already_there) == (0, 3)
    assert there(sink) == [1, 5, 9]


@BOTH
def test_what_fails_again_is_named_and_the_rest_loads(made: Callable[[], AnsweringSink]) -> None:
    sink = made()
    report = loaded(sink, [stored(1), stored(2, b"x"), stored(3), stored(4, none=True)])
    assert there(sink) == [1, 3]
    assert [failure.id for failure in report.failures] == ["events:0:2"]
    assert report.facts()["failed_again"] == {"syntax": 1}
    assert report.facts()["skipped"] == {"no_value": 1}
    assert not report.all_there


@BOTH
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_a_transform_filters_by_now_is_told_apart(
    made: Callable[[], AnsweringSink], monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    def small(rows: pa.RecordBatch) -> Transformed:
        return Transformed(rows.filter(pc.less(rows.column("n"), 3)))

    form = TransformedFormat(NumberFormat(), ScriptedTransform(small))
    monkeypatch.setattr(f"{__name__}.NumberFormat", lambda: form)
    report = loaded(made(), [stored(1), stored(2, b"x"), stored(3)], dry_run=dry_run)
    assert (report.replayed, report.facts()["skipped"]) == (1, {"filtered": 1})
    assert report.facts()["failed_again"] == {"syntax": 1}


@BOTH
def test_what_fails_again_and_is_there_all_the_same_is_not_called_failed(made: Callable[[], AnsweringSink]) -> None:
    sink = made()
    holding(sink, [2])
    report = loaded(sink, [stored(1), stored(2, b"x"), stored(3, b"x")])
    assert (report.replayed, report.already_there) == (1, 1)
    assert [failure.id for failure in report.failures] == ["events:0:3"]


@BOTH
def test_letters_of_several_partitions_do_not_get_mixed_up(made: Callable[[], AnsweringSink]) -> None:
    sink, other = made(), Partition("other", 7)
    holding(sink, [1], other)
    report = loaded(sink, [stored(1), stored(1, partition=other), stored(2, b"x"), stored(2, partition=other)])
    assert (report.replayed, report.already_there) == (2, 1)
    assert [failure.id for failure in report.failures] == ["events:0:2"]
    rows = {(row["_topic"], row["_offset"]) for row in sink.rows()}
    assert rows == {("other", 1), ("events", 1), ("other", 2)}


@BOTH
def test_a_dry_run_counts_the_same_and_writes_nothing(made: Callable[[], AnsweringSink]) -> None:
    sink = made()
    holding(sink, [1])
    before = sink.rows()
    report = loaded(sink, [stored(1), stored(2, b"x"), stored(3)], dry_run=True)
    assert (report.replayed, report.already_there, len(report.failures)) == (1, 1, 1)
    assert sink.rows() == before


def test_a_dry_run_pins_no_schema() -> None:
    sink = FileSink()
    assert loaded(sink, [stored(1), stored(2, b"x")], dry_run=True).replayed == 1
    assert sink.schema is None


def test_rows_that_the_target_refuses_again_are_named() -> None:
    sink = TableSink(NUMBERS)

    def refuse(block: Block) -> None:
        bad = [row for row, number in enumerate(block.table["n"].to_pylist()) if number == 2]
        if bad:
            raise RowsRejected([Rejection(row, "overflow", "does not fit", "n") for row in bad])

    sink.before = refuse
    report = loaded(sink, [stored(1), stored(2), stored(3)])
    assert there(sink) == [1, 3]
    assert [(failure.id, failure.reason) for failure in report.failures] == [("events:0:2", "overflow")]


def test_every_letter_may_fail_again_however_many_there_are() -> None:
    sink = TableSink(NUMBERS)

    def refuse(_block: Block) -> None:
        raise BlockRejected("refused")

    sink.before = refuse
    report = loaded(sink, [*(stored(offset) for offset in range(64)), *(stored(o, b"x") for o in range(64, 3000))])
    assert report.facts()["failed_again"] == {"refused": 64, "syntax": 2936}


def test_a_target_that_is_away_for_long_ends_the_replay() -> None:
    sink = TableSink(NUMBERS)

    def away(_question: str) -> None:
        raise SinkUnavailable("not now")

    sink.on_question = away
    with pytest.raises(SinkUnavailable):
        loaded(sink, [stored(1)])


@pytest.mark.parametrize("sink", [MemorySink(NUMBERS), AnsweringSink(NUMBERS)], ids=["no answers", "no promise"])
def test_a_target_that_cannot_be_asked_is_refused_with_what_to_do(sink: MemorySink) -> None:
    with pytest.raises(ConfigurationError, match=r"_topic, _partition and _offset.*--to topic"):
        loaded(sink, [stored(1)])


def test_a_token_of_a_replay_is_none_that_the_pipeline_gave() -> None:
    sink = TableSink(NUMBERS)
    holding(sink, [1])
    of_pipeline = set(sink.attempts)
    loaded(sink, [stored(1), stored(2)])
    loaded(sink, [stored(1)])
    assert of_pipeline.isdisjoint(set(sink.attempts) - of_pipeline)
    assert all("|letters|" in token for token in set(sink.attempts) - of_pipeline)


OFFSETS = st.sets(st.integers(0, 40), min_size=1)


@settings(deadline=None, max_examples=60)
@given(OFFSETS, OFFSETS)
def test_between_the_ends_of_an_island_nothing_is_there_and_none_is_lost(letters: set[int], held: set[int]) -> None:
    missing = sorted(letters - held)
    cut = [[one.letter.record.offset for one in run] for run in islands([stored(o) for o in missing], sorted(held))]
    assert [offset for run in cut for offset in run] == missing
    assert all(not held & set(range(run[0], run[-1] + 1)) for run in cut)
    # As few as can be: neighbouring islands have something between them.
    assert all(held & set(range(one[-1], other[0])) for one, other in pairwise(cut))


@settings(deadline=None, max_examples=60)
@given(OFFSETS, st.integers(1, 20))
def test_a_span_covers_no_more_offsets_than_it_may(letters: set[int], most: int) -> None:
    cut = [[one.letter.record.offset for one in run] for run in spans([stored(o) for o in sorted(letters)], most)]
    assert [offset for run in cut for offset in run] == sorted(letters)
    assert all(run[-1] - run[0] < most for run in cut)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sets(st.integers(0, 12), min_size=1), st.sets(st.integers(0, 12)))), st.booleans())
def test_whatever_is_replayed_in_whatever_order_each_row_is_there_once(
    rounds: list[tuple[set[int], set[int]]], files: bool
) -> None:
    """Each round loads some letters, of which some fail again; a file is replaced by one of its name."""
    sink = FileSink(NUMBERS) if files else TableSink(NUMBERS)
    Pipeline(sink).load([0, 4, 8, 12], bad=(0, 12))
    expected = {4, 8}
    for letters, bad in rounds:
        loaded(sink, [stored(offset, b"x" if offset in bad else None) for offset in sorted(letters)])
        expected |= letters - bad
    assert there(sink) == sorted(expected)


def test_the_ends_of_a_file_are_not_written_under_its_name(parquet: Callable[[], ParquetSink], root: Path) -> None:
    Pipeline(parquet()).load(range(100, 200), bad=(100, 105, 106, 199))
    (before,) = files(root)
    content = before.read_bytes()
    report = loaded(parquet(), [stored(offset) for offset in (100, 105, 106, 199)])
    assert (report.replayed, report.all_there) == (4, True)
    assert before.read_bytes() == content
    ranges = sorted(file.name[-49:-8].lstrip("0") for file in files(root) if file != before)
    assert len(ranges) == 3
    found = parquet().present(EVENTS, 0, 1000).to_pylist()
    assert found == list(range(100, 200))
    assert rows_in(root) == list(range(100, 200))
    assert dict(parquet().max_offset_above({EVENTS: 200})) == {}


def test_a_group_of_another_name_does_not_overwrite_files_either(
    parquet: Callable[[], ParquetSink], root: Path
) -> None:
    Pipeline(parquet()).load(range(10), bad=(0, 9))
    loaded(parquet(), [stored(0), stored(9)], name="other")
    assert rows_in(root) == list(range(10))


def test_a_file_of_an_earlier_replay_is_not_overwritten_by_a_later_one(
    parquet: Callable[[], ParquetSink], root: Path
) -> None:
    first = loaded(parquet(), [stored(1, b"x"), stored(2), stored(3, b"x")])
    second = loaded(parquet(), [stored(1), stored(2), stored(3)])
    assert (first.replayed, second.replayed, second.already_there) == (1, 2, 1)
    assert rows_in(root) == [1, 2, 3]


def test_files_in_directories_by_column_are_left_alone_too(root: Path, request: pytest.FixtureRequest) -> None:
    def parquet() -> ParquetSink:
        sink = one_root({"path": str(root), "schema": NUMBERS, "partition_by": ("n",)})
        sink.open()
        request.addfinalizer(sink.close)
        return sink

    Pipeline(parquet()).load(range(6), bad=(0, 2, 5))
    before = {file: file.read_bytes() for file in root.rglob("*.parquet")}
    loaded(parquet(), [stored(0), stored(2, b"x"), stored(5)])
    loaded(parquet(), [stored(0), stored(2), stored(5)])
    assert {file: file.read_bytes() for file in before} == before
    assert parquet().present(EVENTS, 0, 100).to_pylist() == list(range(6))
    assert len(list(root.rglob("*.parquet"))) == 6


def test_however_many_letters_the_target_still_refuses_the_others_are_loaded() -> None:
    sink = TableSink(NUMBERS)

    def refuse(block: Block) -> None:
        if any(number % 2 for number in block.table["n"].to_pylist()):
            raise BlockRejected("constraint", "constraint")

    sink.before = refuse
    report = loaded(sink, [stored(offset) for offset in range(1200)], elapsed_s=60.0)
    assert (report.replayed, dict(report.failed_again)) == (600, {"constraint": 600})


def test_files_without_offsets_cannot_be_asked(root: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--parquet\.coordinates default"):
        loaded(one_root({"path": str(root), "coordinates": "none", "schema": NUMBERS}), [stored(1)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def parquet(root: Path, request: pytest.FixtureRequest) -> Callable[[], ParquetSink]:
    """Return what makes sinks on one root, each as if by another process."""

    def make() -> ParquetSink:
        sink = one_root({"path": str(root), "schema": NUMBERS})
        sink.open()
        request.addfinalizer(sink.close)
        return sink

    return make


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*.parquet"))


def rows_in(root: Path) -> list[int]:
    return sorted(offset for file in files(root) for offset in pq.ParquetFile(file).read()["_offset"].to_pylist())


KILLING = """
import os, signal
from sinks.parquet import one_root as parquet

def plugin(options):
    sink = parquet(options)
    write, left = sink.write, [int(os.environ["WRITES"])]
    def counted(block):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        write(block)
    sink.write = counted
    return sink
"""


def test_a_replay_that_was_killed_between_two_batches_is_finished_by_running_it_again(tmp_path: Path) -> None:
    queue = DirectoryDeadLetterQueue(str(tmp_path / "dead"), "g")
    queue.open()
    queue.send([stored(offset, f'{{"n": {offset}}}'.encode()).letter for offset in range(40)])
    queue.close()
    (tmp_path / "killing.py").write_text(KILLING)
    root = tmp_path / "root"
    flags = ("--dlq.path", "dead", "--sink", "killing:plugin", "--options", f"path={root}", "--batch.max-rows", "10")

    def replay(writes: int) -> Ending:
        return run("dlq", "replay", *flags, "--json", environment={"WRITES": str(writes)}, directory=tmp_path)

    assert replay(2).code == -signal.SIGKILL
    assert rows_in(root) == list(range(20))
    done = replay(100)
    assert done.code == 0, done.stderr
    facts = done.facts
    assert (facts["replayed"], facts["already_there"], facts["exit"]) == (20, 20, 0)
    assert rows_in(root) == list(range(40))
    assert done.stderr == ""


def test_a_step_is_bounded_by_rows_and_bytes_and_keeps_the_order() -> None:
    letters = [stored(offset, b"x" * size) for offset, size in enumerate((10, 10, 10, 500, 10))]
    by_rows = [[one.letter.record.offset for one in step] for step in steps(letters, 2, 10_000)]
    by_bytes = [[one.letter.record.offset for one in step] for step in steps(letters, 100, 40)]
    assert by_rows == [[0, 1], [2, 3], [4]]
    assert by_bytes == [[0, 1, 2], [3], [4]]


def test_a_replay_that_is_stopped_ends_between_two_steps_and_says_so() -> None:
    stop = threading.Event()
    taken: list[int] = []

    def take(step: list[StoredLetter]) -> None:
        taken.append(len(step))
        stop.set()

    assert not replay([[stored(1)], [stored(2)]], take, lambda _: None, stop)
    assert taken == [1]
    stop.clear()
    assert replay([[stored(1)]], taken.append, lambda _: None, stop)  # type: ignore[arg-type]


class Waits(threading.Event):
    """Keep how long was waited, in a time that only passes then."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now_s += timeout or 0
        return False


def test_no_more_letters_a_second_go_through_than_the_rate_says() -> None:
    stop = Waits()
    pace = Pace(4.0, stop, lambda: stop.now_s)
    assert pace.step(100_000) == 4
    pace.passed(4)
    assert stop.now_s == pytest.approx(101.0)
    stop.now_s += 5  # the target took its time
    pace.passed(4)
    assert stop.now_s == pytest.approx(106.0)


def test_below_one_letter_a_second_they_go_one_by_one_and_without_a_rate_all_at_once() -> None:
    stop = Waits()
    slow = Pace(0.5, stop, lambda: stop.now_s)
    assert slow.step(10) == 1
    slow.passed(1)
    assert stop.now_s == pytest.approx(102.0)
    assert Pace(None, stop).step(10) == 10
    Pace(None, stop).passed(10)
    assert stop.now_s == pytest.approx(102.0)


def test_records_of_letters_keep_key_time_and_headers() -> None:
    letters = [stored(1), StoredLetter(DeadLetter(Record(EVENTS, 2, None, None, b""), "sink", "r", "m"), "", None, "")]
    batch = replaying.batch_of([letters])
    assert [batch.record(position) for position in (0, 1)] == [one.letter.record for one in letters]
    assert batch.runs[0].timestamps_ms.equals(pa.array([FIRST_MS + 1, None], pa.int64()))
    assert not batch.replayed
