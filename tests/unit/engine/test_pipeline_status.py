import threading
from dataclasses import replace

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.core.buffer import FlushPolicy
from batcher.engine.assembly import DeliveryMode
from batcher.engine.pipeline import STUCK_S, Pipeline
from batcher.engine.retry import RetryPolicy
from batcher.errors import SinkUnavailable
from batcher.records import Batch, Block, Decoded, Partition, UnknownField
from batcher.telemetry.metrics import Metrics
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource

A = Partition("events", 0)


@pytest.mark.parametrize(("delivery", "commits"), [("exactly-once", 2), ("at-least-once", 1)])
def test_a_run_can_be_followed_from_start_to_end_by_status_and_metrics(delivery: DeliveryMode, commits: int) -> None:
    log = MemoryLog([A])
    log.produce(A, ["1", "2", None])
    metrics = Metrics("memory")
    pipeline = Pipeline(
        MemorySource(log, until_eof=True),
        ScriptedSink(NUMBERS),
        NumberFormat(),
        name="group",
        subscribers=[metrics],
        delivery=delivery,
    )
    metrics.watch(pipeline.status)
    assert pipeline.status().state == "starting"

    pipeline.run()

    status = pipeline.status()
    assert (status.state, status.delivery, status.group, status.target) == (
        "stopped",
        delivery,
        "group",
        "memory",
    )
    assert (status.counts.consumed, status.counts.written, status.counts.skipped) == (3, 2, 1)
    page = metrics.render()
    assert 'batcher_records_consumed_total{partition="0",topic="events"} 3.0' in page
    assert f'batcher_commits_total{{outcome="ok"}} {commits}.0' in page
    assert "batcher_batches_total{" in page
    for phase in ("fetch", "commit", "decode", "write"):
        assert f'batcher_loop_seconds_total{{phase="{phase}"}} 0.0\n' not in page


def test_while_the_target_is_away_the_status_says_so_and_the_process_counts_as_alive() -> None:
    log = MemoryLog([A])
    log.produce(A, ["1"])
    sink = ScriptedSink(NUMBERS)
    told = threading.Event()
    pipeline = Pipeline(
        MemorySource(log),
        sink,
        NumberFormat(),
        name="group",
        retry=RetryPolicy("linear", 0.001, 0.001),
        max_records=1,
    )
    seen: list[tuple[str, str | None, bool]] = []

    def away(_: Block) -> None:
        error = pipeline.status().last_error
        if error is None:
            raise SinkUnavailable("memory is away")
        seen.append((pipeline.status().waiting_for, error.kind, pipeline.alive))
        told.set()

    sink.before = away
    pipeline.run()

    assert told.is_set()
    assert seen == [("the target: memory is away", "SinkUnavailable", True)]
    error = pipeline.status().last_error
    assert error is not None
    assert error.recovered


def test_a_member_without_partitions_stands_by_and_is_ready() -> None:
    pipeline = Pipeline(
        MemorySource(MemoryLog([A]), partitions=[]), ScriptedSink(NUMBERS), NumberFormat(), name="group"
    )
    assert pipeline.ready == (False, "starting")
    runner = threading.Thread(target=pipeline.run)
    runner.start()
    ready = threading.Event()
    for _ in range(3000):
        if pipeline.ready[0]:
            ready.set()
            break
        ready.wait(0.01)
    pipeline.stop()
    runner.join(30)

    assert ready.is_set()
    assert pipeline.ready == (False, "stopped")


def test_a_fetch_loop_that_hangs_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog([A])
    log.produce(A, ["1"])
    pipeline = Pipeline(MemorySource(log), ScriptedSink(NUMBERS), NumberFormat(), name="group", max_records=1)
    pipeline.run()
    assert pipeline.alive

    monkeypatch.setattr(pipeline, "_ended", False)
    monkeypatch.setattr(pipeline._fetch, "_stepped_at", pipeline._fetch._clock() - STUCK_S)
    assert not pipeline.alive


@pytest.mark.parametrize(("asked", "said"), [("auto", "exactly-once"), ("at-least-once", "at-least-once")])
def test_the_guarantee_is_said_in_the_first_line_of_the_log(asked: DeliveryMode, said: str) -> None:
    log = MemoryLog([A])
    source = MemorySource(log, until_eof=True)
    pipeline = Pipeline(source, ScriptedSink(NUMBERS), NumberFormat(), name="group", delivery=asked)
    with capture_logs() as lines:
        pipeline.run()

    assert lines[0]["event"] == "pipeline_started"
    assert lines[0]["delivery"] == said


def test_as_a_library_the_log_stays_out_of_the_programs_output(capsys: pytest.CaptureFixture[str]) -> None:
    Pipeline(MemorySource(MemoryLog([A]), until_eof=True), ScriptedSink(NUMBERS), NumberFormat(), name="group").run()

    assert capsys.readouterr().out == ""


def test_readiness_says_why_when_the_target_has_refused_for_long_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog([A])
    log.produce(A, ["1", "2"])
    sink = ScriptedSink(NUMBERS)
    pipeline = Pipeline(
        MemorySource(log),
        sink,
        NumberFormat(),
        name="group",
        retry=RetryPolicy("linear", 0.001, 0.001),
        flush=FlushPolicy(max_rows=2),
    )
    seen: list[tuple[bool, str]] = []

    def refuse_for_long(_: Block) -> None:
        monkeypatch.setattr("batcher.engine.pipeline.READY_PATIENCE_S", 1000.0 if len(seen) < 1 else -1.0)
        seen.append(pipeline.ready)
        if len(seen) < 4:
            raise SinkUnavailable("memory: wrong password (code 516)")

    sink.before = refuse_for_long
    sink.after = lambda _: pipeline.stop()
    pipeline.run()

    assert seen[0] == (True, "")
    assert seen[2] == (
        False,
        "the target has refused for 0 s: SinkUnavailable: memory: wrong password (code 516)",
    )
    error = pipeline.status().last_error
    assert error is not None
    assert error.recovered


def test_what_is_not_stored_is_in_the_summary_the_status_and_the_metrics() -> None:
    class Known(NumberFormat):
        def decoder(self, schema: pa.Schema) -> "Known":
            return Known(schema)

        def decode(self, batch: Batch) -> Decoded:
            decoded = super().decode(batch)
            return replace(decoded, unknown=(UnknownField("city", len(decoded.positions), 0),), estimated=True)

    log = MemoryLog([A])
    log.produce(A, ["1", "2", "x"])
    metrics = Metrics("memory")
    schema = pa.schema([*NUMBERS, pa.field("City", pa.string())])
    pipeline = Pipeline(
        MemorySource(log, until_eof=True),
        ScriptedSink(schema),
        Known(),
        name="group",
        dead_letters=MemoryDeadLetterQueue(),
        subscribers=[metrics],
    )
    metrics.watch(pipeline.status)
    with capture_logs() as lines:
        summary = pipeline.run()

    status = pipeline.status()
    for one in (summary, status):
        assert one.unknown_fields == {"city": 2}
        assert one.unknown_fields_estimated
        assert one.dead_letter_reasons == {"syntax": 1}
        assert one.columns_without_value == ("City",)
    assert status.to_dict()["unknown_fields"] == {"city": 2}
    page = metrics.render()
    assert 'batcher_unknown_fields_total{field="city"} 2.0' in page
    assert 'batcher_dead_letter_reasons_total{reason="syntax"} 1.0' in page
    named = {line["event"]: line for line in lines}
    assert named["unknown_field"]["field"] == "city"
    assert named["column_without_value"]["hint"] == "no record has it; did you mean `city`?"
